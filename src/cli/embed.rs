//! `themo embed`.

use std::path::PathBuf;

use clap::Args;
use toml::Table;

use super::positive;
use crate::compute::Precision;
use crate::data::image::Transparency;

pub(super) const EXAMPLES: &str = "\
Examples:
  themo embed --version-path logs/demo/version_0 --texts es.txt \\
      --output es.safetensors
  themo embed --model data/demo/models/toy-clip --images photos \\
      --output photos.safetensors
  echo 'una luna azul' | themo embed --version-path logs/demo/version_0 \\
      --texts - --output one.safetensors";

/// The options of `themo embed`.
#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// Folder of a run (its best checkpoint is used) or of one of its checkpoints
    ///
    /// Texts go through its student, images through the CLIP that it was trained on. A run or a .ckpt, .pt, .pth or
    /// .bin file of the Python Themo works too.
    #[arg(long, value_name = "DIR", required_unless_present = "model", conflicts_with = "model")]
    pub version_path: Option<PathBuf>,
    /// A CLIP, or an M-CLIP for texts only
    ///
    /// A folder, or the name of a model on the hub (owner/name or owner/name@revision).
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// BERT from which a checkpoint of the Python Themo was trained
    ///
    /// A folder, or the name of a model on the hub (owner/name or owner/name@revision). Its configuration and
    /// tokenizer are used.
    #[arg(long, value_name = "MODEL", requires = "version_path")]
    student: Option<String>,
    /// CLIP of --version-path [default: the run's]
    ///
    /// A folder, or the name of a model on the hub (owner/name or owner/name@revision).
    #[arg(long, value_name = "MODEL", requires = "version_path")]
    teacher: Option<String>,
    /// Text file with one text per line; - reads standard input
    ///
    /// An empty line is an empty text. No text is changed.
    #[arg(long, value_name = "FILE")]
    pub texts: Option<PathBuf>,
    /// Folder of images, or a file with one path per line (- for standard input)
    ///
    /// The images of a folder are sorted by name; files that are not images, or cannot be decoded, are left out and
    /// counted. In a list, such a file is an error before any work starts.
    #[arg(long, value_name = "PATH")]
    pub images: Option<PathBuf>,
    /// What becomes of transparent pixels: alpha is dropped, or laid over white [default: the run's, else drop]
    ///
    /// drop is what OpenAI's CLIP, open_clip and transformers 4 do; white is what transformers 5 does.
    #[arg(long, value_parser = Transparency::NAMES)]
    pub transparency: Option<String>,
    /// The safetensors file to write; - writes standard output
    ///
    /// A file is replaced when all vectors are there. Devices and pipes get them then, from a temporary file in TMPDIR.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Give every vector length 1
    #[arg(long)]
    pub normalize: bool,
    /// Images per batch
    #[arg(long, value_name = "N", default_value = "128", value_parser = positive)]
    pub batch_size: usize,
    /// auto, cpu, cuda, cuda:N or metal
    ///
    /// GPUs need a build with --features cuda, cudnn or metal, and are experimental. auto takes the first GPU that
    /// this build supports and that can be opened, else the CPU.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Precision of matrix multiplications
    ///
    /// bf16 rounds their operands to bf16; sums, weights and everything else stay f32. It is faster on CPUs with
    /// AVX512-BF16 or AMX. auto chooses bf16 on such CPUs and f32 elsewhere.
    #[arg(long, default_value = "f32", value_parser = Precision::NAMES)]
    pub precision: String,
}

impl EmbedArgs {
    /// The settings given, under the keys of the configuration.
    pub fn settings(&self) -> Table {
        let given = [("student", &self.student), ("teacher", &self.teacher), ("transparency", &self.transparency)];
        given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?.into()))).collect()
    }
}

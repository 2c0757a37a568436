//! `themo embed`.

use std::path::PathBuf;

use clap::Args;
use toml::Table;

use super::positive;
use crate::data::image::Transparency;
use crate::nn::Precision;

pub(super) const EXAMPLES: &str = "\
The file holds `text_embeds` [texts, dim] and `image_embeds` [images, dim] in
f32 and input order; its metadata key `image_names` is a JSON list. In a folder,
images that cannot be used are left out and counted; in a list they are an
error before any work starts.

Examples:
  themo embed --version-path logs/demo/version_0 --texts es.txt --output es.safetensors
  themo embed --model data/demo/models/toy-clip --images photos --output im.safetensors
  echo 'una luna azul' | themo embed --version-path logs/demo/version_0 \\
      --texts - --output one.safetensors";

/// The options of `themo embed`.
#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// Folder of a run (its best checkpoint) or of one of its checkpoints: Spanish
    /// texts through its student, images through the CLIP it was trained on; or a
    /// run or a .ckpt, .pt, .pth or .bin file of the Python Themo
    #[arg(long, value_name = "DIR", required_unless_present = "model", conflicts_with = "model")]
    pub version_path: Option<PathBuf>,
    /// A CLIP's own text and image towers, or an M-CLIP's texts: a folder or a
    /// hub id (owner/name, owner/name@revision)
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// The BERT that a .ckpt file of the Python Themo was trained from
    #[arg(long, value_name = "MODEL", requires = "version_path")]
    student: Option<String>,
    /// The CLIP of --version-path [default: the run's]
    #[arg(long, value_name = "MODEL", requires = "version_path")]
    teacher: Option<String>,
    /// One text a line; - reads standard input
    #[arg(long, value_name = "FILE")]
    pub texts: Option<PathBuf>,
    /// Folder of images (sorted by name), or a file (- for standard input) with
    /// one path a line
    #[arg(long, value_name = "PATH")]
    pub images: Option<PathBuf>,
    /// What becomes of transparent pixels: alpha is dropped, or laid over white as
    /// transformers 5 does [default: the run's, else drop]
    #[arg(long, value_parser = Transparency::NAMES)]
    pub transparency: Option<String>,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Give every vector length 1
    #[arg(long)]
    pub normalize: bool,
    /// Images at once
    #[arg(long, value_name = "N", default_value = "128", value_parser = positive)]
    pub batch_size: usize,
    /// auto, cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Matrix products in f32, in bf16 (operands rounded, sums f32), or auto: bf16
    /// where the CPU is faster at it
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

//! `themo export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use toml::Table;

pub(super) const EXAMPLES: &str = "\
Examples:
  themo export logs/demo/version_0 --output exports/demo
  themo export logs/demo/version_0 --output exports/demo-images \\
      --with-images
  themo export logs/demo/version_0 --output exports/demo-clip \\
      --for open-clip --hub-name maria/themo-demo";

/// The program that is to load the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFor {
    /// sentence-transformers, and text-embeddings-inference, which reads the same folder
    SentenceTransformers,
    /// open_clip: student and image tower together
    OpenClip,
}

/// The options of `themo export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Folder of a run (its best checkpoint is used) or of one of its checkpoints
    ///
    /// A run or a .ckpt, .pt, .pth or .bin file of the Python Themo works too.
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// The folder to make
    ///
    /// It must not exist, or be empty. It appears whole, or not at all.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// The program that is to load it
    #[arg(long = "for", value_name = "PROGRAM", value_enum, default_value = "sentence-transformers")]
    pub program: ExportFor,
    /// Add the teacher's image tower, in the folder image
    ///
    /// The model card says how both are loaded. An export for open-clip always has it.
    #[arg(long)]
    pub with_images: bool,
    /// Where on the hub the folder will lie [default: DIR's absolute path]
    ///
    /// The model card's examples name it. open_clip reads the student's configuration from there, so an export for
    /// open-clip without it works at that path only.
    #[arg(long, value_name = "OWNER/NAME")]
    pub hub_name: Option<String>,
    /// BERT from which a checkpoint of the Python Themo was trained
    ///
    /// A folder, or the name of a model on the hub (owner/name or owner/name@revision).
    #[arg(long, value_name = "MODEL")]
    student: Option<String>,
    /// CLIP whose text projection is used [default: the run's]
    ///
    /// A folder, or the name of a model on the hub (owner/name or owner/name@revision).
    #[arg(long, value_name = "MODEL")]
    teacher: Option<String>,
}

impl ExportArgs {
    /// The settings given, under the keys of the configuration.
    pub fn settings(&self) -> Table {
        let given = [("student", &self.student), ("teacher", &self.teacher)];
        given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?.into()))).collect()
    }
}

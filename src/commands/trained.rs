//! What `--version-path` names: a run of themo, or one of the Python Themo.

use std::path::{Path, PathBuf};

use toml::Table;

use super::model_folder;
use crate::config::Config;
use crate::data::tokens::TextTokenizer;
use crate::error::{Error, Result};
use crate::hub::Part;
use crate::models::Student;
use crate::nn::{Compute, Pooling};
use crate::run_dir::RunDir;
use crate::train::checkpoint::find_best;
use crate::train::lightning::Lightning;

/// A trained student that has not been loaded yet.
pub struct Trained {
    /// How it was trained, as far as is known, overlaid by the options given now.
    pub config: Config,
    /// The folder of its checkpoint, or PyTorch Lightning's file.
    pub checkpoint: PathBuf,
    /// Where the results of its evaluation go.
    pub eval: PathBuf,
}

impl Trained {
    /// The run in the folder `path`, or the Lightning run or file there, with the `settings` given now.
    pub fn open(path: &Path, settings: Table) -> Result<Self> {
        let lightning = if path.join("config.toml").exists() { None } else { Lightning::find(path)? };
        if let Some(Lightning { file, eval, max_sequence_length }) = lightning {
            let mut table = Table::new();
            if let Some(length) = max_sequence_length.and_then(|length| i64::try_from(length).ok()) {
                table.insert("max-sequence-length".into(), length.into());
            }
            table.extend(settings);
            return Ok(Self { config: Config::resolve(None, table)?, checkpoint: file, eval });
        }
        let run = RunDir::open(path)?;
        let config = run_config(&run, settings)?;
        Ok(Self { config, checkpoint: find_best(&run.checkpoints())?, eval: run.eval() })
    }

    /// The student and its tokenizer. What a Lightning checkpoint lacks, the BERT's configuration and tokenizer, is
    /// that of the student in the configuration.
    pub fn load(&self, compute: &Compute) -> Result<(Student, TextTokenizer)> {
        let (student, folder) = if self.checkpoint.is_dir() {
            (Student::from_checkpoint(&self.checkpoint, compute)?, self.checkpoint.clone())
        } else {
            let bert = model_folder("--student", &self.config.student, &[Part::Tokenizer])?;
            (Student::from_lightning(&self.checkpoint, &bert, Pooling::Mean, compute)?, bert)
        };
        Ok((student, TextTokenizer::from_folder(&folder, self.config.max_sequence_length)?))
    }
}

/// The configuration of a run, overlaid by the options given now.
pub(super) fn run_config(run: &RunDir, settings: Table) -> Result<Config> {
    if !run.config().exists() {
        return Err(Error::new(format!("{} has no config.toml", run.path().display()))
            .hint("it is written when a run starts and says which teacher it belongs to; test the run's own folder"));
    }
    Config::resolve(Some(&run.config()), settings)
}

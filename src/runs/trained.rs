//! What `--version-path` names: a run of themo or one of its checkpoints, or a run or a checkpoint of the Python Themo.

use std::path::{Path, PathBuf};

use toml::Table;

use crate::compute::Compute;
use crate::config::Config;
use crate::data::tokens::TextTokenizer;
use crate::error::{Error, Result};
use crate::hub::Part;
use crate::models::Student;
use crate::models::student::HEAD_FILE;
use crate::nn::{Params, Pooling};
use crate::runs::RunDir;
use crate::runs::checkpoint::find_best;
use crate::runs::folder::CONFIG;
use crate::runs::lightning::Lightning;
use crate::ui::model_folder;

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
    /// The run in the folder `path` (its best checkpoint), the checkpoint there, or the Lightning run or file there, with
    /// the `settings` given now.
    pub fn open(path: &Path, settings: Table) -> Result<Self> {
        if path.join(HEAD_FILE).exists() {
            return Self::open_checkpoint(path, settings);
        }
        let lightning = if path.join(CONFIG).exists() { None } else { Lightning::find(path)? };
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

    /// The checkpoint in the folder `path`: of a run, whose settings it has, or copied to somewhere else.
    fn open_checkpoint(path: &Path, settings: Table) -> Result<Self> {
        let absolute = std::path::absolute(path)?;
        let run = absolute.ancestors().nth(2).filter(|run| run.join(CONFIG).exists());
        let (config, eval) = match run.map(RunDir::open).transpose()? {
            Some(run) => {
                let name = absolute.file_name().unwrap_or_default();
                (run_config(&run, settings)?, run.eval().join(name))
            }
            None => (Config::resolve(None, settings)?, path.join("eval")),
        };
        Ok(Self { config, checkpoint: path.to_owned(), eval })
    }

    /// The student and its tokenizer. What a Lightning checkpoint lacks, the BERT's configuration and tokenizer, is
    /// that of the student in the configuration.
    pub fn load(&self, compute: &Compute) -> Result<(Student, TextTokenizer)> {
        let (student, tokenizer, _) = self.load_with(compute, Params::frozen(compute.backend))?;
        Ok((student, tokenizer))
    }

    /// [`Self::load`], the student's parameters listed in `params` unless these are frozen; and the folder of the
    /// tokenizer's files.
    pub fn load_with(&self, compute: &Compute, params: Params) -> Result<(Student, TextTokenizer, PathBuf)> {
        let (student, folder) = if self.checkpoint.is_dir() {
            (Student::from_checkpoint_with(&self.checkpoint, compute, params)?, self.checkpoint.clone())
        } else {
            let bert = model_folder("--student", &self.config.models.student, &[Part::Tokenizer])?;
            (Student::from_lightning_with(&self.checkpoint, &bert, Pooling::Mean, compute, params)?, bert)
        };
        let tokenizer = TextTokenizer::from_folder(&folder, self.config.data.max_sequence_length)?;
        Ok((student, tokenizer, folder))
    }

    /// Whether [`Self::config`] is that of the run, and not the defaults: a checkpoint by itself has none.
    pub fn has_settings(&self) -> bool {
        let run = self.checkpoint.parent().and_then(Path::parent);
        run.is_some_and(|run| run.join(CONFIG).exists())
    }
}

/// The configuration of a run for work in this folder: its relative paths are made those of the folder that it was
/// started in, and it is overlaid by the options given now, whose paths are of this one.
pub fn run_config(run: &RunDir, settings: Table) -> Result<Config> {
    let mut config = written_config(run)?;
    if let Some(base) = foreign_base(run) {
        config.start_from(&base);
    }
    config.overlaid(settings)
}

/// The folder that a run was started in, if this is another one.
pub(super) fn foreign_base(run: &RunDir) -> Option<PathBuf> {
    let base = run.started_in()?;
    if !base.is_dir() {
        let (run, base) = (run.path().display(), base.display());
        tracing::warn!("{base}, where {run} was started, is gone: its relative paths mean the current folder");
        return None;
    }
    let is_here = std::env::current_dir().and_then(|here| Ok(here.canonicalize()? == base.canonicalize()?));
    (!is_here.unwrap_or(false)).then_some(base)
}

/// The configuration of a run as it was written.
pub(super) fn written_config(run: &RunDir) -> Result<Config> {
    if !run.config().exists() {
        return Err(Error::new(format!("{} has no config.toml", run.path().display()))
            .hint("it is written when a run starts and says which teacher it belongs to; test the run's own folder"));
    }
    let mut config = Config::resolve(Some(&run.config()), Table::new())?;
    // Runs from before there were these keys took captions as they are.
    let written = std::fs::read_to_string(run.config()).ok().and_then(|text| text.parse::<Table>().ok());
    let has = |key| written.as_ref().is_none_or(|table| table.contains_key(key));
    config.data.normalize &= has("normalize");
    config.text.clean &= has("clean");
    if !has("dataset") && config.data.pairs.is_empty() {
        config.data.dataset = vec!["wit".to_owned()]; // which was the default
    }
    Ok(config)
}

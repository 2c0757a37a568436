//! What `--version-path` names: a run of themo or one of its checkpoints, or a run or a checkpoint of the Python Themo.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
use crate::runs::checkpoint::{ASIDE, STATE_FILE, find_best};
use crate::runs::folder::CONFIG;
use crate::runs::lightning::Lightning;
use crate::ui::model_folder;

/// How often a checkpoint that is replaced while it is read is looked for again.
const MOST_TRIES: usize = 50;

/// A trained student that has not been loaded yet.
pub struct Trained {
    /// How it was trained, as far as is known, overlaid by the options given now.
    pub config: Config,
    /// The folder of its checkpoint, or PyTorch Lightning's file.
    checkpoint: RefCell<PathBuf>,
    /// The run of which this is the best checkpoint.
    run: Option<RunDir>,
    /// Where the results of its evaluation go.
    pub eval: PathBuf,
}

impl Trained {
    /// The run in the folder `path` (its best checkpoint), the checkpoint there, or the Lightning run or file there, with
    /// the `settings` given now.
    pub fn open(path: &Path, settings: Table) -> Result<Self> {
        if is_checkpoint(path) {
            return Self::open_checkpoint(path, settings);
        }
        let lightning = if path.join(CONFIG).exists() { None } else { Lightning::find(path)? };
        if let Some(Lightning { file, eval, max_sequence_length }) = lightning {
            let mut table = Table::new();
            if let Some(length) = max_sequence_length.and_then(|length| i64::try_from(length).ok()) {
                table.insert("max-sequence-length".into(), length.into());
            }
            table.extend(settings);
            let (config, checkpoint) = (Config::resolve(None, table)?, RefCell::new(file));
            return Ok(Self { config, checkpoint, run: None, eval });
        }
        let run = RunDir::open(path)?;
        let config = run_config(&run, settings)?;
        let checkpoint = RefCell::new(find_best(&run.checkpoints())?);
        Ok(Self { config, checkpoint, eval: run.eval(), run: Some(run) })
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
        Ok(Self { config, checkpoint: RefCell::new(path.to_owned()), run: None, eval })
    }

    /// The folder of its checkpoint, or PyTorch Lightning's file; of a run that is in training, the one that was loaded.
    pub fn checkpoint(&self) -> PathBuf {
        self.checkpoint.borrow().clone()
    }

    /// The student and its tokenizer. What a Lightning checkpoint lacks, the BERT's configuration and tokenizer, is
    /// that of the student in the configuration.
    ///
    /// A run that is in training replaces `last`, and removes what is no longer among the best: where that happens
    /// meanwhile, the checkpoint that is there then is loaded.
    pub fn load(&self, compute: &Compute) -> Result<(Student, TextTokenizer)> {
        let (student, tokenizer, _) = self.load_with(compute, || Params::frozen(compute.backend))?;
        Ok((student, tokenizer))
    }

    /// [`Self::load`], the student's parameters listed in what `params` gives unless these are frozen; and the folder of
    /// the tokenizer's files.
    pub fn load_with(
        &self, compute: &Compute, params: impl Fn() -> Params,
    ) -> Result<(Student, TextTokenizer, PathBuf)> {
        for _ in 0..MOST_TRIES {
            let checkpoint = self.checkpoint();
            let before = version_of(&checkpoint);
            let loaded = self.load_from(&checkpoint, compute, params());
            if checkpoint.is_file() || (before.is_some() && version_of(&checkpoint) == before) {
                return loaded;
            }
            std::thread::sleep(Duration::from_millis(20));
            if let Some(run) = &self.run {
                self.checkpoint.replace(find_best(&run.checkpoints())?);
            }
        }
        self.load_from(&self.checkpoint(), compute, params())
    }

    fn load_from(
        &self, checkpoint: &Path, compute: &Compute, params: Params,
    ) -> Result<(Student, TextTokenizer, PathBuf)> {
        let (student, folder) = if checkpoint.is_file() {
            let bert = model_folder("--student", &self.config.models.student, &[Part::Tokenizer])?;
            (Student::from_lightning_with(checkpoint, &bert, Pooling::Mean, compute, params)?, bert)
        } else {
            (Student::from_checkpoint_with(checkpoint, compute, params)?, checkpoint.to_owned())
        };
        let tokenizer = TextTokenizer::from_folder(&folder, self.config.data.max_sequence_length)?;
        Ok((student, tokenizer, folder))
    }

    /// Whether [`Self::config`] is that of the run, and not the defaults: a checkpoint by itself has none.
    pub fn has_settings(&self) -> bool {
        let checkpoint = self.checkpoint();
        let run = checkpoint.parent().and_then(Path::parent);
        run.is_some_and(|run| run.join(CONFIG).exists())
    }
}

/// Whether `path` is a checkpoint, if need be in a moment: one that is being replaced has another name for an instant.
fn is_checkpoint(path: &Path) -> bool {
    let aside = path.with_file_name(format!("{ASIDE}{}", path.file_name().unwrap_or_default().to_string_lossy()));
    for _ in 0..MOST_TRIES {
        let is_replaced = aside.exists();
        if path.join(HEAD_FILE).exists() || !is_replaced {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    path.join(HEAD_FILE).exists()
}

/// What changes whenever the checkpoint in `folder` does; none if there is none now.
fn version_of(folder: &Path) -> Option<Vec<u8>> {
    let is_there = folder.join(HEAD_FILE).exists();
    is_there.then(|| std::fs::read(folder.join(STATE_FILE)).unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::models::TokenizerFacts;
    use crate::models::student::Head;
    use crate::runs::State;
    use crate::runs::checkpoint::{Checkpoints, Snapshot};
    use crate::runs::state::Measured;

    #[test]
    fn a_checkpoint_that_is_replaced_meanwhile_is_not_missed() {
        let (dir, compute) = (tempfile::tempdir().unwrap(), Compute::new(Device::Cpu));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/models/toy-beto");
        let student = Student::load(&source, Head::new(Pooling::Mean, 20), 0, &compute).unwrap();
        let run = RunDir::create(dir.path(), "a", &Config::default().to_toml().unwrap()).unwrap();
        let facts = TokenizerFacts { padding: None, class: None };
        let mut checkpoints = Checkpoints::open(run.checkpoints(), &source, facts, 1).unwrap();
        let mut save = |epoch: usize, value: f64| {
            let (monitor, maximise) = ("train/loss".into(), false);
            let measured = Measured { epoch, train_loss: 1.0, val_loss: None, monitor, value, maximise };
            let state = State { steps: epoch, epoch: epoch + 1, measured: Some(measured), ..State::default() };
            checkpoints.save_epoch(Snapshot { student: &student, moments: &[] }, &state, &state).unwrap();
        };
        save(0, 0.5);
        let open = |path: &Path| Trained::open(path, Table::new()).unwrap();
        let (best, last) = (open(run.path()), open(&run.checkpoints().join("last")));
        save(1, 0.25);
        for (trained, name) in [(best, "epoch=1_train-loss=0.2500"), (last, "last")] {
            trained.load(&compute).unwrap();
            assert!(trained.checkpoint().ends_with(name), "{}", trained.checkpoint().display());
        }
    }
}

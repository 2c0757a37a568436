//! Checkpoints: folders that hold a student and all it needs, written whole or not at all.
//!
//! `checkpoints/epoch=E_train-loss=L` is the best so far (the original's names), `checkpoints/last` the newest. Each
//! holds `model.safetensors`, `themo.json`, the BERT's `config.json`, its tokenizer and `state.json`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::tokens::TOKENIZER_FILES;
use crate::error::{Error, Result, ResultExt};
use crate::models::Student;
use crate::models::student::HEAD_FILE;
use crate::models::weights::read_json;

/// Where in the run a checkpoint was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct State {
    /// Epochs finished.
    pub epochs: usize,
    /// Steps done.
    pub steps: usize,
    /// Mean training loss of the last epoch; none before the first.
    pub train_loss: Option<f64>,
    /// Validation loss after it, where there is validation data.
    pub val_loss: Option<f64>,
}

const LAST: &str = "last";
const STATE_FILE: &str = "state.json";

/// The checkpoints folder of a run.
pub struct Checkpoints {
    dir: PathBuf,
    /// The folder the student came from: its configuration and tokenizer go into every checkpoint.
    source: PathBuf,
    best: Option<PathBuf>,
}

impl Checkpoints {
    /// Checkpoints in `dir` of a student loaded from `source`.
    pub fn new(dir: PathBuf, source: &Path) -> Result<Self> {
        fs::create_dir_all(&dir).context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self { dir, source: source.to_owned(), best: None })
    }

    /// Writes `last`.
    pub fn save_last(&self, student: &Student, state: &State) -> Result<PathBuf> {
        self.save(student, state, LAST)
    }

    /// Writes a new best and then removes the one before it.
    pub fn save_best(&mut self, student: &Student, state: &State) -> Result<PathBuf> {
        let loss = state.train_loss.unwrap_or(f64::NAN);
        let name = format!("epoch={}_train-loss={loss:.4}", state.epochs.saturating_sub(1));
        let path = self.save(student, state, &name)?;
        if let Some(old) = self.best.replace(path.clone()).filter(|old| *old != path) {
            fs::remove_dir_all(&old).context(|| format!("cannot remove {}", old.display()))?;
        }
        Ok(path)
    }

    /// Writes everything beside the final place, synced, then renames.
    fn save(&self, student: &Student, state: &State, name: &str) -> Result<PathBuf> {
        let failed = || format!("cannot write the checkpoint {name} in {}", self.dir.display());
        let full = || "check the free space and the permissions; earlier checkpoints are untouched";
        let temporary =
            tempfile::Builder::new().prefix(".writing-").tempdir_in(&self.dir).context(failed).hint(full)?;
        let fill = || -> Result<()> {
            student.save(temporary.path())?;
            fs::copy(self.source.join("config.json"), temporary.path().join("config.json"))?;
            for file in TOKENIZER_FILES {
                if self.source.join(file).exists() {
                    fs::copy(self.source.join(file), temporary.path().join(file))?;
                }
            }
            fs::write(temporary.path().join(STATE_FILE), serde_json::to_string_pretty(state)? + "\n")?;
            for entry in fs::read_dir(temporary.path())? {
                fs::File::open(entry?.path())?.sync_all()?;
            }
            Ok(())
        };
        fill().context(failed).hint(full)?;
        let path = self.dir.join(name);
        // A folder cannot replace another in one step: the old one steps aside, and is removed at the end.
        let aside = self.dir.join(format!(".old-{name}"));
        let swap = || -> Result<()> {
            if aside.exists() {
                fs::remove_dir_all(&aside)?;
            }
            if path.exists() {
                fs::rename(&path, &aside)?;
            }
            // tempfile makes folders for the owner alone; a checkpoint is for whoever may read the run.
            #[cfg(unix)]
            fs::set_permissions(temporary.path(), fs::metadata(&self.dir)?.permissions())?;
            fs::rename(temporary.path(), &path)?;
            fs::File::open(&self.dir)?.sync_all()?;
            if aside.exists() {
                fs::remove_dir_all(&aside)?;
            }
            Ok(())
        };
        swap().context(failed).hint(full)?;
        Ok(path)
    }
}

/// The checkpoint to test: the best one of a run's `checkpoints` folder, else `last`.
pub fn find_best(dir: &Path) -> Result<PathBuf> {
    let mut best: Option<(f64, PathBuf)> = None;
    let entries =
        fs::read_dir(dir).map(|entries| entries.filter_map(|e| e.ok()).collect::<Vec<_>>()).unwrap_or_default();
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        if !name.to_string_lossy().starts_with("epoch=") || !path.join(HEAD_FILE).exists() {
            continue;
        }
        let state: State = read_json(&path.join(STATE_FILE))?;
        let loss = state.train_loss.unwrap_or(f64::INFINITY);
        if best.as_ref().is_none_or(|(b, _)| loss < *b) {
            best = Some((loss, path));
        }
    }
    if let Some((_, path)) = best {
        return Ok(path);
    }
    // `.old-last` is what is left if a run was killed between the two renames of a replacement.
    [LAST, ".old-last"].map(|name| dir.join(name)).into_iter().find(|path| path.join(HEAD_FILE).exists()).ok_or_else(
        || {
            Error::new(format!("no checkpoint in {}", dir.display())).hint(
                "the run may have been stopped before its first epoch ended; train again, or choose another version",
            )
        },
    )
}

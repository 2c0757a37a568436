//! `themo train --resume`: which run, with which settings, from where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::State;
use crate::config::Config;
use crate::config::recipe::Schedule;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::fs::{quoted, write_atomic};
use crate::runs::RunDir;
use crate::runs::checkpoint::{find_last, read_state, tidy};
use crate::runs::trained::{foreign_base, written_config};

/// Settings that a resumed run may change: they decide when it ends and what it writes, not what it computes.
const CHANGEABLE: [&str; 6] = ["max-epochs", "max-steps", "patience", "checkpoint-every", "keep-best", "cache-dir"];

/// Settings that it may change with `--override`.
const WITH_OVERRIDE: [&str; 3] = ["learn-rate", "device", "precision"];

/// A run to resume, locked by this process.
pub struct Resumed {
    /// Its folder.
    pub run: RunDir,
    /// Its newest checkpoint; none if it was killed before the first.
    pub checkpoint: Option<PathBuf>,
    found: Option<State>,
    /// Its config.toml, if the options given now change it.
    rewritten: Option<String>,
}

/// Locks the run at `path` and reads its newest state.
pub fn open(path: &Path, flags: Table, overriding: bool) -> Result<(Config, Resumed)> {
    let doing = || format!("cannot resume {}", path.display());
    let mut run = RunDir::open(path)?;
    // What is typed now means this folder, what was written means that where the run was started.
    let written = written_config(&run)?;
    let (mut old, mut typed) = (written.clone(), flags.clone());
    let base = foreign_base(&run);
    if let Some(base) = &base {
        old.start_from(base);
        let mut here = Config::resolve(None, flags.clone())?;
        here.start_from(&std::env::current_dir()?);
        let here = Table::try_from(here).map_err(|e| Error::new(e.to_string()))?;
        for (key, value) in &mut typed {
            if let Some(here) = here.get(key) {
                value.clone_from(here);
            }
        }
    }
    let new = old.overlaid(typed.clone())?;
    refuse_contradictions(&old, &new, &typed, overriding).context(doing)?;
    run.lock()?;
    if run.checkpoints().is_dir() {
        tidy(&run.checkpoints()).context(doing)?;
    }
    let checkpoint = find_last(&run.checkpoints());
    let found = checkpoint.as_deref().map(|folder| read_state(folder).map_err(|e| unreadable(e, folder)));
    let found = found.transpose().context(doing)?;
    let rewritten = if new == old { None } else { Some(written.overlaid(typed)?.to_toml()?) };
    Ok((new, Resumed { run, checkpoint, found, rewritten }))
}

/// `error` of reading the checkpoint to resume from, with what helps.
pub fn unreadable(error: Error, checkpoint: &Path) -> Error {
    if error.kind() != Kind::Failure {
        return error;
    }
    Error::new(error.to_string()).hint(format!(
        "if the checkpoint is damaged, remove {}: the run then resumes from the newest one that is left, or begins again",
        quoted(checkpoint)
    ))
}

fn refuse_contradictions(old: &Config, new: &Config, flags: &Table, overriding: bool) -> Result<()> {
    let table = |config: &Config| Table::try_from(config).map_err(|e| Error::new(e.to_string()));
    // A schedule that falls to zero at the end computes something else with another end.
    let ends = |key: &str| old.recipe.schedule != Schedule::Constant && matches!(key, "max-epochs" | "max-steps");
    let free = |key: &str| CHANGEABLE.contains(&key) && !ends(key);
    let overridable = |key: &str| WITH_OVERRIDE.contains(&key) || ends(key);
    let (old, new) = (table(old)?, table(new)?);
    for key in flags.keys().filter(|key| old.get(*key) != new.get(*key) && !free(key)) {
        let shown = |table: &Table| table.get(key).map_or("not set".to_owned(), Value::to_string);
        let (setting, flag) = match key.as_str() {
            "shuffle" => ("shuffle =".to_owned(), "no-shuffle"),
            "normalize" => ("normalize =".to_owned(), "no-normalize"),
            "clean" => ("clean =".to_owned(), "no-clean"),
            key => (format!("--{key}"), key),
        };
        let what = format!("the run has {setting} {}, not {}", shown(&old), shown(&new));
        if !overridable(key) {
            return Err(Error::usage(what).hint(format!(
                "leave --{flag} out, or start a new run; a resumed one may change only {}, and with --override {}",
                CHANGEABLE.join(", "),
                WITH_OVERRIDE.join(", ")
            )));
        }
        if !overriding {
            return Err(
                Error::usage(what).hint("add --override if the rest of the run is to differ from its beginning")
            );
        }
        tracing::warn!("{key} is {} from here on, it was {}", shown(&new), shown(&old));
    }
    Ok(())
}

impl Resumed {
    /// The message for the user if there is nothing left to do.
    pub fn finished(&self, config: &Config) -> Option<String> {
        let state = self.found.as_ref().filter(|state| state.finished && state.limit(config).is_some())?;
        let (run, quoted) = (self.run.path().display(), quoted(self.run.path()));
        Some(format!(
            "{run} is finished: {} epochs, {} steps\n\
             test it with    themo test --version-path {quoted}\n\
             resume it with  themo train --resume {quoted} --max-epochs N (or --max-steps, --patience)",
            state.epochs(),
            state.steps
        ))
    }

    /// The state to resume from; fails if the run was about other training pairs than those of the fingerprint `data`,
    /// or had other `inputs`.
    pub fn state(&self, seed: u64, data: String, inputs: BTreeMap<String, String>) -> Result<State> {
        let Some(state) = self.found.clone() else { return Ok(State::new(seed, data, inputs)) };
        if let Some(what) = state.differs(&data, &inputs) {
            return Err(Error::new(format!("{what} are not those that the run began with"))
                .context(format!("cannot resume {}", self.run.path().display()))
                .hint("put the files back as they were; checkpoints/last can start a new run with --student"));
        }
        tracing::info!("resuming after step {} in epoch {}", state.steps, state.epoch);
        Ok(State { inputs, ..state })
    }

    /// Writes to its config.toml what the options given now change: once nothing speaks against the resume any more.
    pub fn keep_settings(&self) -> Result<()> {
        self.rewritten.as_ref().map_or(Ok(()), |text| write_atomic(&self.run.config(), text.as_bytes()))
    }
}

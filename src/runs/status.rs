//! `status.json`: whether a run is in progress, or how it ended, for `themo runs`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::{now, since_1970};
use crate::error::Result;
use crate::fs::write_json;
use crate::runs::RunDir;

/// Whether a run is in progress, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// A process is training now.
    Running,
    /// It reached one of its limits.
    Finished,
    /// It was asked to stop, and can be resumed.
    Stopped,
    /// Its process was killed (by a power cut or kill -9), and it can be resumed.
    Interrupted,
    /// It ended with an error.
    Failed,
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}").to_lowercase())
    }
}

/// What `status.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// Whether the run is in progress, or how it ended.
    pub state: RunState,
    /// When the run began, in seconds since 1970.
    pub started: u64,
    /// When it ended, in seconds since 1970; none while it runs.
    pub ended: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Status {
    /// The status of a run. One that says it is running, but that no process has locked, is interrupted; so is one
    /// without a status that can be read, which an older version left, or which was killed in its first moment.
    pub fn of(run: &RunDir) -> Self {
        let written = Self::read(run).unwrap_or_else(|| {
            let written = std::fs::metadata(run.config()).and_then(|config| config.modified()).ok();
            let started = written.map_or(0, |time| since_1970(time).as_secs());
            Self { state: RunState::Interrupted, started, ended: None, error: None }
        });
        let state = match (run.is_running(), written.state) {
            (true, _) => RunState::Running,
            (false, RunState::Running) => RunState::Interrupted,
            (false, other) => other,
        };
        Self { state, ..written }
    }

    fn read(run: &RunDir) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(run.status()).ok()?).ok()
    }

    /// Notes that a process trains in `run`; a resumed run keeps the time it began.
    pub fn begin(run: &RunDir) -> Result<Self> {
        let status = Self { state: RunState::Running, ended: None, error: None, ..Self::of(run) };
        status.write(run)?;
        Ok(status)
    }

    /// Notes how it ended; a disk that is full by now is only warned about.
    pub fn end(self, run: &RunDir, state: RunState, error: Option<String>) {
        if let Err(error) = (Self { state, ended: Some(now().as_secs()), error, ..self }).write(run) {
            tracing::warn!("{error}");
        }
    }

    /// Notes that `run` is finished, if its status says otherwise: it was killed after its last checkpoint.
    pub fn set_finished(run: &RunDir) {
        if Self::read(run).is_none_or(|status| status.state != RunState::Finished) {
            Self::of(run).end(run, RunState::Finished, None);
        }
    }

    fn write(&self, run: &RunDir) -> Result<()> {
        write_json(&run.status(), self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_running_only_while_its_folder_is_locked() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), "a", "").unwrap();
        assert_eq!(Status::of(&run).state, RunState::Running, "it is locked");
        let status = Status::begin(&run).unwrap();
        assert_eq!(Status::of(&run).state, RunState::Running);
        let path = run.path().to_owned();
        drop(run);
        let mut run = RunDir::open(&path).unwrap();
        assert_eq!(Status::of(&run), Status { state: RunState::Interrupted, ..status.clone() });
        std::fs::remove_file(run.status()).unwrap();
        let age = |status: Status| now().as_secs() - status.started;
        assert!(Status::of(&run).state == RunState::Interrupted && age(Status::of(&run)) < 3600);
        run.lock().unwrap();
        Status { started: 7, ..status }.write(&run).unwrap();
        let status = Status::begin(&run).unwrap();
        assert_eq!(status.started, 7, "a resumed run began when it began");
        status.end(&run, RunState::Failed, Some("why".into()));
        drop(run);
        let ended = Status::of(&RunDir::open(&path).unwrap());
        assert_eq!((ended.state, ended.error.as_deref()), (RunState::Failed, Some("why")));
        assert!(ended.ended.is_some());
        let run = RunDir::open(&path).unwrap();
        Status::set_finished(&run);
        let finished = Status::of(&run);
        assert_eq!((finished.state, finished.error, finished.started), (RunState::Finished, None, 7));
    }
}

//! What a run leaves on disk while it trains: metrics, checkpoints, and the report of a divergence.
//!
//! A full disk does not stop a run: what could not be written is warned about and tried again at the next occasion,
//! and only [`Journal::finish`] fails, if the end of the run is still missing then.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::RunDir;
use super::checkpoint::{Checkpoints, Snapshot};
use super::state::State;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::fs::write_json;
use crate::models::TokenizerFacts;
use crate::record::hparams::Hparams;
use crate::record::{Logged, OptionalColumns, Recorder};

/// A step whose loss or gradient is not finite.
#[derive(Clone, Copy, Debug)]
pub struct Diverged {
    /// Counted from 0.
    pub epoch: usize,
    /// Counted from 1.
    pub step: usize,
    /// The learning rate of this step.
    pub learn_rate: f64,
    /// The loss of its batch.
    pub loss: f64,
    /// The norm of the gradient, over all parameters.
    pub gradient_norm: f64,
}

/// The files of one run, or none where nothing is to be written (`--fast-dev-run`).
pub struct Journal {
    files: Option<Files>,
    /// When `last` was written, or the run began.
    saved: Instant,
    /// Why the newest state is not on disk.
    unsaved: Option<Error>,
}

struct Files {
    /// Where a divergence is reported.
    diverged: PathBuf,
    recorder: Recorder,
    checkpoints: Checkpoints,
}

impl Journal {
    /// Writes nothing.
    pub fn none() -> Self {
        Self { files: None, saved: Instant::now(), unsaved: None }
    }

    /// Opens the files in the folder of a run, cut back to `state`. `source` is the folder the student came from, and its
    /// tokenizer.
    pub fn open(
        run: &RunDir, source: (&Path, TokenizerFacts), config: &Config, hparams: &Hparams, state: &State,
    ) -> Result<Self> {
        let checkpoints = Checkpoints::open(run.checkpoints(), source.0, source.1, config.logging.keep_best)?;
        checkpoints.cut_back(state)?;
        let columns = OptionalColumns { speed: config.logging.log_speed, recall: config.recipe.measures_recall() };
        let recorder = Recorder::open(run.path(), hparams, columns, &state.recorded, state.steps)?;
        let files = Files { diverged: run.diverged(), recorder, checkpoints };
        Ok(Self { files: Some(files), ..Self::none() })
    }

    /// Writes a row of metrics.
    pub fn record(&mut self, logged: &Logged) {
        if let Some(files) = &mut self.files {
            files.recorder.record(logged);
        }
    }

    /// Notes that the monitored metric has a new best value.
    pub fn record_best(&mut self, step: usize, value: f64) {
        if let Some(files) = &mut self.files {
            files.recorder.record_best(step, value);
        }
    }

    /// Writes into `state` how many rows and bytes of metrics there are.
    pub fn stamp(&self, state: &mut State) {
        state.recorded = self.files.as_ref().map(|files| files.recorder.position()).unwrap_or_default();
    }

    /// How long ago `last` was written.
    pub fn since_saved(&self) -> Duration {
        self.saved.elapsed()
    }

    /// Writes `last`, with the position of the metrics in its state.
    pub fn save_last(&mut self, snapshot: Snapshot, state: &mut State) {
        self.saved = Instant::now();
        self.stamp(state);
        let Some(Files { recorder, checkpoints, .. }) = &mut self.files else { return };
        // The state must not promise rows that a power cut can take.
        let saved = recorder.sync().and_then(|()| checkpoints.save_last(snapshot, state));
        self.note(saved.map(drop));
    }

    /// Writes what is kept after an epoch: the student that `ended` describes if it is among the best, and `last` with
    /// the state to resume from, which is `ended` unless another is given.
    pub fn save_epoch(&mut self, snapshot: Snapshot, ended: &mut State, last: Option<State>) {
        self.saved = Instant::now();
        self.stamp(ended);
        let Some(Files { recorder, checkpoints, .. }) = &mut self.files else { return };
        let mut save = || {
            recorder.sync()?;
            checkpoints.save_epoch(snapshot, ended, last.as_ref().unwrap_or(ended))
        };
        let saved = save();
        self.note(saved);
    }

    fn note(&mut self, saved: Result<()>) {
        self.unsaved = saved.err();
        if let Some(error) = &self.unsaved {
            tracing::warn!("{error}; the run continues");
        }
    }

    /// Writes the batch at which training diverged to diverged.json; returns its path.
    pub fn write_diverged<'a>(
        &self, batch: impl Iterator<Item = (usize, (&'a str, &'a str))>, diverged: &Diverged,
    ) -> Option<PathBuf> {
        let files = self.files.as_ref()?;
        let Diverged { epoch, step, learn_rate, loss, gradient_norm } = *diverged;
        let caption = |(i, (es, en))| json!({"pair": i, "es": es, "en": en});
        let number = |value: f64| if value.is_finite() { json!(value) } else { json!(value.to_string()) };
        let report = json!({
            "epoch": epoch,
            "step": step,
            "learn-rate": learn_rate,
            "loss": number(loss),
            "gradient-norm": number(gradient_norm),
            "captions": batch.map(caption).collect::<Vec<_>>(),
        });
        match write_json(&files.diverged, &report) {
            Ok(()) => Some(files.diverged.clone()),
            Err(error) => {
                tracing::warn!("{error}");
                None
            }
        }
    }

    /// Notes how the run ended (unless it was only stopped); fails if its end is not on disk.
    pub fn finish(&mut self, success: Option<bool>) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        if let Some(success) = success {
            files.recorder.record_end(success);
        }
        let flushed = files.recorder.flush();
        self.unsaved.take().map_or(flushed, Err)
    }
}

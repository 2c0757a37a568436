//! The record of a run, for people and tools: metrics, hyper-parameters, environment.
//!
//! A [`Recorder`] writes every [`Logged`] step to `metrics.csv` and to a TensorBoard event file, at once and in full,
//! so that a run that is stopped has lost none.

mod append;
pub mod environment;
pub mod hparams;
pub mod metrics;
mod protobuf;
pub mod tensorboard;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use hparams::Hparams;
use metrics::{METRICS, Metrics};
use tensorboard::EventFile;

/// What was measured at one step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Logged {
    /// Counted from 0.
    pub epoch: usize,
    /// Optimizer steps done since the start of the run.
    pub step: usize,
    /// Whether the row is that of an epoch's end.
    pub ends_epoch: bool,
    /// The loss of this step, or the mean over the epoch at its end.
    pub train_loss: Option<f64>,
    /// The loss of the validation pairs, at the end of an epoch.
    pub val_loss: Option<f64>,
    /// The share of the probe's captions that rank their own vector first.
    pub val_recall: Option<f64>,
    /// The learning rate of this step.
    pub lr: Option<f64>,
    /// Student tokens per second of training.
    pub tokens_per_sec: Option<f64>,
}

impl Logged {
    /// The values under the names that TensorBoard gives them.
    fn values(&self) -> [(&'static str, Option<f64>); 5] {
        [
            (if self.ends_epoch { "train/loss_epoch" } else { "train/loss" }, self.train_loss),
            ("val/loss", self.val_loss),
            ("lr", self.lr),
            ("tokens_per_sec", self.tokens_per_sec),
            ("val/recall@1", self.val_recall),
        ]
    }
}

/// The lengths of the files of a run at some moment: a resumed run cuts them back to these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Position {
    /// Rows of metrics.csv, without its header.
    pub rows: usize,
    /// Name and bytes of each event file.
    pub events: Vec<(String, u64)>,
}

/// Which of a step's values metrics.csv has besides those it always has.
#[derive(Debug, Clone, Copy, Default)]
pub struct OptionalColumns {
    /// The tokens/s, a reading of the clock that would make two equal runs' files differ; TensorBoard has it anyway.
    pub speed: bool,
    /// A last column with `val/recall@1`.
    pub recall: bool,
}

/// Writes logged steps to the files of one run.
#[derive(Debug)]
pub struct Recorder {
    metrics: Metrics,
    events: EventFile,
    /// The event files of the sessions before this one.
    earlier: Vec<(String, u64)>,
    /// The tag of the best value so far.
    best_tag: String,
    columns: OptionalColumns,
    warned: bool,
}

impl Recorder {
    /// Opens both files in the folder of a run, cut back to `position`, after `step` steps; a new run starts at the
    /// defaults.
    pub fn open(
        run: &Path, hparams: &Hparams, columns: OptionalColumns, position: &Position, step: usize,
    ) -> Result<Self> {
        let metrics = Metrics::open(&run.join(METRICS), position.rows, columns.recall)?;
        tensorboard::cut_back(run, &position.events)?;
        let mut events = EventFile::create(run, step)?;
        if position.events.is_empty() {
            events.write_hparams(hparams);
            events.flush()?;
        }
        let (earlier, best_tag) = (position.events.clone(), hparams.best_tag.clone());
        Ok(Self { metrics, events, earlier, best_tag, columns, warned: false })
    }

    /// Writes one step to both files. What cannot be written (a full disk) is kept, and tried again with the next.
    pub fn record(&mut self, logged: &Logged) {
        let tokens_per_sec = logged.tokens_per_sec.filter(|_| self.columns.speed);
        self.metrics.write(&Logged { tokens_per_sec, ..*logged });
        self.events.write(logged);
        match self.flush() {
            Ok(()) => self.warned = false,
            Err(error) if !self.warned => {
                tracing::warn!("{error}; the run continues and tries again");
                self.warned = true;
            }
            Err(_) => {}
        }
    }

    /// Tells TensorBoard the best value of the monitored metric so far; the next [`Self::record`] writes it.
    pub fn record_best(&mut self, step: usize, value: f64) {
        self.events.scalars(step, &[(&self.best_tag, value)]);
    }

    /// Tells TensorBoard how the run ended.
    pub fn record_end(&mut self, success: bool) {
        self.events.write_end(success);
    }

    /// Writes what is not written yet, and makes all of it outlast a power cut: only then a state may count on it.
    pub fn sync(&mut self) -> Result<()> {
        let metrics = self.metrics.sync();
        metrics.and(self.events.sync())
    }

    /// Fails if something is not written yet.
    pub fn flush(&mut self) -> Result<()> {
        let metrics = self.metrics.flush();
        metrics.and(self.events.flush())
    }

    /// The lengths of the files.
    pub fn position(&self) -> Position {
        let mut events = self.earlier.clone();
        events.push(self.events.position());
        Position { rows: self.metrics.rows(), events }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensorboard_tells_the_losses_of_steps_and_epochs_apart() {
        let loss = |ends_epoch| Logged { ends_epoch, train_loss: Some(0.5), ..Logged::default() }.values()[0];
        assert_eq!([loss(false), loss(true)], ["train/loss", "train/loss_epoch"].map(|tag| (tag, Some(0.5))));
    }

    #[test]
    fn metrics_csv_has_a_clock_and_a_recall_only_on_request() {
        for (speed, recall, row) in
            [(false, false, "0,1,,,,\n"), (true, false, "0,1,,,,123.5\n"), (false, true, "0,1,,,,,0.25\n")]
        {
            let columns = OptionalColumns { speed, recall };
            let dir = tempfile::tempdir().unwrap();
            let hparams = Hparams::new(&toml::Table::new(), "train/loss");
            let mut recorder = Recorder::open(dir.path(), &hparams, columns, &Position::default(), 0).unwrap();
            let (tokens_per_sec, val_recall) = (Some(123.5), Some(0.25));
            recorder.record(&Logged { step: 1, tokens_per_sec, val_recall, ..Logged::default() });
            let text = std::fs::read_to_string(dir.path().join(METRICS)).unwrap();
            assert!(text.ends_with(row), "{text}");
            assert_eq!(text.lines().next().unwrap().ends_with(",val/recall@1"), recall);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        }
    }
}

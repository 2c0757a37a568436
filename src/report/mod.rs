//! What a run tells while it works: bars and log lines for people, files for tools.
//!
//! A [`Recorder`] writes every [`Logged`] step to `metrics.csv` and to a TensorBoard event file, at once and in full,
//! so that a run that is stopped has lost none.

pub mod console;
pub mod metrics;
pub mod tensorboard;

use std::path::Path;

use crate::error::Result;
use metrics::Metrics;
use tensorboard::EventFile;

/// What was measured at one step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Logged {
    /// Counted from 0.
    pub epoch: usize,
    /// Optimizer steps done since the start of the run.
    pub step: usize,
    pub train_loss: Option<f64>,
    pub val_loss: Option<f64>,
    /// The learning rate of this step.
    pub lr: Option<f64>,
    /// Student tokens trained on a second.
    pub tokens_per_sec: Option<f64>,
}

impl Logged {
    /// The values under the names that metrics.csv and TensorBoard give them.
    fn values(&self) -> [(&'static str, Option<f64>); 4] {
        [
            ("train/loss", self.train_loss),
            ("val/loss", self.val_loss),
            ("lr", self.lr),
            ("tokens_per_sec", self.tokens_per_sec),
        ]
    }
}

/// Writes logged steps to the files of one run.
#[derive(Debug)]
pub struct Recorder {
    metrics: Metrics,
    events: EventFile,
    log_speed: bool,
}

impl Recorder {
    /// Starts both files in the folder of a run. Without `log_speed`, metrics.csv leaves out the tokens/s: a reading
    /// of the clock would make two equal runs' files differ.
    pub fn create(run: &Path, log_speed: bool) -> Result<Self> {
        Ok(Self { metrics: Metrics::create(&run.join("metrics.csv"))?, events: EventFile::create(run)?, log_speed })
    }

    /// Writes one step to both files.
    pub fn record(&mut self, logged: &Logged) -> Result<()> {
        let tokens_per_sec = logged.tokens_per_sec.filter(|_| self.log_speed);
        self.metrics.write(&Logged { tokens_per_sec, ..*logged })?;
        self.events.write(logged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_log_speed_puts_a_clock_into_metrics_csv() {
        for (log_speed, row) in [(false, "0,1,,,,\n"), (true, "0,1,,,,123.5\n")] {
            let dir = tempfile::tempdir().unwrap();
            let mut recorder = Recorder::create(dir.path(), log_speed).unwrap();
            recorder.record(&Logged { step: 1, tokens_per_sec: Some(123.5), ..Logged::default() }).unwrap();
            assert!(std::fs::read_to_string(dir.path().join("metrics.csv")).unwrap().ends_with(row));
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        }
    }
}

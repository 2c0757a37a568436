//! How often a run logs, and which checkpoints it keeps.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::require;
use crate::error::Result;
use crate::interval::Interval;

/// The keys of metrics.csv and of the checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Logging {
    /// Steps from one logged step to the next.
    pub log_every: usize,
    /// Whether metrics.csv has tokens/s. TensorBoard always does, but a reading of the clock would make the
    /// metrics.csv of two equal runs differ.
    pub log_speed: bool,
    /// How often `checkpoints/last` is written within an epoch.
    pub checkpoint_every: Interval,
    /// How many of the best checkpoints are kept.
    pub keep_best: usize,
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            log_every: 50,
            log_speed: false,
            checkpoint_every: Interval::Time(Duration::from_secs(5 * 60)),
            keep_best: 1,
        }
    }
}

impl Logging {
    /// Refuses values with which no run can work.
    pub(super) fn validate(&self) -> Result<()> {
        for (key, value) in [("log-every", self.log_every), ("keep-best", self.keep_best)] {
            require(value >= 1, key, value, || "it must be 1 or more".into())?;
        }
        Ok(())
    }
}

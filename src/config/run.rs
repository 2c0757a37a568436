//! Which run it is, and on what it is computed.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::require;
use crate::compute::{Precision, device};
use crate::error::{Result, ResultExt};

/// The keys that name a run, repeat it, and choose the machine's part that computes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Run {
    /// Runs of one name share the folder `log-dir/name`.
    pub name: String,
    /// The folder of all runs.
    pub log_dir: PathBuf,
    /// Decides the order of the pairs, the new weights and the dropout.
    pub seed: u64,
    /// `auto`, `cpu`, `cuda[:N]` or `metal`, see [`device::select`].
    pub device: String,
    /// Precision of matrix multiplications.
    pub precision: Precision,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            name: "default".into(),
            log_dir: "logs".into(),
            seed: 0,
            device: "auto".into(),
            precision: Precision::F32,
        }
    }
}

impl Run {
    /// Refuses values with which no run can work.
    pub(super) fn validate(&self) -> Result<()> {
        // TOML's integers are signed: a larger seed could not be written to config.toml.
        require(i64::try_from(self.seed).is_ok(), "seed", self.seed, || format!("it must be at most {}", i64::MAX))?;
        let mut parts = Path::new(&self.name).components();
        let one_part = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        let plain = one_part && !self.name.contains(|c: char| matches!(c, '/' | '\\') || c.is_control());
        require(plain, "name", format!("`{}`", self.name), || {
            "it names one folder below log-dir: not empty, without / or \\, and not `..`".into()
        })?;
        self.device.parse::<device::Spec>().map(drop).context(|| "device")
    }
}

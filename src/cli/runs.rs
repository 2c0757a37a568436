//! `themo runs`.

use std::path::PathBuf;

use clap::Args;

pub(super) const EXAMPLES: &str = "\
Examples:
  themo runs
  themo runs logs/demo --json";

/// The options of `themo runs`.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// Folder of runs, or of the runs of one name
    ///
    /// Runs are looked for in it and up to two levels below it.
    #[arg(value_name = "LOGS", default_value = "logs")]
    pub logs: PathBuf,
    /// Print one JSON array instead of a table
    ///
    /// Each run has: run, state, monitor, best, epochs, steps, training_secs, started, ended (seconds since 1970) and
    /// error.
    #[arg(long)]
    pub json: bool,
}

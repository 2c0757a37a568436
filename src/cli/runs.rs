//! `themo runs`.

use std::path::PathBuf;

use clap::Args;

pub(super) const EXAMPLES: &str = "\
A run is running, finished, stopped (by Ctrl-C or SIGTERM), interrupted (killed)
or failed. `themo train --resume RUN` goes on with one that is not finished.

Examples:
  themo runs
  themo runs logs/demo --json";

/// The options of `themo runs`.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// Folder of runs, or of the runs of one name
    #[arg(value_name = "LOGS", default_value = "logs")]
    pub logs: PathBuf,
    /// One JSON array instead of a table
    #[arg(long)]
    pub json: bool,
}

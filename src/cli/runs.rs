//! `themo runs`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

pub(super) const EXAMPLES: &str = "\
Examples:
  themo runs
  themo runs logs/demo --json
  themo runs compare logs/demo/version_0 logs/demo/version_1 baseline";

/// The options of `themo runs`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RunsArgs {
    /// What is to be done [default: list them]
    #[command(subcommand)]
    pub what: Option<RunsCommand>,
    /// Folder of runs, or of the runs of one name
    ///
    /// Runs are looked for in it and up to two levels below it.
    #[arg(value_name = "LOGS", default_value = "logs")]
    pub logs: PathBuf,
    /// Print one JSON array instead of a table
    ///
    /// Each run has: run, state, monitor, best, recall@1 (text to image) and accuracy@1 where `themo test` measured them,
    /// epochs, steps, training_secs, started, ended (seconds since 1970) and error.
    #[arg(long)]
    pub json: bool,
}

/// The subcommands of `themo runs`
#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// Compare what `themo test` measured, with intervals; needs no model
    ///
    /// The first model is compared with each other one on the same queries: the difference with its 95% interval (paired
    /// bootstrap), and the p-value of McNemar's exact test. What is not comparable is marked.
    Compare(CompareArgs),
}

/// The options of `themo runs compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Runs, folders of results, files SET.queries.tsv; baseline, teacher, published
    ///
    /// baseline and teacher are those that were measured beside the first: `themo test --baseline`, `--with-teacher`;
    /// published are the figures of the literature on the same sets.
    #[arg(value_name = "RUN", required = true, num_args = 2..)]
    pub models: Vec<String>,
    /// The form of the table
    #[arg(long, value_enum, value_name = "FORM", default_value = "table")]
    pub output_format: OutputFormat,
}

/// The form of a table of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For a terminal
    Table,
    /// A line for each figure
    Csv,
    /// An array of rows
    Json,
    /// A table for each task
    Markdown,
}

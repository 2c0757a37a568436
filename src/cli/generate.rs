//! `themo generate`, hidden from the help: files for those who package themo.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;

/// The arguments of `themo generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// What is to be made
    #[command(subcommand)]
    pub what: Generated,
}

/// What `themo generate` makes from the definitions of the command line.
#[derive(Debug, Subcommand)]
pub enum Generated {
    /// Print the completion script for a shell
    Completions {
        /// The shell that the script is for
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write a man page for themo and one for each subcommand
    Man {
        /// Folder for the pages; created if it is missing
        dir: PathBuf,
    },
}

//! The `themo` binary: parses the arguments, runs the command, reports errors.

use std::process::ExitCode;

use clap::Parser;
use themo::cli::{Cli, Command};
use themo::commands;
use themo::report::console;

/// Large buffers come and go with every step; mimalloc keeps their pages instead of faulting them in anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    console::init(cli.verbosity());
    let result = match &cli.command {
        Command::Train(args) => commands::train::run(args),
        Command::Test(args) => commands::test::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(hint) = error.advice() {
                eprintln!("\nhint: {hint}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

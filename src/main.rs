//! The `themo` binary: parses the arguments, runs the command, reports errors.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use themo::alloc::Reusing;
use themo::cli::{Cli, Command};
use themo::commands;
use themo::error::visible_lines;
use themo::signals::survive_size_limits;
use themo::ui::{console, log_file};

#[global_allocator]
static ALLOCATOR: Reusing<mimalloc::MiMalloc> = Reusing::new(mimalloc::MiMalloc);

fn main() -> ExitCode {
    let cli = Cli::parse();
    console::init(cli.verbosity());
    let run = || match &cli.command {
        Command::Train(args) => commands::train::run(args),
        Command::Test(args) => commands::test::run(args).map(|()| 0),
        Command::Embed(args) => commands::embed::run(args).map(|()| 0),
        Command::Export(args) => commands::export::run(args).map(|()| 0),
        Command::Data(args) => commands::data::run(args),
        Command::Runs(args) => commands::runs::run(args).map(|()| 0),
        Command::Generate(args) => commands::generate::run(args).map(|()| 0),
    };
    match survive_size_limits().and_then(|()| run()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let hint = error.advice().map_or(String::new(), |hint| format!("\n\nhint: {}", visible_lines(hint)));
            // If stderr cannot be written, the exit code still says it.
            let _ = writeln!(std::io::stderr(), "error: {error}{hint}");
            log_file::note(&format!("error: {error}{hint}"));
            ExitCode::from(error.exit_code())
        }
    }
}

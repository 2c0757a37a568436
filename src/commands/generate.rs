//! `themo generate`: completion scripts and man pages from the definitions of the command line.

use std::fs;

use clap::CommandFactory;

use crate::cli::{Cli, GenerateArgs, Generated};
use crate::error::{Error, Result, ResultExt};
use crate::ui::console::print;

/// Prints a completion script, or writes man pages.
pub fn run(args: &GenerateArgs) -> Result<()> {
    match &args.what {
        Generated::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "themo", &mut script);
            let script = String::from_utf8(script).map_err(|e| Error::new(e.to_string()))?;
            print(script.trim_end())
        }
        Generated::Man { dir } => fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
            .context(|| format!("cannot write man pages into {}", dir.display()))
            .hint(|| "give a folder that can be written, such as target/man"),
    }
}

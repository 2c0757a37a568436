//! `themo train`.

use crate::cli::TrainArgs;
use crate::error::Result;
use crate::train::run::{self, Request};
use crate::ui::console::print;

/// Trains a student and prints where it is and how to test it; returns the exit code.
pub fn run(args: &TrainArgs) -> Result<u8> {
    let ended = run::run(&Request {
        settings: args.settings()?,
        config: args.config.clone(),
        resume: args.resume.clone(),
        overriding: args.overriding,
        fast_dev_run: args.fast_dev_run,
    })?;
    print(ended.text)?;
    Ok(ended.exit_code)
}

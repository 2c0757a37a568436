//! `themo runs`.

use crate::cli::{CompareArgs, OutputFormat, RunsArgs, RunsCommand};
use crate::error::Result;
use crate::report::compare;
use crate::report::layout::{Format, render};
use crate::runs::listing::list;
use crate::ui::console::print;

/// Prints the runs in a folder of logs, as a table or as JSON; or a comparison of some.
pub fn run(args: &RunsArgs) -> Result<()> {
    match &args.what {
        Some(RunsCommand::Compare(args)) => compare(args),
        None => print(list(&args.logs, args.json)?),
    }
}

fn compare(args: &CompareArgs) -> Result<()> {
    let format = match args.output_format {
        OutputFormat::Table => Format::Table,
        OutputFormat::Csv => Format::Csv,
        OutputFormat::Json => Format::Json,
        OutputFormat::Markdown => Format::Markdown,
    };
    print(render(&compare::compare(&compare::read(&args.models)?)?, format)?)
}

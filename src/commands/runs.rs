//! `themo runs`.

use crate::cli::RunsArgs;
use crate::error::Result;
use crate::runs::listing::list;
use crate::ui::console::print;

/// Prints the runs in a folder of logs, as a table or as JSON.
pub fn run(args: &RunsArgs) -> Result<()> {
    print(list(&args.logs, args.json)?)
}

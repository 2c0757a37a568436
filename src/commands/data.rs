//! `themo data`.

use serde_json::json;

use crate::cli::{DataArgs, DataCommand};
use crate::download::human_bytes;
use crate::error::Result;
use crate::hub::Hub;
use crate::sets::{Sources, check, report};
use crate::ui::console::print;
use crate::ui::data_sets;

/// Lists, fetches or checks data sets; returns the exit code.
pub fn run(args: &DataArgs) -> Result<u8> {
    let hub = Hub::from_env();
    let sources = Sources { hub: &hub, data_dir: &args.data_dir };
    match &args.what {
        DataCommand::List { names } => print(report::list(names, sources, args.json)?)?,
        DataCommand::Fetch { names } => {
            let sets = data_sets(names, &args.data_dir)?;
            for set in &sets {
                let files = set.train.iter().chain(&set.val).map(|file| file.path.display().to_string());
                let files: Vec<String> = files.collect();
                match args.json {
                    true => print(json!({"name": set.name, "bytes": set.bytes, "files": files}))?,
                    false => print(format!("{} ({}):\n  {}", set.name, human_bytes(set.bytes), files.join("\n  ")))?,
                }
            }
        }
        DataCommand::Check { names } => {
            let checked = check::check(names, sources)?;
            match args.json {
                true => print(serde_json::to_string_pretty(&checked)?)?,
                false => print(check::table(&checked))?,
            }
            return Ok(u8::from(!check::is_good(&checked)));
        }
    }
    Ok(0)
}

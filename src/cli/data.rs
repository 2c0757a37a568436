//! `themo data`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub(super) const EXAMPLES: &str = "\
Examples:
  themo data list
  themo data fetch parallel
  themo data fetch hub:Helsinki-NLP/opus-100:en-es
  themo data check";

/// The options of `themo data`.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// What is to be done
    #[command(subcommand)]
    pub what: DataCommand,
    /// Folder with datasets.toml, wit/ and other sets fetched by hand
    #[arg(long, value_name = "DIR", default_value = "data", global = true)]
    pub data_dir: PathBuf,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    pub json: bool,
}

/// The subcommands of `themo data`
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// List the data sets that are known, with size and licence, and whether they are here
    ///
    /// Nothing is asked of the network: the size of a set that was never fetched is an estimate.
    List {
        /// Data sets [default: all]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Fetch data sets, as `themo train --dataset` would
    ///
    /// Sets of the hub go to its cache, which other programs share; those of other servers into DATA_DIR/NAME. What is
    /// here already is not fetched again, and a fetch that broke off is resumed.
    Fetch {
        /// Data sets: names of the list, or hub:OWNER/NAME
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Check that data sets are here, whole and undamaged
    ///
    /// Sizes and hashes are those that the hub, or the server, gave. The exit code is 1 if anything is missing or
    /// damaged.
    Check {
        /// Data sets [default: those of which something is here]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}

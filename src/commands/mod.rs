//! One file a subcommand: turns arguments into a configuration, builds the objects, calls the library. (`baseline` and
//! `evaluation` are parts of `test`.)

pub mod baseline;
pub mod embed;
pub mod evaluation;
mod probe;
mod resume;
pub mod runs;
pub mod test;
pub mod train;
mod trained;

use std::path::PathBuf;

use crate::error::Result;
use crate::hub::{Hub, Part};
use crate::report::console::download_bars;

/// The folder of the model that `option` names, fetched from the hub where it has to be.
fn model_folder(option: &str, name: &str, parts: &[Part]) -> Result<PathBuf> {
    Hub::from_env().model_folder(option, name, parts, &download_bars())
}

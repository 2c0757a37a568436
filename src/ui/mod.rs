//! What the user sees while themo works: progress bars, log lines, results.

pub mod console;
pub mod log_file;

use std::path::PathBuf;

use crate::error::Result;
use crate::hub::{Hub, Part};

/// The folder of the model that `option` names, fetched from the hub where it has to be, with a bar for each file.
pub fn model_folder(option: &str, name: &str, parts: &[Part]) -> Result<PathBuf> {
    Hub::from_env().model_folder(option, name, parts, &console::download_bars())
}

//! What the user sees while themo works: progress bars, log lines, results.

pub mod console;
pub mod log_file;

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::hub::{Hub, Part};
use crate::sets::{self, Located, Sources};

/// The folder of the model that `option` names, fetched from the hub where it has to be, with a bar for each file.
pub fn model_folder(option: &str, name: &str, parts: &[Part]) -> Result<PathBuf> {
    Hub::from_env().model_folder(option, name, parts, &console::download_bars())
}

/// The data sets `names` with all their files, fetched where they have to be, with a bar for each file; see
/// [`sets::locate`].
pub fn data_sets(names: &[String], data_dir: &Path) -> Result<Vec<Located>> {
    sets::locate(names, Sources { hub: &Hub::from_env(), data_dir }, &console::download_bars())
}

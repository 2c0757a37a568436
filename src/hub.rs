//! From the name of a model to the folder that holds it.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The folder of a model, which `--student` and `--teacher` name.
pub fn model_folder(name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.join("checkpoints").is_dir() {
        return Err(Error::new(format!("`{name}` is a run, not a model folder"))
            .hint(format!("give one of its checkpoints, such as {}", path.join("checkpoints/last").display())));
    }
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    Err(Error::new(format!("there is no model folder `{name}`")).hint(format!(
        "put config.json, model.safetensors and tokenizer.json of the model there{}, or try the bundled world: \
         themo train --config configs/demo.toml",
        if name.split('/').count() == 2 { format!(" (they are on the hub under {name})") } else { String::new() }
    )))
}

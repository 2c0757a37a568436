//! The files of a model folder: `config.json`, the weights, the tokenizer's.

use std::path::{Path, PathBuf};

use crate::data::tokens::tokenizer_files;
use crate::error::{Result, ResultExt};
use crate::hub::files::shards;

/// The hint where a file is missing.
pub(super) const HOLDS: &str = "a model folder holds config.json, model.safetensors and the tokenizer's files";

/// Reads a JSON file of a model's folder.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let there = path.exists();
    parse_json(path).hint(|| match there {
        false => HOLDS,
        true => "check that this is the right kind of model; fetch the file again if it may be damaged",
    })
}

/// Reads a JSON file; what to do about one that cannot be read is for the caller to say.
pub fn parse_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).context(|| format!("{} is not what it should be", path.display()))
}

/// The files on which a model's outputs for texts depend: weights, configuration, tokenizer.
pub fn model_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = weight_files(folder)?;
    files.extend(tokenizer_files(folder));
    Ok(files)
}

/// The files of weights in a model folder: `model.safetensors`, or the parts that its index names, or the same of
/// `pytorch_model.bin`.
pub fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    for name in ["model.safetensors", "pytorch_model.bin"] {
        if folder.join(name).exists() {
            return Ok(vec![folder.join(name)]);
        }
        let index = folder.join(format!("{name}.index.json"));
        if index.exists() {
            return Ok(shards(&index)?.iter().map(|shard| folder.join(shard)).collect());
        }
    }
    Ok(vec![folder.join("model.safetensors")]) // opening it reports that it is missing
}

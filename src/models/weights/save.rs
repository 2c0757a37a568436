//! Writing: safetensors files.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};

use crate::error::{Result, ResultExt};
use crate::nn::Params;

/// Writes the parameters whose names `chosen` accepts to the file `path`, in f32.
pub fn save(params: &Params, chosen: impl Fn(&str) -> bool, path: &Path) -> Result<()> {
    write_model(tensors(params, chosen)?, path)
}

/// The parameters whose names `chosen` accepts, on the CPU.
pub fn tensors(params: &Params, chosen: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for entry in params.iter() {
        for (name, part) in entry.parts(entry.var.as_tensor())? {
            if chosen(&name) {
                tensors.insert(name, part.to_device(&Device::Cpu)?.contiguous()?);
            }
        }
    }
    Ok(tensors)
}

/// Writes the weights of a model, as transformers writes and asks for them.
pub fn write_model(tensors: BTreeMap<String, Tensor>, path: &Path) -> Result<()> {
    write_tensors(tensors, Some(HashMap::from([("format".to_owned(), "pt".to_owned())])), path)
}

/// Writes a safetensors file, one tensor after another: the whole file is never in memory.
pub fn write_tensors(
    tensors: BTreeMap<String, Tensor>, metadata: Option<HashMap<String, String>>, path: &Path,
) -> Result<()> {
    let write = || -> Result<()> {
        // `serialize_to_file` makes a file that its owner alone may read; this one gets the permissions of the umask.
        let permissions = std::fs::File::create(path)?.metadata()?.permissions();
        safetensors::serialize_to_file(tensors, metadata, path)?;
        Ok(std::fs::set_permissions(path, permissions)?)
    };
    write()
        .context(|| format!("cannot write {}", path.display()))
        .hint(|| "check the free space and the permissions of the folder")
}

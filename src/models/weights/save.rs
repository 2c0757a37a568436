//! Writing: safetensors files.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};

use crate::error::{Error, Result, ResultExt};
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

/// The bytes of a safetensors file, with `metadata` in the order of its keys: the crate's own order differs from run to
/// run.
pub fn to_bytes(tensors: BTreeMap<&str, Tensor>, metadata: BTreeMap<String, String>) -> Result<Vec<u8>> {
    const METADATA: &str = "__metadata__";
    let mut bytes = safetensors::serialize(tensors, Some(metadata.clone().into_iter().collect()))?;
    let length = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length)) as usize;
    let header = bytes.get_mut(8..8 + length).ok_or_else(|| Error::new("no header was written"))?;
    let mut sorted: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header)?;
    sorted.insert(METADATA.to_owned(), serde_json::to_value(metadata)?); // (in its old place)
    let mut sorted = serde_json::to_vec(&sorted)?;
    sorted.resize(header.len(), b' ');
    header.copy_from_slice(&sorted);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_contents_give_equal_bytes() {
        let bytes = || {
            let metadata = ["transparency", "image_names", "a", "z"].map(|key| (key.to_owned(), format!("{key} é\"")));
            let tensor = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap();
            to_bytes([("x", tensor.clone()), ("y", tensor)].into(), metadata.into()).unwrap()
        };
        assert!((0..20).all(|_| bytes() == bytes()));
        let read = safetensors::SafeTensors::read_metadata(&bytes()).unwrap().1;
        assert_eq!(read.metadata().as_ref().unwrap()["image_names"], "image_names é\"");
        assert_eq!(safetensors::SafeTensors::deserialize(&bytes()).unwrap().names().len(), 2);
    }
}

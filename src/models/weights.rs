//! Checkpoints: reading safetensors and PyTorch's files, writing safetensors, and the names that parameters have in each format.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::pickle::{Checkpoint, Kind};
use crate::error::{Error, Result, ResultExt};
use crate::nn::{LayerNorm, Linear, Param, Params};

/// The names of one encoder layer's modules; tensors are `NAME.weight` and `NAME.bias`.
pub struct LayerNames {
    pub qkv: [String; 3],
    pub out: String,
    pub norm_attention: String,
    pub up: String,
    pub down: String,
    pub norm_mlp: String,
}

/// transformers' BertModel (and XLM-R), below `prefix`.
pub fn bert_layers(prefix: &str, layers: usize) -> Vec<LayerNames> {
    let layer = |i| {
        let at = format!("{prefix}encoder.layer.{i}");
        LayerNames {
            qkv: ["query", "key", "value"].map(|part| format!("{at}.attention.self.{part}")),
            out: format!("{at}.attention.output.dense"),
            norm_attention: format!("{at}.attention.output.LayerNorm"),
            up: format!("{at}.intermediate.dense"),
            down: format!("{at}.output.dense"),
            norm_mlp: format!("{at}.output.LayerNorm"),
        }
    };
    (0..layers).map(layer).collect()
}

/// A tower of transformers' CLIPModel: what follows a layer's feed-forward block is the next layer's first norm, or
/// `final_norm`.
pub fn clip_layers(tower: &str, layers: usize, final_norm: &str) -> Vec<LayerNames> {
    let layer = |i| {
        let at = format!("{tower}.encoder.layers.{i}");
        LayerNames {
            qkv: ["q_proj", "k_proj", "v_proj"].map(|part| format!("{at}.self_attn.{part}")),
            out: format!("{at}.self_attn.out_proj"),
            norm_attention: format!("{at}.layer_norm2"),
            up: format!("{at}.mlp.fc1"),
            down: format!("{at}.mlp.fc2"),
            norm_mlp: if i + 1 < layers {
                format!("{tower}.encoder.layers.{}.layer_norm1", i + 1)
            } else {
                format!("{tower}.{final_norm}")
            },
        }
    };
    (0..layers).map(layer).collect()
}

/// Shape, type and little-endian elements of a tensor.
type Raw<'a> = (Vec<usize>, DType, Cow<'a, [u8]>);

/// One file of a checkpoint.
struct WeightFile {
    path: PathBuf,
    content: Content,
}

enum Content {
    Safetensors { map: Mmap, metadata: Metadata, data_start: usize },
    Pickle(Checkpoint),
}

impl WeightFile {
    fn open(path: PathBuf) -> Result<Self> {
        if path.extension().is_some_and(|end| end == "bin" || end == "ckpt" || end == "pt") {
            let content = Content::Pickle(Checkpoint::open(&path)?);
            return Ok(Self { path, content });
        }
        let file = File::open(&path).context(|| format!("cannot open {}", path.display()))?;
        // SAFETY: the map is read-only; a file that others truncate meanwhile is outside what a program can defend.
        let map = unsafe { Mmap::map(&file) }.context(|| format!("cannot map {}", path.display()))?;
        let (header_bytes, metadata) = SafeTensors::read_metadata(&map)
            .context(|| format!("{} is not a whole safetensors file", path.display()))
            .hint(|| "fetch the file again; it may have been cut short")?;
        Ok(Self { path, content: Content::Safetensors { map, metadata, data_start: header_bytes + 8 } })
    }

    fn names(&self) -> Vec<String> {
        match &self.content {
            Content::Safetensors { metadata, .. } => metadata.offset_keys(),
            Content::Pickle(checkpoint) => checkpoint.entries().iter().map(|entry| entry.name.clone()).collect(),
        }
    }

    /// A tensor, where the file has it.
    fn read(&self, name: &str) -> Result<Option<Raw<'_>>> {
        let unsupported = |kind: String| Error::new(format!("`{name}` has the type {kind}, which is not supported"));
        match &self.content {
            Content::Safetensors { map, metadata, data_start } => {
                let Some(info) = metadata.info(name) else { return Ok(None) };
                let dtype = DType::try_from(info.dtype).map_err(|_| unsupported(format!("{:?}", info.dtype)))?;
                let data = &map[*data_start..][info.data_offsets.0..info.data_offsets.1];
                Ok(Some((info.shape.clone(), dtype, Cow::Borrowed(data))))
            }
            Content::Pickle(checkpoint) => {
                let Some(entry) = checkpoint.entries().iter().find(|entry| entry.name == name) else { return Ok(None) };
                let dtype = match entry.kind {
                    Kind::F32 => DType::F32,
                    Kind::F16 => DType::F16,
                    Kind::BF16 => DType::BF16,
                    Kind::F64 => DType::F64,
                    other => return Err(unsupported(format!("{other:?}"))),
                };
                Ok(Some((entry.shape.clone(), dtype, Cow::Owned(checkpoint.bytes(entry)?))))
            }
        }
    }
}

/// `model.safetensors.index.json`: which file holds each tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files of weights in a model folder: `model.safetensors`, or the parts that its index names, or the same of
/// `pytorch_model.bin`.
pub fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    for name in ["model.safetensors", "pytorch_model.bin"] {
        if folder.join(name).exists() {
            return Ok(vec![folder.join(name)]);
        }
        let index = folder.join(format!("{name}.index.json"));
        if !index.exists() {
            continue;
        }
        let parts: BTreeSet<String> = read_json::<Index>(&index)?.weight_map.into_values().collect();
        let plain = |part: &String| !part.is_empty() && !part.contains(['/', '\\']) && part != "..";
        return match parts.iter().find(|part| !plain(part)) {
            Some(part) => Err(Error::new(format!("{} names a file outside its folder: {part}", index.display()))
                .hint("fetch the file again from a place you trust")),
            None => Ok(parts.iter().map(|part| folder.join(part)).collect()),
        };
    }
    Ok(vec![folder.join("model.safetensors")]) // opening it will tell that it is missing
}

/// The tensors of a checkpoint folder, taken by name; what is missing or left over is told at the end, all at once.
pub struct Weights {
    folder: PathBuf,
    files: Vec<WeightFile>,
    device: Device,
    prefix: String,
    /// Every tensor, and which file holds it.
    names: BTreeMap<String, usize>,
    taken: BTreeSet<String>,
    missing: Vec<String>,
}

impl Weights {
    /// Opens the files of weights in `folder`. Tensors will be f32 on `device`.
    pub fn open(folder: &Path, device: &Device) -> Result<Self> {
        let files = weight_files(folder)?
            .into_iter()
            .map(WeightFile::open)
            .collect::<Result<Vec<_>>>()
            .hint(|| "a model folder holds config.json, model.safetensors and the tokenizer's files")?;
        let mut names = BTreeMap::new();
        for (i, file) in files.iter().enumerate() {
            names.extend(file.names().into_iter().map(|name| (modern(&name), i)));
        }
        let (taken, missing) = (BTreeSet::new(), Vec::new());
        Ok(Self {
            folder: folder.to_owned(),
            files,
            device: device.clone(),
            prefix: String::new(),
            names,
            taken,
            missing,
        })
    }

    /// Reads names below the first of `prefixes` under which `probe` exists; returns the prefix.
    pub fn find_prefix(&mut self, prefixes: &[&str], probe: &str) -> &str {
        if let Some(found) = prefixes.iter().find(|p| self.names.contains_key(&format!("{p}{probe}"))) {
            self.prefix = (*found).to_owned();
        }
        &self.prefix
    }

    /// The tensor `name` (below the prefix) as f32; zeros if it is missing, which [`Self::finish`] will tell.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.take_whole(&format!("{}{name}", self.prefix), shape)
    }

    /// [`Self::take`] by the full name, whatever the prefix.
    pub fn take_whole(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(file) = self.names.get(name).map(|i| &self.files[*i]) else {
            self.missing.push(name.to_owned());
            return Ok(Tensor::zeros(shape, DType::F32, &self.device)?);
        };
        let failed = |what: String| Error::new(what).context(file.path.display().to_string());
        let told = |e: Error| e.context(file.path.display().to_string());
        let read = match file.read(name).map_err(told)? {
            Some(read) => Some(read),
            None => file.read(&old(name)).map_err(told)?,
        };
        let (found, dtype, data) = read.ok_or_else(|| failed(format!("the tensor `{name}` is not there")))?;
        if found != shape {
            let what = format!("the tensor `{name}` has the shape {found:?}, its configuration asks for {shape:?}");
            return Err(
                failed(what).hint("the configuration (config.json, themo.json) and the weights do not belong together")
            );
        }
        let tensor = Tensor::from_raw_buffer(&data, dtype, shape, &Device::Cpu)?.to_dtype(DType::F32)?;
        self.taken.insert(name.to_owned());
        Ok(tensor.to_device(&self.device)?)
    }

    /// A parameter from one tensor.
    pub fn param(&mut self, name: &str, shape: &[usize], params: &mut Params) -> Result<Param> {
        let value = self.take(name, shape)?;
        params.add(vec![name.to_owned()], &value)
    }

    /// A linear layer `[outer, inner]`, or several of one shape that read the same input, one below the other.
    pub fn linear(
        &mut self, names: &[&str], outer: usize, inner: usize, bias: bool, params: &mut Params,
    ) -> Result<Linear> {
        let mut stacked = |what: &str, shape: &[usize]| -> Result<Param> {
            let names: Vec<String> = names.iter().map(|name| format!("{name}.{what}")).collect();
            let parts = names.iter().map(|name| self.take(name, shape)).collect::<Result<Vec<_>>>()?;
            params.add(names, &Tensor::cat(&parts, 0)?)
        };
        let weight = stacked("weight", &[outer, inner])?;
        Ok(Linear { weight, bias: if bias { Some(stacked("bias", &[outer])?) } else { None } })
    }

    /// A layer norm.
    pub fn layer_norm(&mut self, name: &str, width: usize, eps: f64, params: &mut Params) -> Result<LayerNorm> {
        let weight = self.param(&format!("{name}.weight"), &[width], params)?;
        Ok(LayerNorm { weight, bias: self.param(&format!("{name}.bias"), &[width], params)?, eps })
    }

    /// Fails if a tensor was missing, or if one is left that `ignore` does not know.
    pub fn finish(self, ignore: impl Fn(&str) -> bool) -> Result<()> {
        let some = |names: &[&String]| {
            let shown: Vec<&str> = names.iter().take(5).map(|n| n.as_str()).collect();
            let more = names.len().saturating_sub(5);
            shown.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
        };
        let missing: Vec<&String> = self.missing.iter().collect();
        let unexpected: Vec<&String> = self.names.keys().filter(|n| !self.taken.contains(*n) && !ignore(n)).collect();
        let mut faults = Vec::new();
        if !missing.is_empty() {
            faults.push(format!("missing tensors: {}", some(&missing)));
        }
        if !unexpected.is_empty() {
            faults.push(format!("unexpected tensors: {}", some(&unexpected)));
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(Error::new(faults.join("; "))
            .context(format!("the weights in {} do not fit config.json", self.folder.display()))
            .hint("check that this is the right kind of model and that its files belong together"))
    }
}

/// The name a tensor has today: checkpoints converted from TensorFlow call a LayerNorm's tensors gamma and beta.
fn modern(name: &str) -> String {
    name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
}

/// The reverse of [`modern`].
fn old(name: &str) -> String {
    name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
}

/// Writes `params` (f32, under their checkpoint names with `rename` applied) to `path`.
pub fn save(params: &Params, rename: impl Fn(&str) -> String, path: &Path) -> Result<()> {
    let mut tensors = BTreeMap::new();
    for entry in params.iter() {
        for (name, part) in entry.parts(entry.var.as_tensor())? {
            tensors.insert(rename(&name), part.to_device(&Device::Cpu)?.contiguous()?);
        }
    }
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]); // what transformers asks for
    // (`serialize_to_file` would make the file readable for its owner alone.)
    let bytes = safetensors::serialize(tensors, Some(format))?;
    std::fs::write(path, bytes)
        .context(|| format!("cannot write {}", path.display()))
        .hint(|| "check the free space and the permissions of the folder")
}

/// Reads a JSON file into a configuration.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path)
        .context(|| format!("cannot read {}", path.display()))
        .hint(|| "a model folder holds config.json, model.safetensors and the tokenizer's files")?;
    serde_json::from_str(&text)
        .context(|| format!("{} is not what it should be", path.display()))
        .hint(|| "check that this is the right kind of model; fetch the file again if it may be damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, tensors: &[(&str, Vec<f32>)]) {
        let tensors = tensors
            .iter()
            .map(|(name, data)| (name.to_string(), Tensor::from_slice(data, data.len(), &Device::Cpu).unwrap()));
        let tensors: BTreeMap<_, _> = tensors.collect();
        std::fs::write(path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    }

    #[test]
    fn sharded_files_and_old_names_are_read() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("a.safetensors"), &[("bert.LayerNorm.gamma", vec![1.0, 2.0])]);
        write(&dir.path().join("b.safetensors"), &[("bert.LayerNorm.beta", vec![3.0, 4.0]), ("bert.x", vec![5.0])]);
        let map = r#"{"weight_map": {"bert.LayerNorm.gamma": "a.safetensors", "bert.x": "b.safetensors"}}"#;
        let index = dir.path().join("model.safetensors.index.json");
        std::fs::write(&index, map).unwrap();
        let mut weights = Weights::open(dir.path(), &Device::Cpu).unwrap();
        assert_eq!(weights.find_prefix(&["", "bert."], "x"), "bert.");
        let mut take = |name: &str, n: usize| weights.take(name, &[n]).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!((take("LayerNorm.weight", 2), take("LayerNorm.bias", 2)), (vec![1.0, 2.0], vec![3.0, 4.0]));
        assert_eq!(take("gone", 1), [0.0]);
        let told = weights.finish(|_| false).unwrap_err().to_string();
        assert!(told.contains("missing tensors: bert.gone; unexpected tensors: bert.x"), "{told}");
        std::fs::write(&index, r#"{"weight_map": {"x": "../x"}}"#).unwrap();
        assert!(Weights::open(dir.path(), &Device::Cpu).is_err());
    }
}

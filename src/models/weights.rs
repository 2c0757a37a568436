//! Checkpoints: reading and writing safetensors, and the names that parameters have in each format.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use safetensors::SafeTensors;

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

/// The tensors of a checkpoint folder, taken by name; what is missing or left over is told at the end, all at once.
pub struct Weights {
    path: PathBuf,
    map: Mmap,
    device: Device,
    prefix: String,
    names: BTreeSet<String>,
    taken: BTreeSet<String>,
    missing: Vec<String>,
}

impl Weights {
    /// Opens `folder/model.safetensors`. Tensors will be f32 on `device`.
    pub fn open(folder: &Path, device: &Device) -> Result<Self> {
        let path = folder.join("model.safetensors");
        let file = File::open(&path)
            .context(|| format!("cannot open {}", path.display()))
            .hint(|| "a model folder holds config.json, model.safetensors and the tokenizer's files")?;
        // SAFETY: the map is read-only; a file that others truncate meanwhile is outside what a program can defend.
        let map = unsafe { Mmap::map(&file) }.context(|| format!("cannot map {}", path.display()))?;
        let names = SafeTensors::deserialize(&map)
            .context(|| format!("{} is not a whole safetensors file", path.display()))
            .hint(|| "fetch the file again; it may have been cut short")?
            .names()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let (taken, missing) = (BTreeSet::new(), Vec::new());
        Ok(Self { path, map, device: device.clone(), prefix: String::new(), names, taken, missing })
    }

    /// Reads names below the first of `prefixes` under which `probe` exists; returns the prefix.
    pub fn find_prefix(&mut self, prefixes: &[&str], probe: &str) -> &str {
        if let Some(found) = prefixes.iter().find(|p| self.names.contains(&format!("{p}{probe}"))) {
            self.prefix = (*found).to_owned();
        }
        &self.prefix
    }

    /// Whether the checkpoint has a tensor of this full name.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The tensor `name` (below the prefix) as f32; zeros if it is missing, which [`Self::finish`] will tell.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.take_whole(&format!("{}{name}", self.prefix), shape)
    }

    /// [`Self::take`] by the full name, whatever the prefix.
    pub fn take_whole(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let name = name.to_owned();
        if !self.names.contains(&name) {
            self.missing.push(name);
            return Ok(Tensor::zeros(shape, DType::F32, &self.device)?);
        }
        let tensors = SafeTensors::deserialize(&self.map)?;
        let view = tensors.tensor(&name)?;
        if view.shape() != shape {
            return Err(Error::new(format!(
                "{}: the tensor `{name}` has the shape {:?}, config.json asks for {shape:?}",
                self.path.display(),
                view.shape()
            ))
            .hint("config.json and the weights do not belong together; fetch both from the same place"));
        }
        let dtype = DType::try_from(view.dtype())
            .map_err(|_| Error::new(format!("`{name}` has the type {:?}, which is not supported", view.dtype())))
            .context(|| self.path.display().to_string())?;
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, shape, &Device::Cpu)?.to_dtype(DType::F32)?;
        self.taken.insert(name);
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
        let unexpected: Vec<&String> = self.names.iter().filter(|n| !self.taken.contains(*n) && !ignore(n)).collect();
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
            .context(format!("{} does not fit its config.json", self.path.display()))
            .hint("check that this is the right kind of model and that its files belong together"))
    }
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
    serde_json::from_str(&text).context(|| format!("{} is not what it should be", path.display()))
}

//! Reading: the tensors of a model by name, from one file or several.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use rayon::prelude::*;

use super::super::folder::{HOLDS, weight_files};
use super::file::WeightFile;
use super::names::{is_known, plain, prefix};
use crate::error::{Error, Result, ResultExt, first_few};

/// The tensors of a checkpoint: what candle's VarBuilders of a model read from ([`Self::below`]). Each is read from the
/// memory-mapped file when it is asked for, as a variable, so that a parameter takes over its memory without a copy.
///
/// A VarBuilder alone does not do three things. The names of a model may have a prefix: [`Self::find_prefix`] finds it.
/// A missing tensor is not an error at once: zeros stand in for it, and [`Self::finish`] reports all missing tensors
/// together, with those of the files that nobody asked for. And what the files hold decides what is loaded
/// ([`Self::has`], [`Self::shape`], [`Self::find_beside`]).
pub struct Weights {
    path: PathBuf,
    files: Vec<WeightFile>,
    device: Device,
    prefix: String,
    /// Every tensor by its plain name (see [`plain`]).
    names: BTreeMap<String, Place>,
    asked: Mutex<Asked>,
}

/// What VarBuilders have asked for.
struct Asked {
    found: BTreeSet<String>,
    missing: Vec<String>,
    /// Bytes of zeros that may still stand in for missing tensors: altogether no more than the files have, whatever
    /// sizes a configuration asks for.
    spare: usize,
}

/// Where a tensor is.
struct Place {
    file: usize,
    /// Its name there.
    name: String,
}

/// What to make of a tensor that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// It belongs to the model, so files and configuration do not fit each other.
    Fault,
    /// It belongs to something else in the file, such as a task's head: named in the log.
    Head,
    /// It has no effect on the outputs, or belongs to another tower.
    Nothing,
}

impl Weights {
    /// Opens the files of weights in the folder `path`, or the file `path`. Tensors will be f32 on `device`.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        let paths = if path.is_file() { vec![path.to_owned()] } else { weight_files(path)? };
        Self::open_files(path, paths, device)
    }

    /// Opens `paths`, the files of the model at `path`.
    pub fn open_files(path: &Path, paths: Vec<PathBuf>, device: &Device) -> Result<Self> {
        let files = paths.into_iter().map(WeightFile::open).collect::<Result<Vec<_>>>().hint(|| HOLDS)?;
        let mut names = BTreeMap::new();
        for (i, file) in files.iter().enumerate() {
            for name in file.names() {
                if names.insert(plain(&name), Place { file: i, name: name.clone() }).is_some() {
                    return Err(Error::new(format!(
                        "the tensor `{name}` is there twice; the second is in {}",
                        file.path.display()
                    ))
                    .hint("the files of several models may be mixed; fetch them again into an empty folder"));
                }
            }
        }
        let spare = files.iter().map(WeightFile::len).sum();
        let asked = Mutex::new(Asked { found: BTreeSet::new(), missing: Vec::new(), spare });
        let (path, device) = (path.to_owned(), device.clone());
        Ok(Self { path, files, device, prefix: String::new(), names, asked })
    }

    /// The shape of a tensor by its full name, where there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let place = self.names.get(name)?;
        self.files[place.file].shape(&place.name)
    }

    /// Finds the model of which one tensor's name ends with `end`; returns what stands before that. Where there is
    /// none, the prefix stays empty, and the tensors will be reported missing.
    ///
    /// # Errors
    /// If the files hold several such models, and no known prefix decides between them.
    pub fn find_prefix(&mut self, end: &str) -> Result<&str> {
        let found = prefix(self.names.keys().map(String::as_str), end);
        let found = found.map(|prefix| prefix.map(str::to_owned)).map_err(|several| {
            Error::new(format!("{} holds several models: {}", self.path.display(), first_few(&several)))
                .hint("save the one that is meant by itself, such as with model.save_pretrained")
        })?;
        if let Some(prefix) = found {
            if !is_known(&prefix) {
                tracing::info!("{}: the model is what stands below `{prefix}`", self.path.display());
            }
            self.prefix = prefix;
        }
        Ok(&self.prefix)
    }

    /// What stands before the names of the model's tensors.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What stands before the names of modules beside the encoder: the parts of its prefix, the longest first, and
    /// nothing. (For an encoder below `model.transformer.`, a projection may be below `model.` or at the top, and
    /// nowhere else.)
    fn holders(&self) -> impl Iterator<Item = &str> {
        let inner = self.prefix.strip_suffix('.').unwrap_or(&self.prefix);
        let cuts = inner.rmatch_indices('.').map(|(at, _)| &inner[..=at]);
        cuts.chain([""])
    }

    /// What stands before `name` where that is the name of a tensor beside the encoder.
    pub fn find_beside(&self, name: &str) -> Option<String> {
        let holder = self.holders().find(|holder| self.names.contains_key(&format!("{holder}{name}")));
        holder.map(str::to_owned)
    }

    /// The full names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Whether there is a tensor with the full name `name`.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// A VarBuilder of the model that [`Self::find_prefix`] found.
    pub fn model(&self) -> VarBuilder<'_> {
        self.below(&self.prefix)
    }

    /// A VarBuilder of f32 tensors whose paths begin after `prefix` (empty, or up to a full stop).
    pub fn below(&self, prefix: &str) -> VarBuilder<'_> {
        let prefix = prefix.to_owned();
        let whole = VarBuilder::from_backend(Box::new(self), DType::F32, self.device.clone());
        whole.rename_f(move |name| format!("{prefix}{name}"))
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The elements of the tensor with the full name `name`; zeros if it is missing, which [`Self::finish`] reports.
    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let Some(place) = self.names.get(name) else {
            let mut asked = self.asked();
            asked.missing.push(name.to_owned());
            let bytes = shape.iter().try_fold(4usize, |bytes, dim| bytes.checked_mul(*dim));
            let Some(spare) = bytes.and_then(|bytes| asked.spare.checked_sub(bytes)) else {
                return Err(self.unfit(&[missing(&asked)]));
            };
            asked.spare = spare;
            return Ok(vec![0.0; shape.iter().product()]);
        };
        let file = &self.files[place.file];
        let failed = |what: String| Error::new(what).context(file.path.display().to_string());
        let read = file.read(&place.name).context(|| file.path.display().to_string())?;
        let (found, dtype, data) = read.ok_or_else(|| failed(format!("the tensor `{name}` is missing")))?;
        if found != shape {
            let what = format!("the tensor `{name}` has the shape {found:?}, its configuration asks for {shape:?}");
            return Err(
                failed(what).hint("the configuration (config.json, themo.json) and the weights do not belong together")
            );
        }
        let values = match dtype {
            DType::F32 => from_little_endian(&data),
            _ => Tensor::from_raw_buffer(&data, dtype, shape, &Device::Cpu)?
                .to_dtype(DType::F32)?
                .flatten_all()?
                .to_vec1()?,
        };
        self.asked().found.insert(name.to_owned());
        Ok(values)
    }

    /// Fails if a tensor was missing, or if one that nobody asked for is a [`Leftover::Fault`] by `leftover`, which
    /// gets its full name. Logs which parts of the files were left out.
    pub fn finish(&self, leftover: impl Fn(&str) -> Leftover) -> Result<()> {
        let asked = self.asked();
        let (mut unexpected, mut heads) = (Vec::new(), BTreeMap::<&str, usize>::new());
        for name in self.names.keys().filter(|name| !asked.found.contains(*name)) {
            match leftover(name) {
                Leftover::Fault => unexpected.push(name),
                Leftover::Head => {
                    let mut holders = std::iter::once(self.prefix.as_str()).chain(self.holders());
                    let below = holders.find_map(|holder| name.strip_prefix(holder)).unwrap_or(name);
                    *heads.entry(below.split('.').next().unwrap_or(below)).or_default() += 1;
                }
                Leftover::Nothing => {}
            }
        }
        let mut faults = Vec::new();
        if !asked.missing.is_empty() {
            faults.push(missing(&asked));
        }
        if !unexpected.is_empty() {
            faults.push(format!("unexpected tensors: {}", first_few(&unexpected)));
        }
        if !faults.is_empty() {
            return Err(self.unfit(&faults));
        }
        if !heads.is_empty() {
            let heads: Vec<String> = heads.iter().map(|(head, n)| format!("{head} ({n})")).collect();
            tracing::info!(
                "{}: left out tensors that are not the encoder's: {}",
                self.path.display(),
                heads.join(", ")
            );
        }
        Ok(())
    }

    fn unfit(&self, faults: &[String]) -> Error {
        Error::new(faults.join("; "))
            .context(format!("the weights in {} do not fit config.json", self.path.display()))
            .hint("check that this is the right kind of model and that its files belong together")
    }
}

fn missing(asked: &Asked) -> String {
    format!("missing tensors: {}", first_few(&asked.missing))
}

/// By full names. Initial values are not used: what a file lacks is missing.
impl SimpleBackend for &Weights {
    fn get(
        &self, shape: Shape, name: &str, _: candle_nn::Init, dtype: DType, device: &Device,
    ) -> candle_core::Result<Tensor> {
        let values = self.values(name, shape.dims())?;
        Var::from_vec(values, shape, device)?.into_inner().to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let missing = || Error::new(format!("the tensor `{name}` is missing")).context(self.path.display().to_string());
        let shape = self.shape(name).ok_or_else(missing)?;
        self.get(shape.into(), name, candle_nn::Init::default(), dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.has(name)
    }
}

/// The numbers in `bytes`, copied on all threads: most of the time is spent on the page faults of new memory.
fn from_little_endian(bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / 4]; // new memory is zero already: nothing is written here
    let blocks = values.par_chunks_mut(1 << 18).zip(bytes.par_chunks(4 << 18));
    blocks.for_each(|(values, bytes)| {
        let (words, _) = bytes.as_chunks::<4>();
        values.iter_mut().zip(words).for_each(|(value, word)| *value = f32::from_le_bytes(*word));
    });
    values
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
        assert_eq!(weights.find_prefix("x").unwrap(), "bert.");
        let vb = weights.model();
        let norm = vb.pp("LayerNorm");
        let values = |tensor: Tensor| tensor.to_vec1::<f32>().unwrap();
        let scale = norm.get(2, "weight").unwrap();
        assert!(scale.is_variable()); // so that a parameter takes it over
        assert_eq!(values(scale), [1.0, 2.0]);
        assert_eq!(values(norm.get_unchecked("bias").unwrap()), [3.0, 4.0]);
        assert_eq!(values(vb.get(1, "gone").unwrap()), [0.0]);
        assert!(vb.contains_tensor("x") && !vb.contains_tensor("gone") && !vb.contains_tensor("bert.x"));
        let error = weights.finish(|_| Leftover::Fault).unwrap_err().to_string();
        assert!(error.contains("missing tensors: bert.gone; unexpected tensors: bert.x"), "{error}");
        // Errors come through candle's with path, file and hint.
        let error = Error::from(norm.get(3, "weight").unwrap_err());
        let file = dir.path().join("a.safetensors").display().to_string();
        assert!(
            error.to_string().starts_with(&format!("{file}: the tensor `bert.LayerNorm.weight` has the shape [2]"))
        );
        assert!(error.advice().is_some_and(|hint| hint.contains("do not belong together")));
        let error = Error::from(vb.get(99, "gone").unwrap_err());
        assert!(
            error.to_string().ends_with("do not fit config.json: missing tensors: bert.gone, bert.gone"),
            "{error}"
        );
        assert!(error.advice().is_some_and(|hint| hint.contains("right kind of model")));
        std::fs::write(&index, r#"{"weight_map": {"x": "../x"}}"#).unwrap();
        assert!(Weights::open(dir.path(), &Device::Cpu).is_err());
    }
}

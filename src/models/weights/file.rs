//! One file of weights, of safetensors or of PyTorch, as named tensors in a memory map.
//!
//! No file is trusted: sizes that a header claims are checked against the file's size before memory is allocated.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use candle_core::DType;
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::pickle::{Checkpoint, map};
use crate::error::{Error, Result, ResultExt};

/// The largest header of a safetensors file; models of thousands of tensors have less than 1 MiB.
const HEADER: u64 = 16 << 20;

/// Shape, type and little-endian elements of a tensor.
pub(super) type Raw<'a> = (Vec<usize>, DType, Cow<'a, [u8]>);

/// One file of weights.
pub(super) struct WeightFile {
    /// Its path.
    pub path: PathBuf,
    format: Format,
}

enum Format {
    Safetensors { map: Mmap, metadata: Metadata, data_start: usize },
    Pickle(Checkpoint),
}

impl WeightFile {
    /// Opens a file. Its first bytes decide the format, whatever its name; where they are of neither format, the name
    /// decides which format's error is reported.
    pub fn open(path: PathBuf) -> Result<Self> {
        let map = map(&path)?;
        refuse_stand_ins(&map).context(|| path.display().to_string())?;
        let ending = path.extension().is_some_and(|end| ["bin", "ckpt", "pt", "pth"].iter().any(|known| end == *known));
        if !is_safetensors(&map) && (ending || Checkpoint::is_one(&map)) {
            let format = Format::Pickle(Checkpoint::of(&path, map)?);
            return Ok(Self { path, format });
        }
        let (data_start, metadata) = header(&map)
            .context(|| format!("{} is not a whole safetensors file", path.display()))
            .hint(|| "fetch the file again; it may have been cut short")?;
        Ok(Self { path, format: Format::Safetensors { map, metadata, data_start } })
    }

    /// Bytes of the file.
    pub fn len(&self) -> usize {
        match &self.format {
            Format::Safetensors { map, .. } => map.len(),
            Format::Pickle(checkpoint) => checkpoint.len(),
        }
    }

    /// The tensors, in the file's order.
    pub fn names(&self) -> Vec<String> {
        match &self.format {
            Format::Safetensors { metadata, .. } => metadata.offset_keys(),
            Format::Pickle(checkpoint) => checkpoint.tensors().iter().map(|tensor| tensor.name.clone()).collect(),
        }
    }

    /// The shape of a tensor, where the file has it.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        match &self.format {
            Format::Safetensors { metadata, .. } => metadata.info(name).map(|info| &*info.shape),
            Format::Pickle(checkpoint) => checkpoint.find(name).map(|tensor| &*tensor.shape),
        }
    }

    /// A tensor, where the file has it.
    pub fn read(&self, name: &str) -> Result<Option<Raw<'_>>> {
        let float = |dtype| match dtype {
            Dtype::F32 => Ok(DType::F32),
            Dtype::F16 => Ok(DType::F16),
            Dtype::BF16 => Ok(DType::BF16),
            Dtype::F64 => Ok(DType::F64),
            other => Err(Error::new(format!("`{name}` has the type {other:?}, which is not supported"))),
        };
        match &self.format {
            Format::Safetensors { map, metadata, data_start } => {
                let Some(info) = metadata.info(name) else { return Ok(None) };
                let data = &map[*data_start..][info.data_offsets.0..info.data_offsets.1];
                Ok(Some((info.shape.clone(), float(info.dtype)?, Cow::Borrowed(data))))
            }
            Format::Pickle(checkpoint) => {
                let Some(info) = checkpoint.find(name) else { return Ok(None) };
                Ok(Some((info.shape.clone(), float(info.dtype)?, checkpoint.bytes(info)?)))
            }
        }
    }
}

/// Refuses what is often found in place of a file that was not fetched: a git-lfs pointer, a web page.
fn refuse_stand_ins(file: &[u8]) -> Result<()> {
    let page = file
        .trim_ascii_start()
        .get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"<!doc") || start.eq_ignore_ascii_case(b"<html"));
    if file.starts_with(b"version https://git-lfs") {
        return Err(Error::new("this is a pointer of git-lfs, not the file itself")
            .hint("run `git lfs pull` in the model's folder, or fetch the file again"));
    }
    if page {
        return Err(Error::new("this is a web page, not a file of weights")
            .hint("fetch the file again: its address may want a login, or be that of a page about it"));
    }
    Ok(())
}

/// Whether a file begins as a safetensors file: with the length of a header within it, and the header's first brace.
fn is_safetensors(file: &[u8]) -> bool {
    let length = file.first_chunk().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
    length <= file.len() as u64 && file.get(8) == Some(&b'{')
}

/// Where the data of a safetensors file begins, and its header.
fn header(file: &[u8]) -> Result<(usize, Metadata)> {
    let length = file.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    if length > HEADER {
        return Err(Error::new(format!("its header has {length} bytes, more than the {HEADER} that are read")));
    }
    // This checks that the tensors have the sizes of their shapes and follow one another without gaps to the file's
    // end.
    let (length, metadata) = SafeTensors::read_metadata(file)?;
    let data_start = length + 8;
    serde_json::from_slice::<UniqueKeys>(&file[8..data_start])?; // of two tensors with one name, the crate keeps one
    Ok((data_start, metadata))
}

/// A JSON object that has no key twice.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self, M::Error> {
        let mut seen = HashSet::new();
        while let Some((key, _)) = map.next_entry::<String, IgnoredAny>()? {
            if let Some(key) = seen.replace(key) {
                return Err(serde::de::Error::custom(format!("`{key}` is there twice")));
            }
        }
        Ok(self)
    }
}

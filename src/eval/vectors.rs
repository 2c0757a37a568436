//! A safetensors file (<https://huggingface.co/docs/safetensors>) of rows that come one after another: their number is
//! known at the end only, so space is kept for the header, which is written last.

use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::fs::output::Output;

/// Readers of the format take no longer header.
const MAX_HEADER_BYTES: usize = 100_000_000;

/// Notes beside the tensors.
pub type Metadata = BTreeMap<&'static str, String>;

/// The file while it is written: tensors `[rows, dim]` in f32, one after another.
pub struct Vectors {
    output: Output,
    header_bytes: usize,
    tensors: Vec<(&'static str, u64, u64)>, // name, rows, dim
}

impl Vectors {
    /// Starts a file that will hold the tensors `names`, and metadata that is no longer than `longest`.
    pub fn start(mut output: Output, names: &[&'static str], longest: &Metadata) -> Result<Self> {
        let widest: Vec<_> = names.iter().map(|name| (*name, [u64::MAX; 2], [u64::MAX; 2])).collect();
        let header_bytes = header(&widest, longest)?.len().next_multiple_of(8);
        if header_bytes > MAX_HEADER_BYTES {
            let what = format!("the names of the images are {} MB long", header_bytes / 1_000_000);
            return Err(Error::new(what).hint("a safetensors file has room for 100 MB: embed the images in parts"));
        }
        let sought = output.file().seek(SeekFrom::Start(8 + header_bytes as u64));
        sought.map_err(|e| output.failed(e))?;
        Ok(Self { output, header_bytes, tensors: Vec::new() })
    }

    /// The rows that follow are those of the tensor `name`, which has `dim` columns.
    pub fn tensor(&mut self, name: &'static str, dim: usize) {
        self.tensors.push((name, 0, dim as u64));
    }

    /// Adds `rows`, `[n, dim]`, to the last tensor.
    pub fn append(&mut self, rows: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.output.file().write_all(&bytes).map_err(|e| self.output.failed(e))?;
        if let Some((_, n, dim)) = self.tensors.last_mut() {
            *n += rows.len() as u64 / *dim;
        }
        Ok(())
    }

    /// Writes the header with `metadata`, and gives the file its name.
    pub fn finish(mut self, metadata: &Metadata) -> Result<()> {
        let mut end = 0;
        let entries = self.tensors.iter().map(|&(name, rows, dim)| {
            let start = end;
            end += 4 * rows * dim;
            (name, [rows, dim], [start, end])
        });
        let mut text = header(&entries.collect::<Vec<_>>(), metadata)?;
        if text.len() > self.header_bytes {
            return Err(Error::new("the header of the vectors is longer than the space kept for it"));
        }
        text.resize(self.header_bytes, b' ');
        let mut start = (text.len() as u64).to_le_bytes().to_vec();
        start.append(&mut text);
        let file = self.output.file();
        file.rewind().and_then(|()| file.write_all(&start)).map_err(|e| self.output.failed(e))?;
        self.output.finish()
    }
}

/// The header of tensors of the names, shapes and places; always the same bytes for the same content.
fn header(tensors: &[(&str, [u64; 2], [u64; 2])], metadata: &Metadata) -> Result<Vec<u8>> {
    let mut header = Map::from_iter([("__metadata__".to_owned(), serde_json::to_value(metadata)?)]);
    for (name, shape, place) in tensors {
        let entry: Value = json!({"dtype": "F32", "shape": shape, "data_offsets": place});
        header.insert((*name).to_owned(), entry);
    }
    Ok(serde_json::to_vec(&header)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    fn metadata(names: &str) -> Metadata {
        [("transparency", "drop"), ("image_names", names)].map(|(key, value)| (key, value.to_owned())).into()
    }

    #[test]
    fn rows_that_come_in_parts_are_a_safetensors_file() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let write = |name: &str, parts: &[&[f32]]| -> Result<Vec<u8>> {
            let path = dir.path().join(name);
            let longest = metadata("a long list of names, of which few are kept \" é");
            let mut vectors = Vectors::start(Output::open(&path, "")?, &["text_embeds", "image_embeds"], &longest)?;
            vectors.tensor("text_embeds", 2);
            parts.iter().try_for_each(|part| vectors.append(part))?;
            vectors.tensor("image_embeds", 3);
            vectors.append(&[7.0, 8.0, 9.0])?;
            vectors.finish(&metadata("é \" kept"))?;
            Ok(std::fs::read(path)?)
        };
        let whole = write("a", &[&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])?;
        assert_eq!(write("b", &[&[1.0, 2.0], &[], &[3.0, 4.0, 5.0, 6.0]])?, whole);
        let tensors = SafeTensors::deserialize(&whole)?;
        let floats = |name: &str| -> Result<(Vec<usize>, Vec<f32>)> {
            let tensor = tensors.tensor(name)?;
            let values = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            Ok((tensor.shape().to_vec(), values.collect()))
        };
        assert_eq!(floats("text_embeds")?, (vec![3, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        assert_eq!(floats("image_embeds")?, (vec![1, 3], vec![7.0, 8.0, 9.0]));
        let read = SafeTensors::read_metadata(&whole)?.1;
        assert_eq!(read.metadata().as_ref().and_then(|all| all.get("image_names")), Some(&"é \" kept".to_owned()));
        Ok(())
    }

    #[test]
    fn more_names_than_a_header_holds_are_refused_before_any_work() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a");
        let names = metadata(&"n".repeat(MAX_HEADER_BYTES));
        let error = Vectors::start(Output::open(&path, "")?, &["image_embeds"], &names).err();
        assert!(error.is_some_and(|error| error.to_string().contains("100 MB") && error.advice().is_some()));
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 0);
        Ok(())
    }
}

//! Teacher features: computed once, written to disk, memory-mapped, found again by content.
//!
//! The file is a safetensors file `targets` `[captions, dim]` in f32. While it is being computed it grows under
//! another name; a run that was stopped resumes where it was, as long as the content (captions, teacher, tokenizer)
//! is the same.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result, ResultExt};

/// Identifies teacher features by all they depend on.
pub struct Key(blake3::Hasher);

impl Key {
    /// From the files that make the teacher; each counts with its name and its content.
    pub fn of_files(files: &[PathBuf]) -> Result<Self> {
        let mut hasher = blake3::Hasher::new();
        // (Since version 2, token ids follow tokenizer_config.json and added_tokens.json as transformers' do.)
        hasher.update(b"themo teacher features, version 2");
        Self(hasher).and_files(files)
    }

    /// From more files besides.
    pub fn and_files(&self, files: &[PathBuf]) -> Result<Self> {
        let mut hasher = self.0.clone();
        for path in files {
            let mut content = blake3::Hasher::new();
            content.update_mmap_rayon(path).context(|| format!("cannot read {}", path.display()))?;
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            hasher.update(name.as_bytes()).update(content.finalize().as_bytes());
        }
        Ok(Self(hasher))
    }

    /// With operands rounded to bf16, the key is another one.
    pub fn in_bf16(mut self, bf16: bool) -> Self {
        if bf16 {
            self.0.update(b"bf16, attention too");
        }
        self
    }

    /// The key of these captions' features, in this order.
    pub fn of_captions<S: AsRef<str>>(&self, captions: &[S]) -> String {
        let mut hasher = self.0.clone();
        for caption in captions {
            hasher.update(&(caption.as_ref().len() as u64).to_le_bytes()).update(caption.as_ref().as_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// One target `[dim]` a caption.
pub struct Targets {
    map: Mmap,
    data_start: usize,
    dim: usize,
    /// How many of them had to be computed now (0: all were found).
    pub computed: usize,
}

impl Targets {
    /// Opens `dir/KEY.safetensors`, first computing the rows it lacks: `embed(start)` returns the features of at
    /// least one more caption from row `start` on, as rows of `dim` numbers.
    pub fn open_or_compute(
        dir: &Path, key: &str, captions: usize, dim: usize, mut embed: impl FnMut(usize) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let path = dir.join(format!("{key}.safetensors"));
        let header = header(captions, dim);
        let mut computed = 0;
        if !path.exists() {
            computed = Self::compute(dir, key, &header, captions, dim, &mut embed)?;
        }
        let file = File::open(&path).context(|| format!("cannot open {}", path.display()))?;
        // SAFETY: the map is read-only; files in the cache are never changed once they have this name.
        let map = unsafe { Mmap::map(&file) }.context(|| format!("cannot map {}", path.display()))?;
        if map.len() != header.len() + captions * dim * 4 || map[..header.len()] != header[..] {
            return Err(Error::new(format!("{} is not what its name promises", path.display()))
                .hint("delete the file; it will be computed again"));
        }
        Ok(Self { map, data_start: header.len(), dim, computed })
    }

    /// Computes the missing rows into `KEY.partial` and gives it its final name; returns how many there were.
    fn compute(
        dir: &Path, key: &str, header: &[u8], captions: usize, dim: usize,
        embed: &mut impl FnMut(usize) -> Result<Vec<f32>>,
    ) -> Result<usize> {
        let (path, partial) = (dir.join(format!("{key}.safetensors")), dir.join(format!("{key}.partial")));
        let failed = |e: std::io::Error| {
            Error::from(e)
                .context(format!("cannot write the teacher's features to {}", partial.display()))
                .hint("check the free space and the permissions, or choose another place with --cache-dir")
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let options = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&partial);
        let mut file = options().map_err(failed)?;
        if file.try_lock().is_err() {
            tracing::info!("another themo is computing these features; waiting for it");
            file.lock().map_err(failed)?;
        }
        // While we waited, or between the look and the opening, another themo may have finished: then the name we
        // opened is gone, or is a new and empty file of our own making.
        if path.exists() {
            if std::fs::metadata(&partial).is_ok_and(|m| m.len() == 0) {
                std::fs::remove_file(&partial).map_err(failed)?;
            }
            return Ok(0);
        }
        let row = dim * 4;
        let done = whole_rows(&mut file, header, row).map_err(failed)?.min(captions);
        if done > 0 {
            tracing::info!("{done} of {captions} teacher features are there from a run that was stopped");
        } else {
            file.set_len(0).map_err(failed)?;
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
            file.write_all(header).map_err(failed)?;
        }
        file.set_len((header.len() + done * row) as u64).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut at = done;
        while at < captions {
            let rows = embed(at)?;
            if rows.is_empty() || rows.len() % dim != 0 {
                return Err(Error::new("the teacher's features have the wrong width"));
            }
            if let Some(bad) = rows.iter().position(|v| !v.is_finite()) {
                let what = format!("the teacher's feature of caption {} is not finite", at + bad / dim + 1);
                return Err(Error::new(what).hint("the teacher's weights may be broken; fetch them again"));
            }
            let bytes: Vec<u8> = rows.iter().flat_map(|v| v.to_le_bytes()).collect();
            file.write_all(&bytes).map_err(failed)?;
            at += rows.len() / dim;
        }
        file.sync_all().map_err(failed)?;
        std::fs::rename(&partial, &path).map_err(failed)?; // still under the lock
        Ok(captions - done)
    }

    /// The target of caption `i`, appended to `out`.
    pub fn append(&self, i: usize, out: &mut Vec<f32>) {
        let row = &self.map[self.data_start + i * self.dim * 4..][..self.dim * 4];
        out.extend(row.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    }

    /// Width of a target.
    pub fn dim(&self) -> usize {
        self.dim
    }
}

/// A safetensors header for one f32 tensor, padded so that the data is aligned.
fn header(captions: usize, dim: usize) -> Vec<u8> {
    let end = captions * dim * 4;
    let mut json =
        format!(r#"{{"targets":{{"dtype":"F32","shape":[{captions},{dim}],"data_offsets":[0,{end}]}}}}"#).into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    header
}

/// How many rows of a partial file can be kept: none if its header differs; rows of zeros at the end (a file that
/// grew before its data reached the disk) are not counted.
fn whole_rows(file: &mut File, header: &[u8], row: usize) -> std::io::Result<usize> {
    use std::io::Read;
    let length = file.metadata()?.len() as usize;
    let mut start = vec![0; header.len()];
    if length < header.len() || file.read_exact(&mut start).is_err() || start != header {
        return Ok(0);
    }
    let mut rows = (length - header.len()) / row;
    let mut last = vec![0; row];
    while rows > 0 {
        file.seek(SeekFrom::Start((header.len() + (rows - 1) * row) as u64))?;
        file.read_exact(&mut last)?;
        if last.iter().any(|b| *b != 0) {
            break;
        }
        rows -= 1;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_computed_once_and_a_stopped_run_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let feature = |i: usize| vec![i as f32 + 1.0, -(i as f32) - 0.5];
        let stopped = Targets::open_or_compute(dir.path(), "k", 10, 2, |at| {
            if at >= 6 { Err(Error::new("stopped")) } else { Ok([feature(at), feature(at + 1)].concat()) }
        });
        assert!(stopped.is_err());
        let mut asked = Vec::new();
        let targets = Targets::open_or_compute(dir.path(), "k", 10, 2, |at| {
            asked.push(at);
            Ok(feature(at))
        })
        .unwrap();
        assert_eq!((asked, targets.computed), (vec![6, 7, 8, 9], 4));
        let again = Targets::open_or_compute(dir.path(), "k", 10, 2, |_| Err(Error::new("must not be asked"))).unwrap();
        assert_eq!(again.computed, 0);
        let mut all = Vec::new();
        (0..10).for_each(|i| again.append(i, &mut all));
        assert_eq!(all, (0..10).flat_map(feature).collect::<Vec<_>>());
    }

    #[test]
    fn several_at_once_compute_once() {
        let dir = tempfile::tempdir().unwrap();
        let computed: usize = std::thread::scope(|scope| {
            let one = || {
                Targets::open_or_compute(dir.path(), "k", 50, 1, |at| {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    Ok(vec![at as f32 + 1.0])
                })
            };
            let all: Vec<_> = (0..6).map(|_| scope.spawn(one)).collect();
            all.into_iter().map(|thread| thread.join().unwrap().unwrap().computed).sum()
        });
        assert_eq!(computed, 50);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "something is left over");
    }

    #[test]
    fn the_key_depends_on_every_caption_and_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model");
        std::fs::write(&file, "a").unwrap();
        let key = |captions: &[&str]| Key::of_files(std::slice::from_ref(&file)).unwrap().of_captions(captions);
        let first = key(&["a", "bc"]);
        assert_ne!(first, key(&["ab", "c"]));
        assert_eq!(first, key(&["a", "bc"]));
        std::fs::write(&file, "b").unwrap();
        assert_ne!(first, key(&["a", "bc"]));
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("k.safetensors"), "short").unwrap();
        assert!(Targets::open_or_compute(dir.path(), "k", 10, 2, |_| Ok(vec![0.0; 2])).is_err());
    }
}

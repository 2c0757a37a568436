//! A set of caption pairs as one memory-mapped file: written once, found again by its name, opened in moments.
//!
//! | bytes | content |
//! |---|---|
//! | 16 | `MAGIC` |
//! | | for each pair: the length of the Spanish caption (u32), the Spanish caption, the English caption (UTF-8) |
//! | 8 (pairs + 1) | where each pair begins, and where the last one ends (u64) |
//! | 8 | how many pairs there are (u64) |
//! | 32 | BLAKE3 of all bytes before |
//!
//! Numbers are little-endian. The digest is checked whenever a file is opened (some GB a second), so a set with a changed
//! byte is never used, and it is the set's fingerprint.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde_json::Value;

use super::pairs::Pair;
use crate::error::{Error, Result, ResultExt};
use crate::fs::{sync_dir, write_json};

const MAGIC: &[u8; 16] = b"themo pairs  v1\n";
const DIGEST_BYTES: usize = 32;

/// Caption pairs on disk; memory holds none of them.
pub struct PairSet {
    map: Mmap,
    starts_at: usize,
    whole: usize,
    used: usize,
}

impl PairSet {
    /// The set in `path`.
    ///
    /// # Errors
    /// A file that cannot be read, is no such set, or was changed since it was written.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).context(|| format!("cannot open {}", path.display()))?;
        Self::map(&file).context(|| format!("cannot use the pairs in {}", path.display()))
    }

    /// The set of `pairs`, in a file without a name.
    pub fn of<'a>(pairs: impl IntoIterator<Item = &'a Pair>) -> Result<Self> {
        Self::unnamed(&std::env::temp_dir(), |writer| {
            pairs.into_iter().try_for_each(|pair| writer.add(&pair.es, &pair.en))
        })
    }

    /// The set that `fill` writes, in a file of the folder `dir` that has no name and is gone with the process.
    pub fn unnamed(dir: &Path, fill: impl FnOnce(&mut Writer) -> Result<()>) -> Result<Self> {
        let failed = || format!("cannot write pairs into {}", dir.display());
        std::fs::create_dir_all(dir).context(failed)?;
        let file = tempfile::tempfile_in(dir).context(failed)?;
        let mut writer = Writer::new(file, dir)?;
        fill(&mut writer)?;
        Self::map(&writer.finish()?).context(failed)
    }

    /// The set `dir/KEY.pairs` with its manifest, `dir/KEY.json`; where there is none, `fill` writes the set first and
    /// returns the manifest. Of several processes that want one set, one writes it and the others wait.
    pub fn open_or_write(
        dir: &Path, key: &str, fill: impl FnOnce(&mut Writer) -> Result<Value>,
    ) -> Result<(Self, Value)> {
        let [path, manifest, partial] = ["pairs", "json", "partial"].map(|end| dir.join(format!("{key}.{end}")));
        if let Some(whole) = Self::open_whole(&path, &manifest) {
            return Ok(whole);
        }
        let failed = |e: io::Error| write_failed(e, &partial);
        std::fs::create_dir_all(dir).map_err(failed)?;
        let file = lock(&partial).map_err(failed)?;
        // Another themo may have finished while this one waited.
        if let Some(whole) = Self::open_whole(&path, &manifest) {
            std::fs::remove_file(&partial).map_err(failed)?;
            return Ok(whole);
        }
        file.set_len(0).map_err(failed)?;
        let mut writer = Writer::new(file, &partial)?;
        let made = fill(&mut writer).inspect_err(|_| std::fs::remove_file(&partial).unwrap_or_default())?;
        let file = writer.finish()?;
        file.sync_all().map_err(failed)?;
        write_json(&manifest, &made)?;
        std::fs::rename(&partial, &path).map_err(failed)?; // still under the lock
        sync_dir(dir).map_err(failed)?;
        Ok((Self::open(&path)?, made))
    }

    /// The set in `path` and its manifest; `None` if they are missing, or damaged, which a warning says.
    fn open_whole(path: &Path, manifest: &Path) -> Option<(Self, Value)> {
        if !path.exists() {
            return None;
        }
        let read = || -> Result<_> {
            let failed = || format!("cannot use {}", manifest.display());
            let manifest = std::fs::read(manifest).context(failed)?;
            Ok((Self::open(path)?, serde_json::from_slice(&manifest).context(failed)?))
        };
        read().inspect_err(|e| tracing::warn!("{e}: the pairs are prepared again")).ok()
    }

    fn map(file: &File) -> Result<Self> {
        // SAFETY: the map is read-only; a set is never changed once it is written whole.
        let map = unsafe { Mmap::map(file) }?;
        let damaged = || Error::new("the file is damaged").hint("delete it; it will be made again");
        let end = map.len().checked_sub(DIGEST_BYTES + 8).filter(|end| *end > MAGIC.len()).ok_or_else(damaged)?;
        let (content, digest) = map.split_at(end + 8);
        if map[..MAGIC.len()] != MAGIC[..] || blake3::Hasher::new().update_rayon(content).finalize() != *digest {
            return Err(damaged());
        }
        let whole = number(&map, end);
        let starts_at = whole.checked_add(1).and_then(|n| n.checked_mul(8)).and_then(|bytes| end.checked_sub(bytes));
        let starts_at = starts_at.ok_or_else(damaged)?;
        Ok(Self { map, starts_at, whole, used: whole })
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Uses the first `most` pairs only.
    pub fn truncate(&mut self, most: usize) {
        self.used = self.used.min(most);
    }

    /// The Spanish and the English caption of pair `i`.
    ///
    /// # Panics
    /// Where there is no pair `i`.
    pub fn pair(&self, i: usize) -> Result<(&str, &str)> {
        assert!(i < self.used, "pair {i} of {}", self.used);
        let [start, end] = [i, i + 1].map(|i| number(&self.map, self.starts_at + i * 8));
        let captions = self.map.get(start..end).and_then(|record| {
            let (length, texts) = record.split_first_chunk::<4>()?;
            let (es, en) = texts.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            Some((str::from_utf8(es).ok()?, str::from_utf8(en).ok()?))
        });
        captions.ok_or_else(|| Error::new(format!("pair {i} of a set of pairs is damaged")))
    }

    /// Identifies the pairs and their order.
    pub fn fingerprint(&self) -> String {
        let digest = blake3::Hash::from_bytes(*self.map.last_chunk().unwrap_or(&[0; DIGEST_BYTES]));
        let digest = &digest.to_hex()[..32];
        if self.used == self.whole { digest.to_owned() } else { format!("first {} of {digest}", self.used) }
    }
}

/// Opens the file `path` for writing and waits until no other process has it locked.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        crate::fs::lock(&file, path, "another themo is preparing these pairs");
        // Whoever had it locked may have given it its final name, or removed it.
        if is_at(&file, path)? {
            return Ok(file);
        }
    }
}

/// Whether the name `path` is still that of `file`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let place = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        Ok(std::fs::metadata(path).is_ok_and(|named| Some(place(named)) == file.metadata().ok().map(place)))
    }
    #[cfg(not(unix))]
    {
        file.metadata().map(|_| path.exists())
    }
}

/// The number at byte `at`.
fn number(bytes: &[u8], at: usize) -> usize {
    bytes[at..].first_chunk().map_or(0, |number| u64::from_le_bytes(*number) as usize)
}

fn write_failed(error: io::Error, path: &Path) -> Error {
    Error::from(error)
        .context(format!("cannot write the prepared pairs to {}", path.display()))
        .hint("check the free space and the permissions, or choose another place with --cache-dir")
}

/// Writes a set, pair by pair.
pub struct Writer {
    file: File,
    path: PathBuf,
    digest: blake3::Hasher,
    buffer: Vec<u8>,
    written: u64,
    starts: Vec<u64>,
}

impl Writer {
    /// Bytes that are hashed and written at once.
    const AT_ONCE: usize = 1 << 20;

    fn new(mut file: File, path: &Path) -> Result<Self> {
        file.seek(SeekFrom::Start(0)).map_err(|e| write_failed(e, path))?;
        let (path, digest, buffer) = (path.to_owned(), blake3::Hasher::new(), MAGIC.to_vec());
        Ok(Self { file, path, digest, buffer, written: 0, starts: Vec::new() })
    }

    /// One more pair.
    pub fn add(&mut self, es: &str, en: &str) -> Result<()> {
        let length = u32::try_from(es.len()).map_err(|_| Error::new("a caption of more than 4 GiB"))?;
        self.starts.push(self.written + self.buffer.len() as u64);
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(es.as_bytes());
        self.buffer.extend_from_slice(en.as_bytes());
        if self.buffer.len() >= Self::AT_ONCE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.digest.update(&self.buffer);
        self.file.write_all(&self.buffer).map_err(|e| write_failed(e, &self.path))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// How many pairs were added.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether no pair was added.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    fn finish(mut self) -> Result<File> {
        let (count, mut starts) = (self.len() as u64, std::mem::take(&mut self.starts));
        starts.push(self.written + self.buffer.len() as u64);
        for some in starts.chunks(Self::AT_ONCE / 8) {
            self.flush()?;
            self.buffer.extend(some.iter().flat_map(|start| start.to_le_bytes()));
        }
        self.buffer.extend_from_slice(&count.to_le_bytes());
        self.flush()?;
        self.buffer.extend_from_slice(self.digest.finalize().as_bytes());
        self.flush()?;
        Ok(self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(n: usize) -> Vec<Pair> {
        (0..n).map(|i| Pair { es: format!("un niño {i}"), en: "a child ".repeat(i % 3) }).collect()
    }

    fn fill(pairs: &[Pair]) -> impl FnOnce(&mut Writer) -> Result<Value> {
        |writer| {
            pairs.iter().try_for_each(|pair| writer.add(&pair.es, &pair.en))?;
            Ok(writer.len().into())
        }
    }

    fn all(set: &PairSet) -> Vec<Pair> {
        (0..set.len()).map(|i| set.pair(i).unwrap()).map(|(es, en)| Pair { es: es.into(), en: en.into() }).collect()
    }

    fn must_not(_: &mut Writer) -> Result<Value> {
        Err(Error::new("must not be written"))
    }

    #[test]
    fn a_set_is_written_once_and_found_again() {
        let (dir, want) = (tempfile::tempdir().unwrap(), pairs(20_000));
        let (set, manifest) = PairSet::open_or_write(dir.path(), "k", fill(&want)).unwrap();
        assert_eq!((all(&set), manifest), (want.clone(), Value::from(20_000)));
        let (mut again, manifest) = PairSet::open_or_write(dir.path(), "k", must_not).unwrap();
        assert_eq!((all(&again), again.fingerprint()), (want.clone(), set.fingerprint()));
        assert_eq!(manifest, Value::from(20_000));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "something is left over");
        assert_eq!(PairSet::of(&want).unwrap().fingerprint(), set.fingerprint());
        assert_ne!(PairSet::of(&want[1..]).unwrap().fingerprint(), set.fingerprint());
        again.truncate(7);
        assert_eq!(all(&again), want[..7]);
        assert_ne!(again.fingerprint(), set.fingerprint());
        assert!(PairSet::of(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_set_that_was_not_finished_is_written_again() {
        let (dir, want) = (tempfile::tempdir().unwrap(), pairs(30));
        std::fs::write(dir.path().join("k.partial"), vec![7; 5000]).unwrap();
        let stopped = PairSet::open_or_write(dir.path(), "k", |writer| {
            writer.add("a", "b")?;
            Err(Error::new("stopped"))
        });
        assert!(stopped.is_err());
        assert_eq!(all(&PairSet::open_or_write(dir.path(), "k", fill(&want)).unwrap().0), want);
    }

    #[test]
    fn one_changed_bit_is_noticed() {
        let (dir, want) = (tempfile::tempdir().unwrap(), pairs(3));
        PairSet::open_or_write(dir.path(), "k", fill(&want)).unwrap();
        let path = dir.path().join("k.pairs");
        let good = std::fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bad).unwrap();
            assert!(PairSet::open(&path).is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            std::fs::write(&path, &good[..length]).unwrap();
            assert!(PairSet::open(&path).is_err(), "cut at {length}");
        }
        let error = PairSet::open(&path).err().unwrap();
        assert!(error.to_string().contains("k.pairs") && error.advice().is_some(), "{error}");
        assert_eq!(all(&PairSet::open_or_write(dir.path(), "k", fill(&want)).unwrap().0), want);
        assert_eq!(std::fs::read(&path).unwrap(), good);
    }

    #[test]
    fn of_several_processes_one_writes() {
        let (dir, want) = (tempfile::tempdir().unwrap(), pairs(100));
        let written = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let set = PairSet::open_or_write(dir.path(), "k", |writer| {
                        written.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(30));
                        fill(&want)(writer)
                    });
                    assert_eq!(all(&set.unwrap().0), want);
                });
            }
        });
        assert_eq!(written.into_inner(), 1);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "something is left over");
    }
}

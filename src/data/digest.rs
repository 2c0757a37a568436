//! Names for results by all that they depend on, and digests of files, remembered from call to call: to hash an
//! evaluation set and its models takes a minute, to look at their sizes and times of change does not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Result, ResultExt};
use crate::fs::write_atomic;

/// Collects what a result depends on.
pub struct Key(blake3::Hasher);

impl Key {
    /// For results of the kind `what`, which names the version of how they are made.
    pub fn new(what: &str) -> Self {
        let mut key = Self(blake3::Hasher::new());
        key.add(what);
        key
    }

    /// One more thing, in order.
    pub fn add(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }

    /// A list of things, in order.
    pub fn add_all<S: AsRef<str>>(&mut self, texts: &[S]) {
        self.0.update(&(texts.len() as u64).to_le_bytes());
        texts.iter().for_each(|text| self.add(text.as_ref()));
    }

    /// The name, 32 hexadecimal digits.
    pub fn name(&self) -> String {
        self.0.finalize().to_hex()[..32].to_owned()
    }
}

/// A change this recent may be followed by another within the clock's resolution: such a file is hashed again.
const SETTLED: Duration = Duration::from_secs(2);

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Seen {
    bytes: u64,
    changed_nanos: u64,
    blake3: String,
}

/// Digests of files' content.
pub struct Digests {
    path: PathBuf,
    seen: BTreeMap<PathBuf, Seen>,
    changed: bool,
}

impl Digests {
    /// Those remembered in `dir`; none if the file is missing or damaged.
    pub fn open(dir: &Path) -> Self {
        let path = dir.join("digests.json");
        let seen = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, seen, changed: false }
    }

    /// The digest of each file; hashes those that are new or that changed in size or time.
    pub fn of(&mut self, files: &[PathBuf]) -> Result<Vec<String>> {
        let look = |file: &PathBuf| -> Result<(PathBuf, Seen, bool)> {
            let failed = || format!("cannot read {}", file.display());
            let at = std::path::absolute(file).context(failed)?;
            let metadata = std::fs::metadata(file).context(failed)?;
            let changed = metadata.modified().context(failed)?;
            let since = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
            let (bytes, changed_nanos) = (metadata.len(), since.as_nanos() as u64);
            if let Some(seen) = self.seen.get(&at).filter(|s| (s.bytes, s.changed_nanos) == (bytes, changed_nanos)) {
                return Ok((at, seen.clone(), false));
            }
            let mut hasher = blake3::Hasher::new();
            hasher.update_mmap_rayon(file).context(failed)?;
            let settled = SystemTime::now().duration_since(changed).is_ok_and(|age| age > SETTLED);
            Ok((at, Seen { bytes, changed_nanos, blake3: hasher.finalize().to_hex().to_string() }, settled))
        };
        let found = files.par_iter().map(look).collect::<Result<Vec<_>>>()?;
        let mut digests = Vec::with_capacity(found.len());
        for (at, seen, keep) in found {
            digests.push(seen.blake3.clone());
            if keep {
                self.seen.insert(at, seen);
                self.changed = true;
            }
        }
        Ok(digests)
    }

    /// Keeps what was learnt for the next call.
    pub fn save(&self) -> Result<()> {
        if self.changed { write_atomic(&self.path, &serde_json::to_vec(&self.seen)?) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_remembered_until_a_file_changes() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("file");
        let write = |text: &str, secs: u64| -> Result<()> {
            std::fs::write(&file, text)?;
            let time = UNIX_EPOCH + Duration::from_secs(secs);
            Ok(std::fs::File::options().write(true).open(&file)?.set_modified(time)?)
        };
        let digest = || -> Result<String> {
            let mut digests = Digests::open(dir.path());
            let digest = digests.of(std::slice::from_ref(&file))?.remove(0);
            digests.save()?;
            Ok(digest)
        };
        write("one", 1000)?;
        let one = digest()?;
        assert_eq!(one, blake3::hash(b"one").to_hex().to_string());
        write("two", 1000)?; // in disguise, to see that it is not read again
        assert_eq!(digest()?, one);
        write("two", 1001)?;
        assert_eq!(digest()?, blake3::hash(b"two").to_hex().to_string());
        // A change of just now is not remembered, for another may carry the same time.
        std::fs::write(&file, "abc")?;
        let now = std::fs::metadata(&file)?.modified()?;
        assert_eq!(digest()?, blake3::hash(b"abc").to_hex().to_string());
        std::fs::write(&file, "abd")?;
        std::fs::File::options().write(true).open(&file)?.set_modified(now)?;
        assert_eq!(digest()?, blake3::hash(b"abd").to_hex().to_string());
        std::fs::write(dir.path().join("digests.json"), "{")?;
        assert_eq!(digest()?, blake3::hash(b"abd").to_hex().to_string());
        std::fs::remove_file(&file)?;
        assert!(digest().is_err());
        Ok(())
    }

    #[test]
    fn keys_tell_lists_apart() {
        let name = |lists: &[&[&str]]| {
            let mut key = Key::new("test");
            lists.iter().for_each(|list| key.add_all(list));
            key.name()
        };
        assert_eq!(name(&[&["a", "bc"]]), name(&[&["a", "bc"]]));
        let names = [name(&[&["a", "bc"]]), name(&[&["ab", "c"]]), name(&[&["a"], &["bc"]]), name(&[&["abc"]])];
        assert!((0..4).all(|i| (0..i).all(|j| names[i] != names[j])), "{names:?}");
    }
}

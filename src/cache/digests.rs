//! Digests of files, remembered from call to call: to hash an evaluation set and its models takes a minute, to look at
//! their sizes and times does not.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Result, ResultExt};
use crate::fs::{distinct, replace, shown, write_error_at};

/// A change this recent may be followed by another within the clock's resolution: such a file is hashed again.
const SETTLED: Duration = Duration::from_secs(2);

/// What changes whenever the content of a file does.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    /// Of the content, in nanoseconds since 1970.
    changed: i64,
    /// Of the content or the entry; nobody can set it back (Unix only).
    entry_changed: i64,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> std::io::Result<Self> {
        let changed = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64;
        let stamp = Self { bytes: metadata.len(), changed, entry_changed: 0, inode: 0 };
        #[cfg(unix)]
        let stamp = {
            use std::os::unix::fs::MetadataExt;
            let entry_changed = metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec();
            Self { entry_changed, inode: metadata.ino(), ..stamp }
        };
        Ok(stamp)
    }

    /// Whether the last change lies so far back that another one would have another time.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64;
        now.saturating_sub(self.entry_changed.max(self.changed)) > SETTLED.as_nanos() as i64
    }
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Seen {
    #[serde(flatten)]
    stamp: Stamp,
    blake3: String,
}

/// Digests of files' content.
pub struct Digests {
    path: PathBuf,
    seen: BTreeMap<String, Seen>, // by absolute path
    changed: bool,
}

impl Digests {
    /// Those remembered in `dir`; none if the file is missing or damaged.
    pub fn open(dir: &Path) -> Self {
        let path = dir.join("digests.json");
        let seen = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, seen, changed: false }
    }

    /// The digest of each file; hashes those that are new or that changed.
    pub fn of(&mut self, files: &[PathBuf]) -> Result<Vec<String>> {
        let look = |file: &PathBuf| -> Result<(String, Seen, bool)> {
            let failed = || format!("cannot read {}", shown(file));
            let at = distinct(std::path::absolute(file).context(failed)?.as_os_str());
            let stamp = || Stamp::of(&std::fs::metadata(file)?);
            let before = stamp().context(failed)?;
            if let Some(seen) = self.seen.get(&at).filter(|seen| seen.stamp == before) {
                return Ok((at, seen.clone(), false));
            }
            let mut hasher = blake3::Hasher::new();
            hasher.update_mmap_rayon(file).context(failed)?;
            let keep = before.is_settled() && stamp().context(failed)? == before;
            Ok((at, Seen { stamp: before, blake3: hasher.finalize().to_hex().to_string() }, keep))
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

    /// [`Self::save`], where that they cannot be kept costs time and nothing else.
    pub fn keep(&self) {
        self.save().unwrap_or_else(|e| tracing::debug!("digests are not kept: {e}"));
    }

    /// Keeps what was learnt for the next call.
    pub fn save(&self) -> Result<()> {
        if !self.changed {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&self.seen)?;
        replace(&self.path, |file| file.write_all(&bytes))
            .map_err(|e| write_error_at(&self.path, e, "with --cache-dir"))
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
        // A change of just now is not remembered, for another may carry the same time.
        write("two", 1000)?;
        assert_eq!(digest()?, blake3::hash(b"two").to_hex().to_string());
        // What is remembered is used, as a false memory shows: it needs all of size, times and inode.
        let stamp = Stamp::of(&std::fs::metadata(&file)?)?;
        let remember = |stamp: Stamp| -> Result<()> {
            let seen = BTreeMap::from([(file.clone(), Seen { stamp, blake3: "false".into() })]);
            Ok(std::fs::write(dir.path().join("digests.json"), serde_json::to_vec(&seen)?)?)
        };
        remember(stamp.clone())?;
        assert_eq!(digest()?, "false");
        for changed in [
            Stamp { bytes: 2, ..stamp.clone() },
            Stamp { changed: 1, ..stamp.clone() },
            Stamp { entry_changed: 1, ..stamp.clone() },
            Stamp { inode: 1, ..stamp.clone() },
        ] {
            remember(changed)?;
            assert_eq!(digest()?, blake3::hash(b"two").to_hex().to_string());
        }
        std::fs::write(dir.path().join("digests.json"), "{")?;
        assert_eq!(digest()?, blake3::hash(b"two").to_hex().to_string());
        std::fs::remove_file(&file)?;
        assert!(digest().is_err());
        Ok(())
    }
}

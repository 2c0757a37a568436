//! The cache on disk that themo shares with Python's huggingface_hub
//! (<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>). Where things lie is the `hf-hub` crate's knowledge;
//! refs, absent files, locks and links, of which it knows nothing or too little, are kept here:
//!
//! ```text
//! models--OWNER--NAME/blobs/ETAG               contents, each once; ETAG.incomplete while it comes
//! models--OWNER--NAME/refs/REVISION            the commit that a branch or tag was
//! models--OWNER--NAME/snapshots/COMMIT/FILE -> ../../blobs/ETAG
//! models--OWNER--NAME/.no_exist/COMMIT/FILE    files that the commit does not have
//! .locks/models--OWNER--NAME/ETAG.lock         held while a blob is written
//! ```
//!
//! A data set's folder is `datasets--OWNER--NAME`; themo keeps its listing there too, in `.listing/COMMIT.json`.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo};

use crate::error::{Error, Result};

/// The part of the cache that one repository has.
pub struct Repo {
    layout: CacheRepo,
    root: PathBuf,
    locks: PathBuf,
}

impl Repo {
    /// The repository `repo` in `cache`.
    pub fn new(cache: &Path, repo: &hf_hub::Repo) -> Self {
        let name = repo.folder_name();
        let layout = Cache::new(cache.to_owned()).repo(repo.clone());
        Self { layout, root: cache.join(&name), locks: cache.join(".locks").join(&name) }
    }

    /// The folder of all that is kept of it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The commit that `revision` was when it was last fetched, or that it is itself.
    pub fn commit(&self, revision: &str) -> Option<String> {
        let noted = fs::read_to_string(self.root.join("refs").join(revision)).ok();
        let noted = noted.map(|text| text.trim().to_owned()).filter(|commit| is_commit(commit));
        noted.or_else(|| is_commit(revision).then(|| revision.to_owned()))
    }

    /// Notes that `revision` is `commit`.
    pub fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        match revision == commit {
            true => Ok(()),
            false => note(&self.root.join("refs").join(revision), commit),
        }
    }

    /// The folder of the files of `commit`.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.layout.pointer_path(commit)
    }

    /// Whether `file` is noted as one that `commit` does not have.
    pub fn is_absent(&self, commit: &str, file: &str) -> bool {
        self.root.join(".no_exist").join(commit).join(file).exists()
    }

    /// Notes that `commit` does not have `file`.
    pub fn set_absent(&self, commit: &str, file: &str) -> Result<()> {
        match self.is_absent(commit, file) {
            true => Ok(()),
            false => note(&self.root.join(".no_exist").join(commit).join(file), ""),
        }
    }

    /// Makes `file` of `commit` the content called `etag`, which `fetch` writes to the path it is given if no one has
    /// it yet. Of several processes one fetches, the others wait for it.
    pub fn add(&self, commit: &str, file: &str, etag: &str, fetch: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let blob = self.layout.blob_path(etag);
        if !blob.exists() {
            let (blobs, lock) = (self.root.join("blobs"), self.locks.join(format!("{etag}.lock")));
            for folder in [&blobs, &self.locks] {
                fs::create_dir_all(folder).map_err(failed(folder))?;
            }
            let lock_file = File::create(&lock).map_err(failed(&lock))?;
            let locked = match lock_file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    tracing::info!("another process is fetching {file}; waiting for it");
                    lock_file.lock().is_ok()
                }
                other => other.is_ok(),
            };
            // Where a file system knows no locks, a name of its own keeps processes apart.
            let own = if locked { String::new() } else { format!(".{}", std::process::id()) };
            let part = blobs.join(format!("{etag}{own}.incomplete"));
            if !blob.exists() {
                fetch(&part)?;
                fs::rename(&part, &blob).map_err(failed(&blob))?;
            }
        }
        let pointer = self.snapshot(commit).join(file);
        let (within, name) = file.rsplit_once('/').unwrap_or(("", file));
        let folder = self.snapshot(commit).join(within);
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        // Made beside and renamed: another process may do the same, and what hangs is replaced.
        let beside = folder.join(format!(".{name}.{}.{:?}", std::process::id(), std::thread::current().id()));
        let up = "../".repeat(2 + file.matches('/').count());
        let target = Path::new(&up).join("blobs").join(etag);
        link(&blob, &target, &beside).and_then(|()| fs::rename(&beside, &pointer)).map_err(failed(&pointer))
    }
}

#[cfg(unix)]
fn link(_blob: &Path, target: &Path, pointer: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, pointer)
}

/// (Elsewhere links need rights that few have.)
#[cfg(not(unix))]
fn link(blob: &Path, _target: &Path, pointer: &Path) -> io::Result<()> {
    fs::hard_link(blob, pointer).or_else(|_| fs::copy(blob, pointer).map(drop))
}

/// Writes a small file. (One that was cut short is no commit, and is written again.)
fn note(path: &Path, text: &str) -> Result<()> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    written.map_err(failed(path))
}

/// The error of a failed write to `path`.
fn failed(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.display().to_string();
    move |e| {
        let hint = "check the free space and the permissions, or set HF_HOME to a folder on another disk";
        Error::from(e).context(format!("cannot write {path}")).hint(hint)
    }
}

/// Whether `text` is a commit's full name.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_kept_once_and_links_are_relative() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::new(dir.path(), &hf_hub::Repo::model("o/n".into()));
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        let write = |path: &Path| Ok(fs::write(path, "text")?);
        repo.add(&one, "a.json", "etag", write).unwrap();
        repo.add(&two, "b.json", "etag", |_| panic!("it is there")).unwrap();
        repo.add(&two, "b.json", "etag", |_| panic!("it is there")).unwrap();
        let root = dir.path().join("models--o--n");
        assert_eq!(fs::read_to_string(root.join("snapshots").join(&two).join("b.json")).unwrap(), "text");
        repo.add(&two, "en-es/a.json", "etag", |_| panic!("it is there")).unwrap();
        assert_eq!(fs::read_to_string(repo.snapshot(&two).join("en-es/a.json")).unwrap(), "text");
        #[cfg(unix)]
        assert_eq!(fs::read_link(repo.snapshot(&one).join("a.json")).unwrap(), Path::new("../../blobs/etag"));
        #[cfg(unix)]
        assert_eq!(fs::read_link(repo.snapshot(&two).join("en-es/a.json")).unwrap(), Path::new("../../../blobs/etag"));
        assert_eq!(fs::read_dir(root.join("blobs")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(repo.snapshot(&two)).unwrap().count(), 2);

        let failed = repo.add(&one, "c", "other", |path| Ok(fs::write(path, "ha")?).and(Err(Error::new("cut"))));
        assert!(failed.is_err() && !repo.snapshot(&one).join("c").exists() && !root.join("blobs/other").exists());
    }

    #[test]
    fn revisions_and_absent_files_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let (repo, commit) = (Repo::new(dir.path(), &hf_hub::Repo::model("o/n".into())), "a".repeat(40));
        assert_eq!((repo.commit("main"), repo.commit(&commit)), (None, Some(commit.clone())));
        repo.set_commit("refs/pr/1", &commit).unwrap();
        repo.set_commit(&commit, &commit).unwrap();
        assert_eq!(repo.commit("refs/pr/1"), Some(commit.clone()));
        assert!(!repo.root().join("refs").join(&commit).exists());
        assert!(!repo.is_absent(&commit, "f"));
        repo.set_absent(&commit, "f").unwrap();
        assert!(repo.is_absent(&commit, "f"));
    }
}

//! What a repository has at a commit: asked of the hub, or remembered in the cache.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cache::{Repo, is_commit};
use super::files::is_plain_name;
use super::transfer::not_a_hub;
use super::{Hub, Id, Kind};
use crate::download::{Digest, Failure};
use crate::error::Result;
use crate::fs::write_atomic;

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its path in the repository.
    pub name: String,
    /// Its bytes, as far as the hub says.
    pub bytes: Option<u64>,
    /// Its SHA-256, as far as the hub says (it does of large files).
    pub sha256: Option<String>,
}

impl Entry {
    /// What its content hashes to, as far as the hub says.
    pub fn digest(&self) -> Option<Digest> {
        self.sha256.as_ref().map(|digits| Digest::Sha256(digits.to_ascii_lowercase()))
    }
}

/// A repository at a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The commit.
    pub commit: String,
    /// The licence that the repository's card names.
    pub licence: Option<String>,
    /// Its files.
    pub files: Vec<Entry>,
    /// Whether these are all files of the commit, and not only those that happen to lie in the cache.
    pub whole: bool,
}

impl Listing {
    /// Whether `file` is one of the files.
    pub fn has(&self, file: &str) -> bool {
        self.files.iter().any(|entry| entry.name == file)
    }
}

/// The hub's answer (<https://huggingface.co/docs/hub/api>), as far as it is needed.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
    #[serde(rename = "cardData")]
    card: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl Hub {
    /// Asks the hub what the repository has at `revision`.
    pub(super) fn ask(&self, id: &Id, revision: &str) -> Result<Listing, Failure> {
        // Sizes and hashes are worth a longer answer where they are announced and checked.
        let query = if id.kind == Kind::DataSet { "?blobs=true" } else { "" };
        let url = format!("{}/api/{}{query}", self.endpoint, id.at(revision).api_url());
        let wrong = |why: &str| Failure::Other(not_a_hub(&url, why));
        let answer: Answer = serde_json::from_str(&self.client.text(&url)?).map_err(|e| wrong(&e.to_string()))?;
        if !is_commit(&answer.sha) {
            return Err(wrong("no commit"));
        }
        if let Some(bad) = answer.siblings.iter().find(|file| !file.rfilename.split('/').all(is_plain_name)) {
            return Err(wrong(&format!("it lists a file outside the repository, `{}`", bad.rfilename)));
        }
        let files = answer.siblings.into_iter().map(|file| {
            let (bytes, sha256) = file.lfs.map_or((None, None), |lfs| (lfs.size, lfs.sha256));
            Entry { name: file.rfilename, bytes: bytes.or(file.size), sha256 }
        });
        let files = files.collect();
        Ok(Listing { commit: answer.sha, licence: answer.card.as_ref().and_then(licence), files, whole: true })
    }
}

/// The licence in the head of a repository's card: one, or several.
fn licence(card: &serde_json::Value) -> Option<String> {
    match card.get("license")? {
        serde_json::Value::String(one) => Some(one.clone()),
        serde_json::Value::Array(all) => {
            let all: Vec<&str> = all.iter().filter_map(serde_json::Value::as_str).collect();
            (!all.is_empty()).then(|| all.join(", "))
        }
        _ => None,
    }
}

/// Where a listing is kept, beside what huggingface_hub keeps.
fn place(repo: &Repo, commit: &str) -> PathBuf {
    repo.root().join(".listing").join(format!("{commit}.json"))
}

/// Keeps a listing for later runs.
pub(super) fn remember(repo: &Repo, listing: &Listing) -> Result<()> {
    write_atomic(&place(repo, &listing.commit), &serde_json::to_vec_pretty(listing)?)
}

/// The listing of `commit` that was kept, or else of what the cache happens to have of it (none: nothing).
pub(super) fn remembered(repo: &Repo, commit: &str) -> Option<Listing> {
    let kept = std::fs::read(place(repo, commit)).ok().and_then(|text| serde_json::from_slice::<Listing>(&text).ok());
    // (A file that someone else wrote there names nothing outside the snapshot.)
    let sound = |listing: &Listing| {
        listing.commit == commit && listing.files.iter().all(|file| file.name.split('/').all(is_plain_name))
    };
    kept.filter(sound).or_else(|| {
        let (snapshot, mut files) = (repo.snapshot(commit), Vec::new());
        walk(&snapshot, "", &mut files);
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let files_only = Listing { commit: commit.to_owned(), licence: None, files, whole: false };
        (!files_only.files.is_empty()).then_some(files_only)
    })
}

/// Adds the files below `folder`, whose names begin with `prefix`.
fn walk(folder: &Path, prefix: &str, found: &mut Vec<Entry>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let (path, name) = (entry.path(), format!("{prefix}{name}"));
        // (Through the link: one that hangs is no file.)
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => walk(&path, &format!("{name}/"), found),
            Ok(_) => found.push(Entry { name, bytes: None, sha256: None }),
            Err(_) => {}
        }
    }
}

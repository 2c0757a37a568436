//! What is known of a data set: its files, where they come from and where they lie.

use std::fmt;
use std::path::{Path, PathBuf};

use super::table::Reader;
use crate::hub::{Entry, Hub, Id, Kind};

/// The option that names a set, for messages.
pub const OPTION: &str = "--dataset";

/// Where data sets come from, and go to.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The hub, and its cache.
    pub hub: &'a Hub,
    /// The folder of `datasets.toml` and of what is fetched by hand.
    pub data_dir: &'a Path,
}

/// Where the files of a set come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Someone put them there.
    Folder,
    /// A data set of the hub, `owner/name` at a revision, which is this commit.
    Hub {
        /// `owner/name`.
        id: String,
        /// A branch, a tag or a commit.
        revision: String,
        /// The commit.
        commit: String,
    },
    /// An address.
    Url(String),
}

impl Origin {
    /// The repository, of those of the hub.
    pub fn id(&self) -> Option<Id<'_>> {
        match self {
            Self::Hub { id, revision, .. } => Some(Id { kind: Kind::DataSet, id, revision }),
            _ => None,
        }
    }
}

/// As a manifest names it: `hub:owner/name@COMMIT`, the address, or `folder`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Folder => f.write_str("folder"),
            Self::Hub { id, commit, .. } => write!(f, "hub:{id}@{commit}"),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// A file of a set.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its path in the repository or the folder, and its size and hash as far as they are known.
    pub entry: Entry,
    /// Where it lies, or will.
    pub path: PathBuf,
}

impl Item {
    /// Whether there is something at its path.
    pub fn is_here(&self) -> bool {
        self.path.is_file()
    }
}

/// A set whose files are known.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The name it was asked for by.
    pub name: String,
    /// Its licence, if known.
    pub licence: Option<String>,
    /// Its page.
    pub page: Option<String>,
    /// Where its files come from.
    pub origin: Origin,
    /// What to train on.
    pub train: Vec<Item>,
    /// What to validate on.
    pub val: Vec<Item>,
    /// The columns of the texts, where the table names them.
    pub columns: Option<String>,
    /// How the files are read.
    pub reader: Reader,
    /// Files that must exist by the names of the others (`-00000-of-00003`), of sets whose listing is not known.
    pub gaps: Vec<String>,
}

impl Plan {
    /// All its files.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.train.iter().chain(&self.val)
    }
}

/// What is known of a set.
#[derive(Debug)]
pub enum Found {
    /// Its files.
    Plan(Plan),
    /// Not even which files it has: what to look for and where, for a hint.
    Absent(Absent),
}

/// A set of which nothing is here, nor known.
#[derive(Clone, Debug)]
pub struct Absent {
    /// Its name.
    pub name: String,
    /// Its files, or patterns of them.
    pub files: Vec<String>,
    /// Those of them that are missing.
    pub missing: Vec<String>,
    /// The repository, for those of the hub.
    pub hub: Option<String>,
    /// Its page.
    pub page: Option<String>,
    /// Why the hub was of no help; none: it was not to be asked, or has nothing to do with it.
    pub why: Option<String>,
}

//! Data sets by name: what is known, where it comes from, fetching it, checking it. A name becomes a list of local files;
//! reading them is `data`'s business.
//!
//! | file | what is there |
//! |---|---|
//! | [`table`] | `configs/datasets.toml`, and the user's own table |
//! | [`spec`] | names: of the table, and `hub:owner/name` |
//! | [`splits`] | which files of a repository are which configuration and split |
//! | [`set`] | what is known of a set |
//! | [`find`], [`folder`] | finding that out, without fetching files |
//! | [`fetch`] | announcing and fetching them |
//! | [`report`], [`check`] | `themo data list` and `themo data check` |

pub mod check;
pub mod fetch;
pub mod find;
pub mod folder;
pub mod report;
pub mod set;
pub mod spec;
pub mod splits;
pub mod table;

use std::path::{Path, PathBuf};

pub use self::set::{Origin, Sources};
use self::spec::Spec;
pub use self::spec::check_name;
pub use self::table::Reader;
use self::table::Table;
use crate::data::wit;
use crate::error::Result;
use crate::hub::Progress;

/// What is trained on where neither a data set nor a file of pairs is named: the original's default.
pub const DEFAULT: &str = "parallel";

/// A file of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetFile {
    /// Where it lies.
    pub path: PathBuf,
    /// The columns of the texts, as `--columns` takes them; none: those that are found by their names.
    pub columns: Option<String>,
}

/// A data set whose files are all here.
#[derive(Clone, Debug)]
pub struct Located {
    /// Its name: one of the table that has no parts, or `hub:...`.
    pub name: String,
    /// Its licence, as far as it is known.
    pub licence: Option<String>,
    /// The bytes of its files.
    pub bytes: u64,
    /// What to train on, in order.
    pub train: Vec<SetFile>,
    /// What to validate on; may be empty.
    pub val: Vec<SetFile>,
    /// Where it came from, with the commit.
    pub origin: Origin,
    /// How the files are read.
    pub reader: Reader,
}

/// The names of the sets to train on: those given, or, where no file of pairs is given either, the default.
pub fn chosen(given: &[String], with_pairs: bool, data_dir: &Path) -> Vec<String> {
    if !given.is_empty() || with_pairs {
        return given.to_vec();
    }
    if let Some(hint) = wit_hint(data_dir) {
        tracing::info!("{hint}");
    }
    vec![DEFAULT.to_owned()]
}

/// What to say to someone who has WIT, which was the default once, and names no set.
fn wit_hint(data_dir: &Path) -> Option<String> {
    let folder = data_dir.join("wit");
    let hint = || format!("training on {DEFAULT}, the default; --dataset wit takes the shards in {}", folder.display());
    wit::has_split(&folder, "train").then(hint)
}

/// The sets `names`, one after the other, those with parts as their parts; what is missing is announced and fetched. A set
/// that is named twice is taken once.
///
/// # Errors
///
/// For a name that nobody knows (usage), and for files that are missing and cannot be fetched: which, and where to put
/// them.
pub fn locate(names: &[String], sources: Sources, progress: Progress) -> Result<Vec<Located>> {
    let table = Table::load(sources.data_dir)?;
    let mut leaves: Vec<(String, bool)> = Vec::new();
    for (name, validated) in all_leaves(&table, names)? {
        match leaves.iter_mut().find(|(other, _)| *other == name) {
            Some((_, also)) => {
                tracing::info!("the data set {name} is named more than once, and taken once");
                *also |= validated;
            }
            None => leaves.push((name, validated)),
        }
    }
    fetch::locate(&leaves, &table, sources, progress)
}

/// The sets without parts that `names` come to, each with whether it is validated on.
fn all_leaves(table: &Table, names: &[String]) -> Result<Vec<(String, bool)>> {
    let mut leaves = Vec::new();
    for name in names {
        match Spec::is_hub(name) {
            true => {
                Spec::parse(name)?;
                leaves.push((name.clone(), true));
            }
            false => leaves.extend(table.leaves(name)?),
        }
    }
    Ok(leaves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_for_those_who_name_nothing() {
        let given = ["wit".to_owned()];
        assert_eq!(chosen(&given, true, Path::new("data/demo")), given);
        assert!(chosen(&[], true, Path::new("data/demo")).is_empty());
        assert_eq!(chosen(&[], false, Path::new("data/demo")), ["parallel"]);
        assert!(wit_hint(Path::new("data/demo")).is_some_and(|hint| hint.contains("--dataset wit")));
        assert_eq!(wit_hint(Path::new("/nowhere")), None);
    }
}

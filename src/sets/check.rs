//! `themo data check`: whether what is here of data sets is whole and undamaged.

use std::fmt;
use std::fs::File;
use std::path::Path;

use serde::Serialize;

use super::all_leaves;
use super::fetch::content;
use super::find::find;
use super::set::{Found, Item, Origin, Plan, Sources};
use super::table::{Reader, Table};
use crate::download::{Digest, human_bytes};
use crate::error::{Result, ResultExt};

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It has the size and the hash it should have.
    Whole,
    /// It is here, but nobody knows what it should be.
    Unverified,
    /// It is not here, or only its beginning.
    Missing,
    /// Its size or hash is wrong.
    Damaged,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Whole => "whole",
            Self::Unverified => "unverified",
            Self::Missing => "missing",
            Self::Damaged => "damaged",
        })
    }
}

/// What was found out about a file.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// The set it belongs to.
    pub set: String,
    /// Its path in the repository or the folder.
    pub file: String,
    /// What became of it.
    pub state: State,
    /// More about that, and what to do.
    pub note: String,
}

/// Every file of the sets `names` (none: of those of the table of which something is here).
pub fn check(names: &[String], sources: Sources) -> Result<Vec<Checked>> {
    let table = Table::load(sources.data_dir)?;
    let mut checked = Vec::new();
    for (leaf, validated) in &wanted(&table, names)? {
        match find(leaf, &table, sources, false)? {
            Found::Plan(mut plan) => {
                let begun = |item: &Item| item.is_here() || begun(&plan.origin, item, sources).is_some();
                let began = plan.items().any(begun);
                let val = std::mem::take(&mut plan.val);
                // Of a set that is validated on elsewhere, the validation files are not fetched.
                plan.val = val.into_iter().filter(|item| *validated || item.is_here()).collect();
                if began || !names.is_empty() {
                    files(&plan, sources, &mut checked)?;
                }
            }
            Found::Absent(set) if !names.is_empty() => {
                let note = match set.hub {
                    Some(_) => format!("nothing of it is here: themo data fetch {leaf}"),
                    None => format!("put its files into {}", sources.data_dir.join(leaf).display()),
                };
                let file = set.files.join(", ");
                checked.push(Checked { set: leaf.clone(), file, state: State::Missing, note });
            }
            Found::Absent(_) => {}
        }
    }
    Ok(checked)
}

/// The sets without parts to check, each once with whether it is validated on. Without names it is enough that a set that
/// others are made of is as they want it.
fn wanted(table: &Table, names: &[String]) -> Result<Vec<(String, bool)>> {
    let has_parts = |name: &str| table.get(name).is_ok_and(|known| !known.parts.is_empty());
    let composed: Vec<String> = table.names().filter(|name| has_parts(name)).map(str::to_owned).collect();
    let mut wanted: Vec<(String, bool)> = Vec::new();
    for (leaf, validated) in all_leaves(table, if names.is_empty() { &composed } else { names })? {
        match wanted.iter_mut().find(|(other, _)| *other == leaf) {
            Some((_, also)) => *also |= validated,
            None => wanted.push((leaf, validated)),
        }
    }
    if names.is_empty() {
        for name in table.names().filter(|name| !has_parts(name)) {
            if !wanted.iter().any(|(other, _)| other == name) {
                wanted.push((name.to_owned(), true));
            }
        }
    }
    Ok(wanted)
}

/// The findings as a table; a line for each file.
pub fn table(checked: &[Checked]) -> String {
    if checked.is_empty() {
        return "nothing to check: no data set of the table is here".to_owned();
    }
    let width = |of: &dyn Fn(&Checked) -> usize| checked.iter().map(of).max().unwrap_or(0);
    let (set, file) = (width(&|c| c.set.chars().count()), width(&|c| c.file.chars().count()));
    let line =
        |c: &Checked| format!("{:set$}  {:file$}  {:10}  {}", c.set, c.file, c.state, c.note).trim_end().to_owned();
    checked.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Whether all is here and undamaged, as far as anyone knows.
pub fn is_good(checked: &[Checked]) -> bool {
    checked.iter().all(|file| matches!(file.state, State::Whole | State::Unverified))
}

fn files(plan: &Plan, sources: Sources, checked: &mut Vec<Checked>) -> Result<()> {
    for item in plan.items() {
        let (state, note) = match item.is_here() {
            true => examine(plan, item)?,
            false => {
                let part = begun(&plan.origin, item, sources);
                let part = part.map_or(String::new(), |bytes| format!("{} of it are here; ", human_bytes(bytes)));
                let size = item.entry.bytes.map_or(String::new(), |bytes| format!(" ({})", human_bytes(bytes)));
                (State::Missing, format!("{part}themo data fetch {}{size}", plan.name))
            }
        };
        checked.push(Checked { set: plan.name.clone(), file: item.entry.name.clone(), state, note });
    }
    let note = match plan.reader {
        Reader::Wit => "its number says that it belongs to the set, which is read without it",
        Reader::Pairs => "its number says that it belongs to the set",
    };
    checked.extend(plan.gaps.iter().map(|file| Checked {
        set: plan.name.clone(),
        file: file.clone(),
        state: State::Missing,
        note: note.to_owned(),
    }));
    Ok(())
}

/// The bytes that a broken fetch of the file left.
fn begun(origin: &Origin, item: &Item, sources: Sources) -> Option<u64> {
    let part = match origin {
        Origin::Hub { .. } => {
            let blobs = sources.hub.data_root(&origin.id()?).join("blobs");
            blobs.join(format!("{}.incomplete", item.entry.sha256.as_ref()?))
        }
        _ => item.path.with_file_name(format!(".{}.incomplete", item.entry.name)),
    };
    std::fs::metadata(part).ok().map(|metadata| metadata.len())
}

/// Compares a file with all that is known of what it should be.
fn examine(plan: &Plan, item: &Item) -> Result<(State, String)> {
    let path = &item.path;
    let bytes = std::fs::metadata(path).context(|| format!("cannot read {}", path.display()))?.len();
    let damaged = |what: String| {
        let again = match plan.origin {
            Origin::Folder => "fetch it again".to_owned(),
            _ => format!("delete it{}, then: themo data fetch {}", content(path), plan.name),
        };
        Ok((State::Damaged, format!("{what}; {again} ({})", path.display())))
    };
    if let Some(want) = item.entry.bytes.filter(|want| *want != bytes) {
        return damaged(format!("{bytes} bytes instead of {want}"));
    }
    let Some(want) = item.entry.digest().or_else(|| name_of_content(path)) else {
        let what = if item.entry.bytes.is_some() { "only its size is known" } else { "nobody says what it should be" };
        return Ok((State::Unverified, format!("{}; {what}", human_bytes(bytes))));
    };
    let (what, digits) = want.parts();
    match File::open(path).and_then(|mut file| want.of(&mut file)) {
        Ok(found) if found == digits => Ok((State::Whole, human_bytes(bytes))),
        Ok(found) => damaged(format!("{what} is {found}, not {digits}")),
        Err(e) => damaged(format!("it cannot be read: {e}")),
    }
}

/// The hash after which the cache has named the content that a link leads to: the SHA-256 of large files, git's of others.
fn name_of_content(link: &Path) -> Option<Digest> {
    let target = std::fs::read_link(link).ok()?;
    Digest::of_etag(target.file_name()?.to_str()?)
}

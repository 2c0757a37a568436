//! `themo data list`: which data sets are known, and what of them is here.

use serde_json::{Value, json};

use super::all_leaves;
use super::find::find;
use super::set::{Found, Sources};
use super::table::Table;
use crate::download::human_bytes;
use crate::error::Result;

/// A set, and what of it is here.
struct Row {
    name: String,
    about: String,
    licence: Option<String>,
    page: Option<String>,
    parts: Vec<String>,
    /// Files that are here.
    here: usize,
    /// All its files; none: nobody knows without asking the hub.
    files: Option<usize>,
    /// Their size; none: not known.
    bytes: Option<u64>,
    /// Whether the size is only what the table says.
    about_bytes: bool,
}

/// The sets `names` (none: all of the table), what they are and what of them is here, as a table or as JSON. Nothing is
/// asked of the network.
pub fn list(names: &[String], sources: Sources, as_json: bool) -> Result<String> {
    let table = Table::load(sources.data_dir)?;
    let names = match names {
        [] => table.names().map(str::to_owned).collect(),
        given => given.to_vec(),
    };
    let rows = names.iter().map(|name| look_at(name, &table, sources)).collect::<Result<Vec<_>>>()?;
    if as_json {
        return Ok(serde_json::to_string_pretty(&rows.iter().map(Row::to_json).collect::<Vec<_>>())?);
    }
    let head = ["name", "here", "size", "licence", "what it is"].map(str::to_owned);
    let lines: Vec<[String; 5]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..4).map(width).collect();
    let line = |cells: &[String; 5]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}  {}", padded.join("  "), cells[4])
    };
    Ok(lines.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn look_at(name: &str, table: &Table, sources: Sources) -> Result<Row> {
    let known = table.get(name).ok();
    let mut row = Row {
        name: name.to_owned(),
        about: known.map_or_else(|| "A data set of the hub".to_owned(), |known| known.about.clone()),
        licence: known.and_then(|known| known.licence.clone()),
        page: known.and_then(|known| known.page.clone()),
        parts: known.map_or(Vec::new(), |known| known.parts.clone()),
        here: 0,
        files: Some(0),
        bytes: Some(0),
        about_bytes: false,
    };
    for (leaf, validated) in all_leaves(table, &[name.to_owned()])? {
        let size = match find(&leaf, table, sources, false)? {
            Found::Plan(mut plan) => {
                if !validated {
                    plan.val.clear();
                }
                let here = plan.items().filter(|item| item.is_here()).count();
                row.here += here;
                row.files = row.files.map(|files| files + plan.items().count() + plan.gaps.len());
                row.licence = row.licence.or_else(|| plan.licence.clone().filter(|_| leaf == name));
                let found = |path| std::fs::metadata(path).ok().map(|metadata| metadata.len());
                plan.items().map(|item| item.entry.bytes.or_else(|| found(&item.path))).sum()
            }
            Found::Absent(_) => {
                row.files = None;
                None
            }
        };
        let by_table = || table.get(&leaf).ok().and_then(|known| known.bytes);
        row.about_bytes |= size.is_none();
        row.bytes = row.bytes.and_then(|bytes| Some(bytes + size.or_else(by_table)?));
    }
    Ok(row)
}

impl Row {
    fn cells(&self) -> [String; 5] {
        let here = match (self.here, self.files) {
            (0, _) => "no".to_owned(),
            (here, Some(files)) if here == files => "yes".to_owned(),
            (here, Some(files)) => format!("{here} of {files} files"),
            (_, None) => "in part".to_owned(),
        };
        let size = self.bytes.map_or("?".to_owned(), human_bytes);
        let parts = || if self.parts.is_empty() { "?".to_owned() } else { self.parts.join(" + ") };
        [
            self.name.clone(),
            here,
            if self.about_bytes && self.bytes.is_some() { format!("about {size}") } else { size },
            self.licence.clone().unwrap_or_else(parts),
            self.about.clone(),
        ]
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "about": self.about,
            "licence": self.licence,
            "page": self.page,
            "parts": self.parts,
            "files_here": self.here,
            "files": self.files,
            "bytes": self.bytes,
            "bytes_are_exact": self.bytes.is_some() && !self.about_bytes,
        })
    }
}

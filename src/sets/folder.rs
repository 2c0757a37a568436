//! Files of data sets in folders: those that someone put there, and those that come from an address.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::set::Item;
use super::splits;
use super::table::{Known, file_of};
use crate::hub::Entry;

/// The paths of the files below `folder`, sorted, of at most `depth` folders below it (links may lead in a circle); hidden
/// ones (unfinished, notes) are left out.
pub fn files(folder: &Path, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    walk(folder, "", depth, &mut found);
    found.sort();
    found
}

/// Adds the files below `folder`, whose names begin with `prefix`.
fn walk(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        match std::fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_dir() && depth == 0 => {}
            Ok(metadata) if metadata.is_dir() => walk(&entry.path(), &format!("{prefix}{name}/"), depth - 1, found),
            Ok(_) => found.push(format!("{prefix}{name}")),
            Err(_) => {}
        }
    }
}

/// The files that are missing of those that come in numbered parts.
pub fn gaps<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen = BTreeMap::<(String, usize), Vec<usize>>::new();
    for name in names {
        let (folder, file) =
            name.rsplit_once('/').map_or(("", name), |(_, file)| (&name[..name.len() - file.len()], file));
        if let Some((beginning, number, count)) = splits::sharded(file) {
            seen.entry((format!("{folder}{beginning}"), count)).or_default().push(number);
        }
    }
    let missing = |((beginning, count), numbers): ((String, usize), Vec<usize>)| {
        // (A count that no set has would only fill the memory.)
        let all = (0..count.min(100_000)).filter(move |number| !numbers.contains(number));
        all.map(move |number| format!("{beginning}-{number:05}-of-{count:05}")).collect::<Vec<_>>()
    };
    seen.into_iter().flat_map(missing).collect()
}

/// The one file of a set with an address.
pub fn of_url(known: &Known, url: &str, folder: &Path) -> Item {
    let file = file_of(url).unwrap_or("file");
    // (Of a file that was deleted the address may have another by now.)
    let noted = std::fs::read(note_of(&folder.join(file))).ok().filter(|_| folder.join(file).is_file());
    let noted: Option<Entry> = noted.and_then(|text| serde_json::from_slice(&text).ok());
    let noted = noted.filter(|noted| noted.name == url);
    let sha256 = known.sha256.as_ref().map(|hash| hash.to_ascii_lowercase());
    let sha256 = sha256.or_else(|| noted.as_ref().and_then(|noted| noted.sha256.clone()));
    let entry = Entry { name: file.to_owned(), bytes: noted.and_then(|noted| noted.bytes), sha256 };
    Item { entry, path: folder.join(file) }
}

/// Where it is noted what a file was when it came from its address.
pub fn note_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.json"))
}

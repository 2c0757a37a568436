//! The map in `src/lib.rs` is the house: it names every module, and arrows point down only.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The row of the map that each module stands in, from the top.
fn floors() -> BTreeMap<String, usize> {
    let lib = fs::read_to_string(source().join("lib.rs")).unwrap();
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | [`"));
    let mut floors = BTreeMap::new();
    for (floor, row) in rows.enumerate() {
        let modules = row.split(" | ").next().unwrap();
        for name in modules.split(['`', '[', ']', ',', ' ']).filter(|name| !name.is_empty()) {
            assert!(floors.insert(name.to_owned(), floor).is_none(), "{name} stands in the map twice");
        }
    }
    floors
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file, without comments and its tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let tests = text.find("#[cfg(test)]").unwrap_or(text.len());
    text[..tests].lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_module_is_in_the_map_and_no_other() {
    let lib = fs::read_to_string(source().join("lib.rs")).unwrap();
    let mut declared: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    declared.sort_unstable();
    assert_eq!(declared, floors().into_keys().collect::<Vec<_>>());
}

#[test]
fn arrows_point_down_only() {
    let (floors, mut files) = (floors(), Vec::new());
    rust_files(&source(), &mut files);
    let mut seen = 0;
    for file in files {
        let inside = file.strip_prefix(source()).unwrap().to_str().unwrap();
        let module = inside.split('/').next().unwrap().trim_end_matches(".rs");
        let is_test = ["tests.rs", "testing.rs"].iter().any(|end| inside.ends_with(end));
        let Some(own) = floors.get(module).filter(|_| !is_test) else { continue };
        for used in code(&file).split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(other) = floors.get(&used).filter(|_| used != module) else { continue };
            assert!(other > own, "{inside} uses crate::{used}, which does not stand below {module} in the map");
            seen += 1;
        }
    }
    assert!(seen > 200, "only {seen} uses were found");
}

#[test]
fn only_the_shell_knows_clap() {
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    for file in files {
        let inside = file.strip_prefix(source()).unwrap().to_str().unwrap().to_owned();
        let shell = ["cli/", "commands/", "main.rs"].iter().any(|part| inside.starts_with(part));
        assert!(shell || !code(&file).contains("clap::"), "{inside} knows clap");
        if inside.starts_with("commands/") {
            assert!(fs::read_to_string(&file).unwrap().lines().count() <= 100, "{inside} is no thin file");
        }
    }
}

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

/// The names that follow each `super::` of `code`, of which `super::{a, b::c}` has several.
fn siblings(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("super::").filter(|(at, _)| !code[..*at].ends_with("super::")) {
        let rest = &code[at + "super::".len()..];
        let group = rest.strip_prefix('{').map(|group| group.split(';').next().unwrap());
        for part in group.map_or(vec![rest], |group| group.split(',').collect()) {
            names.push(part.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

/// Files of one folder may use each other, but not in a circle.
#[test]
fn no_files_of_a_folder_use_each_other_in_a_circle() {
    let (mut files, mut folders) = (Vec::new(), BTreeMap::<PathBuf, BTreeMap<String, Vec<String>>>::new());
    rust_files(&source(), &mut files);
    let is_own = |path: &PathBuf| {
        !["mod", "lib", "main", "tests", "testing"].iter().any(|name| path.ends_with(format!("{name}.rs")))
    };
    for file in files.iter().filter(|path| is_own(path)) {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        folders.entry(file.parent().unwrap().to_owned()).or_default().insert(name, siblings(&code(file)));
    }
    let mut seen = 0;
    for (folder, mut uses) in folders {
        seen += uses.values().flatten().filter(|used| uses.contains_key(*used)).count();
        // What uses none of those that are left is in no circle.
        while let Some(leaf) =
            uses.iter().find(|(own, used)| !used.iter().any(|used| used != *own && uses.contains_key(used)))
        {
            let leaf = leaf.0.clone();
            uses.remove(&leaf);
        }
        assert!(uses.is_empty(), "{} has a circle among {:?}", folder.display(), uses.keys());
    }
    assert!(seen > 50, "only {seen} uses were found");
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

//! The map in `src/lib.rs` is the house: it names every module, and arrows point down only.

use std::collections::{BTreeMap, BTreeSet};
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

/// The module of a file, as the names on the way to it from the crate's root.
fn module(file: &Path) -> Vec<String> {
    let path = file.strip_prefix(source()).unwrap().with_extension("");
    let mut names: Vec<String> = path.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    names.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
    names
}

/// The paths below `crate` and `super` in `code` of the module `own`, from the root; `super::{a, b::c}` has several.
fn uses(own: &[String], code: &str) -> Vec<Vec<String>> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        if code[..at].ends_with("::") {
            continue;
        }
        let (mut base, mut rest) = (Vec::new(), &code[at..]);
        if let Some(below) = rest.strip_prefix("crate::") {
            rest = below;
        } else {
            base = own.to_vec();
            while let Some(below) = rest.strip_prefix("super::") {
                (_, rest) = (base.pop(), below);
            }
        }
        let group = rest.strip_prefix('{').map(|group| group.split(';').next().unwrap());
        for part in group.map_or(vec![rest], |group| group.split(',').collect()) {
            let path: String = part.trim_start().chars().take_while(|c| is_name(*c)).collect();
            found.push(base.iter().cloned().chain(path.split("::").map(str::to_owned)).collect());
        }
    }
    found
}

/// Files and folders of one folder may use each other, but not in a circle.
#[test]
fn nothing_in_a_folder_uses_each_other_in_a_circle() {
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    files.retain(|path| !["main", "tests", "testing"].iter().any(|name| path.ends_with(format!("{name}.rs"))));
    let modules: BTreeSet<Vec<String>> = files.iter().map(|file| module(file)).collect();
    let (mut seen, mut folders) = (0, BTreeMap::<Vec<String>, BTreeMap<String, BTreeSet<String>>>::new());
    for file in &files {
        let own = module(file);
        for mut used in uses(&own, &code(file)) {
            while !modules.contains(&used) && used.pop().is_some() {}
            let common = own.iter().zip(&used).take_while(|(own, used)| own == used).count();
            // (A module and what is in it are no neighbours.)
            if let (Some(one), Some(other)) = (own.get(common), used.get(common)) {
                folders
                    .entry(own[..common].to_vec())
                    .or_default()
                    .entry(one.clone())
                    .or_default()
                    .insert(other.clone());
                seen += 1;
            }
        }
    }
    for (folder, mut uses) in folders {
        // What uses none of those that are left is in no circle.
        while let Some(leaf) = uses.iter().find(|(_, used)| !used.iter().any(|used| uses.contains_key(used))) {
            let leaf = leaf.0.clone();
            uses.remove(&leaf);
        }
        assert!(uses.is_empty(), "{folder:?} has a circle among {:?}", uses.keys());
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

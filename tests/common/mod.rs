//! What the integration tests share. (Each uses a part of it.)
#![allow(dead_code)]

pub mod counting;
pub mod random;
pub mod scratch;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

/// A path in the repository.
pub fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A golden file, or a folder of them.
pub fn golden(path: &str) -> PathBuf {
    root("tests/golden").join(path)
}

/// A part of the bundled demo.
pub fn demo(path: &str) -> PathBuf {
    root("data/demo").join(path)
}

/// What a program wrote to its standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The program failed with this exit code; its message holds `parts`, ends with a hint, and is not a panic's.
#[track_caller]
pub fn assert_fails(output: &Output, code: i32, parts: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert!(text.contains("error: ") && text.contains("\nhint: "), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

/// Copies a folder and all that is in it.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}

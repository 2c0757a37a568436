//! Build script: the commit that is built, for `environment.json` and results. THEMO_COMMIT names it; else git does, with
//! `-dirty` behind it if tracked files differ from the commit. Without both, the build has no commit.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=THEMO_COMMIT");
    let commit = std::env::var("THEMO_COMMIT").ok().or_else(|| {
        // Changes whenever another commit is checked out; a change of the sources shows in them.
        let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
        for path in ["src", "Cargo.toml", "Cargo.lock", &log] {
            if std::path::Path::new(path).exists() {
                println!("cargo::rerun-if-changed={path}");
            }
        }
        // (A package unpacked inside another repository is not that repository's commit.)
        git(&["ls-files", "--error-unmatch", "Cargo.toml"])?;
        let dirty = git(&["status", "--porcelain", "--untracked-files=no", "--", "."])?;
        Some(git(&["rev-parse", "HEAD"])? + if dirty.is_empty() { "" } else { "-dirty" })
    });
    println!("cargo::rerun-if-changed=src/build.rs");
    println!("cargo::rustc-env=THEMO_COMMIT={}", commit.unwrap_or_default());
}

/// What git says, if there is a git that knows this folder.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("--no-optional-locks").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

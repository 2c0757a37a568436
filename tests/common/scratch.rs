//! The binary on the bundled demo, with logs and a cache of its own.

use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::stderr;

/// A scratch folder with its own logs and cache.
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn themo(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_themo"));
        // Names of models are looked for nowhere but here.
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.path("hub"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().unwrap()
    }

    pub fn train(&self, args: &[&str]) -> Output {
        let (logs, cache) = (self.path("logs"), self.path("cache"));
        let places = ["--log-dir", logs.to_str().unwrap(), "--cache-dir", cache.to_str().unwrap()];
        self.themo(&[&["train", "--config", "configs/demo.toml"], &places[..], args].concat())
    }

    /// Trains a few steps and returns the run folder.
    pub fn run(&self, args: &[&str]) -> PathBuf {
        let output = self.train(&[&["--max-steps", "6", "--log-every", "2"], args].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let stdout = String::from_utf8(output.stdout).unwrap();
        PathBuf::from(stdout.lines().find_map(|line| line.strip_prefix("run folder")).unwrap().trim())
    }

    /// Asserts that nothing of a run was written.
    pub fn assert_no_run(&self) {
        assert!(!self.path("logs").exists(), "a run folder was made");
    }
}

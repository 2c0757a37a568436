//! Runs as processes: started, watched, stopped and compared.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Runs of 4 epochs of 20 steps with a checkpoint every 3, about 2 s each.
pub const SETTINGS: &[&str] = &[
    "--config=configs/demo.toml",
    "--limit-train-pairs=640",
    "--batch-size=32",
    "--max-epochs=4",
    "--log-every=2",
    "--checkpoint-every=3",
    "--keep-best=2",
];

pub struct Scratch(pub TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn run(&self, logs: &str) -> PathBuf {
        self.0.path().join(logs).join("demo/version_0")
    }

    pub fn command(&self, logs: &str, more: &[&str]) -> Command {
        let path = |name: &str| self.0.path().join(name);
        let mut command = themo();
        command.arg("train").args(SETTINGS).arg("--log-dir").arg(path(logs)).arg("--cache-dir").arg(path("cache"));
        command.args(more);
        command
    }

    pub fn train(&self, logs: &str, more: &[&str]) -> Output {
        output(&mut self.command(logs, more))
    }
}

pub fn themo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_themo"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

pub fn resume(run: &Path, more: &[&str]) -> Command {
    let mut command = themo();
    command.args(["train", "--resume"]).arg(run).args(more);
    command
}

pub fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
pub fn succeeds(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

#[track_caller]
pub fn fails(command: &mut Command, code: i32, parts: &[&str]) {
    let output = output(command);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

pub fn quietly(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

pub fn rows(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.csv")).map_or(0, |text| text.lines().count().saturating_sub(1))
}

pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let mut names: Vec<_> = entries.iter().map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn is_writing(run: &Path) -> bool {
    names(&run.join("checkpoints")).iter().any(|name| name.starts_with('.'))
}

/// Waits until `what` holds or the process has ended; whether it still runs.
pub fn wait(child: &mut Child, what: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if what() {
            return true;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "the run does not get on");
        sleep(Duration::from_millis(1));
    }
    false
}

/// Both runs left the same: rows, checkpoints, weights and moments, to the bit.
#[track_caller]
pub fn assert_same(run: &Path, reference: &Path) {
    let read = |run: &Path, name: &str| fs::read(run.join(name)).unwrap_or_else(|e| panic!("{run:?} {name}: {e}"));
    let csv = |run: &Path| String::from_utf8(read(run, "metrics.csv")).unwrap();
    assert_eq!(csv(run), csv(reference));
    let checkpoints = names(&reference.join("checkpoints"));
    assert_eq!(names(&run.join("checkpoints")), checkpoints);
    for checkpoint in checkpoints {
        for file in ["model.safetensors", "optimizer.safetensors", "config.json", "tokenizer.json", "themo.json"] {
            let file = format!("checkpoints/{checkpoint}/{file}");
            assert!(read(run, &file) == read(reference, &file), "{file} differs");
        }
    }
}

pub fn send(child: &Child, signal: &str) {
    let line = format!("kill -{signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
}

pub fn state_of(scratch: &Scratch, logs: &str) -> String {
    let output = output(themo().args(["runs", "--json"]).arg(scratch.0.path().join(logs)));
    let runs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(runs.as_array().unwrap().len(), 1);
    runs[0]["state"].as_str().unwrap().to_owned()
}

//! `themo train` without a word about data: from an empty cache to a trained student, and what kills change of that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::binary::themo;
use crate::common::{demo, random::Random, stderr};
use crate::datasets::{OPUS, golden};
use crate::server::{FakeHub, Reply, Request, files_of};

const TALKS: &str = "datasets/sentence-transformers/parallel-sentences-talks";
const TATOEBA: &str = "datasets/sentence-transformers/parallel-sentences-tatoeba";

/// A hub with two small models and the three sets of the default.
fn hub(fault: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> FakeHub {
    let repositories = vec![
        ("demo/toy-beto", files_of(&demo("models/toy-beto"))),
        ("demo/toy-clip", files_of(&demo("models/toy-clip"))),
        (OPUS, golden("opus100")),
        (TALKS, golden("talks")),
        (TATOEBA, golden("tatoeba")),
    ];
    FakeHub::start(repositories, fault)
}

/// The command line: models, and folders in the scratch folder.
fn train(scratch: &TempDir, more: &[&str]) -> Vec<String> {
    let mut line = ["train", "--student", "demo/toy-beto", "--teacher", "demo/toy-clip"].map(str::to_owned).to_vec();
    for folder in ["data-dir", "log-dir", "cache-dir"] {
        line.extend([format!("--{folder}"), scratch.path().join(folder).display().to_string()]);
    }
    line.extend(["--max-epochs", "2", "--batch-size", "16"].map(str::to_owned));
    line.extend(more.iter().map(|text| text.to_string()));
    line
}

fn refs(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

fn report(run: &Path) -> Value {
    serde_json::from_slice(&fs::read(run.join("pairs.json")).unwrap()).unwrap()
}

#[test]
fn training_starts_from_nothing_but_the_names_of_models() {
    let (fake, scratch) = (hub(|_| None), TempDir::new().unwrap());
    let (home, line) = (scratch.path().join("home"), train(&scratch, &[]));
    let offline = themo(&refs(&line), &home, &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(offline.status.code(), Some(1));
    for part in ["opus100", "HF_HUB_OFFLINE", "themo data fetch", "Helsinki-NLP/opus-100"] {
        assert!(stderr(&offline).contains(part), "{part}: {}", stderr(&offline));
    }

    let online = themo(&refs(&line), &home, &[("HF_ENDPOINT", &fake.hub.url)]);
    let told = stderr(&online);
    assert!(online.status.success(), "{told}");
    for part in ["opus100", "CC BY 2.0 FR", "80 training pairs", "8 validation pairs", "val/loss"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let run = scratch.path().join("log-dir/default/version_0");
    let first = report(&run);
    assert_eq!(first["train"]["cleaning"]["kept"], 80);
    assert_eq!(first["train"]["sources"].as_array().unwrap().len(), 4);
    assert!(fs::read_to_string(run.join("metrics.csv")).unwrap().lines().count() >= 3);

    // Everything is here now, and prepared.
    let again = themo(&refs(&line), &home, &[("HF_HUB_OFFLINE", "1")]);
    let told = stderr(&again);
    assert!(again.status.success() && told.contains("training pairs: prepared before"), "{told}");
    let second = scratch.path().join("log-dir/default/version_1");
    assert_eq!(report(&second), first);
    let metrics = |run: &Path| fs::read_to_string(run.join("metrics.csv")).unwrap();
    assert_eq!(metrics(&second), metrics(&run));

    // One file less.
    let snapshot = home.join("hub/datasets--Helsinki-NLP--opus-100/snapshots");
    let snapshot = fs::read_dir(snapshot).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(snapshot.join("en-es/train-00001-of-00002.parquet")).unwrap();
    let half = themo(&refs(&line), &home, &[("HF_HUB_OFFLINE", "1")]);
    assert!(!half.status.success() && stderr(&half).contains("train-00001-of-00002.parquet"), "{}", stderr(&half));
}

/// The files of a folder by their paths in it, and their contents.
fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false => found.push((entry.strip_prefix(folder).unwrap().to_owned(), fs::read(&entry).unwrap())),
            }
        }
    }
    found.sort();
    found
}

fn fetching(url: &str, home: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_themo"));
    command.args(["data", "fetch", "parallel"]).env("HF_HOME", home).env("HF_ENDPOINT", url);
    for name in ["HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
        command.env_remove(name);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn twenty_kills_of_a_fetch_change_nothing() {
    let slow = |_: &Request| {
        std::thread::sleep(Duration::from_millis(4));
        None
    };
    let (fake, scratch) = (hub(slow), TempDir::new().unwrap());
    let [whole, killed] = ["whole", "killed"].map(|name| scratch.path().join(name));
    assert!(fetching(&fake.hub.url, &whole).wait().unwrap().success());
    let mut random = Random(5);
    let mut kills = 0;
    while kills < 20 {
        let mut child = fetching(&fake.hub.url, &killed);
        std::thread::sleep(Duration::from_millis(random.below(120) as u64));
        child.kill().unwrap();
        match child.wait().unwrap().success() {
            // It was done before: from the beginning.
            true => fs::remove_dir_all(&killed).unwrap(),
            false => kills += 1,
        }
    }
    assert!(fetching(&fake.hub.url, &killed).wait().unwrap().success());
    let kept = |folder: &Path| {
        let mut all = tree(folder);
        all.retain(|(path, _)| !path.to_str().unwrap().contains(".lock"));
        all
    };
    assert_eq!(kept(&killed), kept(&whole));
}

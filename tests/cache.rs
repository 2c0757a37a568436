//! What kills and rivals change of the prepared pairs and the teacher's features: nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

mod common;

use common::random::Random;

const PAIRS: usize = 8_000;
/// Of the English captions, each of which is there twice.
const DIFFERENT: usize = PAIRS / 2;

/// A scratch folder with a file of pairs.
fn scratch() -> TempDir {
    let scratch = TempDir::new().unwrap();
    let pair = |i: usize| format!("un círculo rojo en {i} sitios\ta red circle in {} places\n", i / 2);
    fs::write(scratch.path().join("pairs.tsv"), (0..PAIRS).map(pair).collect::<String>()).unwrap();
    scratch
}

/// A run that prepares the pairs, computes all features, and makes one step.
fn train(scratch: &TempDir, cache: &str, logs: &str) -> Child {
    let path = |name: &str| scratch.path().join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_themo"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["train", "--features-first", "--max-steps", "1"]);
    command.args(["--student", "data/demo/models/toy-beto", "--teacher", "data/demo/models/toy-clip"]);
    command.arg("--pairs").arg(path("pairs.tsv")).arg("--cache-dir").arg(path(cache)).arg("--log-dir").arg(path(logs));
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The only file of `folder` that ends so.
fn only(folder: &Path, end: &str) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> = files.filter(|path| path.to_str().unwrap().ends_with(end)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

/// The entries of all tables of a store, and the rows beside them, as `src/cache/store.rs` lays them out.
fn rows(store: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let bytes = fs::read(store).unwrap();
    let (mut at, mut rows) = (16, Vec::new());
    while at < bytes.len() {
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let (count, width) = (number(at + 8), number(at + 16) * 4);
        let (table, data) = (at + 32, at + 32 + count * 20);
        for i in 0..count {
            rows.push((bytes[table + i * 20..][..16].to_vec(), bytes[data + i * width..][..width].to_vec()));
        }
        at = data + count * width;
    }
    rows
}

/// The cache holds the pairs and the features of an undisturbed run, each feature once.
fn assert_same(cache: &Path, reference: &Path) {
    let pairs = |cache: &Path| fs::read(only(&cache.join("pairs"), ".pairs")).unwrap();
    assert!(pairs(cache) == pairs(reference), "the prepared pairs differ");
    let features = |cache: &Path| rows(&only(cache, ".rows"));
    let (got, want) = (features(cache), features(reference));
    assert_eq!(got.len(), DIFFERENT, "features were computed twice, or are missing");
    let set = |rows: Vec<_>| rows.into_iter().collect::<BTreeSet<_>>();
    assert!(set(got) == set(want), "features differ");
    let left: Vec<_> = fs::read_dir(cache.join("pairs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left.len(), 2, "something is left over: {left:?}");
}

#[test]
fn twenty_kills_while_pairs_are_prepared_and_features_computed_change_nothing() {
    let scratch = scratch();
    let began = Instant::now();
    assert!(train(&scratch, "reference", "logs").wait().unwrap().success());
    let whole = began.elapsed();
    assert_eq!(rows(&only(&scratch.path().join("reference"), ".rows")).len(), DIFFERENT);

    let mut random = Random(3);
    let (mut kills, mut in_features, mut caches) = (0, 0, 0);
    while kills < 20 {
        let cache = format!("killed_{caches}");
        let mut child = train(&scratch, &cache, "logs");
        std::thread::sleep(whole.mul_f64(0.1 + random.below(1000) as f64 / 2000.0));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            caches += 1;
            continue;
        }
        kills += 1;
        let is_store = |path: PathBuf| path.extension().is_some_and(|end| end == "rows");
        let files = fs::read_dir(scratch.path().join(&cache)).into_iter().flatten();
        in_features += usize::from(files.map(|entry| entry.unwrap().path()).any(is_store));
    }
    eprintln!("{kills} kills, {in_features} after the first feature, {} caches", caches + 1);
    for cache in 0..=caches {
        let cache = format!("killed_{cache}");
        assert!(train(&scratch, &cache, "logs").wait().unwrap().success());
        assert_same(&scratch.path().join(cache), &scratch.path().join("reference"));
    }
}

#[test]
fn two_processes_on_one_cache_compute_each_feature_once() {
    let scratch = scratch();
    assert!(train(&scratch, "reference", "logs").wait().unwrap().success());
    let mut rivals = ["one", "two", "three"].map(|logs| train(&scratch, "shared", logs));
    std::thread::sleep(Duration::from_millis(10));
    rivals.iter_mut().for_each(|child| assert!(child.wait().unwrap().success()));
    assert_same(&scratch.path().join("shared"), &scratch.path().join("reference"));
}

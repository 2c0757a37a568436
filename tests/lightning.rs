//! Checkpoints of the Python Themo, in PyTorch Lightning's layout (`tests/golden/lightning.py`), through the binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::Device;

mod common;

use common::root;

fn golden(path: &str) -> PathBuf {
    root("tests/golden/lightning").join(path)
}

/// A copy of the run, and the BERT that it came from.
fn setup() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (run, bert) = (folder.path().join("version_0"), folder.path().join("bert"));
    fs::create_dir_all(run.join("checkpoints")).unwrap();
    fs::create_dir(&bert).unwrap();
    fs::copy(golden("version_0/hparams.yaml"), run.join("hparams.yaml")).unwrap();
    for name in ["epoch=3-train-loss=0.2440.ckpt", "epoch=7-train-loss=0.9000.ckpt"] {
        fs::copy(golden("version_0/checkpoints").join(name), run.join("checkpoints").join(name)).unwrap();
    }
    fs::copy(golden("bert/config.json"), bert.join("config.json")).unwrap();
    for name in ["vocab.txt", "tokenizer_config.json"] {
        fs::copy(root("data/demo/models/toy-beto").join(name), bert.join(name)).unwrap();
    }
    (folder, run, bert)
}

fn themo(command: &str, version: &Path, bert: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_themo"))
        .current_dir(root(""))
        .args([command, "--teacher", "data/demo/models/toy-clip", "--version-path"])
        .arg(version)
        .arg("--student")
        .arg(bert)
        .args(more)
        .output()
        .unwrap()
}

fn rows(path: &Path) -> Vec<Vec<f32>> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()["text_embeds"].to_vec2().unwrap()
}

#[test]
fn embeddings_of_the_best_checkpoint_equal_pytorch() {
    let (folder, run, bert) = setup();
    let (out, texts) = (folder.path().join("out.safetensors"), golden("texts.txt"));
    let options = ["--texts", texts.to_str().unwrap(), "--output", out.to_str().unwrap()];
    let want = rows(&golden("embeds.safetensors"));
    for version in [run.clone(), run.join("checkpoints/epoch=3-train-loss=0.2440.ckpt")] {
        let output = themo("embed", &version, &bert, &options);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (got, largest) = (rows(&out), want.iter().flatten().fold(0f32, |a, b| a.max(b.abs())));
        assert_eq!(got.len(), want.len());
        let differences = got.iter().flatten().zip(want.iter().flatten()).map(|(a, b)| (a - b).abs());
        let difference = differences.fold(0.0, f32::max) / largest;
        assert!(difference < 1e-5, "{}: {difference}", version.display());
    }
    for ending in ["pt", "pth", "bin"] {
        let file = folder.path().join(format!("student.{ending}"));
        fs::copy(run.join("checkpoints/epoch=3-train-loss=0.2440.ckpt"), &file).unwrap();
        let output = themo("embed", &file, &bert, &options);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(rows(&out).len(), want.len());
    }
    let other = themo("embed", &run.join("checkpoints/epoch=7-train-loss=0.9000.ckpt"), &bert, &options);
    assert!(other.status.success() && rows(&out) != want);
}

#[test]
fn results_are_written_into_the_run_or_beside_the_file() {
    let (_folder, run, bert) = setup();
    let file = run.join("checkpoints/epoch=3-train-loss=0.2440.ckpt");
    for (version, eval) in [(&run, run.join("eval")), (&file, file.with_extension("eval"))] {
        let output = themo("test", version, &bert, &["--data-dir", "data/demo", "--task", "retrieval", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("recall"));
        assert!(eval.join("retrieval.json").exists(), "{}", eval.display());
    }
}

#[test]
fn what_does_not_fit_is_told() {
    let (folder, run, bert) = setup();
    let out = folder.path().join("out.safetensors");
    let texts = golden("texts.txt");
    let options = ["--texts", texts.to_str().unwrap(), "--output", out.to_str().unwrap()];
    for (version, student, words) in [
        (run.as_path(), root("data/demo/models/toy-beto"), "shape"),
        (&run, folder.path().join("absent"), "absent"),
        (&root("tests/golden/pickle/lightning.ckpt"), bert, "projection.weight"),
    ] {
        let output = themo("embed", version, &student, &options);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(words) && told.contains("hint:"), "{told}");
    }
}

//! The baseline through the real binary: M-CLIP's embeddings, its evaluation, and the cache of that.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

mod common;

use common::stderr;

fn themo(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_themo"));
    // Names of models are looked for nowhere but here.
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().unwrap()
}

fn here(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(part)
}

const MCLIP: &str = "tests/golden/tiny-mclip";

/// `tests/golden/mclip.py` made the checkpoint and the embeddings.
#[test]
fn embeds_texts_as_transformers_does() {
    let dir = tempfile::tempdir().unwrap();
    let (texts, output) = (dir.path().join("texts"), dir.path().join("out.safetensors"));
    let read = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let texts = metadata.metadata().as_ref().and_then(|m| m.get("texts").cloned());
        let rows = candle_core::safetensors::load_buffer(&bytes, &candle_core::Device::Cpu).unwrap();
        (rows["text_embeds"].to_vec2::<f32>().unwrap(), texts)
    };
    let (want, lines) = read(&here("tests/golden/mclip.safetensors"));
    let lines: Vec<String> = serde_json::from_str(&lines.unwrap()).unwrap();
    std::fs::write(&texts, lines.join("\n")).unwrap();
    let output = output.to_str().unwrap();
    let embed = |more: &[&str]| themo(&[&["embed", "--model", MCLIP, "--output", output], more].concat());
    let done = embed(&["--texts", texts.to_str().unwrap()]);
    assert!(done.status.success(), "{}", stderr(&done));
    let (got, _) = read(Path::new(output));
    assert_eq!((got.len(), got[0].len()), (want.len(), want[0].len()));
    let largest = want.iter().flatten().fold(0.0f32, |most, x| most.max(x.abs()));
    for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
        assert!((got - want).abs() <= 1e-5 * largest, "{got} {want}");
    }
    let refused = embed(&["--images", "data/demo/mscoco/val2014"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("texts only"));
}

/// `themo test --baseline` on the tiny M-CLIP and the demo's CLIP.
fn test_baseline(data: &Path, cache: &Path, more: &[&str]) -> Output {
    let (data, cache) = (data.to_str().unwrap(), cache.to_str().unwrap());
    let vision = ["--baseline-model", MCLIP, "--vision", "data/demo/models/toy-clip"];
    themo(&[&["test", "--baseline", "--data-dir", data, "--cache-dir", cache], &vision[..], more].concat())
}

#[test]
fn is_measured_once_until_the_data_or_a_model_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (data, cache) = (dir.path().join("data"), dir.path().join("cache"));
    std::fs::create_dir_all(data.join("xtd10")).unwrap();
    for name in ["test_1kcaptions_es.txt", "test_image_names.txt"] {
        std::fs::copy(here("data/demo/xtd10").join(name), data.join("xtd10").join(name)).unwrap();
    }
    for folder in ["mscoco", "imagenet"] {
        std::os::unix::fs::symlink(here("data/demo").join(folder), data.join(folder)).unwrap();
    }
    // The figures, and whether they were in the cache.
    let run = |more: &[&str]| {
        let output = test_baseline(&data, &cache, &[&["--json"], more].concat());
        let log = stderr(&output);
        assert!(output.status.success(), "{log}");
        assert_ne!(log.contains("measuring the baseline"), log.contains("is in the cache"), "{log}");
        (String::from_utf8(output.stdout).unwrap(), log.contains("is in the cache"))
    };
    let (first, found) = run(&[]);
    assert!(!found);
    let json: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(json["retrieval"]["captions"], 240);
    assert_eq!(json["classification"]["images"], 240);
    assert_eq!(json["transparency"], "drop");
    assert_eq!(json.as_object().unwrap().len(), 3);
    assert_eq!(run(&[]), (first.clone(), true));
    let (retrieval, found) = run(&["--task", "retrieval"]);
    assert!(found);
    let retrieval: serde_json::Value = serde_json::from_str(&retrieval).unwrap();
    assert_eq!(retrieval["retrieval"], json["retrieval"]);
    assert!(!run(&["--transparency", "white"]).1, "the choice is part of the key");
    let table = String::from_utf8(test_baseline(&data, &cache, &[]).stdout).unwrap();
    assert!(table.contains("recall@1") && table.contains("accuracy@1"), "{table}");

    assert!(!run(&["--prompt", "un dibujo de {}"]).1);
    let captions = data.join("xtd10/test_1kcaptions_es.txt");
    let text = std::fs::read_to_string(&captions).unwrap();
    std::fs::write(&captions, text.replacen('a', "o", 1)).unwrap();
    assert!(!run(&[]).1);
    std::fs::write(&captions, text).unwrap();
    assert_eq!(run(&[]), (first.clone(), true));

    // What a crash or a full disk might leave is not believed.
    for entry in std::fs::read_dir(&cache).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    assert_eq!(run(&[]), (first.clone(), false));
    assert_eq!(run(&[]), (first, true));
}

#[test]
fn says_what_is_missing_or_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |output: Output, code: i32, parts: &[&str]| {
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(parts.iter().chain(&["\nhint: "]).all(|part| text.contains(part)), "{parts:?} not in {text}");
    };
    let (demo, cache) = (here("data/demo"), dir.path().join("cache"));
    let model = |model: &str| {
        themo(&["test", "--baseline", "--data-dir", "data/demo", "--baseline-model", model, "--cache-dir", "/nowhere"])
    };
    fails(model("M-CLIP/XLM-Roberta-Large-Vit-B-16Plus"), 1, &["not supported", "ViT-B-16-plus-240"]);
    fails(model(MCLIP), 2, &["--vision"]);
    fails(test_baseline(&dir.path().join("data"), &cache, &[]), 1, &["test_1kcaptions_es.txt"]);
    fails(test_baseline(&demo, &cache, &["--baseline-model", "tests/golden/tiny-bert"]), 1, &["not an M-CLIP"]);
    fails(test_baseline(&demo, &cache, &["--vision", "tests/golden/tiny-clip"]), 1, &["64", "16", "--vision"]);
    fails(test_baseline(&demo, &cache, &["--vision", "no/such"]), 1, &["no/such"]);
    let usage = |args: &[&str]| assert_eq!(themo(args).status.code(), Some(2), "{args:?}");
    usage(&["test", "--published"]);
    usage(&["test", "--baseline", "--with-teacher"]);
}

#[test]
fn published_figures_need_nothing() {
    let table = String::from_utf8(themo(&["test", "--baseline", "--published"]).stdout).unwrap();
    assert!(["0.370", "0.504", "M-CLIP XLM-R large", "README of the original"].iter().all(|part| table.contains(part)));
    let json = themo(&["test", "--baseline", "--published", "--json"]).stdout;
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
    assert_eq!(rows[1]["retrieval"]["recall@10"], 0.888);
}

#[test]
fn stands_beside_a_student() {
    let dir = tempfile::tempdir().unwrap();
    let (logs, cache) = (dir.path().join("logs"), dir.path().join("cache"));
    let places = ["--log-dir", logs.to_str().unwrap(), "--cache-dir", cache.to_str().unwrap(), "--max-epochs", "0"];
    let trained = themo(&[&["train", "--config", "configs/demo.toml"], &places[..]].concat());
    assert!(trained.status.success(), "{}", stderr(&trained));
    let run = logs.join("demo/version_0");
    let both = ["--version-path", run.to_str().unwrap(), "--task", "retrieval"];
    let table = String::from_utf8(test_baseline(&here("data/demo"), &cache, &both).stdout).unwrap();
    assert!(table.contains("share of the baseline") && table.lines().take(10).all(|line| line.len() <= 80), "{table}");
    let alone = test_baseline(&here("data/demo"), &cache, &["--task", "retrieval", "--json"]).stdout;
    let alone: serde_json::Value = serde_json::from_slice(&alone).unwrap();
    let written = std::fs::read(run.join("eval/retrieval.json")).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(written["baseline"], alone["retrieval"]);
    assert!(written["text_to_image"].is_object());
}

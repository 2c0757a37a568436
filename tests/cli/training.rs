//! Runs repeat, the teacher's features are reused, and checkpoints hold what the next run needs.

use std::fs;
use std::path::{Path, PathBuf};

use themo::data::tokens::TextTokenizer;

use crate::common::scratch::Scratch;
use crate::common::{assert_fails, copy_tree, demo, stderr};

#[test]
fn equal_runs_are_equal_to_the_bit_and_the_second_needs_no_teacher() {
    let scratch = Scratch::new();
    let first = scratch.run(&["--features-first"]);
    let second = scratch.run(&[]);
    let other = scratch.run(&["--seed", "1"]);
    assert!(first.ends_with("demo/version_0") && second.ends_with("version_1") && other.ends_with("version_2"));
    let metrics = |run: &Path| fs::read_to_string(run.join("metrics.csv")).unwrap();
    assert_eq!(metrics(&first), metrics(&second));
    assert_ne!(metrics(&first), metrics(&other));
    assert!(metrics(&first).starts_with("epoch,step,train/loss,val/loss,lr,tokens_per_sec\n0,2,"));
    assert_eq!(metrics(&first).lines().count(), 1 + 3 + 1);
    let weights = |run: &Path| fs::read(run.join("checkpoints/last/model.safetensors")).unwrap();
    assert_eq!(weights(&first), weights(&second));

    // The features are there.
    let again = scratch.train(&["--max-steps", "1", "--features-first"]);
    let told = "the teacher's features of 7000 pairs are in the cache, 0 of them new";
    assert!(stderr(&again).contains(told), "{}", stderr(&again));

    // The resolved configuration repeats the run.
    let (config, logs) = (first.join("config.toml"), scratch.path("repeated"));
    let repeated = ["train", "--config", config.to_str().unwrap(), "--log-dir", logs.to_str().unwrap()];
    assert!(scratch.themo(&repeated).status.success());
    assert_eq!(metrics(&logs.join("demo/version_0")), metrics(&first));
}

#[test]
fn a_batch_cut_into_micro_batches_gives_the_same_losses() {
    let scratch = Scratch::new();
    let losses = |run: &Path| -> Vec<f64> {
        let text = fs::read_to_string(run.join("metrics.csv")).unwrap();
        text.lines().skip(1).map(|line| line.split(',').nth(2).unwrap().parse().unwrap()).collect()
    };
    let whole = losses(&scratch.run(&["--micro-batch-tokens", "100000"]));
    let cut = losses(&scratch.run(&["--micro-batch-tokens", "50"]));
    assert_eq!(whole.len(), cut.len());
    for (whole, cut) in whole.iter().zip(&cut) {
        assert!((whole / cut - 1.0).abs() < 1e-4, "{whole} {cut}");
    }
}

#[test]
fn a_checkpoint_starts_another_run_where_it_ended() {
    let scratch = Scratch::new();
    let first = scratch.run(&["--max-steps", "60"]);
    let student = first.join("checkpoints/last");
    let loss = |run: &Path| -> f64 {
        let text = fs::read_to_string(run.join("metrics.csv")).unwrap();
        text.lines().nth(1).unwrap().split(',').nth(2).unwrap().parse().unwrap()
    };
    let warm = scratch.run(&["--student", student.to_str().unwrap(), "--max-steps", "2"]);
    assert!(loss(&warm) < 0.5 * loss(&first), "{} {}", loss(&warm), loss(&first));
}

#[test]
fn the_teacher_and_its_files_stay_as_they_are() {
    let scratch = Scratch::new();
    let weights = demo("models/toy-clip/model.safetensors");
    let before = fs::read(&weights).unwrap();
    scratch.run(&[]);
    assert_eq!(before, fs::read(&weights).unwrap());
}

#[test]
fn a_checkpoint_has_all_that_decides_about_token_ids() {
    let scratch = Scratch::new();
    let student = scratch.path("student");
    copy_tree(&demo("models/toy-beto"), &student);
    // (`rojo` is in the vocabulary; where it were not, the model would have no embedding for it.)
    fs::write(student.join("added_tokens.json"), r#"{"rojo": 433}"#).unwrap();
    fs::write(student.join("special_tokens_map.json"), r#"{"mask_token": "[MASK]"}"#).unwrap();
    let settings = fs::read_to_string(student.join("tokenizer_config.json")).unwrap();
    let settings = settings.replacen('{', r#"{"truncation_side": "left", "#, 1);
    fs::write(student.join("tokenizer_config.json"), settings).unwrap();
    let run = scratch.run(&["--max-epochs", "0", "--student", student.to_str().unwrap()]);
    let last = run.join("checkpoints/last");
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
        assert_eq!(fs::read(last.join(name)).unwrap(), fs::read(student.join(name)).unwrap(), "{name}");
    }
    let tokenizer = |max| TextTokenizer::from_folder(&last, max).unwrap();
    let text = ["xrojox un círculo rojo y un círculo verde"];
    let (whole, cut) = (tokenizer(77).encode(&text).unwrap().remove(0), tokenizer(6).encode(&text).unwrap().remove(0));
    assert_eq!(whole.iter().filter(|id| **id == 433).count(), 2, "{whole:?}");
    assert_eq!(cut, [&whole[..1], &whole[whole.len() - 5..]].concat());

    // A base that does not name its kind has its tokenizer.json as it stands, accents and all; its checkpoints, too.
    let plain = scratch.path("plain");
    fs::create_dir(&plain).unwrap();
    for name in ["model.safetensors", "tokenizer.json"] {
        fs::copy(demo("models/toy-beto").join(name), plain.join(name)).unwrap();
    }
    let config = fs::read(demo("models/toy-beto/config.json")).unwrap();
    let mut config: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&config).unwrap();
    config.retain(|key, _| key != "model_type" && key != "architectures");
    fs::write(plain.join("config.json"), serde_json::to_string(&config).unwrap()).unwrap();
    let run = scratch.run(&["--max-epochs", "0", "--student", plain.to_str().unwrap()]);
    let ids = |folder: &Path| TextTokenizer::from_folder(folder, 77).unwrap().encode(&["un círculo rojo"]).unwrap();
    assert_eq!(ids(&run.join("checkpoints/last")), ids(&plain));

    // A token beyond the embeddings is an error that says so.
    fs::write(student.join("added_tokens.json"), r#"{"rojo": 433, "<persona>": 558}"#).unwrap();
    fs::write(scratch.path("pairs.tsv"), "una <persona> roja\ta red person\n".repeat(20)).unwrap();
    let pairs = scratch.path("pairs.tsv");
    let output = scratch.train(&["--student", student.to_str().unwrap(), "--pairs", pairs.to_str().unwrap()]);
    assert_fails(&output, 1, &["558"]);
}

#[test]
fn broken_weights_take_the_place_of_no_checkpoint() {
    let scratch = Scratch::new();
    let output = scratch.train(&["--learn-rate", "1e39", "--max-steps", "1"]);
    assert_fails(&output, 1, &["weights became infinite or NaN", "step 1", "learning rate"]);
    let checkpoints = scratch.path("logs/demo/version_0/checkpoints");
    assert!(fs::read_dir(checkpoints).map_or(true, |mut entries| entries.next().is_none()));
}

#[test]
fn runs_that_start_at_once_share_the_teacher_and_have_folders_of_their_own() {
    let scratch = Scratch::new();
    let runs: Vec<PathBuf> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..3).map(|_| scope.spawn(|| scratch.run(&[]))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let unique: std::collections::BTreeSet<&PathBuf> = runs.iter().collect();
    assert_eq!(unique.len(), 3, "{runs:?}");
    let metrics = |run: &PathBuf| fs::read(run.join("metrics.csv")).unwrap();
    assert!(metrics(&runs[0]) == metrics(&runs[1]) && metrics(&runs[1]) == metrics(&runs[2]));
}

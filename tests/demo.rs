//! The README's first screen: the demo is trained and tested by the real binary, with the thresholds that it promises.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn themo(args: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_themo")).current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().unwrap();
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "themo {args:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn at(value: &Value, path: &[&str]) -> f64 {
    path.iter().fold(value, |value, key| &value[*key]).as_f64().unwrap_or_else(|| panic!("no {path:?} in {value}"))
}

/// The words after `test it with    themo` in what `themo train` printed, and the seconds of training.
fn printed(stdout: &str) -> (Vec<String>, f64) {
    let line = |start: &str| stdout.lines().find_map(|l| l.trim_start().strip_prefix(start)).expect(start).trim();
    let command = line("test it with").split_whitespace().skip(1).map(str::to_owned).collect();
    let seconds = stdout.split(" s of training").next().and_then(|s| s.rsplit(' ').next()).unwrap();
    (command, seconds.parse().unwrap())
}

fn train_and_test(scratch: &Path, more: &[&str]) -> (Value, f64) {
    let (logs, cache) = (scratch.join("logs"), scratch.join("cache"));
    let places = ["--log-dir", logs.to_str().unwrap(), "--cache-dir", cache.to_str().unwrap()];
    let stdout = themo(&[&["train", "--config", "configs/demo.toml"], &places[..], more].concat());
    let (command, seconds) = if stdout.contains("not trained") {
        (printed(&stdout.replace("not trained: 0 epochs", "0 s of training")).0, 0.0)
    } else {
        printed(&stdout)
    };
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let scores = themo(&[&command[..], &["--with-teacher", "--json"]].concat());
    (serde_json::from_str(&scores).unwrap(), seconds)
}

#[test]
#[ignore = "trains six students for about half a minute each; .ci/run runs it"]
fn three_seeds_reach_the_thresholds_and_the_teacher_its_reference() {
    let reference =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/reference_scores.json"));
    let reference: Value = serde_json::from_str(&reference.unwrap()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut recalls = [Vec::new(), Vec::new()];
    for (run, seed) in ["0", "1", "2", "0", "1", "2"].into_iter().enumerate() {
        let precision = ["f32", "bf16"][run / 3];
        let (scores, seconds) = train_and_test(scratch.path(), &["--seed", seed, "--precision", precision]);
        let recall = at(&scores, &["retrieval", "text_to_image", "recall@1"]);
        let accuracy = at(&scores, &["classification", "accuracy@1"]);
        let teacher_recall = at(&reference, &["teacher_english", "recall", "@1"]);
        let teacher_accuracy = at(&reference, &["teacher_english", "accuracy", "@1"]);
        recalls[run / 3].push(recall);
        eprintln!("{precision}, seed {seed}: recall@1 {recall:.4}, accuracy@1 {accuracy:.4}, {seconds} s of training");
        assert!(recall >= 0.9 * teacher_recall, "recall@1 {recall}");
        assert!(accuracy >= 0.85 * teacher_accuracy, "accuracy@1 {accuracy}");
        // Without bf16 instructions, bf16 products take longer than f32 ones.
        let counts = precision == "f32" || themo::nn::cpu::gemm::bf16_unit().is_some();
        assert!(seconds <= 90.0 || !counts, "{seconds} s of training");
        for k in ["@1", "@5", "@10"] {
            let ours = at(&scores, &["teacher", "retrieval", "text_to_image", &format!("recall{k}")]);
            assert!(
                (ours - at(&reference, &["teacher_english", "recall", k])).abs() <= 0.005,
                "teacher recall{k} {ours}"
            );
            let ours = at(&scores, &["teacher", "classification", &format!("accuracy{k}")]);
            assert!(
                (ours - at(&reference, &["teacher_english", "accuracy", k])).abs() <= 0.005,
                "teacher accuracy{k} {ours}"
            );
        }
    }
    let [in_f32, in_bf16] = recalls.each_ref().map(|recalls| recalls.iter().sum::<f64>() / recalls.len() as f64);
    let most = |recalls: &[f64]| recalls.iter().copied().fold(0.0, f64::max);
    let least = |recalls: &[f64]| recalls.iter().copied().fold(1.0, f64::min);
    let spread = most(&recalls[0]) - least(&recalls[0]);
    assert!((in_f32 - in_bf16).abs() <= spread.max(0.005), "bf16 {recalls:?}");
}

#[test]
fn a_student_that_is_not_trained_knows_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let (scores, _) = train_and_test(scratch.path(), &["--max-epochs", "0"]);
    assert!(at(&scores, &["retrieval", "text_to_image", "recall@1"]) < 0.15);
    assert!(at(&scores, &["classification", "accuracy@1"]) < 0.15);
}

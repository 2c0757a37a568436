//! Runs in trouble, and what they say: a full disk, a divergence, one batch only.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::runs::*;

#[test]
fn the_best_mark_stands_behind_the_monitored_value() {
    let scratch = Scratch::new();
    for (monitor, marked) in [("train/loss", 0), ("val/loss", 1)] {
        let told = succeeds(&mut scratch.command(monitor, &["--monitor", monitor, "--max-epochs=1"]));
        let line = told.lines().find(|line| line.contains("epoch 0: ")).unwrap();
        let values: Vec<&str> = line.split("epoch 0: ").nth(1).unwrap().split(", ").collect();
        assert!(values[marked].starts_with(monitor) && values[marked].ends_with(" (best)"), "{line}");
        assert_eq!(line.matches("(best)").count(), 1, "{line}");
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_only_checkpoints() {
    let scratch = Scratch::new();
    let (reference, run) = (scratch.run("reference"), scratch.run("a"));
    succeeds(&mut scratch.command("reference", &[]));
    // A file in the place of the folder fails every write, as a full disk does.
    let mut child = quietly(scratch.command("a", &[]));
    assert!(wait(&mut child, || run.join("checkpoints/last").exists() && !is_writing(&run)));
    fs::rename(run.join("checkpoints"), run.join("aside")).unwrap();
    fs::write(run.join("checkpoints"), "").unwrap();
    let there = rows(&run);
    assert!(wait(&mut child, || rows(&run) > there + 4), "the run does not continue");
    fs::remove_file(run.join("checkpoints")).unwrap();
    fs::rename(run.join("aside"), run.join("checkpoints")).unwrap();
    assert!(child.wait().unwrap().success());
    let csv = |run: &Path| fs::read_to_string(run.join("metrics.csv")).unwrap();
    assert_eq!(csv(&run), csv(&reference));
    assert!(fs::read_to_string(run.join("train.log")).unwrap().contains("the run continues"));

    // Files of at most 2.5 or 5 MB (shells differ): no checkpoint can be written, the last one neither.
    let mut limited = Command::new("sh");
    limited.current_dir(env!("CARGO_MANIFEST_DIR")).args(["-c", "ulimit -f 5000; exec \"$0\" \"$@\""]);
    let command = scratch.command("b", &[]);
    limited.arg(command.get_program()).args(command.get_args());
    fails(&mut limited, 1, &["cannot write the checkpoint", "the run continues", "free space"]);
    let run = scratch.run("b");
    assert_eq!((csv(&run), names(&run.join("checkpoints")).len()), (csv(&reference), 0));
    assert_eq!(state_of(&scratch, "b"), "failed");
    succeeds(&mut resume(&run, &[]));
    assert_same(&run, &reference);
}

#[test]
fn a_run_that_diverges_names_the_batch_and_keeps_its_checkpoint() {
    let scratch = Scratch::new();
    let output = scratch.train("a", &["--learn-rate=1e25", "--checkpoint-every=1"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("1e25") && text(&output).contains("diverged.json"), "{}", text(&output));
    let run = scratch.run("a");
    let report: serde_json::Value = serde_json::from_slice(&fs::read(run.join("diverged.json")).unwrap()).unwrap();
    let captions = report["captions"].as_array().unwrap();
    assert_eq!((report["learn-rate"].as_f64(), captions.len()), (Some(1e25), 32));
    assert!(captions.iter().all(|caption| caption["pair"].is_u64() && !caption["es"].as_str().unwrap().is_empty()));
    let saved: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("checkpoints/last/state.json")).unwrap()).unwrap();
    assert_eq!(saved["steps"].as_u64().unwrap() + 1, report["step"].as_u64().unwrap());
    assert_eq!(state_of(&scratch, "a"), "failed");
}

#[test]
fn a_fast_dev_run_writes_no_run_and_fewer_pairs_are_fewer_steps() {
    let scratch = Scratch::new();
    let told = succeeds(&mut scratch.command("a", &["--fast-dev-run"]));
    assert!(
        told.contains("1 steps") && told.contains("val/loss") && told.contains("no run folder was written"),
        "{told}"
    );
    assert!(!scratch.0.path().join("a").exists());
    let told = succeeds(&mut scratch.command("b", &["--overfit-batches=2", "--max-epochs=3"]));
    assert!(told.contains("3 epochs, 6 steps") && told.contains("64 training"), "{told}");
}

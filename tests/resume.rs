//! A run that is killed, stopped or short of disk continues as if nothing had been: the real binary on the demo.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Runs of 4 epochs of 20 steps with a checkpoint every 3, about 2 s each.
const SETTINGS: &[&str] = &[
    "--config=configs/demo.toml",
    "--limit-train-pairs=640",
    "--batch-size=32",
    "--max-epochs=4",
    "--log-every=2",
    "--checkpoint-every=3",
    "--keep-best=2",
];

struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn run(&self, logs: &str) -> PathBuf {
        self.0.path().join(logs).join("demo/version_0")
    }

    fn command(&self, logs: &str, more: &[&str]) -> Command {
        let path = |name: &str| self.0.path().join(name);
        let mut command = themo();
        command.arg("train").args(SETTINGS).arg("--log-dir").arg(path(logs)).arg("--cache-dir").arg(path("cache"));
        command.args(more);
        command
    }

    fn train(&self, logs: &str, more: &[&str]) -> Output {
        output(&mut self.command(logs, more))
    }
}

fn themo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_themo"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

fn resume(run: &Path, more: &[&str]) -> Command {
    let mut command = themo();
    command.args(["train", "--resume"]).arg(run).args(more);
    command
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

#[track_caller]
fn fails(command: &mut Command, code: i32, parts: &[&str]) {
    let output = output(command);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

fn quietly(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

fn rows(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.csv")).map_or(0, |text| text.lines().count().saturating_sub(1))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let mut names: Vec<_> = entries.iter().map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn is_writing(run: &Path) -> bool {
    names(&run.join("checkpoints")).iter().any(|name| name.starts_with('.'))
}

/// Waits until `what` holds or the process has ended; whether it still runs.
fn wait(child: &mut Child, what: impl Fn() -> bool) -> bool {
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
fn assert_same(run: &Path, reference: &Path) {
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

#[test]
fn twenty_kills_change_nothing() {
    let scratch = Scratch::new();
    succeeds(&mut scratch.command("reference", &[]));
    let reference = scratch.run("reference");
    assert_eq!(rows(&reference), 44);

    // Splitmix64, so that the moments differ but the test repeats.
    let mut seed = 0u64;
    let mut random = |n: u64| {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) % n
    };
    let cold = scratch.0.path().join("cold");
    let (mut kills, mut in_a_write, mut finished) = (0, 0, 0);
    while kills < 20 || finished == 0 {
        // A run that finished before enough kills is compared, and another takes its place.
        let logs = format!("killed_{finished}");
        let run = scratch.run(&logs);
        let mut child = quietly(match run.exists() {
            true => resume(&run, &[]),
            false => scratch.command(&logs, &["--cache-dir", cold.to_str().unwrap()]),
        });
        let (there, more) = (rows(&run), 1 + random(5) as usize);
        let runs = kills < 20
            && match random(5) {
                0 => wait(&mut child, || run.exists()),
                1 | 2 => {
                    wait(&mut child, || rows(&run) > 0 && rows(&run) != there) && wait(&mut child, || is_writing(&run))
                }
                _ => wait(&mut child, || rows(&run) >= there + more),
            };
        if runs {
            sleep(Duration::from_micros(random(if kills % 2 == 0 { 3_000 } else { 60_000 })));
            child.kill().unwrap();
        }
        let ended = child.wait().unwrap();
        if ended.success() {
            assert_same(&run, &reference);
            finished += 1;
        } else {
            assert_eq!(ended.code(), None, "it was not the kill that ended it");
            kills += 1;
            in_a_write += usize::from(is_writing(&run));
        }
    }
    eprintln!("{kills} kills, {in_a_write} while a checkpoint was being written, {finished} runs");
    assert!(in_a_write > 0, "no kill fell into the writing of a checkpoint");
}

#[test]
fn averaged_weights_schedules_and_the_watched_recall_go_on_too() {
    let scratch = Scratch::new();
    let recipe = [
        "--optimizer=adam",
        "--schedule=cosine",
        "--warmup-steps=5",
        "--layer-decay=0.8",
        "--grad-clip=1",
        "--freeze-layers=1",
        "--ema=0.9",
        "--final-norm",
        "--loss=mse+0.1*clip",
        "--target=projected",
        "--micro-batch-tokens=100",
        "--monitor=val/recall@1",
    ];
    succeeds(&mut scratch.command("reference", &recipe));
    let run = scratch.run("killed");
    let mut child = quietly(scratch.command("killed", &recipe));
    for seen in [5, 17, 30] {
        assert!(wait(&mut child, || rows(&run) > seen), "the run was over before it was killed");
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        child = quietly(resume(&run, &[]));
    }
    assert!(child.wait().unwrap().success());
    assert_same(&run, &scratch.run("reference"));
    // With another end, a schedule would have had other learning rates from the beginning.
    fails(&mut resume(&run, &["--max-epochs=5"]), 2, &["--max-epochs", "--override"]);
}

#[test]
fn ctrl_c_and_sigterm_finish_the_step_and_say_how_to_go_on() {
    let scratch = Scratch::new();
    succeeds(&mut scratch.command("reference", &[]));
    let run = scratch.run("stopped");
    for (i, (signal, code)) in [("INT", 130), ("TERM", 143)].into_iter().enumerate() {
        let mut child = quietly(if i == 0 { scratch.command("stopped", &[]) } else { resume(&run, &[]) });
        assert!(wait(&mut child, || rows(&run) > 12 * i + 3));
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{signal}");
        let told = text(&output);
        assert!(told.contains("stopped") && told.contains("themo train --resume"), "{told}");
        assert_eq!(state_of(&scratch, "stopped"), "stopped");
        let saved = fs::read_to_string(run.join("checkpoints/last/state.json")).unwrap();
        assert!(saved.contains(&format!("\"rows\": {}", rows(&run))), "{saved}");
    }
    succeeds(&mut resume(&run, &[]));
    assert_same(&run, &scratch.run("reference"));
    assert_eq!(state_of(&scratch, "stopped"), "finished");
}

#[test]
fn ctrl_c_ends_a_validation_which_the_resumed_run_does_again() {
    let scratch = Scratch::new();
    let captions = |language: &str| {
        let path = format!("data/demo/xtd10/test_1kcaptions_{language}.txt");
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    };
    let pairs: String =
        captions("es").lines().zip(captions("en").lines()).map(|(es, en)| format!("{es}\t{en}\n")).collect();
    let val = scratch.0.path().join("val.tsv");
    fs::write(&val, pairs.repeat(30)).unwrap(); // about a second
    let val = format!("--val-pairs={}", val.display());
    let settings = [val.as_str(), "--limit-train-pairs=128", "--max-epochs=2"];
    succeeds(&mut scratch.command("reference", &settings));
    let run = scratch.run("stopped");
    let mut child = quietly(scratch.command("stopped", &settings));
    assert!(wait(&mut child, || rows(&run) == 2)); // all steps of the first epoch
    send(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert_eq!(rows(&run), 2, "the epoch was ended first");
    succeeds(&mut resume(&run, &[]));
    assert_same(&run, &scratch.run("reference"));
}

#[test]
fn a_second_signal_ends_at_once() {
    let scratch = Scratch::new();
    succeeds(&mut scratch.command("warm", &["--max-epochs=0", "--limit-train-pairs=7000"]));
    // One step of some seconds.
    let long = ["--batch-size=7000", "--limit-train-pairs=7000", "--max-steps=1"];
    let run = scratch.run("long");
    let mut child = quietly(scratch.command("long", &long));
    assert!(wait(&mut child, || run.join("checkpoints").exists()));
    for signal in ["INT", "TERM"] {
        sleep(Duration::from_millis(100));
        send(&child, signal);
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    assert_eq!((text(&output).as_str(), names(&run.join("checkpoints")).len()), ("", 0));
    assert_eq!(state_of(&scratch, "long"), "interrupted");
}

fn send(child: &Child, signal: &str) {
    let line = format!("kill -{signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
}

fn state_of(scratch: &Scratch, logs: &str) -> String {
    let output = output(themo().args(["runs", "--json"]).arg(scratch.0.path().join(logs)));
    let runs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(runs.as_array().unwrap().len(), 1);
    runs[0]["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_finished_run_says_so_and_goes_on_with_higher_limits() {
    let scratch = Scratch::new();
    let run = scratch.run("a");
    succeeds(&mut scratch.command("a", &["--max-epochs=1"]));
    let before = fs::read(run.join("metrics.csv")).unwrap();
    let told = succeeds(&mut resume(&run, &[]));
    assert!(told.contains("is finished: 1 epochs, 20 steps") && told.contains("--max-epochs"), "{told}");
    assert_eq!(fs::read(run.join("metrics.csv")).unwrap(), before);

    // Steps that end within an epoch: the epoch is closed, and opened again where there are more.
    succeeds(&mut resume(&run, &["--max-epochs=2", "--max-steps=31"]));
    assert!(fs::read_to_string(run.join("metrics.csv")).unwrap().lines().last().unwrap().starts_with("1,31,"));
    assert!(succeeds(&mut resume(&run, &["--max-steps=31"])).contains("is finished: 2 epochs, 31 steps"));
    succeeds(&mut resume(&run, &["--max-epochs=3", "--max-steps=1000"]));
    succeeds(&mut scratch.command("b", &["--max-epochs=3"]));
    let csv = |logs: &str| fs::read_to_string(scratch.run(logs).join("metrics.csv")).unwrap();
    assert_eq!(csv("a"), csv("b"));
    let weights = |logs: &str| fs::read(scratch.run(logs).join("checkpoints/last/model.safetensors")).unwrap();
    assert!(weights("a") == weights("b"));
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(config.contains("max-epochs = 3\n") && config.contains("max-steps = 1000\n"), "{config}");
}

#[test]
fn a_run_that_was_killed_after_its_last_checkpoint_is_finished() {
    let scratch = Scratch::new();
    let run = scratch.run("a");
    succeeds(&mut scratch.command("a", &["--max-epochs=1"]));
    let path = run.join("status.json");
    let mut status: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    (status["state"], status["ended"]) = ("running".into(), serde_json::Value::Null);
    fs::write(&path, status.to_string()).unwrap();
    assert_eq!(state_of(&scratch, "a"), "interrupted");
    assert!(succeeds(&mut resume(&run, &[])).contains("is finished: 1 epochs, 20 steps"));
    assert_eq!(state_of(&scratch, "a"), "finished");
}

#[test]
fn a_run_resumed_with_lower_limits_trains_no_further() {
    let scratch = Scratch::new();
    succeeds(&mut scratch.command("reference", &[]));
    // Stopped within its second epoch, it is to have one.
    let run = scratch.run("a");
    let mut child = quietly(scratch.command("a", &[]));
    assert!(wait(&mut child, || rows(&run) > 13));
    send(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let there = rows(&run);
    assert!(there < 21, "the second epoch was over");
    succeeds(&mut resume(&run, &["--max-epochs=1"]));
    assert_eq!(rows(&run), there);
    assert!(succeeds(&mut resume(&run, &[])).contains("is finished: 2 epochs"));
    succeeds(&mut resume(&run, &["--max-epochs=4"]));
    assert_same(&run, &scratch.run("reference"));

    // Killed between its second and its third epoch, it is to have two.
    let run = scratch.run("b");
    succeeds(&mut scratch.command("b", &["--max-epochs=2"]));
    let path = run.join("checkpoints/last/state.json");
    let state = fs::read_to_string(&path).unwrap();
    assert!(state.contains("\"finished\": true"));
    fs::write(&path, state.replace("\"finished\": true", "\"finished\": false")).unwrap();
    succeeds(&mut resume(&run, &["--max-epochs=2"]));
    assert_eq!(rows(&run), 22);
    assert!(succeeds(&mut resume(&run, &[])).contains("is finished: 2 epochs, 40 steps"));
}

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
fn the_configuration_of_the_run_rules() {
    let scratch = Scratch::new();
    let run = scratch.run("a");
    succeeds(&mut scratch.command("a", &["--max-steps=4"]));
    let config = fs::read(run.join("config.toml")).unwrap();
    for (flag, parts) in [
        ("--batch-size=64", ["--batch-size 32, not 64", "--override"]),
        ("--no-shuffle", ["shuffle = true, not false", "new run"]),
        ("--dropout=0.5", ["--dropout not set, not 0.5", "new run"]),
        ("--learn-rate=1e-4", ["--learn-rate 0.001, not 0.0001", "add --override"]),
        ("--log-dir=elsewhere", ["--log-dir", "not \"elsewhere\""]),
    ] {
        fails(&mut resume(&run, &[flag]), 2, &["cannot resume", parts[0], parts[1]]);
    }
    fails(&mut resume(&run, &["--config=configs/demo.toml"]), 2, &["--config"]);
    fails(&mut scratch.command("a", &["--override"]), 2, &["--resume"]);
    fails(&mut resume(&scratch.run("none"), &[]), 1, &["no such folder"]);
    assert_eq!(fs::read(run.join("config.toml")).unwrap(), config);

    let again = ["--batch-size=32", "--learn-rate=1e-4", "--override", "--max-steps=8", "--patience=3"];
    succeeds(&mut resume(&run, &again));
    let csv = fs::read_to_string(run.join("metrics.csv")).unwrap();
    let rate = |row: usize| csv.lines().nth(row).unwrap().split(',').nth(4).unwrap();
    assert_eq!((rate(2), rate(3)), ("0.001", "0.0001"));

    // Other captions are another run.
    let pairs = scratch.0.path().join("pairs.tsv");
    let write = |first: &str| fs::write(&pairs, format!("{first}\ta cat\nun perro\ta dog\n")).unwrap();
    write("un gato");
    succeeds(&mut scratch.command("b", &["--pairs", pairs.to_str().unwrap(), "--max-epochs=1"]));
    write("una gata");
    fails(&mut resume(&scratch.run("b"), &["--max-epochs=2"]), 1, &["training pairs", "began with"]);
}

#[test]
fn one_process_at_a_time_trains_in_a_folder() {
    let scratch = Scratch::new();
    let run = scratch.run("a");
    let mut child = quietly(scratch.command("a", &["--max-epochs=1000"]));
    assert!(wait(&mut child, || rows(&run) > 0));
    assert_eq!(state_of(&scratch, "a"), "running");
    fails(&mut resume(&run, &[]), 1, &["another process is training in", "version_0"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(state_of(&scratch, "a"), "interrupted");
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
    limited.current_dir(env!("CARGO_MANIFEST_DIR")).args(["-c", "trap '' XFSZ; ulimit -f 5000; exec \"$0\" \"$@\""]);
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

//! Kills and signals: the resumed run ends as if it had never been stopped.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::runs::*;

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
fn ctrl_c_sigterm_and_sighup_finish_the_step_and_say_how_to_go_on() {
    let scratch = Scratch::new();
    succeeds(&mut scratch.command("reference", &[]));
    let run = scratch.run("stopped");
    for (i, (signal, code)) in [("INT", 130), ("TERM", 143), ("HUP", 129)].into_iter().enumerate() {
        let mut child = quietly(if i == 0 { scratch.command("stopped", &[]) } else { resume(&run, &[]) });
        assert!(wait(&mut child, || rows(&run) > 12 * i + 3));
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{signal}");
        let message = text(&output);
        assert!(message.contains("stopped") && message.contains("themo train --resume"), "{message}");
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

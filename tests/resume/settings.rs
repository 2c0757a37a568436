//! What a resumed run may change, and when it is finished.

use std::fs;
use std::path::Path;

use crate::runs::*;

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
fn an_epoch_that_max_steps_cut_leaves_nothing_behind() {
    let scratch = Scratch::new();
    succeeds(&mut scratch.command("reference", &["--max-epochs=2", "--max-steps=1000"]));
    let run = scratch.run("a");
    succeeds(&mut scratch.command("a", &["--max-epochs=2", "--max-steps=31"]));
    assert_eq!(names(&run.join("checkpoints")).len(), 3, "the cut epoch's was not among the best");
    succeeds(&mut resume(&run, &["--max-steps=1000"]));
    assert_same(&run, &scratch.run("reference"));
}

#[test]
fn a_resume_refuses_what_changed_and_leaves_the_settings_alone() {
    let scratch = Scratch::new();
    let at = |name: &str| scratch.0.path().join(name);
    let copy = |from: &str, to: &str| {
        fs::create_dir_all(at(to)).unwrap();
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(from)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), at(to).join(entry.file_name())).unwrap();
        }
    };
    copy("data/demo/models/toy-clip", "clip");
    copy("data/demo/xtd10", "probe/xtd10");
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/mscoco");
    std::os::unix::fs::symlink(images, at("probe/mscoco")).unwrap();
    fs::write(at("val.tsv"), "un gato\ta cat\nun perro\ta dog\n").unwrap();
    fs::write(at("train.tsv"), "un gato\ta cat\nun perro\ta dog\n").unwrap();
    let options = ["pairs=train.tsv", "val-pairs=val.tsv", "teacher=clip", "probe=probe"].map(|option| {
        let (name, path) = option.split_once('=').unwrap();
        format!("--{name}={}", at(path).display())
    });
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.push("--max-epochs=1");
    succeeds(&mut scratch.command("a", &options));
    let run = scratch.run("a");
    let config = fs::read(run.join("config.toml")).unwrap();
    for (file, old, new, what) in [
        ("train.tsv", "un gato", "una gata", "the training pairs"),
        ("val.tsv", "un gato", "una gata", "the validation pairs"),
        ("clip/config.json", "{", " {", "the teacher's files"),
        ("probe/xtd10/test_1kcaptions_es.txt", "un", "UN", "the files of the probe"),
    ] {
        let before = fs::read_to_string(at(file)).unwrap();
        fs::write(at(file), before.replacen(old, new, 1)).unwrap();
        fails(&mut resume(&run, &["--max-epochs=2"]), 1, &["cannot resume", what, "began with"]);
        assert_eq!(fs::read(run.join("config.toml")).unwrap(), config, "{what}: the settings were changed");
        fs::write(at(file), before).unwrap();
    }
    succeeds(&mut resume(&run, &["--max-epochs=2"]));
}

#[test]
fn a_run_is_used_from_any_folder() {
    let (scratch, elsewhere) = (Scratch::new(), tempfile::tempdir().unwrap());
    let home = scratch.0.path().join("it's home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("data"), home.join("data")).unwrap();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/demo.toml");
    let started = ["train", "--max-steps=4", "--limit-train-pairs=64", "--cache-dir=cache", "--config"];
    let told = succeeds(themo().current_dir(&home).args(started).arg(&config));
    assert!(told.contains("themo test --version-path logs/demo/version_0"), "{told}");
    let run = home.join("logs/demo/version_0");
    let written = fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(written.contains("cache-dir = \"cache\"") && written.contains("teacher = \"data/demo"), "{written}");
    // A file of the same relative name in the other folder is another file.
    fs::create_dir_all(elsewhere.path().join("data/demo/models/toy-clip")).unwrap();
    let mut resumed = resume(&run, &["--max-steps=8"]);
    let told = succeeds(resumed.current_dir(&elsewhere));
    assert!(told.contains("8 steps"), "{told}");
    let quoted = format!("--version-path '{}'", run.display().to_string().replace('\'', r"'\''"));
    assert!(told.contains(&quoted), "{told}");
    let environment = fs::read_to_string(run.join("environment.json")).unwrap();
    assert!(environment.contains("it's home\""), "{environment}");
    let rewritten = fs::read_to_string(run.join("config.toml")).unwrap();
    assert_eq!(rewritten, written.replace("max-steps = 4", "max-steps = 8"));
    let mut test = themo();
    test.args(["test", "--task=retrieval", "--version-path"]).arg(&run).current_dir(&elsewhere);
    assert!(succeeds(&mut test).contains("recall@1"));
    assert!(!elsewhere.path().join("cache").exists() && !elsewhere.path().join("logs").exists());
    // An option given there means that folder.
    fails(test.arg("--data-dir=data").env("HF_HUB_OFFLINE", "1"), 1, &["data/xtd10"]);
}

#[test]
fn a_damaged_checkpoint_can_be_removed() {
    let scratch = Scratch::new();
    succeeds(&mut scratch.command("reference", &["--max-epochs=3"]));
    let run = scratch.run("a");
    let mut child = quietly(scratch.command("a", &["--max-epochs=3"]));
    assert!(wait(&mut child, || rows(&run) > 12)); // in the second epoch
    send(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let last = run.join("checkpoints/last");
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        let whole = fs::read(last.join(file)).unwrap();
        fs::remove_file(last.join(file)).unwrap(); // which may be shared
        fs::write(last.join(file), &whole[..whole.len() / 2]).unwrap();
        fails(&mut resume(&run, &[]), 1, &[file, "if the checkpoint is damaged, remove ", "checkpoints/last"]);
        fs::write(last.join(file), whole).unwrap();
    }
    fs::remove_dir_all(last).unwrap();
    let told = succeeds(&mut resume(&run, &[]));
    assert!(told.contains("resuming after step 20 in epoch 1"), "{told}");
    assert_same(&run, &scratch.run("reference"));
}

#[test]
fn one_pair_is_nothing_to_compare() {
    let scratch = Scratch::new();
    let pairs = scratch.0.path().join("pairs.tsv");
    fs::write(&pairs, "un gato\ta cat\n").unwrap();
    let pairs = format!("--pairs={}", pairs.display());
    fails(&mut scratch.command("a", &[&pairs, "--loss=clip"]), 2, &["one training pair", "--loss mse"]);
}

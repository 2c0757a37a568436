//! Bad input gets a clear error with a hint, and writes nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::scratch::Scratch;
use crate::common::{assert_fails, copy_tree, demo, stderr};

#[test]
fn wrong_usage_is_told_and_writes_nothing() {
    let scratch = Scratch::new();
    assert_fails(&scratch.train(&["--batch-size", "0"]), 2, &["batch-size"]);
    assert_fails(&scratch.train(&["--learn-rate", "nan"]), 2, &["learn-rate"]);
    assert_fails(&scratch.train(&["--weight-decay", "-1"]), 2, &["weight-decay cannot be -1"]);
    assert_fails(&scratch.train(&["--betas", "-1,0.9"]), 2, &["betas"]);
    assert_fails(&scratch.train(&["--probe", "/nonexistent"]), 2, &["--probe /nonexistent is no folder"]);
    assert_fails(&scratch.train(&["--device", "tpu"]), 2, &["tpu"]);
    assert_fails(&scratch.train(&["--max-sequence-length", "1000"]), 2, &["128 positions"]);
    let config = scratch.path("c.toml");
    fs::write(&config, "bach-size = 3\n").unwrap();
    let output = scratch.themo(&["train", "--config", config.to_str().unwrap()]);
    assert_fails(&output, 2, &["unknown key `bach-size`", "`batch-size`"]);
    assert_eq!(scratch.themo(&["train", "--bach-size", "3"]).status.code(), Some(2));
    assert_fails(&scratch.train(&["--loss", "mse+mae"]), 2, &["unknown loss `mae`", "mse+0.1*clip", "`--loss mse`"]);
    assert_fails(&scratch.train(&["--freeze-layers", "9"]), 2, &["3 layers", "at most 3"]);
    let pairs = scratch.path("pairs.tsv");
    fs::write(&pairs, "un gato\ta cat\n").unwrap();
    let pairs = ["--pairs", pairs.to_str().unwrap()];
    for (monitor, hint) in [("val/loss", "--val-pairs"), ("val/recall@1", "--probe")] {
        assert_fails(&scratch.train(&[&pairs[..], &["--monitor", monitor]].concat()), 2, &[monitor, hint]);
    }
    scratch.assert_no_run();
}

#[test]
fn missing_or_broken_training_data_is_told_and_writes_nothing() {
    let scratch = Scratch::new();
    let data = scratch.path("data");
    let train = || scratch.train(&["--data-dir", data.to_str().unwrap()]);
    let wit = data.join("wit");
    let (shard, whole) =
        (wit.join("wit_v1.train.all-00000-of-00001.tsv.gz"), demo("wit/wit_v1.train.all-00000-of-00002.tsv.gz"));
    let fetch = ["wit_v1.train.all-*.tsv*", "themo train --config configs/demo.toml"];
    assert_fails(&train(), 1, &fetch);
    fs::create_dir_all(&wit).unwrap();
    assert_fails(&train(), 1, &fetch);
    let bytes = fs::read(whole).unwrap();
    fs::write(&shard, &bytes[..bytes.len() / 2]).unwrap();
    assert_fails(&train(), 1, &["wit_v1.train.all-00000-of-00001.tsv.gz", "truncated", "--allow-damaged"]);
    fs::write(&shard, b"").unwrap();
    assert_fails(&train(), 1, &["wit_v1.train.all-00000-of-00001.tsv.gz"]);
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(fs::File::create(&shard).unwrap(), Default::default());
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap();
    };
    gzip("language\tpicture\nes\tx\n");
    assert_fails(&train(), 1, &["image_url", "caption_reference_description"]);
    gzip("language\timage_url\tcaption_reference_description\nes\tu\tun gato\nen\tv\ta cat\n");
    assert_fails(&train(), 1, &["no Spanish/English caption pair"]);
    let pairs = scratch.path("p.tsv");
    fs::write(&pairs, "sin tabulador\n").unwrap();
    assert_fails(&scratch.train(&["--pairs", pairs.to_str().unwrap()]), 1, &["p.tsv"]);
    assert_fails(&scratch.train(&["--pairs", "nowhere.tsv"]), 1, &["nowhere.tsv"]);
    scratch.assert_no_run();
}

#[test]
fn of_a_damaged_shard_the_rows_before_are_trained_on_if_that_is_allowed() {
    let scratch = Scratch::new();
    let wit = scratch.path("data/wit");
    fs::create_dir_all(&wit).unwrap();
    let bytes = fs::read(demo("wit/wit_v1.train.all-00000-of-00002.tsv.gz")).unwrap();
    fs::write(wit.join("wit_v1.train.all-00000-of-00001.tsv.gz"), &bytes[..bytes.len() / 2]).unwrap();
    let data = scratch.path("data");
    let output = scratch.train(&["--data-dir", data.to_str().unwrap(), "--allow-damaged", "--max-steps", "2"]);
    let told = stderr(&output);
    assert!(output.status.success() && told.contains("kept the first "), "{told}");
    let config = fs::read_to_string(scratch.path("logs/demo/version_0/config.toml")).unwrap();
    assert!(config.contains("\nallow-damaged = true\n"), "{config}");
}

#[test]
fn models_that_are_missing_or_do_not_fit_are_told_and_write_nothing() {
    let scratch = Scratch::new();
    assert_fails(&scratch.train(&["--student", "no/such"]), 1, &["no/such"]);
    let broken = |change: &dyn Fn(&Path)| {
        let folder = scratch.path("broken");
        copy_tree(&demo("models/toy-beto"), &folder);
        change(&folder);
        let output = scratch.train(&["--student", folder.to_str().unwrap()]);
        fs::remove_dir_all(&folder).unwrap();
        output
    };
    let config = |from: &'static str, to: &'static str| {
        move |folder: &Path| {
            let path = folder.join("config.json");
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from));
            fs::write(path, text.replace(from, to)).unwrap();
        }
    };
    let output = broken(&config("\"intermediate_size\": 512", "\"intermediate_size\": 256"));
    assert_fails(&output, 1, &["encoder.layer.0.intermediate.dense.weight", "[512, 128]", "[256, 128]"]);
    let output = broken(&config("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4"));
    assert_fails(&output, 1, &["missing tensors", "encoder.layer.3"]);
    let output = broken(&config("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2"));
    assert_fails(&output, 1, &["unexpected tensors", "encoder.layer.2"]);
    let output = broken(&config("\"num_attention_heads\": 4", "\"num_attention_heads\": 5"));
    assert_fails(&output, 1, &["5 attention heads do not divide"]);
    let output = broken(&config("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"relu\""));
    assert_fails(&output, 1, &["relu"]);
    let cut = |folder: &Path| {
        let path = folder.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    assert_fails(&broken(&cut), 1, &["model.safetensors"]);
    assert_fails(&broken(&|folder| fs::write(folder.join("tokenizer.json"), "{}").unwrap()), 1, &["tokenizer.json"]);
    scratch.assert_no_run();
}

#[test]
fn broken_test_data_is_told_before_a_model_runs() {
    let scratch = Scratch::new();
    let run = scratch.run(&["--max-epochs", "0"]);
    let test = |args: &[&str]| scratch.themo(&[&["test", "--version-path", run.to_str().unwrap()], args].concat());
    assert_fails(&scratch.themo(&["test", "--version-path", "logs/none/version_9"]), 1, &["logs/none/version_9"]);
    assert_fails(&test(&["--data-dir", "nowhere"]), 1, &["nowhere/xtd10/test_1kcaptions_es.txt"]);

    let data = scratch.path("data");
    copy_tree(&demo("xtd10"), &data.join("xtd10"));
    copy_tree(&demo("mscoco"), &data.join("mscoco"));
    let names = fs::read_to_string(data.join("xtd10/test_image_names.txt")).unwrap();
    let image = data.join("mscoco/train2014").join(names.lines().next().unwrap());
    let name = image.file_name().unwrap().to_str().unwrap();
    let whole = fs::read(&image).unwrap();
    let retrieval = || test(&["--data-dir", data.to_str().unwrap(), "--task", "retrieval"]);
    assert!(retrieval().status.success());
    for broken in [&b""[..], &whole[..whole.len() / 2], b"not an image"] {
        fs::write(&image, broken).unwrap();
        assert_fails(&retrieval(), 1, &[name]);
    }
    fs::remove_file(&image).unwrap();
    assert_fails(&retrieval(), 1, &[name, "1 of 240"]);

    // A filtered tree will do; what it lacks is reported.
    copy_tree(&demo("imagenet"), &data.join("imagenet"));
    let images = data.join("imagenet/ILSVRC/Data/CLS-LOC/val");
    for n in [7, 9] {
        fs::remove_file(images.join(format!("ILSVRC2012_val_{n:08}.JPEG"))).unwrap();
    }
    let output = test(&["--data-dir", data.to_str().unwrap(), "--task", "classification", "--json"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains(r#""images": 238"#), "{}", stderr(&output));
    let warning =
        "2 labelled ImageNet images are missing: ILSVRC2012_val_00000007, ILSVRC2012_val_00000009 (238 are here)";
    assert!(stderr(&output).contains(warning), "{}", stderr(&output));

    fs::remove_dir_all(run.join("checkpoints/last")).unwrap();
    assert_fails(&test(&[]), 1, &["no checkpoint"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_place_that_cannot_be_written_is_told() {
    let scratch = Scratch::new();
    // /dev/full and /proc behave like a full and a read-only disk even for root.
    let output = scratch.train(&["--max-steps", "1", "--log-dir", "/proc/themo"]);
    assert_fails(&output, 1, &["/proc/themo"]);
    let output = scratch.train(&["--max-steps", "1", "--cache-dir", "/proc/themo"]);
    assert_fails(&output, 1, &["/proc/themo", "--cache-dir"]);
    scratch.assert_no_run();
}

#[test]
fn a_checkpoint_of_another_kind_is_refused() {
    let scratch = Scratch::new();
    let run = scratch.run(&["--pooling", "first"]);
    let student = run.join("checkpoints/last");
    let student = student.to_str().unwrap();
    assert_fails(&scratch.train(&["--student", student]), 1, &["first pooling", "--pooling first"]);
    assert_fails(&scratch.train(&["--student", run.to_str().unwrap()]), 1, &["checkpoints/last"]);
    let test = |teacher: &Path| {
        scratch.themo(&["test", "--version-path", run.to_str().unwrap(), "--teacher", teacher.to_str().unwrap()])
    };
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-clip");
    assert_fails(&test(&tiny), 1, &["128", "32", "trained on"]);
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_no_panic() {
    let scratch = Scratch::new();
    let run = scratch.run(&["--max-epochs", "0"]);
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_themo"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["test", "--task", "retrieval", "--version-path"]).arg(&run);
    let output = command.stdout(full()).output().unwrap();
    assert_fails(&output, 1, &["standard output"]);
    let status = command.arg("--device=tpu").stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

//! The real binary on the bundled demo: runs repeat, the cache is reused, and bad input is told clearly.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use themo::data::tokens::TextTokenizer;

mod common;

use common::{assert_fails, copy_tree, demo, stderr};

/// A scratch folder with its own logs and cache.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn themo(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_themo"));
        // Names of models are looked for nowhere but here.
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.path("hub"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().unwrap()
    }

    fn train(&self, args: &[&str]) -> Output {
        let (logs, cache) = (self.path("logs"), self.path("cache"));
        let places = ["--log-dir", logs.to_str().unwrap(), "--cache-dir", cache.to_str().unwrap()];
        self.themo(&[&["train", "--config", "configs/demo.toml"], &places[..], args].concat())
    }

    /// Trains a few steps and returns the run folder.
    fn run(&self, args: &[&str]) -> PathBuf {
        let output = self.train(&[&["--max-steps", "6", "--log-every", "2"], args].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let stdout = String::from_utf8(output.stdout).unwrap();
        PathBuf::from(stdout.lines().find_map(|line| line.strip_prefix("run folder")).unwrap().trim())
    }

    /// Nothing of a run was written.
    fn assert_no_run(&self) {
        assert!(!self.path("logs").exists(), "a run folder was made");
    }
}

#[test]
fn equal_runs_are_equal_to_the_bit_and_the_second_needs_no_teacher() {
    let scratch = Scratch::new();
    let first = scratch.run(&[]);
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

    // The features are there: a teacher whose weights cannot be read any more would show a forward pass.
    let again = scratch.train(&["--max-steps", "1"]);
    assert!(stderr(&again).contains("features of 7000 captions are in the cache"), "{}", stderr(&again));
    assert!(!stderr(&again).contains("computing"), "{}", stderr(&again));

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
fn any_checkpoint_of_a_run_is_tested_by_its_folder() {
    let scratch = Scratch::new();
    let run = scratch.run(&[]);
    let (last, copied) = (run.join("checkpoints/last"), scratch.path("copied"));
    copy_tree(&last, &copied);
    let test = |folder: &Path, more: &[&str]| {
        let common = ["test", "--task", "retrieval", "--data-dir", "data/demo", "--json", "--version-path"];
        let output = scratch.themo(&[&common[..], &[folder.to_str().unwrap()], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let figures = test(&last, &[]);
    assert!(run.join("eval/last/retrieval.json").exists() && !run.join("eval/retrieval.json").exists());
    assert_eq!(test(&copied, &["--teacher", "data/demo/models/toy-clip"]), figures);
    assert!(copied.join("eval/retrieval.json").exists());
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
fn testing_prints_one_json_object_and_writes_it_into_the_run() {
    let scratch = Scratch::new();
    let run = scratch.run(&["--max-epochs", "0"]);
    let path = run.to_str().unwrap();
    let output = scratch.themo(&["test", "--version-path", path, "--json", "--with-teacher"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for report in [&json, &json["teacher"]] {
        for way in ["text_to_image", "image_to_text"] {
            for k in [1, 5, 10] {
                assert!(report["retrieval"][way][format!("recall@{k}")].is_f64());
                assert!(report["classification"][format!("accuracy@{k}")].is_f64());
            }
        }
        assert_eq!(report["retrieval"]["images"], 240);
        assert_eq!(report["retrieval"]["captions"], 240);
        assert_eq!(report["classification"]["images"], 240);
        assert_eq!(report["classification"]["classes"], 30);
    }
    let written: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("eval/retrieval.json")).unwrap()).unwrap();
    assert_eq!(written["text_to_image"], json["retrieval"]["text_to_image"]);
    assert_eq!((&written["transparency"], &json["transparency"]), (&"drop".into(), &"drop".into()));

    let output = scratch.themo(&["test", "--version-path", path, "--json", "--task", "retrieval"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), ["retrieval", "transparency"]);

    let output = scratch.themo(&["test", "--version-path", path, "--task", "classification"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("accuracy@1") && table.contains("Ties count against the model"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80 || line.starts_with("Written")), "{table}");
}

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
fn the_recall_of_a_probe_is_that_of_test_and_chooses_the_checkpoint() {
    let scratch = Scratch::new();
    let run = scratch.run(&["--monitor", "val/recall@1", "--probe", "data/demo", "--ema", "0.5", "--max-steps", "90"]);
    let metrics = fs::read_to_string(run.join("metrics.csv")).unwrap();
    assert!(metrics.starts_with("epoch,step,train/loss,val/loss,lr,tokens_per_sec,val/recall@1\n"));
    let measured: f64 = metrics.lines().last().unwrap().rsplit(',').next().unwrap().parse().unwrap();
    let output = scratch.themo(&["test", "--version-path", run.to_str().unwrap(), "--json", "--task", "retrieval"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["retrieval"]["text_to_image"]["recall@1"].as_f64().unwrap(), measured);
    assert!(measured > 0.1, "{measured}");
    assert!(run.join(format!("checkpoints/epoch=0_val-recall@1={measured:.4}")).is_dir());
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
fn missing_or_broken_training_data_is_told_and_writes_nothing() {
    let scratch = Scratch::new();
    let data = scratch.path("data");
    let train = || scratch.train(&["--data-dir", data.to_str().unwrap()]);
    let wit = data.join("wit");
    let (shard, whole) =
        (wit.join("wit_v1.train.all-00000-of-00001.tsv.gz"), demo("wit/wit_v1.train.all-00000-of-00002.tsv.gz"));
    let fetch = ["wit_v1.train.all-00000-of-00010.tsv.gz", "themo train --config configs/demo.toml"];
    assert_fails(&train(), 1, &fetch);
    fs::create_dir_all(&wit).unwrap();
    assert_fails(&train(), 1, &fetch);
    let bytes = fs::read(whole).unwrap();
    fs::write(&shard, &bytes[..bytes.len() / 2]).unwrap();
    assert_fails(&train(), 1, &["wit_v1.train.all-00000-of-00001.tsv.gz", "truncated"]);
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

    // A filtered tree will do; what it lacks is told.
    copy_tree(&demo("imagenet"), &data.join("imagenet"));
    let images = data.join("imagenet/ILSVRC/Data/CLS-LOC/val");
    for n in [7, 9] {
        fs::remove_file(images.join(format!("ILSVRC2012_val_{n:08}.JPEG"))).unwrap();
    }
    let output = test(&["--data-dir", data.to_str().unwrap(), "--task", "classification", "--json"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains(r#""images": 238"#), "{}", stderr(&output));
    let told =
        "2 labelled ImageNet images are not there, 238 are: missing ILSVRC2012_val_00000007, ILSVRC2012_val_00000009";
    assert!(stderr(&output).contains(told), "{}", stderr(&output));

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
fn help_fits_eighty_columns() {
    for command in [&["--help"][..], &["train", "--help"], &["test", "--help"], &["embed", "--help"]] {
        let output = Scratch::new().themo(command);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("Examples:") && text.contains("Usage:"));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}

#[test]
fn embeddings_in_a_file_give_the_figures_of_test() {
    let scratch = Scratch::new();
    let run = scratch.run(&["--max-steps", "60"]);
    let (output, images) = (scratch.path("out.safetensors"), scratch.path("images.txt"));
    let names = fs::read_to_string(demo("xtd10/test_image_names.txt")).unwrap();
    let list: Vec<String> = names
        .lines()
        .map(|name| demo("mscoco").join(name.split('_').nth(1).unwrap()).join(name).display().to_string())
        .collect();
    fs::write(&images, list.join("\n")).unwrap();
    let embed = |more: &[&str]| {
        let texts = demo("xtd10/test_1kcaptions_es.txt");
        let common = ["--texts", texts.to_str().unwrap(), "--images", images.to_str().unwrap()];
        scratch.themo(&[&["embed", "--output", output.to_str().unwrap()], &common[..], more].concat())
    };
    let done = embed(&["--version-path", run.to_str().unwrap(), "--normalize", "--batch-size", "100"]);
    assert!(done.status.success(), "{}", stderr(&done));
    let bytes = fs::read(&output).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let stored: Vec<String> = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["image_names"]).unwrap();
    assert_eq!(stored, list);
    let tensors = candle_core::safetensors::load_buffer(&bytes, &candle_core::Device::Cpu).unwrap();
    let (texts, images) = (&tensors["text_embeds"], &tensors["image_embeds"]);
    assert_eq!((texts.dims(), images.dims()), (&[240, 64][..], &[240, 64][..]));
    let scores: Vec<Vec<f32>> = texts.matmul(&images.t().unwrap()).unwrap().to_vec2().unwrap();
    let hits = scores.iter().enumerate().filter(|(i, row)| row.iter().filter(|s| **s >= row[*i]).count() == 1).count();
    let tested = scratch.themo(&["test", "--version-path", run.to_str().unwrap(), "--json", "--task", "retrieval"]);
    let json: serde_json::Value = serde_json::from_slice(&tested.stdout).unwrap();
    let recall = json["retrieval"]["text_to_image"]["recall@1"].as_f64().unwrap();
    assert!((recall - hits as f64 / 240.0).abs() < 1.5 / 240.0, "{recall} {hits}");

    assert_fails(&embed(&["--model", "no/such"]), 1, &["no/such"]);
    assert!(embed(&["--model", demo("models/toy-clip").to_str().unwrap()]).status.success());
    fs::write(scratch.path("images.txt"), "nowhere.jpg\n").unwrap();
    assert_fails(&embed(&["--version-path", run.to_str().unwrap()]), 1, &["nowhere.jpg"]);
    assert_eq!(scratch.themo(&["embed", "--output", "x"]).status.code(), Some(2));
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

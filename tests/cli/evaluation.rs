//! Figures, vectors and help that the binary prints and writes.

use std::fs;
use std::path::Path;

use crate::common::scratch::Scratch;
use crate::common::{assert_fails, copy_tree, demo, stderr};

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
    let measured = &written["measured"];
    assert!(measured["checkpoint"].as_str().unwrap().ends_with("checkpoints/last"), "{measured}");
    assert_eq!(
        (&measured["teacher"], &measured["vision"]),
        (&"data/demo/models/toy-clip".into(), &measured["teacher"])
    );
    for key in ["precision", "transparency", "prompt", "english-prompt", "data-dir", "version"] {
        assert!(measured[key].is_string(), "{key}: {measured}");
    }
    assert!(measured["time"].as_u64() > Some(1_700_000_000), "{measured}");
    assert_eq!(measured["data"]["retrieval"].as_str().unwrap().len(), 32);
    assert_ne!(measured["data"]["retrieval"], measured["data"]["classification"]);
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
fn a_prompt_that_is_given_is_not_replaced() {
    let scratch = Scratch::new();
    let run = scratch.run(&["--max-epochs", "0"]);
    let test = ["test", "--task", "classification", "--version-path", run.to_str().unwrap()];
    let explicit = ["--prompt", "una imagen de {un} {name}"]; // the default, which these names without gender do not fit
    assert_fails(&scratch.themo(&[&test[..], &explicit].concat()), 2, &["needs the gender"]);
}

/// Names of the demo's images with their captions.
fn captions() -> Vec<(String, String)> {
    let read = |name: &str| fs::read_to_string(demo("xtd10").join(name)).unwrap();
    let (names, texts) = (read("test_image_names.txt"), read("test_1kcaptions_es.txt"));
    names.lines().zip(texts.lines()).map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
}

#[test]
fn sets_are_named_and_several_captions_an_image_count() {
    let scratch = Scratch::new();
    let run = scratch.run(&["--max-steps", "60"]);
    let path = run.to_str().unwrap();
    // 40 images of val2014 with three captions each.
    let (all, images) = (captions(), demo("mscoco/val2014"));
    let own: Vec<&String> = all.iter().map(|(name, _)| name).filter(|name| name.contains("val2014")).take(40).collect();
    let line = |i: usize| format!("{}\t{}\n", own[i / 3], all[i].1);
    let file = scratch.path("three.tsv");
    fs::write(&file, (0..120).map(line).collect::<String>()).unwrap();
    let test = |more: &[&str]| {
        let output = scratch.themo(&[&["test", "--version-path", path, "--json"], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let json =
        test(&["--captions", file.to_str().unwrap(), "--images", images.to_str().unwrap(), "--set", "xtd10-val2014"]);
    assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), ["xtd10-val2014", "three", "transparency"]);
    let three = &json["three"];
    assert_eq!((&three["captions"], &three["images"]), (&120.into(), &40.into()));
    assert_eq!((&json["xtd10-val2014"]["captions"], &json["xtd10-val2014"]["images"]), (&48.into(), &48.into()));
    let width = |scores: &serde_json::Value, key: &str| {
        let interval = &scores["text_to_image"][key]["recall@10"];
        interval[1].as_f64().unwrap() - interval[0].as_f64().unwrap()
    };
    assert!(width(three, "ci95") > 0.0 && width(three, "wilson95") > 0.0);
    for name in ["three", "xtd10-val2014"] {
        let queries = fs::read_to_string(run.join(format!("eval/{name}.queries.tsv"))).unwrap();
        let scores = &json[name];
        assert!(queries.starts_with("query\ttarget\trank\t"), "{queries}");
        for (task, count) in [("text_to_image", "captions"), ("image_to_text", "images")] {
            let ranks: Vec<f64> = (queries.lines().map(|line| line.split('\t').collect::<Vec<_>>()))
                .filter(|fields| fields[3] == task)
                .map(|fields| fields[2].parse().unwrap())
                .collect();
            assert_eq!(ranks.len() as u64, scores[count].as_u64().unwrap());
            let share = ranks.iter().filter(|rank| **rank <= 5.0).count() as f64 / ranks.len() as f64;
            assert_eq!(scores[task]["recall@5"].as_f64().unwrap(), share);
            let mean = ranks.iter().sum::<f64>() / ranks.len() as f64;
            assert_eq!(scores[task]["mean_rank"].as_f64().unwrap(), mean);
        }
    }
    // With the teacher, its queries; without it, none of an earlier test.
    let teacher = run.join("eval/xtd10-val2014.teacher.queries.tsv");
    test(&["--set", "xtd10-val2014", "--with-teacher"]);
    assert!(teacher.exists());
    let compared = scratch.themo(&["runs", "compare", path, "teacher", "--output-format", "json"]);
    let rows: serde_json::Value = serde_json::from_slice(&compared.stdout).unwrap();
    let teachers = rows.as_array().unwrap().iter().find(|row| row["first_less_this"].is_object()).unwrap();
    assert_eq!(teachers["notes"][0], "other texts for the same images", "{}", stderr(&compared));
    assert!(teachers["first_less_this"]["recall@1"]["value"].as_f64().unwrap() < 0.0);
    test(&["--set", "xtd10-val2014"]);
    assert!(!teacher.exists());

    for (args, words) in [
        (&["--set", "xm3600"][..], "xm3600/captions.jsonl"),
        (&["--set", "flickr30k"], "dataset_flickr30k.json"),
        (&["--set", "xtd10", "--lang", "fr"], "test_1kcaptions_fr.txt"),
        (&["--captions", "no.tsv", "--images", "no"], "no.tsv"),
    ] {
        assert_fails(&scratch.themo(&[&["test", "--version-path", path], args].concat()), 1, &[words]);
    }
    for args in [&["--set", "imagenet"][..], &["--captions", "x.tsv"], &["--lang", "../es"]] {
        assert_eq!(
            scratch.themo(&[&["test", "--version-path", path], args].concat()).status.code(),
            Some(2),
            "{args:?}"
        );
    }
}

#[test]
fn runs_are_compared_from_their_files_alone() {
    let scratch = Scratch::new();
    let (short, long) = (scratch.run(&["--max-steps", "10"]), scratch.run(&["--max-steps", "100"]));
    for run in [&short, &long] {
        let output = scratch.themo(&["test", "--version-path", run.to_str().unwrap()]);
        assert!(output.status.success(), "{}", stderr(&output));
        fs::remove_dir_all(run.join("checkpoints")).unwrap();
    }
    let (short, long) = (short.to_str().unwrap(), long.to_str().unwrap());
    let compare = |more: &[&str]| {
        let output = scratch.themo(&[&["runs", "compare", long, short], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = compare(&[]);
    assert!(table.contains("A is better than B in recall@1 by ") && table.contains(", p < 0.001"), "{table}");
    assert!(compare(&["published", "--output-format", "markdown"]).contains("other data: 1000 queries, and 240"));
    assert!(compare(&["--output-format", "csv"]).starts_with("set,task,model,queries,figure,value,low,high,"));
    assert_eq!(scratch.themo(&["runs", "compare", long]).status.code(), Some(2));
    assert_fails(
        &scratch.themo(&["runs", "compare", long, "baseline"]),
        1,
        &["SET.baseline.queries.tsv", "--baseline"],
    );
}

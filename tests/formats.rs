//! Weights and configurations as the world ships them, and as it should not.

use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use themo::compute::Compute;
use themo::error::Error;
use themo::models::student::Head;
use themo::models::weights::Weights;
use themo::models::{ClipText, ClipVision, Student, TokenizerFacts};
use themo::nn::{Pooling, Tokens};

mod common;

use common::golden;

fn compute() -> Compute {
    Compute::new(Device::Cpu)
}

fn head() -> Head {
    Head::new(Pooling::Mean, 20)
}

fn copy(from: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden(from)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

/// A safetensors file with this header and this many bytes of data.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn half_and_double_precision_on_disk_are_read() {
    for (dtype, tolerance) in [(DType::F16, 1e-3), (DType::BF16, 1e-2), (DType::F64, 0.0), (DType::F32, 0.0)] {
        let folder = copy("tiny-bert");
        let path = folder.path().join("model.safetensors");
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        let tensors = tensors.into_iter().map(|(name, tensor)| (name, tensor.to_dtype(dtype).unwrap()));
        fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
        let tokens = Tokens::pack(&[vec![4u32, 20, 30, 5], vec![4, 5]], 0).unwrap();
        let pooled = |folder: &Path| {
            let student = Student::load(folder, head(), 0, &compute()).unwrap();
            student.pooled(&tokens).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let (ours, whole) = (pooled(folder.path()), pooled(&golden("tiny-bert")));
        let largest = whole.iter().fold(0f32, |a, b| a.max(b.abs()));
        let difference = ours.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest;
        assert!(difference <= tolerance && (tolerance == 0.0 || difference > 0.0), "{dtype:?}: {difference}");
    }
}

#[test]
fn lying_headers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let refused = |bytes: &[u8], words: &str| {
        fs::write(&path, bytes).unwrap();
        let error = Weights::open(folder.path(), &Device::Cpu).err().expect(words);
        let told = format!("{error} / {}", error.advice().unwrap_or_default());
        assert!(told.contains("model.safetensors") && told.contains(words), "no {words:?} in: {told}");
    };
    let one = r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#;
    let whole = safetensors(one, 8);
    fs::write(&path, &whole).unwrap();
    Weights::open(folder.path(), &Device::Cpu).unwrap();
    refused(&[], "cut short");
    refused(&whole[..whole.len() - 1], "cut short");
    refused(&[&whole[..], &[0]].concat(), "whole");
    refused(&[&u64::MAX.to_le_bytes()[..], &whole[8..]].concat(), "header has 18446744073709551615 bytes");
    refused(&[&1000u64.to_le_bytes()[..], &whole[8..]].concat(), "whole");
    for (header, words) in [
        (r#"{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}"#, "whole"),
        (r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}"#, "whole"),
        (r#"{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 8]}}"#, "whole"),
        (r#"{"a": {"dtype": "F32", "shape": [4294967296, 4294967298], "data_offsets": [0, 8]}}"#, "whole"),
        (r#"{"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}"#, "whole"),
        (
            r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#,
            "whole",
        ),
        (
            r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#,
            "`a` is there twice",
        ),
        (
            r#"{"x.LayerNorm.gamma": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "x.LayerNorm.weight": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}"#,
            "twice",
        ),
        (&"[".repeat(100_000), "whole"),
    ] {
        refused(&safetensors(header, 8), words);
    }
    let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
    fs::remove_file(&path).unwrap();
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    for name in ["one", "two"] {
        fs::write(folder.path().join(format!("{name}.safetensors")), &whole).unwrap();
    }
    let error = Weights::open(folder.path(), &Device::Cpu).err().unwrap().to_string();
    assert!(error.contains("`a`") && error.contains("twice"), "{error}");
}

fn edited(folder: &Path, part: Option<&str>, key: &str, value: &serde_json::Value) {
    let path = folder.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let table = match part {
        Some(part) => &mut config[part],
        None => &mut config,
    };
    table.as_object_mut().unwrap().insert(key.to_owned(), value.clone());
    fs::write(&path, config.to_string()).unwrap();
}

#[test]
fn absurd_configurations_are_refused_before_they_take_memory() {
    let absurd = [0u64, 1, 11, 1_000_000_000, 1_000_000_000_000, u64::MAX].map(serde_json::Value::from);
    let sizes = ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"];
    let check = |error: Option<Error>, what: String, harmless: bool| match error {
        None => assert!(harmless, "{what} was accepted"),
        Some(error) => assert!(!error.to_string().is_empty() && error.advice().is_some(), "{what}: {error:?}"),
    };
    for value in &absurd {
        for key in sizes.iter().chain(&["max_position_embeddings", "type_vocab_size"]) {
            let folder = copy("tiny-bert");
            edited(folder.path(), None, key, value);
            let student = Student::load(folder.path(), head(), 0, &compute());
            // (A single head is a choice that the weights cannot contradict.)
            let harmless = *key == "num_attention_heads" && *value == 1;
            check(student.err(), format!("{key} {value}"), harmless);
        }
        for tower in ["text_config", "vision_config"] {
            let keys: &[&str] = if tower == "text_config" { &sizes } else { &sizes[1..] };
            for key in keys.iter().chain(&["patch_size", "image_size", "num_channels", "max_position_embeddings"]) {
                let folder = copy("tiny-clip");
                edited(folder.path(), Some(tower), key, value);
                let error = if tower == "text_config" {
                    ClipText::load(folder.path(), &compute()).err()
                } else {
                    ClipVision::load(folder.path(), &compute()).err()
                };
                let unread = match tower {
                    "text_config" => ["patch_size", "image_size", "num_channels"].contains(key),
                    _ => *key == "max_position_embeddings",
                };
                check(error, format!("{tower}.{key} {value}"), unread || *key == "num_attention_heads");
            }
        }
    }
    for (key, value) in [("layer_norm_eps", "-1"), ("layer_norm_eps", "null"), ("hidden_act", "\"sinus\"")] {
        let folder = copy("tiny-bert");
        edited(folder.path(), None, key, &serde_json::from_str(value).unwrap());
        assert!(Student::load(folder.path(), head(), 0, &compute()).is_err(), "{key} {value}");
    }
    let folder = copy("tiny-bert");
    fs::write(folder.path().join("config.json"), r#"{"vocab_size": 9, "layer_norm_eps": 1e999}"#).unwrap();
    assert!(Student::load(folder.path(), head(), 0, &compute()).is_err());
}

type Tensors = std::collections::HashMap<String, Tensor>;

fn tensors(path: &Path) -> Tensors {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// tiny-bert with its tensors (and its pooler's) renamed, and others beside them.
fn renamed(rename: impl Fn(&str) -> String, others: &[&str]) -> tempfile::TempDir {
    let folder = copy("tiny-bert");
    let path = folder.path().join("model.safetensors");
    let mut all: Tensors = tensors(&path).into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
    all.extend(others.iter().map(|name| ((*name).to_owned(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap())));
    candle_core::safetensors::save(&all, &path).unwrap();
    folder
}

fn pooled(student: &Student) -> Vec<f32> {
    let tokens = Tokens::pack(&[vec![4u32, 20, 30, 5], vec![4, 5]], 0).unwrap();
    student.pooled(&tokens).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_encoder_is_found_below_any_prefix_and_heads_are_left_out() {
    let load = |folder: &Path| Student::load(folder, head(), 0, &compute());
    let want = pooled(&load(&golden("tiny-bert")).unwrap());
    let heads = [
        "classifier.weight",
        "qa_outputs.bias",
        "lm_head.dense.weight",
        "cls.predictions.bias",
        "vocab_projector.bias",
        "discriminator_predictions.dense.weight",
        "generator_lm_head.bias",
        "clip.text_projection.weight",
    ];
    for prefix in [
        "",
        "bert.",
        "roberta.",
        "electra.",
        "model.",
        "module.",
        "_orig_mod.",
        "module.bert.",
        "_orig_mod.module.model.",
        "model._orig_mod.bert.",
        "transformer._orig_mod.",
        "my_own.encoder.",
    ] {
        let folder = renamed(|name| format!("{prefix}{name}"), &heads);
        assert_eq!(pooled(&load(folder.path()).unwrap()), want, "{prefix}");
    }
    let old = renamed(|name| format!("bert.{}", name.replace("LayerNorm.weight", "LayerNorm.gamma")), &[]);
    assert_eq!(pooled(&load(old.path()).unwrap()), want);

    let refused = |folder: &Path, words: &str| {
        let error = load(folder).err().expect(words);
        let told = format!("{error} / {}", error.advice().unwrap_or_default());
        assert!(told.contains(words), "no {words:?} in: {told}");
    };
    // What lies inside the encoder is no head.
    for other in ["embeddings.extra.weight", "encoder.layer.0.attention.self.query.lora_A", "encoder.layer.3.x"] {
        refused(renamed(|name| format!("bert.{name}"), &[&format!("bert.{other}")]).path(), "unexpected tensors");
    }
    let two = renamed(|name| format!("bert.{name}"), &["model.embeddings.word_embeddings.weight"]);
    refused(two.path(), "several models: bert., model.");
    let twice = renamed(str::to_owned, &["module.embeddings.word_embeddings.weight"]);
    refused(twice.path(), "twice");
    let folder = copy("tiny-bert");
    edited(folder.path(), None, "model_type", &"albert".into());
    refused(folder.path(), "`albert`");
    edited(folder.path(), None, "model_type", &"bert".into());
    edited(folder.path(), None, "is_decoder", &true.into());
    refused(folder.path(), "`is_decoder` is true");
    edited(folder.path(), None, "is_decoder", &false.into());
    edited(folder.path(), None, "position_embedding_type", &"relative_key_query".into());
    refused(folder.path(), "relative_key_query");
}

/// A student with the tensors that it writes.
struct Saved {
    folder: tempfile::TempDir,
    student: Student,
    bert: Tensors,
    projection: Tensor,
}

fn saved() -> Saved {
    let student = Student::load(&golden("tiny-bert"), head(), 7, &compute()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    student.save(folder.path(), TokenizerFacts::default()).unwrap();
    let bert = tensors(&folder.path().join("model.safetensors"));
    let projection = tensors(&folder.path().join("head.safetensors"))["projection.weight"].clone();
    Saved { folder, student, bert, projection }
}

fn embed(student: &Student) -> Vec<Vec<f32>> {
    let tokens = Tokens::pack(&[vec![4u32, 20, 30, 5], vec![4, 5]], 0).unwrap();
    student.embed(&tokens).unwrap().to_vec2().unwrap()
}

#[test]
fn lightning_files_hold_other_modules_too() {
    let Saved { folder: saved, student, bert, projection } = &saved();
    let others =
        ["clip.text_model.embeddings.token_embedding.weight", "clip.visual_projection.weight", "accuracy.total"];
    for (outer, inner, at) in [
        ("", "", "projection.weight"),
        ("", "_orig_mod.", "projection._orig_mod.weight"),
        ("_orig_mod.", "", "_orig_mod.projection.weight"),
        ("model.", "module.", "model.projection.weight"),
    ] {
        let name = |name: &String| format!("{outer}transformer.{inner}{name}");
        let mut all: Tensors = bert.iter().map(|(key, tensor)| (name(key), tensor.clone())).collect();
        all.insert(at.to_owned(), projection.clone());
        all.extend(others.map(|name| (name.to_owned(), Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap())));
        let file = saved.path().join("lightning.safetensors");
        candle_core::safetensors::save(&all, &file).unwrap();
        let loaded = Student::from_lightning(&file, &golden("tiny-bert"), Pooling::Mean, &compute()).unwrap();
        assert_eq!(embed(&loaded), embed(student), "{outer}{inner}");
    }
}

#[test]
fn the_head_of_another_module_is_not_the_students() {
    let Saved { folder: saved, student, bert, projection } = &saved();
    let load = |others: &[(&str, &Tensor)]| {
        let mut all: Tensors = bert.iter().map(|(name, t)| (format!("transformer.{name}"), t.clone())).collect();
        all.extend(others.iter().map(|(name, tensor)| ((*name).to_owned(), (*tensor).clone())));
        let file = saved.path().join("lightning.safetensors");
        candle_core::safetensors::save(&all, &file).unwrap();
        Student::from_lightning(&file, &golden("tiny-bert"), Pooling::Mean, &compute())
    };
    let vector = Tensor::ones(20, DType::F32, &Device::Cpu).unwrap();
    for other in ["teacher.projection.bias", "clip.visual.final_norm.weight", "text_model.final_norm.bias"] {
        let loaded = load(&[("projection.weight", projection), (other, &vector)]).unwrap();
        assert_eq!(embed(&loaded), embed(student), "{other}");
    }
    let error = load(&[("clip.projection.weight", projection)]).err().unwrap().to_string();
    assert!(error.contains("has no projection.weight"), "{error}");
}

#[test]
fn files_that_were_not_fetched_are_told_apart() {
    let folder = copy("tiny-bert");
    for (bytes, words) in [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs"),
        ("\n<!DOCTYPE html><html>", "web page"),
    ] {
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        let error = Student::load(folder.path(), head(), 0, &compute()).err().unwrap();
        assert!(error.to_string().contains(words) && error.advice().is_some(), "{error}");
    }
}

/// Until November 2026 `model.safetensors` held all, the encoder below `transformer.`, and `config.json` was the base's.
#[test]
fn old_checkpoints_of_themo_still_load() {
    let mut with_all = head();
    (with_all.projection_bias, with_all.final_norm) = (true, true);
    let student = Student::load(&golden("tiny-bert"), with_all, 7, &compute()).unwrap();
    let folder = copy("tiny-bert");
    student.save(folder.path(), TokenizerFacts::default()).unwrap();
    let encoder = tensors(&folder.path().join("model.safetensors"));
    let mut all: Tensors = encoder.into_iter().map(|(name, tensor)| (format!("transformer.{name}"), tensor)).collect();
    all.extend(tensors(&folder.path().join("head.safetensors")));
    candle_core::safetensors::save(&all, folder.path().join("model.safetensors")).unwrap();
    fs::remove_file(folder.path().join("head.safetensors")).unwrap();
    fs::copy(golden("tiny-bert/config.json"), folder.path().join("config.json")).unwrap();
    assert_eq!(embed(&Student::load(folder.path(), with_all, 0, &compute()).unwrap()), embed(&student));
    assert_eq!(embed(&Student::from_checkpoint(folder.path(), &compute()).unwrap()), embed(&student));
}

#[test]
fn a_checkpoints_configuration_is_true_of_its_files() {
    let folder = copy("tiny-bert");
    edited(folder.path(), None, "torch_dtype", &"float16".into());
    edited(folder.path(), None, "dtype", &"float16".into());
    edited(folder.path(), None, "architectures", &serde_json::json!(["BertForMaskedLM"]));
    let saved = tempfile::tempdir().unwrap();
    Student::load(folder.path(), head(), 0, &compute())
        .unwrap()
        .save(saved.path(), TokenizerFacts { padding: Some(9), class: None })
        .unwrap();
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(saved.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(config["dtype"], "float32");
    assert!(config.get("torch_dtype").is_none());
    assert_eq!((&config["architectures"][0], &config["pad_token_id"]), (&"BertModel".into(), &9.into()));
    // Where positions are counted from the padding's id, that is the model's.
    let roberta = Student::load(&golden("kinds/xlm-roberta"), Head::new(Pooling::Mean, 10), 0, &compute()).unwrap();
    roberta.save(saved.path(), TokenizerFacts { padding: Some(9), class: None }).unwrap();
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(saved.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(config["pad_token_id"], 0);
}

#[test]
fn ids_outside_the_vocabulary_are_an_error() {
    let student = Student::load(&golden("tiny-bert"), head(), 0, &compute()).unwrap();
    let rows = student.config().sizes.vocab_size as u32;
    for id in [rows, u32::MAX] {
        let error = student.embed(&Tokens::pack(&[vec![4, id, 5]], 0).unwrap()).unwrap_err();
        assert!(error.advice().unwrap().contains("tokenizer"), "{error:?}");
    }
    let clip = ClipText::load(&golden("tiny-clip"), &compute()).unwrap();
    assert!(clip.pooled(&Tokens::pack(&[vec![88, 5000, 89]], 0).unwrap(), None).is_err());
    let _: Tensor = student.embed(&Tokens::pack(&[vec![4, rows - 1, 5]], 0).unwrap()).unwrap();
}

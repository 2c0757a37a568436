//! Weights and configurations as the world ships them, and as it should not.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use themo::error::Error;
use themo::models::student::Head;
use themo::models::weights::Weights;
use themo::models::{ClipText, ClipVision, Student};
use themo::nn::{Compute, Pooling, Tokens};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

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

/// A safetensors file with this header and so many bytes of data.
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

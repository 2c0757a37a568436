//! Models and data sets by name and evaluation captions, fetched from a server on the loopback interface that speaks the hub's
//! protocol; no test needs a network.

mod binary;
mod captions;
#[path = "../common/mod.rs"]
mod common;
mod data_command;
mod datasets;
mod default_data;
mod layout;
mod refusals;
mod server;
mod transfer;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::demo;
use server::{COMMIT, FakeHub, Files, Reply, Request, Server, files_of, sha256};
use tempfile::TempDir;
use themo::data::xtd10;
use themo::download::Patience;
use themo::error::{Error, Result};
use themo::hub::{Hub, Part};

const ALL: [Part; 3] = [Part::Weights, Part::Tokenizer, Part::Images];

/// A small model with files that nobody needs; the weights are large enough to be cut.
fn model() -> Files {
    let weights: Vec<u8> = (0..200_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let files = [
        ("README.md", b"# model".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", weights.clone()),
        ("preprocessor_config.json", b"{\"size\": 1}".to_vec()),
        ("pytorch_model.bin", weights),
        ("tokenizer.json", b"{\"model\": 2}".to_vec()),
        ("vocab.txt", b"a\nb".to_vec()),
    ];
    files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

fn fake(fault: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> FakeHub {
    FakeHub::start(vec![("demo/model", model())], fault)
}

/// A hub's client with its cache in `home`.
fn client(url: &str, home: &Path, offline: bool) -> Hub {
    let (url, home) = (url.to_owned(), home.display().to_string());
    let var = move |name: &str| match name {
        "HF_ENDPOINT" => Some(url.clone()),
        "HF_HOME" => Some(home.clone()),
        "HF_TOKEN" => Some("hf_secret".into()),
        "HF_HUB_OFFLINE" => Some(if offline { "1" } else { "0" }.into()),
        _ => None,
    };
    let (first_wait, silence) = (Duration::from_millis(5), Duration::from_millis(400));
    Hub::new(&var, Patience { tries: 3, first_wait, silence })
}

fn get(hub: &Hub, name: &str, parts: &[Part]) -> Result<PathBuf> {
    hub.model_folder("--student", name, parts, &|_, _, _| {})
}

#[track_caller]
fn assert_told(result: Result<PathBuf>, parts: &[&str]) -> Error {
    let error = result.unwrap_err();
    let text = format!("{error}\nhint: {}", error.advice().unwrap_or("none at all"));
    parts.iter().for_each(|part| assert!(text.contains(part), "`{part}` is not in: {text}"));
    assert!(error.advice().is_some(), "{text}");
    error
}

/// Everything in a folder but what its name marks as unfinished.
fn blobs(home: &Path) -> Vec<String> {
    let entries = fs::read_dir(home.join("hub/models--demo--model/blobs")).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().into_string().unwrap()).filter(|name| !name.ends_with(".incomplete")).collect()
}

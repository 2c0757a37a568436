//! Models by name and evaluation captions, fetched from a server on the loopback interface that speaks the hub's
//! protocol; no test needs a network.

mod binary;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use server::{COMMIT, FakeHub, Files, Reply, Request, Server, files_of, sha256};
use tempfile::TempDir;
use themo::data::xtd10;
use themo::download::Patience;
use themo::error::{Error, Result};
use themo::hub::{Hub, Part};

const ALL: [Part; 3] = [Part::Weights, Part::Tokenizer, Part::Images];

fn demo(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo").join(part)
}

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

#[test]
fn needed_files_are_fetched_once_into_the_shared_layout() {
    let (fake, home) = (fake(|_| None), TempDir::new().unwrap());
    let hub = client(&fake.hub.url, home.path(), false);
    let folder = get(&hub, "demo/model", &ALL).unwrap();
    assert_eq!(folder, home.path().join("hub/models--demo--model/snapshots").join(COMMIT));
    let names: Vec<_> = files_of(&folder).into_keys().collect();
    assert_eq!(names, ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"]);
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), model()["model.safetensors"]);
    let noted = |path: &str| fs::read_to_string(home.path().join("hub/models--demo--model").join(path)).unwrap();
    assert_eq!(noted("refs/main"), COMMIT);
    for file in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
        assert_eq!(noted(&format!(".no_exist/{COMMIT}/{file}")), "");
    }
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(folder.join("model.safetensors")).unwrap(),
        Path::new("../../blobs").join(sha256(&model()["model.safetensors"]))
    );
    // The token goes to the hub and to no other server.
    assert!(fake.hub.log.lock().unwrap().iter().all(|r| r.token.as_deref() == Some("Bearer hf_secret")));
    assert!(fake.large().iter().all(|r| r.token.is_none()));

    let asked = fake.hub.lines().len();
    for hub in
        [&hub, &client("http://127.0.0.1:9", home.path(), true), &client("http://127.0.0.1:9", home.path(), false)]
    {
        assert_eq!(get(hub, "demo/model", &ALL).unwrap(), folder);
        assert_eq!(get(hub, &format!("demo/model@{COMMIT}"), &[Part::Weights]).unwrap(), folder);
    }
    assert_eq!((fake.hub.lines().len(), fake.large().len()), (asked, 1));
    assert_eq!(get(&hub, "demo/model@v1/old", &ALL).unwrap(), folder);
    assert_eq!(noted("refs/v1/old"), COMMIT);
    assert_eq!(get(&hub, "renamed/model", &[Part::Tokenizer]).unwrap().file_name(), folder.file_name());
    assert_eq!(fake.large().len(), 1);
}

#[test]
fn a_folder_wins_over_the_hub() {
    let (fake, home) = (fake(|_| None), TempDir::new().unwrap());
    let hub = client(&fake.hub.url, home.path(), false);
    let folder = demo("models/toy-clip");
    assert_eq!(get(&hub, folder.to_str().unwrap(), &ALL).unwrap(), folder);
    assert_told(get(&hub, "./nowhere", &ALL), &["`./nowhere`", "--student", "owner/name"]);
    assert!(fake.hub.lines().is_empty());
}

#[test]
fn shards_are_those_of_the_index() {
    let mut files = model();
    files.remove("model.safetensors");
    let index =
        br#"{"weight_map": {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}}"#;
    files.insert("model.safetensors.index.json".into(), index.to_vec());
    for n in 1..=3 {
        files.insert(format!("model-0000{n}-of-00002.safetensors"), vec![n; 10]);
    }
    let (fake, home) = (FakeHub::start(vec![("demo/model", files)], |_| None), TempDir::new().unwrap());
    let folder = get(&client(&fake.hub.url, home.path(), false), "demo/model", &[Part::Weights]).unwrap();
    let names: Vec<_> = files_of(&folder).into_keys().collect();
    let want = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ];
    assert_eq!(names, want);
    fs::remove_file(folder.join(want[1])).unwrap();
    let offline = client(&fake.hub.url, home.path(), true);
    assert_told(get(&offline, "demo/model", &[Part::Weights]), &["missing some of the shards"]);
}

#[test]
fn a_broken_download_goes_on_where_it_was() {
    // The first connection ends after 60,000 bytes, the second falls silent after 50,000 more.
    let fake = fake(|r| {
        let cut = match (r.path.ends_with("?sig=1"), r.before) {
            (true, 0) => (60_000, false),
            (true, 1) => (50_000, true),
            _ => return None,
        };
        let reply = Reply::new(200).body(&model()["model.safetensors"], r.range);
        Some(Reply { send: Some(cut.0), then_silence: cut.1, ..reply })
    });
    let home = TempDir::new().unwrap();
    let last = std::sync::Mutex::new((0, 0));
    let hub = client(&fake.hub.url, home.path(), false);
    let told = |file: &str, done, total| {
        if file == "model.safetensors" {
            *last.lock().unwrap() = (done, total);
        }
    };
    let folder = hub.model_folder("--student", "demo/model", &[Part::Weights], &told).unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), model()["model.safetensors"]);
    let ranges: Vec<_> = fake.large().iter().map(|r| r.range).collect();
    assert_eq!(ranges, [None, Some(60_000), Some(110_000)]);
    assert_eq!(*last.lock().unwrap(), (200_000, 200_000));
}

#[test]
fn what_an_earlier_process_left_is_gone_on_with_or_thrown_away() {
    let weights = model()["model.safetensors"].clone();
    let wrong = vec![0; 70_000];
    for (left, ranges) in [
        (&weights[..70_000], &[Some(70_000)][..]),
        (&wrong[..], &[Some(70_000), None]),
        (&weights[..], &[]),
        (&[weights.clone(), wrong.clone()].concat()[..], &[None]),
    ] {
        let (fake, home) = (fake(|_| None), TempDir::new().unwrap());
        let folder = home.path().join("hub/models--demo--model/blobs");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{}.incomplete", sha256(&weights))), left).unwrap();
        let got = get(&client(&fake.hub.url, home.path(), false), "demo/model", &[Part::Weights]).unwrap();
        assert_eq!(fs::read(got.join("model.safetensors")).unwrap(), weights);
        assert_eq!(fake.large().iter().map(|r| r.range).collect::<Vec<_>>(), ranges);
    }
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    // Every address answers 503 once, and the file's server knows no ranges.
    let fake = fake(|r| match r.before {
        0 => Some(Reply::new(503)),
        1 if r.path.ends_with("?sig=1") => {
            Some(Reply { send: Some(1000), ..Reply::new(200).body(&model()["model.safetensors"], None) })
        }
        _ if r.path.ends_with("?sig=1") => Some(Reply::new(200).body(&model()["model.safetensors"], None)),
        _ => None,
    });
    let home = TempDir::new().unwrap();
    let folder = get(&client(&fake.hub.url, home.path(), false), "demo/model", &ALL).unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), model()["model.safetensors"]);
    assert_eq!(fake.large().last().unwrap().range, Some(1000));
}

#[test]
fn wrong_content_never_gets_a_name() {
    let weights = || model()["model.safetensors"].clone();
    let large = |r: &Request| r.path.ends_with("?sig=1");
    type Fault = Box<dyn Fn(&Request) -> Option<Reply> + Send + Sync>;
    let of =
        |reply: fn(&Request, Vec<u8>) -> Reply| -> Fault { Box::new(move |r| large(r).then(|| reply(r, weights()))) };
    let faults: [(Fault, &[&str]); 6] = [
        (
            of(|_, mut bytes| {
                bytes[7] ^= 1;
                Reply::new(200).body(&bytes, None)
            }),
            &["SHA-256", "thrown away"],
        ),
        (of(|_, bytes| Reply::new(200).body(&bytes[..150_000], None)), &["150000 bytes of a file of 200000"]),
        (of(|_, bytes| Reply { send: Some(10), ..Reply::new(200).body(&bytes, None) }), &["broke off"]),
        (of(|_, _| Reply::new(503)), &["503", "try again later"]),
        (
            of(|_, _| Reply { send: Some(0), then_silence: true, ..Reply::new(200).with("Content-Length", "200000") }),
            &["model.safetensors", "network"],
        ),
        (of(|r, _| Reply::new(302).with("Location", &r.path)), &["redirects without end"]),
    ];
    for (fault, parts) in faults {
        let (fake, home) = (fake(fault), TempDir::new().unwrap());
        let hub = client(&fake.hub.url, home.path(), false);
        assert_told(get(&hub, "demo/model", &[Part::Weights]), parts);
        assert_eq!(blobs(home.path()).len(), 1, "{parts:?}: only config.json is there");
        assert_told(get(&client("", home.path(), true), "demo/model", &[Part::Weights]), &["HF_HUB_OFFLINE"]);
    }
}

#[test]
fn refusals_are_told_with_what_to_do() {
    let fake = fake(|r| {
        let model = |name: &str| r.path.contains(&format!("demo/{name}/"));
        if model("gated") && r.path.contains("/api/") {
            let listing = format!(r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "config.json"}}]}}"#);
            return Some(Reply::new(200).body(listing.as_bytes(), None));
        }
        let (status, code) = match () {
            () if model("gated") => (403, "GatedRepo"),
            () if model("none") => (401, "RepoNotFound"),
            () if model("private") => (401, ""),
            () if model("page") => return Some(Reply::new(200).body(b"<html>please log in", None)),
            () => return None,
        };
        Some(Reply::new(status).with("X-Error-Code", code))
    });
    let home = TempDir::new().unwrap();
    let hub = client(&fake.hub.url, home.path(), false);
    let ask = |name: &str| get(&hub, name, &[]);
    assert_told(ask("demo/none"), &["no folder `demo/none`", "no model of that name", "--student", "HF_TOKEN"]);
    assert_told(ask("demo/other"), &["no folder `demo/other`", "no model of that name"]);
    assert_told(ask("demo/private"), &["401", "HF_TOKEN", "hf auth login"]);
    assert_told(ask("demo/gated"), &["refuses access", "accept the model's conditions", "HF_TOKEN"]);
    assert_told(ask("demo/model@v9"), &["no revision `v9`", "branch"]);
    assert_told(ask("demo/page"), &["does not answer like a hub", "HF_ENDPOINT"]);

    let mut files = model();
    files.retain(|name, _| !name.contains("token") && !name.contains("vocab"));
    let bare = FakeHub::start(vec![("demo/model", files)], |_| None);
    let hub = client(&bare.hub.url, home.path(), false);
    assert_told(get(&hub, "demo/model", &ALL), &["has no tokenizer.json (or vocab.txt"]);
    assert!(bare.large().is_empty(), "what is missing was found out before the download");
    let some = [Part::Weights, Part::TokenizerIfAny];
    let folder = get(&hub, "demo/model", &some).unwrap();
    assert_eq!(files_of(&folder).into_keys().collect::<Vec<_>>(), ["config.json", "model.safetensors"]);
    // That there is none is known from now on.
    let asked = bare.hub.lines().len();
    assert_eq!(get(&hub, "demo/model", &some).unwrap(), folder);
    assert_eq!(bare.hub.lines().len(), asked);
}

#[test]
fn without_a_network_every_file_is_named_with_its_place() {
    let home = TempDir::new().unwrap();
    let cache = home.path().join("hub/models--demo--model");
    let named = [
        "config.json",
        "model.safetensors (or",
        "tokenizer.json (or",
        "preprocessor_config.json",
        "--student DIR",
        cache.to_str().unwrap(),
        "/demo/model/tree/main",
        "hf download demo/model",
    ];
    let error = assert_told(get(&client("http://h", home.path(), true), "demo/model", &ALL), &named);
    assert!(error.to_string().contains("HF_HUB_OFFLINE"));
    // Nothing listens on port 9.
    let error = assert_told(get(&client("http://127.0.0.1:9", home.path(), false), "demo/model", &ALL), &named);
    assert!(error.to_string().contains("http://127.0.0.1:9"), "{error}");
    // A tokenizer that may be there is named like the rest.
    let some = [Part::Weights, Part::TokenizerIfAny];
    assert_told(get(&client("http://127.0.0.1:9", home.path(), false), "demo/model", &some), &named[1..3]);
    // A server whose certificate is not accepted (this one has none at all).
    let fake = fake(|_| None);
    let url = fake.hub.url.replace("http:", "https:");
    let parts = ["no safe connection", "SSL_CERT_FILE"];
    assert_told(get(&client(&url, home.path(), false), "demo/model", &some), &parts);
    assert!(!home.path().join("hub").exists(), "nothing was written");
}

#[test]
fn all_that_decides_about_token_ids_is_fetched() {
    let mut files = model();
    files.remove("tokenizer.json");
    for name in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"] {
        files.insert(name.to_owned(), b"{}".to_vec());
    }
    let fake = FakeHub::start(vec![("demo/model", files)], |_| None);
    let home = TempDir::new().unwrap();
    let folder = get(&client(&fake.hub.url, home.path(), false), "demo/model", &[Part::Tokenizer]).unwrap();
    let names: Vec<_> = files_of(&folder).into_keys().collect();
    assert_eq!(
        names,
        [
            "added_tokens.json",
            "config.json",
            "merges.txt",
            "special_tokens_map.json",
            "tokenizer_config.json",
            "vocab.json",
            "vocab.txt"
        ]
    );
}

#[test]
fn a_cache_that_python_filled_does_without_an_answer() {
    // No note says whether there is a tokenizer_config.json: the hub is asked, but need not answer.
    let (fake, home) = (fake(|_| None), TempDir::new().unwrap());
    let folder = get(&client(&fake.hub.url, home.path(), false), "demo/model", &ALL).unwrap();
    fs::remove_dir_all(home.path().join("hub/models--demo--model/.no_exist")).unwrap();
    let broken = Server::start(|_| Reply::new(503));
    for url in [&broken.url, "http://127.0.0.1:9", &fake.hub.url] {
        assert_eq!(get(&client(url, home.path(), false), "demo/model", &ALL).unwrap(), folder);
    }
    assert!(!broken.lines().is_empty());
    assert!(fake.hub.lines().contains(&format!("GET /api/models/demo/model/revision/{COMMIT}")));
    assert_eq!(fake.large().len(), 1);
}

#[test]
fn many_at_once_fetch_a_file_once() {
    let (fake, home) = (fake(|_| None), TempDir::new().unwrap());
    std::thread::scope(|scope| {
        let fetch = || get(&client(&fake.hub.url, home.path(), false), "demo/model", &ALL).unwrap();
        let all: Vec<_> = (0..6).map(|_| scope.spawn(fetch)).collect();
        all.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    });
    assert_eq!(fake.large().len(), 1);
    assert_eq!(blobs(home.path()).len(), 4);
}

#[test]
fn captions_are_fetched_where_they_are_missing() {
    let files = files_of(&demo("xtd10"));
    let pinned = |name: &'static str| -> xtd10::Pinned {
        (name, files[name].len() as u64, Box::leak(sha256(&files[name]).into_boxed_str()))
    };
    let pinned = ["test_image_names.txt", "test_1kcaptions_es.txt", "test_1kcaptions_en.txt"].map(pinned).to_vec();
    let served = files.clone();
    let server = Server::start(move |r| match served.get(r.path.trim_start_matches('/')) {
        Some(bytes) if r.before == 0 => Reply { send: Some(500), ..Reply::new(200).body(bytes, r.range) },
        Some(bytes) => Reply::new(200).body(bytes, r.range),
        None => Reply::new(404),
    });
    let dir = TempDir::new().unwrap();
    let source = xtd10::Source { files: pinned, base: server.url.clone(), offline: false };
    xtd10::fetch_missing(dir.path(), &["es"], &source).unwrap();
    let folder = dir.path().join("xtd10");
    let here = files_of(&folder);
    assert_eq!(here.keys().collect::<Vec<_>>(), ["test_1kcaptions_es.txt", "test_image_names.txt"]);
    assert!(here.iter().all(|(name, bytes)| files[name] == *bytes));
    let requests = server.lines().len();
    let offline = xtd10::Source { offline: true, ..source.clone() };
    xtd10::fetch_missing(dir.path(), &["es"], &offline).unwrap();
    let error = xtd10::fetch_missing(dir.path(), &["es", "en"], &offline).unwrap_err();
    assert!(error.to_string().ends_with("HF_HUB_OFFLINE is set: test_1kcaptions_en.txt"), "{error}");
    assert!(error.advice().unwrap().contains(folder.to_str().unwrap()), "{error:?}");
    assert_eq!(server.lines().len(), requests);

    // Wrong content leaves nothing behind.
    let mut wrong = source.clone();
    wrong.files[2].2 = wrong.files[1].2;
    let error = xtd10::fetch_missing(dir.path(), &["en"], &wrong).unwrap_err();
    assert!(error.to_string().contains("SHA-256") && error.advice().unwrap().contains("put them into"), "{error:?}");
    assert_eq!(files_of(&folder).len(), 2);
    // Neither beside the files of another set nor into a folder that is not there is anything fetched.
    fs::write(folder.join("test_1kcaptions_es.txt"), "una sola línea").unwrap();
    xtd10::fetch_missing(dir.path(), &["es", "en"], &source).unwrap();
    xtd10::fetch_missing(&dir.path().join("nowhere"), &["es"], &source).unwrap();
    assert_eq!((files_of(&folder).len(), dir.path().join("nowhere").exists()), (2, false));
}

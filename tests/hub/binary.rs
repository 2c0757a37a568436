//! The real binary with models by name.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::common::{demo, stderr};
use crate::server::{FakeHub, files_of};

/// The binary with nothing of the tests' own environment that could reach a hub.
pub fn themo(args: &[&str], home: &Path, more: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_themo"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).env("HF_HOME", home);
    for name in ["HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "RUST_LOG"] {
        command.env_remove(name);
    }
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
        command.env_remove(name);
    }
    command.env("THEMO_XTD10_URL", "http://127.0.0.1:9").envs(more.iter().copied()).output().unwrap()
}

#[test]
fn training_testing_and_embedding_take_names() {
    let models = vec![
        ("demo/toy-beto", files_of(&demo("models/toy-beto"))),
        ("demo/toy-clip", files_of(&demo("models/toy-clip"))),
    ];
    let fake = FakeHub::start(models, |_| None);
    let scratch = TempDir::new().unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let (home, logs, cache, out) = (scratch.path().join("home"), path("logs"), path("cache"), path("out.safetensors"));
    let names =
        ["--student", "demo/toy-beto@main", "--teacher", "demo/toy-clip", "--log-dir", &logs, "--cache-dir", &cache];
    let train = [&["train", "--config", "configs/demo.toml", "--max-steps", "2"], &names[..]].concat();

    let output = themo(&train, &home, &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(output.status.code(), Some(1));
    for part in ["demo/toy-beto", "HF_HUB_OFFLINE", "tokenizer.json", "--student DIR", "models--demo--toy-beto"] {
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
    assert!(!Path::new(&logs).exists());

    let output = themo(&train, &home, &[("HF_ENDPOINT", &fake.hub.url)]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("fetching model.safetensors"), "{}", stderr(&output));
    assert_eq!(fake.large().len(), 2);
    // The images' settings are fetched when they are needed.
    let run = format!("{logs}/demo/version_0");
    let test = ["test", "--version-path", &run, "--task", "retrieval", "--json"];
    let output = themo(&test, &home, &[("HF_HUB_OFFLINE", "1")]);
    assert!(stderr(&output).contains("missing preprocessor_config.json"), "{}", stderr(&output));
    let online = themo(&test, &home, &[("HF_ENDPOINT", &fake.hub.url)]);
    assert!(online.status.success(), "{}", stderr(&online));
    assert_eq!(fake.large().len(), 2);
    // And then everything is there.
    for args in [&train[..], &[&test[..], &["--vision", "demo/toy-clip"]].concat()] {
        let output = themo(args, &home, &[("HF_HUB_OFFLINE", "1")]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let list = path("images.txt");
    fs::write(&list, demo("mscoco/val2014/COCO_val2014_000000570471.jpg").display().to_string()).unwrap();
    let embed = ["embed", "--model", "demo/toy-clip", "--images", &list, "--output", &out];
    let output = themo(&embed, &home, &[("HF_HUB_OFFLINE", "1")]);
    assert!(output.status.success(), "{}", stderr(&output));

    // Another image tower must end in the same space.
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-clip");
    let output = themo(&[&test[..], &["--vision", tiny.to_str().unwrap()]].concat(), &home, &[("HF_HUB_OFFLINE", "1")]);
    assert!(stderr(&output).contains("--vision takes a CLIP"), "{}", stderr(&output));

    // Evaluation data that is missing is reported before the hub is asked.
    let empty = path("empty");
    fs::create_dir(&empty).unwrap();
    let test = ["test", "--version-path", &run, "--data-dir", &empty];
    let asked = fake.hub.lines().len();
    let online = [("HF_ENDPOINT", fake.hub.url.as_str()), ("HF_HOME", &empty)];
    let output = themo(&test, &home, &online);
    for part in
        ["cannot fetch XTD10's captions", "http://127.0.0.1:9/test_image_names.txt", "raw.githubusercontent.com"]
    {
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
    let output = themo(&test, &home, &[online[0], online[1], ("HF_HUB_OFFLINE", "1")]);
    for part in [
        "HF_HUB_OFFLINE is set: test_image_names.txt, test_1kcaptions_es.txt",
        "HF_HUB_OFFLINE",
        "raw.githubusercontent.com",
    ] {
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
    let output = themo(&[&test[..], &["--task", "classification"]].concat(), &home, &online);
    assert!(stderr(&output).contains("LOC_synset_mapping.txt"), "{}", stderr(&output));
    assert_eq!(fake.hub.lines().len(), asked);
}

#[test]
fn certificates_that_cannot_be_used_end_all_fetching() {
    let fake = FakeHub::start(vec![("demo/toy-clip", files_of(&demo("models/toy-clip")))], |_| None);
    let scratch = TempDir::new().unwrap();
    let (home, out) = (scratch.path().join("home"), scratch.path().join("out").display().to_string());
    let embed = ["embed", "--model", "demo/toy-clip", "--texts", "README.md", "--output", &out];
    let run = |more: &[(&str, &str)]| themo(&embed, &home, &[&[("HF_ENDPOINT", fake.hub.url.as_str())], more].concat());
    let empty = scratch.path().join("empty.pem").display().to_string();
    fs::write(&empty, "").unwrap();
    for variable in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"] {
        for file in ["/no/such.pem", &empty] {
            let refused = run(&[(variable, file)]);
            assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
            for part in [variable, file, "certificate", "hint: "] {
                assert!(stderr(&refused).contains(part), "{part}: {}", stderr(&refused));
            }
        }
    }
    assert!(fake.hub.lines().is_empty());
    // What is here needs no certificates.
    assert!(run(&[("SSL_CERT_FILE", "")]).status.success());
    let used = run(&[("SSL_CERT_FILE", &empty)]);
    assert!(used.status.success(), "{}", stderr(&used));
}

#[test]
fn variables_in_paths_of_the_cache_are_expanded() {
    let fake = FakeHub::start(vec![("demo/toy-clip", files_of(&demo("models/toy-clip")))], |_| None);
    let scratch = TempDir::new().unwrap();
    let (home, out) = (scratch.path().display().to_string(), scratch.path().join("out").display().to_string());
    let embed = ["embed", "--model", "demo/toy-clip", "--texts", "README.md", "--output", &out];
    let vars = [("HF_ENDPOINT", fake.hub.url.as_str()), ("HOME", &home), ("KIND", "models")];
    for (cache, name, value) in [
        ("a/hub", "HF_HOME", "~/a"),
        ("b/models", "HF_HUB_CACHE", "~/b/${KIND}"),
        ("c/models/hub", "HF_HOME", "$HOME/c/$KIND"),
    ] {
        let output = themo(&embed, Path::new("unused"), &[&vars[..], &[(name, value)]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(scratch.path().join(cache).join("models--demo--toy-clip").is_dir(), "{name}={value}");
    }
    assert!(!Path::new("~").exists());
}

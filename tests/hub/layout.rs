//! Which files are fetched, and where they lie.

use crate::*;

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

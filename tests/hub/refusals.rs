//! What is said when nothing can be fetched.

use crate::*;

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

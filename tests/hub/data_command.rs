//! Data sets without a hub: what is missing, what is in folders and at addresses, and what `themo data` says of it.

use std::fs;
use std::path::Path;

use themo::sets::check::State;
use themo::sets::{Origin, Sources, report};

use crate::binary::themo;
use crate::common::stderr;
use crate::datasets::{OPUS, Place, TRAIN, assert_told, fake, files, golden};
use crate::server::{COMMIT, FakeHub, Reply, Server, sha256};

#[test]
fn without_a_network_it_is_said_what_to_put_where() {
    let place = Place::new();
    let (data, cache) = (place.data(), place.cache(OPUS));
    let parts = [
        "3 of 3 data sets are not here",
        "opus100 (missing en-es/train-*.parquet",
        "themo data fetch ted opus100 tatoeba",
        cache.to_str().unwrap(),
        "hf download --repo-type dataset Helsinki-NLP/opus-100 --include 'en-es/train-*.parquet'",
        &format!("--local-dir {}", data.join("opus100").display()),
        "datasets/Helsinki-NLP/opus-100",
    ];
    let error = assert_told(place.locate(&place.hub("http://h", true), &["parallel"]), &parts);
    assert!(error.to_string().contains("HF_HUB_OFFLINE is set"), "{error}");
    let error = assert_told(place.locate(&place.hub("http://127.0.0.1:9", false), &["parallel"]), &parts);
    assert!(error.to_string().contains("127.0.0.1:9"), "{error}");
    let parts = ["hub:a/b:c is not here", "hf download --repo-type dataset a/b", "datasets--a--b"];
    assert_told(place.locate(&place.hub("http://h", true), &["hub:a/b:c"]), &parts);
    let parts = ["wit is not here", "wit_v1.train.all-*.tsv*", "google-research-datasets/wit", "data/wit"];
    assert_told(place.locate(&place.hub("http://h", true), &["wit"]), &parts);
    assert!(!place.0.path().join("hub").exists(), "nothing was written");

    // That is where they are then found, with their gaps.
    for (name, bytes) in golden("opus100") {
        let path = data.join("opus100").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink(".", data.join("opus100/en-es/circle")).unwrap();
    let set = &place.locate(&place.hub("http://h", true), &["opus100"]).unwrap()[0];
    assert_eq!((set.train.len(), set.val.len(), &set.origin), (2, 1, &Origin::Folder));
    assert!(set.train[0].path.starts_with(data.join("opus100")));
    fs::remove_file(data.join("opus100").join(TRAIN[0])).unwrap();
    let parts = ["opus100 is not here", "missing en-es/train-00000-of-00002"];
    let error = assert_told(place.locate(&place.hub("http://h", true), &["opus100"]), &parts);
    assert!(!error.advice().unwrap().contains("data fetch"), "a folder wins over the hub: {error:?}");
    let states = place.states(&[]);
    assert_eq!(states.iter().filter(|(_, state, _)| *state == State::Unverified).count(), 2);
    assert!(states.iter().any(|(file, state, _)| file == "en-es/train-00000-of-00002" && *state == State::Missing));
}

#[test]
fn a_cache_that_python_filled_is_used_as_far_as_it_is_whole() {
    let (fake, place) = (fake(|_| None), Place::new());
    let first = place.locate(&place.hub(&fake.hub.url, false), &["opus100"]).unwrap();
    fs::remove_dir_all(place.cache(OPUS).join(".listing")).unwrap();
    let offline = place.hub("http://h", true);
    assert_eq!(place.locate(&offline, &["opus100"]).unwrap()[0].train, first[0].train);
    assert!(place.states(&["opus100"]).iter().all(|(_, state, _)| *state == State::Whole), "by the names of contents");
    // Without a listing, the names tell that a part is missing; with one, the hub brings it.
    fs::remove_file(&first[0].train[1].path).unwrap();
    assert_told(place.locate(&offline, &["opus100"]), &["HF_HUB_OFFLINE", "missing en-es/train-00001-of-00002"]);
    let again = place.locate(&place.hub(&fake.hub.url, false), &["opus100"]).unwrap();
    assert_eq!(again[0].train, first[0].train);
    assert_eq!(fake.large().len(), 3, "the content was still there");
    assert!(fake.hub.lines().contains(&format!("GET /api/{OPUS}/revision/{COMMIT}?blobs=true")));
}

#[test]
fn damage_is_found() {
    let place = Place::new();
    let repos = vec![(OPUS, golden("opus100")), ("datasets/demo/text", files(&["train.csv"]))];
    let fake = FakeHub::start(repos, |_| None);
    let hub = place.hub(&fake.hub.url, false);
    let opus = place.locate(&hub, &["opus100"]).unwrap().remove(0);
    let text = place.locate(&hub, &["hub:demo/text"]).unwrap().remove(0);
    let all = ["opus100", "hub:demo/text"];
    assert!(place.states(&all).iter().all(|(_, state, _)| *state == State::Whole));
    let damage = |path: &Path, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap(); // through the link
    };
    damage(&opus.train[0].path, &|bytes| bytes[9] ^= 1);
    damage(&opus.train[1].path, &|bytes| bytes.truncate(900));
    damage(&text.train[0].path, &|bytes| bytes[0] = b'E');
    fs::remove_file(fs::canonicalize(&opus.val[0].path).unwrap()).unwrap();
    let states = place.states(&all);
    let [flipped, cut, gone, small] = &states[..] else { panic!("{states:?}") };
    assert!(flipped.1 == State::Damaged && flipped.2.contains("SHA-256 is"), "{flipped:?}");
    assert!(cut.1 == State::Damaged && cut.2.contains("900 bytes instead of 1871"), "{cut:?}");
    assert!(gone.1 == State::Missing && gone.2.contains("themo data fetch opus100"), "{gone:?}");
    assert!(small.1 == State::Damaged && small.2.contains("git's SHA-1 is"), "{small:?}");
    let blob = fs::canonicalize(&opus.train[1].path).unwrap();
    assert!(cut.2.contains(blob.to_str().unwrap()), "{cut:?}");
    // A wrong size is noticed before training, too.
    let parts = ["900 bytes instead of 1871", blob.to_str().unwrap(), "themo data fetch opus100"];
    assert_told(place.locate(&place.hub("http://h", false), &["opus100"]), &parts);
    for path in [&opus.train[0].path, &opus.train[1].path] {
        fs::remove_file(fs::canonicalize(path).unwrap()).unwrap();
    }
    place.locate(&hub, &["opus100"]).unwrap();
    assert!(place.states(&["opus100"]).iter().all(|(_, state, _)| *state == State::Whole));
}

#[test]
fn a_file_with_an_address_comes_into_the_data_folder() {
    let zip: Vec<u8> = b"PK\x03\x04".iter().copied().chain((0..20_000u32).map(|i| (i % 251) as u8)).collect();
    let served = zip.clone();
    let server = Server::start(move |r| match (r.path.as_str(), r.before) {
        ("/moses/en-es.txt.zip", 0) => Reply { send: Some(7_000), ..Reply::new(200).body(&served, r.range) },
        ("/moses/en-es.txt.zip", _) => Reply::new(200).body(&served, r.range),
        _ => Reply::new(404),
    });
    let place = Place::new();
    let table = |more: &str| {
        let text = format!("[mine]\nabout = 'x'\nlicence = 'y'\nurl = '{}/moses/en-es.txt.zip'\n{more}", server.url);
        fs::write(place.data().join("datasets.toml"), text).unwrap();
    };
    table("");
    let offline = place.hub("http://h", true);
    let put = place.data().join("mine");
    assert_told(place.locate(&offline, &["mine"]), &["missing en-es.txt.zip", &server.url, put.to_str().unwrap()]);
    let hub = place.hub("http://h", false);
    let set = place.locate(&hub, &["mine"]).unwrap().remove(0);
    assert_eq!((set.train[0].path.clone(), set.val.len()), (put.join("en-es.txt.zip"), 0));
    assert_eq!(fs::read(&set.train[0].path).unwrap(), zip);
    assert!(server.log.lock().unwrap().iter().all(|request| request.token.is_none()));
    let asked = server.lines().len();
    assert_eq!(place.locate(&offline, &["mine"]).unwrap()[0].bytes, zip.len() as u64);
    assert_eq!(server.lines().len(), asked);
    // What came is known from then on.
    assert_eq!(place.states(&["mine"])[0].1, State::Whole);
    let mut wrong = zip.clone();
    wrong[9_000] ^= 1;
    fs::write(&set.train[0].path, wrong).unwrap();
    assert_eq!(place.states(&["mine"])[0].1, State::Damaged);
    // A hash of the table is held to.
    fs::remove_dir_all(&put).unwrap();
    table(&format!("sha256 = '{}'", sha256(b"other")));
    assert_told(place.locate(&hub, &["mine"]), &["cannot fetch the data set mine", "SHA-256"]);
    assert!(!set.train[0].path.exists());
    table(&format!("sha256 = '{}'", sha256(&zip).to_uppercase()));
    place.locate(&hub, &["mine"]).unwrap();
    assert_eq!(place.states(&["mine"])[0].1, State::Whole);
}

#[test]
fn lists_say_what_is_here_and_ask_nobody() {
    let (fake, place) = (fake(|_| None), Place::new());
    let hub = place.hub(&fake.hub.url, false);
    let data = place.data();
    let sources = Sources { hub: &hub, data_dir: &data };
    let line = |name: &str| {
        let text = report::list(&[], sources, false).unwrap();
        text.lines().find(|line| line.starts_with(name)).unwrap().to_owned()
    };
    assert!(line("opus100").contains("no    about 99.8 MB"), "{}", line("opus100"));
    assert!(line("parallel").contains("about 161.9 MB") && line("parallel").contains("ted + opus100 + tatoeba"));
    assert!(fake.hub.lines().is_empty());
    place.locate(&hub, &["opus100"]).unwrap();
    assert!(line("opus100").contains("  yes") && line("opus100").contains("  6.7 kB"), "{}", line("opus100"));
    assert!(line("parallel").contains("in part"), "{}", line("parallel"));
    fs::remove_file(fs::canonicalize(place.locate(&hub, &["opus100"]).unwrap()[0].train[0].path.clone()).unwrap())
        .unwrap();
    assert!(line("opus100").contains("2 of 3 files"), "{}", line("opus100"));
    let json = report::list(&["opus100".into(), "hub:a/b".into()], sources, true).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let keys =
        |row: &serde_json::Value| [row["files_here"].clone(), row["files"].clone(), row["bytes_are_exact"].clone()];
    assert_eq!(keys(&json[0]), [serde_json::json!(2), serde_json::json!(3), serde_json::json!(true)]);
    assert_eq!(keys(&json[1]), [serde_json::json!(0), serde_json::Value::Null, serde_json::json!(false)]);
    assert!(report::list(&["nothing".into()], sources, false).is_err());
}

#[test]
fn the_command_announces_fetches_and_checks() {
    let (fake, place) = (fake(|_| None), Place::new());
    let (home, data) = (place.0.path().to_owned(), place.data().display().to_string());
    let run =
        |args: &[&str], more: &[(&str, &str)]| themo(&[&["data"], args, &["--data-dir", &data]].concat(), &home, more);
    let online = [("HF_ENDPOINT", fake.hub.url.as_str())];
    let offline = [("HF_HUB_OFFLINE", "1")];
    let stdout = |output: &std::process::Output| String::from_utf8(output.stdout.clone()).unwrap();

    let output = run(&["list"], &offline);
    assert!(output.status.success() && stdout(&output).contains("parallel"), "{}", stderr(&output));
    let output = run(&["check"], &offline);
    assert!(output.status.success() && stdout(&output).contains("nothing to check"), "{}", stdout(&output));
    let output = run(&["check", "opus100"], &offline);
    assert!(output.status.code() == Some(1) && stdout(&output).contains("missing"), "{}", stdout(&output));
    let output = run(&["fetch", "parallel"], &offline);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("hint: "), "{}", stderr(&output));
    let output = run(&["fetch", "oups100"], &offline);
    assert!(
        output.status.code() == Some(2) && stderr(&output).contains("did you mean `opus100`"),
        "{}",
        stderr(&output)
    );

    let output = run(&["fetch", "parallel"], &online);
    assert!(output.status.success(), "{}", stderr(&output));
    let cache = place.cache(OPUS).display().to_string();
    for part in ["fetching the data set opus100: 3 files, 6.7 kB, licence: none named", &cache, "licence: CC BY 2.0 FR"]
    {
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
    assert!(stdout(&output).contains(TRAIN[1]), "{}", stdout(&output));
    let output = run(&["fetch", "opus100", "--json"], &offline);
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((json["name"].as_str(), json["files"].as_array().unwrap().len()), (Some("opus100"), 3));
    let output = run(&["check", "opus100", "--json"], &offline);
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(output.status.success() && json[2]["state"] == "whole", "{json}");
    fs::write(place.cache(OPUS).join("snapshots").join(COMMIT).join(TRAIN[0]), "damage").unwrap();
    let output = run(&["check", "opus100"], &offline);
    assert!(output.status.code() == Some(1) && stdout(&output).contains("damaged"), "{}", stdout(&output));
}

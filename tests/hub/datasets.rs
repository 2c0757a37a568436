//! Data sets by name, from the hub.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use themo::error::{Error, Result};
use themo::hub::Hub;
use themo::sets::check::{State, check, is_good};
use themo::sets::{Located, Origin, Sources, chosen, locate, report};

use crate::client;
use crate::server::{COMMIT, CONVERTED, CONVERTED_COMMIT, FakeHub, Files, Reply, Request, sha256, tree_of};

pub const OPUS: &str = "datasets/Helsinki-NLP/opus-100";
const TALKS: &str = "datasets/sentence-transformers/parallel-sentences-talks";
const TATOEBA: &str = "datasets/sentence-transformers/parallel-sentences-tatoeba";
pub const TRAIN: [&str; 2] = ["en-es/train-00000-of-00002.parquet", "en-es/train-00001-of-00002.parquet"];

pub fn golden(set: &str) -> Files {
    tree_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sets").join(set))
}

pub fn files(names: &[&str]) -> Files {
    names.iter().map(|name| (name.to_string(), format!("es\ten\nuno {name}\tone\n").into_bytes())).collect()
}

/// A hub with the sets of the default.
pub fn fake(fault: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> FakeHub {
    let mut opus = golden("opus100");
    opus.extend(files(&["README.md", "en-de/train-00000-of-00001.parquet"]));
    FakeHub::start(vec![(OPUS, opus), (TALKS, golden("talks")), (TATOEBA, golden("tatoeba"))], fault)
}

/// A scratch folder with a cache and a data folder.
pub struct Place(pub TempDir);

impl Place {
    pub fn new() -> Self {
        let place = Self(TempDir::new().unwrap());
        fs::create_dir(place.data()).unwrap();
        place
    }

    pub fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    pub fn cache(&self, repository: &str) -> PathBuf {
        self.0.path().join("hub").join(repository.replace('/', "--"))
    }

    pub fn locate(&self, hub: &Hub, names: &[&str]) -> Result<Vec<Located>> {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        locate(&names, Sources { hub, data_dir: &self.data() }, &|_, _, _| {})
    }

    pub fn hub(&self, url: &str, offline: bool) -> Hub {
        client(url, self.0.path(), offline)
    }

    /// The states of the files of `names`, as `check` sees them.
    pub fn states(&self, names: &[&str]) -> Vec<(String, State, String)> {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let hub = self.hub("http://127.0.0.1:9", false);
        let checked = check(&names, Sources { hub: &hub, data_dir: &self.data() }).unwrap();
        let states: Vec<_> = checked.iter().map(|file| (file.file.clone(), file.state, file.note.clone())).collect();
        let bad = |state: &State| matches!(state, State::Missing | State::Damaged);
        assert_eq!(is_good(&checked), !states.iter().any(|(_, state, _)| bad(state)));
        states
    }
}

#[track_caller]
pub fn assert_told<T: std::fmt::Debug>(result: Result<T>, parts: &[&str]) -> Error {
    let error = result.unwrap_err();
    let text = format!("{error}\nhint: {}", error.advice().unwrap_or("none at all"));
    parts.iter().for_each(|part| assert!(text.contains(part), "`{part}` is not in: {text}"));
    error
}

/// The files of a set as names below its snapshot, to train and to validate on.
fn names(set: &Located) -> [Vec<String>; 2] {
    let name = |path: &Path| {
        let text = path.to_str().unwrap();
        text.split_once(&format!("/{COMMIT}/")).map_or(text, |(_, name)| name).to_owned()
    };
    [&set.train, &set.val].map(|files| files.iter().map(|file| name(&file.path)).collect())
}

#[test]
fn the_default_is_fetched_once_and_only_what_is_needed() {
    let (fake, place) = (fake(|_| None), Place::new());
    let hub = place.hub(&fake.hub.url, false);
    let names_of = chosen(&[], false, &place.data());
    assert_eq!(names_of, ["parallel"]);
    let sets = place.locate(&hub, &["parallel"]).unwrap();
    assert_eq!(sets.iter().map(|set| set.name.as_str()).collect::<Vec<_>>(), ["ted", "opus100", "tatoeba"]);
    assert_eq!(names(&sets[0]), [vec!["en-es/train-00000-of-00001.parquet".to_owned()], vec![]]);
    let val = "en-es/validation-00000-of-00001.parquet".to_owned();
    assert_eq!(names(&sets[1]), [TRAIN.map(str::to_owned).to_vec(), vec![val]]);
    assert_eq!(names(&sets[2]), [vec!["en-es/train-00000-of-00001.parquet".to_owned()], vec![]]);
    let columns: Vec<_> = sets.iter().map(|set| set.train[0].columns.as_deref().unwrap()).collect();
    let two = "es=non_english,en=english";
    assert_eq!(columns, [two, "es=translation.es,en=translation.en", two]);
    let opus = golden("opus100");
    for (file, name) in sets[1].train.iter().zip(TRAIN) {
        assert_eq!(fs::read(&file.path).unwrap(), opus[name]);
    }
    let fetched = |name: &&str| !name.contains("test");
    let bytes: usize = opus.iter().filter(|(name, _)| fetched(&name.as_str())).map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(sets[1].bytes, bytes as u64);
    let (id, revision, commit) = ("Helsinki-NLP/opus-100".to_owned(), "main".to_owned(), COMMIT.to_owned());
    assert_eq!(sets[1].origin, Origin::Hub { id, revision, commit });
    assert_eq!(fake.large().len(), 5, "what is only tested or validated on elsewhere is not fetched");
    assert_eq!(fs::read_to_string(place.cache(OPUS).join("refs/main")).unwrap(), COMMIT);
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(&sets[1].train[0].path).unwrap(),
        Path::new("../../../blobs").join(sha256(&opus[TRAIN[0]]))
    );

    // And then nothing is asked any more.
    let asked = fake.hub.lines().len();
    for hub in [&hub, &place.hub("http://127.0.0.1:9", true), &place.hub("http://127.0.0.1:9", false)] {
        assert_eq!(place.locate(hub, &["parallel"]).unwrap()[1].train, sets[1].train);
    }
    assert_eq!((fake.hub.lines().len(), fake.large().len()), (asked, 5));
    let states = place.states(&[]);
    assert!(states.len() == 5 && states.iter().all(|(_, state, _)| *state == State::Whole), "{states:?}");
    let missing = |(file, state, _): &(String, State, String)| (*state == State::Missing).then(|| file.clone());
    let states = place.states(&["ted"]);
    assert_eq!(states.iter().filter_map(missing).collect::<Vec<_>>(), ["en-es/dev-00000-of-00001.parquet"]);
    let sources = Sources { hub: &hub, data_dir: &place.data() };
    assert!(report::list(&["parallel".into()], sources, false).unwrap().contains("  yes  "));
    // Alone, a part has its own validation pairs; a set named twice is taken once.
    let sets = place.locate(&hub, &["ted", "parallel", "ted"]).unwrap();
    assert_eq!(sets.len(), 3);
    assert_eq!(names(&sets[0])[1], ["en-es/dev-00000-of-00001.parquet"]);
}

#[test]
fn any_data_set_of_the_hub_is_taken_by_name() {
    let mut captions = golden("captions");
    captions.insert("data/sub set.parquet".into(), b"PAR1".to_vec());
    let fake = FakeHub::start(vec![("datasets/demo/captions", captions), (OPUS, golden("opus100"))], |_| None);
    let place = Place::new();
    let hub = place.hub(&fake.hub.url, false);
    let set = &place.locate(&hub, &["hub:demo/captions@v1/old"]).unwrap()[0];
    assert_eq!(names(set), [vec!["data/part.parquet".to_owned(), "data/sub set.parquet".to_owned()], vec![]]);
    assert_eq!((set.licence.as_deref(), &set.train[0].columns), (Some("cc0-1.0, mit"), &None));
    assert!(fs::read(&set.train[1].path).unwrap() == b"PAR1");
    assert!(matches!(&set.origin, Origin::Hub { revision, commit, .. } if revision == "v1/old" && commit == COMMIT));
    for (name, train, val) in [("hub:Helsinki-NLP/opus-100", 2, 1), ("hub:Helsinki-NLP/opus-100:en-es", 2, 1)] {
        let set = &place.locate(&hub, &[name]).unwrap()[0];
        assert_eq!((set.train.len(), set.val.len()), (train, val), "{name}");
    }
    let set = &place.locate(&hub, &["hub:Helsinki-NLP/opus-100:en-es/test"]).unwrap()[0];
    assert_eq!(names(set), [vec!["en-es/test-00000-of-00001.parquet".to_owned()], vec![]]);
    let error = assert_told(
        place.locate(&hub, &["hub:Helsinki-NLP/opus-100:en-fr"]),
        &["hub:Helsinki-NLP/opus-100:en-fr has no `en-fr`", "en-es (test, train, validation)"],
    );
    assert_eq!(error.exit_code(), 2);
    assert_told(place.locate(&hub, &["paralel"]), &["no data set `paralel`", "did you mean `parallel`?"]);
    assert_told(
        place.locate(&hub, &["hub:demo"]),
        &["has no data set of the name demo", "private data set needs HF_TOKEN"],
    );
    assert_told(place.locate(&hub, &["hub:demo/captions@v2"]), &["has no revision `v2`", "branch, a tag or a commit"]);
}

#[test]
fn converted_files_and_then_text_files_stand_in_for_parquet() {
    let csv = files(&["train.csv", "test.csv", "more.json"]);
    let converted = files(&["en-es/train/0000.parquet", "en-es/train/0001.parquet", "en-es/train/index.duckdb"]);
    let repos = vec![
        ("datasets/demo/both", csv.clone()),
        ("datasets/demo/both@refs/convert/parquet", converted.clone()),
        ("datasets/demo/text", csv),
        ("datasets/demo/none", files(&["a.json", "b.zip"])),
    ];
    let (fake, place) = (FakeHub::start(repos, |_| None), Place::new());
    let hub = place.hub(&fake.hub.url, false);
    for name in ["hub:demo/both", "hub:demo/both:en-es", "hub:demo/both@refs/convert/parquet"] {
        let set = &place.locate(&hub, &[name]).unwrap()[0];
        assert_eq!(set.train.len(), 2, "{name}");
        assert!(set.train[1].path.ends_with("en-es/train/0001.parquet"), "{set:?}");
        assert!(matches!(&set.origin, Origin::Hub { revision, commit, .. }
            if revision == CONVERTED && commit == CONVERTED_COMMIT));
    }
    assert_eq!(fake.large().len(), 2);
    // The hub converts `main` alone.
    for name in ["hub:demo/both@v1/old", "hub:demo/text", "hub:demo/text:default/train"] {
        let set = &place.locate(&hub, &[name]).unwrap()[0];
        assert_eq!(names(set), [vec!["train.csv".to_owned()], vec![]], "{name}");
    }
    assert_told(place.locate(&hub, &["hub:demo/none"]), &["no Parquet, CSV", "but a.json, b.zip", "--pairs FILE"]);
    // All that is known offline, too.
    let offline = place.hub("http://h", true);
    for name in ["hub:demo/both", "hub:demo/text"] {
        assert_eq!(place.locate(&offline, &[name]).unwrap().len(), 1, "{name}");
    }
    assert!(place.states(&["hub:demo/both", "hub:demo/text"]).iter().all(|(_, state, _)| *state == State::Whole));
}

#[test]
fn a_fetch_that_broke_off_is_told_and_resumed() {
    let cut = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let broken = cut.clone();
    let fake = fake(move |r| {
        let opus = golden("opus100")[TRAIN[0]].clone();
        let is_it = r.path == format!("/{}?sig=1", sha256(&opus)) && broken.load(std::sync::atomic::Ordering::SeqCst);
        let first = || Reply { send: Some(1000), ..Reply::new(200).body(&opus, r.range) };
        is_it.then(|| if r.before == 0 { first() } else { Reply::new(503) })
    });
    let place = Place::new();
    let hub = place.hub(&fake.hub.url, false);
    let parts = ["opus100 is not here", "503", "what was fetched is kept", "themo data fetch opus100", TRAIN[1]];
    assert_told(place.locate(&hub, &["parallel"]), &parts);
    assert_told(place.locate(&place.hub("http://h", true), &["parallel"]), &["HF_HUB_OFFLINE is set", TRAIN[0]]);
    let states = place.states(&["opus100"]);
    assert_eq!(states.len(), 3);
    let (file, state, note) = &states[0];
    assert_eq!((file.as_str(), *state), (TRAIN[0], State::Missing));
    assert!(note.contains("1.0 kB of it are here") && note.contains("themo data fetch opus100"), "{note}");
    cut.store(false, std::sync::atomic::Ordering::SeqCst);
    let sets = place.locate(&hub, &["parallel"]).unwrap();
    assert_eq!(fs::read(&sets[1].train[0].path).unwrap(), golden("opus100")[TRAIN[0]]);
    let hash = sha256(&golden("opus100")[TRAIN[0]]);
    let last = fake.large().into_iter().rfind(|request| request.path.contains(&hash)).unwrap();
    assert_eq!(last.range, Some(1000), "another call continues where the first was cut");
    assert!(place.states(&["opus100"]).iter().all(|(_, state, _)| *state == State::Whole));
}

#[test]
fn closed_and_strange_repositories_are_told_apart() {
    for (reply, parts) in [
        (Reply::new(401).with("X-Error-Code", "RepoNotFound"), ["has no data set of the name", "HF_TOKEN"]),
        (Reply::new(403).with("X-Error-Code", "GatedRepo"), ["refuses access", "accept the data set's conditions on"]),
        (Reply::new(404).with("X-Error-Code", "RepoNotFound"), ["has no data set of the name", "--dataset"]),
        (Reply::new(401), ["wants a token", "may read this data set"]),
        (Reply::new(200).body(b"<html>", None), ["does not answer like a hub", "HF_ENDPOINT"]),
    ] {
        let fake = fake(move |r| r.path.starts_with("/api/").then(|| reply.clone()));
        let place = Place::new();
        assert_told(place.locate(&place.hub(&fake.hub.url, false), &["opus100"]), &parts);
    }
    // A listing must stay inside the repository, and have what the table wants.
    let outside = format!(r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "en-es/../../../x.parquet"}}]}}"#);
    let fake_outside =
        fake(move |r| r.path.starts_with("/api/").then(|| Reply::new(200).body(outside.as_bytes(), None)));
    let place = Place::new();
    let parts = ["outside the repository", "en-es/../../../x.parquet"];
    assert_told(place.locate(&place.hub(&fake_outside.hub.url, false), &["opus100"]), &parts);
    let other = FakeHub::start(vec![(OPUS, files(&["data/train.parquet"]))], |_| None);
    let parts = ["has no file en-es/train-*.parquet", "datasets.toml"];
    assert_told(place.locate(&place.hub(&other.hub.url, false), &["opus100"]), &parts);
    let table = "[x]\nabout = 'x'\nhub = 'Helsinki-NLP/opus-100'\ntrain = ['data/train.*', 'data/more.*']";
    fs::write(place.data().join("datasets.toml"), table).unwrap();
    let place_too = Place::new();
    fs::copy(place.data().join("datasets.toml"), place_too.data().join("datasets.toml")).unwrap();
    let hub = place_too.hub(&other.hub.url, false);
    assert_told(place_too.locate(&hub, &["x"]), &["has no file data/more.*"]);
}

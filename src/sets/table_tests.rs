use super::*;

fn load(text: &str) -> Result<Table> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(OWN), text).unwrap();
    Table::load(dir.path())
}

#[test]
fn the_bundled_table_has_the_originals_sets() {
    let table = Table::load(Path::new("/nowhere")).unwrap();
    let leaves = table.leaves("parallel").unwrap();
    let expected = [("ted", false), ("opus100", true), ("tatoeba", false)];
    assert_eq!(leaves, expected.map(|(name, validated)| (name.to_owned(), validated)));
    assert_eq!(table.leaves("ted").unwrap(), [("ted".to_owned(), true)]);
    for name in table.names() {
        let known = table.get(name).unwrap();
        assert!(known.parts.is_empty() == known.licence.is_some() && known.about.len() < 110, "{name}");
    }
    let error = table.get("paralel").unwrap_err();
    assert_eq!((error.exit_code(), error.to_string().as_str()), (2, "there is no data set `paralel`"));
    assert!(error.advice().unwrap().starts_with("did you mean `parallel`?"), "{error:?}");
    assert!(!table.get("xyz").unwrap_err().advice().unwrap().contains("did you mean"));
}

#[test]
fn the_users_table_adds_and_wins() {
    let text =
        "[ted]\nabout = 'mine'\ntrain = ['*.tsv']\n\n[both]\nabout = 'b'\nparts = ['ted', 'hub:a/b:c', 'parallel']";
    let table = load(text).unwrap();
    assert_eq!(table.get("ted").unwrap().about, "mine");
    assert!(table.get("ted").unwrap().hub.is_none());
    let names: Vec<String> = table.leaves("both").unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["ted", "hub:a/b:c", "ted", "opus100", "tatoeba"]);
    assert!(Table::load(Path::new("Cargo.toml")).is_ok(), "a file where the folder would be");
}

#[test]
fn faults_are_named_with_their_line() {
    let hub = "about = 'x'\nhub = 'a/b'\n";
    for (text, parts) in [
        ("[x]\nabout = 'x'\nlicense = 'y'".to_owned(), ["line 3", "unknown field `license`"]),
        ("[x]\nabout = 'x'\n\ntrain = 'a'".to_owned(), ["line 4", "invalid type"]),
        ("[x]\nabout = 'x'\nbytes = -1\ntrain = ['a']".to_owned(), ["line 3", "invalid value"]),
        ("[x]\nabout = x".to_owned(), ["line 2", ""]),
        ("x = 1".to_owned(), ["line 1", "invalid type"]),
        ("# one\n\n[x]\nhub = 'a/b'\ntrain = ['a']".to_owned(), ["line 3", "no `about`"]),
        (format!("[x]\n{hub}"), ["line 1", "no `train`"]),
        (format!("[x]\n{hub}url = 'https://x/y'\ntrain = ['a']"), ["line 1", "both `hub` and `url`"]),
        (format!("[x]\n{hub}train = ['../a']"), ["line 1", "`../a` is no pattern"]),
        (format!("[x]\n{hub}train = ['a***']"), ["line 1", "`a***` is no pattern"]),
        (format!("[x]\n{hub}train = ['a']\ncolumns = 'es'"), ["line 1", "es=NAME,en=NAME"]),
        (format!("[x]\n{hub}train = ['a']\nsha256 = 'a'"), ["line 1", "`url` names"]),
        ("[x]\nabout = 'x'\nhub = 'a/b/c'\ntrain = ['a']".to_owned(), ["line 1", "OWNER/NAME"]),
        ("[x]\nabout = 'x'\nurl = 'ftp://x/y'".to_owned(), ["line 1", "http"]),
        ("[x]\nabout = 'x'\nurl = 'https://x/'".to_owned(), ["line 1", "file's name"]),
        ("[x]\nabout = 'x'\nurl = 'https://x/y'\nsha256 = 'a'".to_owned(), ["line 1", "64 hexadecimal"]),
        ("[x]\nabout = 'x'\nparts = ['ted']\ncolumns = 'es=a,en=b'".to_owned(), ["line 1", "its parts have"]),
        ("[x]\nabout = 'x'\nparts = ['ted']\nval-parts = ['wit']".to_owned(), ["line 1", "`wit` of `val-parts`"]),
        ("['a/b']\nabout = 'x'\ntrain = ['a']".to_owned(), ["line 1", "a name is made of"]),
        ("[x]\nabout = 'x'\nparts = ['nowhere']".to_owned(), ["[x]", "no data set `nowhere`"]),
        ("[x]\nabout = 'x'\nparts = ['hub:a/b/c']".to_owned(), ["[x]", "does not name a data set"]),
        ("[x]\nabout = 'x'\nparts = ['y']\n[y]\nabout = 'y'\nparts = ['x']".to_owned(), ["[x]", "a part of itself"]),
    ] {
        let error = load(&text).expect_err(&text);
        let shown = error.to_string();
        assert!(parts.iter().all(|part| shown.contains(part)) && shown.contains("datasets.toml"), "{text}: {shown}");
        assert!(error.exit_code() == 2 && error.advice().is_some(), "{text}: {error:?}");
    }
}

#[test]
fn patterns_stay_in_their_folder() {
    let names = ["en-es/train-1.parquet", "en-es/train-0.parquet", "en-es/x/train-0.parquet", "train-0.parquet"];
    let found = matching(&["en-es/train-*.parquet".to_owned(), "en-*/*-0.parquet".to_owned()], &names);
    assert_eq!(found, names[..2]);
    assert_eq!(file_of("https://a.b/c/en-es.txt.zip?x=1"), Some("en-es.txt.zip"));
    for wrong in ["https://a.b", "https://a.b/", "https://a.b/.x", "https://a.b/a%2Fb", "/a/b"] {
        assert_eq!(file_of(wrong), None, "{wrong}");
    }
}

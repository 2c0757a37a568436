use super::*;

fn placed(name: &str, converted: bool) -> (String, String, bool) {
    let found = rows([name].into_iter(), false, converted).pop().unwrap();
    (found.config, found.split, found.partial)
}

#[test]
fn configurations_and_splits_are_in_the_names() {
    for (name, converted, config, split) in [
        ("en-es/train-00000-of-00001.parquet", false, "en-es", "train"),
        ("en-es/dev-00000-of-00001.parquet", false, "en-es", "dev"),
        ("data/train-00000-of-00003-0123456789abcdef.parquet", false, "default", "train"),
        ("data/es/extra-00000-of-00003.parquet", false, "es", "extra"),
        ("cc12m_7m_subset_translated.parquet", false, "default", "train"),
        ("corpus.es-en.test.parquet", false, "default", "test"),
        ("validation.parquet", false, "default", "validation"),
        ("dev2.parquet", false, "default", "dev"),
        ("es/test/0000.parquet", false, "es", "test"),
        ("es/more/0000.parquet", false, "es/more", "train"),
        ("es/more/0000.parquet", true, "es", "more"),
        ("default/train/0000.parquet", true, "default", "train"),
        ("en-es/opus-100-train-00000-of-00001.parquet", false, "en-es", "train"),
    ] {
        assert_eq!(placed(name, converted), (config.to_owned(), split.to_owned(), false), "{name}");
    }
    assert_eq!(placed("default/partial-train/0001.parquet", true), ("default".into(), "train".into(), true));
    let names = ["a.parquet", "b.csv", "c.JSONL.gz", "d.tsv.zst", "README.md", "e.json", ".x/f.csv", "index.duckdb"];
    let of = |text| rows(names.into_iter(), text, false).into_iter().map(|file| file.name).collect::<Vec<_>>();
    assert_eq!(of(false), ["a.parquet"]);
    assert_eq!(of(true), ["b.csv", "c.JSONL.gz", "d.tsv.zst"]);
}

fn chosen(names: &[&str], asked: Option<&str>) -> Result<[Vec<String>; 2]> {
    let files = rows(names.iter().copied(), false, false);
    let names = |files: Vec<Placed>| files.into_iter().map(|file| file.name).collect::<Vec<_>>();
    choose(&files, asked, "hub:a/b").map(|(train, val)| [names(train), names(val)])
}

#[test]
fn train_and_validation_files_are_chosen_and_tests_left() {
    let all = ["a/train-0.parquet", "a/train-1.parquet", "a/dev-0.parquet", "a/test-0.parquet", "b/more.parquet"];
    let [train, val] = chosen(&all, Some("a")).unwrap();
    assert_eq!((train, val), (vec![all[0].to_owned(), all[1].to_owned()], vec![all[2].to_owned()]));
    assert_eq!(chosen(&all, Some("a/test")).unwrap(), [vec![all[3].to_owned()], vec![]]);
    assert_eq!(chosen(&all, Some("b")).unwrap(), [vec![all[4].to_owned()], vec![]]);
    assert_eq!(chosen(&all[..3], None).unwrap()[0].len(), 2);
    let unnamed = ["a/train-0.parquet", "a/extra-00000-of-00001.parquet"];
    assert_eq!(chosen(&unnamed, None).unwrap()[0], [unnamed[0]]);
    assert_eq!(chosen(&unnamed, Some("a/extra")).unwrap()[0], [unnamed[1]]);
}

#[test]
fn where_several_could_be_meant_all_are_listed() {
    let all = ["en-de/train-0.parquet", "en-es/train-0.parquet", "en-es/dev-0.parquet"];
    for (names, asked, what) in [
        (&all[..], None, "has 2 configurations"),
        (&all[..], Some("en"), "has no `en`"),
        (&all[..], Some("en-es/test"), "has no `en-es/test`"),
        (&["x/a-00000-of-00001.parquet", "x/b-00000-of-00001.parquet"][..], None, "has no split `train` in x"),
        (&["test.parquet"][..], None, "has no split `train` in default"),
    ] {
        let error = chosen(names, asked).unwrap_err();
        assert!(error.to_string().contains(what) && error.to_string().contains("hub:a/b"), "{error}");
        let hint = error.advice().unwrap();
        let first = if names.len() == 3 { "\n  en-es (train, dev)\n  en-de (train)" } else { "(" };
        assert!(hint.contains(first), "{hint}");
    }
    let many: Vec<String> = (0..50).map(|i| format!("c{i}/train.parquet")).collect();
    let names: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(chosen(&names, None).unwrap_err().advice().unwrap().ends_with("and 20 more"));
}

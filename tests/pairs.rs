//! The files of caption pairs: forms written by csv, json, pyarrow and zstandard (`tests/golden/pairs.py`), damage, and what
//! the real binary says of them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;
use themo::data::pairs::{self, ReadReport, Row};
use themo::error::Result;

mod common;

use common::{assert_fails, stderr};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pairs").join(name)
}

type Pairs = Vec<(String, String)>;

fn read(path: &Path, columns: Option<&str>) -> Result<(Pairs, ReadReport)> {
    let columns = columns.map(str::parse).transpose()?;
    let mut pairs = Pairs::new();
    let mut sink = |Row { es, en, .. }: Row| {
        pairs.push((es.to_owned(), en.to_owned()));
        Ok(())
    };
    let report = pairs::read(path, columns.as_ref(), &mut sink)?;
    Ok((pairs, report))
}

fn expected(key: &str) -> Pairs {
    let all: Value = serde_json::from_slice(&fs::read(golden("expected.json")).unwrap()).unwrap();
    serde_json::from_value(all[key].clone()).unwrap()
}

#[test]
fn every_form_gives_the_pairs_that_were_written() {
    for (file, columns, key, format) in [
        ("plain.tsv", None, "lines", "TSV without a header, columns 1 and 2"),
        ("header.tsv", None, "lines", "TSV with a header, columns Spanish and English"),
        ("numbered.tsv.zst", Some("es=2,en=4"), "lines", "TSV without a header, zstd, columns 2 and 4"),
        ("corpus.csv.gz", None, "all", "CSV with a header, gzip, columns es and en"),
        ("semicolon.csv", None, "all", "CSV with a header, delimiter ;, columns es and en"),
        ("tab.csv", None, "all", "CSV with a header, delimiter tab, columns es and en"),
        ("opus.jsonl", None, "all", "JSON lines, columns translation.es and translation.en"),
        (
            "flat.jsonl.zst",
            Some("es=non_english,en=english"),
            "all",
            "JSON lines, zstd, columns non_english and english",
        ),
        ("moses.es", None, "lines", "moses"),
        ("moses.en", None, "lines", "moses"),
        ("OPUS.en-es.es", None, "lines", "moses, gzip"),
        ("OPUS.en-es.en.gz", None, "lines", "moses, gzip"),
        ("opus.zip", None, "lines", "moses in a zip"),
        ("required.parquet", None, "all", "Parquet, row groups: 3, columns es and en"),
        ("categories.parquet", None, "all", "Parquet, row groups: 3, columns ES and EN"),
        ("deep.parquet", Some("en=a.b.en,es=a.b.es"), "all", "Parquet, row groups: 3, columns a.b.es and a.b.en"),
    ] {
        let (pairs, report) = read(&golden(file), columns).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(pairs, expected(key), "{file}");
        assert_eq!((report.format.as_str(), report.rejected.total()), (format, 0), "{file}");
        assert_eq!(report.rows, pairs.len() as u64);
    }
}

#[test]
fn nulls_of_parquet_are_counted() {
    for file in ["opus", "zstd", "gzip", "lz4", "delta"] {
        let (pairs, report) = read(&golden(&format!("{file}.parquet")), None).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(pairs, expected("all"), "{file}");
        assert_eq!((report.rows, report.rejected.of("without one of the texts")), (54, 5), "{file}");
        assert_eq!(report.rejected.counts()[0].first, "row 1: `null / no Spanish`");
    }
}

#[track_caller]
fn refuses(file: &Path, columns: Option<&str>, parts: &[&str]) {
    let error = read(file, columns).expect_err("to be refused");
    let text = format!("{error}\nhint: {}", error.advice().expect("a hint"));
    for part in parts {
        assert!(text.contains(part), "{text}\nlacks {part}");
    }
}

#[test]
fn what_has_no_two_texts_is_refused_by_name() {
    refuses(
        &golden("lists.parquet"),
        None,
        &["has no columns es and en", "it has es.list.element, en", "--columns es="],
    );
    refuses(&golden("lists.parquet"), Some("es=es.list.element,en=en"), &["es.list.element holds lists"]);
    refuses(&golden("numbers.parquet"), None, &["the column es holds INT64"]);
    refuses(&golden("deep.parquet"), None, &["it has a.b.es, a.b.en, a.es", "--columns es=a.b.es,en=a.b.en"]);
    refuses(&golden("corpus.csv.gz"), Some("es=x,en=y"), &["has no columns x and y; it has id, en, es"]);
    refuses(&golden("header.tsv"), Some("es=x,en=y"), &["it has id, English, Spanish", "--columns es=id,en=English"]);
    refuses(&golden("opus.jsonl"), Some("es=x,en=y"), &["it has id, translation.es, translation.en, tags"]);
    refuses(&golden("plain.tsv"), Some("es=3,en=1"), &["has no columns 3 and 1; it has 1, 2"]);
    refuses(Path::new("/nowhere/p.parquet"), None, &["/nowhere/p.parquet", "--pairs"]);
}

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

#[test]
fn damaged_files_are_errors() {
    let scratch = Scratch::new();
    // Sides of different length, plain and in a zip.
    let es = scratch.write("x.es", "uno\ndos\ntres\n");
    refuses(&es, None, &["x.es is one side of a moses pair", "x.en is missing"]);
    scratch.write("x.en", "one\ntwo");
    refuses(&es, None, &["x.es has 3 lines and", "x.en has 2"]);
    let zip = fs::read(golden("opus.zip")).unwrap();
    refuses(&scratch.write("cut.zip", &zip[..zip.len() - 30]), None, &["cut.zip is no whole zip file"]);
    let at = zip.windows(6).position(|w| w == b"circle").unwrap();
    let mut bent = zip.clone();
    bent[at] ^= 1;
    refuses(&scratch.write("bent.zip", bent), None, &["T.en-es.en", "wrong length or checksum"]);
    // Parquet cut short, and with a bit changed below its checksums.
    let parquet = fs::read(golden("delta.parquet")).unwrap();
    refuses(
        &scratch.write("cut.parquet", &parquet[..parquet.len() / 2]),
        None,
        &["cut.parquet: cannot read the Parquet"],
    );
    let at = parquet.windows(6).position(|w| w == b"rculo ").unwrap();
    let mut bent = parquet.clone();
    bent[at] ^= 1;
    refuses(&scratch.write("bent.parquet", bent), None, &["bent.parquet: cannot read row group 1 of 3"]);
    // gzip cut in the middle of CSV.
    let csv: String = (0..9999).map(|k| format!("línea {k},line {}\n", k * 7919 % 10007)).collect();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(format!("es,en\n{csv}").as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let cut = scratch.write("cut.csv.gz", &gzip[..gzip.len() / 2]);
    refuses(&cut, None, &["the gzip data of", "cut.csv.gz is truncated or corrupt after", "rows"]);
    // A quote that is never closed.
    let open = format!("es,en\n\"uno,one\n{}", "dos,two\n".repeat(4 << 20));
    refuses(&scratch.write("open.csv", open), None, &["row 1 is longer than 16 MiB", "quote"]);
    refuses(&scratch.write("array.json", "[{\"es\": \"uno\"}]"), None, &["a JSON array", "jq"]);
    refuses(&scratch.write("one.json", "{\n \"es\": 1\n}"), None, &["over many lines"]);
    refuses(&golden("brotli.parquet"), None, &["brotli.parquet", "brotli"]);
    refuses(&scratch.write("bare.csv", "un gato,a cat\n"), None, &["must name its columns", "it has un gato, a cat"]);
    refuses(&scratch.write("two.csv", "es,en,es\n1,2,3\n"), None, &["2 columns are called es"]);
}

/// A pipe with a name, as a shell's `<(...)` gives, can be read once.
#[cfg(unix)]
#[test]
fn a_pipe_loses_nothing() {
    let scratch = Scratch::new();
    for (text, format) in [("uno\tone\ndos\ttwo\n", "TSV"), ("es,en\nuno,one\ndos,two\n", "CSV")] {
        let pipe = scratch.0.path().join(format);
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::write(pipe, text)
        });
        let (pairs, report) = read(&pipe, None).unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(pairs, [("uno".to_owned(), "one".to_owned()), ("dos".to_owned(), "two".to_owned())]);
        assert!(report.format.starts_with(format), "{}", report.format);
    }
}

/// Whatever is changed in a Parquet file: pairs or an error, never a panic.
#[test]
fn bent_parquet_does_not_panic() {
    let scratch = Scratch::new();
    let mut refused = 0;
    for file in ["opus", "delta", "zstd", "gzip", "lz4", "required"] {
        let bytes = fs::read(golden(&format!("{file}.parquet"))).unwrap();
        for k in 0..400usize {
            let mut bent = bytes.clone();
            let at = k * 2_654_435_761 % bytes.len();
            bent[at] ^= 1 << (k % 8);
            refused += usize::from(read(&scratch.write("bent.parquet", &bent), None).is_err());
            let cut = bytes.len() - 1 - at;
            assert!(read(&scratch.write("cut.parquet", &bytes[..cut]), None).is_err(), "{file} cut at {cut}");
        }
    }
    assert!(refused > 100, "{refused}");
}

fn train(scratch: &Scratch, args: &[&str]) -> Output {
    let path = |name: &str| scratch.0.path().join(name).to_str().unwrap().to_owned();
    let mut command = Command::new(env!("CARGO_BIN_EXE_themo"));
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", path("hub")).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["train", "--log-dir", &path("logs"), "--cache-dir", &path("cache"), "--max-steps", "2"]);
    command.args(["--student", "data/demo/models/toy-beto", "--teacher", "data/demo/models/toy-clip"]);
    command.args(args).output().unwrap()
}

#[test]
fn a_run_keeps_the_report_of_its_pairs() {
    let scratch = Scratch::new();
    let csv = "es,en\n\"un  gato\",a cat\nun gato,a cat\nParís,París\n,empty\nun\nun perro \u{a0}grande,a dog\nni\u{301}a,x\n";
    let file = scratch.write("p.csv", csv);
    let file = file.to_str().unwrap();
    let output = train(&scratch, &["--pairs", file, "--val-pairs", golden("moses.es").to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let log = stderr(&output);
    for part in [
        "p.csv: CSV with a header, columns es and en",
        "skipped 1 of 7 lines: 1 with another number of columns (line 6: `un`)",
        "training pairs: normalised 1 captions to NFC",
        "training pairs: trimmed the white space of 2 captions",
        "p.csv, line 3: `un gato` / `a cat`",
        "1 with equal sides (",
        "1 with an empty side (",
        "3 training pairs",
    ] {
        assert!(log.contains(part), "{log}\nlacks {part}");
    }
    let report = fs::read(scratch.0.path().join("logs/default/version_0/pairs.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["train"]["sources"][0]["rejected"][0]["first"], "line 6: `un`");
    assert_eq!(report["train"]["cleaning"]["kept"], 3);
    assert_eq!(report["train"]["cleaning"]["left_out"][0]["kind"], "seen before");
    assert_eq!(report["validation"]["sources"][0]["format"], "moses");

    let output = train(&scratch, &["--pairs", file, "--no-clean", "--no-normalize"]);
    assert!(stderr(&output).contains("5 training pairs"), "{}", stderr(&output));
    // A run from before there was such a key is resumed on the pairs as they are.
    let run = scratch.0.path().join("logs/default/version_1");
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(config.contains("\nclean = false\n"), "{config}");
    fs::write(run.join("config.toml"), config.replace("\nclean = false\n", "\n")).unwrap();
    let mut resume = Command::new(env!("CARGO_BIN_EXE_themo"));
    resume.args(["train", "--max-steps", "3", "--resume", run.to_str().unwrap()]);
    let output = resume.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));

    let output = train(&scratch, &["--pairs", file, "--min-caption-chars", "100"]);
    assert_fails(&output, 1, &["none of 6 training pairs is left", "with too short a side", "--no-clean"]);
    let output = train(&scratch, &["--pairs", file, "--columns", "es=x,en=y"]);
    assert_fails(&output, 1, &["p.csv has no columns x and y; it has es, en", "--columns es=es,en=en"]);
    let output = train(&scratch, &["--pairs", file, "--columns", "es"]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("does not name two columns"));
}

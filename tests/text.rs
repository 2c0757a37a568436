//! The real binary on texts, lists and image folders as users have them: packed, piped, in other encodings and layouts.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::Value;

mod common;

use common::{assert_fails, copy_tree, stderr};

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn themo(&self, args: &[&str], stdin: &[u8]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_themo"));
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.path("hub")).current_dir(env!("CARGO_MANIFEST_DIR"));
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A program that refuses early may not read it.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        child.wait_with_output().unwrap()
    }

    /// Trains a few steps on the given pairs.
    fn train(&self, pairs: &[&str], stdin: &[u8]) -> Output {
        let places = ["--log-dir", &self.path("logs"), "--cache-dir", &self.path("cache"), "--log-every", "1"];
        let models = ["--student", "data/demo/models/toy-beto", "--teacher", "data/demo/models/toy-clip"];
        let end = ["--batch-size", "8", "--max-steps", "4"];
        self.themo(&[&["train"], &models[..], &places, &end, pairs].concat(), stdin)
    }
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The folder of the run that an output is of.
#[track_caller]
fn run_of(output: &Output) -> PathBuf {
    succeeds(output).lines().find_map(|line| line.strip_prefix("run folder")).unwrap().trim().into()
}

fn pairs() -> String {
    (0..20).map(|k| format!("un círculo rojo {k}\ta red circle {k}\r\n")).collect()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn packed_and_piped_pairs_train_as_plain_ones() {
    let scratch = Scratch::new();
    let (text, packed) = (pairs(), compress_to_vec(pairs().as_bytes(), CompressionLevel::Fastest));
    let metrics = |run: &Path| fs::read_to_string(run.join("metrics.csv")).unwrap();
    let plain = metrics(&run_of(&scratch.train(&["--pairs", &scratch.write("p.tsv", &text)], b"")));
    assert!(plain.lines().count() > 4, "{plain}");
    let file = scratch.write("p.tsv.zst", &packed);
    assert_eq!(metrics(&run_of(&scratch.train(&["--pairs", &file], b""))), plain);
    let piped = run_of(&scratch.train(&["--pairs", "-"], &packed));
    assert_eq!(metrics(&piped), plain);
    // A resumed run needs them again.
    let resume =
        |stdin: &[u8]| scratch.themo(&["train", "--resume", piped.to_str().unwrap(), "--max-steps", "5"], stdin);
    assert_fails(&resume(b""), 1, &["no caption pair in standard input"]);
    assert_fails(&resume(b"uno\tone\n"), 1, &["not those that the run began with"]);
    succeeds(&resume(text.as_bytes()));
    assert!(metrics(&piped).lines().count() > plain.lines().count());
    assert_fails(&scratch.train(&["--pairs", "-", "--val-pairs", "-"], &packed), 2, &["pairs cannot be - twice"]);
    let truncated = scratch.write("cut.zst", &packed[..packed.len() / 2]);
    assert_fails(&scratch.train(&["--pairs", &truncated], b""), 1, &["cut.zst", "zstd", "truncated or corrupt after"]);
}

#[test]
fn other_encodings_are_refused_by_name() {
    let scratch = Scratch::new();
    for (name, bytes) in [("u16.tsv", utf16(&format!("\u{feff}{}", pairs()))), ("bare.tsv", utf16(&pairs()))] {
        let pairs = scratch.write(name, &bytes);
        assert_fails(&scratch.train(&["--pairs", &pairs], b""), 1, &["pairs", name, "UTF-16LE", "iconv -f UTF-16LE"]);
    }
    assert!(!Path::new(&scratch.path("logs")).exists());
    let embed = |kind: &str, list: &str| {
        let to = scratch.path("out.safetensors");
        scratch.themo(&["embed", "--model", "data/demo/models/toy-clip", kind, list, "--output", &to], b"")
    };
    for kind in ["--texts", "--images"] {
        let list = scratch.write("list", utf16("a red circle\n"));
        assert_fails(&embed(kind, &list), 1, &["list", "UTF-16LE"]);
        let list = scratch.write("list", b"a red circle\na \0red circle\n");
        assert_fails(&embed(kind, &list), 1, &["list, line 2: NUL bytes"]);
        let list = scratch.write("list", b"un ni\xf1o\n");
        assert_fails(&embed(kind, &list), 1, &["list, line 1: not UTF-8", "Windows-1252"]);
    }
    assert!(!Path::new(&scratch.path("out.safetensors")).exists());
}

#[test]
fn pairs_are_normalised_and_it_is_said_how_often() {
    let scratch = Scratch::new();
    let (composed, text) = (pairs(), pairs().replace('í', "i\u{301}"));
    let file = scratch.write("p.tsv", &text);
    let output = scratch.train(&["--pairs", &file, "--val-pairs", &file], b"");
    assert_eq!(stderr(&output).matches("normalised 20 captions to NFC").count(), 2, "{}", stderr(&output));
    // The run is that of the composed captions, and can be resumed on either.
    fs::write(&file, composed).unwrap();
    let run = run_of(&output);
    succeeds(&scratch.themo(&["train", "--resume", run.to_str().unwrap(), "--max-steps", "5"], b""));

    fs::write(&file, &text).unwrap();
    let output = scratch.train(&["--pairs", &file, "--no-normalize"], b"");
    assert!(!stderr(&output).contains("normalised"), "{}", stderr(&output));
    let run = run_of(&output);
    let config = run.join("config.toml");
    let written = fs::read_to_string(&config).unwrap();
    assert!(written.contains("\nnormalize = false\n"), "{written}");
    // A run from before there was such a key took them as they are, too.
    fs::write(&config, written.replace("\nnormalize = false\n", "\n")).unwrap();
    succeeds(&scratch.themo(&["train", "--resume", run.to_str().unwrap(), "--max-steps", "5"], b""));
}

#[test]
fn lists_begin_with_a_mark_or_come_packed_or_piped() {
    let scratch = Scratch::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/mscoco/val2014");
    let mut images: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().display().to_string()).collect();
    images.sort();
    let list = format!("\u{feff}{}\r\n{}\n", images[0], images[1]);
    let packed = compress_to_vec(list.as_bytes(), CompressionLevel::Fastest);
    let to = scratch.path("out.safetensors");
    let embed = |args: &[&str], stdin: &[u8]| {
        let model = ["embed", "--model", "data/demo/models/toy-clip", "--output", &to];
        scratch.themo(&[&model[..], args].concat(), stdin)
    };
    let mut written = Vec::new();
    for (path, stdin) in [(scratch.write("l", &list), ""), (scratch.write("l.zst", packed), ""), ("-".into(), &list)] {
        assert!(succeeds(&embed(&["--images", &path], stdin.as_bytes())).starts_with("2 images to "));
        written.push(fs::read(&to).unwrap());
    }
    assert!(written[0] == written[1] && written[0] == written[2]);
    let texts = scratch.write("t", "\u{feff}a red circle\n\na blue moon\n");
    assert!(succeeds(&embed(&["--texts", &texts], b"")).starts_with("3 texts to "));
    assert_fails(&embed(&["--texts", "-", "--images", "-"], b"x\n"), 2, &["standard input"]);
}

#[test]
fn layouts_and_names_of_classes() {
    let scratch = Scratch::new();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/imagenet");
    let run = run_of(&scratch.train(&["--pairs", &scratch.write("p.tsv", pairs())], b""));
    let data = Path::new(&scratch.path("data")).to_owned();
    let root = data.join("imagenet");
    copy_tree(&demo, &root);
    let test = |args: &[&str]| {
        let what = ["test", "--version-path", run.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--json"];
        let output = scratch.themo(&[&what[..], &["--task", "classification", "--with-teacher"], args].concat(), b"");
        let json: Value = serde_json::from_str(&succeeds(&output)).unwrap();
        (json["classification"].clone(), json["teacher"]["classification"].clone(), stderr(&output))
    };
    let (student, teacher, said) = test(&[]);
    assert!(student.is_object() && teacher.is_object() && !said.contains("cannot be distinguished"), "{said}");

    // The same images in torchvision's layout give the same figures.
    let solution = fs::read_to_string(root.join("LOC_val_solution.csv")).unwrap();
    for line in solution.lines().skip(1) {
        let (stem, boxes) = line.split_once(',').unwrap();
        let folder = root.join("val").join(boxes.split(' ').next().unwrap());
        fs::create_dir_all(&folder).unwrap();
        let image = format!("ILSVRC/Data/CLS-LOC/val/{stem}.JPEG");
        fs::rename(root.join(image), folder.join(format!("{stem}.jpeg"))).unwrap();
    }
    fs::create_dir_all(root.join("val/n99999999")).unwrap();
    fs::write(root.join("val/n99999999/a.JPEG"), "").unwrap();
    let (again, teacher_again, said) = test(&[]);
    // The bootstrap draws images by their place, which differs.
    let figures = |scores: &Value| {
        let mut scores = scores.clone();
        scores.as_object_mut().unwrap().remove("ci95");
        scores
    };
    assert_eq!((figures(&again), figures(&teacher_again)), (figures(&student), figures(&teacher)));
    assert!(said.contains("left out 1 folders of images that are of no class: n99999999"), "{said}");

    // A name that two classes share is warned about, in Spanish; in English one of them has a synonym.
    let names = fs::read_to_string(root.join("classnames_es.txt")).unwrap();
    let twice = scratch.write("names", names.replacen("luna azul", "Flecha azul", 1));
    let (fewer, _, said) = test(&["--class-names", &twice]);
    assert!(said.contains("WARN") && said.contains("n00000001 (blue arrow) and n00000002 (blue moon)"), "{said}");
    assert_ne!(fewer, student);
    let mapping = fs::read_to_string(root.join("LOC_synset_mapping.txt")).unwrap();
    let shared = mapping.replacen("blue moon, blue crescent", "Blue Arrow, blue moon", 1);
    assert_ne!(shared, mapping);
    fs::write(root.join("LOC_synset_mapping.txt"), shared).unwrap();
    let (_, same, said) = test(&[]);
    assert_eq!(figures(&same), figures(&teacher));
    assert!(
        said.contains("Blue Arrow (n00000002) is called blue moon") && !said.contains("cannot be distinguished"),
        "{said}"
    );
}

//! What `themo test` and `themo embed` compute is not lost where it cannot be written, and an output is written where it
//! was asked for, whole or not at all.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use tempfile::TempDir;

mod common;

use common::{assert_fails, demo, golden, root, stderr};

const CLIP: &str = "data/demo/models/toy-clip";

fn themo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_themo"));
    command.current_dir(root("")).args(args).env("HF_HUB_OFFLINE", "1").env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A folder with texts, and `themo embed` of them.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        let scratch = Self(tempfile::tempdir().unwrap());
        fs::write(scratch.path("texts"), "a blue moon\n\na red circle\n").unwrap();
        scratch
    }

    fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.0.path().join(name.as_ref())
    }

    fn embed(&self, output: impl AsRef<OsStr>) -> Command {
        let mut command = themo(&["embed", "--model", CLIP, "--texts"]);
        command.arg(self.path("texts")).arg("--output").arg(output);
        command
    }

    /// The names in the folder, but for the texts.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.retain(|name| name != "texts");
        names.sort();
        names
    }

    /// What the embedding of the texts is, written to a regular file.
    fn expected(&self) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("expected");
        assert_succeeds(&self.embed(&path).output().unwrap());
        fs::read(path).unwrap()
    }
}

#[track_caller]
fn assert_succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn tensors(bytes: &[u8]) -> BTreeMap<String, Tensor> {
    candle_core::safetensors::load_buffer(bytes, &Device::Cpu).unwrap().into_iter().collect()
}

fn image_names(bytes: &[u8]) -> Vec<String> {
    let (_, metadata) = safetensors::SafeTensors::read_metadata(bytes).unwrap();
    serde_json::from_str(&metadata.metadata().as_ref().unwrap()["image_names"]).unwrap()
}

#[test]
fn figures_are_printed_before_files_and_in_spite_of_them() {
    let scratch = Scratch::new();
    let (logs, cache) = (scratch.path("logs"), scratch.path("cache"));
    let mut train = themo(&["train", "--config", "configs/demo.toml", "--max-epochs", "0", "--log-dir"]);
    assert_succeeds(&train.arg(&logs).arg("--cache-dir").arg(&cache).output().unwrap());
    let run = logs.join("demo/version_0");
    let test = |more: &[&str]| {
        let mut command = themo(&["test", "--data-dir", "data/demo", "--version-path"]);
        command.arg(&run).args(more);
        command
    };
    let whole = assert_succeeds(&test(&[]).output().unwrap());
    let (figures, written) = whole.split_once("\nWritten to ").unwrap();
    assert!(figures.contains("recall@1") && figures.contains("zero-shot"), "{whole}");
    assert_eq!(Path::new(written.trim_end()), run.join("eval"));

    // A directory in the way of one file: the figures are seen, and the other file is written.
    let (retrieval, classification) = (run.join("eval/retrieval.json"), run.join("eval/classification.json"));
    let read = || {
        let mut figures: serde_json::Value = serde_json::from_slice(&fs::read(&classification).unwrap()).unwrap();
        figures.as_object_mut().unwrap().remove("measured").expect("what it was measured with, and when");
        figures
    };
    let kept = read();
    fs::remove_file(&retrieval).unwrap();
    fs::remove_file(&classification).unwrap();
    fs::create_dir_all(retrieval.join("mine")).unwrap();
    let refused = test(&[]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&refused.stdout), format!("{figures}\n"));
    assert_fails(&refused, 1, &["WARN", "cannot write", "eval/retrieval.json", "figures above"]);
    assert!(!stderr(&refused).contains("--"), "{}", stderr(&refused));
    assert_eq!(read(), kept);
    assert!(retrieval.join("mine").is_dir());
    let json = test(&["--json"]).output().unwrap();
    assert!(serde_json::from_slice::<serde_json::Value>(&json.stdout).unwrap()["retrieval"].is_object());
    assert_fails(&json, 1, &["eval/retrieval.json"]);

    // A file where the folder belongs.
    fs::remove_dir_all(run.join("eval")).unwrap();
    fs::write(run.join("eval"), "mine").unwrap();
    let refused = test(&["-q"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&refused.stdout), format!("{figures}\n"));
    assert_fails(&refused, 1, &["retrieval.json", "classification.json"]);
    assert_eq!(fs::read(run.join("eval")).unwrap(), b"mine");

    // Figures that cannot be printed are written.
    fs::remove_file(run.join("eval")).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert_fails(&test(&[]).stdout(full).output().unwrap(), 1, &["standard output"]);
    assert_eq!(read(), kept);
}

#[test]
fn a_baseline_that_cannot_be_kept_is_printed() {
    let scratch = Scratch::new();
    fs::write(scratch.path("file"), "mine").unwrap();
    let mut command = themo(&["test", "--baseline", "--data-dir", "data/demo", "--task", "retrieval", "--vision"]);
    let mclip = golden("tiny-mclip");
    command.arg(CLIP).arg("--baseline-model").arg(mclip).arg("--cache-dir").arg(scratch.path("file"));
    let refused = command.output().unwrap();
    assert_fails(&refused, 1, &["cannot write", "file/baseline-retrieval-", "figures above", "--cache-dir"]);
    assert!(!stderr(&refused).contains("--log-dir"), "{}", stderr(&refused));
    assert!(String::from_utf8_lossy(&refused.stdout).contains("recall@1"), "{}", stderr(&refused));
    assert_eq!(fs::read(scratch.path("file")).unwrap(), b"mine");
}

#[test]
fn an_output_that_cannot_be_is_found_out_before_any_work() {
    let scratch = Scratch::new();
    fs::write(scratch.path("file"), "mine").unwrap();
    // Neither the texts nor the model are there: the output is looked at first.
    for (output, code, told) in [
        (scratch.path("file/out"), 1, "file/out"),
        (scratch.path("n".repeat(256)), 1, "too long"),
        (scratch.path("."), 2, "is a folder"),
        (scratch.path("new/"), 2, "is a folder"),
        (PathBuf::from("/proc/themo/out"), 1, "/proc/themo/out"),
    ] {
        let mut command = themo(&["embed", "--model", "no/such", "--texts", "/no/such", "--output"]);
        let refused = command.arg(&output).output().unwrap();
        assert_fails(&refused, code, &[told, "--output"]);
        assert!(!stderr(&refused).contains("-dir"), "{}", stderr(&refused));
    }
    // What is found out later leaves no trace: not the folders that were made for it, nor a part of a file.
    let refused = themo(&["embed", "--model", "no/such", "--texts", "/dev/null", "--output"])
        .arg(scratch.path("new/folders/out"))
        .output()
        .unwrap();
    assert_fails(&refused, 1, &["no text in /dev/null"]);
    let refused = themo(&["embed", "--model", "no/such", "--texts"])
        .arg(scratch.path("texts"))
        .arg("--output")
        .arg(scratch.path("file"))
        .output()
        .unwrap();
    assert_fails(&refused, 1, &["no/such"]);
    assert_eq!(scratch.names(), ["file"]);
    assert_eq!(fs::read(scratch.path("file")).unwrap(), b"mine");
}

#[test]
fn files_are_replaced_under_the_links_that_lead_to_them() {
    let scratch = Scratch::new();
    let expected = scratch.expected();
    fs::create_dir(scratch.path("big")).unwrap();
    symlink("big/o", scratch.path("link")).unwrap();
    symlink("link", scratch.path("link to link")).unwrap();
    for old in [None, Some("old")] {
        old.iter().for_each(|old| fs::write(scratch.path("big/o"), old).unwrap());
        let done = assert_succeeds(&scratch.embed(scratch.path("link to link")).output().unwrap());
        assert_eq!(done, format!("3 texts to {}\n", scratch.path("link to link").display()));
        assert_eq!(fs::read(scratch.path("big/o")).unwrap(), expected);
    }
    assert_eq!(fs::read_link(scratch.path("link")).unwrap(), Path::new("big/o"));
    assert_eq!(fs::read_link(scratch.path("link to link")).unwrap(), Path::new("link"));
    assert_eq!(fs::read_dir(scratch.path("big")).unwrap().count(), 1);
    symlink("circle", scratch.path("circle")).unwrap();
    assert_fails(&scratch.embed(scratch.path("circle")).output().unwrap(), 1, &["circle", "links"]);

    // Names of all lengths, and of any bytes.
    for name in [&[b'n'; 255][..], b"a\xff.st", b"a\xfe.st", b"new/folder/o"] {
        let path = scratch.path(OsStr::from_bytes(name));
        assert_succeeds(&scratch.embed(&path).output().unwrap());
        assert_eq!(fs::read(&path).unwrap(), expected);
    }
    let shown = |name: &[u8]| assert_succeeds(&scratch.embed(scratch.path(OsStr::from_bytes(name))).output().unwrap());
    assert_ne!(shown(b"a\xff.st"), shown(b"a\xfe.st"));
}

#[test]
fn pipes_and_descriptors_are_written_through() {
    let scratch = Scratch::new();
    let expected = scratch.expected();
    let pipe = scratch.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).unwrap()
    });
    assert_succeeds(&scratch.embed(&pipe).output().unwrap());
    assert_eq!(reader.join().unwrap(), expected);
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());

    for stdout in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let done = scratch.embed(stdout).output().unwrap();
        assert!(done.status.success() && done.stdout == expected, "{stdout}: {}", stderr(&done));
        assert!(stderr(&done).contains("3 texts to "), "{}", stderr(&done));
        // A regular file behind it: written where the descriptor stands, after what is there.
        let mut file = File::options().create(true).append(true).open(scratch.path("file")).unwrap();
        file.write_all(b"before").unwrap();
        assert_succeeds(&scratch.embed(stdout).stdout(file).output().unwrap());
        assert_eq!(fs::read(scratch.path("file")).unwrap(), [b"before", &expected[..]].concat(), "{stdout}");
        fs::remove_file(scratch.path("file")).unwrap();
    }
    // Another descriptor, of a file without a name.
    let script = r#"exec 3>"$1/three" 4<"$1/three" && rm "$1/three" && shift && "$@" --output /dev/fd/3 && cat <&4"#;
    let embed = scratch.embed("x");
    let args: Vec<_> = embed.get_args().collect();
    let mut shell = Command::new("sh");
    shell.current_dir(root("")).env("HF_HUB_OFFLINE", "1").args(["-c", script, "sh"]).arg(scratch.0.path());
    let done = shell.arg(env!("CARGO_BIN_EXE_themo")).args(&args[..args.len() - 2]).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(done.stdout.ends_with(&expected), "{}", stderr(&done));

    // Nobody reads, or the disk behind it is full.
    let full = || File::options().write(true).open("/dev/full").unwrap();
    assert_fails(&scratch.embed("-").stdout(full()).output().unwrap(), 1, &["cannot write -", "No space"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_fails(&scratch.embed("-").stdout(writer).output().unwrap(), 1, &["cannot write -", "Broken pipe"]);
    assert_eq!(scratch.names(), ["pipe"]);
}

/// `themo embed` of what is written to its standard input.
fn embed_stdin(output: &Path) -> Child {
    let mut command = themo(&["embed", "--model", CLIP, "--texts", "-", "--output"]);
    command.arg(output).stdin(Stdio::piped()).spawn().unwrap()
}

/// Waits until a file in the folder of `output` is longer than `bytes`.
#[track_caller]
fn wait_for_growth(output: &Path, bytes: u64) {
    let began = Instant::now();
    let length = |entry: fs::DirEntry| entry.metadata().map_or(0, |metadata| metadata.len());
    while fs::read_dir(output.parent().unwrap()).unwrap().flatten().map(length).max().unwrap_or(0) < bytes {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing was written");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn texts_are_embedded_as_they_come_and_an_end_leaves_nothing() {
    let lines: String = (0..3000).map(|n| format!("a picture of {n} moons\n")).collect();
    let row_bytes = 4 * 64;
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("out");
    let mut child = embed_stdin(&output);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    // More may come; what is there is written.
    wait_for_growth(&output, 1024 * row_bytes);
    stdin.write_all(b"one more").unwrap();
    drop(stdin);
    let done = child.wait_with_output().unwrap();
    assert_eq!(assert_succeeds(&done), format!("3001 texts to {}\n", output.display()));
    let streamed = fs::read(&output).unwrap();
    assert_eq!(tensors(&streamed)["text_embeds"].dims(), [3001, 64]);
    // The same texts from a file, the same bytes.
    fs::write(scratch.path().join("texts"), lines + "one more").unwrap();
    let mut command = themo(&["embed", "--model", CLIP, "--output"]);
    command.arg(scratch.path().join("other")).arg("--texts").arg(scratch.path().join("texts"));
    assert_succeeds(&command.output().unwrap());
    assert_eq!(fs::read(scratch.path().join("other")).unwrap(), streamed);

    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        let scratch = tempfile::tempdir().unwrap();
        let output = scratch.path().join("new/out");
        let mut child = embed_stdin(&output);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all("a moon\n".repeat(3000).as_bytes()).unwrap();
        while !output.parent().unwrap().exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        wait_for_growth(&output, 1024 * row_bytes);
        assert!(Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status().unwrap().success());
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{told}");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "{signal} left something behind");
    }
}

#[test]
fn what_is_wrong_with_the_last_text_of_a_file_is_found_out_before_any_work() {
    let scratch = Scratch::new();
    fs::write(scratch.path("texts"), [b"a moon\n".repeat(5000), b"m\xe9xico\n".to_vec()].concat()).unwrap();
    let mut command = themo(&["embed", "--model", "no/such", "--output"]);
    let refused = command.arg(scratch.path("o")).arg("--texts").arg(scratch.path("texts")).output().unwrap();
    assert_fails(&refused, 1, &["texts, line 5001: not UTF-8"]);
    assert!(scratch.names().is_empty());
}

#[test]
fn image_names_that_are_no_text_stay_apart_and_cannot_act_on_the_terminal() {
    let scratch = Scratch::new();
    let photos = scratch.path("photos");
    fs::create_dir(&photos).unwrap();
    let image = fs::read(demo("mscoco/val2014/COCO_val2014_000000570471.jpg")).unwrap();
    let put = |name: &[u8], bytes: &[u8]| fs::write(photos.join(OsStr::from_bytes(name)), bytes).unwrap();
    let good = [&b"a\xfe.jpg"[..], b"a\xff.jpg", "a\u{fffd}.jpg".as_bytes(), "ñ.jpg".as_bytes(), b"\x1b[2J\n.jpg"];
    good.iter().for_each(|name| put(name, &image));
    put(b"cut\x1b[31m\xfe.jpg", &image[..image.len() / 2]);
    put(b"cut\x1b[31m\xff.jpg", &image[..image.len() / 2]);
    put(b"text\r\x1b[1A", b"no image");
    let output = scratch.path("o");
    let mut command = themo(&["embed", "--model", CLIP, "--batch-size", "2", "--images"]);
    let done = command.arg(&photos).arg("--output").arg(&output).output().unwrap();
    assert_succeeds(&done);
    let names = image_names(&fs::read(&output).unwrap());
    let want = ["\u{1b}[2J\n.jpg", "a\u{fffd}\u{fffd}.jpg", "a\u{fffd}fe.jpg", "a\u{fffd}ff.jpg", "ñ.jpg"];
    assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>(), want.map(str::to_owned).iter().collect());
    let told = stderr(&done);
    assert!(
        told.contains("skipped 2 of 7") && told.contains("\u{fffd}fe.jpg") && told.contains("\u{fffd}ff.jpg"),
        "{told}"
    );
    assert!(!told.contains(['\u{1b}', '\r']) && told.contains(r"cut\u{1b}[31m") && told.contains(r"text\r"), "{told}");
}

#[test]
fn hints_name_options_of_the_command_and_the_right_file() {
    let scratch = Scratch::new();
    // An M-CLIP whose tokenizer is that of a model that is not here.
    let mclip = scratch.path("mclip");
    fs::create_dir(&mclip).unwrap();
    for entry in fs::read_dir(golden("tiny-mclip")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if !name.contains("token") && !name.contains("sentencepiece") {
            fs::copy(entry.path(), mclip.join(name)).unwrap();
        }
    }
    let config = fs::read_to_string(mclip.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["modelBase"] = "no/such-base".into();
    fs::write(mclip.join("config.json"), config.to_string()).unwrap();
    let mut command = themo(&["embed", "--texts", "README.md", "--output"]);
    let refused =
        command.arg(scratch.path("o")).arg("--model").arg(&mclip).env("HF_HOME", scratch.path("hub")).output();
    let refused = refused.unwrap();
    assert_fails(&refused, 1, &["no/such-base"]);
    assert!(!stderr(&refused).contains("--baseline-model"), "{}", stderr(&refused));

    // A checkpoint without its state.
    let logs = scratch.path("logs");
    let mut train = themo(&["train", "--config", "configs/demo.toml", "--max-steps", "2", "--log-dir"]);
    assert_succeeds(&train.arg(&logs).arg("--cache-dir").arg(scratch.path("cache")).output().unwrap());
    let run = logs.join("demo/version_0");
    let mut best = fs::read_dir(run.join("checkpoints")).unwrap().flatten().map(|entry| entry.path());
    for (folder, command, option) in [
        (best.find(|path| !path.ends_with("last")).unwrap(), "test", "--version-path"),
        (run.join("checkpoints/last"), "train", "--resume"),
    ] {
        let state = folder.join("state.json");
        let whole = fs::read(&state).unwrap();
        for broken in [None, Some(&whole[..whole.len() / 2])] {
            match broken {
                Some(bytes) => fs::write(&state, bytes).unwrap(),
                None => fs::remove_file(&state).unwrap(),
            }
            let refused = themo(&[command, option]).arg(&run).output().unwrap();
            assert_fails(&refused, 1, &["state.json", "checkpoint is damaged", folder.to_str().unwrap()]);
            assert!(!stderr(&refused).contains("model folder"), "{}", stderr(&refused));
        }
        fs::write(&state, whole).unwrap();
    }
}

//! Damaged files of every format: errors or success, never a panic, a hang, or memory far beyond the files' size.
//! (`tests/pickle.rs` does the same for PyTorch's files.) The mutations are the same in every run.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use candle_core::Device;
use themo::compute::Compute;
use themo::config::Config;
use themo::data::Preprocess;
use themo::data::image::Transparency;
use themo::data::tokens::TextTokenizer;
use themo::error::Result;
use themo::models::student::Head;
use themo::models::{ClipText, ClipVision, Mclip, MclipConfig, Student, TokenizerFacts};
use themo::nn::{Pooling, Tokens};
use themo::runs::lightning::Lightning;

mod common;

use common::counting::{Counting, LIVE, PEAK};
use common::random::Random;
use common::{demo, golden};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Mutations of each file; `FUZZ_ROUNDS` in the environment asks for more.
const ROUNDS: usize = 150;
/// Memory that loading may take: this many times the size of the folder's files, and a constant.
const FACTOR: usize = 32;
const CONSTANT: usize = 4 << 20;

const TEXTS: [&str; 6] = [
    "un corazón MARRÓN pequeño",
    "a small  red circle",
    "日本 ½ ﬁ ﷺ 🙂\u{200b}",
    "",
    "[MASK] <mask> <s>",
    "a\u{301}n\u{303} x",
];

const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1",
    "2",
    "0.5",
    "1e999",
    "4294967296",
    "1000000000000",
    "18446744073709551615",
    "9223372036854775807",
    "99999999999999999999999999",
    "1e-400",
];
const VALUES: [&str; 10] = ["null", "true", "false", "\"\"", "[]", "{}", "\"x\"", "[0]", "-7", "[[[[]]]]"];

/// Damages a file in one to three ways.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.pick(&[1, 1, 1, 2, 3]) {
        if bytes.is_empty() {
            return;
        }
        // The start of a file is where its structure is.
        let zone = if random.below(2) == 0 { bytes.len() } else { bytes.len().min(2000) };
        match random.below(11) {
            0 => (0..1 + random.below(4)).for_each(|_| bytes[random.below(zone)] ^= 1 << random.below(8)),
            1 => bytes.truncate(random.below(bytes.len())),
            2 => {
                let (at, count) = (random.below(zone), 1 + random.below(16));
                let new: Vec<u8> = (0..count).map(|_| random.below(256) as u8).collect();
                bytes.splice(at..at, new).for_each(drop);
            }
            3 => drop(bytes.drain(random.range(zone))),
            4 => {
                let range = random.range(zone);
                let (copy, at) = (bytes[range].to_vec(), random.below(zone));
                bytes.splice(at..at, copy).for_each(drop);
            }
            5 => {
                let (a, b) = (random.range(zone), random.range(zone));
                let length = a.len().min(b.len());
                (0..length).for_each(|i| bytes.swap(a.start + i, b.start + i));
            }
            6 => {
                let at = random.below(zone.saturating_sub(8));
                let number = random.pick(&[0u64, 1, 1 << 20, 1 << 31, u64::from(u32::MAX), 1 << 40, 1 << 63, u64::MAX]);
                let length = bytes.len();
                bytes[at..(at + 8).min(length)].copy_from_slice(&number.to_le_bytes()[..8.min(length - at)]);
            }
            7 | 8 => replace(bytes, random, u8::is_ascii_digit, &NUMBERS),
            _ => replace(bytes, random, |byte| !b",:{}[] \n\t".contains(byte), &VALUES),
        }
    }
}

/// Replaces a run of bytes that are `part` of it by one of `values`.
fn replace(bytes: &mut Vec<u8>, random: &mut Random, part: fn(&u8) -> bool, values: &[&str]) {
    let from = random.below(bytes.len());
    let Some(start) = bytes[from..].iter().position(part).map(|at| from + at) else { return };
    let end = bytes[start..].iter().position(|byte| !part(byte)).map_or(bytes.len(), |at| start + at);
    let start = bytes[..start].iter().rposition(|byte| !part(byte)).map_or(0, |at| at + 1);
    bytes.splice(start..end, random.pick(values).bytes()).for_each(drop);
}

fn compute() -> Compute {
    Compute::new(Device::Cpu)
}

fn tokens() -> Result<Tokens> {
    Tokens::pack(&[vec![4, 20, 30, 5], vec![4, 5]], 0)
}

fn tokenizer(folder: &Path) -> Result<()> {
    TextTokenizer::from_folder(folder, 16)?.encode(&TEXTS).map(drop)
}

fn bert(folder: &Path) -> Result<()> {
    Student::load(folder, Head::new(Pooling::Mean, 20), 0, &compute())?.embed(&tokens()?).map(drop)
}

fn clip(folder: &Path) -> Result<()> {
    let text = ClipText::load(folder, &compute()).and_then(|text| text.project(&text.pooled(&tokens()?, None)?));
    ClipVision::load(folder, &compute())?;
    text.map(drop)
}

fn mclip(folder: &Path) -> Result<()> {
    match MclipConfig::find(folder)? {
        Some(config) => Mclip::load(folder, &config, &compute())?.embed(&tokens()?).map(drop),
        None => Ok(()),
    }
}

fn checkpoint(folder: &Path) -> Result<()> {
    Student::from_checkpoint(folder, &compute())?.embed(&tokens()?).map(drop)
}

fn preprocess(folder: &Path) -> Result<()> {
    Preprocess::from_file(&folder.join("preprocessor_config.json"), Transparency::Drop)?
        .load(&folder.join("image.jpg"))
        .map(drop)
}

fn config(folder: &Path) -> Result<()> {
    Config::resolve(Some(&folder.join("config.toml")), toml::Table::new()).map(drop)
}

fn hparams(folder: &Path) -> Result<()> {
    Lightning::find(folder).map(drop)
}

/// What is damaged, the files that stand whole beside it, and what reads them.
struct Target {
    file: &'static str,
    beside: Vec<(PathBuf, &'static str)>,
    read: fn(&Path) -> Result<()>,
}

fn targets(made: &Path) -> Vec<Target> {
    let mut targets = Vec::new();
    // The first of the files is damaged.
    let mut add = |files: Vec<(PathBuf, &'static str)>, read| {
        targets.push(Target { file: files[0].1, beside: files, read });
    };
    let (tiny, beto, toy) = (golden("tiny-bert"), demo("models/toy-beto"), demo("models/toy-clip"));
    let weights = (tiny.join("model.safetensors"), "model.safetensors");
    add(vec![weights.clone(), (tiny.join("config.json"), "config.json")], bert);
    add(vec![(tiny.join("config.json"), "config.json"), weights.clone()], bert);
    for bin in ["old-bert.bin", "legacy-bert.bin"] {
        add(vec![(golden(bin), "pytorch_model.bin"), (tiny.join("config.json"), "config.json")], bert);
    }
    let (index, one) = (made.join("index.json"), (weights.0.clone(), "one.safetensors"));
    add(vec![(index, "model.safetensors.index.json"), one, (tiny.join("config.json"), "config.json")], bert);
    let clip_weights = (golden("tiny-clip/model.safetensors"), "model.safetensors");
    add(vec![(golden("tiny-clip/config.json"), "config.json"), clip_weights], clip);
    let bin = (golden("tiny-mclip/pytorch_model.bin"), "pytorch_model.bin");
    add(vec![(golden("tiny-mclip/config.json"), "config.json"), bin], mclip);
    let head = (made.join("themo.json"), "themo.json");
    let trained = (made.join("trained.safetensors"), "model.safetensors");
    let projection = (made.join("head.safetensors"), "head.safetensors");
    let config = (made.join("config.json"), "config.json");
    add(vec![head.clone(), trained.clone(), projection.clone(), config.clone()], checkpoint);
    add(vec![projection, trained, head, config], checkpoint);
    add(vec![(beto.join("tokenizer.json"), "tokenizer.json")], tokenizer);
    add(vec![(toy.join("tokenizer.json"), "tokenizer.json")], tokenizer);
    add(vec![(golden("tiny-mclip/tokenizer.json"), "tokenizer.json")], tokenizer);
    add(vec![(golden("tiny-xlmr-tokenizer/json/tokenizer.json"), "tokenizer.json")], tokenizer);
    let settings = (beto.join("tokenizer_config.json"), "tokenizer_config.json");
    add(vec![(beto.join("vocab.txt"), "vocab.txt"), settings.clone()], tokenizer);
    add(vec![settings, (beto.join("vocab.txt"), "vocab.txt")], tokenizer);
    let (vocab, merges) = ((toy.join("vocab.json"), "vocab.json"), (toy.join("merges.txt"), "merges.txt"));
    add(vec![vocab.clone(), merges.clone()], tokenizer);
    add(vec![merges, vocab], tokenizer);
    let model = golden("tiny-xlmr-tokenizer/sentencepiece.bpe.model");
    add(vec![(model.clone(), "sentencepiece.bpe.model")], tokenizer);
    add(vec![(model.clone(), "tokenizer.model"), (made.join("camembert.json"), "config.json")], tokenizer);
    // What decides about ids beside a vocabulary, and each class from a tokenizer.json.
    let (of_bert, whole) = ((made.join("bert.json"), "config.json"), (beto.join("tokenizer.json"), "tokenizer.json"));
    let special = (made.join("special_tokens_map.json"), "special_tokens_map.json");
    let added = (made.join("added_tokens.json"), "added_tokens.json");
    let all = (made.join("tokenizer_config.json"), "tokenizer_config.json");
    add(vec![all.clone(), whole.clone(), of_bert.clone()], tokenizer);
    add(vec![all, (toy.join("tokenizer.json"), "tokenizer.json"), (made.join("clip.json"), "config.json")], tokenizer);
    add(vec![special.clone(), added.clone(), whole.clone(), of_bert.clone()], tokenizer);
    add(vec![added.clone(), special.clone(), (beto.join("vocab.txt"), "vocab.txt"), of_bert.clone()], tokenizer);
    add(vec![of_bert.clone(), added, special, whole.clone()], tokenizer);
    add(vec![whole, of_bert], tokenizer);
    for (folder, kind) in [("tiny-roberta", "roberta"), ("tiny-camembert", "camembert")] {
        let whole = golden(&format!("{folder}-tokenizer/tokenizer.json"));
        add(vec![(whole, "tokenizer.json"), (made.join(format!("{kind}.json")), "config.json")], tokenizer);
    }
    let (vocab, merges) = (golden("tiny-roberta-tokenizer/vocab.json"), golden("tiny-roberta-tokenizer/merges.txt"));
    let (vocab, merges) = ((vocab, "vocab.json"), (merges, "merges.txt"));
    add(vec![vocab.clone(), merges.clone()], tokenizer);
    add(vec![merges, vocab], tokenizer);
    let image = demo("mscoco/train2014/COCO_train2014_000000019700.jpg");
    let settings = (golden("tiny-clip/preprocessor_config.json"), "preprocessor_config.json");
    add(vec![settings, (image, "image.jpg")], preprocess);
    add(vec![(golden("../../configs/demo.toml"), "config.toml")], self::config);
    let name = "checkpoints/epoch=3-train-loss=0.2440.ckpt";
    add(
        vec![(golden("lightning/version_0/hparams.yaml"), "hparams.yaml"), (golden("tiny-bert/config.json"), name)],
        hparams,
    );
    targets
}

/// Files that no fixture has: an index, a checkpoint of themo, and a tokenizer's settings.
fn make(folder: &Path) {
    let write = |name: &str, json: serde_json::Value| fs::write(folder.join(name), json.to_string()).unwrap();
    for kind in ["bert", "clip", "roberta", "camembert"] {
        write(&format!("{kind}.json"), serde_json::json!({"model_type": kind, "tokenizer_class": null}));
    }
    let token = |content: &str| {
        serde_json::json!({"content": content, "single_word": true, "lstrip": true, "rstrip": true,
            "normalized": true, "special": false})
    };
    write(
        "tokenizer_config.json",
        serde_json::json!({"do_lower_case": true, "strip_accents": null, "truncation_side": "left",
            "split_special_tokens": false, "mask_token": "<mask>", "extra_special_tokens": {"image_token": "<s>"},
            "additional_special_tokens": ["red", "<x>"],
            "added_tokens_decoder": {"1": token("un"), "7": token(" small "), "600": token("<mask>")}}),
    );
    write(
        "special_tokens_map.json",
        serde_json::json!({"mask_token": token("[MASK]"), "additional_special_tokens": ["small", "x"]}),
    );
    write("added_tokens.json", serde_json::json!({"un": 3, "\u{a0}x": 600, "[MASK]": 4, "日": 9}));
    let tensors = candle_core::safetensors::load(golden("tiny-bert/model.safetensors"), &Device::Cpu).unwrap();
    let map: serde_json::Map<String, serde_json::Value> =
        tensors.keys().map(|name| (name.clone(), "one.safetensors".into())).collect();
    fs::write(folder.join("index.json"), serde_json::json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    let student = Student::load(&golden("tiny-bert"), Head::new(Pooling::Mean, 20), 0, &compute()).unwrap();
    student.save(folder, TokenizerFacts::default()).unwrap();
    fs::rename(folder.join("model.safetensors"), folder.join("trained.safetensors")).unwrap();
}

/// Ends the process if a mutation is read for more than a minute.
fn watch(since: Instant, begun: &'static AtomicUsize) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let millis = since.elapsed().as_millis() as usize;
            if millis.saturating_sub(begun.load(Relaxed)) > 60_000 {
                eprintln!("a damaged file is read for more than a minute");
                std::process::exit(101);
            }
        }
    });
}

#[test]
fn damaged_files_are_errors_or_values() {
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    let start = Instant::now();
    let rounds = std::env::var("FUZZ_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let made = tempfile::tempdir().unwrap();
    make(made.path());
    watch(start, &BEGUN);
    let (mut faults, mut total, mut succeeded) = (Vec::new(), 0, 0);
    for (number, target) in targets(made.path()).iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        for (from, name) in &target.beside {
            fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            fs::copy(from, folder.path().join(name)).unwrap();
        }
        let path = folder.path().join(target.file);
        let whole = fs::read(&path).unwrap();
        // Whole files are read (and what is made once in a process is made).
        if let Err(error) = (target.read)(folder.path()) {
            panic!("{}, whole: {error}", target.file);
        }
        let others: u64 = target.beside.iter().skip(1).map(|(from, _)| fs::metadata(from).unwrap().len()).sum();
        let (mut random, mut worst, mut slowest, mut good) =
            (Random(0x9e37_79b9_7f4a_7c15 + number as u64), 0, Duration::ZERO, 0);
        for round in 0..rounds {
            let mut bytes = whole.clone();
            mutate(&mut bytes, &mut random);
            fs::write(&path, &bytes).unwrap();
            let begun = Instant::now();
            BEGUN.store(start.elapsed().as_millis() as usize, Relaxed);
            let before = LIVE.load(Relaxed);
            PEAK.store(before, Relaxed);
            let result = catch_unwind(AssertUnwindSafe(|| (target.read)(folder.path())));
            let taken = PEAK.load(Relaxed).saturating_sub(before);
            (worst, slowest) = (worst.max(taken), slowest.max(begun.elapsed()));
            let allowed = FACTOR * (bytes.len() + others as usize) + CONSTANT;
            let what = |fault: &str| format!("{} #{number}, mutation {round}: {fault}", target.file);
            match result {
                Err(_) => faults.push(what("panics")),
                Ok(result) => good += usize::from(result.is_ok()),
            }
            if taken > allowed {
                faults.push(what(&format!("takes {taken} bytes, {allowed} are allowed")));
            }
        }
        let kib = worst >> 10;
        println!("{:32}{rounds} mutations, {good:3} read, at most {kib} KiB, {slowest:?}", target.file);
        (total, succeeded) = (total + rounds, succeeded + good);
    }
    println!("{total} mutations in {:?}", start.elapsed());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(total >= 2000 && succeeded > 100 && total - succeeded > 1000, "{total} mutations, {succeeded} read");
}

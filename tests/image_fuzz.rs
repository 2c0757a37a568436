//! Damaged image files of every format: an error or pixels, never a panic that gets out, a hang, or memory beyond that of
//! the largest image. The mutations are the same in every run. `.ci/long images` runs more of them under AddressSanitizer.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use std::{fs, io::Read};

use safetensors::SafeTensors;
use themo::data::image::{Transparency, decode};

mod common;

use common::counting::{Counting, LIVE, PEAK};
use common::random::Random;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Mutations of each format; `THEMO_MUTATIONS` in the environment asks for more.
const MUTATIONS: usize = 200;
/// What decoding may take: three times the RGBA of the largest image that is read (179 million pixels).
const MOST_BYTES: usize = 3 * 4 * 178_956_970;

/// Damages a file in one to three ways, half of them where its structure is.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..[1, 1, 1, 2, 3][random.below(5)] {
        let zone = if random.below(2) == 0 { bytes.len() } else { bytes.len().min(300) };
        if zone < 4 {
            return;
        }
        let (at, to) = (random.below(zone), random.below(zone));
        let length = 1 + random.below(24).min(bytes.len() - at.max(to) - 1);
        match random.below(9) {
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..at + length)),
            4 => drop(bytes.splice(at..at, (0..length).map(|k| (k * 77) as u8 ^ length as u8))),
            5 => {
                let copy = bytes[at..at + length].to_vec();
                bytes.splice(to..to, copy);
            }
            6 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, 0xd9, 0xda][random.below(7)],
            7 => bytes[at..(at + 4).min(zone)].fill([0, 0xff, 0x7f][random.below(3)]),
            _ => bytes[at] = bytes[to],
        }
    }
}

/// Whole files of each format: the small ones of `images_small.py`, and larger ones.
fn formats() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let golden = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let mut bytes = Vec::new();
    let file = fs::File::open(golden("images_small.safetensors.gz")).unwrap();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    let small = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = small.names();
    names.sort_unstable();
    let awkward = |end: &str| -> Vec<PathBuf> {
        let all = fs::read_dir(golden("awkward")).unwrap().map(|entry| entry.unwrap().path());
        let mut chosen: Vec<_> = all.filter(|path| path.extension().is_some_and(|found| found == end)).collect();
        chosen.retain(|path| fs::metadata(path).unwrap().len() < 40_000);
        chosen.sort();
        chosen
    };
    let of = |format: &'static str, end: &str| {
        let start = format!("{format}-");
        let mut files: Vec<_> = awkward(end).iter().map(|path| fs::read(path).unwrap()).collect();
        let named = names.iter().filter(|name| name.starts_with(&start));
        files.extend(named.map(|name| small.tensor(name).unwrap().data().to_vec()));
        (format, files)
    };
    [("jpeg", "jpg"), ("png", "png"), ("webp", "webp"), ("gif", "gif"), ("bmp", "bmp"), ("tiff", "tif")]
        .map(|(format, end)| of(format, end))
        .into()
}

#[test]
fn damaged_images_are_errors_or_pixels() {
    let wanted = std::env::var("THEMO_MUTATIONS").map_or(MUTATIONS, |text| text.parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let mut faults = Vec::new();
    for (format, files) in formats() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 + format.len() as u64 * 7919 + u64::from(format.as_bytes()[0]));
        let (mut read, mut panics, mut worst, mut slowest) = (0, 0, 0, Duration::ZERO);
        for round in 0..wanted {
            let mut bytes = files[random.below(files.len())].clone();
            mutate(&mut bytes, &mut random);
            fs::write(&path, &bytes).unwrap();
            let (begun, before) = (Instant::now(), LIVE.load(Relaxed));
            PEAK.store(before, Relaxed);
            let choice = if round % 2 == 0 { Transparency::Drop } else { Transparency::White };
            match catch_unwind(|| decode(&path, choice)) {
                Err(_) => faults.push(format!("{format}, mutation {round}: a panic gets out")),
                Ok(Ok(_)) => read += 1,
                Ok(Err(error)) => panics += usize::from(error.to_string().contains("gave up")),
            }
            worst = worst.max(PEAK.load(Relaxed).saturating_sub(before));
            slowest = slowest.max(begun.elapsed());
        }
        let mib = worst >> 20;
        println!("{format:5} {wanted} mutations, {read} read, {panics} panics caught, at most {mib} MiB, {slowest:?}");
        if worst > MOST_BYTES || slowest > Duration::from_secs(60) {
            faults.push(format!("{format}: {worst} bytes, {slowest:?}"));
        }
        assert!(read * 50 > wanted && read < wanted, "{format}: {read} of {wanted} are read");
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

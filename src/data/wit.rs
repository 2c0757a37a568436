//! Wikipedia Image-Text v1: caption pairs from TSV shards, gzipped or unpacked.
//!
//! Srinivasan et al. 2021, <https://github.com/google-research-datasets/wit/blob/main/DATA.md>: 17 tab-separated
//! columns; quoted fields may hold tabs, quotes and line ends. A pair is an `image_url` with a caption
//! (`caption_reference_description`) in Spanish and in English, over all shards of a split; a later row of the same
//! image and language replaces the earlier one, and pairs keep the order in which their images were first seen.
//! Shards are read as streams: memory holds the captions kept and one row a shard.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder};
use rayon::prelude::*;

use super::first_few;
use super::pairs::{Pair, all_to_nfc};
use super::text::{self, Text};
use crate::error::{Error, Result, ResultExt};

const SOURCE: &str = "https://storage.googleapis.com/gresearch/wit";
const COLUMNS: [&str; 3] = ["language", "image_url", "caption_reference_description"];
/// Real rows stay far below this; a longer one is a quote that never closes, and would swallow the file.
const MAX_ROW_BYTES: u64 = 16 << 20;

/// Whether `folder` holds a shard of `split`.
pub fn has_split(folder: &Path, split: &str) -> bool {
    shards(folder, split).is_ok_and(|shards| !shards.is_empty())
}

/// The caption pairs of `wit_v1.{split}.all-*-of-*.tsv.gz` (or `.tsv`) in `folder`; `normalize` brings captions into
/// Unicode's normal form C.
pub fn read_split(folder: &Path, split: &str, normalize: bool) -> Result<Vec<Pair>> {
    let of = if split == "train" { 10 } else { 5 };
    let fetch = || {
        format!(
            "fetch {SOURCE}/wit_v1.{split}.all-00000-of-{of:05}.tsv.gz and the other {} shards into {}, give caption \
             pairs with --pairs FILE.tsv, or try the bundled demo: themo train --config configs/demo.toml",
            of - 1,
            folder.display()
        )
    };
    let mut shards = shards(folder, split).hint(fetch)?;
    if shards.is_empty() {
        return Err(Error::new(format!("no WIT shard of the {split} split in {}", folder.display())).hint(fetch()));
    }
    drop_unpacked_twins(&mut shards);
    report_missing(folder, split, &shards)?;
    // Shards are parsed side by side and merged in their order, so the result is that of one long file.
    let read: Vec<Shard> = shards.par_iter().map(|(_, _, path)| read_shard(path)).collect::<Result<_>>()?;
    let (mut captions, mut rows, mut skipped) = (Captions::default(), 0, 0);
    for shard in read {
        rows += shard.rows;
        skipped += shard.skipped;
        for slot in shard.slots {
            captions.put(slot);
        }
    }
    let images = captions.slots.len();
    let pair = |slot: Slot| Some(Pair { es: slot.es?.into(), en: slot.en?.into() });
    let mut pairs: Vec<Pair> = captions.slots.into_iter().filter_map(pair).collect();
    if pairs.is_empty() {
        let what = format!(
            "no Spanish/English caption pair in the {split} split of {} ({rows} rows, {images} captioned images)",
            folder.display()
        );
        return Err(Error::new(what).hint(fetch()));
    }
    tracing::info!("WIT {split}: {} pairs from {rows} rows in {} shards, {skipped} skipped", pairs.len(), shards.len());
    if normalize {
        all_to_nfc(&mut pairs, &format!("WIT {split}"));
    }
    Ok(pairs)
}

/// `(of, number, path)` of every shard of the split, in order.
fn shards(folder: &Path, split: &str) -> Result<Vec<(u32, u32, PathBuf)>> {
    let failed = || format!("cannot read the WIT folder {}", folder.display());
    let prefix = format!("wit_v1.{split}.all-");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).context(failed)? {
        let entry = entry.context(failed)?;
        let name = entry.file_name();
        let numbers = name.to_str().and_then(|name| {
            let rest = name.strip_prefix(&prefix)?;
            rest.strip_suffix(".tsv.gz").or_else(|| rest.strip_suffix(".tsv"))?.split_once("-of-")
        });
        if let Some((Ok(number), Ok(of))) = numbers.map(|(k, n)| (k.parse(), n.parse())) {
            found.push((of, number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Of a shard that is there in both forms the packed one is read: it shows when it has been cut short.
fn drop_unpacked_twins(shards: &mut Vec<(u32, u32, PathBuf)>) {
    let before = shards.len();
    shards.dedup_by(|later, kept| {
        let same = (later.0, later.1) == (kept.0, kept.1);
        if same {
            std::mem::swap(later, kept); // `.tsv.gz` comes after `.tsv`
        }
        same
    });
    if shards.len() < before {
        tracing::warn!("{} WIT shards are there packed and unpacked: the packed ones are read", before - shards.len());
    }
}

fn report_missing(folder: &Path, split: &str, shards: &[(u32, u32, PathBuf)]) -> Result<()> {
    let of = shards[0].0;
    if shards.iter().any(|shard| shard.0 != of) {
        let what = format!("{} mixes WIT shards of different sets (-of-NNNNN)", folder.display());
        return Err(Error::new(what).hint("keep the shards of one set in the folder"));
    }
    let missing: Vec<String> = (0..of)
        .filter(|number| !shards.iter().any(|shard| shard.1 == *number))
        .map(|number| format!("wit_v1.{split}.all-{number:05}-of-{of:05}.tsv.gz"))
        .collect();
    if !missing.is_empty() {
        tracing::warn!("{} of {of} WIT {split} shards are not there: {}", missing.len(), first_few(&missing));
    }
    Ok(())
}

/// An image and its captions so far. 128 bits of a hash stand for the URL: among 10^8 images, two collide with
/// probability 10^-23.
struct Slot {
    image: u128,
    es: Option<Box<str>>,
    en: Option<Box<str>>,
}

/// Captions by image, in the order the images were first seen.
#[derive(Default)]
struct Captions {
    index: HashMap<u128, usize>,
    slots: Vec<Slot>,
}

impl Captions {
    /// Adds the captions of `new`, which replace earlier ones.
    fn put(&mut self, new: Slot) {
        let at = *self.index.entry(new.image).or_insert(self.slots.len());
        match self.slots.get_mut(at) {
            Some(slot) => {
                slot.es = new.es.or(slot.es.take());
                slot.en = new.en.or(slot.en.take());
            }
            None => self.slots.push(new),
        }
    }
}

struct Shard {
    slots: Vec<Slot>,
    rows: u64,
    skipped: u64,
}

fn read_shard(path: &Path) -> Result<Shard> {
    let again = || format!("fetch {SOURCE}/{} again", path.file_name().unwrap_or_default().to_string_lossy());
    let stream = RowLimit { text: text::open(path).hint(again)?, bytes: 0 };
    let mut reader = ReaderBuilder::new()
        .delimiter(b'\t')
        .flexible(true)
        .has_headers(false)
        .buffer_capacity(1 << 16)
        .from_reader(stream);
    let mut record = ByteRecord::new();
    let mut next = |record: &mut ByteRecord, rows: u64| {
        let more = reader.read_byte_record(record);
        let more = more.map_err(|e| broken(reader.get_ref(), rows, e).hint(again()));
        reader.get_mut().bytes = 0;
        more
    };

    next(&mut record, 0)?;
    let (width, [language, url, caption]) = (record.len(), columns(path, &record)?);
    let (mut captions, mut rows, mut damaged, mut not_utf8) = (Captions::default(), 0, 0u64, 0u64);
    while next(&mut record, rows)? {
        rows += 1;
        // A row with too few columns or too many is damaged, even where the ones needed are there: a quote is left open,
        // or a tab is not escaped and what follows it stands in the wrong column.
        if record.len() != width || record.as_slice().contains(&0) {
            damaged += 1;
            continue;
        }
        let spanish = &record[language] == b"es";
        if !spanish && &record[language] != b"en" {
            continue;
        }
        let Ok(text) = std::str::from_utf8(&record[caption]) else {
            not_utf8 += 1;
            continue;
        };
        if text.trim().is_empty() {
            continue;
        }
        let (es, en) = if spanish { (Some(text.into()), None) } else { (None, Some(text.into())) };
        captions.put(Slot { image: image_id(&record[url]), es, en });
    }
    if damaged + not_utf8 > 0 {
        tracing::warn!(
            "{}: skipped {damaged} damaged rows (not {width} columns, or NUL bytes) and {not_utf8} captions that are \
             not UTF-8, of {rows} rows",
            path.display()
        );
    }
    Ok(Shard { slots: captions.slots, rows, skipped: damaged + not_utf8 })
}

fn columns(path: &Path, header: &ByteRecord) -> Result<[usize; 3]> {
    let found = COLUMNS.map(|name| header.iter().position(|field| field == name.as_bytes()));
    if let [Some(language), Some(url), Some(caption)] = found {
        return Ok([language, url, caption]);
    }
    if header.as_slice().contains(&0) {
        let what = format!("{} begins with NUL bytes: UTF-16 or no text at all", path.display());
        return Err(Error::new(what).hint(format!("fetch it again from {SOURCE}/; it is UTF-8")));
    }
    let missing: Vec<&str> = COLUMNS.iter().zip(found).filter(|(_, at)| at.is_none()).map(|(name, _)| *name).collect();
    let what = format!("{} is not a WIT v1 file: no column {}", path.display(), missing.join(", "));
    Err(Error::new(what).hint(format!("fetch it again from {SOURCE}/ (the first line names the columns)")))
}

fn image_id(url: &[u8]) -> u128 {
    let mut prefix = [0; 16];
    prefix.copy_from_slice(&blake3::hash(url).as_bytes()[..16]);
    u128::from_le_bytes(prefix)
}

fn broken(stream: &RowLimit, rows: u64, error: csv::Error) -> Error {
    if stream.over() {
        let what = format!("{}: row {} is longer than {} MiB", stream.text.name(), rows + 1, MAX_ROW_BYTES >> 20);
        return Error::new(what).hint("a quoted field is never closed; fetch the shard again");
    }
    stream.text.broken(io::Error::other(error), rows, "rows")
}

/// Fails once `bytes`, which the consumer sets to zero after each row, pass [`MAX_ROW_BYTES`].
struct RowLimit {
    text: Text,
    bytes: u64,
}

impl RowLimit {
    fn over(&self) -> bool {
        self.bytes > MAX_ROW_BYTES
    }
}

impl Read for RowLimit {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.over() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "row too long"));
        }
        let n = self.text.read(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
#[path = "wit_tests.rs"]
mod tests;

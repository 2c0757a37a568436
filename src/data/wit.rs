//! Wikipedia Image-Text v1: caption pairs from TSV shards, gzipped or unpacked.
//!
//! Srinivasan et al. 2021, <https://github.com/google-research-datasets/wit/blob/main/DATA.md>: 17 tab-separated
//! columns; quoted fields may hold tabs, quotes and line ends. A pair is an `image_url` with a caption
//! (`caption_reference_description`) in Spanish and in English, over all shards of a split; a later row of the same
//! image and language replaces the earlier one, and pairs keep the order in which their images were first seen.
//! Shards are read as streams, side by side, each unpacked on a thread of its own while its rows are parsed: memory holds
//! the captions kept, and a few buffers and one row a shard.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::damage::Damage;
use super::first_few;
use super::pairs::Pair;
use super::quoted::{Broken, MAX_ROW_BYTES, Row, RowReader};
use super::text::{self, Text};
pub use super::wit_report::{Count, Rejected, Report, ShardReport};
use crate::error::{Error, Result, ResultExt};

const SOURCE: &str = "https://storage.googleapis.com/gresearch/wit";
const COLUMNS: [&str; 3] = ["language", "image_url", "caption_reference_description"];
/// Four times as far as deflate looks back. Of 40 shards with changed bytes, 3 showed it 5 to 35 kB late, 34 at once, and 3
/// (with a row or two of wrong letters) not at all.
const MAX_MARGIN_BYTES: u64 = 128 << 10;

/// What a split of WIT holds.
#[derive(Debug)]
pub struct Split {
    /// In the order in which their images were first seen.
    pub pairs: Vec<Pair>,
    /// What became of all rows.
    pub report: Report,
}

/// Whether `folder` holds a shard of `split`.
pub fn has_split(folder: &Path, split: &str) -> bool {
    shards(folder, split).is_ok_and(|shards| !shards.is_empty())
}

/// The shards that [`read_split`] reads, in order.
pub fn files(folder: &Path, split: &str) -> Result<Vec<PathBuf>> {
    let mut shards = shards(folder, split)?;
    drop_unpacked_twins(&mut shards);
    Ok(shards.into_iter().map(|(_, _, path)| path).collect())
}

/// The caption pairs of `wit_v1.{split}.all-*-of-*.tsv.gz` (or `.tsv`) in `folder`. A damaged or cut shard is an error; `allow_damaged` keeps the rows before the damage.
pub fn read_split(folder: &Path, split: &str, allow_damaged: bool) -> Result<Split> {
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
    let all = shards.len();
    drop_unpacked_twins(&mut shards);
    if shards.len() < all {
        tracing::warn!("{} WIT shards are there packed and unpacked: the packed ones are read", all - shards.len());
    }
    let missing = missing(folder, split, &shards)?;
    // Shards are parsed side by side and merged in their order, so the result is that of one long file.
    let read: Vec<Shard> =
        shards.par_iter().map(|(_, _, path)| read_shard(path, allow_damaged)).collect::<Result<_>>()?;
    let mut report = Report { split: split.to_owned(), missing, ..Report::default() };
    let mut captions = Captions::default();
    for shard in read {
        warn_of(&shard.report);
        report.shards.push(shard.report);
        shard.slots.into_iter().for_each(|slot| captions.put(slot));
    }
    report.captioned_images = captions.slots.len();
    let pair = |slot: Slot| Some(Pair { es: slot.es?.into(), en: slot.en?.into() });
    let pairs: Vec<Pair> = captions.slots.into_iter().filter_map(pair).collect();
    report.pairs = pairs.len();
    let (rows, images, unused) = (report.rows(), report.captioned_images, report.unused());
    if pairs.is_empty() {
        let what = format!(
            "no Spanish/English caption pair in the {split} split of {} ({rows} rows, {images} captioned images; {unused})",
            folder.display()
        );
        return Err(Error::new(what).hint(fetch()));
    }
    tracing::info!("WIT {split}: {} pairs from {rows} rows in {} shards, {unused}", pairs.len(), shards.len());
    Ok(Split { pairs, report })
}

fn warn_of(shard: &ShardReport) {
    if let Some(damage) = &shard.damaged {
        tracing::warn!("{damage}; kept the first {} rows, not all of them checked (--allow-damaged)", shard.rows);
    }
    if let Some(damage) = shard.damage() {
        tracing::warn!("{}: {damage}", shard.file);
    }
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
    shards.dedup_by(|later, kept| {
        let same = (later.0, later.1) == (kept.0, kept.1);
        if same {
            std::mem::swap(later, kept); // `.tsv.gz` comes after `.tsv`
        }
        same
    });
}

/// Warns of missing shards by name.
fn missing(folder: &Path, split: &str, shards: &[(u32, u32, PathBuf)]) -> Result<Vec<String>> {
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
        tracing::warn!("{} of {of} WIT {split} shards are missing: {}", missing.len(), first_few(&missing));
    }
    Ok(missing)
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
    report: ShardReport,
}

/// A shard that is damaged, and the rows that can still be used.
struct Stop {
    error: Error,
    /// How many bytes of the text hold the rows before the damage; `None` where those are the rows that were read.
    sound_bytes: Option<u64>,
}

fn read_shard(path: &Path, allow_damaged: bool) -> Result<Shard> {
    let (mut shard, stop) = read_rows(path, u64::MAX)?;
    let Some(stop) = stop else { return Ok(shard) };
    if !allow_damaged {
        let hint = format!("fetch {SOURCE}/{} again; --allow-damaged keeps the rows before", shard.report.file);
        return Err(stop.error.hint(hint));
    }
    if let Some(bytes) = stop.sound_bytes {
        (shard, _) = read_rows(path, bytes)?;
    }
    shard.report.damaged = Some(stop.error.to_string());
    Ok(shard)
}

/// Reads the header.
fn open(path: &Path, row: &mut Row) -> Result<RowReader<Text>> {
    let again = || format!("fetch {SOURCE}/{} again", path.file_name().unwrap_or_default().to_string_lossy());
    let mut rows = RowReader::new(text::open(path).hint(again)?);
    match rows.next(row, |_| true) {
        Ok(_) => Ok(rows),
        Err(Broken::TooLong) => Err(too_long(rows.source(), 0).hint(again())),
        Err(Broken::Source(error)) => Err(rows.source().broken(error, 0, "rows").hint(again())),
    }
}

/// Reads the rows that end within the first `limit` bytes of the text, up to a damage.
fn read_rows(path: &Path, limit: u64) -> Result<(Shard, Option<Stop>)> {
    let mut row = Row::default();
    let mut rows = open(path, &mut row)?;
    let (width, columns) = (row.columns, columns(path, &row)?);
    let mut kept = columns;
    kept.sort_unstable();
    let fields = columns.map(|column| kept.iter().position(|k| *k == column).unwrap_or_default());
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (mut captions, mut report) = (Captions::default(), ShardReport { file, ..ShardReport::default() });
    let mut stop = None;
    loop {
        match rows.next(&mut row, |column| kept.contains(&column)) {
            Ok(more) if !more || rows.source().position() > limit => break,
            Ok(_) => report.rows += 1,
            Err(error) => {
                stop = Some(why(path, &mut rows, report.rows, error)?);
                break;
            }
        }
        match caption(&row, width, fields) {
            Use::Caption(slot) => {
                report.captions += 1;
                captions.put(slot);
            }
            Use::OtherLanguage => report.other_languages += 1,
            Use::Rejected(reason) => reason(&mut report.rejected).add(report.rows),
        }
    }
    Ok((Shard { slots: captions.slots, report }, stop))
}

/// What is wrong with a shard whose rows could be read up to a number; an error where it is not the shard, but the system.
fn why(path: &Path, rows: &mut RowReader<Text>, number: u64, error: Broken) -> Result<Stop> {
    let error = match error {
        Broken::Source(error) => error,
        // Is it the text that was packed, or did it become so?
        Broken::TooLong => match rows.skip_all() {
            Ok(()) => return Ok(Stop { error: too_long(rows.source(), number), sound_bytes: None }),
            Err(error) => error,
        },
    };
    match Damage::of(&error).map(|damage| (damage.is_cut, damage.checked)) {
        None => {
            let error = rows.source().broken(error, number, "rows");
            Err(error.hint("it is the disk or the network, not the shard: try again"))
        }
        Some((true, _)) => Ok(Stop { error: rows.source().broken(error, number, "rows"), sound_bytes: None }),
        Some((false, checked)) => {
            let (row, bytes) = first_wrong_row(path, checked)?;
            let unit = format!("rows (the damage shows in row {row})");
            Ok(Stop { error: rows.source().broken(error, number, &unit), sound_bytes: Some(bytes) })
        }
    }
}

/// In a shard with changed bytes somewhere after the first `checked` of the text: the number of the first row that is no
/// row, and how many bytes of the text can be used. It is not known where exactly the damage begins, but rows of text that
/// is copied from wrong places soon have too many columns or broken characters; [`margin`] is for those before.
fn first_wrong_row(path: &Path, checked: u64) -> Result<(u64, u64)> {
    let mut row = Row::default();
    let mut rows = open(path, &mut row)?;
    let (width, mut number) = (row.columns, 1);
    let start = loop {
        let start = rows.source().position();
        let is_row = matches!(rows.next(&mut row, |_| true), Ok(true));
        let is_right = row.columns == width && !row.has_nul && str::from_utf8(row.bytes()).is_ok();
        if !is_row || (start >= checked && !is_right) {
            break start;
        }
        number += 1;
    };
    Ok((number, checked.max(start.saturating_sub(margin(start.saturating_sub(checked))))))
}

/// How much of `bytes` unchecked bytes before a row that shows damage is not used.
fn margin(bytes: u64) -> u64 {
    (bytes / 8).min(MAX_MARGIN_BYTES)
}

fn too_long(text: &Text, rows: u64) -> Error {
    let what = format!("{}: row {} is longer than {} MiB", text.name(), rows + 1, MAX_ROW_BYTES >> 20);
    Error::new(what + ", so a quoted field is never closed")
}

/// What a row is good for.
enum Use {
    Caption(Slot),
    OtherLanguage,
    Rejected(fn(&mut Rejected) -> &mut Count),
}

fn caption(row: &Row, width: usize, [language, url, caption]: [usize; 3]) -> Use {
    // A row with too few columns or too many is damaged, even where the ones needed are there: a quote is left open, or
    // a tab is not escaped and what follows it stands in the wrong column.
    if row.columns != width {
        return Use::Rejected(|rejected| &mut rejected.columns);
    }
    if row.has_nul {
        return Use::Rejected(|rejected| &mut rejected.nul_bytes);
    }
    let spanish = row.field(language) == b"es";
    if !spanish && row.field(language) != b"en" {
        return Use::OtherLanguage;
    }
    let url = row.field(url);
    if url.trim_ascii().is_empty() {
        return Use::Rejected(|rejected| &mut rejected.no_url);
    }
    let Ok(text) = str::from_utf8(row.field(caption)) else {
        return Use::Rejected(|rejected| &mut rejected.not_utf8);
    };
    if text.trim().is_empty() {
        return Use::Rejected(|rejected| &mut rejected.no_caption);
    }
    let (es, en) = if spanish { (Some(text.into()), None) } else { (None, Some(text.into())) };
    Use::Caption(Slot { image: image_id(url), es, en })
}

fn columns(path: &Path, header: &Row) -> Result<[usize; 3]> {
    let found = COLUMNS.map(|name| header.fields().position(|field| field == name.as_bytes()));
    if let [Some(language), Some(url), Some(caption)] = found {
        return Ok([language, url, caption]);
    }
    if header.has_nul {
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

#[cfg(test)]
#[path = "wit_tests.rs"]
mod tests;

//! The caption pairs of a run: from data sets and files, cleaned, prepared once and found again.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use crate::cache::{Digests, Key};
use crate::config::Config;
use crate::data::cleaning::{self, Cleaner};
use crate::data::pair_set::Writer;
use crate::data::pairs::{self, Columns};
use crate::data::{PairSet, wit};
use crate::error::{Error, Result};
use crate::sets::{self, Reader};
use crate::ui::data_sets;

/// Changes whenever the same files and settings would give other pairs than before.
const VERSION: &str = "themo pairs, version 1";

/// The pairs of a run.
pub struct Loaded {
    /// To train on.
    pub train: PairSet,
    /// To validate on.
    pub val: Option<PairSet>,
    /// Where they come from, and what was left out.
    pub report: Report,
}

/// What `pairs.json` in the run folder says: of each set its sources and what the cleaning did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of the pairs to train on.
    pub train: Value,
    /// Of those to validate on, if there are some.
    pub validation: Option<Value>,
}

/// What pairs are read from.
enum Input {
    File { path: PathBuf, columns: Option<Columns> },
    Wit { folder: PathBuf, split: &'static str },
}

/// The training pairs, and the validation pairs; one batch of each for `--fast-dev-run`.
pub fn load(config: &Config, one_batch: bool) -> Result<Loaded> {
    let (train, val) = inputs(config)?;
    if val.is_empty() {
        tracing::warn!("no validation pairs: val/loss will not be measured (--val-pairs FILE gives some)");
    }
    let (mut train, report) = prepare(config, &train, "training")?;
    let val = (!val.is_empty()).then(|| prepare(config, &val, "validation")).transpose()?;
    let (mut val, validation) = val.unzip();
    let most = [
        config.data.limit_train_pairs,
        config.data.overfit_batches.map(|batches| batches.saturating_mul(config.limits.batch_size)),
        one_batch.then_some(config.limits.batch_size),
    ];
    most.into_iter().flatten().for_each(|most| train.truncate(most));
    if let Some(val) = val.as_mut().filter(|_| one_batch) {
        val.truncate(config.limits.batch_size);
    }
    Ok(Loaded { train, val, report: Report { train: report, validation } })
}

/// What to train on, and what to validate on. Files of validation pairs take the place of those of the data sets.
fn inputs(config: &Config) -> Result<(Vec<Input>, Vec<Input>)> {
    let (mut train, mut val) = (Vec::new(), Vec::new());
    let given = |path: &PathBuf| Input::File { path: path.clone(), columns: config.text.columns.clone() };
    let names = sets::chosen(&config.data.dataset, !config.data.pairs.is_empty(), &config.data.data_dir);
    let sets = if names.is_empty() { Vec::new() } else { data_sets(&names, &config.data.data_dir)? };
    for set in sets {
        for (list, files, split) in [(&mut train, set.train, "train"), (&mut val, set.val, "val")] {
            match (set.reader, files.first()) {
                (Reader::Wit, Some(shard)) => {
                    let folder = shard.path.parent().unwrap_or(Path::new(".")).to_owned();
                    list.push(Input::Wit { folder, split });
                }
                _ => {
                    for file in files {
                        let columns = file.columns.as_deref().map(str::parse).transpose()?;
                        let columns = config.text.columns.clone().or(columns);
                        list.push(Input::File { path: file.path, columns });
                    }
                }
            }
        }
    }
    train.extend(config.data.pairs.iter().map(given));
    if !config.data.val_pairs.is_empty() {
        val = config.data.val_pairs.iter().map(given).collect();
    }
    Ok((train, val))
}

impl Input {
    /// The files that are read.
    fn files(&self) -> Result<Vec<PathBuf>> {
        match self {
            Self::File { path, .. } => Ok(pairs::files(path)),
            Self::Wit { folder, split } => wit::files(folder, split),
        }
    }
}

/// The pairs of `inputs` as one set, from the cache or written there; a set from a pipe is not kept.
fn prepare(config: &Config, inputs: &[Input], what: &str) -> Result<(PairSet, Value)> {
    let mut files = Vec::new();
    for input in inputs {
        files.push(input.files()?);
    }
    let folder = config.data.cache_dir.join("pairs");
    // A pipe can be read once. (What is missing cannot at all, which the reader says best.)
    if files.iter().flatten().any(|file| !file.is_file()) {
        let mut manifest = Value::Null;
        let set = PairSet::unnamed(&config.data.cache_dir, |writer| {
            manifest = read(config, inputs, what, writer)?;
            Ok(())
        })?;
        log_counts(&set, &manifest, what);
        return Ok((set, manifest));
    }
    let mut key = Key::new(VERSION);
    key.add(&format!("{:?}", config.text.rules(config.data.normalize)));
    key.add(&format!("{}", config.data.allow_damaged));
    let mut digests = Digests::open(&config.data.cache_dir);
    for (input, files) in inputs.iter().zip(&files) {
        match input {
            Input::File { columns, .. } => key.add(&format!("{:?}", columns.as_ref().map(Columns::to_string))),
            Input::Wit { split, .. } => key.add(&format!("WIT {split}")),
        }
        let name = |file: &PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        key.add_all(&files.iter().map(name).collect::<Vec<_>>());
        key.add_all(&digests.of(files)?);
    }
    digests.keep();
    let mut is_new = false;
    let (set, manifest) = PairSet::open_or_write(&folder, &key.name(), |writer| {
        is_new = true;
        read(config, inputs, what, writer)
    })?;
    if !is_new {
        tracing::info!(
            "{what} pairs: prepared before, in {}",
            folder.join(key.name()).with_extension("pairs").display()
        );
    }
    log_counts(&set, &manifest, what);
    Ok((set, manifest))
}

/// Logs what the cleaning did, and how many pairs there are.
fn log_counts(set: &PairSet, manifest: &Value, what: &str) {
    for line in manifest["summary"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        tracing::info!("{what} pairs: {line}");
    }
    tracing::info!("{} {what} pairs", set.len());
}

/// Reads and cleans all pairs of `inputs` into `writer`; returns the manifest.
fn read(config: &Config, inputs: &[Input], what: &str, writer: &mut Writer) -> Result<Value> {
    let mut cleaner = Cleaner::new(config.text.rules(config.data.normalize));
    let mut reports = Vec::new();
    for input in inputs {
        let mut keep = |es: &str, en: &str, place: &dyn Fn() -> String| match cleaner.clean(es, en, place) {
            Some((es, en)) => writer.add(es, en),
            None => Ok(()),
        };
        reports.push(match input {
            Input::File { path, columns } => {
                let name = path.display();
                let mut sink =
                    |row: pairs::Row| keep(row.es, row.en, &|| format!("{name}, {} {}", row.unit, row.number));
                json!(pairs::read(path, columns.as_ref(), &mut sink)?)
            }
            Input::Wit { folder, split } => {
                let read = wit::read_split(folder, split, config.data.allow_damaged)?;
                for (number, pair) in read.pairs.iter().enumerate() {
                    keep(&pair.es, &pair.en, &|| format!("WIT {split}, pair {}", number + 1))?;
                }
                json!(read.report)
            }
        });
    }
    let report = cleaner.report();
    if report.kept == 0 {
        let what = format!("none of {} {what} pairs is left after cleaning: {}", report.pairs, report.left_out);
        return Err(Error::new(what).hint("--no-clean keeps all pairs but those with an empty side"));
    }
    Ok(json!({"sources": reports, "cleaning": report, "summary": summary(report)}))
}

/// What the cleaning did, for the log.
fn summary(report: &cleaning::Report) -> Vec<String> {
    let (normalised, folded, left_out) = (report.normalised(), report.folded(), &report.left_out);
    let lines = [
        (normalised > 0).then(|| format!("normalised {normalised} captions to NFC (--no-normalize keeps them)")),
        (folded > 0).then(|| format!("trimmed the white space of {folded} captions (--no-clean keeps it)")),
        (!left_out.is_empty()).then(|| format!("left out {left_out}")),
    ];
    lines.into_iter().flatten().collect()
}

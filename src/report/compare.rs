//! `themo runs compare`: models on the same queries, from what `themo test` left behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::published::{Published, published};
use super::queries::{self, Query, SUFFIX};
use crate::error::{Error, Result, ResultExt};
use crate::eval::figures::{Intervals, Ranking, Shares, hits};
use crate::eval::metrics::KS;
use crate::eval::statistics::{Clusters, Interval, Paired, SEED, paired};

/// What the figures of two models must have in common to be compared, where `SET.json` says it.
const PROTOCOL: [&str; 4] = ["vision", "transparency", "operations", "prompt"];

/// A model on all sets that it was measured on; those of the literature, which have no queries, are one side.
pub struct Side {
    /// What the user called it.
    name: String,
    sets: BTreeMap<String, Measured>,
    published: Vec<Published>,
}

/// What is known of a model on one set.
struct Measured {
    queries: Vec<Query>,
    protocol: BTreeMap<&'static str, Value>,
}

/// One line of the table: a model on one task of a set.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `retrieval` or `classification`.
    pub set: String,
    /// `text_to_image`, `image_to_text` or `classification`.
    pub task: String,
    /// Which model.
    pub model: String,
    /// On how many queries.
    pub queries: usize,
    /// Each figure.
    #[serde(flatten)]
    pub figures: Map<String, Value>,
    /// The interval of each.
    pub ci95: Intervals,
    /// The first model's figures less these, where both are of the same queries.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_map")]
    pub first_less_this: Option<Vec<(String, Difference)>>,
    /// Why it is not, or not quite, comparable with the first.
    pub notes: Vec<String>,
}

fn as_map<S: Serializer>(
    all: &Option<Vec<(String, Difference)>>, serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(all.iter().flatten().map(|(name, difference)| (name, difference)))
}

/// How much better the first model is.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// The difference of the figures.
    pub value: f64,
    /// Its paired bootstrap interval.
    pub ci95: Interval,
    /// Of McNemar's exact test: of shares, where no two queries depend on each other.
    pub p_value: Option<f64>,
}

/// Reads what `names` name: runs, folders of results, files of queries; `baseline` and `teacher` are those that were
/// measured beside the first, `published` the figures of `configs/references.toml`.
pub fn read(names: &[String]) -> Result<Vec<Side>> {
    let first = names.first().map(PathBuf::from).unwrap_or_default();
    let read = |(i, name): (usize, &String)| match name.as_str() {
        "published" if i > 0 => Ok(Side { name: name.clone(), sets: BTreeMap::new(), published: published()? }),
        "baseline" | "teacher" | "published" if i == 0 => {
            Err(Error::usage(format!("the first model is `{name}`"))).hint(|| "name a run first")
        }
        "baseline" | "teacher" => read_folder(name.clone(), &folder_of(&first), &format!(".{name}")).hint(|| {
            format!(
                "test it: themo test --version-path {} {}",
                first.display(),
                match name.as_str() {
                    "teacher" => "--with-teacher",
                    _ => "--baseline",
                }
            )
        }),
        _ if Path::new(name).is_file() => read_file(name),
        _ => read_folder(name.clone(), &folder_of(Path::new(name)), "")
            .hint(|| format!("test it: themo test --version-path {name}")),
    };
    names.iter().enumerate().map(read).collect()
}

/// Where the results of a run are; the folder itself where it holds them.
fn folder_of(path: &Path) -> PathBuf {
    let eval = path.join("eval");
    match path.is_file() {
        true => path.parent().unwrap_or(Path::new("")).to_owned(),
        false if eval.is_dir() => eval,
        false => path.to_owned(),
    }
}

fn read_file(name: &str) -> Result<Side> {
    let path = Path::new(name);
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let set = file.split('.').next().unwrap_or_default().to_owned();
    let measured = Measured { queries: queries::read(path)?, protocol: protocol(&path.with_file_name(&set)) };
    Ok(Side { name: name.to_owned(), sets: BTreeMap::from([(set, measured)]), published: Vec::new() })
}

fn read_folder(name: String, folder: &Path, whose: &str) -> Result<Side> {
    let mut sets = BTreeMap::new();
    let end = format!("{whose}{SUFFIX}");
    let entries = folder.read_dir().context(|| format!("cannot compare {name}: cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(set) = file.strip_suffix(&end).filter(|set| !set.contains('.')) {
            let measured = Measured { queries: queries::read(&path)?, protocol: protocol(&folder.join(set)) };
            sets.insert(set.to_owned(), measured);
        }
    }
    if sets.is_empty() {
        return Err(Error::new(format!("cannot compare {name}: there is no SET{end} in {}", folder.display())));
    }
    Ok(Side { name, sets, published: Vec::new() })
}

/// What `SET.json` says of how the figures were made.
fn protocol(set: &Path) -> BTreeMap<&'static str, Value> {
    let bytes = std::fs::read(set.with_extension("json")).unwrap_or_default();
    let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let find = |key| json["measured"].get(key).or(json.get(key)).cloned();
    PROTOCOL.iter().filter_map(|key| Some((*key, find(*key)?))).collect()
}

/// A row for each task of each set that the first of `sides` was measured on, and each of them.
pub fn compare(sides: &[Side]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let Some(first) = sides.first() else { return Ok(rows) };
    for (set, reference) in &first.sets {
        for task in ["text_to_image", "image_to_text", "classification"] {
            let of_task = |measured: &Measured| -> Vec<Query> {
                measured.queries.iter().filter(|query| query.task == task).cloned().collect()
            };
            let theirs = of_task(reference);
            for side in sides.iter().filter(|_| !theirs.is_empty()) {
                rows.extend(of_literature(side, set, task, theirs.len()));
                let Some(measured) = side.sets.get(set) else { continue };
                let queries = of_task(measured);
                if queries.is_empty() {
                    continue;
                }
                let mut row = figures(set, task, &side.name, &queries);
                if !std::ptr::eq(side, first) {
                    row.notes = notes(&theirs, &queries, reference, measured);
                    let is_same = same_queries(&theirs, &queries);
                    row.first_less_this = is_same.then(|| differences(task, &theirs, &queries));
                }
                rows.push(row);
            }
        }
    }
    if rows.len() < 2 {
        let sets: Vec<_> = first.sets.keys().map(String::as_str).collect();
        return Err(Error::new(format!("no other model was measured on {}", sets.join(", ")))
            .hint("`themo test` both on the same sets"));
    }
    Ok(rows)
}

/// What was published on `set`, beside a first model with `queries` queries.
fn of_literature(side: &Side, set: &str, task: &str, queries: usize) -> Vec<Row> {
    let known = if set == "retrieval" { "xtd10" } else { set };
    let mine = side.published.iter().filter(|row| row.set == known && task == "text_to_image");
    let row = |row: &Published| {
        let names = || KS.iter().map(|k| format!("recall@{k}"));
        let values = row.retrieval.iter().flatten();
        let mut notes = vec![format!("published with the images of {}, not paired: {}", row.images, row.source)];
        if row.n.is_some_and(|n| n != queries) {
            notes.push(format!("other data: {} queries, and {queries} of the first", row.n.unwrap_or_default()));
        }
        Row {
            set: set.to_owned(),
            task: task.to_owned(),
            model: format!("{}, {}, {}", row.model, row.images, row.language),
            queries: row.n.unwrap_or_default(),
            figures: names().zip(values).map(|(name, value)| (name, json!(value))).collect(),
            ci95: Intervals::new(names().zip(row.intervals().unwrap_or_default()).collect()),
            first_less_this: None,
            notes,
        }
    };
    mine.map(row).collect()
}

/// Whether two models were asked the same; captions may be in two languages where the images are the same.
fn same_queries(first: &[Query], second: &[Query]) -> bool {
    first.len() == second.len()
        && first.iter().zip(second).all(|(a, b)| a.cluster == b.cluster && (a.query == b.query || a.target == b.target))
}

fn notes(first: &[Query], second: &[Query], reference: &Measured, measured: &Measured) -> Vec<String> {
    let mut notes = Vec::new();
    if !same_queries(first, second) {
        notes.push(format!("other data: {} queries, and {} of the first", second.len(), first.len()));
    } else if first.iter().zip(second).any(|(a, b)| a.query != b.query || a.target != b.target) {
        notes.push("other texts for the same images".to_owned());
    }
    for key in PROTOCOL {
        let values = (reference.protocol.get(key), measured.protocol.get(key));
        if values.0 != values.1 {
            let show = |value: Option<&Value>| value.map_or("not recorded".to_owned(), Value::to_string);
            notes.push(format!("other {key}: {}, and {} of the first", show(values.1), show(values.0)));
        }
    }
    notes
}

fn ranks(queries: &[Query]) -> (Vec<usize>, Clusters) {
    let clusters: Vec<usize> = queries.iter().map(|query| query.cluster).collect();
    (queries.iter().map(|query| query.rank).collect(), Clusters::of(&clusters))
}

fn figures(set: &str, task: &str, model: &str, queries: &[Query]) -> Row {
    let (ranks, clusters) = ranks(queries);
    let (mut figures, ci95) = match task {
        "classification" => {
            let shares = Shares::new("accuracy", &ranks, &clusters);
            (json!(shares), shares.ci95)
        }
        _ => {
            let ranking = Ranking::new(&ranks, &clusters);
            (json!(ranking), ranking.ci95)
        }
    };
    let figures = figures.as_object_mut().map(std::mem::take).unwrap_or_default();
    Row {
        set: set.to_owned(),
        task: task.to_owned(),
        model: model.to_owned(),
        queries: queries.len(),
        figures: figures.into_iter().filter(|(name, _)| name != "ci95").collect(),
        ci95,
        first_less_this: None,
        notes: Vec::new(),
    }
}

fn differences(task: &str, first: &[Query], second: &[Query]) -> Vec<(String, Difference)> {
    let ((first, clusters), (second, _)) = (ranks(first), ranks(second));
    let name = if task == "classification" { "accuracy" } else { "recall" };
    let depend = clusters.len() < first.len();
    let difference = |Paired { difference, interval, p_value }: Paired| Difference {
        value: difference,
        ci95: interval,
        p_value: p_value.filter(|_| !depend),
    };
    let mut all = Vec::new();
    for (k, (ours, theirs)) in KS.iter().zip(hits(&first).iter().zip(&hits(&second))) {
        all.push((format!("{name}@{k}"), difference(paired(ours, theirs, &clusters, SEED))));
    }
    if name == "recall" {
        let plain = |ranks: &[usize]| ranks.iter().map(|rank| *rank as f64).collect::<Vec<_>>();
        let inverse = |ranks: &[usize]| ranks.iter().map(|rank| 1.0 / *rank as f64).collect::<Vec<_>>();
        for (name, of) in [("mean_rank", &plain as &dyn Fn(&[usize]) -> Vec<f64>), ("mrr", &inverse)] {
            let compared = Paired { p_value: None, ..paired(&of(&first), &of(&second), &clusters, SEED) };
            all.push((name.to_owned(), difference(compared)));
        }
    }
    all
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;

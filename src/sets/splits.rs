//! Which files of a data set's repository belong to which configuration and split.
//!
//! The hub's own conventions for names (<https://huggingface.co/docs/datasets/repository_structure>): a folder is a
//! configuration, and the split is in the name of the file (`en-es/train-00000-of-00002.parquet`), or, on the branch of
//! converted files, the last folder (`en-es/train/0000.parquet`; `partial-train` where only the beginning was converted).
//! Configurations that a card (README.md) defines otherwise are known by their folders only.

use crate::error::{Error, Result};

/// Names of files that hold rows, the preferred kind first; the others may be packed.
const KINDS: [&[&str]; 2] = [&[".parquet"], &[".csv", ".tsv", ".jsonl", ".ndjson"]];
const PACKINGS: [&str; 3] = ["", ".gz", ".zst"];

/// A file of rows and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its path in the repository.
    pub name: String,
    /// The configuration; `default` where the files lie in no folder, or in `data`.
    pub config: String,
    /// The split, as it is written, or `train` where the name says nothing.
    pub split: String,
    /// Whether the hub converted only the beginning of the split.
    pub partial: bool,
}

/// Whether `name` is a file of rows of the given kind (0: Parquet, 1: text).
fn is_of(name: &str, kind: usize) -> bool {
    let name = name.to_ascii_lowercase();
    let packings = if kind == 0 { &PACKINGS[..1] } else { &PACKINGS[..] };
    KINDS[kind].iter().any(|end| packings.iter().any(|packing| name.ends_with(&format!("{end}{packing}"))))
}

/// The Parquet files among `names`, or, with `text`, the CSV, TSV and JSON-lines files.
pub fn rows<'a>(names: impl Iterator<Item = &'a str>, text: bool, converted: bool) -> Vec<Placed> {
    let is_shown = |name: &&str| !name.split('/').any(|part| part.starts_with('.'));
    names.filter(is_shown).filter(|name| is_of(name, usize::from(text))).map(|name| place(name, converted)).collect()
}

fn place(name: &str, converted: bool) -> Placed {
    let mut folders: Vec<&str> = name.split('/').collect();
    let file = folders.pop().unwrap_or_default();
    let (mut split, mut partial) = (split_of(file), false);
    if converted && folders.len() >= 2 {
        let last = folders.pop().unwrap_or_default();
        partial = last.starts_with("partial-");
        split = Some(last.strip_prefix("partial-").unwrap_or(last).to_owned());
    } else if split.is_none() && folders.last().is_some_and(|last| role(last).is_some()) {
        split = folders.pop().map(str::to_owned);
    }
    if folders.first() == Some(&"data") {
        folders.remove(0);
    }
    let config = if folders.is_empty() { "default".to_owned() } else { folders.join("/") };
    Placed { name: name.to_owned(), config, split: split.unwrap_or_else(|| "train".to_owned()), partial }
}

/// The split that a file's name stands for: `train-00000-of-00002.parquet`, `my_test.csv`.
fn split_of(file: &str) -> Option<String> {
    let word =
        |text: &str| text.split(|c: char| !c.is_alphabetic()).find(|word| role(word).is_some()).map(str::to_owned);
    match sharded(file) {
        Some((split, ..)) => Some(word(split).unwrap_or_else(|| split.to_owned())),
        None => word(file),
    }
}

/// `train-00001-of-00004.parquet` as its beginning, number and count. (Some writers add a hash behind.)
pub fn sharded(file: &str) -> Option<(&str, usize, usize)> {
    let (before, after) = file.split_once("-of-")?;
    let (split, number) = before.rsplit_once('-')?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let (number, count) = (digits(number), digits(after));
    (number.len() >= 5 && count.len() >= 5).then_some(())?;
    Some((split, number.parse().ok()?, count.parse().ok()?))
}

/// What a split is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To train on.
    Train,
    /// To validate on.
    Val,
    /// To leave alone.
    Test,
}

/// What the split of this name is for, as the `datasets` library takes names.
pub fn role(split: &str) -> Option<Role> {
    match split.to_ascii_lowercase().as_str() {
        "train" | "training" => Some(Role::Train),
        "validation" | "valid" | "val" | "dev" | "development" => Some(Role::Val),
        "test" | "testing" | "eval" | "evaluation" => Some(Role::Test),
        _ => None,
    }
}

/// Of `files` those to train and to validate on: of the configuration (and split) asked for, or of the only one.
pub fn choose(files: &[Placed], asked: Option<&str>, set: &str) -> Result<(Vec<Placed>, Vec<Placed>)> {
    let mut configs: Vec<&str> = files.iter().map(|file| file.config.as_str()).collect();
    configs.sort_unstable();
    configs.dedup();
    let of = |config: &str, split: &dyn Fn(&str) -> bool| -> Vec<Placed> {
        files.iter().filter(|file| file.config == config && split(&file.split)).cloned().collect()
    };
    let config = match (asked, &configs[..]) {
        (Some(asked), all) if all.contains(&asked) => asked,
        (Some(asked), all) => {
            let (config, split) = asked.rsplit_once('/').unwrap_or((asked, ""));
            let found = if all.contains(&config) { of(config, &|own| own == split) } else { Vec::new() };
            if found.is_empty() {
                return Err(unknown(files, &configs, format!("{set} has no `{asked}`")));
            }
            return Ok((found, Vec::new()));
        }
        (None, [only]) => only,
        (None, _) => return Err(unknown(files, &configs, format!("{set} has {} configurations", configs.len()))),
    };
    let train = of(config, &|split| role(split).is_none_or(|role| role == Role::Train));
    let val = of(config, &|split| role(split) == Some(Role::Val));
    let mut splits: Vec<&str> = train.iter().map(|file| file.split.as_str()).collect();
    splits.sort_unstable();
    splits.dedup();
    match splits[..] {
        [_] => Ok((train, val)),
        // Which of several splits of unknown names is to be trained on is not for us to say.
        _ if splits.contains(&"train") => Ok((of(config, &|split| split == "train"), val)),
        _ => Err(unknown(files, &configs, format!("{set} has no split `train` in {config}"))),
    }
}

/// The error of a question that several configurations or splits could answer, which it lists.
fn unknown(files: &[Placed], configs: &[&str], what: String) -> Error {
    const SHOWN: usize = 30;
    let is_spanish = |config: &&str| config.split(|c: char| !c.is_alphanumeric()).any(|word| word == "es");
    let mut ordered: Vec<&str> = configs.to_vec();
    ordered.sort_by_key(|config| !is_spanish(config));
    let describe = |config: &&str| {
        let mut splits: Vec<&str> = Vec::new();
        for file in files.iter().filter(|file| file.config == **config) {
            if !splits.contains(&file.split.as_str()) {
                splits.push(&file.split);
            }
        }
        format!("{config} ({})", splits.join(", "))
    };
    let mut listed: Vec<String> = ordered.iter().take(SHOWN).map(describe).collect();
    if ordered.len() > SHOWN {
        listed.push(format!("and {} more", ordered.len() - SHOWN));
    }
    let example = ordered.first().copied().unwrap_or("CONFIG");
    Error::usage(what).hint(format!(
        "name one behind a colon, as in :{example} or :{example}/SPLIT. The configurations and their splits:\n  {}",
        listed.join("\n  ")
    ))
}

#[cfg(test)]
#[path = "splits_tests.rs"]
mod tests;

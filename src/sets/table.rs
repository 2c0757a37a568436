//! The table of known data sets: the bundled `configs/datasets.toml`, and the user's own of the same form.

use std::collections::BTreeMap;
use std::path::Path;

use glob::{MatchOptions, Pattern};
use serde::Deserialize;

use super::spec::Spec;
use crate::error::{Error, Result, ResultExt};
use crate::hub::{Id, Kind};

const BUNDLED: &str = include_str!("../../configs/datasets.toml");
/// The user's table, in the data folder.
pub const OWN: &str = "datasets.toml";
const HINT: &str = "configs/datasets.toml in themo's sources says which keys there are, with examples";

/// How the files of a set are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reader {
    /// As files of caption pairs, like those of `--pairs`.
    #[default]
    Pairs,
    /// As shards of WIT.
    Wit,
}

/// What the table says of a set; the keys are explained in the table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Known {
    /// What it is, in a sentence.
    pub about: String,
    /// What its authors say one may do with it.
    pub licence: Option<String>,
    /// Where to read more.
    pub page: Option<String>,
    /// About what is fetched.
    pub bytes: Option<u64>,
    /// `owner/name[@revision]` on the hub.
    pub hub: Option<String>,
    /// One file on the web.
    pub url: Option<String>,
    /// Its SHA-256.
    pub sha256: Option<String>,
    /// The sets it is made of.
    pub parts: Vec<String>,
    /// Those of them that are validated on.
    pub val_parts: Vec<String>,
    /// Patterns of the files to train on.
    pub train: Vec<String>,
    /// Patterns of the files to validate on.
    pub val: Vec<String>,
    /// The columns of the two texts.
    pub columns: Option<String>,
    /// How its files are read.
    pub reader: Reader,
}

/// All known sets by name.
#[derive(Debug)]
pub struct Table(BTreeMap<String, Known>);

impl Table {
    /// The bundled sets, and those of `data_dir/datasets.toml` where there is one.
    pub fn load(data_dir: &Path) -> Result<Self> {
        let mut all = parse(BUNDLED).context(|| "configs/datasets.toml")?;
        let path = data_dir.join(OWN);
        let doing = || format!("cannot use the table of data sets {}", path.display());
        match std::fs::read_to_string(&path) {
            Ok(text) => all.extend(parse(&text).context(doing)?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound || e.kind() == std::io::ErrorKind::NotADirectory => {}
            Err(e) => return Err(Error::from(e).context(doing()).hint("it must be a text file in UTF-8")),
        }
        let table = Self(all);
        for name in table.0.keys() {
            table.leaves(name).context(|| format!("{OWN}: [{name}]"))?;
        }
        Ok(table)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What is known of `name`; an error that says which name may be meant.
    pub fn get(&self, name: &str) -> Result<&Known> {
        self.0.get(name).ok_or_else(|| {
            let like = |known: &&str| strsim::jaro_winkler(known, name);
            let near = self.names().map(|known| (like(&known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
            let near = near
                .filter(|(like, _)| *like > 0.75)
                .map_or(String::new(), |(_, known)| format!("did you mean `{known}`? "));
            let all: Vec<_> = self.names().collect();
            Error::usage(format!("there is no data set `{name}`")).hint(format!(
                "{near}The known ones: {}; hub:OWNER/NAME takes any data set of the hub, --pairs a file",
                all.join(", ")
            ))
        })
    }

    /// The sets that `name` is made of, in order, each with whether it is validated on.
    pub fn leaves(&self, name: &str) -> Result<Vec<(String, bool)>> {
        let mut leaves = Vec::new();
        self.descend(name, true, &mut Vec::new(), &mut leaves)?;
        Ok(leaves)
    }

    fn descend(
        &self, name: &str, validated: bool, above: &mut Vec<String>, leaves: &mut Vec<(String, bool)>,
    ) -> Result<()> {
        if Spec::is_hub(name) {
            Spec::parse(name)?;
        }
        let parts = if Spec::is_hub(name) { &[][..] } else { &self.get(name)?.parts };
        if parts.is_empty() {
            leaves.push((name.to_owned(), validated));
            return Ok(());
        }
        if above.iter().any(|other| other == name) {
            return Err(Error::usage(format!("the data set `{name}` is a part of itself")).hint(HINT));
        }
        above.push(name.to_owned());
        for part in parts {
            // (Without val-parts, each part is validated on as it would be alone.)
            let own = &self.get(name)?.val_parts;
            self.descend(part, validated && (own.is_empty() || own.contains(part)), above, leaves)?;
        }
        above.pop();
        Ok(())
    }
}

/// The sets of a table's text.
fn parse(text: &str) -> Result<BTreeMap<String, Known>> {
    let sets: BTreeMap<String, toml::Spanned<Known>> = toml::from_str(text).map_err(|e: toml::de::Error| {
        let message = e.message().trim().replace('\n', "; ");
        wrong(text, e.span().map_or(0, |span| span.start), &message)
    })?;
    sets.into_iter()
        .map(|(name, known)| {
            let start = known.span().start;
            let known = known.into_inner();
            match known.fault(&name) {
                None => Ok((name, known)),
                Some(fault) => Err(wrong(text, start, &format!("[{name}]: {fault}"))),
            }
        })
        .collect()
}

/// The error of what stands at the byte `start` of `text`.
fn wrong(text: &str, start: usize, what: &str) -> Error {
    let line = text.as_bytes()[..start.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
    Error::usage(format!("line {line}: {what}")).hint(HINT)
}

impl Known {
    /// What is wrong with the set, if anything.
    fn fault(&self, name: &str) -> Option<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Some("a name is made of letters a to z, digits, -, _ and .".to_owned());
        }
        if self.about.trim().is_empty() {
            return Some("it has no `about`".to_owned());
        }
        let sources = [("hub", self.hub.is_some()), ("url", self.url.is_some()), ("parts", !self.parts.is_empty())];
        let given: Vec<&str> = sources.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
        if given.len() > 1 {
            return Some(format!("it has both `{}` and `{}`; one is where it comes from", given[0], given[1]));
        }
        let has_patterns = !self.train.is_empty() || !self.val.is_empty();
        match given.first() {
            Some(&"parts") if has_patterns || self.columns.is_some() => {
                return Some("its parts have their own `train`, `val` and `columns`".to_owned());
            }
            Some(&"url") if has_patterns => {
                return Some("`url` is one file to train on: no `train` or `val` beside it".to_owned());
            }
            Some(&"hub") | None if self.train.is_empty() => {
                return Some("it has no `train`: patterns of the files to train on".to_owned());
            }
            _ => {}
        }
        if let Some(part) = self.val_parts.iter().find(|part| !self.parts.contains(part)) {
            return Some(format!("`{part}` of `val-parts` is none of its `parts`"));
        }
        if self.sha256.is_some() && self.url.is_none() {
            return Some("`sha256` is the hash of what `url` names, which is missing".to_owned());
        }
        let is_hash = |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if self.sha256.as_ref().is_some_and(|hash| !is_hash(hash)) {
            return Some("`sha256` is not 64 hexadecimal digits".to_owned());
        }
        if let Some(hub) = self.hub.as_ref().filter(|hub| Id::parse(Kind::DataSet, hub).is_none()) {
            return Some(format!("`hub` must be OWNER/NAME or OWNER/NAME@REVISION, not `{hub}`"));
        }
        if let Some(url) = self.url.as_ref().filter(|url| file_of(url).is_none()) {
            return Some(format!("`url` must be an http or https address that ends in a file's name, not `{url}`"));
        }
        let has_both = |text: &String| ["es=", "en="].iter().all(|side| text.contains(side));
        if self.columns.as_ref().is_some_and(|text| !has_both(text)) {
            return Some("`columns` must name both texts, as in es=NAME,en=NAME".to_owned());
        }
        let bad = self.train.iter().chain(&self.val).find(|text| Pattern::new(text).is_err() || leaves_folder(text));
        bad.map(|text| format!("`{text}` is no pattern of files below a folder"))
    }
}

fn leaves_folder(path: &str) -> bool {
    path.is_empty() || path.starts_with('/') || path.contains('\\') || path.split('/').any(|part| part == "..")
}

/// The name of the file at an address.
pub fn file_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let (_, path) = rest.split(['?', '#']).next()?.split_once('/')?;
    let name = path.rsplit('/').next()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    (!name.is_empty() && !name.starts_with('.') && name.chars().all(plain)).then_some(name)
}

/// Those of `names` that fit one of `patterns`; of each pattern in the order of the names.
pub fn matching<'a>(patterns: &[String], names: &[&'a str]) -> Vec<&'a str> {
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
    let mut found: Vec<&str> = Vec::new();
    for pattern in patterns.iter().filter_map(|text| Pattern::new(text).ok()) {
        for name in names.iter().filter(|name| pattern.matches_with(name, options)) {
            if !found.contains(name) {
                found.push(name);
            }
        }
    }
    found
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;

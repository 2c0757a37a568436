//! Which form a text file of pairs has: by its first line, and by its name where that leaves a choice.

use std::fmt;
use std::path::Path;

use serde_json::Value;

use super::columns::Wanted;
use super::{csv, moses};
use crate::data::text;
use crate::error::{Error, Result};

/// A form of a text file. `names` are those of the columns with the two texts, and `at` their places.
pub(super) enum Form {
    /// Fields between tabs, without quoting.
    Tsv { header: bool, width: usize, at: [usize; 2], names: [String; 2] },
    /// Fields between delimiters, quoted where they need it, after a header.
    Csv { delimiter: u8, width: usize, at: [usize; 2], names: [String; 2] },
    /// A JSON object on each line.
    Jsonl,
}

impl Form {
    /// `, columns es and en`, for the log.
    pub(super) fn columns(&self) -> String {
        match self {
            Self::Tsv { names: [es, en], .. } | Self::Csv { names: [es, en], .. } => format!(", columns {es} and {en}"),
            Self::Jsonl => String::new(),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tsv { header: true, .. } => "TSV with a header",
            Self::Tsv { header: false, .. } => "TSV without a header",
            Self::Csv { delimiter: b',', .. } => "CSV with a header",
            Self::Csv { delimiter: b';', .. } => "CSV with a header, delimiter ;",
            Self::Csv { .. } => "CSV with a header, delimiter tab",
            Self::Jsonl => "JSON lines",
        })
    }
}

/// The form of the file at `path`, called `name`, whose first line is `head`.
pub(super) fn find(head: &[u8], path: &Path, name: &str, wanted: &Wanted) -> Result<Form> {
    if head.contains(&0) {
        return Err(text::nul_bytes(&format!("{name}, line 1"), head));
    }
    let end = extension(path);
    let line = head.trim_ascii();
    if end == "json" || end == "jsonl" || end == "ndjson" || is_json(line) {
        return json(line, &end, name);
    }
    // A name that ends in .csv lets tabs, too, stand between quoted fields.
    let delimiters: &[u8] = if end == "csv" { b",;\t" } else { b",;" };
    for delimiter in delimiters {
        let fields = csv::header(head, *delimiter);
        if let Some(at) = wanted.find(&fields)? {
            let names = at.map(|at| fields[at].trim().to_owned());
            return Ok(Form::Csv { delimiter: *delimiter, width: fields.len(), at, names });
        }
    }
    if end == "csv" {
        let all = delimiters.iter().map(|delimiter| csv::header(head, *delimiter));
        let fields = all.reduce(|best, fields| if fields.len() > best.len() { fields } else { best });
        let missing = wanted.missing(name, &fields.unwrap_or_default());
        return Err(missing.context("the first line of a CSV file must name its columns"));
    }
    tsv(line_of(head), path, name, wanted)
}

fn tsv(line: &[u8], path: &Path, name: &str, wanted: &Wanted) -> Result<Form> {
    let fields: Vec<String> =
        line.split(|byte| *byte == b'\t').map(|field| String::from_utf8_lossy(field).into()).collect();
    let width = fields.len();
    if let Some(at) = wanted.find(&fields)? {
        let names = at.map(|at| fields[at].trim().to_owned());
        return Ok(Form::Tsv { header: true, width, at, names });
    }
    let number = |at: [usize; 2]| at.map(|at| (at + 1).to_string());
    if let Some(at) = wanted.numbers() {
        return match at.iter().all(|at| *at < width) {
            true => Ok(Form::Tsv { header: false, width, at, names: number(at) }),
            false => Err(wanted.missing(name, &(1..=width).map(|at| at.to_string()).collect::<Vec<_>>())),
        };
    }
    if wanted.columns.is_some() {
        return Err(wanted.missing(name, &fields).context("the first line"));
    }
    if let (1, Some(sides)) = (width, moses::files(path)) {
        let missing = sides.iter().find(|side| *side != path).unwrap_or(&sides[0]).display();
        return Err(Error::new(format!("{name} is one side of a moses pair, and {missing} is missing"))
            .hint("both files must lie in one folder, with names that differ in es and en only"));
    }
    Ok(Form::Tsv { header: false, width: 2, at: [0, 1], names: number([0, 1]) })
}

/// Whether a line begins as a JSON object does: it is one, or is longer than what was looked at.
fn is_json(line: &[u8]) -> bool {
    line.starts_with(b"{") && (line.len() >= 1 << 20 || matches!(serde_json::from_slice(line), Ok(Value::Object(_))))
}

fn json(line: &[u8], end: &str, name: &str) -> Result<Form> {
    let what = match line {
        [b'[', ..] if end == "json" => "a JSON array",
        b"{" if end == "json" => "one JSON object over many lines",
        _ => return Ok(Form::Jsonl),
    };
    Err(Error::new(format!("{name} is {what}; JSON is read with one object a line"))
        .hint("convert it, for example with: jq -c '.[]' OLD.json > NEW.jsonl"))
}

/// The lower-case end of a name, without that of a packing.
fn extension(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = [".gz", ".zst", ".zstd"].iter().find_map(|packing| name.strip_suffix(packing)).unwrap_or(&name);
    name.rsplit_once('.').map_or(String::new(), |(_, end)| end.to_owned())
}

fn line_of(head: &[u8]) -> &[u8] {
    let line = head.strip_suffix(b"\n").unwrap_or(head);
    line.strip_suffix(b"\r").unwrap_or(line)
}

//! Spanish/English caption pairs, and their files: TSV, CSV, JSON lines, Parquet and moses.
//!
//! | file | |
//! |---|---|
//! | `form` | which of them a file is |
//! | `columns` | which columns hold the two texts |
//! | `lines`, `csv`, `parquet`, `moses` | the readers |
//! | `output` | where the rows go, and the report of them |
//!
//! Files are read as streams: memory holds a row, or (Parquet) some pages.

mod columns;
mod csv;
mod form;
mod lines;
mod moses;
mod output;
mod parquet;

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use crate::data::text::{self, Lines, Text};
use crate::error::{Error, Result, ResultExt};
pub use columns::Columns;
use columns::Wanted;
use form::Form;
use output::Output;
pub use output::{ReadReport, Row, Sink};

/// What one image is said to show, in both languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The Spanish caption: what the student reads.
    pub es: String,
    /// The English caption: what the teacher reads.
    pub en: String,
}

/// Hands the rows of the file at `path` (`-`: standard input) to `sink`, in order. The format is found by content first, by
/// name second, and logged; `columns` names the two texts where the file names its columns. Text forms may be packed by
/// gzip or zstd, and are UTF-8.
///
/// A row that does not hold two texts is counted with its reason and left out; texts may be empty. A damaged file, one of
/// another encoding, and one without a single pair are errors.
pub fn read<'a>(path: &Path, columns: Option<&Columns>, sink: &'a mut Sink<'a>) -> Result<ReadReport> {
    let report = read_form(path, &Wanted { columns: columns.cloned() }, sink).context(|| "cannot read the pairs")?;
    let ReadReport { file, unit, rows, rejected, .. } = &report;
    let pairs = rows - rejected.total();
    if pairs == 0 {
        let why = if rejected.is_empty() { String::new() } else { format!(": {rejected}") };
        let windows = if rejected.of(output::NOT_UTF8) > 0 { WINDOWS } else { "" };
        let what = format!("no caption pair in {file} ({rows} {unit}s{why}{windows})");
        return Err(Error::new(what).hint(HINT));
    }
    if !rejected.is_empty() {
        let windows = if rejected.of(output::NOT_UTF8) > 0 { WINDOWS } else { "" };
        tracing::warn!("{file}: skipped {} of {rows} {unit}s: {rejected}{windows}", rejected.total());
    }
    Ok(report)
}

/// The files that [`read`] reads for `path`: both sides of a moses pair, else the file itself.
pub fn files(path: &Path) -> Vec<PathBuf> {
    match moses::files(path).filter(|sides| sides.iter().all(|side| side.exists())) {
        Some(sides) => sides.to_vec(),
        None => vec![path.to_owned()],
    }
}

const WINDOWS: &str = "; perhaps Windows-1252, which iconv -f WINDOWS-1252 -t UTF-8 converts";
const HINT: &str = "without a header, each line is a Spanish caption, a tab, and its English translation; a header may name \
                    the columns: es and en, or those of --columns es=NAME,en=NAME (numbers where there is no header)";

fn read_form<'a>(path: &Path, wanted: &Wanted, sink: &'a mut Sink<'a>) -> Result<ReadReport> {
    if path == Path::new("-") && std::io::stdin().is_terminal() {
        return Err(Error::usage("standard input is a terminal")
            .hint("pipe the pairs in, as in: zcat pairs.tsv.gz | themo train --pairs -"));
    }
    match magic(path)? {
        [b'P', b'A', b'R', b'1' | b'E'] => return parquet::read(path, wanted, sink),
        [b'P', b'K', 3, 4] => {
            let sides = moses::open_zip(path)?;
            return read_moses(&path.display().to_string(), "moses in a zip", sides, sink);
        }
        _ => {}
    }
    if let Some([es, en]) = moses::files(path).filter(|sides| sides.iter().all(|side| side.exists())) {
        let name = format!("{} and {}", es.display(), en.display());
        return read_moses(&name, "moses", [text::open(&es)?, text::open(&en)?], sink);
    }
    let mut text = text::open(path).hint(|| "check the path given to --pairs or --val-pairs")?;
    let head = text.first_line()?;
    let form = form::find(&head, path, text.name(), wanted)?;
    let packing = text.packing().map_or(String::new(), |packing| format!(", {packing}"));
    let mut out = Output::new(text.name(), "line", format!("{form}{packing}{}", form.columns()), sink);
    match form {
        Form::Tsv { header, width, at, .. } => lines::read_tsv(Lines::of(text), header, width, at, &mut out),
        Form::Csv { delimiter, width, at, .. } => csv::read(text, delimiter, width, at, &mut out),
        Form::Jsonl => lines::read_jsonl(Lines::of(text), wanted, &mut out),
    }?;
    Ok(out.report)
}

/// The first four bytes of a file; zeros for a pipe, which can be read once.
fn magic(path: &Path) -> Result<[u8; 4]> {
    let mut head = Vec::new();
    if path.is_file() {
        let name = path.display();
        let file = File::open(path).context(|| format!("cannot read {name}"))?;
        file.take(4).read_to_end(&mut head).context(|| format!("cannot read {name}"))?;
    }
    head.resize(4, 0);
    Ok([head[0], head[1], head[2], head[3]])
}

fn read_moses<'a>(name: &str, form: &str, sides: [Text; 2], sink: &'a mut Sink<'a>) -> Result<ReadReport> {
    let packing = sides[0].packing().or(sides[1].packing()).map_or(String::new(), |packing| format!(", {packing}"));
    let mut out = Output::new(name, "line", format!("{form}{packing}"), sink);
    lines::read_moses(sides.map(Lines::of), &mut out)?;
    Ok(out.report)
}

#[cfg(test)]
mod tests;

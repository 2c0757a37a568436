//! Where the rows of a file go, and the report of them.

use serde::Serialize;

use crate::data::tally::{Tally, excerpt};
use crate::error::Result;

/// A row of a file with its two texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// What `number` counts: `line` or, in Parquet, `row`.
    pub unit: &'static str,
    /// The number of its (first) line or of the row, from 1.
    pub number: u64,
    /// The Spanish text, perhaps empty.
    pub es: &'a str,
    /// The English text, perhaps empty.
    pub en: &'a str,
}

/// What is done with each row; an error of it ends the reading.
pub type Sink<'a> = dyn FnMut(Row) -> Result<()> + 'a;

/// What was read from a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReadReport {
    /// The file.
    pub file: String,
    /// Its format, packing and columns.
    pub format: String,
    /// How its rows are numbered: `line` or `row`.
    pub unit: &'static str,
    /// How many rows it has; blank lines are none.
    pub rows: u64,
    /// The rows that hold no two texts, by why.
    pub rejected: Tally,
}

pub(super) const WIDTH: &str = "with another number of columns";
pub(super) const NOT_UTF8: &str = "not UTF-8";
pub(super) const NULS: &str = "with NULs";
pub(super) const MISSING: &str = "without one of the texts";
pub(super) const NO_TEXT: &str = "of which one side is no text";
pub(super) const NO_JSON: &str = "not a JSON object";

/// Takes the rows of one file: hands on what are two texts, counts the rest.
pub(super) struct Output<'a> {
    pub(super) report: ReadReport,
    sink: &'a mut Sink<'a>,
}

impl<'a> Output<'a> {
    pub(super) fn new(file: &str, unit: &'static str, format: String, sink: &'a mut Sink<'a>) -> Self {
        tracing::info!("{file}: {format}");
        Self { report: ReadReport { file: file.to_owned(), format, unit, ..ReadReport::default() }, sink }
    }

    /// Says which columns the texts are, where that is found out late.
    pub(super) fn found(&mut self, es: &str, en: &str) {
        let columns = format!("columns {es} and {en}");
        tracing::info!("{}: {columns}", self.report.file);
        self.report.format += &format!(", {columns}");
    }

    /// A row with its two texts, if they are.
    pub(super) fn put(&mut self, number: u64, es: &[u8], en: &[u8]) -> Result<()> {
        let shown = || [es, b" / ", en].concat();
        if es.contains(&0) || en.contains(&0) {
            self.reject(NULS, number, &shown());
            return Ok(());
        }
        match (str::from_utf8(es), str::from_utf8(en)) {
            (Ok(es), Ok(en)) => {
                self.report.rows += 1;
                (self.sink)(Row { unit: self.report.unit, number, es, en })
            }
            _ => {
                self.reject(NOT_UTF8, number, &shown());
                Ok(())
            }
        }
    }

    /// A row that holds no two texts.
    pub(super) fn reject(&mut self, why: &'static str, number: u64, text: &[u8]) {
        self.report.rows += 1;
        let unit = self.report.unit;
        self.report.rejected.add(why, || format!("{unit} {number}: {}", excerpt(text)));
    }
}

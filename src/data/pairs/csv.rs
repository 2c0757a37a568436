//! CSV with a header (RFC 4180): quoted fields may hold delimiters, doubled quotes and line ends.

use std::io::{self, Read};

use csv::{ByteRecord, ReaderBuilder};

use super::output::{Output, WIDTH};
use crate::data::text::Text;
use crate::error::{Error, Result, ResultExt};

/// A longer row is a quote that never closes, and would swallow the file.
const MAX_ROW_BYTES: u64 = 16 << 20;

/// The fields of the header line `head`.
pub(super) fn header(head: &[u8], delimiter: u8) -> Vec<String> {
    let mut record = ByteRecord::new();
    let mut reader = ReaderBuilder::new().delimiter(delimiter).has_headers(false).from_reader(head);
    match reader.read_byte_record(&mut record) {
        Ok(true) => record.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect(),
        _ => Vec::new(),
    }
}

/// Rows of `width` fields after a header; the texts are the fields `at`.
pub(super) fn read(text: Text, delimiter: u8, width: usize, at: [usize; 2], out: &mut Output) -> Result<()> {
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .has_headers(true)
        .buffer_capacity(1 << 16)
        .from_reader(RowLimit { text, bytes: 0 });
    let mut record = ByteRecord::new();
    loop {
        let more = reader.read_byte_record(&mut record);
        let more = more.map_err(|e| broken(reader.get_ref(), out.report.rows, e));
        if !more.hint(|| "make or fetch the file again")? {
            return Ok(());
        }
        reader.get_mut().bytes = 0;
        let line = record.position().map_or(0, csv::Position::line);
        match (record.get(at[0]), record.get(at[1])) {
            (Some(es), Some(en)) if record.len() == width => out.put(line, es, en)?,
            _ => out.reject(WIDTH, line, &record.iter().collect::<Vec<_>>().join(&delimiter)),
        }
    }
}

fn broken(stream: &RowLimit, rows: u64, error: csv::Error) -> Error {
    if stream.over() {
        let what = format!("{}: row {} is longer than {} MiB", stream.text.name(), rows + 1, MAX_ROW_BYTES >> 20);
        return Error::new(what).hint("a quoted field is never closed: look for a quote in the rows before");
    }
    let error = match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    };
    stream.text.broken(error, rows, "rows")
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

//! Rows of tab-separated text whose fields may be quoted, of which a few columns are kept.
//!
//! The rules are the csv crate's (and those of pandas and Python's csv module): a field that begins with `"` is quoted
//! and may hold tabs and line ends; `""` in it is a quote; what follows its closing quote belongs to the field as it is.
//! A quote elsewhere is text. CR, LF and CRLF end a row; empty lines are no rows. Bytes of other columns are searched
//! for their end and not copied, which makes this several times as fast as a reader of whole records.

use std::io::{self, BufRead};

use memchr::{memchr, memchr3};

/// Real rows stay far below this; a longer one is a quote that never closes, and would swallow the file.
pub(super) const MAX_ROW_BYTES: usize = 16 << 20;

/// The kept fields of a row, unquoted, and what is known of the others.
#[derive(Default)]
pub(super) struct Row {
    /// Kept fields, one after another.
    bytes: Vec<u8>,
    /// Where each kept field ends in `bytes`.
    ends: Vec<usize>,
    /// How many columns the row has, with those that are not kept.
    pub(super) columns: usize,
    /// Whether there is a NUL anywhere in the row.
    pub(super) has_nul: bool,
}

impl Row {
    /// The kept fields, in the order of their columns.
    pub(super) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).map(|k| self.field(k))
    }

    /// Adds the part of `rest` that stands before `end`, if the field is kept; how many bytes that part has.
    fn add_text(&mut self, rest: &[u8], end: Option<usize>, kept: bool) -> usize {
        let text = &rest[..end.unwrap_or(rest.len())];
        if kept {
            self.bytes.extend_from_slice(text);
        }
        text.len()
    }

    /// The bytes of all kept fields.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The kept field `k`; empty where the row has no such column.
    pub(super) fn field(&self, k: usize) -> &[u8] {
        let start = k.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied());
        match (start, self.ends.get(k)) {
            (Some(start), Some(&end)) => &self.bytes[start..end],
            _ => &[],
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        (self.columns, self.has_nul) = (0, false);
    }
}

/// Why there is no next row.
#[derive(Debug)]
pub(super) enum Broken {
    /// The row is longer than [`MAX_ROW_BYTES`].
    TooLong,
    /// The source failed in this row.
    Source(io::Error),
}

#[derive(Clone, Copy)]
enum State {
    FieldStart,
    Plain,
    Quoted,
    /// After a quote in a quoted field: the field's end, or the first half of `""`.
    QuoteInQuoted,
}

/// Reads rows from `source`.
pub(super) struct RowReader<R> {
    source: R,
    /// How many of the next bytes are known to hold no NUL.
    without_nul: usize,
}

impl<R: BufRead> RowReader<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, without_nul: 0 }
    }

    pub(super) fn source(&self) -> &R {
        &self.source
    }

    /// Reads on to the end of the source, whatever is there.
    pub(super) fn skip_all(&mut self) -> io::Result<()> {
        io::copy(&mut self.source, &mut io::sink()).map(drop)
    }

    /// Reads the next row into `row`, with the fields of the columns that `keep` names by number; `false` at the end.
    pub(super) fn next(&mut self, row: &mut Row, keep: impl Fn(usize) -> bool) -> Result<bool, Broken> {
        row.clear();
        let (mut in_row, mut state, mut length) = (false, State::FieldStart, 0);
        loop {
            let chunk = match self.source.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Broken::Source(error)),
            };
            if chunk.is_empty() {
                if in_row {
                    end_field(row, &keep);
                }
                return Ok(in_row);
            }
            if !in_row {
                let blank = chunk.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                in_row = blank < chunk.len();
                self.without_nul = self.without_nul.saturating_sub(blank);
                self.source.consume(blank);
                continue;
            }
            if self.without_nul == 0 {
                self.without_nul = memchr(0, chunk).unwrap_or(chunk.len());
            }
            let (used, is_done) = parse(chunk, &mut state, row, &keep);
            row.has_nul |= used > self.without_nul;
            self.without_nul = self.without_nul.saturating_sub(used);
            self.source.consume(used);
            length += used;
            if length > MAX_ROW_BYTES {
                return Err(Broken::TooLong);
            }
            if is_done {
                return Ok(true);
            }
        }
    }
}

/// Reads `chunk` to the end of the row or of the chunk; how many bytes that are, and whether the row is done.
fn parse(chunk: &[u8], state: &mut State, row: &mut Row, keep: &impl Fn(usize) -> bool) -> (usize, bool) {
    let mut at = 0;
    let mut kept = keep(row.columns);
    while let Some(&byte) = chunk.get(at) {
        match *state {
            State::FieldStart if byte == b'"' => {
                at += 1;
                *state = State::Quoted;
            }
            State::QuoteInQuoted if byte == b'"' => {
                if kept {
                    row.bytes.push(byte);
                }
                at += 1;
                *state = State::Quoted;
            }
            State::Quoted => {
                let end = memchr(b'"', &chunk[at..]);
                at += row.add_text(&chunk[at..], end, kept);
                if end.is_some() {
                    at += 1;
                    *state = State::QuoteInQuoted;
                }
            }
            State::FieldStart | State::QuoteInQuoted | State::Plain => {
                let end = memchr3(b'\t', b'\n', b'\r', &chunk[at..]);
                at += row.add_text(&chunk[at..], end, kept);
                *state = State::Plain;
                if end.is_some() {
                    at += 1;
                    end_field(row, keep);
                    if chunk[at - 1] != b'\t' {
                        return (at, true);
                    }
                    kept = keep(row.columns);
                    *state = State::FieldStart;
                }
            }
        }
    }
    (at, false)
}

fn end_field(row: &mut Row, keep: &impl Fn(usize) -> bool) {
    if keep(row.columns) {
        row.ends.push(row.bytes.len());
    }
    row.columns += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    type Records = Vec<Vec<Vec<u8>>>;

    /// Hands `text` out in chunks of the given size, as a pipe might.
    fn chunks(text: &[u8], size: usize) -> impl BufRead {
        io::BufReader::with_capacity(size, text)
    }

    fn records(text: &[u8], size: usize, keep: impl Fn(usize) -> bool + Copy) -> (Records, Vec<(usize, bool)>) {
        let (mut rows, mut row, mut all, mut shapes) =
            (RowReader::new(chunks(text, size)), Row::default(), vec![], vec![]);
        while rows.next(&mut row, keep).expect("in memory") {
            all.push(row.fields().map(<[u8]>::to_vec).collect());
            shapes.push((row.columns, row.has_nul));
        }
        (all, shapes)
    }

    /// The same with the csv crate.
    fn oracle(text: &[u8]) -> Records {
        let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').flexible(true).has_headers(false).from_reader(text);
        let record = |record: csv::Result<csv::ByteRecord>| {
            record.expect("in memory").iter().map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        reader.byte_records().map(record).collect()
    }

    #[test]
    fn fuzzed_rows_are_those_of_the_csv_crate() {
        let pieces: [&[u8]; 14] = [
            b"\t",
            b"\t",
            b"\n",
            b"\r",
            b"\r\n",
            b"\"",
            b"\"",
            b"\"\"",
            b"\0",
            b"a",
            b" ",
            "\u{f1}".as_bytes(),
            b"\xff",
            b"bcd",
        ];
        let mut draw = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |most: usize| {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (draw >> 33) as usize % most
        };
        let (mut quoted, mut with_nul) = (0, 0);
        for _ in 0..30_000 {
            let text: Vec<u8> = (0..next(40)).flat_map(|_| pieces[next(pieces.len())].iter().copied()).collect();
            let expected = oracle(&text);
            let (all, shapes) = records(&text, [1, 2, 3, 7, 4096][next(5)], |_| true);
            assert_eq!(all, expected, "{:?}", String::from_utf8_lossy(&text));
            let expected_shapes: Vec<_> =
                expected.iter().map(|fields| (fields.len(), fields.iter().any(|f| f.contains(&0)))).collect();
            assert_eq!(shapes, expected_shapes, "{:?}", String::from_utf8_lossy(&text));
            let (kept, shapes) = records(&text, [1, 5, 4096][next(3)], |column| column % 2 == 1);
            let odd = |fields: &Vec<Vec<u8>>| fields.iter().skip(1).step_by(2).cloned().collect::<Vec<_>>();
            assert_eq!(kept, expected.iter().map(odd).collect::<Records>());
            assert_eq!(shapes, expected_shapes);
            quoted += usize::from(expected.iter().flatten().any(|field| field.contains(&b'\n')));
            with_nul += usize::from(shapes.iter().any(|shape| shape.1));
        }
        assert!(quoted > 1000 && with_nul > 1000, "{quoted} {with_nul}");
    }

    #[test]
    fn rows_have_a_longest() {
        let mut row = Row::default();
        let text = [&b"one\ttwo\n\"open"[..], &vec![b'\n'; MAX_ROW_BYTES]].concat();
        let mut rows = RowReader::new(chunks(&text, 1 << 16));
        assert!(rows.next(&mut row, |_| false).expect("a row"));
        assert_eq!((row.columns, row.field(0), row.field(5)), (2, &b""[..], &b""[..]));
        assert!(matches!(rows.next(&mut row, |_| false), Err(Broken::TooLong)));
        // Empty lines are no row, however many.
        let text = [&vec![b'\n'; MAX_ROW_BYTES + 9][..], b"x"].concat();
        let mut rows = RowReader::new(chunks(&text, 1 << 16));
        assert!(rows.next(&mut row, |_| true).expect("a row") && row.field(0) == b"x");
        assert!(!rows.next(&mut row, |_| true).expect("the end"));
    }
}

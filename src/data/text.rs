//! Text files and lists: plain, gzip or zstd (by content), from a file or (`-`) standard input, in UTF-8.
//! Other encodings are errors that name them. A byte-order mark at the beginning is dropped; elsewhere it is text.
//! Packed texts are unpacked on a thread of their own, ahead of their use.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::ahead::{Ahead, WholeReads};
use super::damage::Damage;
use super::gzip::Members;
use super::zstd::Frames;
use crate::error::{Error, Result, ResultExt};
use crate::fs::shown;

/// No line of text is this long: a longer one is a file of another kind, or one made to fill the memory.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// How much of a file is read at once.
const BUFFER_BYTES: usize = 1 << 18;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Marks of other encodings. (UTF-32LE's begins with UTF-16LE's.)
const FOREIGN_MARKS: [(&[u8], &str); 4] = [
    (b"\xff\xfe\0\0", "UTF-32LE"),
    (b"\0\0\xfe\xff", "UTF-32BE"),
    (b"\xff\xfe", "UTF-16LE"),
    (b"\xfe\xff", "UTF-16BE"),
];
/// How formats begin that hold text but are not read.
const FOREIGN_FORMATS: [(&[u8], &str); 3] = [
    (b"\xfd7zXZ\0", "an xz file"),
    (b"BZh91AY&SY", "a bzip2 file"),
    (b"PK\x03\x04", "a ZIP archive (a spreadsheet is one, too)"),
];

/// The bytes of a text, unpacked, without a byte-order mark at the beginning.
pub(super) struct Text {
    name: String,
    packing: Option<&'static str>,
    bytes: Box<dyn BufRead + Send>,
    position: u64,
}

/// Opens the text at `path`, or standard input for `-`.
pub(super) fn open(path: &Path) -> Result<Text> {
    let (name, bytes): (String, Box<dyn BufRead + Send>) = if path == Path::new("-") {
        ("standard input".to_owned(), Box::new(BufReader::with_capacity(BUFFER_BYTES, io::stdin())))
    } else {
        let name = shown(path);
        let file = File::open(path).context(|| format!("cannot read {name}"))?;
        (name, Box::new(BufReader::with_capacity(BUFFER_BYTES, file)))
    };
    from_bytes(name, bytes)
}

/// The text in `bytes`, which is called `name` in messages.
pub(super) fn from_bytes(name: String, bytes: Box<dyn BufRead + Send>) -> Result<Text> {
    let mut text = Text { name, packing: None, bytes, position: 0 };
    let head = text.peek()?;
    if let Some((_, format)) = FOREIGN_FORMATS.iter().find(|(magic, _)| head.starts_with(magic)) {
        let what = format!("{} is {format}, not text", text.name);
        return Err(Error::new(what).hint("unpack or export it first: plain UTF-8 text, gzip and zstd are read"));
    }
    if head.starts_with(b"\x1f\x8b") {
        text.unpack("gzip", Members::new)?;
    } else if Frames::are_in(&head) {
        text.unpack("zstd", Frames::new)?;
    }
    let head = if text.packing.is_some() { text.peek()? } else { head };
    if let Some((_, encoding)) = FOREIGN_MARKS.iter().find(|(mark, _)| head.starts_with(mark)) {
        return Err(not_utf8(format!("{} is {encoding} text, not UTF-8", text.name), encoding));
    }
    if head.starts_with(BYTE_ORDER_MARK) {
        let read = text.read_exact(&mut [0; BYTE_ORDER_MARK.len()]);
        read.map_err(|e| text.broken(e, 0, "lines"))?;
    }
    Ok(text)
}

fn not_utf8(what: String, encoding: &str) -> Error {
    Error::new(what).hint(format!("convert it to UTF-8, for example with: iconv -f {encoding} -t UTF-8 OLD > NEW"))
}

impl Text {
    /// What to call it in messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// `gzip` or `zstd`, if it was packed.
    pub(super) fn packing(&self) -> Option<&'static str> {
        self.packing
    }

    /// The first bytes, which stay to be read. (A pipe may hand them out one by one.)
    fn peek(&mut self) -> Result<Vec<u8>> {
        self.peek_until(16, |_| false)
    }

    /// The first line with its end, or the beginning of one of more than a MiB; it stays to be read.
    pub(super) fn first_line(&mut self) -> Result<Vec<u8>> {
        let mut head = self.peek_until(1 << 20, |bytes| bytes.contains(&b'\n'))?;
        head.truncate(head.iter().position(|byte| *byte == b'\n').map_or(head.len(), |end| end + 1));
        Ok(head)
    }

    fn peek_until(&mut self, most: u64, enough: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        let (mut head, mut seen) = (Vec::new(), None);
        while seen != Some(head.len()) && (head.len() as u64) < most && !enough(&head[seen.unwrap_or(0)..]) {
            seen = Some(head.len());
            let room = (most - head.len() as u64).min(4096);
            (&mut self.bytes).take(room).read_to_end(&mut head).map_err(|e| self.broken(e, 0, "lines"))?;
        }
        let rest = std::mem::replace(&mut self.bytes, Box::new(io::empty()));
        self.bytes = Box::new(io::Cursor::new(head.clone()).chain(rest));
        Ok(head)
    }

    fn unpack<R: Read + Send + 'static>(
        &mut self, packing: &'static str, unpack: impl FnOnce(BufReader<WholeReads<Box<dyn BufRead + Send>>>) -> R,
    ) -> Result<()> {
        let packed = WholeReads(std::mem::replace(&mut self.bytes, Box::new(io::empty())));
        let unpacked = Ahead::new(unpack(BufReader::with_capacity(BUFFER_BYTES, packed)));
        self.bytes = Box::new(unpacked.context(|| format!("cannot start a thread to read {}", self.name))?);
        self.packing = Some(packing);
        Ok(())
    }

    /// How many of the text's bytes have been read.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// What a failed read means after `count` lines or rows, the `unit`.
    pub(super) fn broken(&self, error: io::Error, count: u64, unit: &str) -> Error {
        let packing = self.packing.filter(|_| Damage::of(&error).is_some());
        Error::from(error).context(match packing {
            Some(packing) => {
                format!("the {packing} data of {} is truncated or corrupt after {count} {unit}", self.name)
            }
            None => format!("cannot read {} after {count} {unit}", self.name),
        })
    }
}

impl Read for Text {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl BufRead for Text {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.bytes.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.bytes.consume(n);
        self.position += n as u64;
    }
}

/// The lines of a text, one at a time.
pub(super) struct Lines {
    text: Text,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self::of(open(path)?))
    }

    pub(super) fn of(text: Text) -> Self {
        Self { text, line: Vec::new(), number: 0 }
    }

    /// What the text is called in messages.
    pub(super) fn name(&self) -> &str {
        self.text.name()
    }

    /// How many lines have been read.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next line without its end (LF or CRLF); it may be of any bytes but NULs, which no text holds.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>> {
        if !self.advance()? {
            return Ok(None);
        }
        match self.line.contains(&0) {
            true => Err(self.nul_bytes()),
            false => Ok(Some(self.line())),
        }
    }

    /// The last line read, without its end.
    pub(super) fn line(&self) -> &[u8] {
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// Reads the next line, of whatever bytes it is, for [`line`](Self::line); `false` at the end.
    pub(super) fn advance(&mut self) -> Result<bool> {
        self.line.clear();
        let read = (&mut self.text).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut self.line);
        let read = read.map_err(|e| self.text.broken(e, self.number, "lines"));
        if read.hint(|| "make or fetch the file again")? == 0 {
            return Ok(false);
        }
        self.number += 1;
        if self.line.len() as u64 > MAX_LINE_BYTES {
            if self.line.contains(&0) {
                return Err(self.nul_bytes());
            }
            let what = self.at(&format!("longer than {} MiB", MAX_LINE_BYTES >> 20));
            return Err(Error::new(what).hint("give a text file of lines"));
        }
        Ok(true)
    }

    /// The refusal of the text for the NULs in the last line read.
    pub(super) fn nul_bytes(&self) -> Error {
        nul_bytes(&format!("{}, line {}", self.name(), self.number), &self.line)
    }

    fn at(&self, what: &str) -> String {
        format!("{}, line {}: {what}", self.name(), self.number)
    }
}

/// The refusal of a text for the NULs in its bytes at `place`.
pub(super) fn nul_bytes(place: &str, bytes: &[u8]) -> Error {
    let what = |is: &str| format!("{place}: NUL bytes: {is}, not UTF-8 text");
    match guess(bytes) {
        Some(encoding) => not_utf8(what(&format!("this looks like {encoding}")), encoding),
        None => Error::new(what("this is binary data")).hint("give a text file in UTF-8"),
    }
}

/// The encoding in which the NULs of `bytes` would be parts of characters: nearly all European text is of characters
/// below U+0100, and none of those beyond U+10FFFF.
pub(super) fn guess(bytes: &[u8]) -> Option<&'static str> {
    let bytes = &bytes[..bytes.len().min(4096)];
    // The share of NULs among the bytes `first`, `first + step`, ...
    let zeros = |first: usize, step: usize| {
        let picked = bytes.iter().skip(first).step_by(step);
        picked.clone().filter(|byte| **byte == 0).count() as f64 / picked.len().max(1) as f64
    };
    let (even, odd) = (zeros(0, 2), zeros(1, 2));
    match [0, 1, 2, 3].map(|first| zeros(first, 4) > 0.9) {
        [false, _, true, true] => Some("UTF-32LE"),
        [true, true, _, false] => Some("UTF-32BE"),
        _ if odd > 0.4 && even < 0.1 => Some("UTF-16LE"),
        _ if even > 0.4 && odd < 0.1 => Some("UTF-16BE"),
        _ => None,
    }
}

/// The lines of a text as they are, in blocks.
pub struct Blocks(Lines);

impl Blocks {
    /// Opens the text at `path`, or standard input for `-`.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(Lines::open(path)?))
    }

    /// The next `most` lines, or fewer where they are long; none at the end.
    pub fn next(&mut self, most: usize) -> Result<Vec<String>> {
        let (mut block, mut bytes) = (Vec::new(), 0);
        while block.len() < most && bytes < MAX_LINE_BYTES as usize {
            let Some(line) = self.0.next()?.map(|line| str::from_utf8(line).map(str::to_owned)) else { break };
            let what = || not_utf8(self.0.at("not UTF-8 (perhaps Windows-1252)"), "WINDOWS-1252");
            let line = line.map_err(|_| what())?;
            bytes += line.len();
            block.push(line);
        }
        Ok(block)
    }
}

/// All lines, as they are.
pub fn read_all(path: &Path) -> Result<Vec<String>> {
    let (mut blocks, mut all) = (Blocks::open(path)?, Vec::new());
    loop {
        let block = blocks.next(usize::MAX)?;
        if block.is_empty() {
            return Ok(all);
        }
        all.extend(block);
    }
}

/// The lines of a file whose line numbers mean something, without empty ones at the end. An empty line before the last
/// one is an error, for it would shift what belongs together by line number.
pub(super) fn read_lines(path: &Path) -> Result<Vec<String>> {
    let mut lines = read_all(path)?;
    while lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    if lines.is_empty() {
        return Err(Error::new(format!("{} is empty", path.display())));
    }
    match lines.iter().position(|line| line.trim().is_empty()) {
        Some(empty) => Err(Error::new(format!("{}, line {}: empty", path.display(), empty + 1))),
        None => Ok(lines),
    }
}

/// Brings `text` into Unicode's normal form C, in which an accented letter is one character; whether that changed it.
pub(super) fn to_nfc(text: &mut String) -> bool {
    let changes = !text.is_ascii() && !is_nfc(text);
    if changes {
        *text = text.nfc().collect();
    }
    changes
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;

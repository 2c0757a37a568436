//! Spanish/English caption pairs, and their plainest file: Spanish TAB English, one pair a line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::error::{Error, Result, ResultExt};

/// What one image is said to show, in both languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The Spanish caption: what the student reads.
    pub es: String,
    /// The English caption: what the teacher reads.
    pub en: String,
}

/// Reads `Spanish TAB English` lines (UTF-8, LF or CRLF, no quoting). Lines without exactly two non-empty fields are
/// counted, warned about once and skipped.
pub fn read_tsv(path: &Path) -> Result<Vec<Pair>> {
    let failed = || format!("cannot read the pairs {}", path.display());
    let file = File::open(path).context(failed).hint(|| "check the path given to --pairs or --val-pairs")?;
    let (mut reader, mut line) = (BufReader::new(file), Vec::new());
    let (mut pairs, mut number, mut skipped, mut first_skipped) = (Vec::new(), 0usize, 0usize, 0usize);
    let hint = || "--pairs and --val-pairs take text files";
    while reader.read_until(b'\n', &mut line).context(failed).hint(hint)? > 0 {
        number += 1;
        match parse(if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line }) {
            Some(pair) => pairs.push(pair),
            None => {
                skipped += 1;
                if skipped == 1 {
                    first_skipped = number;
                }
            }
        }
        line.clear();
    }
    if skipped > 0 {
        tracing::warn!(
            "{}: skipped {skipped} of {number} lines that are not two non-empty UTF-8 fields with a tab between, \
             the first on line {first_skipped}",
            path.display()
        );
    }
    if pairs.is_empty() {
        let what = format!("no caption pair in {} ({number} lines)", path.display());
        return Err(Error::new(what).hint("each line is a Spanish caption, a tab, and its English translation"));
    }
    tracing::info!("{}: {} pairs", path.display(), pairs.len());
    Ok(pairs)
}

fn parse(line: &[u8]) -> Option<Pair> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).ok()?;
    let (es, en) = line.split_once('\t')?;
    let usable = !es.trim().is_empty() && !en.trim().is_empty() && !en.contains('\t');
    usable.then(|| Pair { es: es.to_owned(), en: en.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Pair>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("pairs.tsv");
        std::fs::write(&path, bytes)?;
        read_tsv(&path)
    }

    #[test]
    fn keeps_the_usable_lines() -> Result<()> {
        let pairs = read(
            b"\xef\xbb\xbfun \"gato\ta \"cat\r\n\nsolo\n\tcat\nun perro\t \na\tb\tc\nmal\xff\tbad\nuna luna\ta moon",
        )?;
        let pair = |es: &str, en: &str| Pair { es: es.into(), en: en.into() };
        assert_eq!(pairs, [pair("un \"gato", "a \"cat"), pair("una luna", "a moon")]);
        Ok(())
    }

    #[test]
    fn nothing_usable_or_no_file_is_an_error() {
        for bytes in [&b""[..], b"solo\n\xff\t\xff\n"] {
            let error = read(bytes).expect_err("nothing usable");
            assert!(error.to_string().contains("pairs.tsv") && error.advice().is_some(), "{error}");
        }
        let error = read_tsv(Path::new("/nowhere/pairs.tsv")).expect_err("no such file");
        assert!(error.to_string().contains("/nowhere/pairs.tsv") && error.advice().is_some(), "{error}");
    }
}

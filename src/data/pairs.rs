//! Spanish/English caption pairs, and their plainest file: Spanish TAB English, one pair a line.

use std::io::IsTerminal;
use std::path::Path;

use super::text::{Lines, to_nfc};
use crate::error::{Error, Result, ResultExt};

/// What one image is said to show, in both languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The Spanish caption: what the student reads.
    pub es: String,
    /// The English caption: what the teacher reads.
    pub en: String,
}

/// Reads `Spanish TAB English` lines (UTF-8, LF or CRLF, no quoting) from a file or (`-`) standard input; gzip and zstd
/// are unpacked. Lines without exactly two non-empty fields are counted, warned about once and skipped; NUL bytes,
/// UTF-16 and damaged compressed data are errors. `normalize` brings captions into Unicode's normal form C.
pub fn read_tsv(path: &Path, normalize: bool) -> Result<Vec<Pair>> {
    let failed = || "cannot read the pairs";
    if path == Path::new("-") && std::io::stdin().is_terminal() {
        return Err(Error::usage("standard input is a terminal")
            .context(failed())
            .hint("pipe them in, as in: zcat pairs.tsv.gz | themo train --pairs -"));
    }
    let mut lines = Lines::open(path).context(failed).hint(|| "check the path given to --pairs or --val-pairs")?;
    let (mut pairs, mut skipped, mut first_skipped, mut not_utf8) = (Vec::new(), 0u64, 0, 0u64);
    while let Some(line) = lines.next().context(failed).hint(|| "--pairs and --val-pairs take text files")? {
        let line = str::from_utf8(line);
        not_utf8 += u64::from(line.is_err());
        match line.ok().and_then(parse) {
            Some(pair) => pairs.push(pair),
            None => {
                skipped += 1;
                if skipped == 1 {
                    first_skipped = lines.number();
                }
            }
        }
    }
    let (name, number) = (lines.name(), lines.number());
    let encoding = match not_utf8 {
        0 => String::new(),
        n => format!("; {n} are not UTF-8 (perhaps Windows-1252, which iconv -f WINDOWS-1252 -t UTF-8 converts)"),
    };
    if skipped > 0 {
        tracing::warn!(
            "{name}: skipped {skipped} of {number} lines that are not two non-empty UTF-8 fields with a tab between, \
             the first on line {first_skipped}{encoding}"
        );
    }
    if pairs.is_empty() {
        let what = format!("no caption pair in {name} ({number} lines{encoding})");
        return Err(Error::new(what).hint("each line is a Spanish caption, a tab, and its English translation"));
    }
    tracing::info!("{name}: {} pairs", pairs.len());
    if normalize {
        all_to_nfc(&mut pairs, name);
    }
    Ok(pairs)
}

fn parse(line: &str) -> Option<Pair> {
    let (es, en) = line.split_once('\t')?;
    let usable = !es.trim().is_empty() && !en.trim().is_empty() && !en.contains('\t');
    usable.then(|| Pair { es: es.to_owned(), en: en.to_owned() })
}

/// Brings captions into normal form C, and says how often that changed one.
pub(super) fn all_to_nfc(pairs: &mut [Pair], source: &str) {
    let captions = pairs.iter_mut().flat_map(|pair| [&mut pair.es, &mut pair.en]);
    let changed = captions.map(to_nfc).filter(|changed| *changed).count();
    if changed > 0 {
        tracing::info!("{source}: normalised {changed} captions to NFC (--no-normalize keeps them)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(bytes: &[u8], normalize: bool) -> Result<Vec<Pair>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("pairs.tsv");
        std::fs::write(&path, bytes)?;
        read_tsv(&path, normalize)
    }

    fn read(bytes: &[u8]) -> Result<Vec<Pair>> {
        read_as(bytes, true)
    }

    fn pair(es: &str, en: &str) -> Pair {
        Pair { es: es.into(), en: en.into() }
    }

    #[test]
    fn keeps_the_usable_lines() -> Result<()> {
        let pairs = read(
            b"\xef\xbb\xbfun \"gato\ta \"cat\r\n\nsolo\n\tcat\nun perro\t \na\tb\tc\nmal\xff\tbad\nuna luna\ta moon",
        )?;
        assert_eq!(pairs, [pair("un \"gato", "a \"cat"), pair("una luna", "a moon")]);
        Ok(())
    }

    #[test]
    fn nothing_usable_or_no_file_is_an_error() {
        for bytes in [&b""[..], b"solo\n\xff\t\xff\n"] {
            let error = read(bytes).expect_err("nothing usable");
            assert!(error.to_string().contains("pairs.tsv") && error.advice().is_some(), "{error}");
        }
        let error = read(b"ni\xf1o\tchild\n").expect_err("Latin-1");
        assert!(error.to_string().contains("1 are not UTF-8 (perhaps Windows-1252"), "{error}");
        let error = read_tsv(Path::new("/nowhere/pairs.tsv"), true).expect_err("no such file");
        assert!(error.to_string().contains("/nowhere/pairs.tsv") && error.advice().is_some(), "{error}");
    }

    #[test]
    fn one_nul_makes_it_no_text() {
        let error = read(b"un gato\ta cat\nuna lu\0na\ta moon\n").expect_err("a NUL");
        let text = error.to_string();
        assert!(text.contains("pairs.tsv, line 2: NUL bytes") && error.advice().is_some(), "{text}");
    }

    #[test]
    fn captions_are_normalised_unless_they_are_to_stay() -> Result<()> {
        let text = "un nin\u{303}o\ta cafe\u{301}\nun niño\ta café\n";
        assert_eq!(read(text.as_bytes())?, [pair("un niño", "a café"), pair("un niño", "a café")]);
        assert_eq!(
            read_as(text.as_bytes(), false)?,
            [pair("un nin\u{303}o", "a cafe\u{301}"), pair("un niño", "a café")]
        );
        Ok(())
    }
}

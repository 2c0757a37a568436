//! Small text files whose line numbers mean something.

use std::path::Path;

use crate::error::{Error, Result, ResultExt};

/// The lines of a UTF-8 file, without a byte-order mark, line ends (LF or CRLF) or empty lines at the end.
/// An empty line before the last one is an error, for it would shift what belongs together by line number.
pub(super) fn read_lines(path: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(path).context(|| format!("cannot read {}", path.display()))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes).trim_ascii_end();
    if bytes.is_empty() {
        return Err(Error::new(format!("{} is empty", path.display())).hint("fetch the file again"));
    }
    let fail = |line: usize, what: &str| {
        Error::new(format!("{}, line {}: {what}", path.display(), line + 1)).hint("fetch the file again")
    };
    let read = |(line, bytes): (usize, &[u8])| match std::str::from_utf8(bytes) {
        Err(_) => Err(fail(line, "not UTF-8")),
        Ok(text) if text.trim().is_empty() => Err(fail(line, "empty")),
        Ok(text) => Ok(text.strip_suffix('\r').unwrap_or(text).to_owned()),
    };
    bytes.split(|&b| b == b'\n').enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_marks_and_blank_lines() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("lines.txt");
        for (bytes, expected) in [
            (&b"\xef\xbb\xbfuno\r\ndos"[..], Ok(vec!["uno", "dos"])),
            (b"uno\ndos\n\r\n\n", Ok(vec!["uno", "dos"])),
            (b"uno\n\ndos\n", Err("line 2: empty")),
            (b"uno\n\xff\n", Err("line 2: not UTF-8")),
            (b"\n", Err("is empty")),
        ] {
            std::fs::write(&path, bytes)?;
            match (read_lines(&path), expected) {
                (Ok(lines), Ok(expected)) => assert_eq!(lines, expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, expected) => panic!("{got:?} is not {expected:?}"),
            }
        }
        Ok(())
    }
}

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("written");
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

fn all(bytes: &[u8]) -> Result<Vec<String>> {
    read_all(file(bytes).path())
}

#[track_caller]
fn fails(bytes: &[u8], parts: &[&str]) {
    let file = file(bytes);
    let error = read_all(file.path()).expect_err("no UTF-8 text");
    for part in parts {
        assert!(error.to_string().contains(part), "{error} lacks {part}");
    }
    assert!(error.to_string().contains(&file.path().display().to_string()) && error.advice().is_some(), "{error}");
}

#[test]
fn line_ends_marks_and_blank_lines() -> Result<()> {
    for (bytes, expected) in [
        (&b"\xef\xbb\xbfuno\r\ndos"[..], Ok(vec!["uno", "dos"])),
        (b"uno\ndos\n\r\n\n", Ok(vec!["uno", "dos"])),
        (b"uno\n\ndos\n", Err("line 2: empty")),
        (b"uno\n\xff\n", Err("line 2: not UTF-8")),
        (b"\n", Err("is empty")),
        (b"", Err("is empty")),
    ] {
        match (read_lines(file(bytes).path()), expected) {
            (Ok(lines), Ok(expected)) => assert_eq!(lines, expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expected) => panic!("{got:?} is not {expected:?}"),
        }
    }
    // A mark that is not at the beginning, and blanks, are text.
    assert_eq!(all("\u{feff}a\n\u{feff}b \n\n c".as_bytes())?, ["a", "\u{feff}b ", "", " c"]);
    // What is not in normal form C stays so.
    assert_eq!(all("nin\u{303}o".as_bytes())?, ["nin\u{303}o"]);
    Ok(())
}

#[test]
fn other_encodings_are_named() {
    let text = "un círculo rojo\ta red circle\r\nuna luna\ta moon\r\n";
    let utf16 = |bytes: fn(u16) -> [u8; 2], text: &str| text.encode_utf16().flat_map(bytes).collect::<Vec<_>>();
    let utf32 = |bytes: fn(u32) -> [u8; 4], text: &str| text.chars().flat_map(|c| bytes(c.into())).collect::<Vec<_>>();
    for mark in ["", "\u{feff}"] {
        let text = format!("{mark}{text}");
        for (bytes, name) in [
            (utf16(u16::to_le_bytes, &text), "UTF-16LE"),
            (utf16(u16::to_be_bytes, &text), "UTF-16BE"),
            (utf32(u32::to_le_bytes, &text), "UTF-32LE"),
            (utf32(u32::to_be_bytes, &text), "UTF-32BE"),
        ] {
            fails(&bytes, &[name]);
            fails(&gzip(&bytes), &[name]);
            let hint = read_all(file(&bytes).path()).expect_err(name).advice().map(str::to_owned);
            assert!(hint.is_some_and(|hint| hint.contains(&format!("iconv -f {name} -t UTF-8"))));
        }
    }
    // In the middle of a file; one NUL alone tells no encoding.
    fails(b"plain\n\0a\0 \0r\0e\0d\n", &["line 2", "NUL", "UTF-16BE"]);
    fails(b"one\ntwo\nthr\0ee, a longer line\n", &["line 3", "NUL", "binary"]);
    fails(b"ni\xf1o\n", &["line 1: not UTF-8 (perhaps Windows-1252)"]);
}

#[test]
fn packed_texts_are_unpacked_by_content() -> Result<()> {
    let text = "\u{feff}uno\r\ndos, señor\n".as_bytes();
    let lines = ["uno", "dos, señor"];
    for packed in [gzip(text), zstd(text)] {
        assert_eq!(all(&packed)?, lines);
    }
    // Several members or frames are one text, cut anywhere.
    let (head, tail) = text.split_at(17);
    assert_eq!(all(&[gzip(head), gzip(b""), gzip(tail)].concat())?, lines);
    let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    assert_eq!(all(&[&skipped[..], &zstd(head), &skipped, &zstd(b""), &zstd(tail)].concat())?, lines);
    assert!(all(&gzip(b""))?.is_empty() && all(&zstd(b""))?.is_empty());
    Ok(())
}

#[test]
fn the_zstd_of_the_reference_is_read() -> Result<()> {
    // Of the reference implementation, the levels 19 and 1, with checksums: see the script beside it.
    let packed = include_bytes!("../../tests/golden/text/pairs.tsv.zst");
    let lines = all(packed)?;
    let line = |k: u64| format!("el círculo {k} está junto al {0}\tcircle {k} is beside {0}", k * k % 9973);
    assert!(lines.into_iter().eq((0..5000).map(line)));
    let mut bent = packed.to_vec();
    let last = bent.len() - 1;
    bent[last] ^= 1; // a bit of the checksum
    fails(&bent, &["zstd data", "truncated or corrupt after ", "wrong checksum"]);
    Ok(())
}

#[test]
fn truncated_and_foreign_files_are_named() {
    let text: String = (0..9999).map(|k| format!("línea {k}, {}\n", k * 7919 % 10007)).collect();
    for (packed, what) in [(gzip(text.as_bytes()), "gzip"), (zstd(text.as_bytes()), "zstd")] {
        let after = |keep: usize| {
            let error = all(&packed[..keep]).expect_err("truncated").to_string();
            assert!(
                error.contains(&format!("the {what} data of ")) && error.contains("truncated or corrupt"),
                "{error}"
            );
            error.split(" corrupt after ").nth(1).and_then(|text| text.split(' ').next()?.parse::<usize>().ok())
        };
        assert!(after(packed.len() / 2).is_some_and(|line| line < 9999));
        // (A frame of zstd is handed on when a window of it is full.)
        assert!(after(packed.len() - 3).is_some_and(|line| line > 0 || what == "zstd"));
        assert_eq!(after(5), Some(0));
        fails(&[&packed[..], b"rubbish"].concat(), &[what, "after 9999 lines"]);
    }
    fails(b"PK\x03\x04rest", &["ZIP"]);
    fails(b"\xfd7zXZ\0rest", &["xz"]);
    fails(b"BZh91AY&SYrest", &["bzip2"]);
    // 64 MiB without a line end in 64 kB.
    fails(&gzip(&vec![b'x'; 64 << 20]), &["line 1: longer than 16 MiB"]);
    assert!(read_all(Path::new("/nowhere/list")).expect_err("no file").to_string().contains("/nowhere/list"));
}

#[test]
fn normal_form_c() {
    let mut text = "nin\u{303}o y A\u{30a}ngstro\u{308}m".to_owned();
    assert!(to_nfc(&mut text) && text == "niño y Ångström");
    assert!(!to_nfc(&mut text));
    let mut compatible = "ﬁn ½".to_owned(); // compatibility characters are not of form C's business
    assert!(!to_nfc(&mut compatible) && compatible == "ﬁn ½");
}

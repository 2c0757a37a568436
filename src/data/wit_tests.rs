use std::io::Write;

use flate2::bufread::MultiGzDecoder;
use flate2::{Compression, write::GzEncoder};
use tempfile::TempDir;

use super::*;

const HEADER: &str = "language\tpage_url\timage_url\tcaption_reference_description\tlast\n";

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/wit")
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("in memory");
    encoder.finish().expect("in memory")
}

/// A folder with the given files as shards of the split `train`.
fn folder(files: &[Vec<u8>]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (k, bytes) in files.iter().enumerate() {
        let name = format!("wit_v1.train.all-{k:05}-of-{:05}.tsv.gz", files.len());
        std::fs::write(dir.path().join(name), bytes).expect("written");
    }
    dir
}

fn row(language: &str, url: &str, caption: &str) -> String {
    format!("{language}\tp\t{url}\t{caption}\tx\n")
}

fn fails(files: &[Vec<u8>], parts: &[&str]) {
    let error = read_split(folder(files).path(), "train", true).expect_err("broken input");
    for part in parts {
        assert!(error.to_string().contains(part), "{error} lacks {part}");
    }
    assert!(error.advice().is_some(), "{error} has no hint");
}

/// Fields of well-formed quoted TSV: a quote switches quoting, and one that switches it on again at once is text.
fn fields(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut quoted, mut before) = (vec![vec![String::new()]], false, ' ');
    for c in text.chars() {
        let row = rows.last_mut().expect("a row");
        match c {
            '"' => {
                quoted = !quoted;
                if quoted && before == '"' {
                    row.last_mut().expect("a field").push('"');
                }
            }
            '\t' if !quoted => row.push(String::new()),
            '\n' if !quoted => rows.push(vec![String::new()]),
            c => row.last_mut().expect("a field").push(c),
        }
        before = c;
    }
    rows.pop();
    rows
}

/// The rules once more, without the csv crate, hashed URLs or a merge of shards.
fn oracle(folder: &Path, split: &str) -> Vec<Pair> {
    let mut names: Vec<_> = std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    names.retain(|path| path.to_string_lossy().contains(&format!(".{split}.")));
    names.retain(|path| path.extension().is_some_and(|e| e == "gz") || !path.with_extension("tsv.gz").exists());
    names.sort();
    let (mut rows, mut order) = (Vec::new(), Vec::new());
    for name in names {
        let (bytes, mut text) = (std::fs::read(&name).expect("a shard"), String::new());
        match name.extension().is_some_and(|ending| ending == "gz") {
            true => drop(MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).expect("UTF-8")),
            false => text = String::from_utf8(bytes).expect("UTF-8"),
        }
        let mut all = fields(&text).into_iter();
        let header = all.next().expect("a header");
        let [language, url, caption] = COLUMNS.map(|name| header.iter().position(|f| f == name).expect("a column"));
        for f in all.filter(|f| f.len() == header.len() && !f.concat().contains('\0')) {
            if ["es", "en"].contains(&f[language].as_str()) && !f[caption].trim().is_empty() {
                order.push(f[url].clone());
                rows.push((f[url].clone(), f[language].clone(), f[caption].clone()));
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    order.retain(|url| seen.insert(url.clone()));
    let mut last = std::collections::BTreeMap::new();
    for (url, language, caption) in rows {
        last.insert((url, language), caption);
    }
    let caption = |url: &String, language: &str| last.get(&(url.clone(), language.to_owned())).cloned();
    order.iter().filter_map(|url| Some(Pair { es: caption(url, "es")?, en: caption(url, "en")? })).collect()
}

#[test]
fn demo_pairs_follow_the_rules() -> Result<()> {
    for (split, count) in [("train", 7000), ("val", 300)] {
        let pairs = read_split(&demo(), split, true)?;
        assert_eq!(pairs.len(), count);
        assert!(pairs == oracle(&demo(), split), "pairs of {split} differ from the plain reading of the rules");
        assert!(has_split(&demo(), split));
    }
    assert!(!has_split(&demo(), "test"));
    Ok(())
}

#[test]
fn later_rows_win_over_all_shards_and_damaged_rows_are_skipped() -> Result<()> {
    let first = [
        HEADER.into(),
        row("es", "a", "viejo"),
        row("en", "b", "two"),
        row("en", "a", "\"one \"\"quoted\"\"\n\tline\""),
        row("fr", "a", "un"),
        row("es", "c", " "),
        row("en", "c", "lone"),
        "en\tshort\n".into(),
        // A tab too many: the caption would be `not it`, and `a` would lose its own.
        "en\tp\ta\tnot it\tone\tx\n".into(),
        row("en", "a", "nu\0ll"),
        row("fr\0", "a", "un"),
    ];
    let second = [HEADER.into(), row("es", "b", "dos"), row("es", "a", "uno"), row("es", "a", "")];
    let mut second = second.concat().into_bytes();
    second.extend(b"es\tp\ta\tmal\xff\tx\n");
    // Two gzip members in one file count as one stream.
    let (head, tail) = second.split_at(20);
    let dir = folder(&[gzip(first.concat().as_bytes()), [gzip(head), gzip(tail)].concat()]);
    let pair = |es: &str, en: &str| Pair { es: es.into(), en: en.into() };
    assert_eq!(read_split(dir.path(), "train", true)?, [pair("uno", "one \"quoted\"\n\tline"), pair("dos", "two")]);
    // Without the first shard there is a warning, and here no pair is left.
    std::fs::remove_file(dir.path().join("wit_v1.train.all-00000-of-00002.tsv.gz"))?;
    let error = read_split(dir.path(), "train", true).expect_err("no pair");
    assert!(error.to_string().contains("no Spanish/English caption pair"), "{error}");
    Ok(())
}

#[test]
fn shards_may_be_unpacked() -> Result<()> {
    let rows =
        [row("es", "a", "uno"), row("en", "a", "\"one\n\ttwo\""), row("es", "b", "dos"), "en\tp\tb\tx\ty\tz\n".into()];
    let text = format!("\u{feff}{HEADER}{}", rows.concat());
    let dir = folder(&[gzip(format!("{HEADER}{}", row("en", "b", "two")).as_bytes())]);
    let name = |k: u32, ending: &str| dir.path().join(format!("wit_v1.train.all-{k:05}-of-00002{ending}"));
    std::fs::rename(dir.path().join("wit_v1.train.all-00000-of-00001.tsv.gz"), name(0, ".tsv.gz"))?;
    std::fs::write(name(1, ".tsv"), &text)?;
    let pair = |es: &str, en: &str| Pair { es: es.into(), en: en.into() };
    let both = [pair("dos", "two"), pair("uno", "one\n\ttwo")];
    assert_eq!(read_split(dir.path(), "train", true)?, both);
    // Of the two forms of one shard the packed one counts: the other may have been cut short.
    std::fs::write(name(0, ".tsv"), format!("{HEADER}{}", row("en", "b", "cut")))?;
    assert_eq!(read_split(dir.path(), "train", true)?, both);
    assert!(has_split(dir.path(), "train"));
    Ok(())
}

#[test]
fn damaged_rows_and_both_forms_follow_the_rules() -> Result<()> {
    // Rows of a fixed choice among sound and damaged ones, over three shards.
    let (dir, mut draw) = (tempfile::tempdir()?, 0x9e37_79b9_u32);
    let mut next = |most: usize| {
        draw = draw.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (draw >> 16) as usize % most
    };
    for k in 0..3 {
        let mut text = HEADER.to_owned();
        for _ in 0..400 {
            let (language, url) = (["es", "en", "fr"][next(3)], format!("u{}", next(90)));
            let caption = format!("{}{}", ["\"a\tb\n\"", "", " ", "nin\u{303}o", "c"][next(5)], next(1000));
            text += &match next(8) {
                0 => row(language, &url, &format!("{caption}\tmore")),
                1 => format!("{language}\tp\t{url}\t{caption}\n"),
                2 => row(language, &url, &format!("{caption}\0")),
                _ => row(language, &url, &caption),
            };
        }
        let name = |ending: &str| dir.path().join(format!("wit_v1.train.all-{k:05}-of-00003{ending}"));
        std::fs::write(
            name(if k == 1 { ".tsv.gz" } else { ".tsv" }),
            if k == 1 { gzip(text.as_bytes()) } else { text.into() },
        )?;
    }
    let expected = oracle(dir.path(), "train");
    assert!(expected.len() > 20, "{}", expected.len());
    assert_eq!(read_split(dir.path(), "train", false)?, expected);
    let normalised = read_split(dir.path(), "train", true)?;
    assert!(normalised != expected && normalised.iter().any(|pair| pair.es.contains("niño")));
    Ok(())
}

#[test]
fn damaged_files_are_named() {
    let rows: String = (0..5000).map(|k| row("es", &format!("url{k}"), &format!("leyenda {k}"))).collect();
    let whole = gzip(format!("{HEADER}{rows}").as_bytes());
    fails(&[whole[..whole.len() / 2].to_vec()], &["all-00000-of-00001", "truncated", "rows"]);
    let mut bent = whole.clone();
    bent[whole.len() / 2..][..64].fill(0xff);
    fails(&[bent], &["all-00000-of-00001", "corrupt"]);
    fails(&[vec![]], &["all-00000-of-00001"]);
    fails(&[b"not gzip at all".to_vec()], &["all-00000-of-00001", "no column language, image_url"]);
    fails(&[format!("{HEADER}{rows}").encode_utf16().flat_map(u16::to_le_bytes).collect()], &["NUL bytes", "UTF-16"]);
    fails(&[gzip(b"language\tpage_url\nes\tx\n")], &["image_url, caption_reference_description"]);
    fails(&[gzip(HEADER.as_bytes())], &["no Spanish/English caption pair", "0 rows"]);
}

#[test]
fn an_unclosed_quote_is_refused_or_skipped() {
    let open = format!("{HEADER}{}es\tp\tb\t\"nunca\tx\n", row("es", "a", "uno"));
    let long = format!("{open}{}", row("en", "a", "one").repeat(1_500_000));
    fails(&[gzip(long.as_bytes())], &["all-00000-of-00001", "row 2 is longer than 16 MiB"]);
    // At the end of a short file the damaged row lacks columns, and is not taken for a caption.
    let short = format!("{}en\tp\ta\t\"never\tx\n", format_args!("{HEADER}{}", row("es", "a", "uno")));
    fails(&[gzip(short.as_bytes())], &["no Spanish/English caption pair"]);
}

#[test]
fn nothing_to_read_names_what_to_fetch() {
    for (path, part) in [(PathBuf::from("/nowhere/wit"), "/nowhere/wit"), (demo(), "no WIT shard of the test split")] {
        let error = read_split(&path, "test", true).expect_err("nothing there");
        assert!(error.to_string().contains(part), "{error}");
        let hint = error.advice().unwrap_or_default();
        assert!(hint.contains(SOURCE) && hint.contains("themo train --config configs/demo.toml"), "{hint}");
    }
    let dir = folder(&[gzip(HEADER.as_bytes())]);
    std::fs::write(dir.path().join("wit_v1.train.all-00000-of-00010.tsv.gz"), b"").expect("written");
    let error = read_split(dir.path(), "train", true).expect_err("two sets");
    assert!(error.to_string().contains("mixes"), "{error}");
}

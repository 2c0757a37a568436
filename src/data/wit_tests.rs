use std::io::{Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::{Compression, write::GzEncoder};
use tempfile::TempDir;

use super::*;

fn read(folder: &Path, split: &str) -> Result<Vec<Pair>> {
    Ok(read_split(folder, split, false)?.pairs)
}

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
    let error = read(folder(files).path(), "train").expect_err("broken input");
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
        let pairs = read(&demo(), split)?;
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
    assert_eq!(read(dir.path(), "train")?, [pair("uno", "one \"quoted\"\n\tline"), pair("dos", "two")]);
    // Without the first shard there is a warning, and here no pair is left.
    std::fs::remove_file(dir.path().join("wit_v1.train.all-00000-of-00002.tsv.gz"))?;
    let error = read(dir.path(), "train").expect_err("no pair");
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
    assert_eq!(read(dir.path(), "train")?, both);
    // Of the two forms of one shard the packed one counts: the other may have been cut short.
    std::fs::write(name(0, ".tsv"), format!("{HEADER}{}", row("en", "b", "cut")))?;
    assert_eq!(read(dir.path(), "train")?, both);
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
    assert_eq!(read(dir.path(), "train")?, expected);
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
        let error = read(&path, "test").expect_err("nothing there");
        assert!(error.to_string().contains(part), "{error}");
        let hint = error.advice().unwrap_or_default();
        assert!(hint.contains(SOURCE) && hint.contains("themo train --config configs/demo.toml"), "{hint}");
    }
    let dir = folder(&[gzip(HEADER.as_bytes())]);
    std::fs::write(dir.path().join("wit_v1.train.all-00000-of-00010.tsv.gz"), b"").expect("written");
    let error = read(dir.path(), "train").expect_err("two sets");
    assert!(error.to_string().contains("mixes"), "{error}");
}

#[test]
fn rejected_rows_are_counted_by_reason_with_the_first_of_each() -> Result<()> {
    let rows = [
        HEADER.as_bytes(),
        row("es", "a", "uno").as_bytes(),
        b"en\tshort\n",
        row("de", "a", "nu\0ll").as_bytes(),
        b"es\tp\tb\tni\xf1o\tx\n",
        row("en", "", "nowhere").as_bytes(),
        row("en", " ", "nowhere").as_bytes(),
        row("en", "a", "\u{a0} ").as_bytes(),
        // In other languages, only what makes it no row at all counts.
        b"\n\r\nde\tp\t\tni\xf1o\tx\n",
        b"en\tp\ta\tone\tx\ty\n",
        row("en", "a", "one").as_bytes(),
        row("es", "z", "\"open").as_bytes(),
    ]
    .concat();
    let dir = folder(&[gzip(&rows), gzip(HEADER.as_bytes())]);
    std::fs::remove_file(dir.path().join("wit_v1.train.all-00001-of-00002.tsv.gz"))?;
    let read = read_split(dir.path(), "train", false)?;
    assert_eq!(read.pairs, [Pair { es: "uno".into(), en: "one".into() }]);
    let count = |rows: u64, first: u64| serde_json::json!({"rows": rows, "first_row": first});
    let expected = serde_json::json!({
        "split": "train",
        "shards": [{
            "file": "wit_v1.train.all-00000-of-00002.tsv.gz",
            "rows": 11, "captions": 2, "other_languages": 1,
            "rejected": {
                "columns": count(3, 2), "nul_bytes": count(1, 3), "not_utf8": count(1, 4), "no_url": count(2, 5),
                "no_caption": count(1, 7),
            },
            "damaged": null,
        }],
        "missing": ["wit_v1.train.all-00001-of-00002.tsv.gz"],
        "captioned_images": 1,
        "pairs": 1,
    });
    assert_eq!(serde_json::to_value(&read.report)?, expected);
    assert_eq!(
        read.report.shards[0].damage().unwrap_or_default(),
        "skipped 7 of 11 rows: 3 with too few or too many columns (the first is row 2), 1 with NUL bytes (the first is \
         row 3), 2 without an image URL (the first is row 5), 1 with a caption that is not UTF-8 (the first is row 4)"
    );
    assert_eq!(read.report.unused(), "7 skipped, 1 of other languages, 1 without a caption");
    Ok(())
}

/// Rows `from..to` of a long shard; every second is the English of the one before.
fn long_rows(from: usize, to: usize) -> String {
    let caption = |k: usize| format!("\"{} {}\n{k}\"", k * 7919 % 10007, k * k % 9973);
    (from..to).map(|k| row(["es", "en"][k % 2], &format!("u{}", k / 2), &caption(k))).collect()
}

/// Reads the one shard `bytes` with and without `allow_damaged`; the pairs and how many rows were kept.
fn kept(bytes: &[u8]) -> (Vec<Pair>, u64) {
    fails(&[bytes.to_vec()], &["all-00000-of-00001", "truncated or corrupt after ", " rows"]);
    let dir = folder(&[bytes.to_vec()]);
    let hint = read(dir.path(), "train").expect_err("damaged").advice().map(str::to_owned).unwrap_or_default();
    assert!(hint.contains("--allow-damaged") && hint.contains("wit_v1.train.all-00000-of-00001.tsv.gz"), "{hint}");
    let read = |_| read_split(dir.path(), "train", true).expect("the rows before");
    let [first, second] = [0, 1].map(read);
    assert!(first.pairs == second.pairs && first.report == second.report, "not the same rows each time");
    let shard = &first.report.shards[0];
    assert!(shard.damaged.as_deref().is_some_and(|what| what.contains("all-00000-of-00001")), "{shard:?}");
    (first.pairs, shard.rows)
}

fn pairs_of(rows: &str) -> Vec<Pair> {
    read(folder(&[gzip(format!("{HEADER}{rows}").as_bytes())]).path(), "train").expect("sound rows")
}

#[test]
fn of_a_cut_shard_all_rows_before_the_cut_are_kept() {
    let text = format!("{HEADER}{}", long_rows(0, 40_000));
    let zstd = |text: &[u8]| ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest);
    for (whole, head) in [(gzip(text.as_bytes()), gzip(b"")), (zstd(text.as_bytes()), zstd(b""))] {
        for cut in [whole.len() / 3, whole.len() - 4] {
            let (pairs, rows) = kept(&[&head[..], &whole[..cut]].concat());
            assert_eq!(pairs, pairs_of(&long_rows(0, rows as usize)));
            // What is not unpacked of a zstd frame is at most a window of it.
            let least = 40_000.0 * cut as f64 / whole.len() as f64 - if head == gzip(b"") { 1000.0 } else { 39_000.0 };
            assert!(rows as f64 >= least && rows < 40_000 + u64::from(cut > whole.len() / 2), "{rows}");
        }
    }
}

#[test]
fn of_a_damaged_member_only_rows_before_the_damage_are_kept() {
    let members = [0..9000, 9000..30_000, 30_000..40_000].map(|rows| long_rows(rows.start, rows.end));
    let packed = [gzip(HEADER.as_bytes()), gzip(members[0].as_bytes()), gzip(members[1].as_bytes())];
    let rest = gzip(members[2].as_bytes());
    let mut draw = 0x9e37_79b9_u32;
    for size in [1, 1, 1, 1, 64, 512] {
        draw = draw.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut bent = packed.concat();
        let first = packed[0].len() + packed[1].len();
        let at = first + packed[2].len() / 4 + draw as usize % (packed[2].len() / 2);
        bent[at..][..size].iter_mut().for_each(|byte| *byte ^= 0x5a);
        let (pairs, rows) = kept(&[&bent[..], &rest].concat());
        assert!((9000..30_000).contains(&rows), "{rows}");
        assert_eq!(pairs, pairs_of(&long_rows(0, rows as usize)), "{size} at {at}");
    }
    // The checksum alone: every row is as it was written, but nothing tells.
    let mut bent = packed.concat();
    let last = bent.len() - 6;
    bent[last] ^= 1;
    let (pairs, rows) = kept(&bent);
    assert!(rows > 25_000 && pairs == pairs_of(&long_rows(0, rows as usize)), "{rows}");
    // What follows the last member is none.
    let (pairs, rows) = kept(&[&packed.concat(), &b"rubbish"[..]].concat());
    assert!(rows == 30_000 && pairs == pairs_of(&long_rows(0, 30_000)));
}

#[test]
fn of_a_quote_that_never_closes_the_rows_before_are_kept() -> Result<()> {
    let open = format!("{HEADER}{}es\tp\tb\t\"nunca\tx\n", long_rows(0, 50));
    let text = [open.as_bytes(), &vec![b'x'; MAX_ROW_BYTES]].concat();
    for bytes in [gzip(&text), text] {
        let dir = folder(&[bytes]);
        let error = read(dir.path(), "train").expect_err("too long");
        assert!(error.to_string().contains("row 51 is longer than 16 MiB"), "{error}");
        assert!(error.advice().is_some_and(|hint| hint.contains("--allow-damaged")));
        let read = read_split(dir.path(), "train", true)?;
        assert_eq!((read.pairs, read.report.rows()), (pairs_of(&long_rows(0, 50)), 50));
    }
    Ok(())
}

#[test]
fn a_header_that_cannot_be_read_is_an_error_in_any_case() {
    let whole = gzip(format!("{HEADER}{}", long_rows(0, 50)).as_bytes());
    for bytes in [&whole[..14], b"", b"rubbish"] {
        let error = read_split(folder(&[bytes.to_vec()]).path(), "train", true).expect_err("no header");
        assert!(error.to_string().contains("all-00000-of-00001") && error.advice().is_some(), "{error}");
    }
}

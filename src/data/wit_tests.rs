use std::io::Write;

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
    let error = read_split(folder(files).path(), "train").expect_err("broken input");
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
fn oracle(split: &str) -> Vec<Pair> {
    let mut names: Vec<_> = std::fs::read_dir(demo()).expect("the demo").map(|e| e.expect("an entry").path()).collect();
    names.retain(|p| p.to_string_lossy().contains(&format!(".{split}.")));
    names.sort();
    let (mut rows, mut order) = (Vec::new(), Vec::new());
    for name in names {
        let (file, mut text) = (File::open(name).expect("a shard"), String::new());
        MultiGzDecoder::new(BufReader::new(file)).read_to_string(&mut text).expect("UTF-8");
        for f in fields(&text).into_iter().skip(1) {
            assert_eq!(f.len(), 17);
            if ["es", "en"].contains(&f[0].as_str()) && !f[6].trim().is_empty() {
                order.push(f[2].clone());
                rows.push((f[2].clone(), f[0].clone(), f[6].clone()));
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
        let pairs = read_split(&demo(), split)?;
        assert_eq!(pairs.len(), count);
        assert!(pairs == oracle(split), "pairs of {split} differ from the plain reading of the rules");
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
    ];
    let second = [HEADER.into(), row("es", "b", "dos"), row("es", "a", "uno"), row("es", "a", "")];
    let mut second = second.concat().into_bytes();
    second.extend(b"es\tp\ta\tmal\xff\tx\n");
    // Two gzip members in one file count as one stream.
    let (head, tail) = second.split_at(20);
    let dir = folder(&[gzip(first.concat().as_bytes()), [gzip(head), gzip(tail)].concat()]);
    let pair = |es: &str, en: &str| Pair { es: es.into(), en: en.into() };
    assert_eq!(read_split(dir.path(), "train")?, [pair("uno", "one \"quoted\"\n\tline"), pair("dos", "two")]);
    // Without the first shard there is a warning, and here no pair is left.
    std::fs::remove_file(dir.path().join("wit_v1.train.all-00000-of-00002.tsv.gz"))?;
    let error = read_split(dir.path(), "train").expect_err("no pair");
    assert!(error.to_string().contains("no Spanish/English caption pair"), "{error}");
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
    fails(&[b"not gzip at all".to_vec()], &["all-00000-of-00001", "corrupt"]);
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
        let error = read_split(&path, "test").expect_err("nothing there");
        assert!(error.to_string().contains(part), "{error}");
        let hint = error.advice().unwrap_or_default();
        assert!(hint.contains(SOURCE) && hint.contains("themo train --config configs/demo.toml"), "{hint}");
    }
    let dir = folder(&[gzip(HEADER.as_bytes())]);
    std::fs::write(dir.path().join("wit_v1.train.all-00000-of-00010.tsv.gz"), b"").expect("written");
    let error = read_split(dir.path(), "train").expect_err("two sets");
    assert!(error.to_string().contains("mixes"), "{error}");
}

use super::*;

fn read_as(name: &str, bytes: &[u8]) -> Result<(Vec<Pair>, ReadReport)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join(name);
    std::fs::write(&path, bytes)?;
    let mut pairs = Vec::new();
    let mut sink = |row: Row| {
        pairs.push(Pair { es: row.es.into(), en: row.en.into() });
        Ok(())
    };
    let report = super::read(&path, None, &mut sink)?;
    Ok((pairs, report))
}

fn read(bytes: &[u8]) -> Result<(Vec<Pair>, ReadReport)> {
    read_as("pairs.tsv", bytes)
}

fn pair(es: &str, en: &str) -> Pair {
    Pair { es: es.into(), en: en.into() }
}

/// `count kind` of each kind.
fn kinds(report: &ReadReport) -> Vec<String> {
    report.rejected.counts().iter().map(|count| format!("{} {}", count.count, count.kind)).collect()
}

#[test]
fn tsv_keeps_the_usable_lines() -> Result<()> {
    let (pairs, report) = read(
        b"\xef\xbb\xbfun \"gato\ta \"cat\r\n\nsolo\n\tcat\na\tb\tc\nmal\xff\tbad\nuna lu\0na\ta moon\nuna luna\ta moon",
    )?;
    assert_eq!(pairs, [pair("un \"gato", "a \"cat"), pair("", "cat"), pair("una luna", "a moon")]);
    assert_eq!(kinds(&report), ["2 with another number of columns", "1 not UTF-8", "1 with NULs"]);
    assert_eq!((report.rows, report.unit), (7, "line"));
    let firsts: Vec<&str> = report.rejected.counts().iter().map(|count| count.first.as_str()).collect();
    assert_eq!(firsts, ["line 3: `solo`", "line 6: `mal\u{fffd} / bad`", "line 7: `una lu\\u{0}na / a moon`"]);
    Ok(())
}

#[test]
fn the_form_is_found_by_content_first() -> Result<()> {
    for (name, text, format) in [
        ("p.csv", "uno\tone\nes\ten\n", None),
        ("p.txt", "es,en\nuno,one\n", Some("CSV with a header, columns es and en")),
        ("p.tsv", "es;en\nuno;one\n", Some("CSV with a header, delimiter ;, columns es and en")),
        ("p.csv", "{\"es\": \"uno\", \"en\": \"one\"}\n", Some("JSON lines, columns es and en")),
        ("p.es", "uno\tone\n", Some("TSV without a header, columns 1 and 2")),
        ("p", "en\tES\none\tuno\n", Some("TSV with a header, columns ES and en")),
        ("p.jsonl", "broken\n{\"es\": \"uno\", \"en\": \"one\"}\n", Some("JSON lines, columns es and en")),
        ("p", "{llave}\tone\n", Some("TSV without a header, columns 1 and 2")),
    ] {
        match (read_as(name, text.as_bytes()), format) {
            (Ok((pairs, report)), Some(format)) => {
                assert_eq!(report.format, format, "{text}");
                assert!(pairs.len() == 1 && pairs[0].en == "one", "{text}: {pairs:?}");
            }
            (Err(error), None) => assert!(error.to_string().contains("must name its columns"), "{error}"),
            (got, _) => panic!("{name} {text}: {got:?}"),
        }
    }
    Ok(())
}

#[test]
fn rows_of_other_widths_and_kinds_are_counted() -> Result<()> {
    let csv = b"id,es,en\n1,\"u\"\"n\no\",one\n2,dos\n3,tres,three,x\n4,\xff,four\n5,c\0nco,five\n\n6,seis,six\n";
    let (pairs, report) = read_as("p.csv", csv)?;
    assert_eq!(pairs, [pair("u\"n\no", "one"), pair("seis", "six")]);
    assert_eq!(kinds(&report), ["2 with another number of columns", "1 not UTF-8", "1 with NULs"]);
    assert_eq!(report.rejected.counts()[0].first, "line 4: `2,dos`");
    let json = br#"{"id": 1}
{"es": "uno", "en": "one"}
{"es": "dos"}
{"es": null, "en": "x"}
{"es": ["tres"], "en": "three"}
{"es": "cua\u0000tro", "en": "four"}
{"es": "\ud800", "en": "five"}
[1]

{"en": "six", "es": "seis", "extra": {"a": [1, 2.5]}}"#;
    let (pairs, report) = read_as("p.jsonl", json)?;
    assert_eq!(pairs, [pair("uno", "one"), pair("seis", "six")]);
    let expected =
        ["3 without one of the texts", "1 of which one side is no text", "1 with NULs", "2 not a JSON object"];
    assert_eq!(kinds(&report), expected);
    Ok(())
}

#[test]
fn nothing_usable_or_no_file_is_an_error() {
    for bytes in [&b""[..], b"solo\n\xff\t\xff\n", b"\n\n"] {
        let error = read(bytes).expect_err("nothing usable");
        let text = error.to_string();
        assert!(
            text.contains("no caption pair in ") && text.contains("pairs.tsv") && error.advice().is_some(),
            "{text}"
        );
    }
    let error = read(b"ni\xf1o\tchild\n").expect_err("Latin-1");
    assert!(error.to_string().contains("1 not UTF-8 (line 1: `ni\u{fffd}o / child`); perhaps Windows-1252"), "{error}");
}

#[test]
fn other_encodings_are_refused() {
    let text = "un círculo rojo y una luna\ta red circle and a moon\r\n".repeat(3);
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for name in ["p.tsv", "p.csv", "p.jsonl"] {
        let error = read_as(name, &bytes).expect_err("UTF-16");
        assert!(error.to_string().contains("line 1: NUL bytes: this looks like UTF-16LE"), "{error}");
        assert!(error.advice().is_some_and(|hint| hint.contains("iconv -f UTF-16LE")));
    }
    // From the second line on, as where two files were put together.
    let error = read_as("p.tsv", &[b"uno\tone\n", &bytes[..]].concat()).expect_err("UTF-16");
    assert!(error.to_string().contains("line 2: NUL bytes: this looks like UTF-16LE"), "{error}");
    let error = read(b"\0\x01\x02\tx\n").expect_err("binary");
    assert!(error.to_string().contains("binary data"), "{error}");
}

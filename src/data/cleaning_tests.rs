use super::*;

/// What is kept of `pairs`, and `count kind` of what is left out.
fn clean(rules: Rules, pairs: &[(&str, &str)]) -> (Vec<(String, String)>, Vec<String>, Report) {
    let (mut cleaner, mut kept) = (Cleaner::new(rules), Vec::new());
    for (i, (es, en)) in pairs.iter().enumerate() {
        let pair = cleaner.clean(es, en, || format!("line {}", i + 1));
        kept.extend(pair.map(|(es, en)| (es.to_owned(), en.to_owned())));
    }
    let report = cleaner.report().clone();
    assert_eq!((report.pairs, report.kept), (pairs.len() as u64, kept.len() as u64));
    assert_eq!(report.pairs - report.kept, report.left_out.total());
    let left_out = report.left_out.counts().iter().map(|count| format!("{} {}", count.count, count.kind)).collect();
    (kept, left_out, report)
}

fn pair(es: &str, en: &str) -> (String, String) {
    (es.to_owned(), en.to_owned())
}

#[test]
fn captions_are_made_alike_before_they_are_compared() {
    let (kept, left_out, report) = clean(
        Rules::default(),
        &[
            (" un\u{a0}\u{2003}nin\u{303}o\r\n", "a\tchild"),
            ("un niño", "a child "),
            ("un niño", "a  CHILD"),
            ("un niño", "a CHILD"),
        ],
    );
    assert_eq!(kept, [pair("un niño", "a child"), pair("un niño", "a CHILD")]);
    assert_eq!(left_out, ["2 seen before"]);
    assert_eq!((report.normalised(), report.folded()), (1, 4));
    assert_eq!(report.left_out.counts()[0].first, "line 2: `un niño` / `a child `");
    assert_eq!(report.changed.counts()[0].first, "line 1: ` un\u{a0}\u{2003}nin\u{303}o\\r\\n` / `a\\tchild`");
}

#[test]
fn empty_and_equal_sides_are_left_out() {
    let pairs = [
        ("", "a"),
        ("b", " \u{3000}\n"),
        ("\u{200b}\u{feff}", "c"),
        ("París  ", "París"),
        ("París", "paris"),
        ("👩\u{200d}🚀", "x"),
    ];
    let (kept, left_out, _) = clean(Rules::default(), &pairs);
    assert_eq!(kept, [pair("París", "paris"), pair("👩\u{200d}🚀", "x")]);
    assert_eq!(left_out, ["3 with an empty side", "1 with equal sides"]);
    let as_they_are = Rules { clean: false, normalize: false, ..Rules::default() };
    let pairs = [("", "a"), ("b", " \n"), ("e\u{301} ", "e\u{301} "), ("e\u{301} ", "e\u{301} ")];
    let (kept, left_out, report) = clean(as_they_are, &pairs);
    assert_eq!(kept, [pair("e\u{301} ", "e\u{301} "), pair("e\u{301} ", "e\u{301} ")]);
    assert_eq!(left_out, ["2 with an empty side"]);
    assert!(report.changed.is_empty());
}

#[test]
fn limits_count_characters_and_hold_at_their_ends() {
    let rules = Rules { max_length_ratio: Some(2.0), min_chars: Some(2), max_chars: Some(8), ..Rules::default() };
    let (kept, left_out, _) = clean(
        rules,
        &[
            ("ñu", "abcd"),
            ("ñu", "abcde"),
            ("ñ", "ab"),
            ("ññññññññ", "abcd"),
            ("ñññññññññ", "abcdefgh"),
            ("ab", "  a "),
        ],
    );
    assert_eq!(kept, [pair("ñu", "abcd"), pair("ññññññññ", "abcd")]);
    let expected = ["1 with sides of too different lengths", "2 with too short a side", "1 with too long a side"];
    assert_eq!(left_out, expected);
}

#[test]
fn where_a_side_ends_tells_pairs_apart() {
    let (kept, ..) = clean(Rules::default(), &[("ab", "c"), ("a", "bc"), ("c", "ab")]);
    assert_eq!(kept.len(), 3);
}

#[test]
fn white_space_is_that_of_python() {
    // [chr(c) for c in range(0x110000) if not chr(c).split()] of Python 3.13.
    let spaces = "\t\n\u{b}\u{c}\r\u{1c}\u{1d}\u{1e}\u{1f} \u{85}\u{a0}\u{1680}\u{2000}\u{2001}\u{2002}\u{2003}\u{2004}\u{2005}\
                  \u{2006}\u{2007}\u{2008}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}";
    assert!((0..=0x10ffff).filter_map(char::from_u32).filter(|c| is_white_space(*c)).eq(spaces.chars()));
}

/// Of ten million pairs; `.ci/long pairs` runs it alone, because the peak is that of the process.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "takes some seconds, and must run alone"]
fn ten_million_pairs_take_less_than_400_mb() {
    let mut cleaner = Cleaner::new(Rules::default());
    for k in 0..10_000_000u32 {
        assert!(cleaner.clean(&format!("es {k}"), &format!("en {k}"), String::new).is_some());
    }
    assert!(cleaner.clean("es 77", "en 77", String::new).is_none());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("peak {}", peak.trim());
    assert!(peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() < 400_000, "{peak}");
}

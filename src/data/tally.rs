//! What was left out of a set or changed in it: counts by kind, each with its first example.

use std::fmt;

use serde::Serialize;

/// Characters of an example that are shown.
const SHOWN: usize = 80;

/// Counts by kind, in the order in which the kinds were first seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Tally(Vec<Count>);

/// How often there was something of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// What it is, such as `not UTF-8`.
    pub kind: &'static str,
    /// How often.
    pub count: u64,
    /// The first one: where it is, and its text, cut short.
    pub first: String,
}

impl Tally {
    /// Counts one; `example` says where it is and shows it, see [`excerpt`].
    pub fn add(&mut self, kind: &'static str, example: impl FnOnce() -> String) {
        match self.0.iter_mut().find(|count| count.kind == kind) {
            Some(count) => count.count += 1,
            None => self.0.push(Count { kind, count: 1, first: example() }),
        }
    }

    /// The counts.
    pub fn counts(&self) -> &[Count] {
        &self.0
    }

    /// How many there are of `kind`.
    pub fn of(&self, kind: &str) -> u64 {
        self.0.iter().find(|count| count.kind == kind).map_or(0, |count| count.count)
    }

    /// How many there are of all kinds.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|count| count.count).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `3 not UTF-8 (line 7: ...), 2 ...`.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Count { kind, count, first }) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            let which = if *count > 1 { "the first: " } else { "" };
            write!(f, "{comma}{count} {kind} ({which}{first})")?;
        }
        Ok(())
    }
}

/// The beginning of a text of whatever bytes, on one line.
pub fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN + 4)]);
    let mut shown = String::from("`");
    for c in text.chars().take(SHOWN) {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown.push_str(if text.chars().nth(SHOWN).is_some() { "…`" } else { "`" });
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_kind_with_the_first_example() {
        let mut tally = Tally::default();
        assert!(tally.is_empty());
        for (kind, line) in [("empty", "a\tb\0"), ("odd", "c"), ("empty", "d")] {
            tally.add(kind, || excerpt(line.as_bytes()));
        }
        assert_eq!((tally.total(), tally.of("empty"), tally.of("none")), (3, 2, 0));
        assert_eq!(tally.to_string(), "2 empty (the first: `a\\tb\\u{0}`), 1 odd (`c`)");
        let json = serde_json::to_string(&tally).unwrap();
        assert!(json.starts_with(r#"[{"kind":"empty","count":2,"first":"`a"#), "{json}");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let shown = excerpt("ñ".repeat(500).as_bytes());
        assert_eq!(shown, format!("`{}…`", "ñ".repeat(80)));
        assert_eq!(excerpt(b"ni\xf1o"), "`ni\u{fffd}o`");
        assert_eq!(excerpt("ñ".repeat(80).as_bytes()), format!("`{}`", "ñ".repeat(80)));
    }
}

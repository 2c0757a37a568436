//! The cleaning of caption pairs: what is made alike, what is left out, and the report of both. No file is touched here.
//!
//! In this order: Unicode's normal form C; white space trimmed, and runs of it made one space; then pairs with an empty side,
//! with two equal sides (not translated), outside the limits of length, and those that were there before (both sides
//! equal) are left out.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use serde::Serialize;

use super::tally::{Tally, excerpt};
use super::text::to_nfc;

/// What the cleaning does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// White space, equal sides and duplicates; without it only pairs with an empty side, and those beyond the limits, are
    /// left out.
    pub clean: bool,
    /// Normal form C.
    pub normalize: bool,
    /// How many times as many characters one side may have as the other.
    pub max_length_ratio: Option<f64>,
    /// The fewest characters of a side.
    pub min_chars: Option<usize>,
    /// The most characters of a side.
    pub max_chars: Option<usize>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { clean: true, normalize: true, max_length_ratio: None, min_chars: None, max_chars: None }
    }
}

/// What the cleaning did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Pairs that came in.
    pub pairs: u64,
    /// Pairs that were kept.
    pub kept: u64,
    /// Captions that were changed, by what changed them; those of pairs that were then left out among them.
    pub changed: Tally,
    /// Pairs that were left out, by why.
    pub left_out: Tally,
}

/// The filter; it remembers each pair that it kept, in about 30 bytes.
pub struct Cleaner {
    rules: Rules,
    seen: Seen,
    sides: [String; 2],
    scratch: String,
    report: Report,
}

impl Cleaner {
    /// A filter that has seen nothing.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            seen: Seen::default(),
            sides: Default::default(),
            scratch: String::new(),
            report: Report::default(),
        }
    }

    /// What was done so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The two sides, cleaned, if the pair is to be kept. `place` says where it is from, for the report.
    pub fn clean(&mut self, es: &str, en: &str, place: impl Fn() -> String) -> Option<(&str, &str)> {
        let shown = || format!("{}: {} / {}", place(), excerpt(es.as_bytes()), excerpt(en.as_bytes()));
        self.report.pairs += 1;
        for (side, text) in self.sides.iter_mut().zip([es, en]) {
            side.clear();
            side.push_str(text);
            if self.rules.normalize && to_nfc(side) {
                self.report.changed.add(NFC, shown);
            }
            if self.rules.clean && fold_white_space(side, &mut self.scratch) {
                self.report.changed.add(WHITE_SPACE, shown);
            }
        }
        if let Some(why) = self.reason() {
            self.report.left_out.add(why, shown);
            return None;
        }
        self.report.kept += 1;
        let [es, en] = &self.sides;
        Some((es, en))
    }

    /// Why the pair in `sides` is left out.
    fn reason(&mut self) -> Option<&'static str> {
        let [es, en] = &self.sides;
        if is_blank(es) || is_blank(en) {
            return Some("with an empty side");
        }
        if self.rules.clean && es == en {
            return Some("with equal sides");
        }
        let Rules { max_length_ratio, min_chars, max_chars, .. } = self.rules;
        if max_length_ratio.is_some() || min_chars.is_some() || max_chars.is_some() {
            let (a, b) = (es.chars().count(), en.chars().count());
            let (short, long) = (a.min(b), a.max(b));
            if min_chars.is_some_and(|least| short < least) {
                return Some("with too short a side");
            }
            if max_chars.is_some_and(|most| long > most) {
                return Some("with too long a side");
            }
            if max_length_ratio.is_some_and(|most| long as f64 > most * short as f64) {
                return Some("with sides of too different lengths");
            }
        }
        (self.rules.clean && !self.seen.insert(es, en)).then_some("seen before")
    }
}

const NFC: &str = "to normal form C";
const WHITE_SPACE: &str = "in their white space";

impl Report {
    /// How many captions were brought into normal form C.
    pub fn normalised(&self) -> u64 {
        self.changed.of(NFC)
    }

    /// How many captions had other white space.
    pub fn folded(&self) -> u64 {
        self.changed.of(WHITE_SPACE)
    }
}

/// What Python's `str.split()` splits at: Unicode's property White_Space (no-break spaces and line ends among it), and the
/// separators U+001C to U+001F. Characters without width are text: emoji are joined by them.
fn is_white_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Whether nothing of `text` would be seen.
fn is_blank(text: &str) -> bool {
    text.chars().all(|c| is_white_space(c) || matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}'))
}

/// Trims `text` and makes each run of white space one space; whether that changed it.
fn fold_white_space(text: &mut String, scratch: &mut String) -> bool {
    scratch.clear();
    for word in text.split(is_white_space).filter(|word| !word.is_empty()) {
        if !scratch.is_empty() {
            scratch.push(' ');
        }
        scratch.push_str(word);
    }
    let changes = scratch != text;
    if changes {
        std::mem::swap(text, scratch);
    }
    changes
}

/// A set of pairs, each as 128 bits of its hash: among 10^8 pairs two collide with probability 10^-23. It is of many small
/// tables, because a table that grows is there twice for a while.
struct Seen(Vec<HashSet<u128, BuildHasherDefault<Low>>>);

impl Default for Seen {
    fn default() -> Self {
        Self((0..256).map(|_| HashSet::default()).collect())
    }
}

impl Seen {
    /// Adds a pair; `false` if it was there.
    fn insert(&mut self, es: &str, en: &str) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(es.len() as u64).to_le_bytes()).update(es.as_bytes()).update(en.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        self.0[usize::from(bytes[15])].insert(u128::from_le_bytes(bytes))
    }
}

/// The low half of what is a hash already.
#[derive(Default)]
struct Low(u64);

impl Hasher for Low {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

#[cfg(test)]
#[path = "cleaning_tests.rs"]
mod tests;

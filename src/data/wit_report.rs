//! What became of the rows of WIT's shards: counts with first examples, as text for the log and as JSON.

use serde::Serialize;

/// What a split was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `train`, `val` or `test`.
    pub split: String,
    /// The shards that were read, in their order.
    pub shards: Vec<ShardReport>,
    /// The missing shards.
    pub missing: Vec<String>,
    /// Images with a caption in Spanish or English.
    pub captioned_images: usize,
    /// Images with a caption in both.
    pub pairs: usize,
}

/// What became of the rows of a shard. `rows` is the sum of `captions`, `other_languages` and those rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShardReport {
    /// The shard's file name.
    pub file: String,
    /// Rows after the header.
    pub rows: u64,
    /// Spanish and English captions, including those that a later row replaces.
    pub captions: u64,
    /// Rows that are neither Spanish nor English.
    pub other_languages: u64,
    /// Rows of no use, by reason.
    pub rejected: Rejected,
    /// Of a damaged shard whose rows before the damage were kept, the damage.
    pub damaged: Option<String>,
}

/// Rows of no use by reason; a row counts once, for the first reason that holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Not as many columns as the header has.
    pub columns: Count,
    /// NUL bytes in any column.
    pub nul_bytes: Count,
    /// No image URL. (This and the following: Spanish and English rows only.)
    pub no_url: Count,
    /// A caption that is not UTF-8.
    pub not_utf8: Count,
    /// No caption, or one of white space; most rows of WIT are so.
    pub no_caption: Count,
}

/// How many rows, and which was the first (1 is the row after the header).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many.
    pub rows: u64,
    /// The first, if there is one.
    pub first_row: Option<u64>,
}

impl Count {
    pub(super) fn add(&mut self, row: u64) {
        self.rows += 1;
        self.first_row.get_or_insert(row);
    }
}

impl Report {
    /// Rows of all shards.
    pub fn rows(&self) -> u64 {
        self.shards.iter().map(|shard| shard.rows).sum()
    }

    /// Rows of all shards that were skipped because they are damaged, see [`ShardReport::damaged_rows`].
    pub fn damaged_rows(&self) -> u64 {
        self.shards.iter().map(ShardReport::damaged_rows).sum()
    }

    /// What the rows were that are no captions, for a line of the log.
    pub(super) fn unused(&self) -> String {
        let sum = |count: fn(&ShardReport) -> u64| self.shards.iter().map(count).sum::<u64>();
        format!(
            "{} skipped, {} of other languages, {} without a caption",
            self.damaged_rows(),
            sum(|shard| shard.other_languages),
            sum(|shard| shard.rejected.no_caption.rows)
        )
    }
}

impl ShardReport {
    /// Rejected rows but those without a caption, which are as they should be.
    pub fn damaged_rows(&self) -> u64 {
        self.damages().iter().map(|(count, _)| count.rows).sum()
    }

    fn damages(&self) -> [(&Count, &'static str); 4] {
        let Rejected { columns, nul_bytes, no_url, not_utf8, no_caption: _ } = &self.rejected;
        [
            (columns, "with too few or too many columns"),
            (nul_bytes, "with NUL bytes"),
            (no_url, "without an image URL"),
            (not_utf8, "with a caption that is not UTF-8"),
        ]
    }

    /// The damaged rows by reason, each with its first example; `None` if there are none.
    pub(super) fn damage(&self) -> Option<String> {
        let reasons = self.damages().into_iter().filter_map(|(count, reason)| {
            let first = count.first_row?;
            Some(format!("{} {reason} (the first is row {first})", count.rows))
        });
        let reasons: Vec<_> = reasons.collect();
        let skipped = format!("skipped {} of {} rows: ", self.damaged_rows(), self.rows);
        (!reasons.is_empty()).then(|| skipped + &reasons.join(", "))
    }
}

//! How much is computed at once, and when a run ends.

use serde::{Deserialize, Serialize};

use super::require;
use crate::error::{Error, Result};

/// The keys that bound a step and the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Limits {
    /// Pairs per step.
    pub batch_size: usize,
    /// Tokens a micro-batch may hold; a larger batch is cut, with the same gradient.
    pub micro_batch_tokens: usize,
    /// The memory that training may take, such as `4GiB`, see [`parse_bytes`]: makes micro-batches smaller where that
    /// is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<String>,
    /// Passes over the pairs at most; 0 writes an untrained checkpoint.
    pub max_epochs: usize,
    /// Steps at most, over all epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<usize>,
    /// Epochs in a row without a better value of `monitor` before the run stops.
    pub patience: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_size: 32,
            micro_batch_tokens: 3072,
            memory_limit: None,
            max_epochs: 1000,
            max_steps: None,
            patience: 5,
        }
    }
}

impl Limits {
    /// A value for each key that has none by default.
    pub(super) fn example() -> Self {
        Self { memory_limit: Some("4GiB".into()), max_steps: Some(1000), ..Self::default() }
    }

    /// Refuses values with which no run can work.
    pub(super) fn validate(&self) -> Result<()> {
        let counts = [
            ("batch-size", self.batch_size),
            ("micro-batch-tokens", self.micro_batch_tokens),
            ("patience", self.patience),
        ];
        for (key, value) in counts {
            require(value >= 1, key, value, || "it must be 1 or more".into())?;
        }
        self.memory_limit.as_deref().map_or(Ok(()), |limit| parse_bytes(limit).map(drop))
    }
}

/// A size such as `4GiB` or `800 MiB` in bytes.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let wrong = || {
        Error::usage(format!("memory-limit cannot be `{text}`"))
            .hint("it is a number with a unit, such as 4GiB or 800MiB")
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "kib" | "k" => 1u64 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        "tib" | "t" => 1 << 40,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    if !(number.is_finite() && number > 0.0) {
        return Err(wrong());
    }
    Ok((number * unit as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        let sizes = [("4GiB", 4 << 30), ("1.5g", 3 << 29), ("800 MiB", 800 << 20), ("2k", 2048), ("1TiB", 1 << 40)];
        for (text, bytes) in sizes {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "4", "GiB", "-1GiB", "4XB", "nanGiB", "0G"] {
            assert_eq!(parse_bytes(text).unwrap_err().exit_code(), 2, "{text}");
        }
    }
}

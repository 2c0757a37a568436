//! The settings of the caption pairs: which columns of a file they are, and how they are cleaned.

use serde::{Deserialize, Serialize};

use super::require;
use crate::data::cleaning::Rules;
use crate::data::pairs::Columns;
use crate::error::Result;

/// How files become caption pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct TextSettings {
    /// The Spanish and the English column of the files of pairs; well-known names are looked for if none are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Columns>,
    /// Whether pairs are cleaned, see [`crate::data::cleaning`]; else only those with an empty side, or beyond the limits
    /// below, are left out.
    pub clean: bool,
    /// How many times as many characters one caption of a pair may have as the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length_ratio: Option<f64>,
    /// The fewest characters of a caption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_caption_chars: Option<usize>,
    /// The most characters of a caption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_caption_chars: Option<usize>,
}

impl Default for TextSettings {
    fn default() -> Self {
        Self { columns: None, clean: true, max_length_ratio: None, min_caption_chars: None, max_caption_chars: None }
    }
}

impl TextSettings {
    /// Every setting with a value that it takes.
    pub(super) fn example() -> Self {
        Self {
            columns: "es=translation.es,en=translation.en".parse().ok(),
            max_length_ratio: Some(3.0),
            min_caption_chars: Some(3),
            max_caption_chars: Some(500),
            ..Self::default()
        }
    }

    /// The rules of the cleaning.
    pub fn rules(&self, normalize: bool) -> Rules {
        let Self { clean, max_length_ratio, min_caption_chars, max_caption_chars, .. } = *self;
        Rules { clean, normalize, max_length_ratio, min_chars: min_caption_chars, max_chars: max_caption_chars }
    }

    pub(super) fn validate(&self) -> Result<()> {
        if let Some(ratio) = self.max_length_ratio {
            require(ratio.is_finite() && ratio >= 1.0, "max-length-ratio", ratio, || {
                "it must be 1 or more: with 3, no caption has more than three times the characters of the other".into()
            })?;
        }
        let (least, most) = (self.min_caption_chars.unwrap_or(1), self.max_caption_chars.unwrap_or(usize::MAX));
        require(least >= 1, "min-caption-chars", least, || "it must be 1 or more".into())?;
        require(most >= least, "max-caption-chars", most, || {
            format!("it must be {least} or more (--min-caption-chars)",)
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn wrong_values_name_their_key() {
        for (toml, what, hint) in [
            ("columns = 'es,en'", "columns: `es,en` does not name two columns", "es=translation.es"),
            ("max-length-ratio = 0.5", "max-length-ratio cannot be 0.5", "1 or more"),
            ("min-caption-chars = 0", "min-caption-chars cannot be 0", "1 or more"),
            ("min-caption-chars = 9\nmax-caption-chars = 8", "max-caption-chars cannot be 8", "9 or more"),
        ] {
            let error = Config::resolve(None, toml.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains(what), "{toml}: {error}");
            assert!(error.advice().unwrap_or("").contains(hint), "{toml}: {error:?}");
            assert_eq!(error.exit_code(), 2, "{toml}");
        }
        let given = "columns = 'es=a,en=b'\nmax-length-ratio = 3\nmin-caption-chars = 3\nmax-caption-chars = 3";
        let text = Config::resolve(None, given.parse().unwrap()).unwrap().text;
        assert_eq!(text.columns.unwrap().to_string(), "es=a,en=b");
        assert_eq!((text.max_length_ratio, text.max_caption_chars), (Some(3.0), Some(3)));
    }
}

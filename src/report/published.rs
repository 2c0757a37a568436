//! Published figures on the same sets, to compare with without any data.

use std::fmt;

use serde::Serialize;

use crate::eval::metrics::{AtK, KS};

/// What somebody published of a model: zero-shot ImageNet accuracy with Spanish prompts, and XTD10 text-to-image
/// recall.
#[derive(Clone, Debug, Serialize)]
pub struct Published {
    /// The text tower.
    pub model: &'static str,
    /// The image tower.
    pub images: &'static str,
    /// The language of captions and prompts.
    pub language: &'static str,
    /// Accuracy@k of zero-shot ImageNet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification: Option<AtK>,
    /// Recall@k of XTD10, text to image.
    pub retrieval: AtK,
    /// Where the figures come from.
    pub source: &'static str,
}

const ORIGINAL: &str = "the README of the original Themo (Python)";
const SAME_TOWER: &str = "same-tower figures collected for this project";
const MCLIP: &str =
    "same-tower figures collected for this project; R@10 also in FreddeFrallan/Multilingual-CLIP, larger_mclip.md";

/// All figures, the two of the original's comparison first.
pub fn published() -> Vec<Published> {
    let row = |model, images, language, accuracy: Option<[f64; 3]>, recall, source| Published {
        model,
        images,
        language,
        classification: accuracy.map(|values| AtK { name: "accuracy", values }),
        retrieval: AtK { name: "recall", values: recall },
        source,
    };
    let (b32, l14) = ("CLIP ViT-B/32", "CLIP ViT-L/14");
    vec![
        row("Themo (Python)", l14, "es", Some([0.366, 0.586, 0.649]), [0.481, 0.752, 0.850], ORIGINAL),
        row("M-CLIP XLM-R large", b32, "es", Some([0.370, 0.594, 0.660]), [0.504, 0.795, 0.888], ORIGINAL),
        row("M-CLIP XLM-R large", l14, "es", None, [0.568, 0.815, 0.911], MCLIP),
        row("M-CLIP LaBSE", l14, "es", None, [0.563, 0.810, 0.895], MCLIP),
        row("AltCLIP-m9", l14, "es", None, [0.586, 0.827, 0.911], SAME_TOWER),
        row("CLIP's own", l14, "en", None, [0.593, 0.841, 0.918], SAME_TOWER),
        row("CLIP's own", l14, "es", None, [0.262, 0.519, 0.653], SAME_TOWER),
    ]
}

/// [`published`] as a table for a terminal, with the sources below.
pub struct Table;

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Published: ImageNet accuracy@k (A), XTD10 text-to-image recall@k (R)\n{:36}", "")?;
        for measure in ["A", "R"] {
            KS.iter().try_for_each(|k| write!(f, "{:>6}", format!("{measure}@{k}")))?;
        }
        let mut sources: Vec<&str> = Vec::new();
        for row in published() {
            let number = sources.iter().position(|source| *source == row.source).unwrap_or_else(|| {
                sources.push(row.source);
                sources.len() - 1
            });
            write!(f, "\n{:18} {:13} {} ", row.model, row.images, row.language)?;
            for at in [row.classification, Some(row.retrieval)] {
                for value in at.map_or([None; 3], |at| at.values.map(Some)) {
                    write!(f, "{:>6}", value.map_or("-".into(), |value| format!("{value:.3}")))?;
                }
            }
            write!(f, " [{}]", number + 1)?;
        }
        for (number, source) in sources.iter().enumerate() {
            write!(f, "\n[{}] {source}", number + 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_row_and_figures_that_grow_with_k() {
        let table = Table.to_string();
        assert!(table.lines().take(2 + published().len()).all(|line| line.chars().count() <= 80), "{table}");
        for row in published() {
            for at in row.classification.into_iter().chain([row.retrieval]) {
                assert!(at.values.is_sorted() && at.values[2] < 1.0, "{row:?}");
                assert!(at.values.iter().all(|value| table.contains(&format!("{value:.3}"))), "{row:?}");
            }
        }
    }
}

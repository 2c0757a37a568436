//! Zero-shot classification: the predicted class of an image is the one whose prompt is nearest.

use serde::{Deserialize, Serialize};

use super::figures::Shares;
use super::images::Embedded;
use super::metrics::ranks;
use super::statistics::Clusters;
use super::towers::normalise;
use super::{TextEmbedder, expect_rows};
use crate::error::{Error, Result};

/// accuracy@k. Ties count against the model; of several labels the best counts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassificationScores {
    /// The share of images with a label among the first k classes.
    #[serde(flatten)]
    pub accuracy: Shares,
    /// How many images were classified.
    pub images: usize,
    /// How many classes.
    pub classes: usize,
    /// How many images could not be read.
    #[serde(skip_serializing_if = "is_zero")]
    pub skipped: usize,
    /// What the figures are made of.
    #[serde(skip)]
    pub ranks: ClassRanks,
}

/// The rank of each image's best label, 1 for the best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassRanks {
    /// For each image that could be read the rank of the best of its labels.
    pub ranks: Vec<usize>,
    /// For each of them its index in the list of images.
    pub kept: Vec<usize>,
    /// How many classes.
    pub classes: usize,
    /// How many images could not be read.
    pub skipped: usize,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl ClassificationScores {
    /// The figures of `ranks`.
    pub fn new(ranks: ClassRanks) -> Self {
        Self {
            accuracy: Shares::new("accuracy", &ranks.ranks, &Clusters::single(ranks.ranks.len())),
            images: ranks.ranks.len(),
            classes: ranks.classes,
            skipped: ranks.skipped,
            ranks,
        }
    }
}

/// One L2-normalised row per class, `[classes, dim]`: the mean over the templates of the embeddings of its prompts.
/// `prompts[t][c]` is template t filled with the name of class c.
pub fn embed_classes(texts: &dyn TextEmbedder, prompts: &[Vec<String>]) -> Result<Vec<f32>> {
    let (mut sums, dim) = (Vec::new(), texts.dim());
    for prompts in prompts {
        let rows = texts.embed_texts(prompts)?;
        expect_rows("classes", &rows, prompts.len(), dim)?;
        sums.resize(rows.len(), 0.0);
        sums.iter_mut().zip(rows).for_each(|(sum, value): (&mut f32, f32)| *sum += value);
    }
    normalise(&mut sums, dim);
    Ok(sums)
}

/// Ranks the classes `[classes, dim]` for embedded images; `labels` holds the class indices of every image of the list
/// that was embedded.
pub fn classify(class_embeddings: &[f32], images: &Embedded, dim: usize, labels: &[Vec<usize>]) -> Result<ClassRanks> {
    let classes = class_embeddings.len() / dim.max(1);
    expect_rows("classes", class_embeddings, classes, dim)?;
    expect_rows("images", &images.rows, images.kept.len(), dim)?;
    let fits = |&index: &usize| labels.get(index).is_some_and(|labels| labels.iter().all(|&label| label < classes));
    if !images.kept.iter().all(fits) {
        return Err(Error::new(format!("the labels do not fit {classes} classes and the images")));
    }
    let ranks = ranks(&images.rows, class_embeddings, dim, |row| labels[images.kept[row]].as_slice());
    Ok(ClassRanks { ranks, kept: images.kept.clone(), classes, skipped: images.failed.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_averaged() -> Result<()> {
        struct Fixed;
        impl TextEmbedder for Fixed {
            fn embed(&self, texts: &[String]) -> Result<Vec<f32>> {
                Ok(texts.iter().flat_map(|t| if t.starts_with('x') { [1.0, 0.0] } else { [0.0, 1.0] }).collect())
            }
            fn dim(&self) -> usize {
                2
            }
        }
        let prompts = [["xa", "xb"], ["xa", "yb"]].map(|row| row.map(str::to_owned).to_vec());
        let half = 0.5f32.sqrt();
        let rows = embed_classes(&Fixed, &prompts)?;
        for (got, want) in rows.iter().zip([1.0, 0.0, half, half]) {
            assert!((got - want).abs() < 1e-6, "{rows:?}");
        }
        Ok(())
    }

    #[test]
    fn the_best_label_counts_and_skipped_images_do_not() -> Result<()> {
        let classes = [1.0, 0.0, 0.0, 1.0, -1.0, 0.0];
        let images = Embedded {
            rows: vec![0.8, 0.6, 0.6, 0.8, 0.6, 0.8],
            kept: vec![0, 2, 3],
            failed: vec![Error::new("broken.jpg")],
        };
        let labels = [vec![0], vec![1], vec![0], vec![2, 1]];
        let scores = ClassificationScores::new(classify(&classes, &images, 2, &labels)?);
        assert_eq!(scores.ranks.ranks, [1, 2, 1]);
        assert_eq!(scores.accuracy.at.values, [2.0 / 3.0, 1.0, 1.0]);
        let json = serde_json::to_string(&scores)?;
        assert!(json.ends_with(r#""images":3,"classes":3,"skipped":1}"#), "{json}");
        assert!(json.starts_with(r#"{"accuracy@1":0.6666666666666666,"accuracy@5":1.0,"accuracy@10":1.0,"ci95":{"#));
        assert!(classify(&classes, &images, 2, &labels[..3]).is_err());
        assert!(classify(&classes[..4], &images, 2, &labels).is_err());
        Ok(())
    }
}

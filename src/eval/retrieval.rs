//! Retrieval: images by captions, and captions by images.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::figures::Ranking;
use super::metrics::ranks;
use super::relevance::Relevance;
use super::statistics::Clusters;
use super::{ImageEmbedder, expect_rows, images};
use crate::error::{Result, ResultExt};

/// The figures of both directions. Ties count against the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RetrievalScores {
    /// Each caption is a query for any of its images.
    pub text_to_image: Ranking,
    /// Each image is a query for any of its captions.
    pub image_to_text: Ranking,
    /// How many images.
    pub images: usize,
    /// How many captions.
    pub captions: usize,
    /// What the figures are made of.
    #[serde(skip)]
    pub ranks: RetrievalRanks,
}

/// The rank of what each query looks for, 1 for the best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetrievalRanks {
    /// For each caption the rank of the best of its images.
    pub text_to_image: Vec<usize>,
    /// For each image the rank of the best of its captions.
    pub image_to_text: Vec<usize>,
}

/// The embeddings `[images, dim]` of all `paths`. Every image is decoded once before the model starts: one that is
/// corrupt makes the evaluation fail, and should do so at once.
pub fn embed_all_images(
    paths: &[PathBuf], embedder: &dyn ImageEmbedder, batch_size: usize, progress: &dyn Fn(u64, u64),
) -> Result<Vec<f32>> {
    let needed = || "fetch these images again: retrieval needs all of them";
    images::check_all(paths).hint(needed)?;
    let embedded = images::embed(paths, embedder, batch_size, true, progress)?;
    images::refuse(&embedded.failed, paths.len()).hint(needed)?;
    Ok(embedded.rows)
}

/// Ranks texts `[captions, dim]` and images `[images, dim]` for each other.
pub fn rank(texts: &[f32], images: &[f32], dim: usize, relevance: &Relevance) -> Result<RetrievalRanks> {
    let Relevance { images_of, captions_of, .. } = relevance;
    expect_rows("captions", texts, images_of.len(), dim)?;
    expect_rows("images", images, captions_of.len(), dim)?;
    Ok(RetrievalRanks {
        text_to_image: ranks(texts, images, dim, |i| &images_of[i]),
        image_to_text: ranks(images, texts, dim, |i| &captions_of[i]),
    })
}

impl RetrievalScores {
    /// The figures of `ranks`, which are those of a set with the pairs `relevance`.
    pub fn new(ranks: RetrievalRanks, relevance: &Relevance) -> Self {
        let (captions, images) = (relevance.caption_clusters(), relevance.image_clusters());
        Self {
            text_to_image: Ranking::new(&ranks.text_to_image, &Clusters::of(&captions)),
            image_to_text: Ranking::new(&ranks.image_to_text, &Clusters::of(images)),
            images: images.len(),
            captions: captions.len(),
            ranks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::images::tests::{MeanColour, demo};
    use super::*;

    fn score(texts: &[f32], images: &[f32], dim: usize, image_of: &[usize]) -> Result<RetrievalScores> {
        let images_of = image_of.iter().map(|image| vec![*image]).collect();
        let relevance = Relevance::new(images.len() / dim, images_of)?;
        Ok(RetrievalScores::new(rank(texts, images, dim, &relevance)?, &relevance))
    }

    #[test]
    fn both_directions_and_ties() -> Result<()> {
        // Captions 0 and 2 belong to image 0; caption 1 lies nearer to image 0 than to its own.
        let images = [1.0, 0.0, 0.0, 1.0];
        let scores = score(&[1.0, 0.0, 0.8, 0.6, 0.0, 1.0], &images, 2, &[0, 1, 0])?;
        assert_eq!(scores.ranks.text_to_image, [1, 2, 2]);
        assert_eq!(scores.ranks.image_to_text, [1, 2]);
        assert_eq!(scores.text_to_image.at.values, [1.0 / 3.0, 1.0, 1.0]);
        assert_eq!(scores.image_to_text.at.values, [0.5, 1.0, 1.0]);
        assert_eq!((scores.images, scores.captions), (2, 3));
        // The same embedding for everything is worth nothing.
        let same = [1.0, 0.0].repeat(20);
        let image_of: Vec<usize> = (0..20).collect();
        let scores = score(&same, &same, 2, &image_of)?;
        assert_eq!((scores.text_to_image.at.values, scores.image_to_text.at.values), ([0.0; 3], [0.0; 3]));
        assert!(score(&same[2..], &same, 2, &image_of).is_err() && score(&images, &images, 2, &[0, 2]).is_err());
        Ok(())
    }

    #[test]
    fn corrupt_images_are_named_before_the_model_runs() -> Result<()> {
        let mut paths = crate::data::xtd10::load(&demo(), "es")?.images;
        paths.truncate(12);
        let embedder = MeanColour::new()?;
        let rows = embed_all_images(&paths, &embedder, 5, &|_, _| {})?;
        let own: Vec<usize> = (0..12).collect();
        assert_eq!(score(&rows, &rows, 3, &own)?.image_to_text.at.values[1], 1.0);
        let dir = tempfile::tempdir()?;
        for k in [2, 3, 5, 7, 11] {
            paths[k] = dir.path().join(format!("broken{k}.jpg"));
            std::fs::write(&paths[k], if k == 2 { &b""[..] } else { b"\xff\xd8\xff\xe0" })?;
        }
        let error = embed_all_images(&paths, &embedder, 5, &|_, _| panic!("the model ran")).expect_err("corrupt");
        for part in ["5 of 12", "broken2.jpg", "broken5.jpg", "and 2 more"] {
            assert!(error.to_string().contains(part), "{error} lacks {part}");
        }
        Ok(())
    }
}

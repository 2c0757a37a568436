//! Retrieval: recall@k of images by captions, and of captions by images.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::metrics::{AtK, ranks};
use super::{ImageEmbedder, expect_rows, images};
use crate::error::{Error, Result, ResultExt};

/// recall@k both ways. Ties count against the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetrievalScores {
    /// Each caption is a query for its image.
    pub text_to_image: AtK,
    /// Each image is a query for any of its captions.
    pub image_to_text: AtK,
    /// How many images.
    pub images: usize,
    /// How many captions.
    pub captions: usize,
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

/// Scores texts `[captions, dim]` against images `[images, dim]`; `image_of` holds each caption's image.
pub fn score(texts: &[f32], images: &[f32], dim: usize, image_of: &[usize]) -> Result<RetrievalScores> {
    let count = images.len() / dim.max(1);
    expect_rows("captions", texts, image_of.len(), dim)?;
    expect_rows("images", images, count, dim)?;
    let mut captions_of = vec![Vec::new(); count];
    for (caption, &image) in image_of.iter().enumerate() {
        let captions = captions_of.get_mut(image);
        captions.ok_or_else(|| Error::new(format!("caption {caption} names image {image} of {count}")))?.push(caption);
    }
    Ok(RetrievalScores {
        text_to_image: AtK::recall(&ranks(texts, images, dim, |i| std::slice::from_ref(&image_of[i]))),
        image_to_text: AtK::recall(&ranks(images, texts, dim, |i| &captions_of[i])),
        images: count,
        captions: image_of.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::images::tests::{MeanColour, demo};
    use super::*;

    #[test]
    fn both_directions_and_ties() -> Result<()> {
        // Captions 0 and 2 belong to image 0; caption 1 lies nearer to image 0 than to its own.
        let images = [1.0, 0.0, 0.0, 1.0];
        let scores = score(&[1.0, 0.0, 0.8, 0.6, 0.0, 1.0], &images, 2, &[0, 1, 0])?;
        assert_eq!(scores.text_to_image.values, [1.0 / 3.0, 1.0, 1.0]);
        assert_eq!(scores.image_to_text.values, [0.5, 1.0, 1.0]);
        assert_eq!((scores.images, scores.captions), (2, 3));
        // The same embedding for everything is worth nothing.
        let same = [1.0, 0.0].repeat(20);
        let image_of: Vec<usize> = (0..20).collect();
        let scores = score(&same, &same, 2, &image_of)?;
        assert_eq!((scores.text_to_image.values, scores.image_to_text.values), ([0.0; 3], [0.0; 3]));
        assert!(score(&same, &same, 2, &image_of[1..]).is_err() && score(&images, &images, 2, &[0, 2]).is_err());
        Ok(())
    }

    #[test]
    fn corrupt_images_are_named_before_the_model_runs() -> Result<()> {
        let mut paths = crate::data::xtd10::load(&demo(), "es")?.images;
        paths.truncate(12);
        let embedder = MeanColour::new()?;
        let rows = embed_all_images(&paths, &embedder, 5, &|_, _| {})?;
        let own: Vec<usize> = (0..12).collect();
        assert_eq!(score(&rows, &rows, 3, &own)?.image_to_text.values[1], 1.0);
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

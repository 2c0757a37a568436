//! Embeddings of many image files: pixels come and go in batches, only embeddings are kept.

use std::path::PathBuf;

use super::{ImageEmbedder, expect_rows};
use crate::data::for_each_batch;
use crate::error::{Error, Result};

/// What [`embed`] made of a list of image files.
#[derive(Debug)]
pub struct Embedded {
    /// `[kept, dim]`, L2-normalised.
    pub rows: Vec<f32>,
    /// For each row the index of its image in the list, ascending.
    pub kept: Vec<usize>,
    /// The images that could not be read.
    pub failed: Vec<Error>,
}

/// Embeds `paths` in batches of `batch_size`, decoding ahead; calls `progress(done, total)` after each batch.
pub fn embed(
    paths: &[PathBuf], embedder: &dyn ImageEmbedder, batch_size: usize, progress: &dyn Fn(u64, u64),
) -> Result<Embedded> {
    let mut embedded = Embedded { rows: Vec::new(), kept: Vec::with_capacity(paths.len()), failed: Vec::new() };
    for_each_batch(paths, batch_size, embedder.preprocess(), |range, decoded| {
        let (done, mut pixels) = (range.end, Vec::with_capacity(decoded.len()));
        for (index, image) in range.zip(decoded) {
            match image {
                Ok(image) => {
                    embedded.kept.push(index);
                    pixels.push(image);
                }
                Err(error) => embedded.failed.push(error),
            }
        }
        if !pixels.is_empty() {
            let rows = embedder.embed_images(&pixels)?;
            expect_rows("images", &rows, pixels.len(), embedder.dim())?;
            embedded.rows.extend(rows);
        }
        progress(done as u64, paths.len() as u64);
        Ok(())
    })?;
    Ok(embedded)
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;
    use crate::data::Preprocess;

    /// Embeds an image as its mean colour, normalised.
    pub struct MeanColour(Preprocess);

    impl MeanColour {
        pub fn new() -> Result<Self> {
            Preprocess::from_file(&demo().join("models/toy-clip/preprocessor_config.json")).map(Self)
        }
    }

    impl ImageEmbedder for MeanColour {
        fn preprocess(&self) -> &Preprocess {
            &self.0
        }

        fn embed_images(&self, pixels: &[Vec<f32>]) -> Result<Vec<f32>> {
            let embed = |image: &Vec<f32>| {
                let sums: Vec<f32> = image.chunks(image.len() / 3).map(|channel| channel.iter().sum()).collect();
                let norm = sums.iter().map(|x| x * x).sum::<f32>().sqrt();
                sums.into_iter().map(move |x| x / norm)
            };
            Ok(pixels.iter().flat_map(embed).collect())
        }

        fn dim(&self) -> usize {
            3
        }
    }

    pub fn demo() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo")
    }

    #[test]
    fn the_batch_size_changes_nothing_and_failures_are_told() -> Result<()> {
        let mut paths = crate::data::xtd10::load(&demo(), "es")?.images;
        paths.truncate(23);
        paths[11] = "/nowhere.jpg".into();
        let embedder = MeanColour::new()?;
        let last = std::cell::Cell::new((0, 0));
        let one = embed(&paths, &embedder, 1, &|done, total| last.set((done, total)))?;
        assert_eq!(last.get(), (23, 23));
        let many = embed(&paths, &embedder, 7, &|_, _| {})?;
        assert_eq!(one.rows, many.rows);
        assert_eq!((one.rows.len(), one.kept.len(), one.failed.len()), (22 * 3, 22, 1));
        assert!(!one.kept.contains(&11) && one.kept.is_sorted());
        Ok(())
    }
}

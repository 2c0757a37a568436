//! Embeddings of many image files, decoded in batches.

use std::path::PathBuf;

use rayon::prelude::*;

use super::{ImageEmbedder, expect_rows};
use crate::data::{first_few, for_each_batch, image};
use crate::error::{Error, Result};

/// What [`embed`] made of a list of image files.
#[derive(Debug)]
pub struct Embedded {
    /// `[kept, dim]`.
    pub rows: Vec<f32>,
    /// For each row the index of its image in the list, ascending.
    pub kept: Vec<usize>,
    /// The images that could not be read.
    pub failed: Vec<Error>,
}

/// Decodes every image once: where all are needed, one that cannot be used should be reported before a model starts.
pub fn check_all(paths: &[PathBuf]) -> Result<()> {
    let failed: Vec<Error> = paths.par_iter().filter_map(|path| image::check(path).err()).collect();
    refuse(&failed, paths.len())
}

/// An error that names the first of `failed` images, if there are any.
pub(super) fn refuse(failed: &[Error], of: usize) -> Result<()> {
    match failed.len() {
        0 => Ok(()),
        n => Err(Error::new(format!("{n} of {of} images cannot be used: {}", first_few(failed)))),
    }
}

/// [`embed`] of the images that can be read; the others are warned about and skipped. None at all is an error.
pub fn embed_readable(
    paths: &[PathBuf], embedder: &dyn ImageEmbedder, batch_size: usize, normalized: bool, progress: &dyn Fn(u64, u64),
) -> Result<Embedded> {
    let embedded = embed(paths, embedder, batch_size, normalized, progress)?;
    report(&embedded.failed, paths.len())?;
    Ok(embedded)
}

/// Warns of those of `of` images that failed; an error if all did.
pub(super) fn report(failed: &[Error], of: usize) -> Result<()> {
    match failed.len() {
        n if n == of => {
            let what = format!("none of {of} images can be used: {}", first_few(failed));
            return Err(Error::new(what).hint("fetch the images again"));
        }
        0 => {}
        n => tracing::warn!("skipped {n} of {of} images that cannot be used: {}", first_few(failed)),
    }
    Ok(())
}

/// Embeds `paths` in batches of `batch_size`, decoding ahead, as they come or `normalized` to length 1; calls
/// `progress(done, total)` after each batch.
pub fn embed(
    paths: &[PathBuf], embedder: &dyn ImageEmbedder, batch_size: usize, normalized: bool, progress: &dyn Fn(u64, u64),
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
            let rows = if normalized { embedder.embed_images(&pixels) } else { embedder.embed(&pixels) }?;
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
    use crate::data::image::Transparency;

    /// Embeds an image as its mean colour.
    pub struct MeanColour(Preprocess);

    impl MeanColour {
        pub fn new() -> Result<Self> {
            Preprocess::from_file(&demo().join("models/toy-clip/preprocessor_config.json"), Transparency::Drop)
                .map(Self)
        }
    }

    impl ImageEmbedder for MeanColour {
        fn preprocess(&self) -> &Preprocess {
            &self.0
        }

        fn embed(&self, pixels: &[Vec<f32>]) -> Result<Vec<f32>> {
            let sums = |image: &Vec<f32>| -> Vec<f32> {
                image.chunks(image.len() / 3).map(|channel| channel.iter().sum()).collect()
            };
            Ok(pixels.iter().flat_map(sums).collect())
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
        let one = embed(&paths, &embedder, 1, true, &|done, total| last.set((done, total)))?;
        assert_eq!(last.get(), (23, 23));
        let many = embed(&paths, &embedder, 7, true, &|_, _| {})?;
        assert_eq!(one.rows, many.rows);
        assert_eq!((one.rows.len(), one.kept.len(), one.failed.len()), (22 * 3, 22, 1));
        assert!(!one.kept.contains(&11) && one.kept.is_sorted());
        Ok(())
    }

    #[test]
    fn unreadable_images_are_skipped_unless_all_are() -> Result<()> {
        let set = crate::data::imagenet::load(&demo())?;
        let mut paths: Vec<_> = set.images.iter().take(9).map(|(path, _)| path.clone()).collect();
        paths[4] = "/nowhere.JPEG".into();
        let embedder = MeanColour::new()?;
        let embedded = embed_readable(&paths, &embedder, 4, true, &|_, _| {})?;
        assert_eq!((embedded.kept.len(), embedded.failed.len()), (8, 1));
        let error = embed_readable(&paths[4..5], &embedder, 4, true, &|_, _| {}).expect_err("all unreadable");
        assert!(error.to_string().contains("/nowhere.JPEG"), "{error}");
        Ok(())
    }
}

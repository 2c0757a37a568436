//! How good a text encoder is: retrieval over images, zero-shot classification, and their results.
//!
//! | file | holds |
//! |---|---|
//! | [`metrics`] | ranks, recall@k and accuracy@k (pure) |
//! | [`figures`] | the figures of ranks, with intervals |
//! | [`relevance`] | which captions and images belong together (pure) |
//! | [`statistics`] | intervals and paired comparisons (pure) |
//! | [`images`] | embeddings of many image files, in batches |
//! | [`retrieval`] | captions against images, both ways |
//! | [`retrieval_sets`] | the sets of captions and images |
//! | [`classification`] | ImageNet: images against prompts with class names |
//! | [`probe`] | recall@1 while a student trains |
//! | [`towers`] | the student, the teacher's towers and the baseline behind the traits below |
//! | [`suite`] | the sets that are measured on, and texts scored on them |
//! | [`baseline`] | M-CLIP, measured once and kept |
//! | [`student`] | a trained student, and its teacher |
//! | [`embed`] | texts and images to one file of vectors |
//! | [`vectors`] | such a file, written row by row |
//! | [`results`] | the figures |
//!
//! Models come in through two traits, so that the same images, embedded once, serve several text encoders.

pub mod baseline;
pub mod classification;
pub mod embed;
pub mod figures;
pub mod images;
pub mod metrics;
pub mod probe;
pub mod provenance;
pub mod relevance;
pub mod results;
pub mod retrieval;
pub mod retrieval_sets;
pub mod statistics;
pub mod student;
pub mod suite;
pub mod towers;
pub mod vectors;

pub use results::Results;
pub use suite::{Suite, Wanted};

use crate::data::Preprocess;
use crate::error::{Error, Result};

/// The language of captions and prompts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// For the student and the baseline.
    Spanish,
    /// For the teacher.
    English,
}

/// Something that embeds texts into the space shared with images.
pub trait TextEmbedder {
    /// Rows `[texts, dim]`, not normalised.
    fn embed(&self, texts: &[String]) -> Result<Vec<f32>>;
    /// The width of the shared space.
    fn dim(&self) -> usize;

    /// L2-normalised rows `[texts, dim]`.
    fn embed_texts(&self, texts: &[String]) -> Result<Vec<f32>> {
        towers::normalised(self.embed(texts)?, self.dim())
    }
}

/// Something that embeds images into the space shared with texts.
pub trait ImageEmbedder {
    /// What to do to an image file before it is embedded.
    fn preprocess(&self) -> &Preprocess;
    /// Rows `[images, dim]` of images `[3, height, width]`, not normalised.
    fn embed(&self, pixels: &[Vec<f32>]) -> Result<Vec<f32>>;
    /// The width of the shared space.
    fn dim(&self) -> usize;

    /// L2-normalised rows `[images, dim]`.
    fn embed_images(&self, pixels: &[Vec<f32>]) -> Result<Vec<f32>> {
        towers::normalised(self.embed(pixels)?, self.dim())
    }
}

/// Refuses embeddings that are not `[rows, dim]`.
fn expect_rows(what: &str, embeddings: &[f32], rows: usize, dim: usize) -> Result<()> {
    if dim == 0 || embeddings.len() != rows * dim {
        let n = embeddings.len();
        return Err(Error::new(format!("{what}: {n} values are not {rows} embeddings of width {dim}")));
    }
    Ok(())
}

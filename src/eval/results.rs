//! The figures of an evaluation.

use serde::Serialize;

use super::classification::ClassificationScores;
use super::retrieval::RetrievalScores;
use crate::data::image::Transparency;

/// The figures of a student, and beside them the teacher's with English texts on the same images, and the baseline's with
/// images of its own. The module [`report`](crate::report) formats them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Results {
    /// XTD10 retrieval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retrieval: Option<RetrievalScores>,
    /// ImageNet zero-shot classification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification: Option<ClassificationScores>,
    /// The teacher's figures, the ceiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<Box<Results>>,
    /// The baseline's figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Box<Results>>,
    /// What became of transparent pixels, for all of these figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transparency: Option<Transparency>,
}

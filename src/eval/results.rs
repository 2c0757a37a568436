//! The figures of an evaluation.

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::classification::ClassificationScores;
use super::retrieval::RetrievalScores;
use crate::data::image::Transparency;

/// The figures of a student, and beside them the teacher's with English texts on the same images, and the baseline's with
/// images of its own. The module [`report`](crate::report) formats them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Results {
    /// Retrieval, under the name of each set: `retrieval` is XTD10 with Spanish captions.
    #[serde(flatten, serialize_with = "as_map")]
    pub retrieval: Vec<(String, RetrievalScores)>,
    /// ImageNet zero-shot classification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification: Option<ClassificationScores>,
    /// The teacher's figures, the ceiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<Box<Results>>,
    /// The baseline's figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Box<Results>>,
    /// What they were measured with, for the files of results; see [`describe`](super::provenance::describe).
    #[serde(skip)]
    pub measured: Option<Value>,
    /// What became of transparent pixels, for all of these figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transparency: Option<Transparency>,
}

impl Results {
    /// The figures of the retrieval set `name`.
    pub fn retrieval(&self, name: &str) -> Option<&RetrievalScores> {
        self.retrieval.iter().find(|(own, _)| own == name).map(|(_, scores)| scores)
    }
}

fn as_map<S: Serializer>(sets: &[(String, RetrievalScores)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(sets.iter().map(|(name, scores)| (name, scores)))
}

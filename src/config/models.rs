//! The student and the teacher.

use serde::{Deserialize, Serialize};

use super::require;
use crate::error::Result;
use crate::nn::Pooling;

/// The keys that name the models, and say how the student makes vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Models {
    /// A BERT folder, a themo checkpoint, or a model of the hub (`owner/name[@revision]`).
    pub student: String,
    /// A CLIP folder, or a model of the hub.
    pub teacher: String,
    /// How the student makes one vector of the states of a caption.
    pub pooling: Pooling,
    /// The student's dropout in `[0, 1)`; by default, what its own configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
}

impl Default for Models {
    fn default() -> Self {
        Self {
            student: "dccuchile/bert-base-spanish-wwm-uncased".into(),
            teacher: "openai/clip-vit-large-patch14".into(),
            pooling: Pooling::Mean,
            dropout: None,
        }
    }
}

impl Models {
    /// A value for each key that has none by default.
    pub(super) fn example() -> Self {
        Self { dropout: Some(0.1), ..Self::default() }
    }

    /// Refuses values with which no run can work.
    pub(super) fn validate(&self) -> Result<()> {
        for (key, model) in [("student", &self.student), ("teacher", &self.teacher)] {
            require(!model.is_empty(), key, "empty", || "give the folder or the name of a model".into())?;
        }
        require(self.pooling != Pooling::Last, "pooling", "last", || "it must be mean or first".into())?;
        let dropout = self.dropout.unwrap_or(0.0);
        require((0.0..1.0).contains(&dropout), "dropout", dropout, || "it must be 0 or more and less than 1".into())
    }
}

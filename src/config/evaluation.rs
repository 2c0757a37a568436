//! How a student is measured: prompts, class names, pixels.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::require;
use crate::data::image::Transparency;
use crate::error::Result;

/// The keys of zero-shot classification and of images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Evaluation {
    /// The Spanish prompt of zero-shot classification: `{}` or `{name}` stands for the class name, `{un}`, `{el}`,
    /// `{del}`, `{al}` for the article that agrees with it; `ensemble` means all of configs/prompts/es.toml.
    pub prompt: String,
    /// Whether the command line gives the prompt (no key).
    #[serde(skip)]
    pub is_prompt_given: bool,
    /// The teacher's English prompt.
    pub english_prompt: String,
    /// What becomes of transparent pixels where images are embedded: `drop` or `white`.
    pub transparency: Transparency,
    /// The Spanish class names, one a line; see [`Config::class_names`](super::Config::class_names).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_names: Option<PathBuf>,
}

impl Default for Evaluation {
    fn default() -> Self {
        Self {
            prompt: "una imagen de {un} {name}".into(),
            is_prompt_given: false,
            english_prompt: "a picture of a {}".into(),
            transparency: Transparency::Drop,
            class_names: None,
        }
    }
}

impl Evaluation {
    /// A value for each key that has none by default.
    pub(super) fn example() -> Self {
        Self { class_names: Some("classnames_es.txt".into()), ..Self::default() }
    }

    /// Refuses values with which nothing can be measured.
    pub(super) fn validate(&self) -> Result<()> {
        for (key, prompt) in [("prompt", &self.prompt), ("english-prompt", &self.english_prompt)] {
            let holds = prompt.contains("{}") || prompt.contains("{name}") || (key == "prompt" && prompt == "ensemble");
            require(holds, key, format!("`{prompt}`"), || "it must hold {} where the class name goes".into())?;
        }
        Ok(())
    }
}

//! CLIP's configuration (Radford et al. 2021), as transformers saves it; defaults are those of its CLIPConfig.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::folder::read_json;
use super::kinds::{Kind, Role};
use super::layer::EncoderConfig;
use super::weights::{Leftover, Weights};
use crate::error::{Error, Result, ResultExt};
use crate::nn::Activation;

/// What themo reads of a CLIP's `config.json`.
#[derive(Clone, Debug)]
pub struct ClipConfig {
    /// The row of the table of kinds.
    pub kind: &'static Kind,
    /// Width of the space that texts and images share.
    pub projection_dim: usize,
    text: Option<TextConfig>,
    vision: Option<VisionConfig>,
}

/// The text tower.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct TextConfig {
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Width of the states.
    pub hidden_size: usize,
    /// Width between the two linear layers of a feed-forward block.
    pub intermediate_size: usize,
    /// How many layers.
    pub num_hidden_layers: usize,
    /// Attention heads of a layer.
    pub num_attention_heads: usize,
    /// Rows of the position table: the most tokens of a text.
    pub max_position_embeddings: usize,
    /// The name of the activation, see [`Activation::from_name`](crate::nn::Activation::from_name).
    pub hidden_act: String,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// The token whose state is the vector of a text. In a `clip`, 2 (which transformers before 4.31 wrote by
    /// mistake) stands for the token with the highest id; see [`EndOfText`](super::kinds::EndOfText).
    pub eos_token_id: u32,
}

/// The image tower.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct VisionConfig {
    /// Width of the states.
    pub hidden_size: usize,
    /// Width between the two linear layers of a feed-forward block.
    pub intermediate_size: usize,
    /// How many layers.
    pub num_hidden_layers: usize,
    /// Attention heads of a layer.
    pub num_attention_heads: usize,
    /// Channels of an image.
    pub num_channels: usize,
    /// Width and height of an image in pixels.
    pub image_size: usize,
    /// Width and height of a patch in pixels.
    pub patch_size: usize,
    /// The name of the activation, see [`Activation::from_name`](crate::nn::Activation::from_name).
    pub hidden_act: String,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
        }
    }
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
        }
    }
}

const HINT: &str = "check that this is the right kind of model; fetch config.json again if it may be damaged";

impl ClipConfig {
    /// Reads `folder/config.json`: with both towers (`CLIPModel`), or of one of them by itself
    /// (`CLIPTextModelWithProjection`, `CLIPVisionModelWithProjection`).
    ///
    /// # Errors
    /// If it is of a kind, or asks for something, that themo does not compute.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        Self::new(&read_json(&path)?).context(|| path.display().to_string()).hint(|| HINT)
    }

    fn new(file: &Map<String, Value>) -> Result<Self> {
        let kind = Kind::of_config(file, &[Role::Clip, Role::ClipText, Role::ClipVision])?;
        let whole = || Value::Object(file.clone());
        for (key, tower) in [("text_config", "text"), ("vision_config", "vision")] {
            let found = file.get(key).and_then(|config| config.get("model_type")?.as_str());
            if let Some(found) = found.filter(|found| *found != format!("{}_{tower}_model", kind.model_type)) {
                return Err(Error::new(format!("the {tower} tower is of the type `{found}`, not a CLIP's")));
            }
        }
        let (text, vision) = match kind.role {
            Role::ClipText => (Some(serde_json::from_value(whole())?), None),
            Role::ClipVision => (None, Some(serde_json::from_value(whole())?)),
            Role::Clip | Role::Student => {
                (Some(tower_config(file, "text_config")?), Some(tower_config(file, "vision_config")?))
            }
        };
        let projection_dim = match file.get("projection_dim") {
            None => 512,
            Some(value) => serde_json::from_value(value.clone()).context(|| "projection_dim")?,
        };
        Ok(Self { kind, projection_dim, text, vision })
    }

    /// The text tower's part.
    ///
    /// # Errors
    /// If the file is that of an image tower alone.
    pub fn text(&self) -> Result<&TextConfig> {
        self.text.as_ref().ok_or_else(|| self.lacks("text"))
    }

    /// The image tower's part.
    ///
    /// # Errors
    /// If the file is that of a text tower alone.
    pub fn vision(&self) -> Result<&VisionConfig> {
        self.vision.as_ref().ok_or_else(|| self.lacks("image"))
    }

    fn lacks(&self, tower: &str) -> Error {
        Error::new(format!("a model of the type `{}` has no {tower} tower", self.kind.model_type))
            .hint("use the CLIP that it is a part of, with both towers")
    }

    pub(super) fn text_encoder(&self) -> Result<EncoderConfig> {
        let c = self.text()?;
        let sizes = (c.num_hidden_layers, c.hidden_size, c.num_attention_heads, c.intermediate_size);
        self.tower(sizes, &c.hidden_act, true, c.layer_norm_eps)
    }

    pub(super) fn vision_encoder(&self) -> Result<EncoderConfig> {
        let c = self.vision()?;
        let sizes = (c.num_hidden_layers, c.hidden_size, c.num_attention_heads, c.intermediate_size);
        self.tower(sizes, &c.hidden_act, false, c.layer_norm_eps)
    }

    /// The encoder of either tower; `sizes` are layers, hidden size, heads, intermediate size.
    fn tower(
        &self, sizes: (usize, usize, usize, usize), activation: &str, causal: bool, eps: f64,
    ) -> Result<EncoderConfig> {
        let (layers, hidden, heads, intermediate) = sizes;
        let (activation, norm_first) = (Activation::from_name(activation)?, self.kind.norm_first);
        Ok(EncoderConfig {
            layers,
            hidden,
            embedding: hidden,
            heads,
            intermediate,
            activation,
            norm_first,
            causal,
            eps,
        })
    }
}

/// A tower's part of a CLIP's configuration. Where there is a `text_config_dict` (or `vision_config_dict`), as in the
/// files of 2021, it and the defaults replace all of `text_config`.
fn tower_config<T: DeserializeOwned + Default>(file: &Map<String, Value>, key: &str) -> Result<T> {
    let old_key = format!("{key}_dict");
    let given = |key: &str| file.get(key).filter(|value| !value.is_null());
    let (key, value) = match (given(&old_key), given(key)) {
        (Some(value), _) => (old_key.as_str(), value),
        (None, Some(value)) => (key, value),
        (None, None) => return Ok(T::default()),
    };
    serde_json::from_value(value.clone()).context(|| key.to_owned())
}

/// Finds a CLIP's tower, one of whose tensors has a name that ends with `end`; [`Weights::model`] is then the tower.
/// Returns the prefix of the projections' names.
pub fn find_tower(weights: &mut Weights, end: &str) -> Result<String> {
    let prefix = weights.find_prefix(end)?;
    let outer = ["text_model.", "vision_model."].iter().find_map(|tower| prefix.strip_suffix(tower));
    Ok(outer.unwrap_or(prefix).to_owned())
}

/// What to make of a tensor that the tower below `prefix` did not load; `outer` is the prefix of the projections'
/// names.
pub(super) fn leftover(outer: &str, prefix: &str, name: &str) -> Leftover {
    let of_others = |below: &str| {
        matches!(below, "visual_projection.weight" | "text_projection.weight" | "logit_scale")
            || ["text_model.", "vision_model."].iter().any(|tower| below.starts_with(tower))
    };
    let own_parts = ["embeddings.", "encoder.", "final_layer_norm.", "pre_layrnorm.", "post_layernorm."];
    let is_own = match prefix != outer {
        true => name.starts_with(prefix),
        false => name.strip_prefix(outer).is_some_and(|below| own_parts.iter().any(|part| below.starts_with(part))),
    };
    let of_projection = |below: &str| below.starts_with("text_projection.") || below.starts_with("visual_projection.");
    match name.strip_prefix(outer) {
        _ if name.ends_with("position_ids") => Leftover::Nothing,
        _ if is_own => Leftover::Fault,
        Some(below) if of_others(below) => Leftover::Nothing,
        Some(below) if of_projection(below) => Leftover::Fault,
        _ => Leftover::Head,
    }
}

//! CLIP's configuration (Radford et al. 2021), as transformers saves it; defaults are those of its CLIPConfig.

use std::path::Path;

use serde::Deserialize;

use super::encoder::EncoderConfig;
use super::weights::read_json;
use crate::error::Result;
use crate::nn::Activation;

/// What themo reads of a CLIP's `config.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct ClipConfig {
    pub text_config: TextConfig,
    pub vision_config: VisionConfig,
    #[serde(default = "projection_dim")]
    pub projection_dim: usize,
}

/// The text tower.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct TextConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f64,
    pub eos_token_id: u32,
}

/// The image tower.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct VisionConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_channels: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f64,
}

fn projection_dim() -> usize {
    512
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

impl ClipConfig {
    /// Reads `folder/config.json`.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        read_json(&folder.join("config.json"))
    }

    pub(super) fn text_encoder(&self) -> Result<EncoderConfig> {
        let c = &self.text_config;
        let sizes = (c.num_hidden_layers, c.hidden_size, c.num_attention_heads, c.intermediate_size);
        tower(sizes, &c.hidden_act, true, c.layer_norm_eps)
    }

    pub(super) fn vision_encoder(&self) -> Result<EncoderConfig> {
        let c = &self.vision_config;
        let sizes = (c.num_hidden_layers, c.hidden_size, c.num_attention_heads, c.intermediate_size);
        tower(sizes, &c.hidden_act, false, c.layer_norm_eps)
    }
}

/// The encoder of either tower; `sizes` are layers, hidden size, heads, intermediate size.
fn tower(sizes: (usize, usize, usize, usize), activation: &str, causal: bool, eps: f64) -> Result<EncoderConfig> {
    let (layers, hidden, heads, intermediate) = sizes;
    let activation = Activation::from_name(activation)?;
    Ok(EncoderConfig { layers, hidden, heads, intermediate, activation, norm_first: true, causal, eps })
}

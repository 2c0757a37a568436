//! CLIP's image tower (a ViT, Dosovitskiy et al. 2020) with its projection.

use std::path::Path;

use candle_core::{Device, Tensor};

use super::clip::ClipConfig;
use super::encoder::Encoder;
use super::weights::{Weights, clip_layers};
use crate::error::{Error, Result};
use crate::nn::{Backend, Compute, LayerNorm, Linear, Params, Pooling, Rows};

/// Preprocessed images to the shared space.
pub struct ClipVision {
    backend: Backend,
    device: Device,
    patches: Linear,  // [hidden, channels * patch * patch]
    class: Tensor,    // [1, 1, hidden]
    position: Tensor, // [1, 1 + grid * grid, hidden]
    pre_norm: LayerNorm,
    encoder: Encoder,
    visual_projection: Tensor, // [projection_dim, hidden]
    projection_dim: usize,
    channels: usize,
    image_size: usize,
    patch_size: usize,
}

impl ClipVision {
    /// Loads the image tower of the CLIP in `folder`.
    pub fn load(folder: &Path, compute: &Compute) -> Result<Self> {
        let config = ClipConfig::from_folder(folder)?;
        let vision = &config.vision_config;
        let (hidden, patch) = (vision.hidden_size, vision.patch_size);
        if patch == 0 || vision.image_size < patch {
            return Err(Error::new(format!("patches of {patch} pixels do not fit images of {}", vision.image_size))
                .hint("fetch the model's config.json again"));
        }
        let grid = vision.image_size / patch;
        let mut weights = Weights::open(folder, &compute.device)?;
        let (mut params, backend) = (Params::default(), compute.backend);
        let kernel = weights
            .take("vision_model.embeddings.patch_embedding.weight", &[hidden, vision.num_channels, patch, patch])?;
        let patches = Linear { weight: params.add(vec!["patches".into()], &kernel.flatten_from(1)?)?, bias: None };
        let class = weights.take("vision_model.embeddings.class_embedding", &[hidden])?.reshape((1, 1, hidden))?;
        let position = weights
            .take(
                "vision_model.embeddings.position_embedding.weight",
                &[grid.saturating_mul(grid).saturating_add(1), hidden],
            )?
            .unsqueeze(0)?;
        // (transformers' spelling)
        let pre_norm = weights.layer_norm("vision_model.pre_layrnorm", hidden, vision.layer_norm_eps, &mut params)?;
        let encoder = Encoder::load(
            config.vision_encoder()?,
            backend,
            "vision_model.encoder.layers.0.layer_norm1",
            clip_layers("vision_model", vision.num_hidden_layers, "post_layernorm"),
            &mut weights,
            &mut params,
        )?;
        let visual_projection = weights.take("visual_projection.weight", &[config.projection_dim, hidden])?;
        weights.finish(|name| {
            name.starts_with("text_model.")
                || name.ends_with("position_ids")
                || matches!(name, "text_projection.weight" | "logit_scale")
        })?;
        Ok(Self {
            backend,
            device: compute.device.clone(),
            patches,
            class,
            position,
            pre_norm,
            encoder,
            visual_projection,
            projection_dim: config.projection_dim,
            channels: vision.num_channels,
            image_size: vision.image_size,
            patch_size: patch,
        })
    }

    /// Width of the shared space.
    pub fn projection_dim(&self) -> usize {
        self.projection_dim
    }

    /// Pixels of an image's side.
    pub fn image_size(&self) -> usize {
        self.image_size
    }

    /// The class token's state after the last norm, `[batch, hidden]` (transformers' `pooler_output`), from pixels
    /// `[batch, channels, size, size]`.
    pub fn pooled(&self, pixels: &Tensor) -> Result<Tensor> {
        let (n, channels, height, width) = pixels.dims4()?;
        if (channels, height, width) != (self.channels, self.image_size, self.image_size) {
            return Err(Error::new(format!(
                "images of {channels} x {height} x {width} do not fit a tower for {} x {} x {}",
                self.channels, self.image_size, self.image_size
            ))
            .hint("preprocessor_config.json and config.json disagree"));
        }
        let (patch, grid) = (self.patch_size, self.image_size / self.patch_size);
        let cut = grid * patch; // a remainder at the edge is not seen, as in a convolution
        let patches = pixels
            .to_device(&self.device)?
            .narrow(2, 0, cut)?
            .narrow(3, 0, cut)?
            .reshape(&[n, channels, grid, patch, grid, patch])?
            .permute([0, 2, 4, 1, 3, 5])?
            .reshape((n * grid * grid, channels * patch * patch))?;
        let hidden = self.encoder.config().hidden;
        let patches = self.patches.forward(self.backend, &patches)?.reshape((n, grid * grid, hidden))?;
        let class = self.class.broadcast_as((n, 1, hidden))?;
        let embeddings = Tensor::cat(&[&class, &patches], 1)?.broadcast_add(&self.position)?.flatten_to(1)?;
        let rows = Rows::new(vec![1 + grid * grid; n], 0)?;
        let embeddings = self.pre_norm.forward(self.backend, None, &embeddings)?.out;
        let states = self.encoder.forward(&embeddings, &rows, None, None)?;
        Pooling::First.forward(self.backend, &rows, &states)
    }

    /// Image vectors in the shared space `[batch, projection_dim]`, not normalised.
    pub fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        Ok(self.pooled(pixels)?.matmul(&self.visual_projection.t()?)?)
    }
}

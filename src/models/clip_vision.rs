//! CLIP's image tower (a ViT, Dosovitskiy et al. 2020) with its projection.

use std::path::Path;

use candle_core::{Device, Module, Tensor};
use rayon::prelude::*;

use super::clip::{ClipConfig, find_tower, leftover};
use super::encoder::Encoder;
use super::load::{self, constant};
use super::weights::Weights;
use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::nn::storage::{Slice, tensor};
use crate::nn::{Backend, FrozenLinear, LayerNorm, Params, Pooling, Rows, Tokens};

/// Maps preprocessed images into the space shared with texts.
pub struct ClipVision {
    backend: Backend,
    device: Device,
    patches: FrozenLinear, // [hidden, channels * patch * patch]
    class: Tensor,         // [1, 1, hidden]
    position: Tensor,      // [1, 1 + grid * grid, hidden]
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
        let vision = config.vision()?;
        let (hidden, patch) = (vision.hidden_size, vision.patch_size);
        if patch == 0 || vision.image_size < patch {
            return Err(Error::new(format!("patches of {patch} pixels do not fit images of {}", vision.image_size))
                .hint("fetch the model's config.json again"));
        }
        let grid = vision.image_size / patch;
        let mut weights = Weights::open(folder, &compute.device)?;
        let outer = find_tower(&mut weights, "embeddings.patch_embedding.weight")?;
        let (mut params, backend) = (Params::frozen(compute.backend), compute.backend);
        let vb = weights.model();
        let embeddings = vb.pp("embeddings");
        let kernel = (hidden, vision.num_channels, patch, patch);
        let kernel = constant(kernel, "patch_embedding.weight", &embeddings)?;
        let patches = FrozenLinear::new(kernel.flatten_from(1)?, None, backend)?;
        let class = constant(hidden, "class_embedding", &embeddings)?.reshape((1, 1, hidden))?;
        let positions = grid.saturating_mul(grid).saturating_add(1);
        let position = constant((positions, hidden), "position_embedding.weight", &embeddings)?.unsqueeze(0)?;
        // The typo is transformers'.
        let pre_norm = load::layer_norm(hidden, vision.layer_norm_eps, vb.pp("pre_layrnorm"), &mut params)?;
        let (names, norm) = (config.kind.names, Some("post_layernorm"));
        let encoder = Encoder::load(config.vision_encoder()?, names, norm, &vb, &mut params)?;
        let shape = (config.projection_dim, hidden);
        let visual_projection = constant(shape, "visual_projection.weight", &weights.below(&outer))?;
        weights.finish(|name| leftover(&outer, weights.prefix(), name))?;
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

    /// The device of its weights.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Width and height of an image in pixels.
    pub fn image_size(&self) -> usize {
        self.image_size
    }

    /// Tokens of one image: its patches and the class token.
    pub fn tokens(&self) -> usize {
        1 + (self.image_size / self.patch_size).pow(2)
    }

    /// The class token's state after the last norm, `[batch, hidden]` (transformers' `pooler_output`), of images
    /// `[channels, size, size]`.
    pub fn pooled(&self, images: &[Vec<f32>]) -> Result<Tensor> {
        let (n, values) = (images.len(), self.channels * self.image_size * self.image_size);
        if let Some(image) = images.iter().find(|image| image.len() != values) {
            let (channels, size) = (self.channels, self.image_size);
            return Err(Error::new(format!("{} values are no image of {channels} x {size} x {size}", image.len()))
                .hint("preprocessor_config.json and config.json disagree"));
        }
        let (tokens, hidden) = (self.tokens(), self.encoder.config().hidden);
        let width = self.channels * self.patch_size * self.patch_size;
        let patches = tensor(self.patch_rows(images), (n * (tokens - 1), width))?.to_device(&self.device)?;
        let patches = self.patches.forward(&patches)?;
        let embeddings = match self.backend {
            Backend::Plain => {
                let class = self.class.broadcast_as((n, 1, hidden))?;
                let patches = patches.reshape((n, tokens - 1, hidden))?;
                Tensor::cat(&[&class, &patches], 1)?.broadcast_add(&self.position)?.flatten_to(1)?
            }
            Backend::Fast | Backend::Bf16 => {
                let (patches, class) = (Slice::new(&patches)?, Slice::new(&self.class)?);
                let position = Slice::new(&self.position)?;
                let mut rows = vec![0.0; n * tokens * hidden];
                rows.par_chunks_mut(hidden).enumerate().for_each(|(k, row)| {
                    let (image, token) = (k / tokens, k % tokens);
                    let source = match token {
                        0 => &class[..],
                        _ => &patches[(image * (tokens - 1) + token - 1) * hidden..][..hidden],
                    };
                    let position = &position[token * hidden..][..hidden];
                    row.iter_mut().zip(source).zip(position).for_each(|((out, x), at)| *out = x + at);
                });
                tensor(rows, (n * tokens, hidden))?
            }
        };
        let tokens = Tokens { ids: Vec::new(), rows: Rows::new(vec![tokens; n], 0)? };
        let embeddings = self.pre_norm.normed(None, &embeddings, None)?.out;
        self.encoder.forward_pooled(&embeddings, &tokens, Pooling::First)
    }

    /// One row a patch, `[images * grid * grid, channels * patch * patch]`, so that one matmul embeds all. Pixels
    /// beyond the last whole patch are ignored, as in a convolution.
    fn patch_rows(&self, images: &[Vec<f32>]) -> Vec<f32> {
        let (size, patch, grid) = (self.image_size, self.patch_size, self.image_size / self.patch_size);
        let width = self.channels * patch * patch;
        let mut rows = vec![0.0; images.len() * grid * grid * width];
        rows.par_chunks_mut(grid * width).enumerate().for_each(|(k, band)| {
            let (image, top) = (&images[k / grid], k % grid * patch);
            for (line, at) in (0..self.channels * patch).zip((0..).step_by(patch)) {
                let start = (line / patch * size + top + line % patch) * size;
                let pieces = image[start..start + grid * patch].chunks_exact(patch);
                band.chunks_exact_mut(width)
                    .zip(pieces)
                    .for_each(|(row, piece)| row[at..at + patch].copy_from_slice(piece));
            }
        });
        rows
    }

    /// Splits a tensor `[n, channels, size, size]` into its images.
    fn images(&self, pixels: &Tensor) -> Result<Vec<Vec<f32>>> {
        Ok(pixels.flatten_from(1)?.to_vec2()?)
    }

    /// Image vectors in the shared space `[batch, projection_dim]`, not normalised, of images `[channels, size, size]`.
    pub fn embed(&self, images: &[Vec<f32>]) -> Result<Tensor> {
        Ok(self.pooled(images)?.matmul(&self.visual_projection.t()?)?)
    }
}

impl Module for ClipVision {
    /// [`ClipVision::embed`] of `[n, channels, size, size]`.
    fn forward(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.embed(&self.images(pixels)?)?)
    }
}

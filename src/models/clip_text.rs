//! CLIP's text tower: the teacher.

use std::path::Path;

use candle_core::{Device, Module, Tensor};

use super::clip::{ClipConfig, find_tower, leftover};
use super::encoder::{Encoder, Tape};
use super::kinds::EndOfText;
use super::load;
use super::weights::{Leftover, Weights};
use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::nn::embedding::{self, Lookup};
use crate::nn::{Backend, Batch, Embedding, Gradients, Params, Pooling, Tokens};

/// Maps packed token ids to the target of the distillation, and that into the space shared with images.
pub struct ClipText {
    backend: Backend,
    token: Embedding,
    position: Embedding,
    encoder: Encoder,
    text_projection: Tensor, // [projection_dim, hidden]
    projection_dim: usize,
    params: Params,
    /// The end-of-text token; `None`: the token with the largest id in a text.
    end: Option<u32>,
    max_tokens: usize,
}

/// The frozen projection from the latent into the shared space, `[projection_dim, hidden]`, of the CLIP in `folder`;
/// nothing else of it is read.
pub fn text_projection(folder: &Path, device: &Device) -> Result<Tensor> {
    let config = ClipConfig::from_folder(folder)?;
    let mut weights = Weights::open(folder, device)?;
    let shape = (config.projection_dim, config.text()?.hidden_size);
    let outer = find_tower(&mut weights, TOKENS)?;
    let projection = load::constant(shape, "text_projection.weight", &weights.below(&outer))?;
    weights.finish(|_| Leftover::Nothing)?;
    Ok(projection)
}

/// The last part of the token table's name, by which the tower is found among the names of a file.
const TOKENS: &str = "embeddings.token_embedding.weight";

impl ClipText {
    /// Loads the text tower of the CLIP in `folder`, frozen: it has no backward pass and lists no parameters.
    pub fn load(folder: &Path, compute: &Compute) -> Result<Self> {
        Self::build(folder, compute, Params::frozen(compute.backend))
    }

    /// [`Self::load`] with parameters and a backward pass.
    #[doc(hidden)]
    pub fn load_trainable(folder: &Path, compute: &Compute) -> Result<Self> {
        Self::build(folder, compute, Params::new(compute.backend))
    }

    fn build(folder: &Path, compute: &Compute, mut params: Params) -> Result<Self> {
        let config = ClipConfig::from_folder(folder)?;
        let text = config.text()?;
        let hidden = text.hidden_size;
        let mut weights = Weights::open(folder, &compute.device)?;
        let outer = find_tower(&mut weights, TOKENS)?;
        let backend = compute.backend;
        let vb = weights.model();
        let tables = vb.pp("embeddings");
        let token = load::embedding(text.vocab_size, hidden, tables.pp("token_embedding"), &mut params)?;
        let positions = text.max_position_embeddings;
        let position = load::embedding(positions, hidden, tables.pp("position_embedding"), &mut params)?;
        let (names, norm) = (config.kind.names, Some("final_layer_norm"));
        let encoder = Encoder::load(config.text_encoder()?, names, norm, &vb, &mut params)?;
        let shape = (config.projection_dim, hidden);
        let text_projection = load::constant(shape, "text_projection.weight", &weights.below(&outer))?;
        weights.finish(|name| leftover(&outer, weights.prefix(), name))?;
        let end = match (config.kind.end_of_text, text.eos_token_id) {
            (EndOfText::OfClip, 2) => None,
            (_, id) => Some(id),
        };
        Ok(Self {
            backend,
            token,
            position,
            encoder,
            text_projection,
            projection_dim: config.projection_dim,
            params,
            end,
            max_tokens: positions,
        })
    }

    /// The parameters of the tower (without the projection), in order, if it was loaded with them.
    #[doc(hidden)]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Width of [`Self::pooled`], the distillation target.
    #[doc(hidden)]
    pub fn hidden(&self) -> usize {
        self.encoder.config().hidden
    }

    /// Width of the shared space.
    pub fn projection_dim(&self) -> usize {
        self.projection_dim
    }

    /// The most tokens of a caption, the start and end tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Cuts a tokenized caption after its first end-of-text token ([`EndOfText`] says which that is). Its state is the
    /// caption's vector, which later tokens do not change: attention is causal.
    pub fn cut(&self, ids: &mut Vec<u32>) -> Result<()> {
        let end = self.end.or_else(|| ids.iter().copied().max());
        let found = ids.iter().position(|id| Some(*id) == end).ok_or_else(|| {
            Error::new(format!("a tokenized caption lacks the end-of-text token {}", end.unwrap_or_default()))
                .hint("the teacher's tokenizer and config.json do not belong together")
        })?;
        ids.truncate(found + 1);
        Ok(())
    }

    /// The state at the end-of-text token after the final norm, `[batch, hidden]`: transformers'
    /// `CLIPTextModel(...).pooler_output`. Sequences are as [`Self::cut`] leaves them.
    pub fn pooled(&self, tokens: &Tokens, tape: Option<&mut Tape>) -> Result<Tensor> {
        let positions = tokens.positions();
        let embeddings = embedding::forward(&self.lookups(&tokens.ids, &positions), &tokens.rows)?;
        if tape.is_none() {
            return self.encoder.forward_pooled(&embeddings, tokens, Pooling::Last);
        }
        let states = self.encoder.forward(&embeddings, Batch::plain(tokens), tape)?;
        Pooling::Last.forward(self.backend, &tokens.rows, &states)
    }

    /// From the gradient of [`Self::pooled`]: adds to the gradients of the parameters.
    #[doc(hidden)]
    pub fn backward(&self, tokens: &Tokens, tape: Tape, dpooled: &Tensor, grads: &mut Gradients) -> Result<()> {
        let dstates = Pooling::Last.backward(self.backend, &tokens.rows, dpooled)?;
        match self.encoder.backward(tape, &dstates, Batch::plain(tokens), grads)? {
            Some(d) => embedding::backward(&self.lookups(&tokens.ids, &tokens.positions()), &tokens.rows, &d, grads),
            None => Ok(()),
        }
    }

    /// From the latent space `[batch, hidden]` into the shared space `[batch, projection_dim]`, not normalised.
    pub fn project(&self, pooled: &Tensor) -> Result<Tensor> {
        Ok(pooled.matmul(&self.text_projection.t()?)?)
    }

    fn lookups<'a>(&'a self, ids: &'a [u32], positions: &'a [u32]) -> [Lookup<'a>; 2] {
        [Lookup { embedding: &self.token, indices: ids }, Lookup { embedding: &self.position, indices: positions }]
    }
}

impl Module for ClipText {
    /// [`ClipText::pooled`] of ids `[n, length]` (u32). CLIP pads with its end-of-text token, so each row is cut after
    /// its first one.
    fn forward(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let mut sequences = ids.to_vec2::<u32>()?;
        sequences.iter_mut().try_for_each(|ids| self.cut(ids))?;
        Ok(self.pooled(&Tokens::pack(&sequences, 0)?, None)?)
    }
}

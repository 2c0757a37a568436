//! One layer of the encoder: attention and a feed-forward block, each followed by a fused "add to the stream, then
//! normalise".
//!
//! The *stream* is what runs around the branches: the sum itself in CLIP (norms come first), the normalised sum in
//! BERT.

use candle_core::Tensor;

use super::load::{layer_norm, linear, linear_of};
use super::weights::names::LayerPaths;
use crate::error::Result;
use crate::nn::attention::{Attended, Attention};
use crate::nn::layer_norm::Normed;
use crate::nn::{Activate, Activation, Batch, FrozenLinear, Gradients, LayerNorm, Linear, Params, Site, Tokens};

/// The settings in which towers differ.
#[derive(Clone, Copy, Debug)]
pub struct EncoderConfig {
    /// How many layers.
    pub layers: usize,
    /// Width of the states, of which each head has `hidden / heads`.
    pub hidden: usize,
    /// Width of the embeddings; where it is not `hidden`, a linear layer follows the first norm (ELECTRA).
    pub embedding: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// Width between the two linear layers of a feed-forward block.
    pub intermediate: usize,
    /// The activation between them.
    pub activation: Activation,
    /// Whether norms come before the branches of a layer (CLIP) or after them (BERT).
    pub norm_first: bool,
    /// Whether a token attends to itself and earlier tokens only.
    pub causal: bool,
    /// Added to the variance in layer norms.
    pub eps: f64,
}

/// A layer that can be trained.
pub(super) struct Layer {
    qkv: Linear, // [3 hidden, hidden]
    attention: Attention,
    out: Linear,
    norm_attention: LayerNorm,
    up: Linear,
    activation: Activate,
    down: Linear,
    norm_mlp: LayerNorm,
    norm_first: bool,
    /// Its index, which its dropout masks depend on.
    index: usize,
}

/// A layer for forward passes alone.
pub(super) struct FrozenLayer {
    qkv: FrozenLinear,
    attention: Attention,
    out: FrozenLinear,
    norm_attention: LayerNorm,
    up: FrozenLinear,
    activation: Activate,
    down: FrozenLinear,
    norm_mlp: LayerNorm,
    norm_first: bool,
}

/// What a layer's forward pass keeps for its backward pass.
pub(super) struct SavedLayer {
    input: Tensor, // [tokens, hidden]
    qkv: Tensor,   // [tokens, 3 hidden]
    attended: Attended,
    norm_attention: Normed,
    z: Tensor, // [tokens, intermediate], before the activation
    norm_mlp: Normed,
}

/// The stream after a norm.
fn stream(norm_first: bool, normed: &Normed) -> Tensor {
    if norm_first { normed.sum.clone() } else { normed.out.clone() }
}

impl Layer {
    /// Loads layer `index` from where `paths` say.
    pub(super) fn load(config: &EncoderConfig, index: usize, paths: LayerPaths, params: &mut Params) -> Result<Self> {
        let EncoderConfig { hidden, heads, intermediate, activation, norm_first, causal, eps, .. } = *config;
        let backend = params.backend();
        Ok(Self {
            qkv: linear_of(hidden, hidden, &paths.qkv, params)?,
            attention: Attention::new(hidden, heads, causal, index, backend)?,
            out: linear(hidden, hidden, paths.out, params)?,
            norm_attention: layer_norm(hidden, eps, paths.norm_attention, params)?,
            up: linear(hidden, intermediate, paths.up, params)?,
            activation: Activate { function: activation, backend },
            down: linear(intermediate, hidden, paths.down, params)?,
            norm_mlp: layer_norm(hidden, eps, paths.norm_mlp, params)?,
            norm_first,
            index,
        })
    }

    /// The same layer, never to be trained.
    pub(super) fn freeze(self) -> Result<FrozenLayer> {
        let Self { attention, norm_attention, activation, norm_mlp, norm_first, .. } = self;
        let (qkv, out) = (self.qkv.freeze()?, self.out.freeze()?);
        let (up, down) = (self.up.freeze()?, self.down.freeze()?);
        Ok(FrozenLayer { qkv, attention, out, norm_attention, up, activation, down, norm_mlp, norm_first })
    }

    /// From the input `[tokens, hidden]` and the stream to those of the next layer; with `keeps`, also what
    /// [`Self::backward`] needs. With `single`, only these tokens are computed after the attention.
    pub(super) fn forward(
        &self, input: Tensor, mut stream: Tensor, batch: Batch, single: Option<&Tensor>, keeps: bool,
    ) -> Result<(Tensor, Tensor, Option<SavedLayer>)> {
        let layer = self.index;
        let qkv = self.qkv.forward(&input)?;
        let mut attended = self.attention.forward(&qkv, batch)?;
        if let Some(single) = single {
            attended.out = attended.out.index_select(single, 0)?;
            stream = stream.index_select(single, 0)?;
        }
        let branch = self.out.forward(&attended.out)?;
        let mask = batch.mask(Site::AttentionOutput { layer });
        let norm_attention = self.norm_attention.normed(Some(&stream), &branch, mask)?;
        let z = self.up.forward(&norm_attention.out)?;
        let kept = keeps.then(|| z.clone());
        let activated = if keeps { self.activation.forward(&z)? } else { self.activation.in_place(z)? };
        let branch = self.down.forward(&activated)?;
        drop(activated);
        stream = self::stream(self.norm_first, &norm_attention);
        let norm_mlp = self.norm_mlp.normed(Some(&stream), &branch, batch.mask(Site::MlpOutput { layer }))?;
        let (output, stream) = (norm_mlp.out.clone(), self::stream(self.norm_first, &norm_mlp));
        let saved = kept.map(|z| SavedLayer { input, qkv, attended, norm_attention, z, norm_mlp });
        Ok((output, stream, saved))
    }

    /// From the gradients of the output and, in CLIP, of the stream: adds to those of the parameters and returns those
    /// of the input and the stream.
    pub(super) fn backward(
        &self, saved: SavedLayer, doutput: Tensor, dstream: Option<Tensor>, batch: Batch, grads: &mut Gradients,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let layer = self.index;
        let (mask, normed) = (batch.mask(Site::MlpOutput { layer }), &saved.norm_mlp);
        let (dsum, dbranch) = self.norm_mlp.backward(normed, &doutput, dstream.as_ref(), mask, grads)?;
        let dactivated = self.down.backward_input(&dbranch, None)?;
        let (activated, dz) = self.activation.backward(&saved.z, &dactivated)?;
        self.down.backward_parameters(&activated, &dbranch, grads)?;
        drop((activated, dactivated));
        let normed = &saved.norm_attention;
        let dnormed = self.up.backward(&normed.out, &dz, self.residual(&dsum), grads)?;
        let dstream = self.norm_first.then_some(dsum);
        let mask = batch.mask(Site::AttentionOutput { layer });
        let (dsum, dbranch) = self.norm_attention.backward(normed, &dnormed, dstream.as_ref(), mask, grads)?;
        let dattended = self.out.backward(&saved.attended.out, &dbranch, None, grads)?;
        let dqkv = self.attention.backward(&saved.qkv, &saved.attended, &dattended, batch)?;
        let dinput = self.qkv.backward(&saved.input, &dqkv, self.residual(&dsum), grads)?;
        Ok((dinput, self.norm_first.then_some(dsum)))
    }

    /// The gradient that goes around a branch straight into its input: only where the stream is that input.
    fn residual<'a>(&self, dsum: &'a Tensor) -> Option<&'a Tensor> {
        (!self.norm_first).then_some(dsum)
    }
}

impl FrozenLayer {
    /// Whether [`Self::forward_bf16`] can be used.
    pub(super) fn has_bf16(&self) -> bool {
        self.qkv.has_halves() && self.up.has_halves()
    }

    /// From the norm before the layer to the norm after it.
    pub(super) fn forward(&self, before: Normed, tokens: &Tokens, single: Option<&Tensor>) -> Result<Normed> {
        let qkv = self.qkv.forward(&before.out)?;
        let attended = self.attention.forward(&qkv, Batch::plain(tokens))?.out;
        let (attended, residual) = chosen(attended, stream(self.norm_first, &before), single)?;
        let normed = self.norm_attention.normed(Some(&residual), &self.out.forward(&attended)?, None)?;
        let activated = self.activation.in_place(self.up.forward(&normed.out)?)?;
        self.norm_mlp.normed(Some(&stream(self.norm_first, &normed)), &self.down.forward(&activated)?, None)
    }

    /// [`Self::forward`] with bf16 tensors where the next matmul would round its input to bf16 anyway. The stream stays
    /// f32, and so does a norm's output that is the stream or, with `is_last`, the result.
    pub(super) fn forward_bf16(
        &self, before: Normed, tokens: &Tokens, single: Option<&Tensor>, is_last: bool,
    ) -> Result<Normed> {
        let normed = |norm: &LayerNorm, sum: &Tensor, is_result: bool| match self.norm_first && !is_result {
            true => norm.forward_halves(sum),
            false => norm.normed(None, sum, None),
        };
        let qkv = self.qkv.forward_halves(&before.out, None)?;
        let attended = self.attention.forward(&qkv, Batch::plain(tokens))?.out;
        let (attended, residual) = chosen(attended, stream(self.norm_first, &before), single)?;
        let normal = normed(&self.norm_attention, &self.out.forward_onto(&attended, &residual)?, false)?;
        let activated = self.up.forward_halves(&normal.out, Some(self.activation.function))?;
        let sum = self.down.forward_onto(&activated, &stream(self.norm_first, &normal))?;
        normed(&self.norm_mlp, &sum, is_last)
    }
}

/// The rows `single` of both, or all rows.
fn chosen(attended: Tensor, stream: Tensor, single: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
    match single {
        Some(single) => Ok((attended.index_select(single, 0)?, stream.index_select(single, 0)?)),
        None => Ok((attended, stream)),
    }
}

//! The transformer encoder that the student, both CLIP towers and the baseline are.
//!
//! A layer is two branches, attention and feed-forward, each followed by a fused "add to the stream, then normalise".
//! Whether the norm comes before or after a branch (CLIP, BERT) is then only a question of what the stream is: the
//! sum itself, or the normalised sum. The norm after the last branch of a pre-norm tower is its final norm.

use candle_core::Tensor;

use super::weights::{LayerNames, Weights};
use crate::error::{Error, Result, ResultExt};
use crate::nn::attention::{Attended, Attention};
use crate::nn::layer_norm::Normed;
use crate::nn::{Activation, Backend, Dropout, Gradients, LayerNorm, Linear, Params, Pooling, Rows, Site, on_pool};

const CONFIG: &str = "fetch the model's config.json again";

/// The settings in which towers differ.
#[derive(Clone, Copy, Debug)]
pub struct EncoderConfig {
    pub layers: usize,
    pub hidden: usize,
    /// Width of the embeddings; where it is not `hidden`, a linear layer follows the first norm (ELECTRA).
    pub embedding: usize,
    pub heads: usize,
    pub intermediate: usize,
    pub activation: Activation,
    /// CLIP's order (the stream is not normalised) instead of BERT's.
    pub norm_first: bool,
    /// A token sees itself and those before it only.
    pub causal: bool,
    /// Added to the variance in layer norms.
    pub eps: f64,
}

struct Layer {
    qkv: Linear, // [3 hidden, hidden]
    attention: Attention,
    out: Linear,
    norm_attention: LayerNorm,
    up: Linear,
    down: Linear,
    norm_mlp: LayerNorm,
}

impl Layer {
    fn freeze(self, backend: Backend) -> Result<Self> {
        let Self { qkv, out, up, down, .. } = self;
        let (qkv, out) = (qkv.freeze(backend)?, out.freeze(backend)?);
        Ok(Self { qkv, out, up: up.freeze(backend)?, down: down.freeze(backend)?, ..self })
    }
}

struct SavedLayer {
    input: Tensor,
    qkv: Tensor,
    attended: Attended,
    norm_attention: Normed,
    z: Tensor,
    norm_mlp: Normed,
}

/// What a training forward keeps for its backward.
#[derive(Default)]
pub struct Tape {
    frozen: Option<usize>,
    first: Option<Normed>,
    layers: Vec<SavedLayer>,
}

impl Tape {
    /// A tape on which the embeddings and the first `frozen` layers leave nothing: the backward ends above them.
    /// With none, it goes through to the embeddings.
    pub fn above(frozen: Option<usize>) -> Self {
        Self { frozen, ..Self::default() }
    }
}

/// A stack of layers on packed tokens.
pub struct Encoder {
    config: EncoderConfig,
    backend: Backend,
    first_norm: LayerNorm,
    /// `[hidden, embedding]`, of embeddings that are narrower than the states.
    widen: Option<Linear>,
    layers: Vec<Layer>,
}

impl Encoder {
    /// Takes the parameters from `weights` under the names given for each layer.
    pub fn load(
        config: EncoderConfig, backend: Backend, first_norm: &str, names: impl Iterator<Item = LayerNames>,
        weights: &mut Weights, params: &mut Params,
    ) -> Result<Self> {
        let EncoderConfig { hidden, embedding, intermediate, eps, .. } = config;
        if hidden == 0 || embedding == 0 || intermediate == 0 || !(eps.is_finite() && eps >= 0.0) {
            return Err(Error::new(format!(
                "an encoder cannot have a hidden size of {hidden}, an intermediate size of {intermediate} and an \
                 epsilon of {eps}"
            ))
            .hint(CONFIG));
        }
        let first_norm = weights.layer_norm(first_norm, embedding, eps, params)?;
        let mut widen = None;
        if embedding != hidden {
            let layer = weights.linear(&["embeddings_project"], hidden, embedding, true, params)?;
            widen = Some(if params.are_frozen() { layer.freeze(backend)? } else { layer });
        }
        let mut layers = Vec::new(); // (what config.json says of their number is not known to be true yet)
        for (index, names) in names.enumerate() {
            params.next_layer();
            let qkv: Vec<&str> = names.qkv.iter().map(String::as_str).collect();
            let layer = Layer {
                qkv: weights.linear(&qkv, hidden, hidden, true, params)?,
                attention: Attention::new(hidden, config.heads, config.causal, index).hint(|| CONFIG)?,
                out: weights.linear(&[&names.out], hidden, hidden, true, params)?,
                norm_attention: weights.layer_norm(&names.norm_attention, hidden, eps, params)?,
                up: weights.linear(&[&names.up], intermediate, hidden, true, params)?,
                down: weights.linear(&[&names.down], hidden, intermediate, true, params)?,
                norm_mlp: weights.layer_norm(&names.norm_mlp, hidden, eps, params)?,
            };
            layers.push(if params.are_frozen() { layer.freeze(backend)? } else { layer });
        }
        Ok(Self { config, backend, first_norm, widen, layers })
    }

    /// The settings.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Embeddings `[tokens, hidden]` to states `[tokens, hidden]`; with a `tape`, keeps what [`Self::backward`] needs.
    pub fn forward(
        &self, embeddings: &Tensor, rows: &Rows, dropout: Option<&Dropout>, tape: Option<&mut Tape>,
    ) -> Result<Tensor> {
        on_pool(|| self.run(embeddings, rows, dropout, tape, None))
    }

    /// The pooled states `[sequences, hidden]`, without dropout. Where one token makes the vector, what follows the last
    /// attention is computed for that token alone.
    pub fn forward_pooled(&self, embeddings: &Tensor, rows: &Rows, pooling: Pooling) -> Result<Tensor> {
        let single = if self.layers.is_empty() { None } else { pooling.single(rows, embeddings.device())? };
        let states = on_pool(|| self.run(embeddings, rows, None, None, single.as_ref()))?;
        if single.is_some() { Ok(states) } else { pooling.forward(self.backend, rows, &states) }
    }

    /// With `single`, the last layer goes on with these tokens only.
    fn run(
        &self, embeddings: &Tensor, rows: &Rows, dropout: Option<&Dropout>, mut tape: Option<&mut Tape>,
        single: Option<&Tensor>,
    ) -> Result<Tensor> {
        if tape.is_none() && dropout.is_none() && self.has_halves() {
            return self.run_in_halves(embeddings, rows, single);
        }
        let backend = self.backend;
        let mask = |site| dropout.and_then(|dropout| dropout.at(site, rows));
        let first = self.first_norm.forward(backend, None, embeddings, None)?;
        let mut input = match mask(Site::Embeddings) {
            Some(mask) => mask.apply(backend, &first.out)?,
            None => first.out.clone(),
        };
        if let Some(widen) = &self.widen {
            input = widen.forward(backend, &input)?;
        }
        let mut stream = if self.config.norm_first { first.sum.clone() } else { input.clone() };
        if let Some(tape) = tape.as_deref_mut() {
            tape.first = tape.frozen.is_none().then_some(first);
            tape.layers = Vec::with_capacity(self.layers.len());
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let qkv = layer.qkv.forward(backend, &input)?;
            let mut attended = layer.attention.forward(backend, &qkv, rows, dropout)?;
            if let Some(single) = single.filter(|_| index + 1 == self.layers.len()) {
                attended.out = attended.out.index_select(single, 0)?;
                stream = stream.index_select(single, 0)?;
            }
            let branch = layer.out.forward(backend, &attended.out)?;
            let masked = mask(Site::AttentionOutput { layer: index });
            let norm_attention = layer.norm_attention.forward(backend, Some(&stream), &branch, masked)?;
            stream = self.stream(&norm_attention);
            let z = layer.up.forward(backend, &norm_attention.out)?;
            let keeps = tape.as_ref().is_some_and(|tape| tape.frozen.is_none_or(|frozen| index >= frozen));
            let (activation, kept) = (self.config.activation, keeps.then(|| z.clone()));
            let activated = if keeps { activation.forward(backend, &z)? } else { activation.in_place(backend, z)? };
            let branch = layer.down.forward(backend, &activated)?;
            drop(activated);
            let masked = mask(Site::MlpOutput { layer: index });
            let norm_mlp = layer.norm_mlp.forward(backend, Some(&stream), &branch, masked)?;
            stream = self.stream(&norm_mlp);
            let output = norm_mlp.out.clone();
            if let (Some(tape), Some(z)) = (tape.as_deref_mut(), kept) {
                tape.layers.push(SavedLayer { input, qkv, attended, norm_attention, z, norm_mlp });
            }
            input = output;
        }
        Ok(input)
    }

    fn has_halves(&self) -> bool {
        let layers = !self.layers.is_empty();
        layers && self.layers.iter().all(|layer| layer.qkv.has_halves() && layer.up.has_halves())
    }

    /// [`Self::run`] of frozen layers without dropout, handing on in bf16 what a product would round to it anyway. The
    /// stream stays in f32, and a norm's output that is the stream, too.
    fn run_in_halves(&self, embeddings: &Tensor, rows: &Rows, single: Option<&Tensor>) -> Result<Tensor> {
        let (backend, norm_first) = (self.backend, self.config.norm_first);
        let normed = |norm: &LayerNorm, sum: &Tensor, is_result: bool| match norm_first && !is_result {
            true => norm.forward_halves(sum),
            false => norm.forward(backend, None, sum, None),
        };
        let mut normal = normed(&self.first_norm, embeddings, false)?;
        if let Some(widen) = &self.widen {
            normal.out = widen.forward(backend, &normal.out)?;
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let is_last = index + 1 == self.layers.len();
            let qkv = layer.qkv.forward_halves(&normal.out, None)?;
            let mut attended = layer.attention.forward(backend, &qkv, rows, None)?.out;
            let mut stream = self.stream(&normal);
            if let Some(single) = single.filter(|_| is_last) {
                (attended, stream) = (attended.index_select(single, 0)?, stream.index_select(single, 0)?);
            }
            normal = normed(&layer.norm_attention, &layer.out.forward_onto(&attended, &stream)?, false)?;
            let activated = layer.up.forward_halves(&normal.out, Some(self.config.activation))?;
            let sum = layer.down.forward_onto(&activated, &self.stream(&normal))?;
            normal = normed(&layer.norm_mlp, &sum, is_last)?;
        }
        Ok(normal.out)
    }

    /// From the gradient of the states: adds to the gradients of all trained parameters and returns the gradient of
    /// the embeddings, if they are trained. `tape`, `rows` and `dropout` are those of the forward pass; the tape is
    /// used up layer by layer.
    pub fn backward(
        &self, tape: Tape, dstates: &Tensor, rows: &Rows, dropout: Option<&Dropout>, grads: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let backend = self.backend;
        let mask = |site| dropout.and_then(|dropout| dropout.at(site, rows));
        let mut dinput = dstates.clone();
        let mut dstream: Option<Tensor> = None;
        for ((index, layer), saved) in self.layers.iter().enumerate().rev().zip(tape.layers.into_iter().rev()) {
            let (masked, normed) = (mask(Site::MlpOutput { layer: index }), &saved.norm_mlp);
            let (dsum, dbranch) = layer.norm_mlp.backward(backend, normed, &dinput, dstream.as_ref(), masked, grads)?;
            let dactivated = layer.down.backward_input(backend, &dbranch, None)?;
            let (activated, dz) = self.config.activation.backward(backend, &saved.z, &dactivated)?;
            layer.down.backward_parameters(backend, &activated, &dbranch, grads)?;
            drop((activated, dactivated));
            let normed = &saved.norm_attention;
            dinput = layer.up.backward(backend, &normed.out, &dz, self.residual(&dsum), grads)?;
            dstream = self.config.norm_first.then_some(dsum);
            let masked = mask(Site::AttentionOutput { layer: index });
            let (dsum, dbranch) =
                layer.norm_attention.backward(backend, normed, &dinput, dstream.as_ref(), masked, grads)?;
            let dattended = layer.out.backward(backend, &saved.attended.out, &dbranch, None, grads)?;
            let dqkv = layer.attention.backward(backend, &saved.qkv, &saved.attended, &dattended, rows, dropout)?;
            dinput = layer.qkv.backward(backend, &saved.input, &dqkv, self.residual(&dsum), grads)?;
            dstream = self.config.norm_first.then_some(dsum);
        }
        match &tape.first {
            Some(first) => {
                let masked = |x: &Tensor| match mask(Site::Embeddings) {
                    Some(mask) => mask.apply(backend, x),
                    None => Ok(x.clone()),
                };
                if let Some(widen) = &self.widen {
                    dinput = widen.backward(backend, &masked(&first.out)?, &dinput, None, grads)?;
                }
                let dfirst = masked(&dinput)?;
                let (dsum, _) = self.first_norm.backward(backend, first, &dfirst, dstream.as_ref(), None, grads)?;
                Ok(Some(dsum))
            }
            None if tape.frozen.is_some() => Ok(None),
            None => Err(Error::new("backward without a recorded forward pass")),
        }
    }

    fn stream(&self, normed: &Normed) -> Tensor {
        if self.config.norm_first { normed.sum.clone() } else { normed.out.clone() }
    }

    /// The gradient that goes around a branch straight into its input: only where the stream is that input.
    fn residual<'a>(&self, dsum: &'a Tensor) -> Option<&'a Tensor> {
        (!self.config.norm_first).then_some(dsum)
    }
}

//! The transformer encoder of the student, both CLIP towers and the baseline.
//!
//! A layer is two branches, attention and feed-forward, each followed by a fused "add to the stream, then normalise".
//! Whether the norm comes before or after a branch (CLIP, BERT) is then only a question of what the stream is: the
//! sum itself, or the normalised sum. The norm after the last branch of a pre-norm tower is its final norm.

use candle_core::Tensor;
use candle_nn::VarBuilder;

use super::kinds::Names;
use super::layer::{EncoderConfig, FrozenLayer, Layer, SavedLayer};
use super::load::{layer_norm, linear};
use super::weights::names;
use crate::error::{Error, Result, ResultExt};
use crate::nn::layer_norm::Normed;
use crate::nn::{Backend, Batch, FrozenLinear, Gradients, LayerNorm, Linear, Params, Pooling, Site, Tokens, on_pool};

const CONFIG_HINT: &str = "fetch the model's config.json again";

/// What a forward pass in training records for the backward pass.
#[derive(Default)]
pub struct Tape {
    frozen: Option<usize>,
    first: Option<Normed>,
    layers: Vec<SavedLayer>,
}

impl Tape {
    /// A tape that does not record the embeddings and the first `frozen` layers: the backward pass ends above them.
    /// With `None` it records everything.
    pub fn above(frozen: Option<usize>) -> Self {
        Self { frozen, ..Self::default() }
    }
}

/// A stack of layers on packed tokens.
pub struct Encoder {
    config: EncoderConfig,
    backend: Backend,
    first_norm: LayerNorm,
    layers: Layers,
}

enum Layers {
    Trained(Stack<Linear, Layer>),
    Frozen(Stack<FrozenLinear, FrozenLayer>),
}

/// The layers, and before them the linear layer `[hidden, embedding]` of embeddings that are narrower than the states.
struct Stack<W, L> {
    widen: Option<W>,
    layers: Vec<L>,
}

impl Encoder {
    /// Loads the encoder at `vb`; trained unless `params` are frozen. In CLIP, `final_norm` is the norm after the last
    /// layer.
    pub fn load(
        config: EncoderConfig, names: Names, final_norm: Option<&str>, vb: &VarBuilder, params: &mut Params,
    ) -> Result<Self> {
        let EncoderConfig { layers: count, hidden, embedding, intermediate, eps, .. } = config;
        if hidden == 0 || embedding == 0 || intermediate == 0 || !(eps.is_finite() && eps >= 0.0) {
            return Err(Error::new(format!(
                "an encoder cannot have a hidden size of {hidden}, an intermediate size of {intermediate} and an \
                 epsilon of {eps}"
            ))
            .hint(CONFIG_HINT));
        }
        let backend = params.backend();
        let first_norm = layer_norm(embedding, eps, names::first_norm(names, vb), params)?;
        let widen = match embedding == hidden {
            true => None,
            false => Some(linear(embedding, hidden, vb.pp("embeddings_project"), params)?),
        };
        // config.json may claim any number of layers, so no memory is reserved for them.
        let (mut trained, mut frozen) = (Vec::new(), Vec::new());
        for index in 0..count {
            let mut paths = names::layer(names, vb, index);
            if let Some(norm) = final_norm.filter(|_| index + 1 == count) {
                paths.norm_mlp = vb.pp(norm);
            }
            params.next_layer();
            let layer = Layer::load(&config, index, paths, params).hint(|| CONFIG_HINT)?;
            if params.are_frozen() { frozen.push(layer.freeze()?) } else { trained.push(layer) }
        }
        let layers = match params.are_frozen() {
            true => Layers::Frozen(Stack { widen: widen.map(Linear::freeze).transpose()?, layers: frozen }),
            false => Layers::Trained(Stack { widen, layers: trained }),
        };
        Ok(Self { config, backend, first_norm, layers })
    }

    /// The settings.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Embeddings `[tokens, embedding]` to states `[tokens, hidden]`; a `tape` records what [`Self::backward`] needs.
    pub fn forward(&self, embeddings: &Tensor, batch: Batch, tape: Option<&mut Tape>) -> Result<Tensor> {
        on_pool(|| self.run(embeddings, batch, tape, None))
    }

    /// The pooled states `[sequences, hidden]`, without dropout. Where pooling takes one token's state, everything
    /// after the last attention is computed for that token only.
    pub fn forward_pooled(&self, embeddings: &Tensor, tokens: &Tokens, pooling: Pooling) -> Result<Tensor> {
        let layers = match &self.layers {
            Layers::Trained(stack) => stack.layers.len(),
            Layers::Frozen(stack) => stack.layers.len(),
        };
        let single = if layers == 0 { None } else { pooling.single(&tokens.rows, embeddings.device())? };
        let states = on_pool(|| self.run(embeddings, Batch::plain(tokens), None, single.as_ref()))?;
        if single.is_some() { Ok(states) } else { pooling.forward(self.backend, &tokens.rows, &states) }
    }

    /// With `single`, the last layer computes only these tokens after its attention.
    fn run(
        &self, embeddings: &Tensor, batch: Batch, tape: Option<&mut Tape>, single: Option<&Tensor>,
    ) -> Result<Tensor> {
        match &self.layers {
            Layers::Trained(stack) => self.run_trained(stack, embeddings, batch, tape, single),
            Layers::Frozen(stack) if batch.dropout.is_none() && tape.is_none() => {
                self.run_frozen(stack, embeddings, batch.tokens, single)
            }
            Layers::Frozen(..) => Err(Error::new("a frozen encoder takes no dropout and records nothing")),
        }
    }

    fn run_trained(
        &self, stack: &Stack<Linear, Layer>, embeddings: &Tensor, batch: Batch, mut tape: Option<&mut Tape>,
        single: Option<&Tensor>,
    ) -> Result<Tensor> {
        let Stack { widen, layers } = stack;
        let first = self.first_norm.normed(None, embeddings, None)?;
        let mut input = match batch.mask(Site::Embeddings) {
            Some(mask) => mask.apply(&first.out)?,
            None => first.out.clone(),
        };
        if let Some(widen) = widen {
            input = widen.forward(&input)?;
        }
        let mut stream = if self.config.norm_first { first.sum.clone() } else { input.clone() };
        if let Some(tape) = tape.as_deref_mut() {
            tape.first = tape.frozen.is_none().then_some(first);
            tape.layers = Vec::with_capacity(layers.len());
        }
        for (index, layer) in layers.iter().enumerate() {
            let single = single.filter(|_| index + 1 == layers.len());
            let keeps = tape.as_ref().is_some_and(|tape| tape.frozen.is_none_or(|frozen| index >= frozen));
            let saved;
            (input, stream, saved) = layer.forward(input, stream, batch, single, keeps)?;
            if let (Some(tape), Some(saved)) = (tape.as_deref_mut(), saved) {
                tape.layers.push(saved);
            }
        }
        Ok(input)
    }

    fn run_frozen(
        &self, stack: &Stack<FrozenLinear, FrozenLayer>, embeddings: &Tensor, tokens: &Tokens, single: Option<&Tensor>,
    ) -> Result<Tensor> {
        let Stack { widen, layers } = stack;
        let bf16 = !layers.is_empty() && layers.iter().all(FrozenLayer::has_bf16);
        let mut normal = match bf16 && self.config.norm_first {
            true => self.first_norm.forward_halves(embeddings)?,
            false => self.first_norm.normed(None, embeddings, None)?,
        };
        if let Some(widen) = widen {
            normal.out = widen.forward(&normal.out)?;
        }
        for (index, layer) in layers.iter().enumerate() {
            let is_last = index + 1 == layers.len();
            let single = single.filter(|_| is_last);
            normal = match bf16 {
                true => layer.forward_bf16(normal, tokens, single, is_last)?,
                false => layer.forward(normal, tokens, single)?,
            };
        }
        Ok(normal.out)
    }

    /// From the gradient of the states: adds to the gradients of all trained parameters and returns the gradient of
    /// the embeddings, if they are trained. `batch` is that of the forward pass; the tape is freed layer by layer.
    pub fn backward(
        &self, tape: Tape, dstates: &Tensor, batch: Batch, grads: &mut Gradients,
    ) -> Result<Option<Tensor>> {
        let Layers::Trained(Stack { widen, layers }) = &self.layers else {
            return Err(Error::new("a frozen encoder has no backward pass"));
        };
        let mut dinput = dstates.clone();
        let mut dstream: Option<Tensor> = None;
        for (layer, saved) in layers.iter().rev().zip(tape.layers.into_iter().rev()) {
            (dinput, dstream) = layer.backward(saved, dinput, dstream, batch, grads)?;
        }
        let Some(first) = &tape.first else {
            return match tape.frozen {
                Some(_) => Ok(None),
                None => Err(Error::new("backward without a recorded forward pass")),
            };
        };
        let masked = |x: &Tensor| match batch.mask(Site::Embeddings) {
            Some(mask) => mask.apply(x),
            None => Ok(x.clone()),
        };
        if let Some(widen) = widen {
            dinput = widen.backward(&masked(&first.out)?, &dinput, None, grads)?;
        }
        let (dsum, _) = self.first_norm.backward(first, &masked(&dinput)?, dstream.as_ref(), None, grads)?;
        Ok(Some(dsum))
    }
}

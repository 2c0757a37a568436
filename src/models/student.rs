//! The student: a BERT, pooling, and a projection to the teacher's text width; on request with a bias and a final norm.

use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::bert::{Bert, BertConfig};
use super::encoder::Tape;
use super::weights::{Weights, read_json, save};
use crate::error::{Error, Result, ResultExt};
use crate::nn::layer_norm::Normed;
use crate::nn::{Backend, Compute, Dropout, Gradients, Init, LayerNorm, Linear, Params, Pooling, Tokens};
use crate::rng;

/// What a themo checkpoint adds to the BERT's own `config.json`, in `themo.json`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Which tokens make the sentence.
    pub pooling: Pooling,
    /// Width of the output: the teacher's text hidden size.
    pub dim: usize,
    /// Whether the projection has a bias (zero in a new student).
    #[serde(default)]
    pub projection_bias: bool,
    /// Whether a layer norm (eps 1e-5, as torch's) follows the projection.
    #[serde(default)]
    pub final_norm: bool,
    /// How a new projection is drawn.
    #[serde(skip)]
    pub init: Init,
}

impl Head {
    /// The original's: no bias, no final norm.
    pub fn new(pooling: Pooling, dim: usize) -> Self {
        Self { pooling, dim, projection_bias: false, final_norm: false, init: Init::Clip }
    }

    /// Refuses a head that is not the one `found` in the checkpoint `folder`.
    fn expect(self, found: Self, folder: &Path) -> Result<()> {
        let folder = folder.display();
        if found.dim != self.dim {
            return Err(Error::new(format!(
                "the student in {folder} projects to {} dimensions, the teacher's text width is {}",
                found.dim, self.dim
            ))
            .hint("choose the teacher that this student was trained on"));
        }
        let name = |pooling: Pooling| format!("{pooling:?}").to_lowercase();
        if found.pooling != self.pooling {
            return Err(Error::new(format!(
                "the student in {folder} was trained with {} pooling, this run asks for {}",
                name(found.pooling),
                name(self.pooling)
            ))
            .hint(format!("add --pooling {}", name(found.pooling))));
        }
        for (what, flag, found, asked) in [
            ("projection bias", "--projection-bias", found.projection_bias, self.projection_bias),
            ("final norm", "--final-norm", found.final_norm, self.final_norm),
        ] {
            let with = |has: bool| if has { "with" } else { "without" };
            if found != asked {
                let what = format!(
                    "the student in {folder} was trained {} a {what}, this run asks for one {} it",
                    with(found),
                    with(asked)
                );
                let hint = if found { format!("add {flag}") } else { format!("leave {flag} out") };
                return Err(Error::new(what).hint(hint));
            }
        }
        Ok(())
    }
}

/// Name of the file that makes a folder a themo checkpoint.
pub const HEAD_FILE: &str = "themo.json";

/// The name of the projection in checkpoints of either Themo.
const PROJECTION: &str = "projection.weight";
const PROJECTION_BIAS: &str = "projection.bias";

/// Spanish sentences to vectors `[batch, dim]` in the teacher's text latent space (before its projection).
pub struct Student {
    bert: Bert,
    head: Head,
    projection: Linear,
    norm: Option<LayerNorm>,
    backend: Backend,
    device: Device,
    params: Params,
    frozen: Option<usize>,
}

/// What a training forward keeps.
pub struct StudentTape {
    tape: Tape,
    pooled: Tensor,
    normed: Option<Normed>,
}

impl Student {
    /// A student from a BERT folder, its projection drawn with `seed`, or as it stands in a themo checkpoint folder
    /// (with the same head, else an error).
    pub fn load(folder: &Path, head: Head, seed: u64, compute: &Compute) -> Result<Self> {
        let trained = folder.join(HEAD_FILE).exists();
        if trained {
            head.expect(read_json(&folder.join(HEAD_FILE))?, folder)?;
        }
        let weights = Weights::open(folder, &compute.device)?;
        Self::build(folder, weights, head, trained, seed, compute, Params::default())
    }

    /// A trained student as its checkpoint folder describes it, frozen: it has no backward pass and lists no parameters.
    pub fn from_checkpoint(folder: &Path, compute: &Compute) -> Result<Self> {
        let (weights, head) = (Weights::open(folder, &compute.device)?, read_json(&folder.join(HEAD_FILE))?);
        Self::build(folder, weights, head, true, 0, compute, Params::frozen())
    }

    /// A student from a checkpoint of the Python Themo (a file of PyTorch Lightning, with `transformer.*` and
    /// `projection.weight` in its state dict) whose BERT has the configuration in the folder `bert`; frozen, too.
    pub fn from_lightning(file: &Path, bert: &Path, pooling: Pooling, compute: &Compute) -> Result<Self> {
        let weights = Weights::open(file, &compute.device)?;
        let Some(&[dim, _]) = weights.shape(PROJECTION) else {
            return Err(Error::new(format!("{} has no {PROJECTION}", file.display()))
                .hint("this is no checkpoint of Themo; a BERT or a run of themo is given as a folder"));
        };
        let head = Head { projection_bias: weights.shape(PROJECTION_BIAS).is_some(), ..Head::new(pooling, dim) };
        Self::build(bert, weights, head, true, 0, compute, Params::frozen())
    }

    fn build(
        folder: &Path, mut weights: Weights, head: Head, trained: bool, seed: u64, compute: &Compute,
        mut params: Params,
    ) -> Result<Self> {
        let config: BertConfig = read_json(&folder.join("config.json"))?;
        let hidden = config.hidden_size;
        let prefixes: &[&str] = if trained { &["transformer."] } else { &["", "bert.", "transformer."] };
        weights.find_prefix(prefixes, "embeddings.word_embeddings.weight");
        let bert = Bert::load(config, compute, &mut weights, &mut params)
            .context(|| format!("cannot load the student from {}", folder.display()))?;
        let mut take = |name: &str, shape: &[usize], wanted: bool| match trained && wanted {
            true => weights.take_whole(name, shape).map(Some),
            false => Ok(None),
        };
        let (matrix, vector) = ([head.dim, hidden], [head.dim]);
        let weight = take(PROJECTION, &matrix, true)?;
        let bias = take(PROJECTION_BIAS, &vector, head.projection_bias)?;
        let scale = take("final_norm.weight", &vector, head.final_norm)?;
        let shift = take("final_norm.bias", &vector, head.final_norm)?;
        // A BERT's pooler, its language-model heads and old versions' position ids are no part of a student.
        weights.finish(|n| ["pooler.", "cls.", "position_ids"].iter().any(|part| n.contains(part)))?;
        params.next_layer();
        let mut add = |name: &str, shape: &[usize], taken: Option<Tensor>, new: &dyn Fn() -> Vec<f32>| {
            let value = taken.map_or_else(|| Ok(Tensor::from_vec(new(), shape, &compute.device)?), Ok::<_, Error>)?;
            params.add(vec![name.into()], &value)
        };
        let (zeros, ones) = (|| vec![0.0; head.dim], || vec![1.0; head.dim]);
        let draw = || head.init.draw(head.dim, hidden, rng::mix(0x7072_6f6a, seed));
        let weight = add(PROJECTION, &matrix, weight, &draw)?;
        let bias = match head.projection_bias {
            true => Some(add(PROJECTION_BIAS, &vector, bias, &zeros)?),
            false => None,
        };
        let norm = match head.final_norm {
            true => Some(LayerNorm {
                weight: add("final_norm.weight", &vector, scale, &ones)?,
                bias: add("final_norm.bias", &vector, shift, &zeros)?,
                eps: 1e-5,
            }),
            false => None,
        };
        let projection = Linear::new(weight, bias);
        let (backend, device) = (compute.backend, compute.device.clone());
        Ok(Self { bert, head, projection, norm, backend, device, params, frozen: None })
    }

    /// Freezes the embeddings and the first `layers` layers (0: the embeddings alone): they get no gradient and no
    /// update, and the backward ends above them. None trains everything.
    pub fn freeze(&mut self, layers: Option<usize>) -> Result<()> {
        let most = self.bert.config.num_hidden_layers;
        if let Some(layers) = layers.filter(|layers| *layers > most) {
            return Err(Error::usage(format!("--freeze-layers {layers} is more than the student's {most} layers"))
                .hint(format!("use at most {most}")));
        }
        self.params.freeze(layers);
        self.frozen = layers;
        Ok(())
    }

    /// The parameters, in order.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Settings of the BERT inside.
    pub fn config(&self) -> &BertConfig {
        &self.bert.config
    }

    /// Width of the output.
    pub fn dim(&self) -> usize {
        self.head.dim
    }

    /// Which operations it uses.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Where the student lives.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Pooled states `[batch, hidden]`, without dropout.
    pub fn pooled(&self, tokens: &Tokens) -> Result<Tensor> {
        self.bert.pooled(tokens, self.head.pooling)
    }

    /// Sentence vectors `[batch, dim]`, without dropout.
    pub fn embed(&self, tokens: &Tokens) -> Result<Tensor> {
        Ok(self.project(&self.pooled(tokens)?)?.0)
    }

    /// Sentence vectors of a training step that will not be followed by [`Self::backward`].
    pub fn forward(&self, tokens: &Tokens, dropout: Option<&Dropout>) -> Result<Tensor> {
        let states = self.bert.forward(tokens, dropout, None)?;
        Ok(self.project(&self.head.pooling.forward(self.backend, &tokens.rows, &states)?)?.0)
    }

    /// Sentence vectors with what [`Self::backward`] needs.
    pub fn forward_train(&self, tokens: &Tokens, dropout: Option<&Dropout>) -> Result<(Tensor, StudentTape)> {
        let mut tape = Tape::above(self.frozen);
        let states = self.bert.forward(tokens, dropout, Some(&mut tape))?;
        let pooled = self.head.pooling.forward(self.backend, &tokens.rows, &states)?;
        let (output, normed) = self.project(&pooled)?;
        Ok((output, StudentTape { tape, pooled, normed }))
    }

    /// The output from the pooled states and, where there is one, the final norm's record.
    fn project(&self, pooled: &Tensor) -> Result<(Tensor, Option<Normed>)> {
        let projected = self.projection.forward(self.backend, pooled)?;
        match &self.norm {
            Some(norm) => {
                let normed = norm.forward(self.backend, None, &projected, None)?;
                Ok((normed.out.clone(), Some(normed)))
            }
            None => Ok((projected, None)),
        }
    }

    /// Adds to the gradients of all trained parameters from the gradient of the output `[batch, dim]`.
    pub fn backward(
        &self, tokens: &Tokens, saved: StudentTape, doutput: &Tensor, dropout: Option<&Dropout>, grads: &mut Gradients,
    ) -> Result<()> {
        let dprojected = match (&self.norm, &saved.normed) {
            (Some(norm), Some(normed)) => &norm.backward(self.backend, normed, doutput, None, None, grads)?.0,
            _ => doutput,
        };
        let dpooled = self.projection.backward(self.backend, &saved.pooled, dprojected, None, grads)?;
        let dstates = self.head.pooling.backward(self.backend, &tokens.rows, &dpooled)?;
        self.bert.backward(tokens, saved.tape, &dstates, dropout, grads)
    }

    /// Writes `model.safetensors` (names as in the original's checkpoints: `transformer.*`, `projection.*`, and
    /// `final_norm.*`) and `themo.json` into `folder`.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let rename = |name: &str| match name.split_once('.') {
            Some(("projection" | "final_norm", _)) => name.to_owned(),
            _ => format!("transformer.{name}"),
        };
        save(&self.params, rename, &folder.join("model.safetensors"))?;
        let path = folder.join(HEAD_FILE);
        let text = serde_json::to_string_pretty(&self.head)? + "\n";
        std::fs::write(&path, text).context(|| format!("cannot write {}", path.display()))
    }
}

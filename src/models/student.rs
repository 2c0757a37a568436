//! The student: a BERT, pooling, and a projection without bias to the teacher's text width.

use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::bert::{Bert, BertConfig};
use super::encoder::Tape;
use super::weights::{Weights, read_json, save};
use crate::error::{Error, Result, ResultExt};
use crate::nn::{Backend, Compute, Dropout, Gradients, Linear, Params, Pooling, Tokens};
use crate::rng;

/// What a themo checkpoint adds to the BERT's own `config.json`, in `themo.json`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Which tokens make the sentence.
    pub pooling: Pooling,
    /// Width of the output: the teacher's text hidden size.
    pub dim: usize,
}

/// Name of the file that makes a folder a themo checkpoint.
pub const HEAD_FILE: &str = "themo.json";

/// The name of the projection in checkpoints of either Themo.
const PROJECTION: &str = "projection.weight";

/// Spanish sentences to vectors `[batch, dim]` in the teacher's text latent space (before its projection).
pub struct Student {
    bert: Bert,
    head: Head,
    projection: Linear,
    backend: Backend,
    device: Device,
    params: Params,
}

/// What a training forward keeps.
pub struct StudentTape {
    tape: Tape,
    pooled: Tensor,
}

impl Student {
    /// A student from a BERT folder, its projection drawn N(0, hidden^-0.5) with `seed`, or as it stands in a themo
    /// checkpoint folder (the same pooling and width, else an error).
    pub fn load(folder: &Path, head: Head, seed: u64, compute: &Compute) -> Result<Self> {
        let trained = folder.join(HEAD_FILE).exists();
        if trained {
            let found: Head = read_json(&folder.join(HEAD_FILE))?;
            if found.dim != head.dim {
                return Err(Error::new(format!(
                    "the student in {} projects to {} dimensions, the teacher's text width is {}",
                    folder.display(),
                    found.dim,
                    head.dim
                ))
                .hint("choose the teacher that this student was trained on"));
            }
            if found.pooling != head.pooling {
                let name = |pooling: Pooling| format!("{pooling:?}").to_lowercase();
                return Err(Error::new(format!(
                    "the student in {} was trained with {} pooling, this run asks for {}",
                    folder.display(),
                    name(found.pooling),
                    name(head.pooling)
                ))
                .hint(format!("add --pooling {}", name(found.pooling))));
            }
        }
        Self::build(folder, head, trained, seed, compute)
    }

    /// A trained student as its checkpoint folder describes it.
    pub fn from_checkpoint(folder: &Path, compute: &Compute) -> Result<Self> {
        Self::build(folder, read_json(&folder.join(HEAD_FILE))?, true, 0, compute)
    }

    /// A student from a checkpoint of the Python Themo (a file of PyTorch Lightning, with `transformer.*` and
    /// `projection.weight` in its state dict) whose BERT has the configuration in the folder `bert`.
    pub fn from_lightning(file: &Path, bert: &Path, pooling: Pooling, compute: &Compute) -> Result<Self> {
        let weights = Weights::open(file, &compute.device)?;
        let Some(&[dim, _]) = weights.shape(PROJECTION) else {
            return Err(Error::new(format!("{} has no {PROJECTION}", file.display()))
                .hint("this is no checkpoint of Themo; a BERT or a run of themo is given as a folder"));
        };
        Self::fill(bert, weights, Head { pooling, dim }, true, 0, compute)
    }

    fn build(folder: &Path, head: Head, trained: bool, seed: u64, compute: &Compute) -> Result<Self> {
        Self::fill(folder, Weights::open(folder, &compute.device)?, head, trained, seed, compute)
    }

    fn fill(
        folder: &Path, mut weights: Weights, head: Head, trained: bool, seed: u64, compute: &Compute,
    ) -> Result<Self> {
        let config: BertConfig = read_json(&folder.join("config.json"))?;
        let hidden = config.hidden_size;
        let prefixes: &[&str] = if trained { &["transformer."] } else { &["", "bert.", "transformer."] };
        weights.find_prefix(prefixes, "embeddings.word_embeddings.weight");
        let mut params = Params::default();
        let bert = Bert::load(config, compute, &mut weights, &mut params)
            .context(|| format!("cannot load the student from {}", folder.display()))?;
        let trained = if trained { Some(weights.take_whole(PROJECTION, &[head.dim, hidden])?) } else { None };
        // A BERT's pooler, its language-model heads and old versions' position ids are no part of a student.
        weights.finish(|n| ["pooler.", "cls.", "position_ids"].iter().any(|part| n.contains(part)))?;
        let weight = match trained {
            Some(weight) => weight,
            None => {
                let scale = (hidden as f64).powf(-0.5);
                let key = rng::mix(0x7072_6f6a, seed);
                let draws = (0..(head.dim * hidden) as u64).map(|i| (rng::normal(key, i) * scale) as f32).collect();
                Tensor::from_vec(draws, (head.dim, hidden), &compute.device)?
            }
        };
        let projection = Linear { weight: params.add(vec![PROJECTION.into()], &weight)?, bias: None };
        Ok(Self { bert, head, projection, backend: compute.backend, device: compute.device.clone(), params })
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
        let states = self.bert.forward(tokens, None, None)?;
        self.head.pooling.forward(self.backend, &tokens.rows, &states)
    }

    /// Sentence vectors `[batch, dim]`, without dropout.
    pub fn embed(&self, tokens: &Tokens) -> Result<Tensor> {
        self.projection.forward(self.backend, &self.pooled(tokens)?)
    }

    /// Sentence vectors with what [`Self::backward`] needs.
    pub fn forward_train(&self, tokens: &Tokens, dropout: Option<&Dropout>) -> Result<(Tensor, StudentTape)> {
        let mut tape = Tape::default();
        let states = self.bert.forward(tokens, dropout, Some(&mut tape))?;
        let pooled = self.head.pooling.forward(self.backend, &tokens.rows, &states)?;
        let output = self.projection.forward(self.backend, &pooled)?;
        Ok((output, StudentTape { tape, pooled }))
    }

    /// Adds to the gradients of all parameters from the gradient of the output `[batch, dim]`.
    pub fn backward(
        &self, tokens: &Tokens, saved: StudentTape, doutput: &Tensor, dropout: Option<&Dropout>, grads: &mut Gradients,
    ) -> Result<()> {
        let dpooled = self.projection.backward(self.backend, &saved.pooled, doutput, None, grads)?;
        let dstates = self.head.pooling.backward(self.backend, &tokens.rows, &dpooled)?;
        self.bert.backward(tokens, saved.tape, &dstates, dropout, grads)
    }

    /// Writes `model.safetensors` (names as in the original's checkpoints: `transformer.*`, `projection.weight`) and
    /// `themo.json` into `folder`.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let rename = |name: &str| match name {
            PROJECTION => name.to_owned(),
            _ => format!("transformer.{name}"),
        };
        save(&self.params, rename, &folder.join("model.safetensors"))?;
        let path = folder.join(HEAD_FILE);
        let text = serde_json::to_string_pretty(&self.head)? + "\n";
        std::fs::write(&path, text).context(|| format!("cannot write {}", path.display()))
    }
}

//! The student: a BERT, pooling, and a projection to the teacher's text width; on request with a bias and a final norm.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bert::{Bert, BertConfig};
use super::encoder::Tape;
use super::folder::{read_json, weight_files};
use super::kinds::FirstPosition;
use super::weights::{Leftover, Weights, save, tensors};
use crate::compute::Compute;
use crate::error::{Error, Result, ResultExt};
use crate::nn::layer_norm::Normed;
use crate::nn::{Backend, Batch, Gradients, Init, LayerNorm, Linear, Params, Pooling, Tokens};
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
    /// The head of the Python Themo: no bias, no final norm.
    pub fn new(pooling: Pooling, dim: usize) -> Self {
        Self { pooling, dim, projection_bias: false, final_norm: false, init: Init::Clip }
    }

    /// Refuses a head that is not the one `found` in the checkpoint `folder`.
    fn require_same(self, found: Self, folder: &Path) -> Result<()> {
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

/// What a themo checkpoint holds besides the BERT, which has `model.safetensors` for itself as in transformers'
/// folders.
const HEAD_WEIGHTS: &str = "head.safetensors";

/// The names of the head's tensors, in checkpoints of either Themo.
const PROJECTION: &str = "projection.weight";
const PROJECTION_BIAS: &str = "projection.bias";
const NORM: &str = "final_norm.weight";
const NORM_BIAS: &str = "final_norm.bias";

fn is_of_head(name: &str) -> bool {
    [PROJECTION, PROJECTION_BIAS, NORM, NORM_BIAS].contains(&name)
}

/// The last part of a word table's name, by which the encoder is found among the names of a file.
const WORDS: &str = "embeddings.word_embeddings.weight";

/// What a checkpoint's `config.json` says about the tokenizer beside it.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenizerFacts {
    /// The id of the padding token.
    pub padding: Option<u32>,
    /// transformers' class of the tokenizer.
    pub class: Option<&'static str>,
}

/// Maps Spanish sentences to vectors `[batch, dim]` in the teacher's text latent space (before its projection).
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

/// What a forward pass in training records for the backward pass.
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
            head.require_same(read_json(&folder.join(HEAD_FILE))?, folder)?;
        }
        let weights = open(folder, compute)?;
        Self::build(folder, weights, head, (!trained).then_some(seed), compute, Params::new(compute.backend))
    }

    /// A trained student as its checkpoint folder describes it, frozen: it has no backward pass and lists no
    /// parameters.
    pub fn from_checkpoint(folder: &Path, compute: &Compute) -> Result<Self> {
        Self::from_checkpoint_with(folder, compute, Params::frozen(compute.backend))
    }

    /// [`Self::from_checkpoint`], its parameters listed in `params` unless these are frozen.
    pub fn from_checkpoint_with(folder: &Path, compute: &Compute, params: Params) -> Result<Self> {
        let (weights, head) = (open(folder, compute)?, read_json(&folder.join(HEAD_FILE))?);
        Self::build(folder, weights, head, None, compute, params)
    }

    /// A student from a checkpoint of the Python Themo (a file of PyTorch Lightning, with `transformer.*` and
    /// `projection.weight` in its state dict) whose BERT has the configuration in the folder `bert`; also frozen.
    pub fn from_lightning(file: &Path, bert: &Path, pooling: Pooling, compute: &Compute) -> Result<Self> {
        Self::from_lightning_with(file, bert, pooling, compute, Params::frozen(compute.backend))
    }

    /// [`Self::from_lightning`], its parameters listed in `params` unless these are frozen.
    pub fn from_lightning_with(
        file: &Path, bert: &Path, pooling: Pooling, compute: &Compute, params: Params,
    ) -> Result<Self> {
        let mut weights = Weights::open(file, &compute.device)?;
        weights.find_prefix(WORDS)?;
        let holder = weights.find_beside(PROJECTION);
        let shape = holder.as_ref().and_then(|holder| weights.shape(&format!("{holder}{PROJECTION}")));
        let Some(&[dim, _]) = shape else {
            return Err(Error::new(format!("{} has no {PROJECTION}", file.display()))
                .hint("this is no checkpoint of Themo; a BERT or a run of themo is given as a folder"));
        };
        let holder = holder.unwrap_or_default();
        let has = |name: &str| weights.has(&format!("{holder}{name}"));
        let (projection_bias, final_norm) = (has(PROJECTION_BIAS), has(NORM));
        let head = Head { projection_bias, final_norm, ..Head::new(pooling, dim) };
        Self::build(bert, weights, head, None, compute, params)
    }

    /// With the head in `weights` or, where there is a `seed`, a new one that is drawn with it.
    fn build(
        folder: &Path, mut weights: Weights, head: Head, seed: Option<u64>, compute: &Compute, mut params: Params,
    ) -> Result<Self> {
        let trained = seed.is_none();
        let failed = || format!("cannot load the student from {}", folder.display());
        let config = BertConfig::from_folder(folder).context(failed)?;
        let hidden = config.sizes.hidden_size;
        weights.find_prefix(WORDS)?;
        let bert = Bert::load(config, &weights.model(), &mut params).context(failed)?;
        let vb = weights.below(&weights.find_beside(PROJECTION).unwrap_or_default());
        let take = |name: &str, shape: &[usize], wanted: bool| match trained && wanted {
            true => Ok::<_, Error>(Some(vb.get(shape, name)?)),
            false => Ok(None),
        };
        let (matrix, vector) = ([head.dim, hidden], [head.dim]);
        let weight = take(PROJECTION, &matrix, true)?;
        let bias = take(PROJECTION_BIAS, &vector, head.projection_bias)?;
        let scale = take(NORM, &vector, head.final_norm)?;
        let shift = take(NORM_BIAS, &vector, head.final_norm)?;
        // Before anything is drawn: until here the sizes are only what config.json claims.
        weights.finish(|name| leftover(weights.prefix(), name, trained))?;
        params.next_layer();
        let mut add = |name: &str, shape: &[usize], taken: Option<Tensor>, new: &dyn Fn() -> Vec<f32>| {
            let value = taken.map_or_else(|| Tensor::from_vec(new(), shape, &compute.device), Ok)?;
            params.add(vec![name.into()], &value)
        };
        let (zeros, ones) = (|| vec![0.0; head.dim], || vec![1.0; head.dim]);
        let draw = || head.init.draw(head.dim, hidden, rng::mix(0x7072_6f6a, seed.unwrap_or_default()));
        let weight = add(PROJECTION, &matrix, weight, &draw)?;
        let bias = match head.projection_bias {
            true => Some(add(PROJECTION_BIAS, &vector, bias, &zeros)?),
            false => None,
        };
        let norm = match head.final_norm {
            true => Some(LayerNorm {
                weight: add(NORM, &vector, scale, &ones)?,
                bias: add(NORM_BIAS, &vector, shift, &zeros)?,
                eps: 1e-5,
                backend: compute.backend,
            }),
            false => None,
        };
        let (backend, device) = (compute.backend, compute.device.clone());
        let projection = Linear::new(weight, bias, backend);
        Ok(Self { bert, head, projection, norm, backend, device, params, frozen: None })
    }

    /// Freezes the embeddings and the first `layers` layers (0: the embeddings alone): they get no gradient and no
    /// update, and the backward ends above them. None trains everything.
    pub fn freeze(&mut self, layers: Option<usize>) -> Result<()> {
        let most = self.bert.config.sizes.num_hidden_layers;
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

    /// What stands on the BERT.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The projection's weight `[dim, hidden]` and its bias `[dim]`.
    pub fn projection(&self) -> (&Tensor, Option<&Tensor>) {
        self.projection.values()
    }

    /// The final norm's weight and bias, each `[dim]`.
    pub fn final_norm(&self) -> Option<(&Tensor, &Tensor)> {
        self.norm.as_ref().map(|norm| (&norm.weight.value, &norm.bias.value))
    }

    /// Width of the output.
    pub fn dim(&self) -> usize {
        self.head.dim
    }

    /// The device of its parameters.
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

    /// Sentence vectors of a training step without a backward pass.
    pub fn forward(&self, batch: Batch) -> Result<Tensor> {
        let states = self.bert.forward(batch, None)?;
        Ok(self.project(&self.head.pooling.forward(self.backend, batch.rows(), &states)?)?.0)
    }

    /// Sentence vectors of a training step, and what [`Self::backward`] needs.
    pub fn forward_train(&self, batch: Batch) -> Result<(Tensor, StudentTape)> {
        let mut tape = Tape::above(self.frozen);
        let states = self.bert.forward(batch, Some(&mut tape))?;
        let pooled = self.head.pooling.forward(self.backend, batch.rows(), &states)?;
        let (output, normed) = self.project(&pooled)?;
        Ok((output, StudentTape { tape, pooled, normed }))
    }

    /// The output from the pooled states and, where there is one, the final norm's record.
    fn project(&self, pooled: &Tensor) -> Result<(Tensor, Option<Normed>)> {
        let projected = self.projection.forward(pooled)?;
        match &self.norm {
            Some(norm) => {
                let normed = norm.normed(None, &projected, None)?;
                Ok((normed.out.clone(), Some(normed)))
            }
            None => Ok((projected, None)),
        }
    }

    /// From the gradient of the output `[batch, dim]`: adds to the gradients of all trained parameters.
    pub fn backward(&self, batch: Batch, saved: StudentTape, doutput: &Tensor, grads: &mut Gradients) -> Result<()> {
        let dprojected = match (&self.norm, &saved.normed) {
            (Some(norm), Some(normed)) => &norm.backward(normed, doutput, None, None, grads)?.0,
            _ => doutput,
        };
        let dpooled = self.projection.backward(&saved.pooled, dprojected, None, grads)?;
        let dstates = self.head.pooling.backward(self.backend, batch.rows(), &dpooled)?;
        self.bert.backward(batch, saved.tape, &dstates, grads)
    }

    /// Writes into `folder` what `AutoModel.from_pretrained(folder, add_pooling_layer=False)` of transformers loads as
    /// it is, `model.safetensors` with the encoder under its own names and `config.json`, and besides that the head:
    /// `head.safetensors` (`projection.*`, `final_norm.*`) and `themo.json`. The tokenizer's own files are the caller's.
    pub fn save(&self, folder: &Path, tokenizer: TokenizerFacts) -> Result<()> {
        self.save_encoder(folder)?;
        self.save_config(folder, tokenizer)?;
        save(&self.params, is_of_head, &folder.join(HEAD_WEIGHTS))?;
        write_text(&folder.join(HEAD_FILE), serde_json::to_string_pretty(&self.head)?)
    }

    /// Writes the part of [`Self::save`] that is `model.safetensors`.
    pub fn save_encoder(&self, folder: &Path) -> Result<()> {
        save(&self.params, |name| !is_of_head(name), &folder.join("model.safetensors"))
    }

    /// Writes the part of [`Self::save`] that is `config.json`.
    pub fn save_config(&self, folder: &Path, tokenizer: TokenizerFacts) -> Result<()> {
        let config = self.saved_config(tokenizer);
        write_text(&folder.join("config.json"), serde_json::to_string_pretty(&config)?)
    }

    /// The encoder's tensors under its own names, f32 on the CPU.
    pub fn encoder_tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        tensors(&self.params, |name| !is_of_head(name))
    }

    /// The BERT's own `config.json`, with what is true of the files beside it: the type of the numbers, the class
    /// without a head, and the padding's id (which some configurations lack, BETO's among them; where positions are
    /// counted from it, it stays as it is). Where the file names no `model_type`, the tokenizer's class was decided
    /// without it, and must stay the same with it.
    fn saved_config(&self, tokenizer: TokenizerFacts) -> Value {
        let BertConfig { kind, file, .. } = &self.bert.config;
        let mut file = file.clone();
        file.remove("torch_dtype"); // the name of `dtype` before transformers 5
        file.insert("dtype".into(), "float32".into());
        let named = file.insert("model_type".into(), kind.model_type.into()).is_some_and(|name| !name.is_null());
        if let (false, Some(class)) = (named || file.contains_key("tokenizer_class"), tokenizer.class) {
            file.insert("tokenizer_class".into(), class.into());
        }
        file.insert("architectures".into(), [format!("{}Model", kind.class)].into());
        if let (Some(padding), FirstPosition::Zero) = (tokenizer.padding, kind.first_position) {
            file.insert("pad_token_id".into(), padding.into());
        }
        Value::Object(file)
    }
}

fn write_text(path: &Path, text: String) -> Result<()> {
    std::fs::write(path, text + "\n").context(|| format!("cannot write {}", path.display()))
}

/// The files of weights in a model folder or a checkpoint.
fn open(folder: &Path, compute: &Compute) -> Result<Weights> {
    let mut files = weight_files(folder)?;
    files.extend(Some(folder.join(HEAD_WEIGHTS)).filter(|path| path.exists()));
    Weights::open_files(folder, files, &compute.device)
}

/// What to make of a tensor that the student did not load. AutoModel, too, leaves out a pooler and the heads of tasks.
fn leftover(prefix: &str, name: &str, trained: bool) -> Leftover {
    if name.ends_with("embeddings.position_ids") || name.ends_with("embeddings.token_type_ids") {
        return Leftover::Nothing; // buffers that old versions saved
    }
    let of_encoder = |below: &str| {
        let parts = ["embeddings.", "embeddings_project.", "encoder.", "transformer."];
        parts.iter().any(|part| below.starts_with(part))
    };
    let missed = name.strip_prefix(prefix).is_some_and(of_encoder) || (trained && is_of_head(name));
    if missed { Leftover::Fault } else { Leftover::Head }
}

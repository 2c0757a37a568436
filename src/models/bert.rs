//! The student's encoder: BERT (Devlin et al. 2018) and related models, as transformers saves them. How they differ is
//! in the table of [`kinds`](super::kinds).

use std::path::Path;

use candle_core::Tensor;
use candle_nn::VarBuilder;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::encoder::{Encoder, Tape};
use super::folder::read_json;
use super::kinds::{FirstPosition, Kind, Role, TokenTypes};
use super::layer::EncoderConfig;
use super::load;
use crate::error::{Error, Result, ResultExt};
use crate::nn::embedding::{self, Lookup};
use crate::nn::{Activation, Batch, Embedding, Gradients, Params, Pooling, Tokens};

/// What themo reads of an encoder's `config.json`, under BERT's names.
#[derive(Clone, Debug)]
pub struct BertConfig {
    /// The row of the table of kinds.
    pub kind: &'static Kind,
    /// Sizes and other settings.
    pub sizes: Sizes,
    /// The whole file; checkpoints get a copy of it.
    pub file: Map<String, Value>,
}

/// Sizes and other settings of an encoder, with the defaults of transformers' classes.
#[derive(Clone, Debug, Deserialize)]
pub struct Sizes {
    /// The id of the padding token.
    #[serde(default)]
    pub pad_token_id: Option<u32>,
    /// Rows of the word table.
    pub vocab_size: usize,
    /// Width of the states.
    pub hidden_size: usize,
    /// Width of the embedding tables, where they are narrower than the states (ELECTRA).
    #[serde(default = "electra_width")]
    pub embedding_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the feed-forward blocks.
    pub intermediate_size: usize,
    /// Rows of the position table.
    pub max_position_embeddings: usize,
    /// The activation of the feed-forward blocks.
    #[serde(default = "gelu")]
    pub hidden_act: String,
    /// Rows of the token type table.
    #[serde(default = "two")]
    pub type_vocab_size: usize,
    /// Whether there is a table of pre-training tasks (ERNIE).
    #[serde(default)]
    pub use_task_id: bool,
    /// Rows of that table.
    #[serde(default = "three")]
    pub task_type_vocab_size: usize,
    /// Added to the variance in layer norms.
    #[serde(default = "tiny")]
    pub layer_norm_eps: f64,
    /// Dropout after the embeddings and each branch.
    #[serde(default = "tenth")]
    pub hidden_dropout_prob: f64,
    /// Dropout of attention probabilities.
    #[serde(default = "tenth")]
    pub attention_probs_dropout_prob: f64,
}

fn electra_width() -> usize {
    128
}
fn gelu() -> String {
    "gelu".into()
}
fn two() -> usize {
    2
}
fn three() -> usize {
    3
}
fn tiny() -> f64 {
    1e-12
}
fn tenth() -> f64 {
    0.1
}

impl BertConfig {
    /// Reads `folder/config.json`.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        Self::new(read_json(&path)?).context(|| path.display().to_string())
    }

    /// From the content of a `config.json`.
    ///
    /// # Errors
    /// If it is of a kind, or asks for something, that themo does not compute, or lacks a size.
    pub fn new(file: Map<String, Value>) -> Result<Self> {
        let kind = Kind::of_config(&file, &[Role::Student])?;
        let mut settings = file.clone();
        if !kind.renamed_keys().is_empty() {
            settings.remove("layer_norm_eps"); // DistilBERT's is fixed
        }
        for (own, berts, is_alias) in kind.renamed_keys() {
            match settings.remove(*own) {
                Some(value) => drop(settings.insert((*berts).to_owned(), value)),
                None if !is_alias => drop(settings.remove(*berts)),
                None => {}
            }
        }
        let sizes: Sizes = serde_json::from_value(Value::Object(settings))
            .map_err(Error::from)
            .hint(|| "check that this is the right kind of model; fetch config.json again if it may be damaged")?;
        Ok(Self { kind, sizes, file })
    }

    /// The id of the padding token, from which RoBERTa and related models count positions: 1 by default.
    fn padding(&self) -> u32 {
        self.sizes.pad_token_id.unwrap_or(1)
    }

    /// The most tokens of a sequence, special tokens included.
    pub fn max_tokens(&self) -> usize {
        let before = match self.kind.first_position {
            FirstPosition::Zero => 0,
            FirstPosition::AfterPadding => self.padding() as usize + 1,
        };
        self.sizes.max_position_embeddings.saturating_sub(before)
    }

    /// The row of the position table for each token.
    fn positions(&self, tokens: &Tokens) -> Vec<u32> {
        let places = tokens.positions();
        if self.kind.first_position == FirstPosition::Zero {
            return places;
        }
        let (padding, mut counted) = (self.padding(), 0);
        let row = |(id, place): (&u32, u32)| {
            if place == 0 {
                counted = 0;
            }
            counted += u32::from(*id != padding);
            if *id == padding { padding } else { padding + counted }
        };
        tokens.ids.iter().zip(places).map(row).collect()
    }
}

/// A BERT without its pooler: packed token ids to states.
pub struct Bert {
    /// Its settings.
    pub config: BertConfig,
    word: Embedding,
    position: Embedding,
    /// Tables from which every token takes row 0 (token types, pre-training tasks).
    constants: Vec<Embedding>,
    encoder: Encoder,
}

impl Bert {
    /// Loads the BERT at `vb`.
    pub fn load(config: BertConfig, vb: &VarBuilder, params: &mut Params) -> Result<Self> {
        let sizes = &config.sizes;
        let (kind, hidden) = (config.kind, sizes.hidden_size);
        let width = if kind.widens { sizes.embedding_size } else { hidden };
        let tables = vb.pp("embeddings");
        let mut table = |name: &str, rows: usize| load::embedding(rows, width, tables.pp(name), params);
        let word = table("word_embeddings", sizes.vocab_size)?;
        let position = table("position_embeddings", sizes.max_position_embeddings)?;
        let mut constants = Vec::new();
        if kind.token_types != TokenTypes::None {
            constants.push(table("token_type_embeddings", sizes.type_vocab_size)?);
        }
        if kind.token_types == TokenTypes::TableAndTask && sizes.use_task_id {
            constants.push(table("task_type_embeddings", sizes.task_type_vocab_size)?);
        }
        let encoder = Encoder::load(
            EncoderConfig {
                layers: sizes.num_hidden_layers,
                hidden,
                embedding: width,
                heads: sizes.num_attention_heads,
                intermediate: sizes.intermediate_size,
                activation: Activation::from_name(&sizes.hidden_act)?,
                norm_first: kind.norm_first,
                causal: false,
                eps: sizes.layer_norm_eps,
            },
            kind.names,
            None,
            vb,
            params,
        )?;
        Ok(Self { config, word, position, constants, encoder })
    }

    /// Runs `work` with what each token takes from the tables.
    fn with_lookups<R>(&self, tokens: &Tokens, work: impl FnOnce(&[Lookup]) -> Result<R>) -> Result<R> {
        let longest = tokens.rows.longest();
        if longest > self.config.max_tokens() {
            return Err(Error::new(format!(
                "a sequence of {longest} tokens does not fit the model's {} positions",
                self.config.max_tokens()
            ))
            .hint("lower --max-sequence-length"));
        }
        let (positions, zeros) = (self.config.positions(tokens), vec![0; tokens.ids.len()]);
        let mut lookups = vec![
            Lookup { embedding: &self.word, indices: &tokens.ids },
            Lookup { embedding: &self.position, indices: &positions },
        ];
        lookups.extend(self.constants.iter().map(|embedding| Lookup { embedding, indices: &zeros }));
        work(&lookups)
    }

    /// Token states `[tokens, hidden]`; a `tape` records what [`Self::backward`] needs.
    pub fn forward(&self, batch: Batch, tape: Option<&mut Tape>) -> Result<Tensor> {
        let embeddings = self.with_lookups(batch.tokens, |lookups| embedding::forward(lookups, batch.rows()))?;
        self.encoder.forward(&embeddings, batch, tape)
    }

    /// Pooled states `[sequences, hidden]`, without dropout.
    pub fn pooled(&self, tokens: &Tokens, pooling: Pooling) -> Result<Tensor> {
        let embeddings = self.with_lookups(tokens, |lookups| embedding::forward(lookups, &tokens.rows))?;
        self.encoder.forward_pooled(&embeddings, tokens, pooling)
    }

    /// From the gradient of the states: adds to the gradients of all trained parameters.
    pub fn backward(&self, batch: Batch, tape: Tape, dstates: &Tensor, grads: &mut Gradients) -> Result<()> {
        match self.encoder.backward(tape, dstates, batch, grads)? {
            Some(d) => self.with_lookups(batch.tokens, |lookups| embedding::backward(lookups, batch.rows(), &d, grads)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn distilberts_keys_are_its_own() {
        let config = |more: Value| {
            let mut file = json!({"model_type": "distilbert", "vocab_size": 9, "dim": 8, "n_layers": 2, "n_heads": 2,
                "hidden_dim": 16, "max_position_embeddings": 12, "layer_norm_eps": 0.5, "hidden_act": "gelu_new"});
            file.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            BertConfig::new(file.as_object().unwrap().clone()).unwrap().sizes
        };
        let sizes = config(json!({}));
        assert_eq!((sizes.hidden_size, sizes.intermediate_size, sizes.layer_norm_eps), (8, 16, 1e-12));
        assert_eq!(sizes.hidden_act, "gelu"); // (BERT's key means nothing to it)
        assert_eq!(config(json!({"activation": "quick_gelu"})).hidden_act, "quick_gelu");
    }
}

//! BERT's configuration and embeddings (Devlin et al. 2018), as transformers saves them; XLM-R (Conneau et al. 2020) is
//! the same but for where its positions start.

use candle_core::Tensor;
use serde::Deserialize;

use super::encoder::{Encoder, EncoderConfig, Tape};
use super::weights::{Weights, bert_layers};
use crate::error::{Error, Result};
use crate::nn::embedding::{self, Lookup};
use crate::nn::{Activation, Backend, Compute, Dropout, Gradients, Param, Params, Pooling, Tokens};

/// What themo reads of a BERT's `config.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct BertConfig {
    /// `bert`, `xlm-roberta`, ...
    #[serde(default)]
    pub model_type: String,
    #[serde(default)]
    pub pad_token_id: Option<u32>,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
    #[serde(default = "gelu")]
    pub hidden_act: String,
    #[serde(default = "two")]
    pub type_vocab_size: usize,
    #[serde(default = "tiny")]
    pub layer_norm_eps: f64,
    #[serde(default = "tenth")]
    pub hidden_dropout_prob: f64,
    #[serde(default = "tenth")]
    pub attention_probs_dropout_prob: f64,
}

fn gelu() -> String {
    "gelu".into()
}
fn two() -> usize {
    2
}
fn tiny() -> f64 {
    1e-12
}
fn tenth() -> f64 {
    0.1
}

impl BertConfig {
    /// The position of a sequence's first token: RoBERTa and its kin (XLM-R) count from the padding's id plus one, for
    /// padding itself has the position of that id (transformers' `create_position_ids_from_input_ids`).
    fn first_position(&self) -> u32 {
        if self.model_type.contains("roberta") { self.pad_token_id.unwrap_or(1).saturating_add(1) } else { 0 }
    }

    /// Tokens a sequence may have, the special ones included.
    pub fn max_tokens(&self) -> usize {
        self.max_position_embeddings.saturating_sub(self.first_position() as usize)
    }
}

/// A BERT without its pooler: packed token ids to states.
pub struct Bert {
    /// Its settings.
    pub config: BertConfig,
    backend: Backend,
    word: Param,
    position: Param,
    token_type: Param,
    encoder: Encoder,
}

impl Bert {
    /// Takes the parameters from `weights` (below its prefix).
    pub fn load(config: BertConfig, compute: &Compute, weights: &mut Weights, params: &mut Params) -> Result<Self> {
        let backend = compute.backend;
        let hidden = config.hidden_size;
        let mut table = |name: &str, rows: usize| {
            weights.param(&format!("embeddings.{name}_embeddings.weight"), &[rows, hidden], params)
        };
        let word = table("word", config.vocab_size)?;
        let position = table("position", config.max_position_embeddings)?;
        let token_type = table("token_type", config.type_vocab_size)?;
        let encoder = Encoder::load(
            EncoderConfig {
                layers: config.num_hidden_layers,
                hidden,
                heads: config.num_attention_heads,
                intermediate: config.intermediate_size,
                activation: Activation::from_name(&config.hidden_act)?,
                norm_first: false,
                causal: false,
                eps: config.layer_norm_eps,
            },
            backend,
            "embeddings.LayerNorm",
            bert_layers("", config.num_hidden_layers),
            weights,
            params,
        )?;
        Ok(Self { config, backend, word, position, token_type, encoder })
    }

    fn with_lookups<R>(&self, tokens: &Tokens, work: impl FnOnce(&[Lookup]) -> Result<R>) -> Result<R> {
        let longest = tokens.rows.longest();
        if longest > self.config.max_tokens() {
            return Err(Error::new(format!(
                "a sequence of {longest} tokens does not fit the model's {} positions",
                self.config.max_tokens()
            ))
            .hint("lower --max-sequence-length"));
        }
        let (first, types) = (self.config.first_position(), vec![0; tokens.ids.len()]);
        let positions: Vec<u32> = tokens.positions().into_iter().map(|position| first + position).collect();
        work(&[
            Lookup { table: &self.word, indices: &tokens.ids },
            Lookup { table: &self.position, indices: &positions },
            Lookup { table: &self.token_type, indices: &types },
        ])
    }

    /// Token states `[tokens, hidden]`.
    pub fn forward(&self, tokens: &Tokens, dropout: Option<&Dropout>, tape: Option<&mut Tape>) -> Result<Tensor> {
        let embeddings = self.with_lookups(tokens, |lookups| embedding::forward(self.backend, lookups))?;
        self.encoder.forward(&embeddings, &tokens.rows, dropout, tape)
    }

    /// Pooled states `[sequences, hidden]`, without dropout.
    pub fn pooled(&self, tokens: &Tokens, pooling: Pooling) -> Result<Tensor> {
        let embeddings = self.with_lookups(tokens, |lookups| embedding::forward(self.backend, lookups))?;
        self.encoder.forward_pooled(&embeddings, &tokens.rows, pooling)
    }

    /// Adds to the gradients of what is trained from the gradient of the states.
    pub fn backward(
        &self, tokens: &Tokens, tape: Tape, dstates: &Tensor, dropout: Option<&Dropout>, grads: &mut Gradients,
    ) -> Result<()> {
        match self.encoder.backward(tape, dstates, &tokens.rows, dropout, grads)? {
            Some(d) => self.with_lookups(tokens, |lookups| embedding::backward(self.backend, lookups, &d, grads)),
            None => Ok(()),
        }
    }
}

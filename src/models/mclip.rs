//! M-CLIP's text tower (Carlsson et al. 2022, <https://github.com/FreddeFrallan/Multilingual-CLIP>,
//! `multilingual_clip/pt_multilingual_clip.py`): XLM-R or another BERT, the mean over its token states, and a linear
//! layer with bias straight into the space that CLIP shares with images.

use std::path::Path;

use candle_core::Tensor;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::bert::{Bert, BertConfig};
use super::folder::read_json;
use super::kinds::{KINDS, Role};
use super::load::linear;
use super::weights::{Leftover, Weights};
use crate::compute::Compute;
use crate::error::{Error, Result, ResultExt};
use crate::nn::{Linear, Params, Pooling, Tokens};

/// An M-CLIP's `config.json`. It names the encoder and says what the linear layer does; the encoder's own settings are
/// only there where somebody put them.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MclipConfig {
    /// The name of the encoder on the hub; its tokenizer is the M-CLIP's.
    pub model_base: String,
    /// Width of the encoder.
    pub transformer_dimensions: usize,
    /// Width of the shared space.
    pub num_dims: usize,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl MclipConfig {
    /// Reads `folder/config.json`; `None` if it is that of another kind of model.
    pub fn find(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("config.json");
        let value: Value = read_json(&path)?;
        if value.get("modelBase").is_none() {
            return Ok(None);
        }
        let config = serde_json::from_value(value)
            .context(|| format!("{} is not an M-CLIP's", path.display()))
            .hint(|| "fetch config.json again: modelBase, transformerDimensions and numDims belong in it")?;
        Ok(Some(config))
    }

    /// The settings of the encoder: those in config.json, else those known of the model that it names.
    fn encoder(&self) -> Result<BertConfig> {
        let named = self.model_base.to_lowercase();
        let mut settings = self.other.clone();
        if let Some(kind) = self.kind_of_base(&named) {
            settings.insert("model_type".into(), kind.into());
        } else {
            // These are the M-CLIP's own. Without them it is a BERT, or refused if its sizes are a RoBERTa's.
            settings.remove("model_type");
            settings.remove("architectures");
        }
        if !settings.contains_key("hidden_size") {
            settings.extend(known_base(&named).ok_or_else(|| {
                Error::new(format!("the sizes of `{}`, which this M-CLIP is built on, are not known", self.model_base))
                    .hint("copy hidden_size, num_hidden_layers and the others from that model's config.json into this one")
            })?);
        }
        let config = BertConfig::new(settings)
            .context(|| format!("the settings of `{}`", self.model_base))
            .hint(|| "config.json must hold all settings of the encoder, or none")?;
        if config.sizes.hidden_size != self.transformer_dimensions {
            let (base, ours) = (config.sizes.hidden_size, self.transformer_dimensions);
            return Err(Error::new(format!("`{}` is {base} wide, transformerDimensions is {ours}", self.model_base))
                .hint("fetch config.json again"));
        }
        Ok(config)
    }

    /// The `model_type` of the encoder: that in config.json, else the longest one that its name contains. "bert" alone
    /// does not count (`xlm-r-bert-base-nli-...` is an XLM-R).
    fn kind_of_base(&self, named: &str) -> Option<&'static str> {
        let own = self.other.get("model_type").and_then(Value::as_str);
        let students = || KINDS.iter().filter(|kind| kind.role == Role::Student).map(|kind| kind.model_type);
        let of_name =
            || students().filter(|kind| *kind != "bert" && named.contains(kind)).max_by_key(|kind| kind.len());
        students().find(|kind| Some(*kind) == own).or_else(of_name)
    }
}

/// The sizes in the config.json of the models that M-CLIPs are built on, by their lower-case names.
fn known_base(name: &str) -> Option<Map<String, Value>> {
    let name = name.rsplit('/').next()?;
    let sizes = match name {
        "xlm-roberta-large" => [250_002, 1024, 24, 16, 4096, 514, 1],
        "xlm-roberta-base" => [250_002, 768, 12, 12, 3072, 514, 1],
        "labse" => [501_153, 768, 12, 12, 3072, 512, 2],
        _ => return None,
    };
    let keys = [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
    ];
    let mut settings: Map<String, Value> =
        keys.iter().map(|key| (*key).to_owned()).zip(sizes.map(Value::from)).collect();
    settings.insert("layer_norm_eps".into(), if name == "labse" { 1e-12 } else { 1e-5 }.into());
    Some(settings)
}

/// Maps texts in many languages into the space shared with CLIP's images.
pub struct Mclip {
    bert: Bert,
    projection: Linear, // [num_dims, hidden]
    dim: usize,
}

impl Mclip {
    /// The text tower in `folder`, whose `config.json` is `config`.
    pub fn load(folder: &Path, config: &MclipConfig, compute: &Compute) -> Result<Self> {
        let failed = || format!("cannot load the M-CLIP in {}", folder.display());
        let encoder = config.encoder().context(failed)?;
        let mut weights = Weights::open(folder, &compute.device)?;
        let mut params = Params::frozen(compute.backend);
        let (dim, hidden) = (config.num_dims, encoder.sizes.hidden_size);
        weights.find_prefix("embeddings.word_embeddings.weight")?;
        let projection = linear(hidden, dim, weights.below("").pp("LinearTransformation"), &mut params)?;
        let bert = Bert::load(encoder, &weights.model(), &mut params).context(failed)?;
        weights.finish(|name| match name.contains("pooler.") || name.ends_with("position_ids") {
            true => Leftover::Nothing,
            false => Leftover::Fault,
        })?;
        Ok(Self { bert, projection, dim })
    }

    /// Width of the shared space.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The most tokens of a text, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.bert.config.max_tokens()
    }

    /// Vectors `[batch, dim]` in the shared space, not normalised.
    pub fn embed(&self, tokens: &Tokens) -> Result<Tensor> {
        self.projection.forward(&self.bert.pooled(tokens, Pooling::Mean)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_known_with_and_without_its_owner() {
        for (name, eps) in [("labse", 1e-12), ("sentence-transformers/labse", 1e-12), ("xlm-roberta-large", 1e-5)] {
            assert_eq!(known_base(name).unwrap()["layer_norm_eps"], eps, "{name}");
        }
    }

    #[test]
    fn an_xlm_r_under_another_name_is_not_taken_for_a_bert() {
        let encoder = |base: &str, model_type: &str, positions: u64| {
            let mut config: MclipConfig = serde_json::from_value(serde_json::json!({
                "modelBase": base, "transformerDimensions": 20, "numDims": 8, "architectures": ["MultilingualCLIP"],
                "model_type": model_type, "vocab_size": 50, "num_hidden_layers": 1, "num_attention_heads": 2,
                "intermediate_size": 30, "max_position_embeddings": positions, "type_vocab_size": 2, "hidden_size": 20,
            }))
            .unwrap();
            if positions == 514 {
                config.other.insert("type_vocab_size".into(), 1.into());
            }
            config.encoder().map(|encoder| encoder.kind.model_type)
        };
        assert_eq!(encoder("m/xlm-roberta-base", "M-CLIP", 514).unwrap(), "xlm-roberta");
        assert_eq!(encoder("sentence-transformers/LaBSE", "M-CLIP", 512).unwrap(), "bert");
        for name in ["BAAI/bge-m3", "sentence-transformers/xlm-r-100langs-bert-base-nli-mean-tokens"] {
            assert_eq!(encoder(name, "xlm-roberta", 514).unwrap(), "xlm-roberta");
            let error = format!("{:?}", encoder(name, "M-CLIP", 514).unwrap_err());
            assert!(error.contains("may be a RoBERTa"), "{error}");
        }
    }
}

//! The kinds of models that themo computes, by the `model_type` of their `config.json`.
//!
//! One table says how they differ. Kinds that are not in it, and settings by which a model computes something that
//! themo does not, are refused by name. Source: transformers 5.24, `models/*/modeling_*.py`.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A text encoder that can be trained.
    Student,
    /// A text and an image tower, with a configuration for each.
    Clip,
    /// A CLIP's text tower by itself; its configuration is that of the tower.
    ClipText,
    /// A CLIP's image tower by itself.
    ClipVision,
}

/// How a kind names its parameters; see `models::weights::names`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// `encoder.layer.0.attention.self.query`
    Bert,
    /// `transformer.layer.0.attention.q_lin`
    DistilBert,
    /// `encoder.layers.0.self_attn.q_proj`
    Clip,
}

/// Which row of the position table a sequence's first token takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstPosition {
    /// Row 0.
    Zero,
    /// The row after the padding's id. A padding token inside a text takes the row of its id and is not counted
    /// (`create_position_ids_from_input_ids`).
    AfterPadding,
}

/// Which tables are added to those of words and positions; every token takes their row 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenTypes {
    /// None.
    None,
    /// Token types (the first or the second text).
    Table,
    /// Token types and, with `use_task_id`, the pre-training task.
    TableAndTask,
}

/// Which token of a CLIP's text gives its vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfText {
    /// The first `eos_token_id`; where that is 2, as in configurations from before transformers 4.31, the largest id.
    OfClip,
    /// The first `eos_token_id`, whatever its value.
    AsConfigured,
}

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// What the names of its classes begin with in transformers (`BertModel`, `BertForMaskedLM`).
    pub class: &'static str,
    /// What it is for.
    pub role: Role,
    /// The names of its parameters.
    pub names: Names,
    /// Where positions start.
    pub first_position: FirstPosition,
    /// Further embedding tables.
    pub token_types: TokenTypes,
    /// Whether embeddings are narrower than the states (`embedding_size`) and a linear layer widens them.
    pub widens: bool,
    /// Whether norms come before the branches of a layer (CLIP) or after them (BERT).
    pub norm_first: bool,
    /// Which token's state is the vector of a text.
    pub end_of_text: EndOfText,
}

const BERT: Kind = Kind {
    model_type: "bert",
    class: "Bert",
    role: Role::Student,
    names: Names::Bert,
    first_position: FirstPosition::Zero,
    token_types: TokenTypes::Table,
    widens: false,
    norm_first: false,
    end_of_text: EndOfText::AsConfigured,
};

const ROBERTA: Kind =
    Kind { model_type: "roberta", class: "Roberta", first_position: FirstPosition::AfterPadding, ..BERT };

const CLIP: Kind = Kind {
    model_type: "clip",
    class: "CLIP",
    role: Role::Clip,
    names: Names::Clip,
    token_types: TokenTypes::None,
    norm_first: true,
    end_of_text: EndOfText::OfClip,
    ..BERT
};

const METACLIP_2: Kind =
    Kind { model_type: "metaclip_2", class: "MetaClip2", end_of_text: EndOfText::AsConfigured, ..CLIP };

/// The table.
pub static KINDS: [Kind; 14] = [
    BERT,
    ROBERTA,
    Kind { model_type: "xlm-roberta", class: "XLMRoberta", ..ROBERTA },
    Kind { model_type: "camembert", class: "Camembert", ..ROBERTA },
    Kind { model_type: "data2vec-text", class: "Data2VecText", ..ROBERTA },
    Kind { model_type: "electra", class: "Electra", widens: true, ..BERT },
    Kind { model_type: "ernie", class: "Ernie", token_types: TokenTypes::TableAndTask, ..BERT },
    Kind {
        model_type: "distilbert",
        class: "DistilBert",
        names: Names::DistilBert,
        token_types: TokenTypes::None,
        ..BERT
    },
    CLIP,
    Kind { model_type: "clip_text_model", class: "CLIPText", role: Role::ClipText, ..CLIP },
    Kind { model_type: "clip_vision_model", class: "CLIPVision", role: Role::ClipVision, ..CLIP },
    METACLIP_2,
    Kind { model_type: "metaclip_2_text_model", class: "MetaClip2Text", role: Role::ClipText, ..METACLIP_2 },
    Kind { model_type: "metaclip_2_vision_model", class: "MetaClip2Vision", role: Role::ClipVision, ..METACLIP_2 },
];

impl Kind {
    /// The row of `model_type`.
    pub fn of_type(model_type: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.model_type == model_type)
    }

    /// The row of a `config.json` with one of `roles`. Configurations from before 2020 may lack `model_type`: then the
    /// class in `architectures` decides, and without that a student is a BERT unless its sizes are a RoBERTa's.
    ///
    /// # Errors
    /// If the kind is unknown or not for one of `roles`, or if a setting asks for what themo does not compute.
    pub fn of_config(config: &Map<String, Value>, roles: &[Role]) -> Result<&'static Self> {
        let kind = match config.get("model_type") {
            None | Some(Value::Null) => from_architectures(config, roles)?,
            Some(Value::String(name)) => Self::of_type(name).ok_or_else(|| unknown(name, roles))?,
            Some(other) => return Err(unknown(&other.to_string(), roles)),
        };
        if !roles.contains(&kind.role) {
            return Err(unknown(kind.model_type, roles));
        }
        refuse_settings(config)?;
        Ok(kind)
    }

    /// The keys of this kind's configuration that BERT's has under other names: (its own, BERT's, whether this kind
    /// accepts BERT's too).
    pub(super) fn renamed_keys(&self) -> &'static [(&'static str, &'static str, bool)] {
        match self.names {
            Names::DistilBert => &[
                ("dim", "hidden_size", true),
                ("n_layers", "num_hidden_layers", true),
                ("n_heads", "num_attention_heads", true),
                ("hidden_dim", "intermediate_size", false),
                ("activation", "hidden_act", false),
                ("dropout", "hidden_dropout_prob", false),
                ("attention_dropout", "attention_probs_dropout_prob", false),
            ],
            Names::Bert | Names::Clip => &[],
        }
    }
}

/// The kind of a configuration without `model_type`.
fn from_architectures(config: &Map<String, Value>, roles: &[Role]) -> Result<&'static Kind> {
    if let Some(class) = config.get("architectures").and_then(|list| list.get(0)?.as_str()) {
        // The longest match: a CLIPTextModel is not a CLIP.
        let fits = |kind: &&Kind| class.strip_prefix(kind.class).is_some_and(|rest| rest.starts_with(['M', 'F']));
        return KINDS.iter().filter(fits).max_by_key(|kind| kind.class.len()).ok_or_else(|| unknown(class, roles));
    }
    let is = |key: &str, value: u64| config.get(key).and_then(Value::as_u64) == Some(value);
    match roles {
        [Role::Student] if is("type_vocab_size", 1) || is("max_position_embeddings", 514) => {
            Err(Error::new("config.json does not say what kind of model this is, and it may be a RoBERTa")
                .hint("add its model_type to config.json, such as \"model_type\": \"roberta\""))
        }
        [Role::Student] => Ok(&BERT),
        _ if config.contains_key("text_config") || config.contains_key("vision_config") => Ok(&CLIP),
        _ => Err(Error::new("config.json has no model_type").hint(known(roles))),
    }
}

fn unknown(name: &str, roles: &[Role]) -> Error {
    let wanted = if roles.contains(&Role::Student) { "a text encoder" } else { "a CLIP" };
    Error::new(format!("a model of the type `{name}` is not {wanted} that themo computes")).hint(known(roles))
}

fn known(roles: &[Role]) -> String {
    let known: Vec<&str> = KINDS.iter().filter(|k| roles.contains(&k.role)).map(|k| k.model_type).collect();
    format!("model_type in config.json may be {}", known.join(", "))
}

/// Refuses settings that change what a model computes.
fn refuse_settings(config: &Map<String, Value>) -> Result<()> {
    let is_off = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    for (key, what) in [
        ("is_decoder", "a decoder, whose tokens see only those before them"),
        ("add_cross_attention", "a decoder that attends to another model's states"),
        ("is_encoder_decoder", "an encoder with a decoder"),
        ("pruned_heads", "a model without some of its attention heads"),
        ("quantization_config", "a model with quantized weights"),
    ] {
        if let Some(value) = config.get(key).filter(|value| !is_off(value)) {
            return Err(Error::new(format!("`{key}` is {value} in config.json: themo does not compute {what}"))
                .hint("use a plain encoder; if the setting is a mistake, mend config.json"));
        }
    }
    match config.get("position_embedding_type") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(name)) if name == "absolute" => Ok(()),
        Some(other) => Err(Error::new(format!(
            "`position_embedding_type` is {other} in config.json: themo computes \
             absolute positions only"
        ))
        .hint("use a model with absolute positions")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kind(config: &Value, roles: &[Role]) -> Result<&'static str> {
        Kind::of_config(config.as_object().unwrap(), roles).map(|kind| kind.model_type)
    }

    const TEXT: [Role; 2] = [Role::Clip, Role::ClipText];

    #[test]
    fn the_type_decides_else_the_class_else_the_sizes() {
        for (config, roles, expected) in [
            (json!({"model_type": "camembert"}), &[Role::Student][..], "camembert"),
            (json!({"architectures": ["XLMRobertaForMaskedLM"]}), &[Role::Student], "xlm-roberta"),
            (json!({"architectures": ["BertForMaskedLM"], "model_type": null}), &[Role::Student], "bert"),
            (json!({"type_vocab_size": 2}), &[Role::Student], "bert"),
            (json!({"architectures": ["CLIPModel"]}), &TEXT, "clip"),
            (json!({"architectures": ["CLIPTextModelWithProjection"]}), &TEXT, "clip_text_model"),
            (json!({"text_config": {}, "vision_config": {}}), &TEXT, "clip"),
            (json!({"model_type": "bert", "is_decoder": false, "pruned_heads": {}}), &[Role::Student], "bert"),
        ] {
            assert_eq!(kind(&config, roles).unwrap(), expected, "{config}");
        }
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (config, roles, words) in [
            (json!({"model_type": "roberta-prelayernorm"}), &[Role::Student][..], "roberta-prelayernorm"),
            (json!({"model_type": "clip"}), &[Role::Student], "`clip`"),
            (json!({"model_type": "bert"}), &TEXT, "`bert`"),
            (json!({"model_type": "siglip"}), &TEXT, "siglip"),
            (json!({"model_type": 7}), &TEXT, "7"),
            (json!({"model_type": "clip_vision_model"}), &TEXT, "clip_vision_model"),
            (json!({"architectures": ["BertGenerationEncoder"]}), &[Role::Student], "BertGenerationEncoder"),
            (json!({"type_vocab_size": 1}), &[Role::Student], "RoBERTa"),
            (json!({}), &TEXT, "model_type"),
            (json!({"model_type": "bert", "is_decoder": true}), &[Role::Student], "is_decoder"),
            (json!({"model_type": "bert", "pruned_heads": {"0": [1]}}), &[Role::Student], "pruned_heads"),
            (
                json!({"model_type": "bert", "position_embedding_type": "relative_key"}),
                &[Role::Student],
                "relative_key",
            ),
        ] {
            let error = kind(&config, roles).unwrap_err();
            let message = format!("{error} / {}", error.advice().unwrap());
            assert!(message.contains(words), "no {words} in {message}");
        }
    }

    #[test]
    fn every_type_and_class_is_there_once() {
        for (i, kind) in KINDS.iter().enumerate() {
            assert!(!KINDS[..i].iter().any(|k| k.model_type == kind.model_type || k.class == kind.class));
            assert_eq!(kind.role != Role::Student, kind.norm_first);
        }
    }
}

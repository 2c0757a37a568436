//! Which of transformers' tokenizer classes a folder's tokenizer is, as AutoTokenizer decides it
//! (`models/auto/tokenization_auto.py` in transformers 5.24).

use serde_json::Value;

use crate::error::{Error, Result};

/// By whose rules a tokenizer is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// `tokenizer.json` as it stands (TokenizersBackend, the PreTrainedTokenizerFast of before).
    AsItStands,
    Bert,
    Roberta,
    Clip,
    XlmRoberta,
    Camembert,
}

impl Class {
    /// The name of its class in transformers.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AsItStands => "PreTrainedTokenizerFast",
            Self::Bert => "BertTokenizer",
            Self::Roberta => "RobertaTokenizer",
            Self::Clip => "CLIPTokenizer",
            Self::XlmRoberta => "XLMRobertaTokenizer",
            Self::Camembert => "CamembertTokenizer",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "TokenizersBackend" => Self::AsItStands,
            "BertTokenizer" => Self::Bert,
            "RobertaTokenizer" => Self::Roberta,
            "CLIPTokenizer" => Self::Clip,
            "XLMRobertaTokenizer" => Self::XlmRoberta,
            "CamembertTokenizer" => Self::Camembert,
            _ => return None,
        })
    }
}

/// transformers' classes, one a line: its name, the class by whose rules it is built (`-`: by its own), and the model
/// types for which it is the default. `tests/golden/tokenizer_classes.py` makes it.
const CLASSES: &str = include_str!("classes.tsv");

fn rows() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    CLASSES.lines().filter_map(|line| {
        let (name, rest) = line.split_once('\t')?;
        let (built_as, types) = rest.split_once('\t')?;
        Some((name, built_as, types))
    })
}

/// The class for a model's `config.json` and `tokenizer_config.json` (null where there is none): the one that the second
/// names, or the first, or the default of its model type. None where nothing says which.
///
/// # Errors
/// A class whose rules are not followed here.
pub(super) fn of(config: &Value, settings: &Value) -> Result<Option<Class>> {
    let name = [settings, config].into_iter().find_map(|json| json["tokenizer_class"].as_str());
    let name = name.map(|name| name.strip_suffix("Fast").unwrap_or(name));
    let model_type = config["model_type"].as_str().unwrap_or_default();
    let default = rows().find(|(_, _, types)| types.split(' ').any(|one| !one.is_empty() && one == model_type));
    let (name, built_as) = match (name, default) {
        // These model types have no class of their own, whatever the files say.
        (_, Some((name, "TokenizersBackend", _))) => (name, "TokenizersBackend"),
        // A class that transformers does not know is that of a whole tokenizer.json.
        (Some(name), _) => (name, rows().find(|row| row.0 == name).map_or("TokenizersBackend", |row| row.1)),
        (None, Some((name, built_as, _))) => (name, built_as),
        (None, None) => return Ok(None),
    };
    Class::named(built_as).map(Some).ok_or_else(|| {
        Error::new(format!("its tokenizer is of the class {name}, whose rules themo does not know")).hint(
            "if its tokenizer.json is right as it stands, write \"tokenizer_class\": \"PreTrainedTokenizerFast\" into \
             tokenizer_config.json; the classes followed are BertTokenizer, RobertaTokenizer, CLIPTokenizer, \
             XLMRobertaTokenizer and CamembertTokenizer",
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What AutoTokenizer of transformers 5.24 gave for these.
    #[test]
    fn the_class_is_the_one_that_autotokenizer_takes() {
        let of = |model: &str, class: Value| {
            of(&json!({"model_type": model}), &json!({"tokenizer_class": class})).map_err(|e| e.to_string())
        };
        assert_eq!(of("bert", Value::Null), Ok(Some(Class::Bert)));
        assert_eq!(of("bert", json!("BertTokenizerFast")), Ok(Some(Class::Bert)));
        assert_eq!(of("electra", json!("ElectraTokenizer")), Ok(Some(Class::Bert)));
        assert_eq!(of("distilbert", json!("DistilBertTokenizerFast")), Ok(Some(Class::Bert)));
        assert_eq!(of("bert", json!("PreTrainedTokenizerFast")), Ok(Some(Class::AsItStands)));
        assert_eq!(of("bert", json!("PreTrainedTokenizer")), Ok(Some(Class::AsItStands)));
        assert_eq!(of("bert", json!("NobodysTokenizer")), Ok(Some(Class::AsItStands)));
        assert_eq!(of("modernbert", json!("BertTokenizer")), Ok(Some(Class::AsItStands)));
        assert_eq!(of("roberta", Value::Null), Ok(Some(Class::Roberta)));
        assert_eq!(of("longformer", json!("LongformerTokenizer")), Ok(Some(Class::Roberta)));
        assert_eq!(of("M-CLIP", json!("XLMRobertaTokenizer")), Ok(Some(Class::XlmRoberta)));
        assert_eq!(of("M-CLIP", Value::Null), Ok(None));
        assert_eq!(of("", Value::Null), Ok(None));
        assert!(of("bert", json!("AlbertTokenizer")).unwrap_err().contains("AlbertTokenizer"));
        assert!(of("gpt2", Value::Null).unwrap_err().contains("GPT2Tokenizer"));
        let config = json!({"model_type": "bert", "tokenizer_class": "CLIPTokenizer"});
        assert_eq!(super::of(&config, &Value::Null).unwrap(), Some(Class::Clip));
    }
}

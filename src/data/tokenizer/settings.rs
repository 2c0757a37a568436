//! What the files beside a vocabulary say about a tokenizer: `tokenizer_config.json`, and where that has no
//! `added_tokens_decoder`, `special_tokens_map.json`, `added_tokens.json` and the added tokens of `tokenizer.json`.
//! As `_from_pretrained` in `tokenization_utils_base.py` of transformers 5.24 puts them together.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use crate::error::{Error, Result, ResultExt};

/// The special tokens that have a name everywhere, in transformers' order.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Settings that would replace the tokenizer itself, or run code.
const NOT_FOLLOWED: [&str; 12] = [
    "auto_map",
    "init_inputs",
    "vocab",
    "merges",
    "tokenizer_object",
    "gguf_file",
    "post_processor",
    "tokenizer_truncation",
    "tokenizer_padding",
    "model_specific_special_tokens",
    "fix_mistral_regex",
    "_spm_precompiled_charsmap",
];

/// A token as files give it: its text alone, or with the rules for finding it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Plain(String),
    Added(AddedToken),
}

impl Token {
    /// A string, or an object with `"__type": "AddedToken"`; of another object transformers makes nothing either.
    fn parse(key: &str, value: &Value) -> Result<Self> {
        match value {
            Value::String(text) => Ok(Self::Plain(text.clone())),
            Value::Object(fields) if fields.contains_key(TYPE) => Ok(Self::Added(added_token(key, value)?)),
            _ => Err(Error::new(format!("{key} is neither a string nor an AddedToken"))
                .hint("transformers refuses it too; write the token as a string")),
        }
    }

    /// The token itself.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Added(token) => &token.content,
        }
    }
}

/// Marks an object as a token.
const TYPE: &str = "__type";
/// Its value where this module has set it.
const MARKED: &str = "marked";

/// An `AddedToken`. What is not said is false, but `normalized`, which is the opposite of `special`.
fn added_token(key: &str, value: &Value) -> Result<AddedToken> {
    let fields = value.as_object().ok_or_else(|| Error::new(format!("{key} is no description of a token")))?;
    let flag = |name: &str| match fields.get(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(Error::new(format!("`{name}` of {key} is {other}, neither true nor false"))),
    };
    let content = match fields.get("content") {
        None => "",
        Some(content) => content.as_str().ok_or_else(|| Error::new(format!("the content of {key} is no text")))?,
    };
    let special = flag("special")?.unwrap_or(false);
    Ok(AddedToken {
        content: content.to_owned(),
        single_word: flag("single_word")?.unwrap_or(false),
        lstrip: flag("lstrip")?.unwrap_or(false),
        rstrip: flag("rstrip")?.unwrap_or(false),
        normalized: flag("normalized")?.unwrap_or(!special),
        special,
    })
}

/// All settings of a tokenizer.
#[derive(Debug, Default)]
pub(super) struct Settings {
    values: Map<String, Value>,
    /// Special tokens with names of the model's own.
    specific: Vec<(String, Value)>,
    /// Tokens to add, in the order of their numbers. (The numbers themselves decide nothing: ids follow the vocabulary.)
    pub(super) added: BTreeMap<i64, AddedToken>,
    /// The same by their text, the last one read.
    described: HashMap<String, AddedToken>,
}

impl Settings {
    /// From `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and `tokenizer.json`; null stands for
    /// a missing file.
    pub(super) fn read(config: Value, special: Value, added: Value, tokenizer: &Value) -> Result<Self> {
        let mut settings = Self { values: object("tokenizer_config.json", config)?, ..Self::default() };
        let values = &mut settings.values;
        if !values.get(EXTRA).is_some_and(truthy)
            && let Some(tokens) = values.shift_remove(ADDITIONAL)
        {
            values.insert(EXTRA.to_owned(), tokens);
        }
        let own = |key: &str, value: &Value| key.ends_with("_token") && !NAMED.contains(&key) && value.is_string();
        let (specific, values) = std::mem::take(values).into_iter().partition::<Map<_, _>, _>(|(k, v)| own(k, v));
        settings.values = values;
        settings.specific.extend(specific);
        settings.take_named_extras();
        match settings.values.shift_remove("added_tokens_decoder") {
            Some(decoder) => {
                for (index, token) in object("added_tokens_decoder", decoder)? {
                    let index =
                        index.trim().parse().map_err(|_| Error::new(format!("{index} is no token's number")))?;
                    settings.add(index, added_token("a token of added_tokens_decoder", &token)?);
                }
            }
            None => settings.read_older_files(special, added, tokenizer)?,
        }
        settings.refuse_what_is_not_followed()?;
        settings.describe_named();
        Ok(settings)
    }

    fn refuse_what_is_not_followed(&self) -> Result<()> {
        let set = |key: &&&str| self.values.get(**key).is_some_and(truthy);
        if let Some(key) = NOT_FOLLOWED.iter().find(set) {
            return Err(Error::new(format!("themo does not follow `{key}`"))
                .context("tokenizer_config.json")
                .hint("save the tokenizer again with transformers, or remove the setting if it means nothing"));
        }
        let other = |name: &&Value| name.as_str() != Some("tokenizer.json");
        match self.values.get("fast_tokenizer_files").and_then(Value::as_array).and_then(|l| l.iter().find(other)) {
            Some(name) => Err(Error::new(format!("themo does not read another tokenizer file, {name}"))
                .context("fast_tokenizer_files in tokenizer_config.json")
                .hint("rename that file to tokenizer.json and remove the setting")),
            None => Ok(()),
        }
    }

    /// Extra special tokens that have names.
    fn take_named_extras(&mut self) {
        if self.values.get(EXTRA).is_some_and(Value::is_object)
            && let Some(Value::Object(tokens)) = self.values.shift_remove(EXTRA)
        {
            self.specific.extend(tokens);
        }
    }

    /// The files that counted before there was an `added_tokens_decoder`.
    fn read_older_files(&mut self, special: Value, added: Value, tokenizer: &Value) -> Result<()> {
        let mark = |mut value: Value| {
            if let Value::Object(fields) = &mut value {
                fields.insert("special".into(), true.into());
                fields.insert(TYPE.into(), MARKED.into());
            }
            value
        };
        for (key, value) in object("special_tokens_map.json", special)? {
            let value = match value {
                Value::Array(tokens) if key == EXTRA => {
                    let mut all = self.values.get(EXTRA).and_then(Value::as_array).cloned().unwrap_or_default();
                    for token in tokens.into_iter().map(mark) {
                        if !all.contains(&token) {
                            all.push(token);
                        }
                    }
                    all.into()
                }
                value if key == EXTRA => value,
                value => mark(value),
            };
            self.values.insert(key, value);
        }
        self.take_named_extras();

        // (An object of tokenizer_config.json is no token yet at this point, and is not found.)
        let text = |value: &Value| match value[TYPE] == MARKED {
            true => value["content"].as_str().map(str::to_owned),
            false => value.as_str().map(str::to_owned),
        };
        let extra = self.values.get(EXTRA).and_then(Value::as_array).into_iter().flatten();
        let special: Vec<String> =
            NAMED.iter().filter_map(|key| self.values.get(*key)).chain(extra).filter_map(text).collect();
        for (token, index) in object("added_tokens.json", added)? {
            let index = index.as_i64().ok_or_else(|| {
                Error::new(format!("the id of {token} is {index}, not a number")).context("added_tokens.json")
            })?;
            self.add(index, AddedToken::from(token.as_str(), special.contains(&token)));
        }
        for token in tokenizer["added_tokens"].as_array().into_iter().flatten() {
            let index = token["id"].as_i64().ok_or_else(|| Error::new("an added token of tokenizer.json has no id"))?;
            self.add(index, added_token("an added token of tokenizer.json", token)?);
        }
        Ok(())
    }

    fn add(&mut self, index: i64, token: AddedToken) {
        self.described.insert(token.content.clone(), token.clone());
        self.added.insert(index, token);
    }

    /// A named token that is also an added one is found by the rules of that.
    fn describe_named(&mut self) {
        for key in NAMED {
            let Some(value) = self.values.get_mut(key) else { continue };
            let text = if value.get(TYPE).is_some() { value["content"].as_str() } else { value.as_str() };
            if let Some(token) = text.and_then(|text| self.described.get(text)) {
                *value = json!({
                    "content": token.content, "single_word": token.single_word, "lstrip": token.lstrip,
                    "rstrip": token.rstrip, "normalized": token.normalized, "special": token.special, TYPE: MARKED,
                });
            }
        }
    }

    /// Whether `key` is true, or `default` where no file mentions it.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.values.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(not_a_flag(key, other)),
        }
    }

    /// The same where null has a meaning of its own.
    pub(super) fn flag_or_null(&self, key: &str) -> Result<Option<bool>> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(not_a_flag(key, other)),
        }
    }

    /// Whether a file mentions `key`.
    pub(super) fn mentions(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Whether texts lose their beginning when they are cut; `default` is what `tokenizer.json` says.
    pub(super) fn cuts_left(&self, default: &Value) -> Result<bool> {
        match self.values.get("truncation_side").unwrap_or(default) {
            Value::Null => Ok(false),
            side if side.as_str().is_some_and(|side| side.eq_ignore_ascii_case("left")) => Ok(true),
            side if side.as_str().is_some_and(|side| side.eq_ignore_ascii_case("right")) => Ok(false),
            side => Err(Error::new(format!("truncation_side is {side}")).hint("it must be \"right\" or \"left\"")),
        }
    }

    /// The named special tokens: those of the files, then, where they do not mention one, `defaults`.
    pub(super) fn named(&self, defaults: &[(&str, Token)]) -> Result<Named> {
        let mut named = Vec::new();
        for key in NAMED {
            let token = match self.values.get(key) {
                Some(Value::Null) => None,
                Some(value) => Some(Token::parse(key, value)?),
                None => defaults.iter().find(|(name, _)| *name == key).map(|(_, token)| token.clone()),
            };
            named.extend(token.map(|token| (key.to_owned(), token)));
        }
        let own = |key: &str, value: &Value| {
            key.ends_with("_token") && !NAMED.contains(&key) && (value.is_string() || value.get(TYPE).is_some())
        };
        let specific = self.specific.iter().map(|(key, value)| (key, value));
        for (key, value) in self.values.iter().filter(|(key, value)| own(key, value)).chain(specific) {
            let token = Token::parse(key, value)?;
            match named.iter_mut().find(|(name, _)| name == key) {
                Some(place) => place.1 = token,
                None => named.push((key.clone(), token)),
            }
        }
        Ok(Named(named))
    }

    /// Special tokens without a name; `additional` where no file has a list of `extra_special_tokens`.
    pub(super) fn extra(&self, additional: Option<Vec<Token>>) -> Result<Vec<Token>> {
        let list = match (self.values.get(EXTRA), additional) {
            (Some(list), _) => list,
            (None, Some(additional)) => return Ok(additional),
            (None, None) => self.values.get(ADDITIONAL).unwrap_or(&Value::Null),
        };
        match list {
            Value::Null => Ok(Vec::new()),
            Value::Array(tokens) => tokens.iter().map(|token| Token::parse("an extra special token", token)).collect(),
            other => Err(Error::new(format!("{EXTRA} is {other}, not a list"))),
        }
    }

    /// Whether a file lists `additional_special_tokens`.
    pub(super) fn has_additional(&self) -> bool {
        self.values.get(ADDITIONAL).is_some_and(|list| !list.is_null())
    }
}

const EXTRA: &str = "extra_special_tokens";
const ADDITIONAL: &str = "additional_special_tokens";

/// Special tokens with their names, such as `cls_token`.
pub(super) struct Named(pub(super) Vec<(String, Token)>);

impl Named {
    pub(super) fn get(&self, key: &str) -> Result<&Token> {
        let token = self.0.iter().find(|(name, _)| name == key);
        token.map(|(_, token)| token).ok_or_else(|| {
            Error::new(format!("{key} is null")).hint("name the token in tokenizer_config.json, or remove the setting")
        })
    }
}

fn not_a_flag(key: &str, value: &Value) -> Error {
    Error::new(format!("{key} is {value}, neither true nor false"))
        .context("tokenizer_config.json")
        .hint("transformers refuses it too; write true or false without quotes")
}

/// As Python's `if`.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// The fields of a JSON object; none for null, which stands for a missing file.
fn object(what: &str, value: Value) -> Result<Map<String, Value>> {
    match value {
        Value::Null => Ok(Map::new()),
        Value::Object(fields) => Ok(fields),
        _ => Err(Error::new("it is not a JSON object")).context(|| what.to_owned()),
    }
}

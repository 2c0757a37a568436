//! From the files of a model folder to the tokenizer that transformers' AutoTokenizer makes of them.
//!
//! | file | |
//! |---|---|
//! | `class` | which of transformers' classes it is |
//! | `settings` | what `tokenizer_config.json` and the older files beside it say |
//! | `build` | the tokenizers as the classes build them |
//! | `json` | checks of a `tokenizer.json`, and parts of it |
//! | `sentencepiece` | SentencePiece models |
//!
//! What a class does not look at (`never_split`, `do_basic_tokenize`, `model_max_length` where a maximum is given) is
//! without effect here too.

mod build;
mod class;
mod json;
mod sentencepiece;
mod settings;

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::models::bpe::Vocab;
use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::{AddedToken, Tokenizer};

use self::build::Pieces;
use self::class::Class;
use self::settings::{Settings, Token};
use crate::error::{Error, Result, ResultExt};

/// The names under which SentencePiece models are shipped. transformers prefers the first.
pub(super) const SENTENCEPIECE_FILES: [&str; 2] = ["tokenizer.model", "sentencepiece.bpe.model"];

/// A tokenizer, its class in transformers, from which side it cuts, the padding that the settings name, and the file with
/// its vocabulary.
pub(super) struct Assembled {
    pub(super) class: &'static str,
    pub(super) tokenizer: Tokenizer,
    pub(super) direction: TruncationDirection,
    pub(super) padding: Option<String>,
    pub(super) path: PathBuf,
}

/// The tokenizer of the model in `folder`.
///
/// # Errors
/// A file that cannot be read or is damaged, and what is not followed, by name.
pub(super) fn assemble(folder: &Path) -> Result<Assembled> {
    let files = Files(folder);
    let whole = files.has("tokenizer.json").then(|| files.bytes("tokenizer.json")).transpose()?;
    let tokenizer_json = match &whole {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|e| files.unusable("tokenizer.json", e.into()))?,
        None => Value::Null,
    };
    let tokenizer_config = files.json("tokenizer_config.json")?;
    let class = class::of(&files.json("config.json")?, &tokenizer_config)
        .context(|| format!("cannot use the tokenizer in {}", folder.display()))?;
    let (class, vocabulary) = match (class, &whole) {
        (None, Some(_)) => (Class::AsItStands, "tokenizer.json"),
        (Some(class), Some(_)) => (class, "tokenizer.json"),
        (class, None) => files.vocabulary(class)?,
    };
    let (special, added) = (files.json("special_tokens_map.json")?, files.json("added_tokens.json")?);
    let made = json::check(&tokenizer_json)
        .and_then(|()| Settings::read(tokenizer_config, special, added, &tokenizer_json))
        .and_then(|settings| make(&files, class, vocabulary, whole.as_deref(), &tokenizer_json, &settings));
    made.map_err(|e| files.unusable(vocabulary, e))
}

/// The tokenizer of `class`, with the vocabulary of a `tokenizer.json` (`whole`, and parsed `json`), or else of the file
/// `vocabulary`.
fn make(
    files: &Files, class: Class, vocabulary: &str, whole: Option<&[u8]>, json: &Value, settings: &Settings,
) -> Result<Assembled> {
    let tokenizer = match class {
        Class::AsItStands => {
            build::as_it_stands(whole.unwrap_or_default(), json["padding"]["pad_token"].as_str(), settings)?
        }
        Class::Bert => {
            warn_of_normalizer(&json["normalizer"], settings)?;
            build::bert(files.vocab(json, vocabulary)?, settings)?
        }
        Class::Roberta => build::roberta(files.vocab(json, vocabulary)?, files.merges(json)?, settings)?,
        Class::Clip => build::clip(files.vocab(json, vocabulary)?, files.merges(json)?, settings)?,
        Class::XlmRoberta | Class::Camembert => {
            let (pieces, charsmap) = files.pieces(json, vocabulary, class)?;
            let build = if class == Class::Camembert { build::camembert } else { build::xlm_roberta };
            build(pieces, &charsmap, settings)?
        }
    };
    let direction = match settings.cuts_left(&json["truncation"]["direction"])? {
        true => TruncationDirection::Left,
        false => TruncationDirection::Right,
    };
    let padding = settings.named(&[])?.get("pad_token").ok().map(|token| token.text().to_owned());
    Ok(Assembled { tokenizer, class: class.name(), direction, padding, path: files.0.join(vocabulary) })
}

/// Warns where BERT's defaults, and no file, overrule what a `tokenizer.json` says of case and accents.
fn warn_of_normalizer(normalizer: &Value, settings: &Settings) -> Result<()> {
    if normalizer["type"] != "BertNormalizer" {
        return Ok(());
    }
    let lower = settings.flag("do_lower_case", true)?;
    let strip = settings.flag_or_null("strip_accents")?.unwrap_or(lower);
    let (its_lower, its_strip) = (normalizer["lowercase"] == true, normalizer["strip_accents"].as_bool());
    let overruled = [("do_lower_case", lower, its_lower), ("strip_accents", strip, its_strip.unwrap_or(its_lower))];
    for (key, used, said) in overruled.into_iter().filter(|(key, used, said)| used != said && !settings.mentions(key)) {
        tracing::warn!(
            "tokenizer_config.json does not say {key}: {used} is used, BertTokenizer's default in transformers 5, though \
             tokenizer.json says {said}"
        );
    }
    Ok(())
}

/// An error of the tokenizers crate.
pub(super) fn tokenizer_error(e: tokenizers::Error) -> Error {
    Error::new(e.to_string())
}

/// The files of a model folder.
struct Files<'a>(&'a Path);

impl Files<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.0.join(name);
        std::fs::read(&path)
            .context(|| format!("cannot read {}", path.display()))
            .hint(|| "a model folder holds config.json, model.safetensors and the tokenizer's files")
    }

    fn text(&self, name: &str) -> Result<String> {
        String::from_utf8(self.bytes(name)?).map_err(|_| Error::new(format!("{name} is not UTF-8")))
    }

    /// A JSON file; null where there is none.
    fn json(&self, name: &str) -> Result<Value> {
        if !self.has(name) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.bytes(name)?)
            .context(|| format!("{} is not JSON", self.0.join(name).display()))
            .hint(|| "fetch the tokenizer's files again")
    }

    fn unusable(&self, name: &str, e: Error) -> Error {
        e.context(format!("{} is not a usable tokenizer", self.0.join(name).display()))
            .hint("fetch the model's tokenizer files again")
    }

    /// Class and main file of a tokenizer without a `tokenizer.json`. Where nothing says which class it is, transformers
    /// makes nothing of it; here the files say so.
    fn vocabulary(&self, class: Option<Class>) -> Result<(Class, &'static str)> {
        let pieces = || SENTENCEPIECE_FILES.into_iter().find(|name| self.has(name));
        let main = match class {
            Some(Class::AsItStands) => None,
            Some(Class::Bert) => self.has("vocab.txt").then_some("vocab.txt"),
            Some(Class::Roberta | Class::Clip) => self.has("vocab.json").then_some("vocab.json"),
            Some(Class::XlmRoberta | Class::Camembert) => pieces(),
            None if self.has("vocab.txt") => Some("vocab.txt"),
            None if self.has("vocab.json") => Some("vocab.json"),
            None => pieces(),
        };
        let missing = |name: &str| {
            Error::new(format!("there is no {name} in {}", self.0.display()))
                .hint("a model folder holds config.json, model.safetensors and the tokenizer's files")
        };
        let main = main.ok_or_else(|| match class {
            None | Some(Class::AsItStands) => missing("tokenizer.json"),
            Some(Class::Bert) => missing("tokenizer.json or vocab.txt"),
            Some(Class::Roberta | Class::Clip) => missing("tokenizer.json or vocab.json"),
            Some(Class::XlmRoberta | Class::Camembert) => missing("tokenizer.json or sentencepiece.bpe.model"),
        })?;
        if main == "vocab.json" && !self.has("merges.txt") {
            return Err(missing("merges.txt"));
        }
        let class = match (class, main) {
            (Some(class), _) => class,
            (None, "vocab.txt") => Class::Bert,
            (None, "vocab.json") if self.json(main)?.get("<|startoftext|>").is_some() => Class::Clip,
            (None, "vocab.json") => Class::Roberta,
            (None, _) => Class::XlmRoberta,
        };
        Ok((class, main))
    }

    /// Token to id, from a `tokenizer.json` or else the file `name`.
    fn vocab(&self, json: &Value, name: &str) -> Result<Vocab> {
        let number = |token: &str, id: &Value| {
            let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
            number.ok_or_else(|| Error::new(format!("the id of {token:?} in the vocabulary is {id}")))
        };
        match name {
            "vocab.txt" => {
                let text = self.text(name)?;
                let lines = text.lines().map(|line| line.trim_end().to_owned());
                Ok(lines.zip(0..).collect())
            }
            "vocab.json" => match self.json(name)? {
                Value::Object(vocab) => vocab
                    .iter()
                    .filter(|(_, id)| id.is_number())
                    .map(|(token, id)| Ok((token.clone(), number(token, id)?)))
                    .collect(),
                _ => Err(Error::new("it is not a JSON object")),
            },
            _ => match &json["model"]["vocab"] {
                Value::Object(vocab) => {
                    vocab.iter().map(|(token, id)| Ok((token.clone(), number(token, id)?))).collect()
                }
                Value::Array(pieces) => {
                    let token = |piece: &Value| piece.as_str().or(piece[0].as_str()).map(str::to_owned);
                    let tokens = pieces.iter().map(|piece| token(piece).ok_or_else(|| no_vocabulary(piece)));
                    tokens.zip(0..).map(|(token, id)| Ok((token?, id))).collect()
                }
                other => Err(no_vocabulary(other)),
            },
        }
    }

    /// The merges of a `tokenizer.json`, or else of `merges.txt`.
    fn merges(&self, json: &Value) -> Result<Vec<(String, String)>> {
        if !json.is_null() {
            return json::merges(&json["model"]);
        }
        let text = self.text("merges.txt")?;
        let lines = text.lines().filter(|line| !line.starts_with("#version"));
        let pair = |line: &str| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
        lines
            .map(|line| {
                pair(line).filter(|(_, b)| !b.contains(' ')).ok_or_else(|| {
                    Error::new(format!("`{line}` in merges.txt is not a merge of two tokens"))
                        .hint("fetch the tokenizer's files again")
                })
            })
            .collect()
    }

    /// Pieces and normalisation rules of a unigram `tokenizer.json`, or else of the SentencePiece model `name`.
    fn pieces(&self, json: &Value, name: &str, class: Class) -> Result<(Pieces, Vec<u8>)> {
        if !json.is_null() {
            let pieces = json["model"]["vocab"].as_array().ok_or_else(|| no_vocabulary(&json["model"]["type"]))?;
            let piece = |piece: &Value| Some((piece[0].as_str()?.to_owned(), piece[1].as_f64()?));
            let pieces: Result<_> = pieces.iter().map(|one| piece(one).ok_or_else(|| no_vocabulary(one))).collect();
            return Ok((Pieces::Whole(pieces?), json::charsmap(json)?.unwrap_or_default()));
        }
        let file = self.bytes(name)?;
        let (pieces, charsmap) = sentencepiece::parse(&file)?;
        let first: Vec<&str> = pieces.iter().take(3).map(|piece| piece.text.as_str()).collect();
        if class == Class::XlmRoberta && first != ["<unk>", "<s>", "</s>"] {
            return Err(Error::new(format!("its first pieces are {first:?}, not XLM-R's <unk>, <s>, </s>"))
                .hint("only SentencePiece models of XLM-R's and CamemBERT's kinds are read; save a tokenizer.json"));
        }
        let own = pieces.iter().filter_map(|piece| {
            let special = piece.is_special()?;
            Some(Token::Added(AddedToken::from(piece.text.as_str(), special).normalized(false)))
        });
        let own = own.collect();
        let pieces = pieces.into_iter().map(|piece| (piece.text, piece.score)).collect();
        Ok((Pieces::Model(pieces, own), charsmap.to_vec()))
    }
}

fn no_vocabulary(value: &Value) -> Error {
    let kind = value.to_string();
    Error::new(format!(
        "its vocabulary is not of the kind that its class has: {}",
        kind.chars().take(60).collect::<String>()
    ))
}

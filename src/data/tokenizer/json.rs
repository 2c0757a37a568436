//! What must hold of a `tokenizer.json` before the tokenizers crate reads it, which would panic else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use serde_json::Value;
use tokenizers::normalizers::Precompiled;

use super::sentencepiece::{LONGEST_PIECE, check_charsmap};
use crate::error::{Error, Result, ResultExt};

/// Refuses what the crate trusts: that the JSON has no fault, and the tables within it.
pub(super) fn check(json: &Value) -> Result<()> {
    check_normalizer(&json["normalizer"])?;
    let model = &json["model"];
    check_vocab(&model["vocab"])?;
    if let Value::Object(vocab) = &model["vocab"] {
        let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
        check_merges(vocab.keys().map(String::len).max().unwrap_or(0), &merges(model)?, prefix)?;
    }
    check_processor(&json["post_processor"])
}

/// The merges of a BPE model, `"a b"` or `["a", "b"]` each.
pub(super) fn merges(model: &Value) -> Result<Vec<(String, String)>> {
    let pair = |merge: &Value| match merge {
        Value::String(merge) => merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
        merge => Some((merge[0].as_str()?.to_owned(), merge[1].as_str()?.to_owned())),
    };
    let merges = model["merges"].as_array().into_iter().flatten();
    merges.map(|merge| pair(merge).ok_or_else(|| Error::new(format!("{merge} is no merge of two tokens")))).collect()
}

/// Refuses merges into tokens that are longer than the `longest` of the vocabulary (in bytes): the crate writes them
/// into a buffer of that length.
pub(super) fn check_merges(longest: usize, merges: &[(String, String)], prefix: &str) -> Result<()> {
    let fits = |(a, b): &&(String, String)| b.get(prefix.len()..).is_some_and(|b| a.len() + b.len() <= longest);
    match merges.iter().find(|merge| !fits(merge)) {
        Some((a, b)) => Err(Error::new(format!("the merge of {a} and {b} is not in the vocabulary"))),
        None => Ok(()),
    }
}

/// The normalisation rules of a SentencePiece model that a `tokenizer.json` was made from.
pub(super) fn charsmap(json: &Value) -> Result<Option<Vec<u8>>> {
    let normalizer = &json["normalizer"];
    let all = match normalizer["normalizers"].as_array().filter(|_| normalizer["type"] == "Sequence") {
        Some(all) => all.iter().collect(),
        None => vec![normalizer],
    };
    all.into_iter()
        .find_map(|one| one["precompiled_charsmap"].as_str().filter(|_| one["type"] == "Precompiled"))
        .map(base64)
        .transpose()
}

/// Refuses a `tokenizer.json`'s vocabulary with pieces that are too long for a tree.
fn check_vocab(vocab: &Value) -> Result<()> {
    let longest = vocab.as_array().into_iter().flatten().filter_map(|piece| piece[0].as_str()).map(str::len).max();
    match longest.filter(|length| *length > LONGEST_PIECE) {
        Some(length) => Err(Error::new(format!("a piece has {length} bytes, more than the {LONGEST_PIECE} allowed"))),
        None => Ok(()),
    }
}

/// Refuses broken normalisation rules in a `tokenizer.json`'s normalizer.
fn check_normalizer(normalizer: &Value) -> Result<()> {
    normalizer["normalizers"].as_array().into_iter().flatten().try_for_each(check_normalizer)?;
    let Some(charsmap) = normalizer["precompiled_charsmap"].as_str() else {
        return if normalizer["type"] == "Precompiled" {
            Err(Error::new("its normalisation rules are missing"))
        } else {
            Ok(())
        };
    };
    serde_json::from_str::<Precompiled>(&normalizer.to_string()).context(|| "its normalisation rules")?;
    check_charsmap(&base64(charsmap)?).context(|| "its normalisation rules")
}

/// Refuses a template that names tokens which it does not describe, or a second text.
fn check_processor(processor: &Value) -> Result<()> {
    processor["processors"].as_array().into_iter().flatten().try_for_each(check_processor)?;
    for piece in processor["single"].as_array().into_iter().flatten() {
        let token = piece["SpecialToken"]["id"].as_str();
        if let Some(token) = token.filter(|token| processor["special_tokens"].get(token).is_none()) {
            return Err(Error::new(format!("its post_processor does not describe the token {token}")));
        }
        if piece["Sequence"]["id"] == "B" {
            return Err(Error::new("its post_processor asks for a second text"));
        }
    }
    Ok(())
}

/// The bytes that `text` stands for, with or without padding, as the tokenizers crate takes it.
fn base64(text: &str) -> Result<Vec<u8>> {
    let bytes = STANDARD_PAD_INDIFFERENT.decode(text);
    bytes.map_err(|e| Error::new(format!("its normalisation rules are no base64 ({e})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python's `base64.b64encode` makes of the bytes; padding may be missing.
    #[test]
    fn base64_is_read_with_and_without_padding_and_nothing_else_is() {
        assert_eq!(base64("AAH+/w==").unwrap(), [0u8, 1, 254, 255]);
        assert_eq!(base64("AAH+/w").unwrap(), [0u8, 1, 254, 255]);
        assert!(base64("").unwrap().is_empty());
        assert!(base64("AAH-_w==").is_err() && base64("AA H+/w==").is_err());
    }
}

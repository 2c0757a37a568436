//! What must hold of a `tokenizer.json` before the tokenizers crate reads it, which would panic else.

use serde_json::Value;
use tokenizers::normalizers::Precompiled;

use super::sentencepiece::{LONGEST_PIECE, check_charsmap};
use crate::error::{Error, Result, ResultExt};

/// Refuses what the crate trusts: that the JSON has no fault, and the tables within it.
pub(super) fn check(json: &[u8]) -> Result<()> {
    // (The value is not handed on: numbers would lose a digit.)
    let json: Value = serde_json::from_slice(json)?;
    check_normalizer(&json["normalizer"])?;
    check_vocab(&json["model"]["vocab"])?;
    check_processor(&json["post_processor"])
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
    check_charsmap(&base64(charsmap)).context(|| "its normalisation rules")
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

/// The bytes of valid base64.
fn base64(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len() / 4 * 3), 0u32, 0);
    for byte in text.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => break, // padding
        };
        (bits, held) = (bits << 6 | u32::from(digit), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

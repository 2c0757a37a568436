//! The tokenizer's files: a `tokenizer.json` that needs no other file, and settings with nothing left to defaults,
//! which differ between the versions of transformers.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Source, write_json};
use crate::data::tokens::TOKENIZER_FILES;
use crate::error::{Result, ResultExt};
use crate::models::folder::read_json;

const WHOLE: &str = "tokenizer.json";
const SETTINGS: &str = "tokenizer_config.json";

/// What settings say of where they were made.
const OF_THE_MAKER: [&str; 4] = ["name_or_path", "special_tokens_map_file", "tokenizer_file", "vocab_file"];

/// Writes the files of the student's tokenizer into `folder`.
pub(super) fn write(source: &Source, folder: &Path) -> Result<()> {
    for name in TOKENIZER_FILES.into_iter().filter(|name| ![WHOLE, SETTINGS].contains(name)) {
        let from = source.tokenizer_folder.join(name);
        if from.exists() {
            fs::copy(&from, folder.join(name)).context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    let whole = source.tokenizer.to_json()?;
    let path = source.tokenizer_folder.join(SETTINGS);
    let mut settings: Map<String, Value> = if path.exists() { read_json(&path)? } else { Map::new() };
    settings.retain(|key, _| !OF_THE_MAKER.contains(&key.as_str()));
    settings.remove("max_len"); // the name of model_max_length before transformers 3
    let (max_tokens, cuts_left) = source.tokenizer.truncation();
    settings.insert("model_max_length".into(), json!(max_tokens));
    settings.insert("truncation_side".into(), json!(if cuts_left { "left" } else { "right" }));
    settings.entry("tokenizer_class").or_insert_with(|| json!(source.tokenizer.class()));
    let normalizer = &whole["normalizer"];
    if normalizer["type"] == "BertNormalizer" {
        for (key, part) in [
            ("do_lower_case", "lowercase"),
            ("strip_accents", "strip_accents"),
            ("tokenize_chinese_chars", "handle_chinese_chars"),
        ] {
            settings.insert(key.into(), normalizer[part].clone());
        }
    }
    write_json(&folder.join(SETTINGS), &Value::Object(settings))?;
    write_json(&folder.join(WHOLE), &whole)
}

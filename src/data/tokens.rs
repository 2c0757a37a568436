//! Captions to token ids, with the checkpoint's own tokenizer.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokenizers::Tokenizer;
use tokenizers::utils::truncation::TruncationParams;

use super::{sentencepiece, tokenizer_json};
use crate::error::{Error, Result, ResultExt};

/// The files that make up a tokenizer, copied beside a checkpoint so that it stands on its own.
pub const TOKENIZER_FILES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    SENTENCEPIECE_FILES[0],
    SENTENCEPIECE_FILES[1],
    SENTENCEPIECE_FILES[2],
];

/// The names under which SentencePiece models are shipped; XLM-R's is the first.
const SENTENCEPIECE_FILES: [&str; 3] = ["sentencepiece.bpe.model", "tokenizer.model", "spiece.model"];

/// A checkpoint's tokenizer, cutting at a maximal length and adding its special tokens; it never pads.
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    path: PathBuf,
}

impl TextTokenizer {
    /// From the tokenizer's files in `folder`: `tokenizer.json`, else a BERT's `vocab.txt`, else CLIP's `vocab.json`
    /// and `merges.txt`, else XLM-R's SentencePiece model. Sequences hold at most `max_tokens` ids, the special ones
    /// included.
    pub fn from_folder(folder: &Path, max_tokens: usize) -> Result<Self> {
        let (path, tokenizer) = assemble(folder)?;
        let wrong = |e: Error| {
            e.context(format!("{} is not a usable tokenizer", path.display()))
                .hint("fetch the model's tokenizer files again")
        };
        let mut tokenizer = tokenizer.map_err(wrong)?;
        tokenizer.with_padding(None);
        let truncation = TruncationParams { max_length: max_tokens, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|e| wrong(told(e)))?;
        Ok(Self { tokenizer, path })
    }

    /// The padding's id in the vocabulary, where it has one.
    pub fn padding(&self) -> Option<u32> {
        ["[PAD]", "<pad>"].iter().find_map(|token| self.tokenizer.token_to_id(token))
    }

    /// Token ids of each text, tokenized in parallel.
    pub fn encode<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>> {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let encodings = self
            .tokenizer
            .encode_batch_fast(texts, true)
            .map_err(|e| Error::new(e.to_string()).context(self.path.display().to_string()))?;
        Ok(encodings.iter().map(|e| e.get_ids().to_vec()).collect())
    }
}

/// An error of the tokenizers crate.
fn told(e: tokenizers::Error) -> Error {
    Error::new(e.to_string())
}

/// The main file of the tokenizer in `folder`, and what it makes. Only a file that cannot be read is an error by itself.
fn assemble(folder: &Path) -> Result<(PathBuf, Result<Tokenizer>)> {
    let read = |name: &str| {
        let path = folder.join(name);
        let bytes = std::fs::read(&path)
            .context(|| format!("cannot read {}", path.display()))
            .hint(|| "a model folder holds config.json, model.safetensors and the tokenizer's files")?;
        Ok::<_, Error>((path, bytes))
    };
    let json = |name: &str| -> Result<Value> {
        let (path, bytes) = read(name)?;
        serde_json::from_slice(&bytes)
            .context(|| format!("{} is not JSON", path.display()))
            .hint(|| "fetch the tokenizer's files again")
    };
    let has = |name: &str| folder.join(name).exists();
    if has("tokenizer.json") {
        let (path, bytes) = read("tokenizer.json")?;
        return Ok((path, tokenizer_json::check(&bytes).and_then(|()| from_json(&bytes))));
    }
    if has("vocab.txt") {
        let (path, vocab) = read("vocab.txt")?;
        let settings = if has("tokenizer_config.json") { json("tokenizer_config.json")? } else { Value::Null };
        let made = utf8(vocab).and_then(|vocab| from_value(&bert_tokenizer(&vocab, &settings)?));
        return Ok((path, made));
    }
    if has("merges.txt") {
        let (path, merges) = read("merges.txt")?;
        let vocab = json("vocab.json")?;
        return Ok((path, utf8(merges).and_then(|merges| from_value(&clip_tokenizer(vocab, &merges)?))));
    }
    match SENTENCEPIECE_FILES.into_iter().find(|name| has(name)) {
        Some(name) => read(name).map(|(path, bytes)| (path, sentencepiece::tokenizer(&bytes))),
        None => Err(Error::new(format!("there is no tokenizer.json in {}", folder.display()))
            .hint("a model folder holds config.json, model.safetensors and the tokenizer's files")),
    }
}

fn utf8(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::new("it is not UTF-8"))
}

fn from_value(json: &Value) -> Result<Tokenizer> {
    from_json(json.to_string().as_bytes())
}

fn from_json(json: &[u8]) -> Result<Tokenizer> {
    Tokenizer::from_bytes(json).map_err(told)
}

/// transformers' BertTokenizer. Special ids are where the vocabulary has them (BETO: [MASK] 0, [PAD] 1, [CLS] 4).
fn bert_tokenizer(vocab: &str, settings: &Value) -> Result<Value> {
    let vocab: serde_json::Map<String, Value> =
        vocab.lines().enumerate().map(|(id, token)| (token.trim_end().to_owned(), id.into())).collect();
    let special = |key: &str, default: &str| {
        // Either the token itself, or an object that describes it.
        let token = settings[key].as_str().or(settings[key]["content"].as_str()).unwrap_or(default).to_owned();
        let id = vocab.get(&token).cloned();
        id.map(|id| (token.clone(), id)).ok_or_else(|| {
            Error::new(format!("vocab.txt does not have the special token {token}"))
                .hint("fetch the tokenizer's files again")
        })
    };
    let (unknown, cls, sep) =
        (special("unk_token", "[UNK]")?, special("cls_token", "[CLS]")?, special("sep_token", "[SEP]")?);
    let mut added = vec![unknown.clone(), cls.clone(), sep.clone()];
    added.extend([special("pad_token", "[PAD]"), special("mask_token", "[MASK]")].into_iter().flatten());
    added.sort_by_key(|(_, id)| id.as_u64());
    let token = |(token, id): &(String, Value)| json!({"id": token, "ids": [id], "tokens": [token]});
    let piece = |(token, _): &(String, Value)| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let single = json!([piece(&cls), text, piece(&sep)]);
    Ok(json!({
        "version": "1.0",
        "added_tokens": added.iter().map(added_token).collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": settings["tokenize_chinese_chars"].as_bool().unwrap_or(true),
            "strip_accents": settings["strip_accents"], // null: as lower-casing
            "lowercase": settings["do_lower_case"].as_bool().unwrap_or(true),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": single,
            "special_tokens": {(cls.0.clone()): token(&cls), (sep.0.clone()): token(&sep)},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": unknown.0,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }))
}

/// transformers' CLIPTokenizer (byte-level BPE with `</w>` at the end of words).
fn clip_tokenizer(vocab: Value, merges: &str) -> Result<Value> {
    let (start, end) = ("<|startoftext|>", "<|endoftext|>");
    let (Some(start_id), Some(end_id)) = (vocab.get(start).cloned(), vocab.get(end).cloned()) else {
        return Err(
            Error::new(format!("vocab.json does not have {start} and {end}")).hint("fetch the tokenizer's files again")
        );
    };
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty()).collect();
    let words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    Ok(json!({
        "version": "1.0",
        "added_tokens": [added_token(&(start.to_owned(), start_id.clone())), added_token(&(end.to_owned(), end_id.clone()))],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": words}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [end, end_id],
            "cls": [start, start_id],
            "trim_offsets": false,
            "add_prefix_space": false,
        },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": end,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": false,
            "byte_fallback": false,
            "vocab": vocab,
            "merges": merges,
        },
    }))
}

fn added_token((token, id): &(String, Value)) -> Value {
    json!({
        "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true,
    })
}

/// Cuts a list of sequence lengths into runs of at most `max_tokens` tokens (at least one sequence each).
pub fn cut_by_tokens(lengths: impl IntoIterator<Item = usize>, max_tokens: usize) -> Vec<std::ops::Range<usize>> {
    let (mut runs, mut start, mut tokens, mut end) = (Vec::new(), 0, 0, 0);
    for length in lengths {
        if end > start && tokens + length > max_tokens {
            runs.push(start..end);
            (start, tokens) = (end, 0);
        }
        tokens += length;
        end += 1;
    }
    if end > start {
        runs.push(start..end);
    }
    runs
}

/// [`cut_by_tokens`] with the same number of runs, but as equal to each other as that allows.
pub fn cut_evenly(lengths: &[usize], max_tokens: usize) -> Vec<std::ops::Range<usize>> {
    let cut = |most: usize| cut_by_tokens(lengths.iter().copied(), most);
    let mut runs = cut(max_tokens);
    let (mut too_few, mut enough) = (0, max_tokens);
    while enough - too_few > 1 {
        let most = too_few + (enough - too_few) / 2;
        let tried = cut(most);
        if tried.len() == runs.len() {
            (runs, enough) = (tried, most);
        } else {
            too_few = most;
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo(model: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/models").join(model)
    }

    /// `tests/golden/models.py` asked transformers' tokenizers for these.
    #[test]
    fn ids_equal_transformers_from_every_form_of_the_files() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokens.json");
        let golden: Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
        for (model, key, parts) in [
            ("toy-beto", "beto", &["vocab.txt", "tokenizer_config.json"][..]),
            ("toy-clip", "clip", &["vocab.json", "merges.txt"]),
        ] {
            let apart = tempfile::tempdir().unwrap();
            for part in parts {
                std::fs::copy(demo(model).join(part), apart.path().join(part)).unwrap();
            }
            for row in golden[key].as_array().unwrap() {
                let want: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
                for folder in [&demo(model), apart.path()] {
                    let max = row["max_length"].as_u64().unwrap() as usize;
                    let tokenizer = TextTokenizer::from_folder(folder, max).unwrap();
                    assert_eq!(tokenizer.encode(&[row["text"].as_str().unwrap()]).unwrap()[0], want, "{row}");
                }
            }
        }
    }

    /// `tests/golden/tokens_small.py` asked transformers' XLMRobertaTokenizer for these.
    #[test]
    fn sentencepiece_ids_equal_transformers() {
        // (`json` holds what save_pretrained makes of it, with the normalisation in a tokenizer.json.)
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-xlmr-tokenizer");
        let golden: Vec<Value> = serde_json::from_slice(&std::fs::read(folder.join("ids.json")).unwrap()).unwrap();
        assert!(golden.len() > 20);
        for row in golden {
            let want: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
            let max = row["max_length"].as_u64().unwrap_or(512) as usize;
            for folder in [&folder, &folder.join("json")] {
                let tokenizer = TextTokenizer::from_folder(folder, max).unwrap();
                assert_eq!(tokenizer.encode(&[row["text"].as_str().unwrap()]).unwrap()[0], want, "{row}");
            }
        }
    }

    /// Also made by `tests/golden/tokens_small.py`.
    #[test]
    fn a_berts_settings_mean_what_transformers_means() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokens_settings.json");
        let golden: Vec<Value> = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(demo("toy-beto").join("vocab.txt"), folder.path().join("vocab.txt")).unwrap();
        assert_eq!(golden.len(), 40);
        for row in golden {
            std::fs::write(folder.path().join("tokenizer_config.json"), row["settings"].to_string()).unwrap();
            let want: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
            let tokenizer = TextTokenizer::from_folder(folder.path(), 77).unwrap();
            assert_eq!(tokenizer.encode(&[row["text"].as_str().unwrap()]).unwrap()[0], want, "{row}");
        }
    }

    #[test]
    fn runs_hold_at_most_the_tokens_allowed_and_lose_nothing() {
        assert_eq!(cut_by_tokens([3, 3, 3, 9, 1, 1], 6), [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(cut_by_tokens([1, 2, 200], 100), [0..2, 2..3]);
        assert!(cut_by_tokens([], 5).is_empty());
        assert_eq!(cut_evenly(&[3, 3, 3, 1, 1, 1], 9), [0..2, 2..6]);
        assert_eq!(cut_evenly(&[1, 2, 200], 100), [0..2, 2..3]);
        assert_eq!(cut_evenly(&[4, 4, 9], 9), [0..2, 2..3]);
        assert_eq!(cut_evenly(&[4, 4], usize::MAX).len(), 1);
        assert!(cut_evenly(&[], 5).is_empty());
    }
}

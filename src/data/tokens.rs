//! Captions to token ids, with the checkpoint's own tokenizer.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::Tokenizer;
use tokenizers::utils::truncation::{TruncationDirection, TruncationParams};

use super::tokenizer::{self, SENTENCEPIECE_FILES};
use crate::error::{Error, Result};

/// The files on which token ids depend besides `config.json`, copied beside a checkpoint so that it stands on its own.
pub const TOKENIZER_FILES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    SENTENCEPIECE_FILES[0],
    SENTENCEPIECE_FILES[1],
];

/// The files of the model in `folder` on which its token ids depend.
pub fn tokenizer_files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let files = std::iter::once("config.json").chain(TOKENIZER_FILES).map(|name| folder.join(name));
    files.filter(|path| path.exists())
}

/// A checkpoint's tokenizer, cutting at a maximal length and adding its special tokens; it never pads.
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    class: &'static str,
    padding: Option<String>,
    path: PathBuf,
}

impl TextTokenizer {
    /// The tokenizer that transformers makes of `config.json` and [`TOKENIZER_FILES`] in `folder`, as far as they are
    /// there. Sequences hold at most `max_tokens` ids, the special ones included.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged; a class or a setting that themo does not follow, by name.
    pub fn from_folder(folder: &Path, max_tokens: usize) -> Result<Self> {
        let tokenizer::Assembled { mut tokenizer, class, direction, padding, path } = tokenizer::assemble(folder)?;
        tokenizer.with_padding(None);
        let truncation = TruncationParams { max_length: max_tokens, direction, ..Default::default() };
        tokenizer
            .with_truncation(Some(truncation))
            .map_err(|e| Error::new(e.to_string()).context(path.display().to_string()))?;
        Ok(Self { tokenizer, class, padding, path })
    }

    /// The id of the padding that the tokenizer's settings name, else of the usual ones; none where the vocabulary has none.
    pub fn padding(&self) -> Option<u32> {
        let names = self.padding.as_deref().into_iter().chain(["[PAD]", "<pad>"]);
        names.into_iter().find_map(|token| self.tokenizer.token_to_id(token))
    }

    /// The name of the class that transformers makes of its files.
    pub fn class(&self) -> &'static str {
        self.class
    }

    /// It as a `tokenizer.json`, without cutting and padding.
    pub fn to_json(&self) -> Result<Value> {
        let mut tokenizer = self.tokenizer.clone();
        tokenizer.with_truncation(None).map_err(|e| self.failed(e))?;
        let text = tokenizer.to_string(false).map_err(|e| self.failed(e))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The most ids of a text, and whether a longer one loses its beginning, not its end.
    pub fn truncation(&self) -> (usize, bool) {
        let cut = self.tokenizer.get_truncation();
        cut.map_or((usize::MAX, false), |cut| (cut.max_length, cut.direction == TruncationDirection::Left))
    }

    /// Token ids of one text.
    pub fn encode_one(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, true).map_err(|e| self.failed(e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of each text, tokenized in parallel.
    pub fn encode<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>> {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let encodings = self.tokenizer.encode_batch_fast(texts, true).map_err(|e| self.failed(e))?;
        Ok(encodings.iter().map(|e| e.get_ids().to_vec()).collect())
    }

    fn failed(&self, error: tokenizers::Error) -> Error {
        Error::new(error.to_string()).context(self.path.display().to_string())
    }
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

    /// A folder with the files of a form of `tests/golden/token_forms.py`.
    fn lay_out(form: &Value, bases: &Value) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join(bases[form["base"].as_str().unwrap()].as_str().unwrap());
        for name in form["files"].as_array().unwrap() {
            let (source, target) = name.as_str().unwrap().split_once('>').unwrap_or((name.as_str().unwrap(), ""));
            let target = if target.is_empty() { source.rsplit('/').next().unwrap() } else { target };
            std::fs::copy(base.join(source), folder.path().join(target)).unwrap();
        }
        std::fs::write(folder.path().join("config.json"), form["config"].to_string()).unwrap();
        for (name, values) in form["write"].as_object().unwrap() {
            let path = folder.path().join(name);
            let mut content = std::fs::read(&path).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
            for (pointer, value) in values.as_object().unwrap() {
                let Some((parent, last)) = pointer.rsplit_once('/') else {
                    content = value.clone();
                    continue;
                };
                match content.pointer_mut(parent).unwrap() {
                    Value::Array(list) => list.push(value.clone()),
                    parent => parent[last] = value.clone(),
                }
            }
            std::fs::write(path, content.to_string()).unwrap();
        }
        folder
    }

    /// `tests/golden/tokens_small.py` asked transformers' AutoTokenizer for these.
    #[test]
    fn every_form_of_the_files_means_what_transformers_means() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/token_forms.json");
        let golden: Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
        let texts: Vec<String> = serde_json::from_value(golden["texts"].clone()).unwrap();
        let lists: Vec<Vec<u32>> = serde_json::from_value(golden["lists"].clone()).unwrap();
        let (mut equal, mut refused, mut faults) = (0, 0, Vec::new());
        for form in golden["forms"].as_array().unwrap() {
            let folder = lay_out(form, &golden["bases"]);
            let most = form["max"].as_u64().unwrap_or(77) as usize;
            let ids = TextTokenizer::from_folder(folder.path(), most).and_then(|tokenizer| tokenizer.encode(&texts));
            let refusal = form["refused"].as_str().or(form["ids"].is_null().then_some(""));
            match (ids, refusal) {
                (Ok(ids), None) => {
                    let want = form["ids"].as_array().unwrap().iter().map(|at| &lists[at.as_u64().unwrap() as usize]);
                    let differ = ids.iter().zip(want).find(|(ids, want)| ids != want);
                    match differ {
                        Some((ids, want)) => faults.push(format!("{form}: {ids:?}, not {want:?}")),
                        None => equal += 1,
                    }
                }
                (Err(error), Some(part)) if error.to_string().contains(part) => refused += 1,
                (ids, _) => faults.push(format!("{form}: {ids:?}")),
            }
        }
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
        assert!(equal > 600 && refused > 10, "{equal} equal, {refused} refused");
    }

    /// The demo's BERT tokenizer with a file more or another one.
    fn changed(base: &[&str], name: &str, content: &str) -> Result<TextTokenizer> {
        let folder = tempfile::tempdir().unwrap();
        for file in base {
            std::fs::copy(demo("toy-beto").join(file), folder.path().join(file)).unwrap();
        }
        std::fs::write(folder.path().join(name), content).unwrap();
        TextTokenizer::from_folder(folder.path(), 77)
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        let whole = ["tokenizer.json", "config.json"];
        for (name, content, part) in [
            ("tokenizer_config.json", r#"{"auto_map": {"AutoTokenizer": ["a.B", null]}}"#, "auto_map"),
            ("tokenizer_config.json", r#"{"init_inputs": ["x"]}"#, "init_inputs"),
            ("tokenizer_config.json", r#"{"fast_tokenizer_files": ["tokenizer.5.0.json"]}"#, "tokenizer.5.0.json"),
            ("tokenizer_config.json", r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#, "BertJapaneseTokenizer"),
            ("tokenizer_config.json", r#"{"cls_token": null}"#, "cls_token"),
            ("tokenizer_config.json", r#"{"truncation_side": "both"}"#, "truncation_side"),
            ("tokenizer_config.json", r#"{"additional_special_tokens": [{"content": "<x>"}]}"#, "extra special token"),
            ("tokenizer_config.json", r#"{"added_tokens_decoder": {"1": {"content": "<x>", "lstrip": 1}}}"#, "lstrip"),
            ("special_tokens_map.json", r#"{"mask_token": 4}"#, "mask_token"),
            ("added_tokens.json", r#"{"<x>": "4"}"#, "<x>"),
            ("added_tokens.json", r#"["<x>"]"#, "added_tokens.json"),
            ("tokenizer.json", r#"{"model": {"vocab": "a"}}"#, "vocabulary"),
        ] {
            let error = changed(&whole, name, content).err().unwrap_or_else(|| panic!("{content} is taken"));
            assert!(error.to_string().contains(part) && error.advice().is_some(), "{content}: {error}");
        }
        // A class of transformers has its own vocabulary file: another one is not taken for it.
        let clip = r#"{"model_type": "clip"}"#;
        let error = changed(&["vocab.txt"], "config.json", clip).err().unwrap();
        assert!(error.to_string().contains("no tokenizer.json or vocab.json"), "{error}");
    }

    #[test]
    fn merges_beyond_the_vocabulary_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("vocab.json", r#"{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "aaaa": 5, "bbb": 6}"#);
        write("merges.txt", "#version: 0.2\naaaa bbb\n");
        let error = TextTokenizer::from_folder(folder.path(), 77).err().unwrap();
        assert!(error.to_string().contains("the merge of aaaa and bbb"), "{error}");
        let model = r#"{"type": "BPE", "vocab": {"aaaa": 0, "bbb": 1}, "merges": ["aaaa bbb"]}"#;
        write("tokenizer.json", &format!(r#"{{"version": "1.0", "added_tokens": [], "model": {model}}}"#));
        let error = TextTokenizer::from_folder(folder.path(), 77).err().unwrap();
        assert!(error.to_string().contains("the merge of aaaa and bbb"), "{error}");
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

//! Captions to token ids, with the checkpoint's own tokenizer.

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;
use tokenizers::utils::truncation::TruncationParams;

use crate::error::{Error, Result, ResultExt};

/// The files that make up a tokenizer, copied beside a checkpoint so that it stands on its own.
pub const TOKENIZER_FILES: [&str; 6] =
    ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt"];

/// A checkpoint's tokenizer, cutting at a maximal length and adding its special tokens; it never pads.
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    path: PathBuf,
}

impl TextTokenizer {
    /// From `folder/tokenizer.json`; sequences hold at most `max_tokens` ids, the special ones included.
    pub fn from_folder(folder: &Path, max_tokens: usize) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path)
            .context(|| format!("cannot read {}", path.display()))
            .hint(|| "a model folder holds config.json, model.safetensors and the tokenizer's files")?;
        let wrong = |e: tokenizers::Error| {
            Error::new(e.to_string())
                .context(format!("{} is not a usable tokenizer", path.display()))
                .hint("fetch the model's tokenizer files again")
        };
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(wrong)?;
        tokenizer.with_padding(None);
        let truncation = TruncationParams { max_length: max_tokens, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(wrong)?;
        Ok(Self { tokenizer, path })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_hold_at_most_the_tokens_allowed_and_lose_nothing() {
        assert_eq!(cut_by_tokens([3, 3, 3, 9, 1, 1], 6), [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(cut_by_tokens([1, 2, 200], 100), [0..2, 2..3]);
        assert!(cut_by_tokens([], 5).is_empty());
    }
}

//! Which files of a model are needed, as far as its repository or its folder has them.

use std::path::Path;

use crate::error::{Error, Result, ResultExt, visible};

/// What a caller needs of a model; its `config.json` always belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The weights, safetensors preferred.
    Weights,
    /// The tokenizer: `tokenizer.json`, or the vocabulary it would be made from.
    Tokenizer,
    /// The same where there is one.
    TokenizerIfAny,
    /// How images are prepared.
    Images,
}

const CONFIG: &str = "config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";
/// What transformers 5 writes instead.
const PROCESSOR: &str = "processor_config.json";

/// Forms of the weights, the best first. An index names further files.
const WEIGHTS: [&[&str]; 4] = [
    &["model.safetensors"],
    &["model.safetensors.index.json"],
    &["pytorch_model.bin"],
    &["pytorch_model.bin.index.json"],
];

/// Forms of a tokenizer's vocabulary, the best first.
const TOKENIZERS: [&[&str]; 5] = [
    &["tokenizer.json"],
    &["vocab.txt"],
    &["vocab.json", "merges.txt"],
    &["tokenizer.model"],
    &["sentencepiece.bpe.model"],
];

/// What may stand beside any form of a tokenizer, and decides about ids too.
const SETTINGS: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

/// The files to have for `parts`, where `has` says which exist; or, in words, those that are missing.
pub fn needed(parts: &[Part], has: &dyn Fn(&str) -> bool) -> std::result::Result<Vec<&'static str>, Vec<&'static str>> {
    let (mut files, mut missing) = (Vec::new(), Vec::new());
    let mut one_of = |forms: &[&[&'static str]], words: &'static str| match forms
        .iter()
        .find(|form| form.iter().all(|file| has(file)))
    {
        Some(form) => files.extend_from_slice(form),
        None if words.is_empty() => {}
        None => missing.push(words),
    };
    // The large ones last: what is wrong with the others is found out before.
    one_of(&[&[CONFIG]], CONFIG);
    if parts.contains(&Part::Images) {
        let both: &[&[&'static str]] = &[&[PROCESSOR, PREPROCESSOR], &[PREPROCESSOR], &[PROCESSOR]];
        one_of(both, "preprocessor_config.json (or processor_config.json)");
    }
    if parts.contains(&Part::Tokenizer) {
        let words = "tokenizer.json (or vocab.txt with tokenizer_config.json, or vocab.json with merges.txt, or \
                     sentencepiece.bpe.model)";
        one_of(&TOKENIZERS, words);
    } else if parts.contains(&Part::TokenizerIfAny) {
        one_of(&TOKENIZERS, "");
    }
    if wants_tokenizer(parts) && !has(TOKENIZERS[0][0]) {
        // Which of several vocabularies counts is for config.json to say.
        let first = TOKENIZERS.iter().position(|form| form.iter().all(|file| has(file)));
        TOKENIZERS.iter().skip(first.map_or(usize::MAX, |first| first + 1)).for_each(|form| one_of(&[form], ""));
    }
    if wants_tokenizer(parts) {
        SETTINGS.iter().for_each(|file| one_of(&[&[file]], ""));
    }
    if parts.contains(&Part::Weights) {
        one_of(&WEIGHTS, "model.safetensors (or pytorch_model.bin, or the index and shards of either)");
    }
    if missing.is_empty() { Ok(files) } else { Err(missing) }
}

/// The files that `parts` can do without, but that decide about token ids or pixels where the model has them.
pub fn optional(parts: &[Part]) -> impl Iterator<Item = &'static str> {
    let of_texts = SETTINGS.into_iter().chain([TOKENIZERS[0][0]]).filter(|_| wants_tokenizer(parts));
    of_texts.chain(parts.contains(&Part::Images).then_some(PROCESSOR))
}

fn wants_tokenizer(parts: &[Part]) -> bool {
    parts.contains(&Part::Tokenizer) || parts.contains(&Part::TokenizerIfAny)
}

/// Whether `folder` has all of `parts`, shards included.
pub fn complete(folder: &Path, parts: &[Part]) -> bool {
    let whole = |file: &&str| match file.ends_with(".index.json") {
        true => shards(&folder.join(file)).is_ok_and(|shards| shards.iter().all(|shard| folder.join(shard).exists())),
        false => true,
    };
    needed(parts, &|file| folder.join(file).exists()).is_ok_and(|files| files.iter().all(whole))
}

/// The files that an index of weights names, all of them beside it.
pub fn shards(index: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let text = std::fs::read(index).context(|| format!("cannot read {}", index.display()))?;
    let index_of: Index = serde_json::from_slice(&text)
        .context(|| format!("{} is no index of weights", index.display()))
        .hint(|| "fetch the file again")?;
    let mut shards: Vec<String> = index_of.weight_map.into_values().collect();
    shards.sort_unstable();
    shards.dedup();
    match shards.iter().find(|name| !is_plain_name(name)) {
        None => Ok(shards),
        Some(name) => {
            Err(Error::new(format!("{} names a file that cannot be beside it: {}", index.display(), visible(name)))
                .hint("fetch the file again from a place you trust"))
        }
    }
}

/// Whether `name` is one that stays in its folder, and that a terminal shows as it is.
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\\']) && visible(name) == name && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &'static [&str], parts: &[Part]) -> std::result::Result<Vec<&'static str>, Vec<&'static str>> {
        needed(parts, &|file| files.contains(&file))
    }

    #[test]
    fn the_best_form_of_each_part_is_chosen() {
        use Part::*;
        let clip = &[
            "config.json",
            "merges.txt",
            "model.safetensors",
            "preprocessor_config.json",
            "pytorch_model.bin",
            "tf_model.h5",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.json",
        ];
        assert_eq!(of(clip, &[Weights]), Ok(vec!["config.json", "model.safetensors"]));
        assert_eq!(
            of(clip, &[Weights, Tokenizer, Images]),
            Ok(vec![
                "config.json",
                "preprocessor_config.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "model.safetensors"
            ])
        );
        let images = |files| of(files, &[Images]);
        assert_eq!(images(&["config.json", "processor_config.json"]), Ok(vec!["config.json", "processor_config.json"]));
        assert_eq!(
            images(&["config.json", "processor_config.json", "preprocessor_config.json"]).map(|all| all.len()),
            Ok(3)
        );
        assert!(images(&["config.json"]).is_err());
        let old = &["config.json", "vocab.txt", "vocab.json", "pytorch_model.bin", "special_tokens_map.json"];
        assert_eq!(
            of(old, &[Tokenizer, Weights]),
            Ok(vec!["config.json", "vocab.txt", "special_tokens_map.json", "pytorch_model.bin"])
        );
        // Without a tokenizer.json, all vocabularies: config.json says which counts.
        let two = &["config.json", "vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "tokenizer.model"];
        assert_eq!(
            of(two, &[TokenizerIfAny]),
            Ok(vec!["config.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "added_tokens.json"])
        );
        let sharded = &["config.json", "model.safetensors.index.json", "pytorch_model.bin"];
        assert_eq!(of(sharded, &[Weights]), Ok(vec!["config.json", "model.safetensors.index.json"]));
        let missing = of(&["vocab.json", "preprocessor_config.json"], &[Images, Tokenizer, Weights]).unwrap_err();
        assert_eq!(missing.len(), 3);
        assert!(missing[1].starts_with("tokenizer.json (or vocab.txt"), "{missing:?}");
    }

    #[test]
    fn a_folder_is_complete_with_its_last_shard() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("config.json", "{}");
        write(
            "pytorch_model.bin.index.json",
            r#"{"metadata": {}, "weight_map": {"x": "b.bin", "y": "a.bin", "z": "b.bin"}}"#,
        );
        write("a.bin", "");
        assert!(!complete(dir.path(), &[Part::Weights]) && complete(dir.path(), &[]));
        write("b.bin", "");
        assert!(complete(dir.path(), &[Part::Weights]) && !complete(dir.path(), &[Part::Tokenizer]));
        write("bad.json", r#"{"weight_map": {"x": "../b.bin"}}"#);
        assert!(shards(&dir.path().join("bad.json")).unwrap_err().to_string().contains("../b.bin"));
        write("bad.json", r#"{"weight_map": {"x": "b\u001b[2J\n.bin"}}"#);
        let refused = shards(&dir.path().join("bad.json")).unwrap_err().to_string();
        assert!(refused.ends_with(r"b\u{1b}[2J\n.bin"), "{refused}");
    }
}

//! Tokenizers as transformers' classes build them: `models/{bert,roberta,clip,xlm_roberta,camembert}/tokenization_*.py`
//! and `TokenizersBackend` in `tokenization_utils_tokenizers.py` of transformers 5.24.
//!
//! A class takes no more than the vocabulary and the merges from a `tokenizer.json`; normalisation, the cut into words
//! and the special tokens around a text are its own, and as the settings say.

use std::collections::{HashMap, HashSet};

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{BertNormalizer, Lowercase, NFC, Precompiled, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, NormalizedString, Normalizer, SplitDelimiterBehavior, Tokenizer};

use super::sentencepiece::check_charsmap;
use super::settings::{Named, Settings, Token};
use super::{json, tokenizer_error};
use crate::error::{Error, Result, ResultExt};

fn plain(tokens: &[(&'static str, &str)]) -> Vec<(&'static str, Token)> {
    tokens.iter().map(|(key, token)| (*key, Token::Plain((*token).to_owned()))).collect()
}

/// BertTokenizer, WordPiece. Special ids are where the vocabulary has them (BETO: [MASK] 0, [PAD] 1, [CLS] 4).
pub(super) fn bert(vocab: Vocab, settings: &Settings) -> Result<Tokenizer> {
    let named = settings.named(&plain(&[
        ("unk_token", "[UNK]"),
        ("sep_token", "[SEP]"),
        ("pad_token", "[PAD]"),
        ("cls_token", "[CLS]"),
        ("mask_token", "[MASK]"),
    ]))?;
    let unknown = named.get("unk_token")?.text();
    if !vocab.contains_key(unknown) {
        return Err(Error::new(format!("its vocabulary does not have the special token {unknown}"))
            .hint("fetch the tokenizer's files again"));
    }
    let model = WordPiece::builder().vocab(vocab).unk_token(unknown.to_owned());
    let mut tokenizer = Tokenizer::new(model.build().map_err(tokenizer_error)?);
    let normalizer = BertNormalizer::new(
        true,
        settings.flag("tokenize_chinese_chars", true)?,
        settings.flag_or_null("strip_accents")?, // null: as lower-casing
        settings.flag("do_lower_case", true)?,
    );
    tokenizer.with_normalizer(Some(normalizer)).map_err(tokenizer_error)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    add_tokens(&mut tokenizer, settings, &named, None)?;
    let (cls, sep) = (named.get("cls_token")?.text(), named.get("sep_token")?.text());
    let template = format!("{cls}:0 $A:0 {sep}:0");
    surround(&mut tokenizer, template.split(' ').map(str::to_owned).collect(), &[cls, sep])?;
    Ok(tokenizer)
}

/// RobertaTokenizer, byte-level BPE.
pub(super) fn roberta(vocab: Vocab, merges: Vec<(String, String)>, settings: &Settings) -> Result<Tokenizer> {
    let named = settings.named(&roberta_tokens(Token::Plain("<mask>".to_owned())))?;
    let mut tokenizer = Tokenizer::new(bpe(vocab, merges, "", None)?);
    let prefix = settings.flag("add_prefix_space", false)?;
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(prefix, true, true)));
    add_tokens(&mut tokenizer, settings, &named, None)?;
    surround_roberta(&mut tokenizer, named.get("cls_token")?.text(), named.get("sep_token")?.text())?;
    Ok(tokenizer)
}

/// CLIPTokenizer, byte-level BPE with `</w>` at the end of words.
pub(super) fn clip(vocab: Vocab, merges: Vec<(String, String)>, settings: &Settings) -> Result<Tokenizer> {
    let named = settings.named(&plain(&[
        ("unk_token", "<|endoftext|>"),
        ("bos_token", "<|startoftext|>"),
        ("eos_token", "<|endoftext|>"),
        ("pad_token", "<|endoftext|>"),
    ]))?;
    let unknown = named.get("unk_token")?.text().to_owned();
    let mut tokenizer = Tokenizer::new(bpe(vocab, merges, "</w>", Some(unknown))?);
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ").map_err(tokenizer_error)?;
    let normalizer = Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()]);
    tokenizer.with_normalizer(Some(normalizer)).map_err(tokenizer_error)?;
    let words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    let words = Split::new(SplitPattern::Regex(words.to_owned()), SplitDelimiterBehavior::Removed, true)
        .map_err(tokenizer_error)?;
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![words.into(), bytes.into()])));
    add_tokens(&mut tokenizer, settings, &named, None)?;
    surround_roberta(&mut tokenizer, named.get("bos_token")?.text(), named.get("eos_token")?.text())?;
    Ok(tokenizer)
}

/// Where the pieces of a unigram vocabulary come from.
pub(super) enum Pieces {
    /// `tokenizer.json`: all of them, with their scores.
    Whole(Vec<(String, f64)>),
    /// A SentencePiece model, whose ids the class moves; and its tokens that are found before all else.
    Model(Vec<(String, f64)>, Vec<Token>),
}

/// XLMRobertaTokenizer, unigram pieces.
pub(super) fn xlm_roberta(pieces: Pieces, charsmap: &[u8], settings: &Settings) -> Result<Tokenizer> {
    let named = settings.named(&roberta_tokens(Token::Plain("<mask>".to_owned())))?;
    let text = |key: &str| named.get(key).map(|token| token.text().to_owned());
    let (vocab, own) = match pieces {
        Pieces::Whole(vocab) => (vocab, None),
        // fairseq's ids: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, the pieces but for the first three, `<mask>` last.
        Pieces::Model(pieces, own) => {
            let first = [text("bos_token")?, text("pad_token")?, text("eos_token")?, text("unk_token")?];
            let mut vocab: Vec<_> = first.map(|token| (token, 0.0)).into();
            vocab.extend(pieces.into_iter().skip(3));
            vocab.push((text("mask_token")?, 0.0));
            (vocab, Some(own))
        }
    };
    let (bos, eos) = (text("bos_token")?, text("eos_token")?);
    let mut tokenizer = unigram(vocab, 3, charsmap, settings)?;
    add_tokens(&mut tokenizer, settings, &named, own)?;
    surround(&mut tokenizer, vec![bos.clone(), "$A".to_owned(), eos.clone()], &[&bos, &eos])?;
    Ok(tokenizer)
}

/// CamembertTokenizer, unigram pieces.
pub(super) fn camembert(pieces: Pieces, charsmap: &[u8], settings: &Settings) -> Result<Tokenizer> {
    let mask = |text: &str| Token::Added(AddedToken::from(text, true).lstrip(true));
    let mut named = settings.named(&roberta_tokens(mask("<mask>")))?;
    for (key, token) in &mut named.0 {
        if key == "mask_token"
            && let Token::Plain(text) = token
        {
            *token = mask(text);
        }
    }
    let text = |key: &str| named.get(key).map(|token| token.text().to_owned());
    let unknown = text("unk_token")?;
    let (vocab, own) = match pieces {
        Pieces::Whole(vocab) => (vocab, None),
        Pieces::Model(pieces, own) => {
            let mut vocab = vec![
                ("<s>NOTUSED".to_owned(), 0.0),
                (text("pad_token")?, 0.0),
                ("</s>NOTUSED".to_owned(), 0.0),
                (unknown.clone(), 0.0),
                ("<unk>NOTUSED".to_owned(), -100.0),
            ];
            vocab.extend(pieces.into_iter().skip(1));
            vocab.push((text("mask_token")?, 0.0));
            (vocab, Some(own))
        }
    };
    let unknown = vocab.iter().position(|(piece, _)| *piece == unknown).unwrap_or(0);
    let (bos, eos) = (text("bos_token")?, text("eos_token")?);
    let mut tokenizer = unigram(vocab, unknown, charsmap, settings)?;
    let unused = ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"].map(|token| Token::Plain(token.to_owned()));
    let own = own.or_else(|| (!settings.has_additional()).then(|| unused.into()));
    add_tokens(&mut tokenizer, settings, &named, own)?;
    let template = format!("{bos} $A {eos}");
    surround(&mut tokenizer, template.split(' ').map(str::to_owned).collect(), &[&bos, &eos])?;
    Ok(tokenizer)
}

/// The special tokens of RoBERTa and of those that took them over.
fn roberta_tokens(mask: Token) -> Vec<(&'static str, Token)> {
    let mut tokens = plain(&[
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
        ("sep_token", "</s>"),
        ("cls_token", "<s>"),
        ("unk_token", "<unk>"),
        ("pad_token", "<pad>"),
    ]);
    tokens.push(("mask_token", mask));
    tokens
}

/// A whole `tokenizer.json`, with what the settings add. `padding_token` is the one of its padding, if it has any.
pub(super) fn as_it_stands(file: &[u8], padding_token: Option<&str>, settings: &Settings) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::from_bytes(file).map_err(tokenizer_error)?;
    let named = settings.named(&padding_token.map(|token| plain(&[("pad_token", token)])).unwrap_or_default())?;
    add_tokens(&mut tokenizer, settings, &named, None)?;
    Ok(tokenizer)
}

fn bpe(vocab: Vocab, merges: Vec<(String, String)>, suffix: &str, unknown: Option<String>) -> Result<BPE> {
    json::check_merges(vocab.keys().map(String::len).max().unwrap_or(0), &merges, "")?;
    let mut model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(suffix.to_owned())
        .fuse_unk(false);
    if let Some(unknown) = unknown {
        model = model.unk_token(unknown);
    }
    model.build().map_err(tokenizer_error)
}

/// A unigram model on words, with `charsmap`'s normalisation where there is any.
fn unigram(vocab: Vec<(String, f64)>, unknown: usize, charsmap: &[u8], settings: &Settings) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::new(Unigram::from(vocab, Some(unknown), false).map_err(tokenizer_error)?);
    if !charsmap.is_empty() {
        check_charsmap(charsmap).context(|| "its normalisation rules")?;
        let rules = Precompiled::from(charsmap).map_err(|e| Error::new(e.to_string()))?;
        tokenizer.with_normalizer(Some(rules)).map_err(tokenizer_error)?;
    }
    let prepend = if settings.flag("add_prefix_space", true)? { PrependScheme::Always } else { PrependScheme::Never };
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![
        PreTokenizerWrapper::WhitespaceSplit(WhitespaceSplit),
        PreTokenizerWrapper::Metaspace(Metaspace::new('▁', prepend, true)),
    ])));
    Ok(tokenizer)
}

/// Puts special tokens around a text.
fn surround(tokenizer: &mut Tokenizer, single: Vec<String>, tokens: &[&str]) -> Result<()> {
    let mut template = TemplateProcessing::builder();
    template.try_single(single).map_err(|e| Error::new(e).context("its special tokens"))?;
    let tokens: Result<Vec<_>> = tokens.iter().map(|token| Ok(((*token).to_owned(), id(tokenizer, token)?))).collect();
    template.special_tokens(tokens?);
    let template = template.build().map_err(|e| Error::new(e.to_string()).context("its special tokens"))?;
    tokenizer.with_post_processor(Some(template));
    Ok(())
}

fn surround_roberta(tokenizer: &mut Tokenizer, first: &str, last: &str) -> Result<()> {
    let (first, last) = ((first.to_owned(), id(tokenizer, first)?), (last.to_owned(), id(tokenizer, last)?));
    tokenizer.with_post_processor(Some(RobertaProcessing::new(last, first)));
    Ok(())
}

fn id(tokenizer: &Tokenizer, token: &str) -> Result<u32> {
    tokenizer.token_to_id(token).ok_or_else(|| Error::new(format!("its vocabulary does not have the token {token:?}")))
}

/// Adds the tokens of the settings, and the special ones that are still missing. What is not in the vocabulary gets the
/// next free ids. `own` are special tokens that the vocabulary itself or the class brings.
fn add_tokens(tokenizer: &mut Tokenizer, settings: &Settings, named: &Named, own: Option<Vec<Token>>) -> Result<()> {
    let mut adding: Vec<Token> = settings.added.values().cloned().map(Token::Added).collect();
    let mut known: HashSet<String> = adding.iter().map(|token| token.text().to_owned()).collect();
    known.extend(tokenizer.get_added_vocabulary().get_vocab().keys().cloned());
    let extra = settings.extra(own)?;
    for token in named.0.iter().map(|(_, token)| token).chain(&extra) {
        if !known.contains(token.text()) && !adding.contains(token) {
            adding.push(token.clone());
        }
    }
    let is_named = |text: &str| named.0.iter().any(|(_, token)| token.text() == text);
    let adding = adding.into_iter().map(|token| match token {
        Token::Plain(text) => AddedToken::from(text, true),
        Token::Added(token) => {
            let special = token.special || is_named(&token.content);
            token.special(special)
        }
    });
    tokenizer.add_tokens(adding.collect::<Vec<_>>()).map_err(tokenizer_error)?;
    tokenizer.set_encode_special_tokens(settings.flag("split_special_tokens", false)?);
    check_added(tokenizer)
}

/// Refuses two added tokens that are one text after normalisation: which of them is found would be chance, in
/// transformers too.
fn check_added(tokenizer: &Tokenizer) -> Result<()> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for token in tokenizer.get_added_vocabulary().get_added_tokens_decoder().values().filter(|t| t.normalized) {
        let mut text = NormalizedString::from(token.content.as_str());
        tokenizer
            .get_normalizer()
            .map_or(Ok(()), |normalizer| normalizer.normalize(&mut text))
            .map_err(tokenizer_error)?;
        if let Some(other) = seen.insert(text.get().to_owned(), &token.content) {
            let (a, b) =
                if other < token.content.as_str() { (other, &*token.content) } else { (&*token.content, other) };
            return Err(Error::new(format!("its added tokens {a:?} and {b:?} are the same after normalisation"))
                .hint("remove one of them, or give it \"normalized\": false"));
        }
    }
    Ok(())
}

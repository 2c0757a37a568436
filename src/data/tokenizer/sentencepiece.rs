//! SentencePiece models (`sentencepiece.bpe.model`), the unigram kind.
//!
//! The file is a protobuf message, `ModelProto` of google/sentencepiece's `src/sentencepiece_model.proto`; the few
//! fields needed are read here.

use crate::error::{Error, Result, ResultExt};

/// The longest piece: a piece is a path in a tree, whose depth must stay bounded. Trainers write 16 characters at most.
pub(super) const LONGEST_PIECE: usize = 512;
/// The longest text that a character may be normalised to; NFKC's longest has 33 bytes.
const LONGEST_REPLACEMENT: usize = 128;

/// `SentencePiece.Type`.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
/// `TrainerSpec.ModelType`.
const UNIGRAM: u64 = 1;

/// A piece of the vocabulary.
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f64,
    kind: u64,
}

impl Piece {
    /// Whether it is a token of its own, found before all else, and then whether it is a special one.
    pub(super) fn is_special(&self) -> Option<bool> {
        matches!(self.kind, CONTROL | USER_DEFINED).then_some(self.kind == CONTROL)
    }
}

/// The pieces and the normalisation rules of a `ModelProto`.
pub(super) fn parse(file: &[u8]) -> Result<(Vec<Piece>, &[u8])> {
    let (mut pieces, mut charsmap) = (Vec::new(), &[][..]);
    let mut fields = Fields(file);
    while let Some(field) = fields.next()? {
        match field {
            (1, WireValue::Bytes(bytes)) => pieces.push(piece(bytes).context(|| format!("piece {}", pieces.len()))?),
            (2, WireValue::Bytes(bytes)) => trainer(bytes)?,
            (3, WireValue::Bytes(bytes)) => {
                let mut fields = Fields(bytes);
                while let Some(field) = fields.next()? {
                    if let (2, WireValue::Bytes(bytes)) = field {
                        charsmap = bytes;
                    }
                }
            }
            _ => {}
        }
    }
    Ok((pieces, charsmap))
}

fn piece(message: &[u8]) -> Result<Piece> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: 1 };
    let mut fields = Fields(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, WireValue::Bytes(text)) if text.len() > LONGEST_PIECE => {
                return Err(Error::new(format!("it has {} bytes, more than the {LONGEST_PIECE} allowed", text.len())));
            }
            (1, WireValue::Bytes(text)) => {
                piece.text = str::from_utf8(text).map_err(|_| Error::new("it is not UTF-8"))?.to_owned();
            }
            (2, WireValue::Four(bytes)) => piece.score = f32::from_le_bytes(bytes).into(),
            (3, WireValue::Varint(kind)) => piece.kind = kind,
            _ => {}
        }
    }
    if piece.score.is_finite() { Ok(piece) } else { Err(Error::new("its score is not a number")) }
}

/// Refuses what is not a unigram model.
fn trainer(message: &[u8]) -> Result<()> {
    let mut fields = Fields(message);
    while let Some(field) = fields.next()? {
        if let (3, WireValue::Varint(kind)) = field
            && kind != UNIGRAM
        {
            return Err(Error::new("it is not a unigram model, as XLM-R's is")
                .hint("save a tokenizer.json with transformers, which is read"));
        }
    }
    Ok(())
}

/// The fields of a protobuf message (https://protobuf.dev/programming-guides/encoding).
struct Fields<'a>(&'a [u8]);

enum WireValue<'a> {
    Varint(u64),
    Four([u8; 4]),
    Eight,
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    /// Number and value of the next field; none at the end.
    fn next(&mut self) -> Result<Option<(u64, WireValue<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => WireValue::Varint(self.varint()?),
            1 => self.take(8).map(|_| WireValue::Eight)?,
            2 => {
                let length = self.varint()?;
                WireValue::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => {
                let mut four = [0; 4];
                four.copy_from_slice(self.take(4)?);
                WireValue::Four(four)
            }
            _ => return Err(broken()),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(broken())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(broken)?;
        self.0 = rest;
        Ok(taken)
    }
}

fn broken() -> Error {
    Error::new("it is not a whole SentencePiece model").hint("fetch the file again; it may have been cut short")
}

/// Whether every path through the rules stays inside them: the `Precompiled` of tokenizers indexes without a check.
///
/// They are the length of a double array in bytes, the array (a unit of `Darts-clone` is 32 bits: see `double_array_unit`
/// in its `darts.h`), and the replacements, each ended by a zero byte.
pub(super) fn check_charsmap(charsmap: &[u8]) -> Result<()> {
    let broken = || Error::new("they are not whole").hint("fetch the file again; it may have been cut short");
    let (length, rest) = charsmap.split_at_checked(4).ok_or_else(broken)?;
    let length = length.iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte));
    let (units, replacements) = rest.split_at_checked(length / 4 * 4).ok_or_else(broken)?;
    let units: Vec<usize> =
        units.chunks_exact(4).map(|unit| unit.iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte))).collect();
    let replacements = str::from_utf8(replacements).map_err(|_| broken())?;
    let offset = |unit: usize| (unit >> 10) << ((unit & 0x200) >> 6);
    let mut base = offset(*units.first().ok_or_else(broken)?);
    let (mut seen, mut open) = (vec![false; units.len()], Vec::new());
    loop {
        // A search goes from a base to `base ^ byte`, whichever byte the text has.
        if base | 0xff >= units.len() {
            return Err(broken());
        }
        for byte in 1..=0xff {
            let at = base ^ byte;
            let unit = units[at];
            if unit & 0x8000_00ff != byte {
                continue;
            }
            let next = base ^ byte ^ offset(unit);
            if unit >> 8 & 1 == 1 {
                let start = units.get(next).ok_or_else(broken)? & 0x7fff_ffff;
                let ended = replacements.get(start..).and_then(|text| text.bytes().position(|byte| byte == 0));
                if ended.is_none_or(|length| length > LONGEST_REPLACEMENT) {
                    return Err(broken());
                }
            }
            if !std::mem::replace(&mut seen[at], true) {
                open.push(next);
            }
        }
        match open.pop() {
            Some(next) => base = next,
            None => return Ok(()),
        }
    }
}

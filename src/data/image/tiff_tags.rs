//! The tags of a TIFF's first image.

use std::collections::BTreeMap;

use super::pixels::slice;
use crate::error::{Error, Result};

/// Values of one tag at most: strips or tiles of the largest image.
const MAX_VALUES: usize = 1 << 22;

/// The tags that are read.
const NEEDED: [u16; 20] =
    [256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339];

/// Whole-number tags by number.
pub(super) struct Tags {
    /// Whether numbers have their low byte first.
    pub little: bool,
    values: BTreeMap<u16, Vec<u64>>,
}

impl Tags {
    /// Of a TIFF or BigTIFF.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let little = bytes.first() == Some(&b'I');
        let number = |at: usize, length: usize| -> Result<u64> {
            let part = slice(bytes, at, length)?.iter();
            let add = |n: u64, &byte: &u8| n << 8 | u64::from(byte);
            Ok(if little { part.rev().fold(0, add) } else { part.fold(0, add) })
        };
        // Bytes of an offset, of the number of tags, and where the offset of the first image stands.
        let (offset, entries, first) = if number(2, 2)? == 43 { (8, 8, 8) } else { (4, 2, 4) };
        if offset == 8 && !little {
            return Err(Error::new("a BigTIFF with the high byte first is not read"));
        }
        let start = number(first, offset)? as usize;
        let count = (number(start, entries)? as usize).min(bytes.len() / 12);
        slice(bytes, start + entries, count * (4 + 2 * offset))?;
        let mut values = BTreeMap::new();
        for entry in (0..count).map(|k| start + entries + k * (4 + 2 * offset)) {
            let (tag, kind) = (number(entry, 2)? as u16, number(entry + 2, 2)?);
            let length = match kind {
                1 => 1,
                3 => 2,
                4 | 13 => 4,
                16 | 18 => 8,
                _ if !NEEDED.contains(&tag) => continue,
                _ => return Err(Error::new(format!("TIFF: the tag {tag} is no whole number"))),
            };
            let many = (number(entry + 4, offset)? as usize).min(MAX_VALUES);
            let place = entry + 4 + offset;
            let place = if many * length <= offset { place } else { number(place, offset)? as usize };
            if !NEEDED.contains(&tag) {
                continue;
            }
            let read = (0..many).map(|k| number(place + k * length, length)).collect::<Result<Vec<u64>>>()?;
            if values.insert(tag, read).is_some() {
                return Err(Error::new(format!("TIFF: the tag {tag} stands there twice")));
            }
        }
        Ok(Self { little, values })
    }

    pub fn has(&self, tag: u16) -> bool {
        self.values.contains_key(&tag)
    }

    /// The values of a tag; none where it is missing.
    pub fn all(&self, tag: u16) -> Result<Vec<u64>> {
        Ok(self.values.get(&tag).cloned().unwrap_or_default())
    }

    /// The one value of a tag, or `default` where it is missing.
    pub fn number(&self, tag: u16, default: u64) -> Result<u64> {
        match self.values.get(&tag).map(Vec::as_slice) {
            None => Ok(default),
            Some([value]) => Ok(*value),
            Some(values) => Err(Error::new(format!("TIFF: the tag {tag} has {} values", values.len()))),
        }
    }
}

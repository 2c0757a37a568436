//! What the readers of all formats share: decoded pixels, limits, slices of a file, LZW, palettes and CMYK.

use weezl::LzwStatus;
use weezl::decode::Decoder;

use crate::error::{Error, Result};

/// The longest side, JPEG's own limit.
const MAX_SIDE: u32 = 65_535;
/// PIL's limit on the area.
pub(super) const MAX_PIXELS: u64 = 178_956_970;
/// The memory of an image of that area in RGBA, with some for the decoder.
pub(super) const MAX_DECODED_BYTES: usize = 1 << 30;

/// A decoded image.
#[derive(Debug)]
pub(super) struct Pixels {
    pub width: u32,
    pub height: u32,
    /// What PIL's `convert("RGB")` gives, row by row.
    pub rgb: Vec<u8>,
    /// The alpha of PIL's `convert("RGBA")`, one byte a pixel, where the file has transparency.
    pub alpha: Option<Vec<u8>>,
}

/// Refuses sizes that PIL refuses, and what no decoder here is asked to hold.
pub(super) fn check_size(width: u32, height: u32) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::new("no pixels"));
    }
    if width.max(height) > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Error::new(format!("{width}x{height} pixels are more than themo decodes")));
    }
    Ok(())
}

/// `bytes[at..at + length]`, or an error that says the file ends too early.
pub(super) fn slice(bytes: &[u8], at: usize, length: usize) -> Result<&[u8]> {
    bytes.get(at..).and_then(|rest| rest.get(..length)).ok_or_else(|| Error::new("the file is truncated"))
}

/// Unpacks LZW codes until `out` has `length` bytes or `packed` is used up; whether the stream's end came.
pub(super) fn unpack_lzw(decoder: &mut Decoder, mut packed: &[u8], length: usize, out: &mut Vec<u8>) -> Result<bool> {
    let mut part = [0; 4096];
    loop {
        let room = part.len().min(length - out.len());
        let step = decoder.decode_bytes(packed, &mut part[..room]);
        packed = &packed[step.consumed_in..];
        out.extend_from_slice(&part[..step.consumed_out]);
        match step.status.map_err(|e| Error::new(format!("the image data are broken ({e})")))? {
            LzwStatus::Done => return Ok(true),
            LzwStatus::NoProgress => return Ok(false),
            LzwStatus::Ok if out.len() == length => return Ok(false),
            LzwStatus::Ok => {}
        }
    }
}

/// A palette as PIL holds one: of 256 colours, those that the file does not have are black.
pub(super) fn palette<'a>(colours: impl Iterator<Item = &'a [u8]>, order: [usize; 3]) -> [[u8; 3]; 256] {
    let mut palette = [[0; 3]; 256];
    for (entry, colour) in palette.iter_mut().zip(colours) {
        *entry = order.map(|channel| colour[channel]);
    }
    palette
}

/// One byte of CMYK's colour under `black`, both as ink; PIL's rounding of the quotient.
/// Source: Pillow, `Convert.c`, `cmyk2rgb`.
pub(super) fn shade(ink: u8, black: u8) -> u8 {
    let light = 255 - u32::from(black);
    light.saturating_sub(divided_by_255(u32::from(ink) * light)) as u8
}

/// `value / 255`, rounded (PIL's `MULDIV255`).
pub(super) fn divided_by_255(value: u32) -> u32 {
    let value = value + 128;
    (value + (value >> 8)) >> 8
}

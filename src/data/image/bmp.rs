//! BMP as PIL reads it, with its rules of what is grey and what has alpha; the `image` crate scales colours of five bits
//! and fills what a run leaves out otherwise.
//! Source: Pillow, `BmpImagePlugin.py`, `Unpack.c`.

use super::pixels::{Pixels, check_size, palette, slice};
use crate::error::{Error, Result};

/// What the header says.
struct Header {
    width: u32,
    height: u32,
    top_down: bool,
    bits: usize,
    compression: u32,
    colours: usize,
    /// Bytes of a palette's entry.
    entry: usize,
    /// Red, green, blue, alpha.
    masks: [u32; 4],
    /// Where the header ends.
    end: usize,
}

pub(super) fn decode(bytes: &[u8]) -> Result<Pixels> {
    let header = read_header(bytes)?;
    let (width, height) = (header.width as usize, header.height as usize);
    let mut start = u32_at(bytes, 10)? as usize;
    if start == 14 + u32_at(bytes, 14)? as usize && header.bits <= 8 {
        start += header.entry * header.colours; // (some files forget the palette)
    }
    if header.bits > 8 {
        return direct(bytes, if start == 0 { header.end } else { start }, &header);
    }
    if header.colours > 256 {
        return Err(Error::new("a BMP of more than 256 colours is not read"));
    }
    let rest = &bytes[header.end..];
    let table = &rest[..rest.len().min(header.entry * header.colours)];
    if start == 0 {
        start = header.end + table.len();
    }
    // A palette that says what the codes say anyhow is left out; then PIL takes two colours for one bit a pixel, whatever
    // the header says, and more for eight.
    let grey = |k: usize| if header.colours == 2 { k * 255 } else { k } as u8;
    let is_grey = |k: usize| table.get(k * header.entry..).and_then(|entry| entry.get(..3)) == Some(&[grey(k); 3]);
    let (bits, table) = match (0..header.colours).all(is_grey) {
        true if header.colours <= 2 => (1, std::array::from_fn(|code| [if code == 0 { 0 } else { 255 }; 3])),
        true => (8, std::array::from_fn(|code| [code as u8; 3])),
        false => (header.bits, palette(table.chunks_exact(header.entry), [2, 1, 0])),
    };
    let codes = match header.compression {
        0 => {
            let rows = rows(bytes, start, &header, bits)?;
            let code = |row: &[u8], x: usize| row[x * bits / 8] >> (8 - bits - x * bits % 8) & (255 >> (8 - bits));
            rows.flat_map(|row| (0..width).map(move |x| code(row, x))).collect()
        }
        kind @ (1 | 2) if bits == header.bits && bits == 8 / kind as usize => {
            runs(bytes, start, width, width * height, kind == 2)?
        }
        kind => return Err(Error::new(format!("a BMP of {bits} bits and compression {kind} is not read"))),
    };
    let rgb = |codes: &[u8]| codes.iter().flat_map(|&code| table[usize::from(code)]).collect::<Vec<u8>>();
    let rgb = match (header.compression, header.top_down) {
        (1 | 2, false) => codes.rchunks_exact(width).flat_map(rgb).collect(),
        _ => rgb(&codes),
    };
    Ok(Pixels { width: header.width, height: header.height, rgb, alpha: None })
}

fn read_header(bytes: &[u8]) -> Result<Header> {
    let size = u32_at(bytes, 14)? as usize;
    let short = |at: usize| slice(bytes, at, 2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    if !matches!(size, 12 | 40 | 52 | 56 | 64 | 108 | 124) {
        return Err(Error::new(format!("a BMP with a header of {size} bytes is not read")));
    }
    slice(bytes, 14, size)?;
    let (width, height, top_down, bits) = if size == 12 {
        (u32::from(short(18)?), u32::from(short(20)?), false, short(24)?)
    } else {
        let (height, top_down) = (u32_at(bytes, 22)?, bytes[25] == 0xff);
        (u32_at(bytes, 18)?, if top_down { height.wrapping_neg() } else { height }, top_down, short(28)?)
    };
    let (compression, colours) = if size == 12 { (0, 0) } else { (u32_at(bytes, 30)?, u32_at(bytes, 46)?) };
    check_size(width, height)?;
    if !matches!(bits, 1 | 4 | 8 | 16 | 24 | 32) {
        return Err(Error::new(format!("a BMP of {bits} bits a pixel is not read")));
    }
    let (mut end, mut masks) = (14 + size, [0xff_0000, 0xff00, 0xff, 0]);
    if bits == 16 {
        masks = [0x7c00, 0x3e0, 0x1f, 0];
    }
    if compression == 3 {
        for (k, mask) in masks.iter_mut().enumerate() {
            let there = k < 3 || size >= 56;
            *mask = if there { u32_at(bytes, 54 + 4 * k)? } else { 0 };
        }
        end += if size == 40 { 12 } else { 0 };
    }
    let colours = if colours == 0 { 1 << bits.min(24) } else { colours as usize };
    let entry = if size == 12 { 3 } else { 4 };
    Ok(Header { width, height, top_down, bits: bits.into(), compression, colours, entry, masks, end })
}

/// Colours that stand in the pixels themselves.
fn direct(bytes: &[u8], start: usize, header: &Header) -> Result<Pixels> {
    let known: &[[u32; 4]] = match header.bits {
        16 => &[[0xf800, 0x7e0, 0x1f, 0], [0x7c00, 0x3e0, 0x1f, 0]],
        24 => &[[0xff_0000, 0xff00, 0xff, 0]],
        _ => &[
            [0xff_0000, 0xff00, 0xff, 0],
            [0xff00_0000, 0xff_0000, 0xff00, 0],
            [0xff00_0000, 0xff00, 0xff, 0],
            [0xff00_0000, 0xff_0000, 0xff00, 0xff],
            [0xff, 0xff00, 0xff_0000, 0xff00_0000],
            [0xff_0000, 0xff00, 0xff, 0xff00_0000],
            [0xff00_0000, 0xff00, 0xff, 0xff_0000],
            [0, 0, 0, 0],
        ],
    };
    let mut masks = header.masks;
    if header.bits < 32 {
        masks[3] = 0;
    }
    if !matches!(header.compression, 0 | 3) || !known.contains(&masks) {
        let (bits, kind) = (header.bits, header.compression);
        return Err(Error::new(format!("a BMP of {bits} bits, compression {kind}, masks {masks:x?} is not read")));
    }
    if masks == [0; 4] {
        masks = [0xff_0000, 0xff00, 0xff, 0xff00_0000];
    }
    let rows = rows(bytes, start, header, header.bits)?;
    let pixels = rows.flat_map(|row| row.chunks_exact(header.bits / 8));
    let value = |pixel: &[u8]| pixel.iter().rev().fold(0u32, |value, &byte| value << 8 | u32::from(byte));
    let channel = |value: u32, mask: u32| {
        let (at, most) = (mask.trailing_zeros(), mask >> mask.trailing_zeros());
        ((value >> at & most) * 255 / most) as u8
    };
    let colour = |pixel: &[u8]| [masks[0], masks[1], masks[2]].map(|mask| channel(value(pixel), mask));
    let alpha = (masks[3] != 0).then(|| pixels.clone().map(|pixel| channel(value(pixel), masks[3])).collect());
    Ok(Pixels { width: header.width, height: header.height, rgb: pixels.flat_map(colour).collect(), alpha })
}

/// The rows of an image without compression, from the top, of `bits` bits a pixel. Their distance in the file follows
/// from the bits a pixel of the header.
fn rows<'a>(
    bytes: &'a [u8], start: usize, header: &Header, bits: usize,
) -> Result<impl Iterator<Item = &'a [u8]> + Clone + 'a> {
    let (width, height, top_down) = (header.width as usize, header.height as usize, header.top_down);
    let (stride, length) = ((width * header.bits).div_ceil(32) * 4, (width * bits).div_ceil(8));
    if length > stride {
        return Err(Error::new("BMP: the palette does not fit the bits of a pixel"));
    }
    let data = slice(bytes, start, stride * (height - 1) + length)?;
    let at = move |y: usize| if top_down { y } else { height - 1 - y };
    Ok((0..height).map(move |y| &data[stride * at(y)..][..length]))
}

/// The codes of a run-length encoded image of `length` pixels in rows of `width`, in the order of the file; `nibbles` are
/// codes of four bits. What is left out is code 0.
/// Source: Pillow, `BmpRleDecoder`.
fn runs(bytes: &[u8], start: usize, width: usize, length: usize, nibbles: bool) -> Result<Vec<u8>> {
    let (mut codes, mut at, mut x) = (Vec::new(), start, 0);
    while codes.len() < length {
        let Some(&[count, value]) = bytes.get(at..at + 2).and_then(|pair| pair.first_chunk()) else { break };
        at += 2;
        let half =
            |byte: u8, k: usize| if nibbles { if k.is_multiple_of(2) { byte >> 4 } else { byte & 15 } } else { byte };
        match (count, value) {
            (0, 0) => {
                codes.resize(codes.len().next_multiple_of(width), 0);
                x = 0;
            }
            (0, 1) => break,
            (0, 2) => {
                let Some(&[right, up]) = bytes.get(at..at + 2).and_then(|pair| pair.first_chunk()) else { break };
                at += 2;
                let skipped = usize::from(right) + usize::from(up) * width;
                codes.resize(length.min(codes.len() + skipped), 0);
                x = codes.len() % width;
            }
            (0, count) => {
                let wanted = usize::from(count).min(length - codes.len());
                let stored = if nibbles { wanted.div_ceil(2) } else { wanted };
                let rest = bytes.get(at..).unwrap_or_default();
                let read = &rest[..rest.len().min(stored)];
                let at_most = if nibbles { 2 * read.len() } else { read.len() };
                codes.extend((0..wanted.min(at_most)).map(|k| half(read[if nibbles { k / 2 } else { k }], k)));
                if read.len() < stored || codes.len() == length {
                    break;
                }
                at += stored;
                at += at % 2;
                x += usize::from(count);
            }
            _ => {
                let count = if x + usize::from(count) > width { width.saturating_sub(x) } else { count.into() };
                codes.extend((0..count).map(|k| half(value, k)));
                x += count;
            }
        }
    }
    if codes.len() < length {
        return Err(Error::new("BMP: the image data end too early"));
    }
    codes.truncate(length);
    Ok(codes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    slice(bytes, at, 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

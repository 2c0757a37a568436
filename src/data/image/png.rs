//! PNG: chunks and checksums are judged as PIL judges them, which a general decoder does not: it checks the sums of chunks
//! before the image data and of the zlib stream, no others, and needs no end chunk. The image of an APNG is its first frame.
//! Source: Pillow, `PngImagePlugin.py`, `ZipDecode.c`; the PNG specification (third edition), chapters 7 to 11.

use std::io::{ErrorKind, Read};

use flate2::read::ZlibDecoder;

use super::pixels::{Pixels, check_size, palette, slice};
use crate::error::{Error, Result};

/// PIL's limit on an inflated text or colour profile.
const MAX_TEXT_BYTES: u64 = 1 << 20;
/// Adam7: where each pass starts and its steps, (x, y, dx, dy).
const PASSES: [(u32, u32, u32, u32); 7] =
    [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];

/// What the chunks say.
#[derive(Default)]
struct Chunks {
    width: u32,
    height: u32,
    depth: u8,
    colour: u8,
    interlaced: bool,
    palette: Vec<u8>,
    transparency: Option<Vec<u8>>,
    /// The number of the last `fcTL`.
    sequence: Option<u32>,
    /// What the first frame covers: width, height, x, y.
    frame: Option<[u32; 4]>,
}

pub(super) fn decode(bytes: &[u8]) -> Result<Pixels> {
    let (chunks, data) = read(bytes)?;
    let Chunks { width, height, depth, colour, .. } = chunks;
    check_size(width, height)?;
    let channels: usize = match (colour, depth) {
        (0, 1 | 2 | 4 | 8 | 16) | (3, 1 | 2 | 4 | 8) => 1,
        (4, 8 | 16) => 2,
        (2, 8 | 16) => 3,
        (6, 8 | 16) => 4,
        _ => return Err(Error::new(format!("PNG: no such colours: type {colour} of {depth} bits"))),
    };
    if colour == 3 && chunks.palette.is_empty() && chunks.transparency.is_some() {
        return Err(Error::new("PNG: clear colours without a palette"));
    }
    let bits = channels * usize::from(depth);
    let passes = if chunks.interlaced { &PASSES[..] } else { &[(0, 0, 1, 1)] };
    let pass = |&(x, y, dx, dy): &(u32, u32, u32, u32)| {
        let (w, h) = (width.saturating_sub(x).div_ceil(dx), height.saturating_sub(y).div_ceil(dy));
        ((x, y, dx, dy), w, if w == 0 { 0 } else { h as usize }, (w as usize * bits).div_ceil(8))
    };
    let passes: Vec<_> = passes.iter().map(pass).collect();
    let mut raw = inflate(&data, passes.iter().map(|&(_, _, h, row)| h * (row + 1)).sum())?;
    drop(data);

    // One value a sample: a byte, or two of which a 16-bit image has the high one first.
    let bytes_a_pixel = if depth == 16 { 2 * channels } else { channels };
    let mut samples = vec![0; width as usize * height as usize * bytes_a_pixel];
    let mut rest = &mut raw[..];
    for ((x, y, dx, dy), w, h, row) in passes {
        let (lines, after) = rest.split_at_mut(h * (row + 1));
        rest = after;
        unfilter(lines, row + 1, bits.div_ceil(8))?;
        for (k, line) in lines.chunks_exact(row + 1).enumerate() {
            let start = (y as usize + k * dy as usize) * width as usize;
            for column in 0..w as usize {
                let to = (start + x as usize + column * dx as usize) * bytes_a_pixel;
                let pixel = &mut samples[to..to + bytes_a_pixel];
                if depth >= 8 {
                    pixel.copy_from_slice(&line[1 + column * bytes_a_pixel..][..bytes_a_pixel]);
                } else {
                    let at = column * usize::from(depth);
                    pixel[0] = line[1 + at / 8] >> (8 - depth as usize - at % 8) & ((1 << depth) - 1);
                }
            }
        }
    }
    pixels(&chunks, &samples)
}

/// Samples to the colours that PIL makes of them.
fn pixels(chunks: &Chunks, samples: &[u8]) -> Result<Pixels> {
    let &Chunks { width, height, depth, colour, .. } = chunks;
    let key = chunks.transparency.as_deref();
    let short = |at: usize| key.map(|key| u16::from_be_bytes([key[at], key[at + 1]]));
    let grey = |of: &mut dyn Iterator<Item = u8>| of.flat_map(|grey| [grey; 3]).collect::<Vec<u8>>();
    let opaque = |clear: bool| if clear { 0 } else { 255 };
    let (rgb, alpha): (Vec<u8>, Option<Vec<u8>>) = match (colour, depth) {
        // Grey of 16 bits is clipped, colours lose their low byte.
        (0, 16) => {
            let values = || samples.chunks_exact(2).map(|pair| if pair[0] == 0 { pair[1] } else { 255 });
            // (after which PIL compares them with the low byte of the key)
            let alpha = short(0).map(|key| values().map(|value| opaque(value == key as u8)).collect());
            (grey(&mut values()), alpha)
        }
        (0, _) => {
            let scale = 255 / ((1u16 << depth) - 1) as u8;
            // PIL compares the scaled grey with the key as it is in the file.
            let key = short(0).map(|key| if depth == 1 { opaque(key == 0) } else { key as u8 });
            let alpha = key.map(|key| samples.iter().map(|&value| opaque(value * scale == key)).collect());
            (grey(&mut samples.iter().map(|&value| value * scale)), alpha)
        }
        (3, _) => {
            let colours = palette(chunks.palette.chunks_exact(3), [0, 1, 2]);
            let rgb = samples.iter().flat_map(|&index| colours[usize::from(index)]).collect();
            let of = |index: &u8| key.and_then(|key| key.get(usize::from(*index))).copied().unwrap_or(255);
            (rgb, key.map(|_| samples.iter().map(of).collect()))
        }
        _ => {
            let (step, alpha) = (usize::from(depth / 8), colour & 4 != 0);
            let channels = (if colour & 2 != 0 { 3 } else { 1 }) + usize::from(alpha);
            let size = channels * step;
            let colour_of = |p: &[u8]| if colour & 2 != 0 { [p[0], p[step], p[2 * step]] } else { [p[0]; 3] };
            let rgb: Vec<u8> = samples.chunks_exact(size).flat_map(colour_of).collect();
            let alpha = match (alpha, key) {
                (true, _) => Some(samples.chunks_exact(size).map(|pixel| pixel[size - step]).collect()),
                (false, Some(key)) => {
                    let key = [key[1], key[3], key[5]]; // PIL keeps the low byte of each
                    Some(rgb.chunks_exact(3).map(|pixel| opaque(pixel == key)).collect())
                }
                (false, None) => None,
            };
            (rgb, alpha)
        }
    };
    Ok(Pixels { width, height, rgb, alpha })
}

/// All that is said in chunks, and the zlib stream of the image.
fn read(bytes: &[u8]) -> Result<(Chunks, Vec<u8>)> {
    let (mut chunks, mut data, mut at) = (Chunks::default(), None, 8);
    loop {
        let head = slice(bytes, at, 8);
        let name = head.as_ref().map_or(&[][..], |head| &head[4..]);
        let sound = name.len() == 4 && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        if !sound {
            // PIL misses nothing after the image.
            return data.map(|data| (chunks, data)).ok_or_else(|| Error::new("PNG: a broken chunk"));
        }
        let length = number(head?);
        at += 8;
        match name {
            b"IEND" => return data.map(|data| (chunks, data)).ok_or_else(|| Error::new("PNG: no image")),
            b"IDAT" if data.is_none() => {
                if chunks.frame.is_some_and(|frame| frame != [chunks.width, chunks.height, 0, 0]) {
                    return Err(Error::new("an APNG whose first frame is not the whole image is not read"));
                }
                data = Some(image_data(bytes, &mut at));
                continue;
            }
            b"fdAT" if data.is_none() => return Err(Error::new("an APNG without a default image is not read")),
            // The next frame of an APNG.
            b"fcTL" if data.is_some() && chunks.sequence.is_some() => {
                return data.map(|data| (chunks, data)).ok_or_else(|| Error::new("PNG: no image"));
            }
            _ => {}
        }
        let content = slice(bytes, at, length as usize)?;
        if name != b"PLTE" || data.is_none() {
            chunks.add(name, content)?;
        }
        at += content.len();
        if data.is_none() {
            let mut sum = flate2::Crc::new();
            sum.update(&bytes[at - content.len() - 4..at]);
            if sum.sum() != number(slice(bytes, at, 4)?) {
                return Err(Error::new(format!("PNG: wrong checksum in {}", String::from_utf8_lossy(name))));
            }
        }
        at += 4;
    }
}

/// The content of the `IDAT` that starts at `at` and of those that follow it; the last may end early.
fn image_data(bytes: &[u8], at: &mut usize) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let length = number(&bytes[*at - 8..]) as usize;
        let rest = &bytes[*at..];
        data.extend_from_slice(&rest[..length.min(rest.len())]);
        let next = *at + length + 4;
        if bytes.get(next + 4..next + 8) != Some(b"IDAT") {
            *at = next;
            return data;
        }
        *at = next + 8;
    }
}

impl Chunks {
    /// Takes what counts from the chunk `name`, and refuses what PIL refuses in it.
    fn add(&mut self, name: &[u8], content: &[u8]) -> Result<()> {
        let after_zero = |data: &[u8]| data.iter().position(|&byte| byte == 0).map_or(data.len(), |at| at + 1);
        let text = after_zero(content);
        let least = match (name, self.colour) {
            (b"IHDR", _) => 13,
            (b"tRNS", 0) => 2,
            (b"tRNS", 2) => 6,
            (b"gAMA", _) => 4,
            (b"cHRM", _) => 32,
            (b"sRGB", _) => 1,
            (b"pHYs", _) => 9,
            (b"acTL", _) => 8,
            (b"fcTL", _) => 26,
            (b"iCCP", _) => text + 1,
            _ => 0,
        };
        let broken = || Error::new(format!("PNG: a broken {} chunk", String::from_utf8_lossy(name)));
        if content.len() < least {
            return Err(broken());
        }
        match name {
            b"IHDR" => {
                (self.width, self.height) = (number(content), number(&content[4..]));
                (self.depth, self.colour, self.interlaced) = (content[8], content[9], content[12] != 0);
                if content[11] != 0 {
                    return Err(broken());
                }
            }
            b"PLTE" if content.len() > 768 => return Err(broken()),
            b"PLTE" => self.palette = content.to_vec(),
            b"tRNS" if matches!(self.colour, 0 | 2 | 3) => self.transparency = Some(content.to_vec()),
            b"fcTL" => {
                let sequence = number(content);
                if sequence != self.sequence.map_or(0, |last| last.wrapping_add(1)) {
                    return Err(broken());
                }
                self.sequence = Some(sequence);
                self.frame = Some([4, 8, 12, 16].map(|at| number(&content[at..])));
            }
            b"iCCP" | b"zTXt" => match content[text..] {
                [0, ref packed @ ..] => check_text(packed)?,
                [] => {}
                _ => return Err(broken()),
            },
            b"iTXt" => {
                if let [1..=255, 0, tail @ ..] = &content[text..] {
                    let tail = &tail[after_zero(tail)..];
                    check_text(&tail[after_zero(tail)..])?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Refuses text that PIL refuses to inflate. themo needs none; a file made so is an attack. Damaged text hurts nobody.
fn check_text(packed: &[u8]) -> Result<()> {
    let mut inflated = ZlibDecoder::new(packed).take(MAX_TEXT_BYTES + 1);
    let _ = std::io::copy(&mut inflated, &mut std::io::sink());
    if inflated.limit() == 0 {
        return Err(Error::new("PNG: a text or profile inflates to more than 1 MiB"));
    }
    Ok(())
}

/// The first `length` bytes of a zlib stream; its checksum must be right if it follows them, but may be missing.
fn inflate(data: &[u8], length: usize) -> Result<Vec<u8>> {
    let mut decoder = ZlibDecoder::new(data);
    let mut raw = Vec::new();
    let failed = |e| Error::new(format!("PNG: the image data are broken ({e})"));
    // Grows with what there is: a header may promise anything.
    decoder.by_ref().take(length as u64).read_to_end(&mut raw).map_err(failed)?;
    if raw.len() < length {
        return Err(Error::new("PNG: the image data are truncated"));
    }
    match std::io::copy(&mut decoder.take(1 << 16), &mut std::io::sink()) {
        Err(e) if e.kind() != ErrorKind::UnexpectedEof => Err(failed(e)),
        _ => Ok(raw),
    }
}

/// Undoes the filters of `lines` of `stride` bytes, of which each starts with its filter; `step` bytes lie between a byte
/// and the same of the pixel to its left.
fn unfilter(lines: &mut [u8], stride: usize, step: usize) -> Result<()> {
    let mut above = vec![0; stride];
    for line in lines.chunks_exact_mut(stride) {
        let filter = line[0];
        for k in 1..stride {
            let (left, corner) = if k > step { (line[k - step], above[k - step]) } else { (0, 0) };
            let guess = match filter {
                0 => break,
                1 => left,
                2 => above[k],
                3 => ((u16::from(left) + u16::from(above[k])) / 2) as u8,
                4 => paeth(left, above[k], corner),
                _ => return Err(Error::new(format!("PNG: no such filter: {filter}"))),
            };
            line[k] = line[k].wrapping_add(guess);
        }
        above.copy_from_slice(line);
    }
    Ok(())
}

fn paeth(left: u8, above: u8, corner: u8) -> u8 {
    let [a, b, c] = [left, above, corner].map(i16::from);
    let (to_a, to_b, to_c) = ((b - c).abs(), (a - c).abs(), (a + b - 2 * c).abs());
    if to_a <= to_b && to_a <= to_c {
        left
    } else if to_b <= to_c {
        above
    } else {
        corner
    }
}

/// The big-endian number that `bytes` start with.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |n, &byte| n << 8 | u32::from(byte))
}

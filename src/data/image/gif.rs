//! GIF: the first frame as PIL shows it, on a screen that grows where the frame does not fit.
//! Source: Pillow, `GifImagePlugin.py`, `GifDecode.c`.

use weezl::BitOrder;
use weezl::decode::Configuration;

use super::pixels::{Pixels, check_size, palette, slice, unpack_lzw};
use crate::error::{Error, Result};

/// A frame before its pixels.
struct Frame {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    interlaced: bool,
    palette: Option<Vec<u8>>,
    /// The code of the colour that is clear.
    clear: Option<u8>,
    /// Where its data start.
    at: usize,
}

pub(super) fn decode(bytes: &[u8]) -> Result<Pixels> {
    let head = slice(bytes, 0, 13)?;
    let global = colours(bytes, 13, head[10])?;
    let frame = first_frame(bytes, 13 + global.as_ref().map_or(0, Vec::len))?;
    let fits = |screen: [u8; 2], end: usize| usize::from(u16::from_le_bytes(screen)).max(end);
    let width = fits([head[6], head[7]], frame.left + frame.width);
    let height = fits([head[8], head[9]], frame.top + frame.height);
    check_size(frame.width as u32, frame.height as u32)?;
    check_size(width as u32, height as u32)?;
    let codes = unpack(bytes, &frame)?;

    // Around the frame lies the clear colour, or the first of the palette.
    let mut screen = vec![frame.clear.unwrap_or(0); width * height];
    let mut lines = codes.chunks_exact(frame.width);
    let passes: &[(usize, usize)] = if frame.interlaced { &[(0, 8), (4, 8), (2, 4), (1, 2)] } else { &[(0, 1)] };
    for y in passes.iter().flat_map(|&(start, step)| (start..frame.height).step_by(step)) {
        let at = (frame.top + y) * width + frame.left;
        if let Some(line) = lines.next() {
            screen[at..at + frame.width].copy_from_slice(line);
        }
    }
    // (A grey palette of the frame's own gives way to the screen's.)
    let rgb = match [frame.palette, global].into_iter().flatten().find(|palette| !is_grey(palette)) {
        Some(colours) => {
            let colours = palette(colours.chunks_exact(3), [0, 1, 2]);
            screen.iter().flat_map(|&code| colours[usize::from(code)]).collect()
        }
        None => screen.iter().flat_map(|&code| [code; 3]).collect(),
    };
    let alpha = frame.clear.map(|clear| screen.iter().map(|&code| if code == clear { 0 } else { 255 }).collect());
    Ok(Pixels { width: width as u32, height: height as u32, rgb, alpha })
}

/// The palette at `at`, if `flags` say there is one.
fn colours(bytes: &[u8], at: usize, flags: u8) -> Result<Option<Vec<u8>>> {
    (flags & 0x80 != 0).then(|| slice(bytes, at, 6 << (flags & 7)).map(<[u8]>::to_vec)).transpose()
}

/// Whether the codes are grey values themselves: PIL drops such a palette, and codes beyond its end are grey too.
fn is_grey(palette: &[u8]) -> bool {
    palette.chunks_exact(3).enumerate().all(|(code, colour)| colour.iter().all(|&byte| usize::from(byte) == code))
}

/// Reads blocks from `at` to the first image.
fn first_frame(bytes: &[u8], mut at: usize) -> Result<Frame> {
    let mut clear = None;
    loop {
        let kind = slice(bytes, at, 1)?[0];
        at += 1;
        match kind {
            b'!' => {
                let label = slice(bytes, at, 1)?[0];
                at += 1;
                for number in 0.. {
                    let length = usize::from(slice(bytes, at, 1)?[0]);
                    let block = slice(bytes, at + 1, length)?;
                    at += 1 + length;
                    // (PIL reads on after an extension that starts with its end.)
                    if length == 0 && (number > 0 || label == 0xfe) {
                        break;
                    }
                    if label == 0xf9 && number == 0 && length > 0 {
                        match *block {
                            [flags, _, _, code, ..] if flags & 1 != 0 => clear = Some(code),
                            [flags, _, _, ..] if flags & 1 == 0 => {}
                            _ => return Err(Error::new("GIF: a broken extension")),
                        }
                    }
                }
            }
            b',' => {
                let head = slice(bytes, at, 9)?;
                let short = |k: usize| usize::from(u16::from_le_bytes([head[k], head[k + 1]]));
                let palette = colours(bytes, at + 9, head[8])?;
                at += 9 + palette.as_ref().map_or(0, Vec::len);
                let (left, top, width, height) = (short(0), short(2), short(4), short(6));
                return Ok(Frame { left, top, width, height, interlaced: head[8] & 64 != 0, palette, clear, at });
            }
            b';' => return Err(Error::new("GIF: no image")),
            _ => {} // PIL passes over what it does not know
        }
    }
}

/// The codes of the frame's pixels, in the order of the file.
fn unpack(bytes: &[u8], frame: &Frame) -> Result<Vec<u8>> {
    let bits = slice(bytes, frame.at, 1)?[0];
    if !(1..=8).contains(&bits) {
        return Err(Error::new(format!("GIF: codes of {bits} bits are not read")));
    }
    let mut decoder = Configuration::new(BitOrder::Lsb, bits).with_yield_on_full_buffer(true).build();
    // Grows with what there is: a header may promise anything.
    let (mut codes, mut at, length) = (Vec::new(), frame.at + 1, frame.width * frame.height);
    while codes.len() < length {
        let size = usize::from(slice(bytes, at, 1)?[0]);
        let ended = unpack_lzw(&mut decoder, slice(bytes, at + 1, size)?, length, &mut codes)?;
        if (ended || size == 0) && codes.len() < length {
            return Err(Error::new("GIF: the image data end too early"));
        }
        at += 1 + size;
    }
    Ok(codes)
}

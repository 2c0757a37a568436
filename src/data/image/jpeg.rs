//! JPEG through a port of libjpeg-turbo, the library under PIL, equal to it bit for bit.
//!
//! # What is unsafe below
//!
//! `libjpeg-turbo-rs` 0.9 gives no guarantee of memory safety, and is the only parser here that is not safe Rust. Headers,
//! markers, Huffman tables, the bit reader, entropy decoding (sequential, progressive, arithmetic) are safe, indexed code.
//! On the way of [`decode`] its `unsafe` blocks are:
//!
//! - `decode/pipeline_impl/{baseline,progressive,arithmetic,color}.rs`, `decode/idct_scaled.rs`: the inverse DCT writes
//!   blocks of 8 x 8 through a raw pointer into planes that the crate allocates for whole MCUs. The offset comes from the
//!   loop over MCUs and the sampling factors of the header, not from entropy-coded data;
//! - `simd/x86_64/{avx2_idct,idct,avx2_upsample,upsample,avx2_color,color,avx2_merged}.rs` (NEON's on aarch64): intrinsics
//!   on rows and blocks, after a check of the CPU and of the slices' lengths;
//! - `common/try_alloc.rs` (zeroed planes), `common/huffman_table.rs` (tables made once, behind an atomic pointer).
//!
//! The FFI, the encoder, scaled and cropped decoding, 12-bit and streaming readers are not reached. `tests/image_fuzz.rs`
//! mutates files, under AddressSanitizer with `.ci/long images`.

use libjpeg_turbo_rs::DecodeWarning::{ExtraneousData, TruncatedData};
use libjpeg_turbo_rs::common::types::ComponentInfo;
use libjpeg_turbo_rs::{DecodeLimits, Decoder, Image, JpegError, PixelFormat};

use super::pixels::{MAX_PIXELS, Pixels, check_size, shade, slice};
use crate::error::{Error, Result};

/// Scans of a progressive JPEG; real ones have about ten, and each costs a pass over the image.
const MAX_SCANS: usize = 256;

pub(super) fn decode(bytes: &[u8]) -> Result<Pixels> {
    let frame = check_markers(bytes)?;
    let Frame { width, height, channels, .. } = frame;
    check_size(width, height)?;
    let image = unpack(bytes, &frame)?;
    // Data that end at a marker before the last block are only a warning to PIL, and grey from there on. (With several scans
    // or restart markers the decoder fills in otherwise than libjpeg, as it does in place of codes that do not exist.)
    let plain = !frame.progressive && frame.interleaved && !frame.restarts;
    let harmless = |w: &&_| matches!(w, ExtraneousData { .. }) || (plain && matches!(w, TruncatedData { .. }));
    if let Some(warning) = image.warnings.iter().find(|w| !harmless(w)) {
        return Err(Error::new(format!("JPEG: {warning}; what stands there would be a guess")));
    }
    // PIL takes every CMYK JPEG for one of Adobe's, which hold 255 minus the ink.
    let ink = |pixel: &[u8]| [0, 1, 2].map(|channel| shade(255 - pixel[channel], 255 - pixel[3]));
    let rgb = if channels == 4 { image.data.chunks_exact(4).flat_map(ink).collect() } else { image.data };
    Ok(Pixels { width, height, rgb, alpha: None })
}

/// The decoder's image, of bytes of RGB or, for four channels, of CMYK.
fn unpack(bytes: &[u8], frame: &Frame) -> Result<Image> {
    let failed = |e: JpegError| Error::new(format!("JPEG: {e}"));
    let limits = DecodeLimits { max_pixels: MAX_PIXELS, max_scans: MAX_SCANS, ..DecodeLimits::default() };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(failed)?;
    let header = decoder.header();
    let size = (u32::from(header.width), u32::from(header.height), header.components.len());
    if size != (frame.width, frame.height, frame.channels) {
        return Err(Error::new("JPEG: two frame headers that disagree"));
    }
    if let [ink @ .., black] = &header.components[..] {
        let smaller = |c: &ComponentInfo| {
            black.horizontal_sampling < c.horizontal_sampling || black.vertical_sampling < c.vertical_sampling
        };
        // (The decoder leaves it small.)
        if frame.channels == 4 && ink.iter().any(smaller) {
            return Err(Error::new("a CMYK JPEG whose black is subsampled is not read"));
        }
    }
    decoder.set_lenient(true);
    decoder.set_block_smoothing(true);
    decoder.set_output_format(if frame.channels == 4 { PixelFormat::Cmyk } else { PixelFormat::Rgb });
    decoder.decode_image().map_err(failed)
}

/// What the last frame header before the first scan says.
struct Frame {
    width: u32,
    height: u32,
    channels: usize,
    progressive: bool,
    /// Whether there are restart markers.
    restarts: bool,
    /// Whether the first scan has all channels.
    interleaved: bool,
}

/// Reads the markers before the first scan as PIL does and refuses what it refuses; and files without an end of the
/// image after it, in whose place the decoder would make up pixels.
/// Source: Pillow, `JpegImagePlugin.py`, `_open` and the handlers of markers.
fn check_markers(bytes: &[u8]) -> Result<Frame> {
    let (mut at, mut frame, mut restarts) = (2, None::<Frame>, false);
    let damaged = |what: &str| Error::new(format!("JPEG: {what}"));
    loop {
        // What stands between segments is skipped, as is padding.
        let Some(start) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xff)) else {
            return Err(damaged("no scan"));
        };
        at += start + 1;
        let marker = *bytes.get(at).ok_or_else(|| damaged("no scan"))?;
        match marker {
            0xff => continue,
            0x00 | 0xd0..=0xd7 => at += 1, // these have no length
            0x01..=0xbf | 0xc8 | 0xd8 | 0xd9 | 0xde | 0xdf | 0xf0..=0xfd => {
                return Err(damaged("a marker where it cannot be"));
            }
            _ => {
                let length = slice(bytes, at + 1, 2).map(|pair| usize::from(u16::from_be_bytes([pair[0], pair[1]])))?;
                let content = slice(bytes, at + 3, length.saturating_sub(2))?;
                at += 3 + content.len();
                check_segment(marker, content)?;
                match marker {
                    0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf if frame.is_some() => {
                        return Err(damaged("two frame headers"));
                    }
                    0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                        let progressive = matches!(marker, 0xc2 | 0xc6 | 0xca | 0xce);
                        frame = Some(Frame { progressive, ..read_frame(content)? });
                    }
                    0xdd => restarts = content != [0, 0],
                    0xda => {
                        let frame = frame.as_mut().ok_or_else(|| damaged("no frame header"))?;
                        frame.restarts = restarts;
                        frame.interleaved = content.first().map(|&n| usize::from(n)) == Some(frame.channels);
                        break;
                    }
                    _ => {}
                }
            }
        }
    }
    let frame = frame.ok_or_else(|| damaged("no frame header"))?;
    check_tail(&bytes[at..], frame.progressive || !frame.interleaved)?;
    Ok(frame)
}

/// Refuses what libjpeg refuses between the start of the first scan's data and the end of the image. It reads as far as
/// that even where all pixels are there.
/// Source: libjpeg-turbo, `jdmarker.c` (`read_markers`), `jdapistd.c` (`jpeg_finish_decompress`).
fn check_tail(mut rest: &[u8], more_scans: bool) -> Result<()> {
    let damaged = |what: &str| Error::new(format!("JPEG: {what}"));
    while let Some(start) = rest.iter().position(|&byte| byte == 0xff) {
        let Some((&marker, after)) = rest[start + 1..].split_first() else { break };
        rest = match marker {
            0xff => &rest[start + 1..],
            0x00 | 0x01 | 0xd0..=0xd7 => after,
            0xd9 => return Ok(()),
            0xda if !more_scans => return Err(damaged("a second scan where there should be none")),
            0xc4 | 0xcc | 0xda..=0xdd | 0xe0..=0xef | 0xfe => {
                let length = slice(after, 0, 2).map(|pair| usize::from(u16::from_be_bytes([pair[0], pair[1]])))?;
                let content = slice(after, 2, length.saturating_sub(2))?;
                check_segment(marker, content)?;
                &after[2 + content.len()..]
            }
            _ => return Err(damaged("a marker where it cannot be")),
        };
    }
    Err(damaged("the data are truncated"))
}

fn read_frame(content: &[u8]) -> Result<Frame> {
    match *content {
        [8, h1, h0, w1, w0, channels @ (1 | 3 | 4), ref rest @ ..] if rest.len() % 3 == 0 => {
            let number = |high, low| u32::from(u16::from_be_bytes([high, low]));
            let (width, height) = (number(w1, w0), number(h1, h0));
            Ok(Frame {
                width,
                height,
                channels: channels.into(),
                progressive: false,
                restarts: false,
                interleaved: false,
            })
        }
        [bits, _, _, _, _, channels, ..] if bits != 8 || !matches!(channels, 1 | 3 | 4) => {
            Err(Error::new(format!("a JPEG of {channels} channels of {bits} bits is not supported")))
        }
        _ => Err(Error::new("JPEG: a broken frame header")),
    }
}

/// What PIL or libjpeg read of other segments and fail at.
fn check_segment(marker: u8, content: &[u8]) -> Result<()> {
    let mut tables = content;
    let sound = match marker {
        0xdb => loop {
            match tables {
                [] => break true,
                [kind, rest @ ..] => match rest.get(if kind >> 4 == 0 { 64 } else { 128 }..) {
                    Some(rest) => tables = rest,
                    None => break false,
                },
            }
        },
        // Classes and numbers of Huffman tables, codes of each length, symbols.
        0xc4 => loop {
            match tables {
                [] => break true,
                [number, rest @ ..] if number & 0xef < 4 && rest.len() >= 16 => {
                    let symbols = rest[..16].iter().map(|&count| usize::from(count)).sum::<usize>();
                    match rest[16..].get(symbols..) {
                        Some(rest) if symbols <= 256 => tables = rest,
                        _ => break false,
                    }
                }
                _ => break false,
            }
        },
        0xdd => content.len() == 2,
        0xe0 => !content.starts_with(b"JFIF") || content.len() >= 7,
        0xee => !content.starts_with(b"Adobe") || content.len() >= 7,
        _ => true,
    };
    if sound { Ok(()) } else { Err(Error::new(format!("JPEG: a broken segment {marker:#x}"))) }
}

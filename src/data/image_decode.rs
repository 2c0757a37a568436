//! Image files to the RGB bytes that PIL gives: `Image.open(path).convert("RGB")`.
//!
//! The content decides the format, not the extension. JPEG goes through a port of libjpeg-turbo, the library under PIL,
//! and is equal to it bit for bit. An alpha channel is dropped; 16-bit colours lose their low byte, 16-bit grey is
//! clipped; GIF, WebP and PNG animations give their first frame. What PIL refuses is refused: files that end too early,
//! more pixels than its limit, text that inflates without end.
//! Source of the rules: Pillow 13.0, `JpegImagePlugin.py`, `PngImagePlugin.py`, `libImaging/{Convert,Unpack}.c`.

use std::io::{Cursor, Read};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use libjpeg_turbo_rs::{DecodeLimits, Decoder, PixelFormat};

use crate::error::{Error, Result};

/// The longest side, JPEG's own limit.
const MAX_SIDE: u32 = 65_535;
/// PIL's limit on the area.
pub(super) const MAX_PIXELS: u64 = 178_956_970;
/// The memory of an image of that area in RGBA, with some for the decoder.
const MAX_DECODED_BYTES: u64 = 1 << 30;
/// Scans of a progressive JPEG; real ones have about ten, and each costs a pass over the image.
const MAX_SCANS: usize = 256;
/// PIL's limit on an inflated text or colour profile of a PNG.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// The pixels of the file at `path`.
pub(super) fn decode(path: &Path) -> Result<RgbImage> {
    let mut bytes = std::fs::read(path)?;
    if bytes.is_empty() {
        return Err(Error::new("the file is empty"));
    }
    let format = format(&bytes).ok_or_else(|| Error::new("not a JPEG, PNG, WebP or GIF file"))?;
    match format {
        ImageFormat::Jpeg => return decode_jpeg(&bytes),
        ImageFormat::Png => check_png_texts(&bytes)?,
        ImageFormat::WebP => unblend_webp(&mut bytes),
        _ => {}
    }
    decode_other(&bytes, format)
}

/// The format of a file that starts with `bytes`, if it is one of those that themo reads.
pub(super) fn format(bytes: &[u8]) -> Option<ImageFormat> {
    let known = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif];
    image::guess_format(bytes).ok().filter(|format| known.contains(format))
}

fn decode_jpeg(bytes: &[u8]) -> Result<RgbImage> {
    // The decoder makes up what is missing, as libjpeg does; PIL refuses such a file.
    if !has_jpeg_end(bytes) {
        return Err(Error::new("the JPEG data are truncated"));
    }
    let failed = |e: libjpeg_turbo_rs::JpegError| Error::new(format!("JPEG: {e}"));
    let limits = DecodeLimits { max_pixels: MAX_PIXELS, max_scans: MAX_SCANS, ..DecodeLimits::default() };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(failed)?;
    let header = decoder.header();
    let (width, height) = (u32::from(header.width), u32::from(header.height));
    let cmyk = match (header.precision, header.components.len()) {
        (8, 1 | 3) => false,
        (8, 4) => true,
        (bits, channels) => {
            return Err(Error::new(format!("a JPEG of {channels} channels of {bits} bits is not supported")));
        }
    };
    // Corrupt data among the pixels are only a warning to PIL.
    decoder.set_lenient(true);
    decoder.set_block_smoothing(true);
    decoder.set_output_format(if cmyk { PixelFormat::Cmyk } else { PixelFormat::Rgb });
    let image = decoder.decode_image().map_err(failed)?;
    let pixels = if cmyk { image.data.chunks_exact(4).flat_map(rgb_of_inverted_cmyk).collect() } else { image.data };
    RgbImage::from_raw(width, height, pixels).ok_or_else(|| Error::new("JPEG: wrong length"))
}

/// PIL takes every CMYK JPEG for one of Adobe's, which hold 255 minus the ink.
fn rgb_of_inverted_cmyk(pixel: &[u8]) -> [u8; 3] {
    let light = u32::from(pixel[3]);
    // light - ink * light / 255, with PIL's rounding of the quotient
    let shade = |value: u8| {
        let product = (255 - u32::from(value)) * light + 128;
        light.saturating_sub(((product >> 8) + product) >> 8) as u8
    };
    [shade(pixel[0]), shade(pixel[1]), shade(pixel[2])]
}

fn decode_other(bytes: &[u8], format: ImageFormat) -> Result<RgbImage> {
    let failed = |e: image::ImageError| Error::new(e.to_string());
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Error::new(format!("{width}x{height} pixels are more than themo decodes")));
    }
    if width == 0 || height == 0 {
        return Err(Error::new("no pixels"));
    }
    let high = |value: u16| (value >> 8) as u8;
    // The only 16-bit samples of these formats are PNG's. Grey (a tRNS chunk makes it LumaA) is mode I;16 to PIL.
    let grey16 = bytes.get(24..26) == Some(&[16, 0]);
    let clipped = |value: u16| if grey16 { value.min(255) as u8 } else { high(value) };
    let pixels: Vec<u8> = match DynamicImage::from_decoder(decoder).map_err(failed)? {
        DynamicImage::ImageLuma16(image) => image.iter().flat_map(|&grey| [clipped(grey); 3]).collect(),
        DynamicImage::ImageLumaA16(image) => image.chunks_exact(2).flat_map(|p| [clipped(p[0]); 3]).collect(),
        DynamicImage::ImageRgb16(image) => image.iter().copied().map(high).collect(),
        DynamicImage::ImageRgba16(image) => image.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]].map(high)).collect(),
        image => return Ok(image.into_rgb8()),
    };
    RgbImage::from_raw(width, height, pixels).ok_or_else(|| Error::new("PNG: wrong length"))
}

/// Whether an end-of-image marker follows the first scan. Segments before it are skipped by their lengths, for a
/// thumbnail in one of them has an end of its own.
fn has_jpeg_end(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..).unwrap_or_default();
    // As libjpeg does, skip what stands between segments.
    while let Some(at) = rest.iter().position(|&byte| byte == 0xff) {
        rest = match &rest[at + 1..] {
            [0xda, tail @ ..] => return tail.windows(2).any(|pair| pair == [0xff, 0xd9]),
            tail @ ([0xff, ..] | []) => tail,
            [0x00 | 0x01 | 0xd0..=0xd9, tail @ ..] => tail, // these have no length
            [_, tail @ ..] => match tail.first_chunk() {
                Some(length) => tail.get(usize::from(u16::from_be_bytes(*length)).max(2)..).unwrap_or_default(),
                None => return false,
            },
        };
    }
    false
}

/// Refuses a PNG with a compressed text or profile that PIL refuses to inflate. themo needs none of them; a file made
/// so is an attack.
fn check_png_texts(bytes: &[u8]) -> Result<()> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((head, tail)) = rest.split_first_chunk::<8>() {
        let (length, kind) = head.split_at(4);
        let length = length.iter().fold(0, |n, &byte| n << 8 | usize::from(byte));
        let Some(data) = tail.get(..length) else { break };
        // What stands before the compressed bytes: a name or a keyword and what else the chunk has.
        let after_zero = |data: &[u8]| data.iter().position(|&byte| byte == 0).map_or(data.len(), |at| at + 1);
        let name = after_zero(data);
        let packed = match (kind, &data[name..]) {
            (b"IDAT", _) => break,
            (b"zTXt" | b"iCCP", [0, packed @ ..]) => packed,
            (b"iTXt", [1, 0, tail @ ..]) => {
                let tail = &tail[after_zero(tail)..];
                &tail[after_zero(tail)..]
            }
            _ => &[],
        };
        let mut inflated = flate2::read::ZlibDecoder::new(packed).take(MAX_TEXT_BYTES + 1);
        // A damaged text stops the count, and hurts nobody.
        let _ = std::io::copy(&mut inflated, &mut std::io::sink());
        if inflated.limit() == 0 {
            return Err(Error::new("PNG: a text or profile inflates to more than 1 MiB"));
        }
        rest = tail.get(length + 4..).unwrap_or_default();
    }
    Ok(())
}

/// Makes the first frame of an animated WebP replace what lies under it. The `image` crate blends it with an empty
/// canvas, and so loses the colour of clear pixels, which libwebp keeps.
/// Source: the WebP container specification, chunk ANMF.
fn unblend_webp(bytes: &mut [u8]) {
    let mut rest = bytes.get_mut(12..).unwrap_or_default();
    while let Some((head, tail)) = rest.split_first_chunk_mut::<8>() {
        if head.starts_with(b"ANMF") {
            if let Some(flags) = tail.get_mut(15) {
                *flags |= 2;
            }
            return;
        }
        let length = head[4..].iter().rev().fold(0, |n, &byte| n << 8 | usize::from(byte));
        rest = tail.get_mut(length + length % 2..).unwrap_or_default();
    }
}

//! WebP: the first frame.

use std::io::Cursor;

use image::codecs::webp::WebPDecoder;
use image::{DynamicImage, ImageDecoder, Limits};

use super::pixels::{MAX_DECODED_BYTES, Pixels, check_size, slice};
use crate::error::{Error, Result};

pub(super) fn decode(mut bytes: Vec<u8>) -> Result<Pixels> {
    check_chunks(&bytes)?;
    unblend(&mut bytes);
    let failed = |e: image::ImageError| Error::new(e.to_string());
    let mut decoder = WebPDecoder::new(Cursor::new(&bytes)).map_err(failed)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODED_BYTES as u64);
    decoder.set_limits(limits).map_err(failed)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    Ok(match DynamicImage::from_decoder(decoder).map_err(failed)? {
        DynamicImage::ImageRgba8(image) => {
            let rgb = image.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
            let alpha = image.chunks_exact(4).map(|pixel| pixel[3]).collect();
            Pixels { width, height, rgb, alpha: Some(alpha) }
        }
        image => Pixels { width, height, rgb: image.into_rgb8().into_raw(), alpha: None },
    })
}

/// Refuses files whose chunks do not fit, as libwebp's demuxer does; it looks at all frames of an animation.
/// Source: libwebp, `src/demux/demux.c`.
fn check_chunks(bytes: &[u8]) -> Result<()> {
    let number = |at: usize| slice(bytes, at, 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let file = slice(bytes, 8, number(4)?)?;
    let fits = |mut rest: &[u8]| {
        while !rest.is_empty() {
            let Some((head, tail)) = rest.split_first_chunk::<8>() else { return false };
            let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            match tail.get(length.next_multiple_of(2)..) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        true
    };
    let mut sound = fits(&file[4..]);
    let mut rest = file.get(4..).unwrap_or_default();
    while let (true, Some((head, tail))) = (sound, rest.split_first_chunk::<8>()) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if head.starts_with(b"ANMF") {
            sound = tail[..length].get(16..).is_some_and(&fits);
        }
        rest = &tail[length.next_multiple_of(2)..];
    }
    if sound { Ok(()) } else { Err(Error::new("WebP: the chunks do not fit the file")) }
}

/// Makes the first frame of an animated WebP replace what lies under it. The decoder blends it with an empty canvas, and so
/// loses the colour of clear pixels, which libwebp keeps.
/// Source: the WebP container specification, chunk ANMF.
fn unblend(bytes: &mut [u8]) {
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

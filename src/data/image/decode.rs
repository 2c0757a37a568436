//! Image files to the RGB bytes that PIL gives: `Image.open(path).convert("RGB")`, or the same over white.
//!
//! The content decides the format, not the extension; each format has a file of its own beside this one. What PIL
//! refuses is refused: files that end too early, more pixels than its limit, wrong checksums, text that inflates without
//! end. What themo does not decode as PIL does is refused too, by name. GIF, WebP, PNG and TIFF give their first frame.
//! Source of the rules: Pillow 13.0, `*ImagePlugin.py`, `ImageFile.py`, `Image.py` (`convert`),
//! `libImaging/{Convert,Unpack,AlphaComposite}.c`.

use std::path::Path;

use image::RgbImage;

use super::pixels::{Pixels, divided_by_255};
use super::{Transparency, bmp, gif, jpeg, png, tiff, webp};
use crate::data::guard::guarded;
use crate::error::{Error, Result};

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    Tiff,
}

/// The pixels of the file at `path`. A decoder that panics has met a broken image.
pub(super) fn decode(path: &Path, transparency: Transparency) -> Result<RgbImage> {
    let bytes = std::fs::read(path)?;
    if bytes.is_empty() {
        return Err(Error::new("the file is empty"));
    }
    let format = format(&bytes).ok_or_else(|| Error::new("not a JPEG, PNG, WebP, GIF, BMP or TIFF file"))?;
    let Pixels { width, height, mut rgb, alpha } = guarded(|| match format {
        Format::Jpeg => jpeg::decode(&bytes),
        Format::Png => png::decode(&bytes),
        Format::WebP => webp::decode(bytes),
        Format::Gif => gif::decode(&bytes),
        Format::Bmp => bmp::decode(&bytes),
        Format::Tiff => tiff::decode(&bytes),
    })?;
    if let (Transparency::White, Some(alpha)) = (transparency, alpha) {
        rgb.chunks_exact_mut(3).zip(alpha).for_each(|(pixel, alpha)| over_white(pixel, alpha));
    }
    RgbImage::from_raw(width, height, rgb).ok_or_else(|| Error::new(format!("{format:?}: wrong length")))
}

/// The format of a file that starts with `bytes`, if it is one of those that themo reads.
pub(super) fn format(bytes: &[u8]) -> Option<Format> {
    Some(match bytes {
        [0xff, 0xd8, 0xff, ..] => Format::Jpeg,
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Format::Png,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Format::WebP,
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Format::Gif,
        [b'B', b'M', ..] => Format::Bmp,
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Format::Tiff,
        _ => return None,
    })
}

/// `pixel` of opacity `alpha` before white, as `Image.alpha_composite` rounds it.
fn over_white(pixel: &mut [u8], alpha: u8) {
    for byte in pixel {
        *byte = 255 - divided_by_255(u32::from(alpha) * u32::from(255 - *byte)) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All values against the formula of `AlphaComposite.c` with a white, opaque background.
    #[test]
    fn compositing_is_pils() {
        for (alpha, colour) in (0..=255u8).flat_map(|alpha| (0..=255u8).map(move |colour| (alpha, colour))) {
            let (a, c) = (u32::from(alpha), u32::from(colour));
            let (own, white) = (a << 7, (255 << 7) - (a << 7));
            let sum = c * own + 255 * white + (0x80 << 7);
            let expected = if a == 0 { 255 } else { (((sum >> 8) + sum) >> 8) >> 7 };
            let mut pixel = [colour];
            over_white(&mut pixel, alpha);
            assert_eq!(u32::from(pixel[0]), expected, "{alpha} {colour}");
        }
    }
}

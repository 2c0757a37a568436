//! TIFF: the first image of a file, as far as themo gives PIL's very pixels: grey, palette, RGB and CMYK of whole-number
//! samples, uncompressed, LZW, Deflate or PackBits, in strips or tiles, turned as the orientation says. All else is refused
//! by name. (The `tiff` crate knows no palettes, and decodes much that PIL decodes otherwise.)
//! Source: TIFF 6.0; Pillow, `TiffImagePlugin.py` (`OPEN_INFO`, `_setup`), `Unpack.c`; libtiff, `tif_predict.c`.

use std::borrow::Cow;
use std::io::Read;

use weezl::BitOrder;
use weezl::decode::Configuration;

use super::pixels::{Pixels, check_size, palette, shade, slice, unpack_lzw};
use super::tiff_tags::Tags;
use crate::error::{Error, Result};

/// How the samples lie in the file and what they mean.
struct Layout {
    width: usize,
    height: usize,
    bits: usize,
    /// Samples of a pixel in the file.
    samples: usize,
    /// Those that make the colour.
    colours: usize,
    alpha: Alpha,
    photometric: u64,
    compression: u64,
    /// Whether each sample is stored as the difference to that of the pixel to its left.
    differences: bool,
    reversed: bool,
    /// Each sample in chunks of its own.
    planar: bool,
    /// Strips are tiles as wide as the image.
    tile: (usize, usize),
}

#[derive(Clone, Copy, PartialEq)]
enum Alpha {
    None,
    Plain,
    /// The colours are multiplied by it.
    Associated,
}

pub(super) fn decode(bytes: &[u8]) -> Result<Pixels> {
    let tags = Tags::read(bytes)?;
    let layout = Layout::new(&tags)?;
    let planes = if layout.planar { layout.samples } else { 1 };
    let across = layout.width.div_ceil(layout.tile.0);
    let down = layout.height.div_ceil(layout.tile.1);
    let [offsets, lengths] = if tags.has(273) { [273, 279] } else { [324, 325] }.map(|tag| tags.all(tag));
    let (offsets, lengths) = (offsets?, lengths?);
    if offsets.len() != planes * across * down {
        return Err(Error::new(format!("TIFF: {} strips or tiles are not an image", offsets.len())));
    }
    let orientation = tags.number(274, 1)?;
    if orientation > 4 && layout.compression == 1 && offsets.len() == 1 && layout.samples != 3 {
        return Err(Error::new("an uncompressed TIFF of one strip that is turned by a quarter is not read")); // PIL garbles it
    }
    // Decoded before the image has its memory: a header may promise anything.
    let mut chunks = Vec::with_capacity(offsets.len());
    for (k, &offset) in offsets.iter().enumerate() {
        // (A tile is whole even where it reaches over the edge.)
        let left = if tags.has(273) { layout.height - (k / across % down) * layout.tile.1 } else { layout.tile.1 };
        let rows = layout.tile.1.min(left);
        let stored = match (layout.compression, lengths.get(k)) {
            (1, _) => None,
            (_, Some(&length)) => Some(length),
            (_, None) => return Err(Error::new("TIFF: strips or tiles without a length")),
        };
        chunks.push(layout.chunk(bytes, offset as usize, stored, rows, tags.little)?);
    }

    let kept = layout.colours + usize::from(layout.alpha != Alpha::None);
    let mut samples = vec![0; layout.width * layout.height * kept];
    let stride = layout.row_bytes();
    for (k, chunk) in chunks.iter().enumerate() {
        let (plane, left, top) = (k / (across * down), k % across * layout.tile.0, k / across % down * layout.tile.1);
        let width = layout.tile.0.min(layout.width - left);
        for (y, row) in chunk.chunks_exact(stride).take(layout.height - top).enumerate() {
            let line = &mut samples[((top + y) * layout.width + left) * kept..][..width * kept];
            for (x, pixel) in line.chunks_exact_mut(kept).enumerate() {
                if layout.planar {
                    if plane < kept {
                        pixel[plane] = layout.sample(row, x, tags.little);
                    }
                } else {
                    for (s, value) in pixel.iter_mut().enumerate() {
                        *value = layout.sample(row, x * layout.samples + s, tags.little);
                    }
                }
            }
        }
    }
    let pixels = layout.pixels(samples, kept, &tags)?;
    Ok(turned(pixels, orientation))
}

/// What the `beyond` samples after the colours are, from their kinds `extra` (tag 338), as PIL takes them; none where it
/// does not.
fn alpha(photometric: u64, bits: u64, beyond: u64, extra: &[u64]) -> Option<Alpha> {
    let listed = extra.len() as u64 == beyond && extra.iter().skip(1).all(|&kind| kind == 0);
    // (PIL takes a fourth sample without a meaning for alpha.)
    Some(match (photometric, beyond, extra) {
        (_, 0, []) => Alpha::None,
        (2, 1, [] | [2]) | (1 | 3, 1, [2]) => Alpha::Plain,
        (2, 1, [999]) if bits == 8 => Alpha::Plain,
        (1..=3, 1, [0]) => Alpha::None,
        (2, 1..=3, [1, 0, ..] | [1]) if listed && bits == 8 => Alpha::Associated,
        (2, 1..=3, [2, 0, ..]) if listed && bits == 8 => Alpha::Plain,
        (2, 1..=3, _) | (5, 1..=2, _) if listed && bits == 8 && extra[0] == 0 => Alpha::None,
        _ => return None,
    })
}

impl Layout {
    fn new(tags: &Tags) -> Result<Self> {
        let refuse = |what: String| Err(Error::new(format!("a TIFF with {what} is not read")));
        let (width, height) = (tags.number(256, 0)?, tags.number(257, 0)?);
        let side = |side: u64| side.min(u64::from(u32::MAX)) as u32;
        check_size(side(width), side(height))?;
        let (samples, photometric) = (tags.number(277, 1)?, tags.number(262, 0)?);
        let (compression, planar) = (tags.number(259, 1)?, tags.number(284, 1)?);
        let (reversed, predictor) = (tags.number(266, 1)?, tags.number(317, 1)?);
        let all_bits = if tags.has(258) { tags.all(258)? } else { vec![1] };
        let extra = tags.all(338)?;
        let formats = tags.all(339)?;
        let bits = all_bits.first().copied().unwrap_or(0);
        let named = |tag: u16, what: &str, value: u64| refuse(format!("{what} {value} (tag {tag})"));
        if !(1..=8).contains(&samples) {
            return named(277, "samples a pixel", samples);
        }
        if all_bits.iter().any(|&other| other != bits) || ![1, samples].contains(&(all_bits.len() as u64)) {
            return refuse(format!("samples of {all_bits:?} bits"));
        }
        if !matches!(compression, 1 | 5 | 8 | 32946 | 32773) {
            return named(259, "compression", compression);
        }
        let predicted = matches!(compression, 5 | 8 | 32946);
        if !matches!(predictor, 1 | 2) || (predictor == 2 && bits < 8 && predicted) {
            return named(317, "predictor", predictor);
        }
        let reversible = matches!((photometric, bits, samples), (0, 1..=4, 1) | (1, 1..=8, 1) | (2, 8, 3) | (3, 8, 1));
        if !matches!(reversed, 1 | 2) || (reversed == 2 && (compression != 1 || !reversible)) {
            return named(266, "fill order", reversed);
        }
        if formats.iter().any(|&format| format != 1) {
            return named(339, "sample format", formats.into_iter().find(|&f| f != 1).unwrap_or(0));
        }
        let colours = match (photometric, bits) {
            (0 | 1 | 3, 1 | 2 | 4 | 8) => 1,
            (1, 16) => 1,
            (0, 16) if tags.little => 1,
            (2, 8 | 16) => 3,
            (5, 8 | 16) => 4,
            _ => return refuse(format!("colours {photometric} (tag 262) of {bits} bits")),
        };
        let Some(alpha) = alpha(photometric, bits, samples.wrapping_sub(colours), &extra) else {
            return refuse(format!("{samples} samples a pixel, extra ones {extra:?} (tag 338)"));
        };
        if (samples > colours && bits < 8) || (colours == 1 && samples > 1 && bits != 8) {
            return refuse(format!("{samples} samples of {bits} bits"));
        }
        // (Of one sample, uncompressed and apart, PIL forgets how many bits it has and that white is zero.)
        let apart = match samples {
            1 => compression != 1 || (bits == 8 && photometric != 0),
            _ => bits == 8 && colours > 1 && samples == colours,
        };
        if !matches!(planar, 1 | 2) || (planar == 2 && !apart) {
            return named(284, "planar configuration", planar);
        }
        let tile = match (tags.has(273), tags.has(324)) {
            (true, false) => (width, tags.number(278, height)?.min(height)),
            (false, true) => (tags.number(322, 0)?, tags.number(323, 0)?),
            _ => return refuse("neither strips nor tiles, or both".into()),
        };
        if tile.0 == 0 || tile.1 == 0 || tile.0.max(tile.1) > 1 << 16 {
            return refuse(format!("tiles of {} x {} pixels", tile.0, tile.1));
        }
        Ok(Self {
            width: width as usize,
            height: height as usize,
            bits: bits as usize,
            samples: samples as usize,
            colours: colours as usize,
            alpha,
            photometric,
            compression,
            differences: predictor == 2 && predicted,
            reversed: reversed == 2,
            planar: planar == 2 && samples > 1,
            tile: (tile.0 as usize, tile.1 as usize),
        })
    }

    /// Bytes of a row of a strip or a tile.
    fn row_bytes(&self) -> usize {
        (self.tile.0 * self.bits * if self.planar { 1 } else { self.samples }).div_ceil(8)
    }

    /// The first `rows` rows of a strip or tile, unpacked.
    fn chunk<'a>(
        &self, bytes: &'a [u8], at: usize, stored: Option<u64>, rows: usize, little: bool,
    ) -> Result<Cow<'a, [u8]>> {
        let length = self.row_bytes() * rows;
        let damaged = |e: std::io::Error| Error::new(format!("TIFF: the image data are broken ({e})"));
        let Some(stored) = stored else {
            let chunk = slice(bytes, at, length)?;
            let reversed = || chunk.iter().map(|byte| byte.reverse_bits()).collect();
            return Ok(if self.reversed { Cow::Owned(reversed()) } else { Cow::Borrowed(chunk) });
        };
        let packed = slice(bytes, at, stored as usize)?;
        let mut chunk = Vec::new();
        match self.compression {
            5 => {
                if let [0, 1 | 3 | 5 | 7 | 9 | 11 | 13 | 15, ..] = packed {
                    return Err(Error::new("a TIFF with LZW of the old kind is not read"));
                }
                let configuration = Configuration::with_tiff_size_switch(BitOrder::Msb, 8);
                let mut decoder = configuration.with_yield_on_full_buffer(true).build();
                unpack_lzw(&mut decoder, packed, length, &mut chunk)?;
            }
            32773 => unpack_bits(packed, length, &mut chunk),
            _ => {
                flate2::read::ZlibDecoder::new(packed).take(length as u64).read_to_end(&mut chunk).map_err(damaged)?;
            }
        }
        if chunk.len() < length {
            return Err(Error::new("TIFF: the image data are truncated"));
        }
        chunk.truncate(length);
        if self.differences {
            self.sum_up(&mut chunk, little);
        }
        Ok(Cow::Owned(chunk))
    }

    /// Makes samples of the differences to the samples of the pixels to their left.
    fn sum_up(&self, chunk: &mut [u8], little: bool) {
        let step = if self.planar { 1 } else { self.samples };
        for row in chunk.chunks_exact_mut(self.row_bytes()) {
            if self.bits == 8 {
                (step..row.len()).for_each(|k| row[k] = row[k].wrapping_add(row[k - step]));
                continue;
            }
            let of = |pair: [u8; 2]| if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) };
            for k in (2 * step..row.len() - 1).step_by(2) {
                let left = [row[k - 2 * step], row[k - 2 * step + 1]];
                let sum = of([row[k], row[k + 1]]).wrapping_add(of(left));
                row[k..k + 2].copy_from_slice(&if little { sum.to_le_bytes() } else { sum.to_be_bytes() });
            }
        }
    }

    /// Sample k of a row, as PIL makes a byte of it: 16-bit grey is clipped, other 16-bit samples lose their low byte.
    fn sample(&self, row: &[u8], k: usize, little: bool) -> u8 {
        match self.bits {
            8 => row[k],
            16 => {
                let (high, low) = if little { (row[2 * k + 1], row[2 * k]) } else { (row[2 * k], row[2 * k + 1]) };
                if self.colours > 1 || high == 0 { if self.colours > 1 { high } else { low } } else { 255 }
            }
            bits => row[k * bits / 8] >> (8 - bits - k * bits % 8) & (255 >> (8 - bits)),
        }
    }

    /// Colours of the `samples`, `kept` a pixel.
    fn pixels(&self, samples: Vec<u8>, kept: usize, tags: &Tags) -> Result<Pixels> {
        let (width, height) = (self.width as u32, self.height as u32);
        let pixels = || samples.chunks_exact(kept);
        let scale = if self.bits < 8 { 255 / ((1 << self.bits) - 1) } else { 1 };
        let mut rgb: Vec<u8> = match self.photometric {
            0 if self.bits < 16 => pixels().flat_map(|pixel| [255 - pixel[0] * scale; 3]).collect(),
            0 | 1 => pixels().flat_map(|pixel| [pixel[0] * scale; 3]).collect(),
            2 => pixels().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
            5 => pixels().flat_map(|pixel| [0, 1, 2].map(|k| shade(pixel[k], pixel[3]))).collect(),
            _ => {
                let map = tags.all(320)?;
                let count = 1 << self.bits;
                if map.len() != 3 * count {
                    return Err(Error::new(format!("TIFF: a palette of {} values for {count} colours", map.len())));
                }
                let entry = |k: usize| [0, 1, 2].map(|channel| (map[channel * count + k] >> 8) as u8);
                let entries: Vec<[u8; 3]> = (0..count).map(entry).collect();
                let colours = palette(entries.iter().map(|entry| &entry[..]), [0, 1, 2]);
                pixels().flat_map(|pixel| colours[usize::from(pixel[0])]).collect()
            }
        };
        let alpha = (self.alpha != Alpha::None).then(|| pixels().map(|pixel| pixel[kept - 1]).collect::<Vec<u8>>());
        if let (Alpha::Associated, Some(alpha)) = (self.alpha, &alpha) {
            for (pixel, &alpha) in rgb.chunks_exact_mut(3).zip(alpha) {
                let plain = |byte: u8| (u32::from(byte) * 255).checked_div(alpha.into()).unwrap_or(0).min(255) as u8;
                pixel.iter_mut().for_each(|byte| *byte = plain(*byte));
            }
        }
        Ok(Pixels { width, height, rgb, alpha })
    }
}

/// PackBits, as far as it gives `length` bytes.
fn unpack_bits(packed: &[u8], length: usize, out: &mut Vec<u8>) {
    let mut rest = packed;
    while let [count, tail @ ..] = rest {
        if out.len() >= length {
            return;
        }
        let count = usize::from(*count);
        rest = match count {
            0..=127 => {
                let (literal, tail) = tail.split_at(tail.len().min(count + 1));
                out.extend_from_slice(literal);
                tail
            }
            128 => tail,
            _ => match tail {
                [byte, tail @ ..] => {
                    out.resize(out.len() + 257 - count, *byte);
                    tail
                }
                [] => return,
            },
        };
    }
}

/// The image turned and mirrored as `orientation` (TIFF 6.0, tag 274) says, as PIL does it when it loads a TIFF.
fn turned(pixels: Pixels, orientation: u64) -> Pixels {
    let Pixels { width, height, rgb, alpha } = pixels;
    let (w, h) = (width as usize, height as usize);
    // Where the pixel (x, y) of the result stands in the file.
    let from: Box<dyn Fn(usize, usize) -> (usize, usize)> = match orientation {
        2 => Box::new(move |x, y| (w - 1 - x, y)),
        3 => Box::new(move |x, y| (w - 1 - x, h - 1 - y)),
        4 => Box::new(move |x, y| (x, h - 1 - y)),
        5 => Box::new(|x, y| (y, x)),
        6 => Box::new(move |x, y| (y, h - 1 - x)),
        7 => Box::new(move |x, y| (w - 1 - y, h - 1 - x)),
        8 => Box::new(move |x, y| (w - 1 - y, x)),
        _ => return Pixels { width, height, rgb, alpha },
    };
    let (width, height) = if orientation < 5 { (width, height) } else { (height, width) };
    let places = || (0..height as usize).flat_map(|y| (0..width as usize).map(move |x| (x, y)));
    let at = |(x, y)| {
        let (x, y) = from(x, y);
        y * w + x
    };
    Pixels {
        width,
        height,
        rgb: places().flat_map(|place| rgb[3 * at(place)..][..3].iter().copied()).collect(),
        alpha: alpha.map(|alpha| places().map(|place| alpha[at(place)]).collect()),
    }
}

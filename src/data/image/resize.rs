//! PIL's antialiased bicubic resizing, equal to it in every byte.
//!
//! Each output is a weighted sum of the inputs under a cubic with a = -0.5 (Catmull-Rom), which is widened where the
//! image shrinks; weights have 22 bits after the point; rows and columns are resized one after the other, with a rounding
//! to bytes between.
//! Source: Pillow 13.0, `libImaging/Resample.c`; which goes first is new in it (PR 9549).

use image::RgbImage;

use crate::simd::simd;

/// Bits of a weight after the point.
const BITS: u32 = 22;
/// Rows that are resized together.
const BAND: usize = 16;
/// Sums that are kept in registers: the bytes of one column of a band.
const LANES: usize = 3 * BAND;

/// The inputs that one output sums up: from `first` on, one for each weight.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// `image` in `width` times `height` pixels. Columns go first where the image loses so much of its height that this is
/// the less work, as Pillow estimates it; before 13.0 rows always did.
pub(super) fn resize(image: RgbImage, width: u32, height: u32) -> RgbImage {
    let (fewer_columns, fewer_rows) =
        (i64::from(image.width()) - i64::from(width), i64::from(image.height()) - i64::from(height));
    match fewer_rows > 0 && fewer_rows > 2 * fewer_columns {
        true => resize_rows(resize_columns(image, height), width),
        false => resize_columns(resize_rows(image, width), height),
    }
}

fn resize_columns(image: RgbImage, height: u32) -> RgbImage {
    if height == image.height() {
        return image;
    }
    let mut result = RgbImage::new(image.width(), height);
    apply(&taps(image.height(), height), &image, 3 * image.width() as usize, &mut result);
    result
}

fn resize_rows(image: RgbImage, width: u32) -> RgbImage {
    if width == image.width() {
        return image;
    }
    let (from, to) = (3 * image.width() as usize, 3 * width as usize);
    let taps = taps(image.width(), width);
    // A band of rows lies transposed, column by column, so that one step of the sum serves all its rows.
    let (mut columns, mut sums) = (vec![0; BAND * from], vec![0; BAND * to]);
    let mut result = RgbImage::new(width, image.height());
    for (rows, results) in image.chunks(BAND * from).zip(result.chunks_mut(BAND * to)) {
        for (r, row) in rows.chunks_exact(from).enumerate() {
            for (column, pixel) in columns.chunks_exact_mut(LANES).zip(row.chunks_exact(3)) {
                column[3 * r..3 * r + 3].copy_from_slice(pixel);
            }
        }
        apply(&taps, &columns, LANES, &mut sums);
        for (r, row) in results.chunks_exact_mut(to).enumerate() {
            for (pixel, column) in row.chunks_exact_mut(3).zip(sums.chunks_exact(LANES)) {
                pixel.copy_from_slice(&column[3 * r..3 * r + 3]);
            }
        }
    }
    result
}

simd! {
    /// Row k of `output` becomes the weighted sum that `taps[k]` says of the rows of `input`; both have rows of `stride`
    /// bytes.
    fn apply(taps: &[Taps], input: &[u8], stride: usize, output: &mut [u8]) {
        for (taps, output) in taps.iter().zip(output.chunks_exact_mut(stride)) {
            let rows = &input[taps.first * stride..];
            for (block, output) in output.chunks_mut(LANES).enumerate() {
                let mut sums = [1 << (BITS - 1); LANES];
                for (row, &weight) in rows.chunks_exact(stride).zip(&taps.weights) {
                    let row = &row[block * LANES..];
                    match row.first_chunk::<LANES>() {
                        Some(row) => (0..LANES).for_each(|k| sums[k] += i32::from(row[k]) * weight),
                        None => sums.iter_mut().zip(row).for_each(|(sum, &byte)| *sum += i32::from(byte) * weight),
                    }
                }
                output.iter_mut().zip(sums).for_each(|(byte, sum)| *byte = (sum >> BITS).clamp(0, 255) as u8);
            }
        }
    }
}

/// What each of `to` outputs sums up of `from` inputs.
fn taps(from: u32, to: u32) -> Vec<Taps> {
    let scale = f64::from(from) / f64::from(to);
    let widened = scale.max(1.0);
    let support = 2.0 * widened;
    let output = |k: u32| {
        let centre = (f64::from(k) + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(from as usize);
        let cubic = |at: usize| bicubic((at as f64 - centre + 0.5) * (1.0 / widened));
        let weights: Vec<f64> = (first..end).map(cubic).collect();
        let sum: f64 = weights.iter().sum();
        // (`round` takes halves away from zero, as PIL does)
        let fixed = |weight: f64| (weight / sum * f64::from(1 << BITS)).round() as i32;
        Taps { first, weights: weights.into_iter().map(fixed).collect() }
    };
    (0..to).map(output).collect()
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

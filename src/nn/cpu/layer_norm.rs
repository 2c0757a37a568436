//! Layer norm on slices, row by row, fused with the dropout and the residual sum before it.

use std::mem::MaybeUninit;

use half::bf16;
use rayon::prelude::*;

use super::super::dropout::{RowMask, masked};
use super::math::{SUM_ROWS, add, sum, sum2, sum3};
use super::memory::written;
use crate::error::{Error, Result};
use crate::simd::simd;

/// Weight and bias `[hidden]`, and what is added to the variance.
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub eps: f32,
}

/// What the forward pass gives.
pub struct Forward<T> {
    /// What was normalised, `[tokens, hidden]`; none where it is the input itself.
    pub sum: Option<Vec<f32>>,
    /// The normalised, scaled and shifted sum, `[tokens, hidden]`.
    pub out: Vec<T>,
    /// The mean of each row, `[tokens]`.
    pub mean: Vec<f32>,
    /// 1 / standard deviation of each row, `[tokens]`.
    pub rstd: Vec<f32>,
}

/// What the backward pass needs of the forward pass; see [`Forward`].
#[derive(Clone, Copy)]
pub struct Saved<'a> {
    pub sum: &'a [f32],
    pub mean: &'a [f32],
    pub rstd: &'a [f32],
}

/// What the backward pass gives.
pub struct Backward {
    /// The gradient of the sum, `[tokens, hidden]`.
    pub dx: Vec<f32>,
    /// That of the branch before its masks; none where there are no masks and it is `dx`.
    pub dbranch: Option<Vec<f32>>,
    /// The gradients of weight and bias, summed over [`SUM_ROWS`] tokens each, to be added up in order.
    pub parts: Vec<(Vec<f32>, Vec<f32>)>,
}

/// The error for operands of lengths that do not belong together.
pub fn misfit() -> Error {
    Error::new("layer norm: the operands do not fit each other")
}

/// Writes a row of the normed sum from one of the sum, weight, bias and epsilon, all of one length; gives mean and
/// 1 / standard deviation.
type RowOf<T> = fn(&mut [MaybeUninit<T>], &[f32], &[f32], &[f32], f32) -> (f32, f32);

/// Normalises the rows of `x`, or of `residual + x`, of which `masks` drop elements of `x` first.
pub fn forward(affine: Affine, residual: Option<&[f32]>, x: &[f32], masks: Option<&[RowMask]>) -> Result<Forward<f32>> {
    // SAFETY: `normalise` writes its row.
    unsafe { forward_with(normalise, affine, residual, x, masks) }
}

/// [`forward`] without a residual, to bf16.
pub fn forward_to_bf16(affine: Affine, x: &[f32]) -> Result<Forward<bf16>> {
    // SAFETY: `normalise_to_bf16` writes its row.
    unsafe { forward_with(normalise_to_bf16, affine, None, x, None) }
}

/// # Safety
/// `row` writes all elements of its first slice, if the slices are of one length.
unsafe fn forward_with<T: Send>(
    row: RowOf<T>, affine: Affine, residual: Option<&[f32]>, x: &[f32], masks: Option<&[RowMask]>,
) -> Result<Forward<T>> {
    let Affine { weight, bias, eps } = affine;
    let width = weight.len();
    let n = x.len() / width.max(1);
    if x.len() != n * width
        || bias.len() != width
        || residual.is_some_and(|residual| residual.len() != x.len())
        || masks.is_some_and(|masks| masks.len() != n)
    {
        return Err(misfit());
    }
    let mut out = Box::<[T]>::new_uninit_slice(n * width);
    let (mut mean, mut rstd) = (Box::new_uninit_slice(n), Box::new_uninit_slice(n));
    let one = |out: &mut [MaybeUninit<T>], x: &[f32], mean: &mut MaybeUninit<f32>, rstd: &mut MaybeUninit<f32>| {
        let statistics = row(out, x, weight, bias, eps);
        mean.write(statistics.0);
        rstd.write(statistics.1);
    };
    let rows = (out.par_chunks_mut(width), x.par_chunks(width), &mut mean[..], &mut rstd[..]);
    let rows = rows.into_par_iter().with_min_len(16);
    let sum = match residual {
        Some(residual) => {
            let mut summed = Box::new_uninit_slice(n * width);
            let sums = (summed.par_chunks_mut(width), residual.par_chunks(width)).into_par_iter().enumerate();
            rows.zip(sums).for_each(|((out, x, mean, rstd), (i, (sum, residual)))| {
                match masks {
                    Some(masks) => add_masked(sum, residual, x, masks[i]),
                    None => add(sum, residual, x),
                }
                // SAFETY: the row was written just now.
                one(out, unsafe { written(sum) }, mean, rstd);
            });
            // SAFETY: there are `n` rows of everything, each of `width` elements, and every one was written.
            Some(unsafe { summed.assume_init() }.into_vec())
        }
        None => {
            rows.for_each(|(out, x, mean, rstd)| one(out, x, mean, rstd));
            None
        }
    };
    // SAFETY: as for the sum: for every row, `row` has written `out`, and `one` its mean and rstd.
    let (out, mean, rstd) = unsafe { (out.assume_init(), mean.assume_init(), rstd.assume_init()) };
    Ok(Forward { sum, out: out.into_vec(), mean: mean.into_vec(), rstd: rstd.into_vec() })
}

/// From the gradient `dout` of the output and, where the sum itself is used further on, `dsum`.
pub fn backward(
    weight: &[f32], saved: Saved, dout: &[f32], dsum: Option<&[f32]>, masks: Option<&[RowMask]>,
) -> Result<Backward> {
    let (Saved { sum: x, mean, rstd }, width) = (saved, weight.len());
    let n = dout.len() / width.max(1);
    if dout.len() != n * width
        || x.len() != dout.len()
        || mean.len() != n
        || rstd.len() != n
        || dsum.is_some_and(|dsum| dsum.len() != dout.len())
        || masks.is_some_and(|masks| masks.len() != n)
    {
        return Err(misfit());
    }
    let mut dx = Box::new_uninit_slice(n * width);
    let mut dbranch = Box::new_uninit_slice(if masks.is_some() { n * width } else { 0 });
    let block = SUM_ROWS * width;
    let branches: Vec<&mut [MaybeUninit<f32>]> = match masks {
        Some(_) => dbranch.chunks_mut(block).collect(),
        None => (0..n.div_ceil(SUM_ROWS)).map(|_| &mut [][..]).collect(),
    };
    let parts = (dx.par_chunks_mut(block), x.par_chunks(block), dout.par_chunks(block), branches)
        .into_par_iter()
        .enumerate()
        .map(|(index, (dx, x, dout, dbranch))| {
            let (mut dweight, mut dbias) = (vec![0.0f32; width], vec![0.0f32; width]);
            let first = index * SUM_ROWS;
            let rows = dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(dout.chunks_exact(width));
            for (i, ((dx, x), dy)) in rows.enumerate() {
                let stats = (mean[first + i], rstd[first + i]);
                row_backward(dx, x, dy, weight, stats, &mut dweight, &mut dbias);
            }
            // SAFETY: the block is whole rows, and every one was written.
            let dx = unsafe { written(dx) };
            if let Some(dsum) = dsum {
                dx.iter_mut().zip(&dsum[first * width..]).for_each(|(d, s)| *d += s);
            }
            if let Some(masks) = masks {
                let rows = dbranch.chunks_exact_mut(width).zip(dx.chunks_exact(width));
                rows.zip(&masks[first..]).for_each(|((to, dx), mask)| masked(to, dx, *mask));
            }
            (dweight, dbias)
        })
        .collect();
    // SAFETY: all operands have `n` rows of `width` elements, and every row of `dx` was written; so was every row of
    // `dbranch`, which has none without masks.
    let (dx, dbranch) = unsafe { (dx.assume_init().into_vec(), dbranch.assume_init().into_vec()) };
    Ok(Backward { dx, dbranch: masks.map(|_| dbranch), parts })
}

/// The mean of a row and 1 / standard deviation.
#[inline(always)]
fn statistics(x: &[f32], eps: f32) -> (f32, f32) {
    let width = x.len() as f32;
    let mean = sum(x, |v| v) / width;
    let variance = sum(x, |v| (v - mean) * (v - mean)) / width;
    (mean, 1.0 / (variance + eps).sqrt())
}

simd! {
    fn add_masked(sum: &mut [MaybeUninit<f32>], residual: &[f32], x: &[f32], mask: RowMask) {
        for (c, ((s, r), x)) in sum.iter_mut().zip(residual).zip(x).enumerate() {
            s.write(r + x * mask.factor(c as u32));
        }
    }

    /// One row; returns its mean and 1 / standard deviation.
    fn normalise(out: &mut [MaybeUninit<f32>], x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> (f32, f32) {
        let (mean, rstd) = statistics(x, eps);
        for (((o, &v), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
            o.write(((v - mean) * rstd).mul_add(w, b));
        }
        (mean, rstd)
    }

    fn normalise_to_bf16(out: &mut [MaybeUninit<bf16>], x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> (f32, f32) {
        let (mean, rstd) = statistics(x, eps);
        for (((o, &v), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
            o.write(bf16::from_f32(((v - mean) * rstd).mul_add(w, b)));
        }
        (mean, rstd)
    }

    /// One row's gradient into `dx`; adds to those of weight and bias.
    fn row_backward(
        dx: &mut [MaybeUninit<f32>], x: &[f32], dy: &[f32], weight: &[f32], stats: (f32, f32), dweight: &mut [f32],
        dbias: &mut [f32],
    ) {
        let (width, (mean, rstd)) = (x.len() as f32, stats);
        for ((((d, &x), &dy), dw), db) in dx.iter_mut().zip(x).zip(dy).zip(dweight).zip(dbias) {
            let normal = (x - mean) * rstd;
            *dw += dy * normal;
            *db += dy;
            d.write(normal);
        }
        // SAFETY: all slices are rows of one width, so the loop has written every element.
        let dx = unsafe { written(dx) };
        let mean_g = sum2(dy, weight, |d, w| d * w) / width;
        let mean_gx = sum3(dy, weight, dx, |d, w, x| d * w * x) / width;
        for ((d, &dy), &w) in dx.iter_mut().zip(dy).zip(weight) {
            *d = (dy * w - mean_g - *d * mean_gx) * rstd;
        }
    }
}

//! Layer normalisation (Ba et al. 2016), fused with the dropout and the residual sum before it.

use std::mem::MaybeUninit;

use candle_core::{D, Tensor, WithDType};
use candle_nn::ops::layer_norm_slow;
use half::bf16;
use rayon::prelude::*;

use super::dropout::{Mask, RowMask, masked};
use super::linear::SUM_ROWS;
use super::math::{add, simd, sum, sum2, sum3};
use super::memory::written;
use super::storage::{Slice, tensor};
use super::{Backend, Gradients, Param};
use crate::error::{Error, Result};

/// Scale and shift `[hidden]` and the constant added to the variance.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// What the normalised values are multiplied by, `[hidden]`.
    pub weight: Param,
    /// What is added to them then, `[hidden]`.
    pub bias: Param,
    /// What is added to the variance.
    pub eps: f64,
    /// The operations it uses.
    pub backend: Backend,
}

/// What the forward pass gives and its backward needs.
pub struct Normed {
    /// What was normalised: the residual plus the branch, `[tokens, hidden]`.
    pub sum: Tensor,
    /// The normalised, scaled and shifted sum, `[tokens, hidden]`.
    pub out: Tensor,
    mean: Tensor, // [tokens, 1]
    rstd: Tensor, // [tokens, 1]
}

/// Writes a row of the normed sum from one of the sum, weight, bias and epsilon, all of one length; gives mean and
/// 1 / standard deviation.
type RowOf<T> = fn(&mut [MaybeUninit<T>], &[f32], &[f32], &[f32], f32) -> (f32, f32);

impl LayerNorm {
    /// Normalises `x`, or `residual + x`, of which `mask` drops elements of `x` first.
    pub fn normed(&self, residual: Option<&Tensor>, x: &Tensor, mask: Option<Mask>) -> Result<Normed> {
        if let (None, Some(mask)) = (residual, mask) {
            return self.normed(None, &mask.apply(x)?, None);
        }
        if self.backend == Backend::Plain {
            let (weight, bias) = (&self.weight.value, &self.bias.value);
            let x = match mask {
                Some(mask) => &mask.apply(x)?,
                None => x,
            };
            let sum = match residual {
                Some(residual) => (residual + x)?,
                None => x.clone(),
            };
            // (Not `layer_norm` or `candle_nn::LayerNorm`, which have no backward.)
            let out = layer_norm_slow(&sum, weight, bias, self.eps as f32)?;
            let (mean, rstd) = self.plain_statistics(&sum)?;
            return Ok(Normed { sum, out, mean, rstd });
        }
        // SAFETY: `normalise` writes its row.
        unsafe { self.fast(residual, x, mask, normalise) }
    }

    /// The mean and 1 / standard deviation of each row, `[tokens, 1]`.
    fn plain_statistics(&self, sum: &Tensor) -> Result<(Tensor, Tensor)> {
        let mean = sum.mean_keepdim(D::Minus1)?;
        let variance = sum.broadcast_sub(&mean)?.sqr()?.mean_keepdim(D::Minus1)?;
        Ok((mean, (variance + self.eps)?.sqrt()?.recip()?))
    }

    /// [`Self::normed`] on the fast path with `out` in bf16: what a following product rounds it to.
    pub fn forward_halves(&self, x: &Tensor) -> Result<Normed> {
        // SAFETY: `normalise_to_bf16` writes its row.
        unsafe { self.fast(None, x, None, normalise_to_bf16) }
    }

    /// # Safety
    /// `row` writes all elements of its first slice.
    unsafe fn fast<T: WithDType>(
        &self, residual: Option<&Tensor>, x: &Tensor, mask: Option<Mask>, row: RowOf<T>,
    ) -> Result<Normed> {
        let (n, width) = x.dims2()?;
        let (weight, bias) = (Slice::new(&self.weight.value)?, Slice::new(&self.bias.value)?);
        let (weight, bias): (&[f32], &[f32]) = (&weight, &bias);
        let branch = Slice::new(x)?;
        let masks = mask.map(Mask::each_row);
        let (is_fitting, eps) = (weight.len() == width && bias.len() == width, self.eps as f32);
        if !is_fitting
            || residual.is_some_and(|residual| residual.dims() != x.dims())
            || masks.as_ref().is_some_and(|masks| masks.len() != n)
        {
            return Err(misfit());
        }
        let mut out = Box::<[T]>::new_uninit_slice(n * width);
        let (mut mean, mut rstd) = (Box::new_uninit_slice(n), Box::new_uninit_slice(n));
        let one = |out: &mut _, x: &[f32], (mean, rstd): (&mut MaybeUninit<f32>, &mut MaybeUninit<f32>)| {
            let statistics = row(out, x, weight, bias, eps);
            mean.write(statistics.0);
            rstd.write(statistics.1);
        };
        let rows =
            (out.par_chunks_mut(width), branch.par_chunks(width), (&mut mean[..], &mut rstd[..]).into_par_iter());
        let rows = rows.into_par_iter().with_min_len(16);
        let sum = match residual {
            Some(residual) => {
                let residual = Slice::new(residual)?;
                let masks: Vec<Option<RowMask>> = match masks {
                    Some(masks) => masks.into_iter().map(Some).collect(),
                    None => vec![None; n],
                };
                let mut summed = Box::new_uninit_slice(n * width);
                let sums = (summed.par_chunks_mut(width), residual.par_chunks(width), masks).into_par_iter();
                rows.zip(sums).for_each(|((out, x, statistics), (sum, residual, mask))| {
                    match mask {
                        Some(mask) => add_masked(sum, residual, x, mask),
                        None => add(sum, residual, x),
                    }
                    // SAFETY: the row was written just now.
                    one(out, unsafe { written(sum) }, statistics);
                });
                // SAFETY: there are `n` rows of everything, each of `width` elements, and every one was written.
                tensor(unsafe { summed.assume_init() }.into_vec(), (n, width))?
            }
            None => {
                rows.for_each(|(out, x, statistics)| one(out, x, statistics));
                x.clone()
            }
        };
        // SAFETY: as for the sum: for every row, `row` has written `out`, and the loop its mean and rstd.
        let (out, mean, rstd) = unsafe { (out.assume_init(), mean.assume_init(), rstd.assume_init()) };
        Ok(Normed {
            sum,
            out: tensor(out.into_vec(), (n, width))?,
            mean: tensor(mean.into_vec(), (n, 1))?,
            rstd: tensor(rstd.into_vec(), (n, 1))?,
        })
    }

    /// From the gradient `dout` of the normed output and, where the sum itself is used further on, `dsum`: adds to
    /// the gradients of weight and bias, returns the whole gradient of the sum, and that of `x` before its `mask`.
    pub fn backward(
        &self, saved: &Normed, dout: &Tensor, dsum: Option<&Tensor>, mask: Option<Mask>, grads: &mut Gradients,
    ) -> Result<(Tensor, Tensor)> {
        let (n, width) = dout.dims2()?;
        if self.backend == Backend::Plain {
            let normal = saved.sum.broadcast_sub(&saved.mean)?.broadcast_mul(&saved.rstd)?;
            grads.add(&self.weight, &(dout * &normal)?.sum(0)?)?;
            grads.add(&self.bias, &dout.sum(0)?)?;
            let g = dout.broadcast_mul(&self.weight.value)?;
            let mean_g = g.mean_keepdim(D::Minus1)?;
            let mean_gx = (&g * &normal)?.mean_keepdim(D::Minus1)?;
            let dx = g.broadcast_sub(&mean_g)?.sub(&normal.broadcast_mul(&mean_gx)?)?.broadcast_mul(&saved.rstd)?;
            let dx = match dsum {
                Some(dsum) => (dx + dsum)?,
                None => dx,
            };
            let dbranch = mask.map_or_else(|| Ok(dx.clone()), |mask| mask.apply(&dx))?;
            return Ok((dx, dbranch));
        }
        let (x, dout) = (Slice::new(&saved.sum)?, Slice::new(dout)?);
        let (mean, rstd) = (Slice::new(&saved.mean)?, Slice::new(&saved.rstd)?);
        let weight = Slice::new(&self.weight.value)?;
        let dsum = dsum.map(Slice::new).transpose()?;
        let (mean, rstd, weight): (&[f32], &[f32], &[f32]) = (&mean, &rstd, &weight);
        let dsum: Option<&[f32]> = dsum.as_deref();
        let masks = mask.map(Mask::each_row);
        let is_fitting = x.len() == dout.len() && weight.len() == width;
        if !is_fitting
            || dsum.is_some_and(|dsum| dsum.len() != dout.len())
            || masks.as_ref().is_some_and(|masks| masks.len() != n)
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
        let partial: Vec<(Vec<f32>, Vec<f32>)> =
            (dx.par_chunks_mut(block), x.par_chunks(block), dout.par_chunks(block), branches)
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
                        let start = first * width;
                        dx.iter_mut().zip(&dsum[start..]).for_each(|(d, s)| *d += s);
                    }
                    if let Some(masks) = &masks {
                        let rows = dbranch.chunks_exact_mut(width).zip(dx.chunks_exact(width));
                        rows.zip(&masks[first..]).for_each(|((to, dx), mask)| masked(to, dx, *mask));
                    }
                    (dweight, dbias)
                })
                .collect();
        grads.edit(&self.weight, |total| {
            partial.iter().for_each(|(part, _)| total.iter_mut().zip(part).for_each(|(t, p)| *t += p));
        })?;
        grads.edit(&self.bias, |total| {
            partial.iter().for_each(|(_, part)| total.iter_mut().zip(part).for_each(|(t, p)| *t += p));
        })?;
        // SAFETY: all operands have `n` rows of `width` elements, and every row of `dx` was written; so was every row of
        // `dbranch`, which has none without masks.
        let (dx, dbranch) = unsafe { (dx.assume_init().into_vec(), dbranch.assume_init().into_vec()) };
        let dx = tensor(dx, (n, width))?;
        let dbranch = if mask.is_some() { tensor(dbranch, (n, width))? } else { dx.clone() };
        Ok((dx, dbranch))
    }
}

fn misfit() -> Error {
    Error::new("layer norm: the operands do not fit each other")
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

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Dropout, Rows, Site};
    use super::*;

    #[test]
    fn fast_and_plain_agree_in_value_and_gradient() {
        for (n, width) in [(1, 5), (77, 48), (300, 300)] {
            let results = BACKENDS.map(|backend| {
                let mut params = super::super::Params::new(backend);
                let norm = LayerNorm {
                    weight: params.add(vec!["w".into()], &random(1, width)).unwrap(),
                    bias: params.add(vec!["b".into()], &random(2, width)).unwrap(),
                    eps: 1e-5,
                    backend,
                };
                let mut grads = Gradients::zeros(&params).unwrap();
                let (x, residual) = (random(3, (n, width)), random(4, (n, width)));
                let (dropout, rows) = (Dropout::new(1, 2, 0.3, 0.0), Rows::new([n], 0).unwrap());
                let mask = dropout.at(Site::Embeddings, &rows);
                let normed = norm.normed(Some(&residual), &x, mask).unwrap();
                let (dout, dsum) = (random(5, (n, width)), random(6, (n, width)));
                let (dx, dbranch) = norm.backward(&normed, &dout, Some(&dsum), mask, &mut grads).unwrap();
                assert_eq!(values(&mask.unwrap().apply(&dx).unwrap()), values(&dbranch));
                let alone = norm.normed(None, &x, mask).unwrap();
                let dropped = mask.unwrap().apply(&x).unwrap();
                assert_eq!(values(&alone.out), values(&norm.normed(None, &dropped, None).unwrap().out));
                if backend != Backend::Plain {
                    let halves = norm.forward_halves(&dropped).unwrap().out.to_dtype(candle_core::DType::F32).unwrap();
                    let rounded = alone.out.to_dtype(candle_core::DType::BF16).unwrap();
                    assert_eq!(values(&halves), values(&rounded.to_dtype(candle_core::DType::F32).unwrap()));
                }
                [
                    normed.out.clone(),
                    normed.sum.clone(),
                    dx,
                    grads.of(&norm.weight).unwrap().clone(),
                    grads.of(&norm.bias).unwrap().clone(),
                ]
            });
            for (fast, plain) in results[0].iter().zip(&results[1]) {
                assert_close(fast, plain, 2e-6);
            }
        }
    }

    /// Less would leave memory of the result unfilled.
    #[test]
    fn operands_of_other_shapes_are_refused() {
        let mut params = super::super::Params::new(Backend::Fast);
        let mut norm = |width| LayerNorm {
            weight: params.add(vec![format!("w{width}")], &random(1, width)).unwrap(),
            bias: params.add(vec![format!("b{width}")], &random(2, width)).unwrap(),
            eps: 1e-5,
            backend: Backend::Fast,
        };
        let (norm, narrow) = (norm(8), norm(7));
        let mut grads = Gradients::zeros(&params).unwrap();
        let (x, short) = (random(3, (4, 8)), random(4, (3, 8)));
        let (dropout, rows) = (Dropout::new(1, 2, 0.3, 0.0), Rows::new([3], 0).unwrap());
        let mask = dropout.at(Site::Embeddings, &rows);
        assert!(narrow.normed(None, &x, None).is_err());
        assert!(norm.normed(Some(&short), &x, None).is_err());
        assert!(norm.normed(Some(&x), &x, mask).is_err() && norm.normed(None, &x, mask).is_err());
        let saved = norm.normed(None, &x, None).unwrap();
        assert!(norm.backward(&saved, &x, None, None, &mut grads).is_ok());
        assert!(norm.backward(&saved, &short, None, None, &mut grads).is_err());
        assert!(norm.backward(&saved, &x, Some(&short), None, &mut grads).is_err());
        assert!(norm.backward(&saved, &x, None, mask, &mut grads).is_err());
    }
}

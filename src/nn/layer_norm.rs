//! Layer normalisation (Ba et al. 2016), fused with the residual sum before it.

use candle_core::{D, Tensor};
use rayon::prelude::*;

use super::linear::SUM_ROWS;
use super::math::{simd, sum, sum2, sum3};
use super::memory::unfilled;
use super::storage::{Slice, tensor};
use super::{Backend, Gradients, Param};
use crate::error::Result;

/// Scale and shift `[hidden]` and the constant added to the variance.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    pub weight: Param,
    pub bias: Param,
    pub eps: f64,
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

impl LayerNorm {
    /// Normalises `x`, or `residual + x`.
    pub fn forward(&self, backend: Backend, residual: Option<&Tensor>, x: &Tensor) -> Result<Normed> {
        let (n, width) = x.dims2()?;
        let (weight, bias) = (&self.weight.value, &self.bias.value);
        if backend == Backend::Plain {
            let sum = match residual {
                Some(residual) => (residual + x)?,
                None => x.clone(),
            };
            let mean = sum.mean_keepdim(D::Minus1)?;
            let centred = sum.broadcast_sub(&mean)?;
            let rstd = (centred.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?.recip()?;
            let out = centred.broadcast_mul(&rstd)?.broadcast_mul(weight)?.broadcast_add(bias)?;
            return Ok(Normed { sum, out, mean, rstd });
        }
        let branch = Slice::new(x)?;
        let residual_slice = residual.map(Slice::new).transpose()?;
        let (weight, bias) = (Slice::new(weight)?, Slice::new(bias)?);
        let (weight, bias): (&[f32], &[f32]) = (&weight, &bias);
        let mut summed = unfilled(if residual.is_some() { n * width } else { 0 });
        let (mut out, mut mean, mut rstd) = (unfilled(n * width), unfilled(n), unfilled(n));
        if let Some(residual) = &residual_slice {
            (summed.par_chunks_mut(SUM_ROWS * width), residual.par_chunks(SUM_ROWS * width))
                .into_par_iter()
                .zip(branch.par_chunks(SUM_ROWS * width))
                .for_each(|((s, r), x)| s.iter_mut().zip(r).zip(x).for_each(|((s, r), x)| *s = r + x));
        }
        let input: &[f32] = if residual.is_some() { &summed } else { &branch };
        (out.par_chunks_mut(width), input.par_chunks(width), &mut mean, &mut rstd)
            .into_par_iter()
            .with_min_len(16)
            .for_each(|(out, x, mean, rstd)| (*mean, *rstd) = normalise(out, x, weight, bias, self.eps as f32));
        drop(branch);
        let sum = if residual.is_some() { tensor(summed, (n, width))? } else { x.clone() };
        Ok(Normed { sum, out: tensor(out, (n, width))?, mean: tensor(mean, (n, 1))?, rstd: tensor(rstd, (n, 1))? })
    }

    /// From the gradient `dout` of the normed output and, where the sum itself is used further on, `dsum`: adds to
    /// the gradients of weight and bias, returns the whole gradient of the sum.
    pub fn backward(
        &self, backend: Backend, saved: &Normed, dout: &Tensor, dsum: Option<&Tensor>, grads: &mut Gradients,
    ) -> Result<Tensor> {
        let (n, width) = dout.dims2()?;
        if backend == Backend::Plain {
            let normal = saved.sum.broadcast_sub(&saved.mean)?.broadcast_mul(&saved.rstd)?;
            grads.add(&self.weight, &(dout * &normal)?.sum(0)?)?;
            grads.add(&self.bias, &dout.sum(0)?)?;
            let g = dout.broadcast_mul(&self.weight.value)?;
            let mean_g = g.mean_keepdim(D::Minus1)?;
            let mean_gx = (&g * &normal)?.mean_keepdim(D::Minus1)?;
            let dx = g.broadcast_sub(&mean_g)?.sub(&normal.broadcast_mul(&mean_gx)?)?.broadcast_mul(&saved.rstd)?;
            return Ok(match dsum {
                Some(dsum) => (dx + dsum)?,
                None => dx,
            });
        }
        let (x, dout) = (Slice::new(&saved.sum)?, Slice::new(dout)?);
        let (mean, rstd) = (Slice::new(&saved.mean)?, Slice::new(&saved.rstd)?);
        let weight = Slice::new(&self.weight.value)?;
        let dsum = dsum.map(Slice::new).transpose()?;
        let (mean, rstd, weight): (&[f32], &[f32], &[f32]) = (&mean, &rstd, &weight);
        let dsum: Option<&[f32]> = dsum.as_deref();
        let mut dx = unfilled(n * width);
        let block = SUM_ROWS * width;
        let partial: Vec<(Vec<f32>, Vec<f32>)> =
            (dx.par_chunks_mut(block), x.par_chunks(block), dout.par_chunks(block))
                .into_par_iter()
                .enumerate()
                .map(|(index, (dx, x, dout))| {
                    let (mut dweight, mut dbias) = (vec![0.0f32; width], vec![0.0f32; width]);
                    let first = index * SUM_ROWS;
                    let rows = dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(dout.chunks_exact(width));
                    for (i, ((dx, x), dy)) in rows.enumerate() {
                        let stats = (mean[first + i], rstd[first + i]);
                        row_backward(dx, x, dy, weight, stats, &mut dweight, &mut dbias);
                    }
                    if let Some(dsum) = dsum {
                        let start = first * width;
                        dx.iter_mut().zip(&dsum[start..]).for_each(|(d, s)| *d += s);
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
        tensor(dx, (n, width))
    }
}

simd! {
    /// One row; returns its mean and 1 / standard deviation.
    fn normalise(out: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> (f32, f32) {
        let width = x.len() as f32;
        let mean = sum(x, |v| v) / width;
        let variance = sum(x, |v| (v - mean) * (v - mean)) / width;
        let rstd = 1.0 / (variance + eps).sqrt();
        for (((o, &v), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
            *o = ((v - mean) * rstd).mul_add(w, b);
        }
        (mean, rstd)
    }

    /// One row's gradient into `dx`; adds to those of weight and bias.
    fn row_backward(
        dx: &mut [f32], x: &[f32], dy: &[f32], weight: &[f32], stats: (f32, f32), dweight: &mut [f32], dbias: &mut [f32],
    ) {
        let (width, (mean, rstd)) = (x.len() as f32, stats);
        for ((((d, &x), &dy), dw), db) in dx.iter_mut().zip(x).zip(dy).zip(dweight).zip(dbias) {
            let normal = (x - mean) * rstd;
            *dw += dy * normal;
            *db += dy;
            *d = normal;
        }
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
    use super::*;

    #[test]
    fn fast_and_plain_agree_in_value_and_gradient() {
        for (n, width) in [(1, 5), (77, 48), (300, 300)] {
            let results = BACKENDS.map(|backend| {
                let mut params = super::super::Params::default();
                let norm = LayerNorm {
                    weight: params.add(vec!["w".into()], &random(1, width)).unwrap(),
                    bias: params.add(vec!["b".into()], &random(2, width)).unwrap(),
                    eps: 1e-5,
                };
                let mut grads = Gradients::zeros(&params).unwrap();
                let (x, residual) = (random(3, (n, width)), random(4, (n, width)));
                let normed = norm.forward(backend, Some(&residual), &x).unwrap();
                let (dout, dsum) = (random(5, (n, width)), random(6, (n, width)));
                let dx = norm.backward(backend, &normed, &dout, Some(&dsum), &mut grads).unwrap();
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
}

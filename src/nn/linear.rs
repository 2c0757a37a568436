//! `y = x W^T + b`.

use candle_core::Tensor;
use rayon::prelude::*;

use super::gemm::{gemm, Mat};
use super::storage::{tensor, Slice};
use super::{Backend, Gradients, Param};
use crate::error::Result;

/// A linear layer: weight `[out, in]`, bias `[out]`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`, as PyTorch stores it.
    pub weight: Param,
    /// `[out]`.
    pub bias: Option<Param>,
}

impl Linear {
    /// `[n, in]` to `[n, out]`.
    pub fn forward(&self, backend: Backend, x: &Tensor) -> Result<Tensor> {
        match backend {
            Backend::Plain => {
                let y = x.matmul(&self.weight.value.t()?)?;
                Ok(match &self.bias {
                    Some(bias) => y.broadcast_add(&bias.value)?,
                    None => y,
                })
            }
            Backend::Fast => {
                let ((n, inner), outer) = (x.dims2()?, self.weight.value.dim(0)?);
                let (x, w) = (Slice::new(x)?, Slice::new(&self.weight.value)?);
                let mut y = vec![0.0; n * outer];
                if let Some(bias) = &self.bias {
                    let bias = Slice::new(&bias.value)?;
                    let bias: &[f32] = &bias;
                    y.par_chunks_mut(outer).for_each(|row| row.copy_from_slice(bias));
                }
                gemm((n, outer, inner), Mat::rows(&x, inner), Mat::rows(&w, inner).t(), self.bias.is_some(), &mut y);
                tensor(y, (n, outer))
            }
        }
    }

    /// From the gradient of the output `dy` `[n, out]` and the input `x` `[n, in]`: adds to the gradients of weight
    /// and bias, returns the gradient of `x`.
    pub fn backward(&self, backend: Backend, x: &Tensor, dy: &Tensor, grads: &mut Gradients) -> Result<Tensor> {
        match backend {
            Backend::Plain => {
                grads.add(&self.weight, &dy.t()?.matmul(x)?)?;
                if let Some(bias) = &self.bias {
                    grads.add(bias, &dy.sum(0)?)?;
                }
                Ok(dy.matmul(&self.weight.value)?)
            }
            Backend::Fast => {
                let ((n, inner), outer) = (x.dims2()?, self.weight.value.dim(0)?);
                let (x, w, dy) = (Slice::new(x)?, Slice::new(&self.weight.value)?, Slice::new(dy)?);
                grads.edit(&self.weight, |dw| {
                    gemm((outer, inner, n), Mat::rows(&dy, outer).t(), Mat::rows(&x, inner), true, dw);
                })?;
                if let Some(bias) = &self.bias {
                    grads.edit(bias, |db| add_column_sums(&dy, db))?;
                }
                let mut dx = vec![0.0; n * inner];
                gemm((n, inner, outer), Mat::rows(&dy, outer), Mat::rows(&w, inner), false, &mut dx);
                tensor(dx, (n, inner))
            }
        }
    }
}

/// Rows summed by one task before the partial sums are added up, in order: fixed, so that the result does not
/// depend on the number of threads.
pub(super) const SUM_ROWS: usize = 128;

/// Adds the sum over the rows of `x` (rows of `sums.len()` elements) to `sums`.
pub(super) fn add_column_sums(x: &[f32], sums: &mut [f32]) {
    let width = sums.len();
    let partial: Vec<Vec<f32>> = x
        .par_chunks(SUM_ROWS * width)
        .map(|block| {
            let mut sum = vec![0.0f32; width];
            for row in block.chunks_exact(width) {
                sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
            }
            sum
        })
        .collect();
    for block in partial {
        sums.iter_mut().zip(block).for_each(|(s, v)| *s += v);
    }
}

//! Layer normalisation (Ba et al. 2016), fused with the dropout and the residual sum before it.

use candle_core::{Tensor, WithDType};

use super::cpu::layer_norm::{self as on_slices, Affine, Forward, Saved, misfit};
use super::dropout::Mask;
use super::storage::{Slice, tensor};
use super::{Backend, Gradients, Param, plain};
use crate::error::Result;

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
    rstd: Tensor, // [tokens, 1]: 1 / standard deviation
}

impl LayerNorm {
    /// Normalises `x`, or `residual + x`, of which `mask` drops elements of `x` first.
    pub fn normed(&self, residual: Option<&Tensor>, x: &Tensor, mask: Option<Mask>) -> Result<Normed> {
        if let (None, Some(mask)) = (residual, mask) {
            return self.normed(None, &mask.apply(x)?, None);
        }
        if self.backend == Backend::Plain {
            let x = match mask {
                Some(mask) => &mask.apply(x)?,
                None => x,
            };
            let sum = match residual {
                Some(residual) => (residual + x)?,
                None => x.clone(),
            };
            let (out, mean, rstd) = plain::layer_norm::forward(&sum, &self.weight.value, &self.bias.value, self.eps)?;
            return Ok(Normed { sum, out, mean, rstd });
        }
        if residual.is_some_and(|residual| residual.dims() != x.dims()) {
            return Err(misfit());
        }
        let (residual, masks) = (residual.map(Slice::new).transpose()?, mask.map(Mask::each_row));
        self.fast(x, |affine, x| on_slices::forward(affine, residual.as_deref(), x, masks.as_deref()))
    }

    /// [`Self::normed`] on the fast path with `out` in bf16: what a following matmul rounds it to.
    pub fn forward_halves(&self, x: &Tensor) -> Result<Normed> {
        self.fast(x, on_slices::forward_to_bf16)
    }

    fn fast<T: WithDType>(
        &self, x: &Tensor, forward: impl FnOnce(Affine, &[f32]) -> Result<Forward<T>>,
    ) -> Result<Normed> {
        let (n, width) = x.dims2()?;
        let (weight, bias) = (Slice::new(&self.weight.value)?, Slice::new(&self.bias.value)?);
        if weight.len() != width {
            return Err(misfit());
        }
        let affine = Affine { weight: &weight, bias: &bias, eps: self.eps as f32 };
        let Forward { sum, out, mean, rstd } = forward(affine, &Slice::new(x)?)?;
        Ok(Normed {
            sum: sum.map_or_else(|| Ok(x.clone()), |sum| tensor(sum, (n, width)))?,
            out: tensor(out, (n, width))?,
            mean: tensor(mean, (n, 1))?,
            rstd: tensor(rstd, (n, 1))?,
        })
    }

    /// From the gradient `dout` of the normed output and, where the sum itself is used further on, `dsum`: adds to
    /// the gradients of weight and bias, returns the whole gradient of the sum, and that of `x` before its `mask`.
    pub fn backward(
        &self, saved: &Normed, dout: &Tensor, dsum: Option<&Tensor>, mask: Option<Mask>, grads: &mut Gradients,
    ) -> Result<(Tensor, Tensor)> {
        let Normed { sum, mean, rstd, .. } = saved;
        if self.backend == Backend::Plain {
            let (dx, dweight, dbias) = plain::layer_norm::backward(sum, mean, rstd, &self.weight.value, dout)?;
            grads.add(&self.weight, &dweight)?;
            grads.add(&self.bias, &dbias)?;
            let dx = match dsum {
                Some(dsum) => (dx + dsum)?,
                None => dx,
            };
            let dbranch = mask.map_or_else(|| Ok(dx.clone()), |mask| mask.apply(&dx))?;
            return Ok((dx, dbranch));
        }
        let (n, width) = dout.dims2()?;
        let (sum, mean, rstd) = (Slice::new(sum)?, Slice::new(mean)?, Slice::new(rstd)?);
        let (weight, dsum, masks) =
            (Slice::new(&self.weight.value)?, dsum.map(Slice::new).transpose()?, mask.map(Mask::each_row));
        if weight.len() != width {
            return Err(misfit());
        }
        let saved = Saved { sum: &sum, mean: &mean, rstd: &rstd };
        let backward = on_slices::backward(&weight, saved, &Slice::new(dout)?, dsum.as_deref(), masks.as_deref())?;
        let parts = backward.parts;
        grads.edit(&self.weight, |total| {
            parts.iter().for_each(|(part, _)| total.iter_mut().zip(part).for_each(|(t, p)| *t += p));
        })?;
        grads.edit(&self.bias, |total| {
            parts.iter().for_each(|(_, part)| total.iter_mut().zip(part).for_each(|(t, p)| *t += p));
        })?;
        let dx = tensor(backward.dx, (n, width))?;
        let dbranch = backward.dbranch.map_or_else(|| Ok(dx.clone()), |dbranch| tensor(dbranch, (n, width)))?;
        Ok((dx, dbranch))
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

//! `y = x W^T + b`.

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use half::bf16;

use super::cpu::gemm::{Left, Mat, Packed, Start, gemm, matmul};
use super::cpu::math::add_column_sums;
use super::storage::{Slice, tensor};
use super::{Activation, Backend, Gradients, Param};
use crate::error::{Error, Result};

/// A linear layer that can be trained: weight `[out, in]`, bias `[out]`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Param,
    bias: Option<Param>,
    backend: Backend,
}

/// A linear layer that is never trained: forward passes only, for which its weight is packed once.
#[derive(Clone)]
pub struct FrozenLinear {
    weight: Weight,
    bias: Option<Tensor>,
    backend: Backend,
}

#[derive(Clone)]
enum Weight {
    /// `[out, in]`, as PyTorch stores it.
    Plain(Tensor),
    /// Packed once for its matmuls, and in their precision.
    Packed(Arc<Packed>),
}

impl fmt::Debug for FrozenLinear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.weight {
            Weight::Plain(weight) => write!(f, "FrozenLinear {:?}", weight.dims()),
            Weight::Packed(weight) => write!(f, "FrozenLinear [{}, ..], packed", weight.columns()),
        }
    }
}

/// `x W^T + b` with a weight that is not packed.
fn apply_weight(backend: Backend, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if backend == Backend::Plain {
        let y = x.matmul(&weight.t()?)?;
        return Ok(match bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        });
    }
    let ((n, inner), outer) = (x.dims2()?, weight.dim(0)?);
    let (x, w, bias) = (Slice::new(x)?, Slice::new(weight)?, bias.map(Slice::new).transpose()?);
    let (start, bf16) = (bias.as_deref().map_or(Start::Zero, Start::Bias), backend == Backend::Bf16);
    tensor(matmul((n, outer, inner), bf16, Mat::rows(&x, inner), Mat::rows(&w, inner).t(), start), (n, outer))
}

impl Linear {
    /// The weight `[out, in]` and the bias `[out]`.
    pub fn values(&self) -> (&Tensor, Option<&Tensor>) {
        (&self.weight.value, self.bias.as_ref().map(|bias| &bias.value))
    }

    /// From weight `[out, in]` and bias `[out]`, for `backend`.
    pub fn new(weight: Param, bias: Option<Param>, backend: Backend) -> Self {
        Self { weight, bias, backend }
    }

    /// The same layer, never to be trained.
    pub fn freeze(self) -> Result<FrozenLinear> {
        FrozenLinear::new(self.weight.value, self.bias.map(|bias| bias.value), self.backend)
    }

    /// `[n, in]` to `[n, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        apply_weight(self.backend, x, &self.weight.value, self.bias.as_ref().map(|bias| &bias.value))
    }

    /// From the gradient of the output `dy` `[n, out]` and the input `x` `[n, in]`: adds to the gradients of weight
    /// and bias, and returns the gradient of `x`, plus `other`: the gradient of `x` from elsewhere, as from a residual.
    pub fn backward(&self, x: &Tensor, dy: &Tensor, other: Option<&Tensor>, grads: &mut Gradients) -> Result<Tensor> {
        if self.backend == Backend::Plain {
            self.backward_parameters(x, dy, grads)?;
            return self.backward_input(dy, other);
        }
        // In parallel, so that threads without work at the end of the one take up the other.
        let of_parameters = || self.backward_parameters(x, dy, grads);
        let (of_parameters, of_input) = rayon::join(of_parameters, || self.backward_input(dy, other));
        of_parameters.and(of_input)
    }

    /// The part of [`Self::backward`] that gives the gradient of the input.
    pub fn backward_input(&self, dy: &Tensor, other: Option<&Tensor>) -> Result<Tensor> {
        let w = &self.weight.value;
        if self.backend == Backend::Plain {
            let dx = dy.matmul(w)?;
            return Ok(match other {
                Some(other) => (dx + other)?,
                None => dx,
            });
        }
        let ((n, outer), inner) = (dy.dims2()?, w.dim(1)?);
        let (w, dy, other) = (Slice::new(w)?, Slice::new(dy)?, other.map(Slice::new).transpose()?);
        let (start, bf16) = (other.as_deref().map_or(Start::Zero, Start::Other), self.backend == Backend::Bf16);
        tensor(matmul((n, inner, outer), bf16, Mat::rows(&dy, outer), Mat::rows(&w, inner), start), (n, inner))
    }

    /// The part of [`Self::backward`] that adds to the gradients of weight and bias.
    pub fn backward_parameters(&self, x: &Tensor, dy: &Tensor, grads: &mut Gradients) -> Result<()> {
        if self.backend == Backend::Plain {
            grads.add(&self.weight, &dy.t()?.matmul(x)?)?;
            return self.bias.as_ref().map_or(Ok(()), |bias| grads.add(bias, &dy.sum(0)?));
        }
        let ((n, inner), outer) = (x.dims2()?, dy.dim(1)?);
        let (x, dy) = (Slice::new(x)?, Slice::new(dy)?);
        grads.accumulate(&self.weight, |dw, is_zero| {
            let (start, bf16) = (if is_zero { Start::Zero } else { Start::C }, self.backend == Backend::Bf16);
            gemm((outer, inner, n), bf16, Mat::rows(&dy, outer).t(), Mat::rows(&x, inner), start, dw);
        })?;
        self.bias.as_ref().map_or(Ok(()), |bias| grads.edit(bias, |db| add_column_sums(&dy, db)))
    }
}

impl FrozenLinear {
    /// From weight `[out, in]` and bias `[out]`, for `backend`.
    pub fn new(weight: Tensor, bias: Option<Tensor>, backend: Backend) -> Result<Self> {
        let packed = match backend {
            Backend::Plain => None,
            Backend::Fast | Backend::Bf16 => {
                let (outer, inner) = weight.dims2()?;
                let w = Slice::new(&weight)?;
                Packed::new((outer, inner), backend == Backend::Bf16, Mat::rows(&w, inner).t())
            }
        };
        let weight = packed.map_or(Weight::Plain(weight), |packed| Weight::Packed(Arc::new(packed)));
        Ok(Self { weight, bias, backend })
    }

    /// `[n, in]`, in f32 or, of a packed layer, in bf16, to `[n, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let packed = match &self.weight {
            Weight::Plain(weight) => return apply_weight(self.backend, x, weight, self.bias.as_ref()),
            Weight::Packed(packed) => packed,
        };
        let (n, x, bias) = (x.dim(0)?, Input::new(x)?, self.bias()?);
        let start = bias.as_deref().map_or(Start::Zero, Start::Bias);
        tensor(packed.matmul(n, x.left(), start), (n, packed.columns()))
    }

    /// Whether [`Self::forward_halves`] can be called.
    pub fn has_halves(&self) -> bool {
        matches!(&self.weight, Weight::Packed(packed) if packed.writes_bf16())
    }

    /// [`Self::forward`] and then `activation`, rounded to bf16 as the matmul that follows would. `x` is in f32 or bf16,
    /// here and in [`Self::forward_onto`].
    pub fn forward_halves(&self, x: &Tensor, activation: Option<Activation>) -> Result<Tensor> {
        let (packed, n, bias) = (self.packed()?, x.dim(0)?, self.bias()?);
        let x = Input::new(x)?;
        let start = bias.as_deref().map_or(Start::Zero, Start::Bias);
        let y = packed.matmul_to_bf16(n, x.left(), start, activation.map(Activation::on_slices));
        tensor(y, (n, packed.columns()))
    }

    /// [`Self::forward`] plus `other` `[n, out]`. The sums start from `other`, so they round a little more often than if it
    /// were added at the end; with operands in bf16 that does not show.
    pub fn forward_onto(&self, x: &Tensor, other: &Tensor) -> Result<Tensor> {
        let (packed, n, bias, other) = (self.packed()?, x.dim(0)?, self.bias()?, Slice::new(other)?);
        let x = Input::new(x)?;
        let start = match bias.as_deref() {
            Some(bias) => Start::BiasAndOther(bias, &other),
            None => Start::Other(&other),
        };
        tensor(packed.matmul(n, x.left(), start), (n, packed.columns()))
    }

    fn packed(&self) -> Result<&Packed> {
        match &self.weight {
            Weight::Packed(packed) => Ok(packed),
            Weight::Plain(_) => Err(Error::new("this linear layer is not packed")),
        }
    }

    fn bias(&self) -> Result<Option<Slice<'_>>> {
        self.bias.as_ref().map(Slice::new).transpose()
    }
}

/// Input in f32 or bf16.
enum Input<'a> {
    F32(Slice<'a>),
    Bf16(Slice<'a, bf16>),
}

impl<'a> Input<'a> {
    fn new(x: &'a Tensor) -> Result<Self> {
        Ok(if x.dtype() == DType::BF16 { Self::Bf16(Slice::bf16(x)?) } else { Self::F32(Slice::new(x)?) })
    }

    fn left(&self) -> Left<'_> {
        match self {
            Self::F32(x) => Left::F32(x),
            Self::Bf16(x) => Left::Bf16(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Activate, Params};
    use super::*;

    #[test]
    fn fast_and_plain_agree_in_value_and_gradient() {
        for (n, inner, outer) in [(1, 1, 1), (1, 7, 5), (300, 33, 129)] {
            for with_bias in [false, true] {
                let results = BACKENDS.map(|backend| {
                    let mut params = Params::new(backend);
                    let mut add =
                        |seed, shape: &[usize]| params.add(vec![String::new()], &random(seed, shape)).unwrap();
                    let (weight, bias) = (add(1, &[outer, inner]), with_bias.then(|| add(2, &[outer])));
                    let linear = Linear::new(weight, bias, backend);
                    let mut grads = Gradients::zeros(&params).unwrap();
                    let (x, dy, other) = (random(3, (n, inner)), random(4, (n, outer)), random(5, (n, inner)));
                    let y = linear.forward(&x).unwrap();
                    let dx = linear.backward(&x, &dy, None, &mut grads).unwrap();
                    let both = linear.backward(&x, &dy, Some(&other), &mut grads).unwrap();
                    assert_close(&both, &(&dx + &other).unwrap(), 1e-6);
                    let frozen = linear.clone().freeze().unwrap();
                    assert_eq!(values(&frozen.forward(&x).unwrap()), values(&y));
                    let mut all = vec![y, dx];
                    all.extend(grads.iter().unwrap().cloned());
                    all
                });
                for (fast, plain) in results[0].iter().zip(&results[1]) {
                    assert_close(fast, plain, 2e-6);
                }
            }
        }
    }

    #[test]
    fn a_frozen_layer_gives_in_bf16_what_it_gives_rounded() {
        let (n, inner, outer) = (70, 64, 96);
        let layer = |backend| FrozenLinear::new(random(1, (outer, inner)), Some(random(2, outer)), backend).unwrap();
        let plain = layer(Backend::Plain);
        assert!(!plain.has_halves() && plain.forward_onto(&random(3, (n, inner)), &random(4, (n, outer))).is_err());
        let frozen = layer(Backend::Bf16);
        if !frozen.has_halves() {
            println!("not run: this CPU has no bf16 instructions");
            return;
        }
        let round = |x: &Tensor| x.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        let (x, other) = (random(3, (n, inner)), random(4, (n, outer)));
        let y = frozen.forward(&x).unwrap();
        for x in [x.clone(), x.to_dtype(DType::BF16).unwrap()] {
            assert_eq!(values(&frozen.forward(&x).unwrap()), values(&y));
            let halves = frozen.forward_halves(&x, None).unwrap().to_dtype(DType::F32).unwrap();
            assert_eq!(values(&halves), values(&round(&y)));
            let gelu = frozen.forward_halves(&x, Some(Activation::Gelu)).unwrap().to_dtype(DType::F32).unwrap();
            let in_f32 = Activate { function: Activation::Gelu, backend: Backend::Fast };
            assert_close(&gelu, &in_f32.forward(&y).unwrap(), 4e-3);
            assert_close(&frozen.forward_onto(&x, &other).unwrap(), &(&y + &other).unwrap(), 1e-6);
        }
    }
}

//! GELU with the error function (BERT, XLM-R), its tanh approximation (Google's BERT, some ELECTRAs), and CLIP's QuickGELU.

use candle_core::Tensor;

use super::Backend;
use super::cpu::activation::Elementwise;
use super::plain::activation as plain;
use super::storage::{Slice, edit, tensor};
use crate::error::{Error, Result};

/// An activation function, named in `config.json` as `hidden_act`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x Phi(x)` (Hendrycks and Gimpel 2016), with the error function.
    Gelu,
    /// `x (1 + tanh u) / 2` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`, the approximation of the same paper. Since
    /// `(1 + tanh u) / 2 = sigmoid(2 u)`, it is computed as `x sigmoid(2 u)`.
    GeluTanh,
    /// `x sigmoid(1.702 x)`.
    QuickGelu,
}

/// The names in transformers' `ACT2FN` (`activations.py`) of the functions above. Several names stand for one function
/// written in different ways.
const NAMES: [(&str, Activation); 8] = [
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_accurate", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_python_tanh", Activation::GeluTanh),
    ("quick_gelu", Activation::QuickGelu),
];

impl Activation {
    /// From `hidden_act`.
    pub fn from_name(name: &str) -> Result<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation).ok_or_else(|| {
            let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
            Error::new(format!("the activation `{name}` is not one of {}", known.join(", ")))
        })
    }

    /// The function on slices.
    pub(super) fn on_slices(self) -> Elementwise {
        match self {
            Self::Gelu => Elementwise::GELU,
            Self::GeluTanh => Elementwise::GELU_TANH,
            Self::QuickGelu => Elementwise::QUICK_GELU,
        }
    }
}

/// An activation as a layer.
#[derive(Clone, Copy, Debug)]
pub struct Activate {
    /// The function.
    pub function: Activation,
    /// The operations it uses.
    pub backend: Backend,
}

impl Activate {
    /// Element by element.
    pub fn forward(self, z: &Tensor) -> Result<Tensor> {
        match (self.backend, self.function) {
            (Backend::Plain, Activation::Gelu) => Ok(z.gelu_erf()?),
            (Backend::Plain, Activation::GeluTanh) => Ok(z.gelu()?),
            (Backend::Plain, Activation::QuickGelu) => plain::quick_gelu(z),
            _ => tensor(self.function.on_slices().of(&Slice::new(z)?), z.shape()),
        }
    }

    /// [`Self::forward`] into the memory of `z`, which nobody else may hold.
    pub fn in_place(self, z: Tensor) -> Result<Tensor> {
        if self.backend == Backend::Plain {
            return self.forward(&z);
        }
        edit(&z, |z| self.function.on_slices().apply_in_parallel(z))?;
        Ok(z)
    }

    /// The output [`Self::forward`] gave, computed again, and the gradient of `z` from the gradient `da` of the output.
    pub fn backward(self, z: &Tensor, da: &Tensor) -> Result<(Tensor, Tensor)> {
        if self.backend == Backend::Plain {
            let slope = match self.function {
                Activation::Gelu => plain::gelu_slope(z),
                Activation::GeluTanh => plain::gelu_tanh_slope(z),
                Activation::QuickGelu => plain::quick_gelu_slope(z),
            };
            return Ok((self.forward(z)?, (da * slope?)?));
        }
        let (a, dz) = self.function.on_slices().backward(&Slice::new(z)?, &Slice::new(da)?)?;
        Ok((tensor(a, z.shape())?, tensor(dz, z.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn fast_plain_and_autograd_agree() {
        for function in [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu] {
            for n in [1, 7, 40_000] {
                let (z, da) = (random(1, (n, 1)), random(2, (n, 1)));
                let z = (z * 3.0).unwrap();
                let layers = BACKENDS.map(|backend| Activate { function, backend });
                let [fast, plain] = layers.map(|layer| layer.forward(&z).unwrap());
                assert_close(&fast, &plain, 1e-6);
                for layer in layers {
                    let in_place = layer.in_place(z.copy().unwrap()).unwrap();
                    assert_eq!(values(&in_place), values(&layer.forward(&z).unwrap()));
                }
                let [(again, fast), (_, plain)] = layers.map(|layer| layer.backward(&z, &da).unwrap());
                assert_eq!(values(&again), values(&layers[0].forward(&z).unwrap()));
                assert_close(&fast, &plain, 1e-6);
                let var = candle_core::Var::from_tensor(&z).unwrap();
                let loss = (layers[1].forward(var.as_tensor()).unwrap() * &da).unwrap();
                let grads = loss.sum_all().unwrap().backward().unwrap();
                assert_close(&plain, grads.get(&var).unwrap(), 1e-5);
            }
        }
        assert!(Activation::from_name("relu").is_err());
        let gelu = Activate { function: Activation::Gelu, backend: Backend::Fast };
        assert!(gelu.backward(&random(1, (3, 1)), &random(2, (2, 1))).is_err());
    }
}

//! The layers as candle modules: a forward pass without dropout, on tensors of any rank, for users of candle.
//!
//! The packed calls (`Linear::forward` on `[tokens, in]` and its kin) are the native ones, and have the backward passes.

use candle_core::{Module, Result, Tensor};

use super::embedding::{self, Lookup};
use super::{Activate, Embedding, FrozenLinear, LayerNorm, Linear, Rows};

/// `layer` on the rows of `x` `[.., in]`, as `[.., out]`.
fn on_rows(x: &Tensor, layer: impl FnOnce(&Tensor) -> crate::error::Result<Tensor>) -> Result<Tensor> {
    let (mut shape, width) = (x.dims().to_vec(), x.dim(candle_core::D::Minus1)?);
    let y = layer(&x.reshape(((), width))?.contiguous()?)?;
    *shape.last_mut().unwrap_or(&mut 0) = y.dim(1)?;
    y.reshape(shape)
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        on_rows(x, |x| self.forward(x))
    }
}

impl Module for FrozenLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        on_rows(x, |x| self.forward(x))
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        on_rows(x, |x| Ok(self.normed(None, x, None)?.out))
    }
}

impl Module for Activate {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(Activate::forward(*self, &x.contiguous()?)?)
    }
}

impl Module for Embedding {
    /// u32 ids of any shape to their rows, `[.., hidden]`.
    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let indices: Vec<u32> = ids.flatten_all()?.to_vec1()?;
        let alone = Rows::new(vec![1; indices.len()], 0)?;
        let rows = embedding::forward(&[Lookup { embedding: self, indices: &indices }], &alone)?;
        rows.reshape([ids.dims(), &[rows.dim(1)?]].concat())
    }
}

#[cfg(test)]
mod tests {
    use candle_nn::ops::layer_norm_slow;

    use super::super::testing::*;
    use super::super::{Activation, Backend, Params};
    use super::*;

    #[test]
    fn modules_take_any_rank_and_give_what_candle_gives() {
        for backend in [Backend::Fast, Backend::Plain] {
            let mut params = Params::new(backend);
            let mut param = |seed, shape: &[usize]| params.add(vec![String::new()], &random(seed, shape)).unwrap();
            let (weight, bias) = (param(1, &[7, 5]), param(2, &[7]));
            let x = random(3, (2, 3, 5));
            let theirs = candle_nn::Linear::new(weight.value.clone(), Some(bias.value.clone())).forward(&x).unwrap();
            let ours = Linear::new(weight, Some(bias), backend);
            let modules: [&dyn Module; 2] = [&ours, &ours.clone().freeze().unwrap()];
            for module in modules {
                assert_close(&module.forward(&x).unwrap(), &theirs, 1e-6);
            }

            let (weight, bias) = (param(4, &[5]), param(5, &[5]));
            let theirs = layer_norm_slow(&x, &weight.value, &bias.value, 1e-5).unwrap();
            let ours = LayerNorm { weight, bias, eps: 1e-5, backend };
            assert_close(&Module::forward(&ours, &x).unwrap(), &theirs, 1e-6);

            let gelu = Activate { function: Activation::Gelu, backend };
            let theirs = candle_nn::Activation::Gelu.forward(&x).unwrap();
            assert_close(&Module::forward(&gelu, &x).unwrap(), &theirs, 1e-6);

            let table = param(6, &[10, 4]);
            let ids = Tensor::new(&[[1u32, 9, 0], [3, 3, 2]], &candle_core::Device::Cpu).unwrap();
            let theirs = candle_nn::Embedding::new(table.value.clone(), 4).forward(&ids).unwrap();
            let ours = Embedding::new(table, backend);
            assert_eq!(values(&Module::forward(&ours, &ids).unwrap()), values(&theirs));
            assert!(Module::forward(&ours, &Tensor::new(&[10u32], &candle_core::Device::Cpu).unwrap()).is_err());
        }
    }
}

//! The modules of [`nn`](crate::nn) from the tensors of a VarBuilder, loaded as candle-nn's own are: the sizes, the
//! path, and here also the [`Params`], in which what is trained is listed under its path.

use candle_core::{Shape, Tensor};
use candle_nn::VarBuilder;

use crate::error::Result;
use crate::nn::{Embedding, LayerNorm, Linear, Param, Params};

/// A tensor that is never trained. (A VarBuilder's tensors are variables, which candle's autograd would track.)
pub(super) fn constant(shape: impl Into<Shape>, name: &str, vb: &VarBuilder) -> Result<Tensor> {
    Ok(vb.get(shape, name)?.detach())
}

fn param(shape: impl Into<Shape>, name: &str, vb: &VarBuilder, params: &mut Params) -> Result<Param> {
    params.add(vec![path(vb, name)], &vb.get(shape, name)?)
}

fn path(vb: &VarBuilder, name: &str) -> String {
    format!("{}.{name}", vb.prefix())
}

/// A table `[rows, width]`.
pub(super) fn embedding(rows: usize, width: usize, vb: VarBuilder, params: &mut Params) -> Result<Embedding> {
    Ok(Embedding::new(param((rows, width), "weight", &vb, params)?, params.backend()))
}

/// A linear layer, its weight `[outputs, inputs]`.
pub(super) fn linear(inputs: usize, outputs: usize, vb: VarBuilder, params: &mut Params) -> Result<Linear> {
    linear_of(inputs, outputs, &[vb], params)
}

/// One linear layer of several with the same inputs: their weights and biases one below the other.
pub(super) fn linear_of(inputs: usize, outputs: usize, vbs: &[VarBuilder], params: &mut Params) -> Result<Linear> {
    let mut stacked = |shape: Shape, name: &str| {
        let parts = vbs.iter().map(|vb| Ok(vb.get(shape.clone(), name)?)).collect::<Result<Vec<_>>>()?;
        params.add(vbs.iter().map(|vb| path(vb, name)).collect(), &Tensor::cat(&parts, 0)?)
    };
    let (weight, bias) = (stacked((outputs, inputs).into(), "weight")?, stacked(outputs.into(), "bias")?);
    Ok(Linear::new(weight, Some(bias), params.backend()))
}

/// A layer norm over `width` values.
pub(super) fn layer_norm(width: usize, eps: f64, vb: VarBuilder, params: &mut Params) -> Result<LayerNorm> {
    let (weight, bias) = (param(width, "weight", &vb, params)?, param(width, "bias", &vb, params)?);
    Ok(LayerNorm { weight, bias, eps, backend: params.backend() })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::VarMap;

    use super::*;
    use crate::nn::Backend;

    #[test]
    fn parameters_are_listed_by_path_and_nothing_else_is_tracked() {
        let map = VarMap::new();
        let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let (mut trained, mut frozen) = (Params::new(Backend::Plain), Params::frozen(Backend::Plain));
        for params in [&mut trained, &mut frozen] {
            let heads = ["q", "k"].map(|name| vb.pp("layer").pp(0).pp(name));
            linear_of(3, 2, &heads, params).unwrap();
            let norm = layer_norm(4, 1e-5, vb.pp("norm"), params).unwrap();
            assert!(!norm.weight.value.is_variable() && !norm.weight.value.track_op());
        }
        let names: Vec<String> = trained.iter().map(|entry| entry.name()).collect();
        let weights = ["weight", "bias"].map(|part| format!("layer.0.q.{part} + layer.0.k.{part}"));
        assert_eq!(names, [&*weights[0], &*weights[1], "norm.weight", "norm.bias"]);
        assert!(frozen.is_empty());
        assert!(!constant(4, "norm.weight", &vb).unwrap().is_variable());
        // No second copy: what changes a parameter changes what was read.
        let scale = trained.iter().find(|entry| entry.name() == "norm.weight").unwrap();
        scale.var.set(&Tensor::new(&[1f32, 2.0, 3.0, 4.0], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(vb.get(4, "norm.weight").unwrap().to_vec1::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
    }
}

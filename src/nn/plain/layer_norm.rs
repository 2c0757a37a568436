//! Layer norm in candle tensor algebra.

use candle_core::{D, Tensor};
use candle_nn::ops::layer_norm_slow;

use crate::error::Result;

/// The normed `x` `[tokens, hidden]`, and for the backward pass the mean and 1 / standard deviation of each row,
/// `[tokens, 1]`.
pub fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<(Tensor, Tensor, Tensor)> {
    // (Not `layer_norm` or `candle_nn::LayerNorm`, which have no backward.)
    let out = layer_norm_slow(x, weight, bias, eps as f32)?;
    let mean = x.mean_keepdim(D::Minus1)?;
    let variance = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim(D::Minus1)?;
    Ok((out, mean, (variance + eps)?.sqrt()?.recip()?))
}

/// The gradients of `x`, weight and bias from that of the output.
pub fn backward(
    x: &Tensor, mean: &Tensor, rstd: &Tensor, weight: &Tensor, dout: &Tensor,
) -> Result<(Tensor, Tensor, Tensor)> {
    let normal = x.broadcast_sub(mean)?.broadcast_mul(rstd)?;
    let (dweight, dbias) = ((dout * &normal)?.sum(0)?, dout.sum(0)?);
    let g = dout.broadcast_mul(weight)?;
    let mean_g = g.mean_keepdim(D::Minus1)?;
    let mean_gx = (&g * &normal)?.mean_keepdim(D::Minus1)?;
    let dx = g.broadcast_sub(&mean_g)?.sub(&normal.broadcast_mul(&mean_gx)?)?.broadcast_mul(rstd)?;
    Ok((dx, dweight, dbias))
}

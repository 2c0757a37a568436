//! The activation functions in candle tensor algebra, with their derivatives.

use candle_core::Tensor;
use candle_nn::ops::sigmoid;

use crate::error::Result;

/// `2 u / x` of [`gelu_tanh_slope`] is this times `1 + CUBIC x^2`.
const TWO_ROOT_TWO_OVER_PI: f64 = 1.595_769_2f32 as f64;
/// The coefficient of the cubic term.
const CUBIC: f64 = 0.044_715f32 as f64;

/// `x sigmoid(1.702 x)`. (candle has the two other functions.)
pub fn quick_gelu(z: &Tensor) -> Result<Tensor> {
    Ok((z * sigmoid(&(z * 1.702)?)?)?)
}

/// The derivative of GELU at `z`.
pub fn gelu_slope(z: &Tensor) -> Result<Tensor> {
    let cumulative = (((z * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5)?;
    let density = ((z.sqr()? * -0.5)?.exp()? * (1.0 / std::f64::consts::TAU.sqrt()))?;
    Ok((cumulative + (z * density)?)?)
}

/// The derivative of `z sigmoid(2 u)` with `2 u = sqrt(8 / pi) (z + 0.044715 z^3)`.
pub fn gelu_tanh_slope(z: &Tensor) -> Result<Tensor> {
    let two_u = ((z * ((z.sqr()? * CUBIC)? + 1.0)?)? * TWO_ROOT_TWO_OVER_PI)?;
    let s = sigmoid(&two_u)?;
    let change = ((z.sqr()? * (3.0 * CUBIC))? + 1.0)? * TWO_ROOT_TWO_OVER_PI;
    Ok((&s + ((z * change?)? * (&s * (1.0 - &s)?)?)?)?)
}

/// The derivative of [`quick_gelu`].
pub fn quick_gelu_slope(z: &Tensor) -> Result<Tensor> {
    let s = sigmoid(&(z * 1.702)?)?;
    Ok((&s + ((z * 1.702)? * (&s * (1.0 - &s)?)?)?)?)
}

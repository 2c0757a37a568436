//! Losses between student outputs and targets, as tensor algebra; candle's autograd gives their gradient.

use candle_core::{D, Tensor, Var};

use crate::error::{Error, Result};

/// The share of the batch's mean squared error that these rows bring: `sum (outputs - targets)^2 / (batch * dim)`
/// for `[rows, dim]` of a batch of `batch` rows. Over all micro-batches it adds up to PyTorch's `MSELoss`.
pub fn mse(outputs: &Tensor, targets: &Tensor, batch: usize) -> Result<Tensor> {
    let scale = 1.0 / (batch * outputs.dim(1)?) as f64;
    Ok((((outputs - targets)?.sqr()?.sum(D::Minus1)?.sum_all())? * scale)?)
}

/// The value of a loss and its gradient with respect to the outputs.
pub fn with_gradient(outputs: &Tensor, loss: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<(f64, Tensor)> {
    let outputs = Var::from_tensor(outputs)?;
    let value = loss(outputs.as_tensor())?;
    let mut grads = value.backward()?;
    let gradient = grads.remove(&outputs).ok_or_else(|| Error::new("the loss does not depend on the outputs"))?;
    Ok((f64::from(value.to_scalar::<f32>()?), gradient))
}

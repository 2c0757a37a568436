//! Losses between student outputs and targets, as tensor algebra; candle's autograd gives their gradient.
//!
//! `mse` and `cosine` are sums over samples and can be taken micro-batch by micro-batch; `similarity` and `clip`
//! compare every sample of the batch with every other and need it whole ([`Objective::needs_whole_batch`]).

use candle_core::{D, DType, Tensor, Var};
use candle_nn::ops::log_softmax;

use crate::config::recipe::{Loss, LossTerm, Recipe, Space};
use crate::error::{Error, Result};

/// What training minimises: a weighted sum of losses between outputs and targets, compared in one space.
pub struct Objective {
    loss: Loss,
    temperature: f64,
    normalized: bool,
    text_projection: Option<Tensor>,
}

impl Objective {
    /// `text_projection` returns the teacher's, `[projection_dim, dim]`; it is called only if the space needs it.
    pub fn new(recipe: &Recipe, text_projection: impl FnOnce() -> Result<Tensor>) -> Result<Self> {
        let text_projection = match recipe.target {
            Space::Hidden => None,
            Space::Projected | Space::ProjectedNormalized => Some(text_projection()?),
        };
        let normalized = recipe.target == Space::ProjectedNormalized;
        Ok(Self { loss: recipe.loss.clone(), temperature: recipe.temperature, normalized, text_projection })
    }

    /// Whether the loss of a batch is more than the sum of its samples' losses.
    pub fn needs_whole_batch(&self) -> bool {
        self.loss.needs_whole_batch()
    }

    /// The part of the loss of a batch of `batch` rows that is due to these rows `[rows, dim]`. Takes all rows at once if
    /// the loss [needs the whole batch](Self::needs_whole_batch).
    pub fn value(&self, outputs: &Tensor, targets: &Tensor, batch: usize) -> Result<Tensor> {
        let (outputs, targets) = (self.carry(outputs)?, self.carry(targets)?);
        let mut total: Option<Tensor> = None;
        for (weight, term) in &self.loss.0 {
            let value = match term {
                LossTerm::Mse => mse(&outputs, &targets, batch),
                LossTerm::Cosine => cosine(&outputs, &targets, batch),
                LossTerm::Similarity => similarity(&outputs, &targets),
                LossTerm::Clip => clip(&outputs, &targets, self.temperature),
            }?;
            let value = if *weight == 1.0 { value } else { (value * *weight)? };
            total = Some(match total {
                Some(total) => (total + value)?,
                None => value,
            });
        }
        total.ok_or_else(|| Error::new("the loss has no term"))
    }

    /// [`Self::value`] and its gradient with respect to the outputs.
    pub fn with_gradient(&self, outputs: &Tensor, targets: &Tensor, batch: usize) -> Result<(f64, Tensor)> {
        with_gradient(outputs, |outputs| self.value(outputs, targets, batch))
    }

    fn carry(&self, vectors: &Tensor) -> Result<Tensor> {
        let projected = match &self.text_projection {
            Some(projection) => vectors.matmul(&projection.t()?)?,
            None => vectors.clone(),
        };
        if self.normalized { normalize(&projected) } else { Ok(projected) }
    }
}

/// The part of the batch's mean squared error that is due to these rows: `sum (outputs - targets)^2 / (batch * dim)`
/// for `[rows, dim]` of a batch of `batch` rows. Over all micro-batches it adds up to PyTorch's `MSELoss`.
pub fn mse(outputs: &Tensor, targets: &Tensor, batch: usize) -> Result<Tensor> {
    let scale = 1.0 / (batch * outputs.dim(1)?) as f64;
    Ok((((outputs - targets)?.sqr()?.sum(D::Minus1)?.sum_all())? * scale)?)
}

/// The part of the batch's mean of `1 - cos(output, target)` that is due to these rows.
pub fn cosine(outputs: &Tensor, targets: &Tensor, batch: usize) -> Result<Tensor> {
    let cosines = (normalize(outputs)? * normalize(targets)?)?.sum(D::Minus1)?;
    Ok(((1.0 - cosines)?.sum_all()? / batch as f64)?)
}

/// The mean squared difference between the outputs' and the targets' matrices of cosines with one another
/// (similarity-preserving distillation, Tung and Mori 2019, with cosines).
pub fn similarity(outputs: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let cosines = |vectors: &Tensor| -> Result<Tensor> {
        let unit = normalize(vectors)?;
        Ok(unit.matmul(&unit.t()?)?)
    };
    Ok((cosines(outputs)? - cosines(targets)?)?.sqr()?.mean_all()?)
}

/// CLIP's symmetric cross-entropy (Radford et al. 2021, figure 3): of all targets of the batch, which is an output's,
/// and of all outputs, which is a target's? Equal targets count as different ones.
pub fn clip(outputs: &Tensor, targets: &Tensor, temperature: f64) -> Result<Tensor> {
    let logits = (normalize(outputs)?.matmul(&normalize(targets)?.t()?)? / temperature)?;
    let n = logits.dim(0)?;
    let own = Tensor::eye(n, DType::F32, logits.device())?;
    let right = |logits: &Tensor| -> Result<Tensor> { Ok((log_softmax(logits, D::Minus1)? * &own)?.sum_all()?) };
    Ok(((right(&logits)? + right(&logits.t()?.contiguous()?)?)? * (-0.5 / n as f64))?)
}

/// Rows of length 1. A row of zeros stays one.
fn normalize(x: &Tensor) -> Result<Tensor> {
    // 1e-24 keeps the gradient of the root finite at zero, and is too small to matter elsewhere.
    let lengths = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-24)?.sqrt()?;
    Ok(x.broadcast_div(&lengths)?)
}

/// The value of a loss and its gradient with respect to the outputs.
pub fn with_gradient(outputs: &Tensor, loss: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<(f64, Tensor)> {
    let outputs = Var::from_tensor(outputs)?;
    let value = loss(outputs.as_tensor())?;
    let mut grads = value.backward()?;
    let gradient = grads.remove(&outputs).ok_or_else(|| Error::new("the loss does not depend on the outputs"))?;
    Ok((f64::from(value.to_scalar::<f32>()?), gradient.contiguous()?))
}

//! One training step's loss and gradients, and validation.

use candle_core::Tensor;

use super::Dataset;
use super::loss;
use crate::data::tokens::cut_by_tokens;
use crate::error::Result;
use crate::models::Student;
use crate::nn::{Dropout, Gradients, Tokens};

/// Adds the gradient of the batch's mean squared error to `grads` and returns the loss.
///
/// The batch is cut into micro-batches of at most `micro_batch_tokens` tokens; each brings its share of the loss and
/// the gradient, and its dropout masks are those of its place in the whole batch, so the cut changes nothing but the
/// memory needed.
pub fn loss_and_gradients(
    student: &Student, data: &Dataset, batch: &[usize], dropout: Option<&Dropout>, micro_batch_tokens: usize,
    grads: &mut Gradients,
) -> Result<f64> {
    let mut total = 0.0;
    for (tokens, targets) in micro_batches(student, data, batch, micro_batch_tokens) {
        let (tokens, targets) = (tokens?, targets?);
        let (outputs, tape) = student.forward_train(&tokens, dropout)?;
        let (value, doutputs) = loss::with_gradient(&outputs, |out| loss::mse(out, &targets, batch.len()))?;
        student.backward(&tokens, tape, &doutputs, dropout, grads)?;
        total += value;
    }
    Ok(total)
}

/// The mean squared error over a whole data set, without dropout.
pub fn validate(student: &Student, data: &Dataset, micro_batch_tokens: usize) -> Result<f64> {
    let all: Vec<usize> = (0..data.len()).collect();
    let mut total = 0.0;
    for (tokens, targets) in micro_batches(student, data, &all, micro_batch_tokens) {
        let loss = loss::mse(&student.embed(&tokens?)?, &targets?, data.len())?;
        total += f64::from(loss.to_scalar::<f32>()?);
    }
    Ok(total)
}

fn micro_batches<'a>(
    student: &'a Student, data: &'a Dataset, batch: &'a [usize], micro_batch_tokens: usize,
) -> impl Iterator<Item = (Result<Tokens>, Result<Tensor>)> + 'a {
    let runs = cut_by_tokens(batch.iter().map(|i| data.tokens[*i].len()), micro_batch_tokens);
    runs.into_iter().map(move |run| {
        let indices = &batch[run.clone()];
        let sequences: Vec<&[u32]> = indices.iter().map(|i| data.tokens[*i].as_slice()).collect();
        (Tokens::pack(&sequences, run.start), data.targets_of(indices, student.device()))
    })
}

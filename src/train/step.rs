//! One training step's loss and gradients, and validation.

use std::ops::Range;

use candle_core::Tensor;

use super::Dataset;
use super::loss::Objective;
use crate::data::tokens::cut_evenly;
use crate::error::Result;
use crate::models::Student;
use crate::nn::{Batch, Dropout, Gradients, Tokens};

/// The loss over a whole data set, without dropout; where it needs whole batches, the mean over those of `batch_size`
/// pairs in the order of the set, each counting with its size. None once `should_stop` says so.
pub fn validate(
    student: &Student, objective: &Objective, data: &Dataset, batch_size: usize, micro_batch_tokens: usize,
    should_stop: &dyn Fn() -> bool,
) -> Result<Option<f64>> {
    let all: Vec<usize> = (0..data.len()).collect();
    let mut total = 0.0;
    if objective.needs_whole_batch() {
        for batch in all.chunks(batch_size) {
            if should_stop() {
                return Ok(None);
            }
            let (outputs, targets) = MicroBatches::new(student, data, batch, micro_batch_tokens).outputs(None)?;
            let loss = objective.value(&outputs, &targets, batch.len())?;
            total += f64::from(loss.to_scalar::<f32>()?) * batch.len() as f64 / all.len() as f64;
        }
        return Ok(Some(total));
    }
    let parts = MicroBatches::new(student, data, &all, micro_batch_tokens);
    for cut in &parts.cuts {
        if should_stop() {
            return Ok(None);
        }
        let loss = objective.value(&student.embed(&parts.tokens(cut)?)?, &parts.targets(cut)?, data.len())?;
        total += f64::from(loss.to_scalar::<f32>()?);
    }
    Ok(Some(total))
}

/// A batch for a student, cut into even micro-batches.
pub struct MicroBatches<'a> {
    student: &'a Student,
    data: &'a Dataset,
    batch: &'a [usize],
    cuts: Vec<Range<usize>>,
}

impl<'a> MicroBatches<'a> {
    /// The pairs `batch` of `data`, in micro-batches of at most `micro_batch_tokens` tokens.
    pub fn new(student: &'a Student, data: &'a Dataset, batch: &'a [usize], micro_batch_tokens: usize) -> Self {
        let lengths: Vec<usize> = batch.iter().map(|i| data.tokens[*i].len()).collect();
        let cuts = cut_evenly(&lengths, micro_batch_tokens);
        Self { student, data, batch, cuts }
    }

    /// Adds the gradient of the batch's loss to `grads` and returns the loss.
    ///
    /// Dropout masks are those of a sequence's place in the whole batch, so the cut changes nothing but the memory needed:
    /// each micro-batch brings its share of the loss and the gradient. Where the loss needs the whole batch, the outputs of
    /// all micro-batches come first and the loss of them together, and a second forward pass of each, equal to the first,
    /// goes with its backward pass.
    pub fn loss_and_gradients(
        &self, objective: &Objective, dropout: Option<&Dropout>, grads: &mut Gradients,
    ) -> Result<f64> {
        let whole = if objective.needs_whole_batch() && self.cuts.len() > 1 {
            let (outputs, targets) = self.outputs(dropout)?;
            Some(objective.with_gradient(&outputs, &targets, self.batch.len())?)
        } else {
            None
        };
        let mut total = 0.0;
        for cut in &self.cuts {
            let tokens = self.tokens(cut)?;
            let micro_batch = Batch { tokens: &tokens, dropout };
            let (outputs, tape) = self.student.forward_train(micro_batch)?;
            let doutputs = match &whole {
                Some((_, doutputs)) => doutputs.narrow(0, cut.start, cut.len())?,
                None => {
                    let (value, doutputs) = objective.with_gradient(&outputs, &self.targets(cut)?, self.batch.len())?;
                    total += value;
                    doutputs
                }
            };
            self.student.backward(micro_batch, tape, &doutputs, grads)?;
        }
        Ok(whole.map_or(total, |(value, _)| value))
    }

    fn tokens(&self, cut: &Range<usize>) -> Result<Tokens> {
        let sequences: Vec<&[u32]> = self.batch[cut.clone()].iter().map(|i| self.data.tokens[*i].as_slice()).collect();
        Tokens::pack(&sequences, cut.start)
    }

    fn targets(&self, cut: &Range<usize>) -> Result<Tensor> {
        self.data.targets_of(&self.batch[cut.clone()], self.student.device())
    }

    /// Outputs and targets of the whole batch.
    fn outputs(&self, dropout: Option<&Dropout>) -> Result<(Tensor, Tensor)> {
        let forward = |cut: &Range<usize>| self.student.forward(Batch { tokens: &self.tokens(cut)?, dropout });
        let outputs = self.cuts.iter().map(forward).collect::<Result<Vec<_>>>()?;
        Ok((Tensor::cat(&outputs, 0)?, self.targets(&(0..self.batch.len()))?))
    }
}

//! One training step's loss and gradients, and validation.

use std::ops::Range;

use candle_core::Tensor;

use super::loss::Objective;
use crate::data::tokens::cut_evenly;
use crate::error::Result;
use crate::models::Student;
use crate::nn::{Batch, Dropout, Gradients, Tokens};

/// Pairs as a student and its loss take them.
pub struct PairBatch {
    /// Token ids of each Spanish caption.
    pub tokens: Vec<Vec<u32>>,
    /// The teacher's feature of each English caption, `[pairs, dim]`, on the student's device.
    pub targets: Tensor,
}

impl PairBatch {
    /// How many tokens the captions have.
    pub fn token_count(&self) -> usize {
        self.tokens.iter().map(Vec::len).sum()
    }
}

/// The loss of all `pairs` that `batches` hold, without dropout; where it needs whole batches, the mean over them, each
/// counting with its size. None once `should_stop` says so.
pub fn validate(
    student: &Student, objective: &Objective, pairs: usize, batches: &mut dyn Iterator<Item = Result<PairBatch>>,
    micro_batch_tokens: usize, should_stop: &dyn Fn() -> bool,
) -> Result<Option<f64>> {
    let mut total = 0.0;
    let value = |outputs: &Tensor, targets: &Tensor, of: usize| -> Result<f64> {
        Ok(f64::from(objective.value(outputs, targets, of)?.to_scalar::<f32>()?))
    };
    for batch in batches {
        let batch = batch?;
        let (parts, size) = (MicroBatches::new(student, &batch, micro_batch_tokens), batch.tokens.len());
        if objective.needs_whole_batch() {
            if should_stop() {
                return Ok(None);
            }
            total += value(&parts.outputs(None)?, &batch.targets, size)? * size as f64 / pairs as f64;
            continue;
        }
        for cut in &parts.cuts {
            if should_stop() {
                return Ok(None);
            }
            total += value(&student.embed(&parts.tokens(cut)?)?, &parts.targets(cut)?, pairs)?;
        }
    }
    Ok(Some(total))
}

/// A batch for a student, cut into even micro-batches.
pub struct MicroBatches<'a> {
    student: &'a Student,
    batch: &'a PairBatch,
    cuts: Vec<Range<usize>>,
}

impl<'a> MicroBatches<'a> {
    /// `batch` in micro-batches of at most `micro_batch_tokens` tokens.
    pub fn new(student: &'a Student, batch: &'a PairBatch, micro_batch_tokens: usize) -> Self {
        let lengths: Vec<usize> = batch.tokens.iter().map(Vec::len).collect();
        let cuts = cut_evenly(&lengths, micro_batch_tokens);
        Self { student, batch, cuts }
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
        let pairs = self.batch.tokens.len();
        let whole = if objective.needs_whole_batch() && self.cuts.len() > 1 {
            Some(objective.with_gradient(&self.outputs(dropout)?, &self.batch.targets, pairs)?)
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
                    let (value, doutputs) = objective.with_gradient(&outputs, &self.targets(cut)?, pairs)?;
                    total += value;
                    doutputs
                }
            };
            self.student.backward(micro_batch, tape, &doutputs, grads)?;
        }
        Ok(whole.map_or(total, |(value, _)| value))
    }

    fn tokens(&self, cut: &Range<usize>) -> Result<Tokens> {
        Tokens::pack(&self.batch.tokens[cut.clone()], cut.start)
    }

    fn targets(&self, cut: &Range<usize>) -> Result<Tensor> {
        Ok(self.batch.targets.narrow(0, cut.start, cut.len())?)
    }

    /// Outputs of the whole batch.
    fn outputs(&self, dropout: Option<&Dropout>) -> Result<Tensor> {
        let forward = |cut: &Range<usize>| self.student.forward(Batch { tokens: &self.tokens(cut)?, dropout });
        let outputs = self.cuts.iter().map(forward).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&outputs, 0)?)
    }
}

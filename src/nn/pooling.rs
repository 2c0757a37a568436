//! From token states to one vector a sequence.

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::storage::{Slice, tensor};
use super::{Backend, Rows};
use crate::error::Result;

/// Which tokens of a sequence its vector is made of. No sequence is empty ([`Rows::new`] refuses it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The mean of all tokens (the default of a student).
    Mean,
    /// The first token (`[CLS]`; the class token of an image).
    First,
    /// The last token (CLIP's end-of-text token, with which its packed sequences end).
    Last,
}

impl Pooling {
    /// The rows of sequence `i` that count, and the weight of each.
    fn part(self, rows: &Rows, i: usize) -> (std::ops::Range<usize>, f32) {
        let range = rows.range(i);
        match self {
            Self::Mean => (range.clone(), 1.0 / range.len() as f32),
            Self::First => (range.start..range.start + 1, 1.0),
            Self::Last => (range.end - 1..range.end, 1.0),
        }
    }

    /// The row of each sequence that makes its vector, if it is a single one.
    pub fn single(self, rows: &Rows, device: &Device) -> Result<Option<Tensor>> {
        if self == Self::Mean {
            return Ok(None);
        }
        let ids: Vec<u32> = (0..rows.sequences()).map(|i| self.part(rows, i).0.start as u32).collect();
        Ok(Some(Tensor::new(ids, device)?))
    }

    /// The pooling as a matrix `[sequences, tokens]`.
    fn matrix(self, rows: &Rows, device: &Device) -> Result<Tensor> {
        let name = match self {
            Self::Mean => "pooling: mean",
            Self::First => "pooling: first",
            Self::Last => "pooling: last",
        };
        rows.once(name, device, || {
            let (n, tokens) = (rows.sequences(), rows.tokens());
            let mut weights = vec![0.0f32; n * tokens];
            for i in 0..n {
                let (range, weight) = self.part(rows, i);
                weights[i * tokens..][range].fill(weight);
            }
            Ok(Tensor::from_vec(weights, (n, tokens), device)?)
        })
    }

    /// `[tokens, hidden]` to `[sequences, hidden]`.
    pub fn forward(self, backend: Backend, rows: &Rows, x: &Tensor) -> Result<Tensor> {
        if backend == Backend::Plain {
            return Ok(self.matrix(rows, x.device())?.matmul(x)?);
        }
        let width = x.dim(1)?;
        let x = Slice::new(x)?;
        let x: &[f32] = &x;
        let mut out = vec![0.0; rows.sequences() * width];
        out.par_chunks_mut(width).enumerate().for_each(|(i, out)| {
            let (range, weight) = self.part(rows, i);
            for row in x[range.start * width..range.end * width].chunks_exact(width) {
                out.iter_mut().zip(row).for_each(|(o, v)| *o += v);
            }
            out.iter_mut().for_each(|o| *o *= weight);
        });
        tensor(out, (rows.sequences(), width))
    }

    /// The gradient of the token states from `dy` `[sequences, hidden]`.
    pub fn backward(self, backend: Backend, rows: &Rows, dy: &Tensor) -> Result<Tensor> {
        if backend == Backend::Plain {
            return Ok(self.matrix(rows, dy.device())?.t()?.matmul(dy)?);
        }
        let width = dy.dim(1)?;
        let dy = Slice::new(dy)?;
        let mut dx = vec![0.0; rows.tokens() * width];
        for (i, dy) in dy.chunks_exact(width).enumerate() {
            let (range, weight) = self.part(rows, i);
            for row in dx[range.start * width..range.end * width].chunks_exact_mut(width) {
                row.iter_mut().zip(dy).for_each(|(x, d)| *x = d * weight);
            }
        }
        tensor(dx, (rows.tokens(), width))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn fast_and_plain_agree() {
        let rows = Rows::new([1, 5, 77, 2], 0).unwrap();
        for pooling in [Pooling::Mean, Pooling::First, Pooling::Last] {
            let (x, dy) = (random(1, (85, 7)), random(2, (4, 7)));
            let [fast, plain] = BACKENDS.map(|b| pooling.forward(b, &rows, &x).unwrap());
            assert_close(&fast, &plain, 1e-6);
            let [fast, plain] = BACKENDS.map(|b| pooling.backward(b, &rows, &dy).unwrap());
            assert_close(&fast, &plain, 1e-6);
        }
        assert_eq!(rows.made_so_far(), ["pooling: mean", "pooling: first", "pooling: last"].map(Some));
    }

    #[test]
    fn an_empty_sequence_cannot_be_pooled() {
        let error = Rows::new([3, 0, 2], 10).unwrap_err().to_string();
        assert_eq!(error, "sequence 11 of the batch has no token");
    }
}

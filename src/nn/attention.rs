//! Multi-head attention on packed sequences (Vaswani et al. 2017).
//!
//! Input is the fused projection `[tokens, 3 hidden]`: queries, keys and values side by side, head after head. The
//! backward recomputes a head's probabilities from the log-sum-exp of its rows (as FlashAttention does, Dao et al.
//! 2022), so nothing of size length x length is kept.

use candle_core::{DType, Tensor};

use super::heads::Heads;
use super::storage::{Slice, tensor};
use super::{Backend, Batch, Dropout, cpu, plain};
use crate::error::{Error, Result};

/// The attention of one layer.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    heads: Heads,
    backend: Backend,
}

/// The result of the forward pass, and what the backward needs besides the input.
pub struct Attended {
    /// `[tokens, hidden]`
    pub out: Tensor,
    /// log-sum-exp of every row of scores, `[heads, tokens]` (fast path).
    log_sums: Vec<f32>,
}

impl Attention {
    /// `hidden` must be a multiple of `heads`; `layer` is the one whose dropout masks it uses.
    pub fn new(hidden: usize, heads: usize, causal: bool, layer: usize, backend: Backend) -> Result<Self> {
        Ok(Self { heads: Heads::new(hidden, heads, causal, layer)?, backend })
    }

    fn on_slices<'a>(&'a self, batch: Batch<'a>) -> cpu::attention::Pass<'a> {
        let bf16 = self.backend == Backend::Bf16;
        cpu::attention::Pass { heads: &self.heads, bf16, rows: batch.rows(), dropout: dropout(batch) }
    }

    /// `[tokens, 3 hidden]` to `[tokens, hidden]`, of the same type.
    pub fn forward(&self, qkv: &Tensor, batch: Batch) -> Result<Attended> {
        if self.backend == Backend::Plain {
            let out = plain::attention::forward(&self.heads, qkv, batch.rows(), dropout(batch))?;
            return Ok(Attended { out, log_sums: Vec::new() });
        }
        let (n, hidden, pass) = (batch.rows().tokens(), self.heads.hidden(), self.on_slices(batch));
        if qkv.dims() != [n, 3 * hidden] {
            return Err(Error::new("attention: the projection does not fit the batch"));
        }
        if qkv.dtype() == DType::BF16 {
            let (out, log_sums) = pass.forward_bf16(&Slice::bf16(qkv)?)?;
            return Ok(Attended { out: tensor(out, (n, hidden))?, log_sums });
        }
        let (out, log_sums) = pass.forward(&Slice::new(qkv)?)?;
        Ok(Attended { out: tensor(out, (n, hidden))?, log_sums })
    }

    /// The gradient of `qkv` from the gradient `dout` of the output.
    pub fn backward(&self, qkv: &Tensor, saved: &Attended, dout: &Tensor, batch: Batch) -> Result<Tensor> {
        if self.backend == Backend::Plain {
            return plain::attention::backward(&self.heads, qkv, dout, batch.rows(), dropout(batch));
        }
        let (qkv, out, dout) = (Slice::new(qkv)?, Slice::new(&saved.out)?, Slice::new(dout)?);
        let dqkv = self.on_slices(batch).backward(&qkv, &out, &saved.log_sums, &dout)?;
        tensor(dqkv, (batch.rows().tokens(), 3 * self.heads.hidden()))
    }
}

/// The dropout of a batch, where it drops attention probabilities.
fn dropout(batch: Batch<'_>) -> Option<&Dropout> {
    batch.dropout.filter(|dropout| dropout.attention > 0.0)
}

#[cfg(test)]
mod tests {
    use super::super::cpu::gemm::bf16_unit;
    use super::super::testing::*;
    use super::super::{Rows, Tokens};
    use super::*;

    #[test]
    fn fast_plain_and_autograd_agree() {
        let cases: [(&[usize], usize, usize); 5] =
            [(&[1], 1, 3), (&[5], 2, 4), (&[77, 1, 9], 3, 16), (&[2, 3], 4, 8), (&[50, 33], 2, 32)];
        for (lengths, heads, d) in cases {
            let tokens = Tokens { ids: Vec::new(), rows: Rows::new(lengths.iter().copied(), 3).unwrap() };
            let (n, hidden) = (tokens.rows.tokens(), heads * d);
            for causal in [false, true] {
                for dropout in [None, Some(Dropout::new(1, 2, 0.0, 0.3))] {
                    let batch = Batch { tokens: &tokens, dropout: dropout.as_ref() };
                    let attention = |backend| Attention::new(hidden, heads, causal, 1, backend).unwrap();
                    let (qkv, dout) = (random(1, (n, 3 * hidden)), random(2, (n, hidden)));
                    let results = BACKENDS.map(|backend| {
                        let attention = attention(backend);
                        let saved = attention.forward(&qkv, batch).unwrap();
                        let d = attention.backward(&qkv, &saved, &dout, batch).unwrap();
                        (saved.out, d)
                    });
                    assert_close(&results[0].0, &results[1].0, 2e-6);
                    assert_close(&results[0].1, &results[1].1, 5e-6);
                    let in_bf16 = attention(Backend::Bf16);
                    let saved = in_bf16.forward(&qkv, batch).unwrap();
                    let d = in_bf16.backward(&qkv, &saved, &dout, batch).unwrap();
                    assert_close(&saved.out, &results[0].0, 1e-2);
                    assert_close(&d, &results[0].1, 2e-2);
                    if bf16_unit().is_some() {
                        let halves = qkv.to_dtype(DType::BF16).unwrap();
                        let out = in_bf16.forward(&halves, batch).unwrap().out;
                        assert_eq!(out.dtype(), DType::BF16);
                        assert_close(&out.to_dtype(DType::F32).unwrap(), &saved.out, 1e-2);
                    }
                    let var = candle_core::Var::from_tensor(&qkv).unwrap();
                    let plain = attention(Backend::Plain);
                    let out = plain.forward(var.as_tensor(), batch).unwrap().out;
                    let grads = (out * &dout).unwrap().sum_all().unwrap().backward().unwrap();
                    assert_close(&results[1].1, grads.get(&var).unwrap(), 5e-6);
                }
            }
        }
    }

    /// What a batch needs on the device depends on no layer, so one layer makes it for all, in both directions.
    #[test]
    fn padding_and_masks_are_made_once_for_a_batch() {
        let tokens = Tokens { ids: Vec::new(), rows: Rows::new([5, 2, 7], 0).unwrap() };
        let (qkv, dout, batch) = (random(1, (14, 24)), random(2, (14, 8)), Batch::plain(&tokens));
        let mut expected = vec![Some("attention: gather"), Some("attention: scatter")];
        for (causal, bias) in [(false, "attention: bias"), (true, "attention: causal bias")] {
            expected.push(Some(bias));
            for layer in 0..3 {
                let attention = Attention::new(8, 2, causal, layer, Backend::Plain).unwrap();
                let saved = attention.forward(&qkv, batch).unwrap();
                attention.backward(&qkv, &saved, &dout, batch).unwrap();
                assert_eq!(tokens.rows.made_so_far(), expected);
            }
        }
        // Another layout makes its own.
        assert!(Tokens::pack(&[[1, 2]], 0).unwrap().rows.made_so_far().is_empty());
    }

    #[test]
    fn heads_must_divide_the_hidden_size() {
        assert!(Attention::new(10, 3, false, 0, Backend::Fast).unwrap_err().to_string().contains("do not divide"));
        assert!(Attention::new(10, 0, false, 0, Backend::Fast).is_err());
    }
}

//! Multi-head attention on packed sequences (Vaswani et al. 2017).
//!
//! Input is the fused projection `[tokens, 3 hidden]`: queries, keys and values side by side, head after head. The
//! backward recomputes a head's probabilities from the log-sum-exp of its rows (as FlashAttention does, Dao et al.
//! 2022), so nothing of size length x length is kept.

mod plain;

use candle_core::{DType, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::dropout::RowMask;
use super::gemm::Columns::{self, As};
use super::gemm::{Elements, RawMat, bf16_unit, gemm_raw};
use super::math::{exp, largest, replace_and_sum, round, scale, simd, sum2};
use super::storage::{Slice, tensor};
use super::{Backend, Batch, Dropout, Rows, Site};
use crate::error::{Error, Result};

/// Queries worked on at a time: their scores stay in a core's own caches.
const STRIP: usize = 48;

/// What a task keeps from head to head: scores (and sums of values), packed keys, packed values.
type Memory = (Vec<f32>, Vec<u32>, Vec<u32>);

/// What the attention of one layer is.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    heads: usize,
    head_dim: usize,
    causal: bool,
    /// Which layer's dropout masks to use.
    layer: usize,
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
    /// `hidden` must be a multiple of `heads`.
    pub fn new(hidden: usize, heads: usize, causal: bool, layer: usize, backend: Backend) -> Result<Self> {
        if heads == 0 || !hidden.is_multiple_of(heads) {
            return Err(Error::new(format!("{heads} attention heads do not divide a hidden size of {hidden}")));
        }
        Ok(Self { heads, head_dim: hidden / heads, causal, layer, backend })
    }

    fn hidden(&self) -> usize {
        self.heads * self.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// `[tokens, 3 hidden]` to `[tokens, hidden]`, of the same type.
    pub fn forward(&self, qkv: &Tensor, batch: Batch) -> Result<Attended> {
        let (rows, dropout) = (batch.rows(), batch.dropout.filter(|d| d.attention > 0.0));
        if self.backend == Backend::Plain {
            return Ok(Attended { out: self.plain_forward(qkv, rows, dropout)?, log_sums: Vec::new() });
        }
        if qkv.dims() != [rows.tokens(), 3 * self.hidden()] {
            return Err(Error::new("attention: the projection does not fit the batch"));
        }
        let (n, hidden) = (rows.tokens(), self.hidden());
        if qkv.dtype() == DType::BF16 {
            if bf16_unit().is_none() {
                return Err(Error::new("attention: no bf16 on this CPU"));
            }
            let (qkv, mut out) = (Slice::bf16(qkv)?, Box::<[bf16]>::new_uninit_slice(n * hidden));
            let (elements, to) = (Elements::Bf16(qkv.as_ptr()), Out::Bf16(Shared(out.as_mut_ptr().cast())));
            // SAFETY: both have the shapes that were checked, and this CPU multiplies bf16; all of `out` is written.
            let (log_sums, out) = unsafe { (self.fast(elements, true, rows, dropout, to), out.assume_init()) };
            return Ok(Attended { out: tensor(out.into_vec(), (n, hidden))?, log_sums });
        }
        let (qkv, mut out) = (Slice::new(qkv)?, Box::<[f32]>::new_uninit_slice(n * hidden));
        let (elements, to) = (Elements::F32(qkv.as_ptr()), Out::F32(Shared(out.as_mut_ptr().cast())));
        let bf16 = self.backend == Backend::Bf16;
        // SAFETY: as above.
        let (log_sums, out) = unsafe { (self.fast(elements, bf16, rows, dropout, to), out.assume_init()) };
        Ok(Attended { out: tensor(out.into_vec(), (n, hidden))?, log_sums })
    }

    /// The forward pass by address: writes all heads of all tokens of `out`, and returns the log-sum-exp of every row of
    /// scores.
    ///
    /// # Safety
    /// `qkv` is valid for `[tokens, 3 hidden]`, in bf16 only with `bf16` and where this CPU has a [`bf16_unit`]. `out` may be
    /// written for `[tokens, hidden]`, and nobody else uses it.
    unsafe fn fast(&self, qkv: Elements, bf16: bool, rows: &Rows, dropout: Option<&Dropout>, out: Out) -> Vec<f32> {
        let (hidden, tokens) = (self.hidden(), rows.tokens());
        let mut log_sums = Box::<[f32]>::new_uninit_slice(self.heads * tokens);
        let sums_ptr = Shared(log_sums.as_mut_ptr());
        let d = self.head_dim;
        self.each_head(rows).for_each_init(Default::default, |(memory, keys, values): &mut Memory, (i, head)| {
            let (range, site) = (rows.range(i), Site::Attention { layer: self.layer, head });
            let length = range.len();
            // Rows of whole cache lines.
            let stride = length.next_multiple_of(16);
            memory.resize(STRIP.min(length) * (stride + d) + 15, 0.0);
            let offset = memory.as_ptr().align_offset(64).min(15);
            let (p, sums_of_values) = memory[offset..].split_at_mut(STRIP.min(length) * stride);
            let [q, k, v] = [0, 1, 2].map(|part| self.part(qkv, &range, head, part));
            // SAFETY: `each_head` gives every (sequence, head) once, each with its own part of `log_sums`.
            let sums = unsafe { std::slice::from_raw_parts_mut(sums_ptr.at(head * tokens + range.start), length) };
            // SAFETY: the keys lie within `qkv`, whose shape was checked, and in bf16 only where there is a unit for it;
            // `keys` is left alone until the last product.
            let k = unsafe { Columns::prepare((length, length, d), bf16, transposed(k), keys) };
            // SAFETY: as for the keys.
            let v = unsafe { Columns::prepare((length, d, length), bf16, v, values) };
            for start in (0..length).step_by(STRIP) {
                let strip = STRIP.min(length - start);
                let scores = RawMat { ptr: p.as_mut_ptr(), row_stride: stride, col_stride: 1 };
                let q = RawMat { ptr: q.ptr.at(start * q.row_stride), ..q };
                // SAFETY: the queries lie within `qkv`, too; `p` is this task's and has room for the rows of a strip.
                unsafe { gemm_raw((strip, length, d), bf16, q, k, scores) };
                let mut shares = [0.0; STRIP];
                let rows_of_strip = p.chunks_exact_mut(stride).zip(&mut sums[start..][..strip]).zip(&mut shares);
                for (row, ((p, sum), share)) in (start..).zip(rows_of_strip) {
                    let p = &mut p[..length];
                    let log_sum;
                    (log_sum, *share) = softmax(p, self.seen(row, length), self.scale());
                    sum.write(log_sum);
                    if let Some(dropout) = dropout {
                        apply_mask(p, dropout.row(site, rows.sample(i), row));
                    }
                }
                let at = (range.start + start) * hidden + head * d;
                // SAFETY: `p` holds the strip, and `to` has room for it: in `out`, which has a row for every token, or in this
                // task's own memory. No other task writes these rows and columns of `out`. The product writes all of `to`
                // before its rows are seen as slices.
                unsafe {
                    let to = match out {
                        Out::F32(out) => RawMat { ptr: out.at(at), row_stride: hidden, col_stride: 1 },
                        Out::Bf16(_) => RawMat { ptr: sums_of_values.as_mut_ptr(), row_stride: d, col_stride: 1 },
                    };
                    let p = RawMat { ptr: Elements::F32(p.as_ptr()), row_stride: stride, col_stride: 1 };
                    gemm_raw((strip, d, length), bf16, p, v, to);
                    for (row, share) in shares.iter().enumerate().take(strip) {
                        let values = std::slice::from_raw_parts_mut(to.ptr.add(row * to.row_stride), d);
                        scale(values, *share);
                        if let Out::Bf16(out) = out {
                            round(std::slice::from_raw_parts_mut(out.at(at + row * hidden).cast(), d), values);
                        }
                    }
                }
            }
        });
        // SAFETY: every (sequence, head) has written its rows.
        unsafe { log_sums.assume_init() }.into_vec()
    }

    /// The gradient of `qkv` from the gradient `dout` of the output.
    pub fn backward(&self, qkv: &Tensor, saved: &Attended, dout: &Tensor, batch: Batch) -> Result<Tensor> {
        let (rows, dropout) = (batch.rows(), batch.dropout.filter(|d| d.attention > 0.0));
        if self.backend == Backend::Plain {
            return self.plain_backward(qkv, dout, rows, dropout);
        }
        let (hidden, tokens) = (self.hidden(), rows.tokens());
        let (qkv, dout, out) = (Slice::new(qkv)?, Slice::new(dout)?, Slice::new(&saved.out)?);
        let (log_sums, d, bf16) = (&saved.log_sums, self.head_dim, self.backend == Backend::Bf16);
        if qkv.len() != tokens * 3 * hidden || dout.len() != tokens * hidden || log_sums.len() != self.heads * tokens {
            return Err(Error::new("attention: the gradient does not fit the batch"));
        }
        let mut dqkv = Box::<[f32]>::new_uninit_slice(tokens * 3 * hidden);
        let dqkv_ptr = Shared(dqkv.as_mut_ptr().cast::<f32>());
        self.each_head(rows).for_each_init(Vec::new, |scratch, (i, head)| {
            let (range, site) = (rows.range(i), Site::Attention { layer: self.layer, head });
            let length = range.len();
            scratch.resize(3 * length * length, 0.0);
            let (p, rest) = scratch.split_at_mut(length * length);
            let (dropped, dp) = rest.split_at_mut(length * length);
            let at = |row: usize| (range.start + row) * hidden + head * d;
            let part =
                |x: &[f32]| RawMat { ptr: Elements::F32(x[at(0)..].as_ptr()), row_stride: hidden, col_stride: 1 };
            let to = |part: usize| RawMat {
                // SAFETY: within `dqkv`, see its length.
                ptr: unsafe { dqkv_ptr.at(range.start * 3 * hidden + part * hidden + head * d) },
                row_stride: 3 * hidden,
                col_stride: 1,
            };
            let [q, k, v] = [0, 1, 2].map(|part| self.part(Elements::F32(qkv.as_ptr()), &range, head, part));
            // SAFETY: all parts lie within their slices, whose lengths were checked; `p` and `dp` are squares of this task's.
            unsafe {
                gemm_raw((length, length, d), bf16, q, As(transposed(k)), square_mut(p, length));
                gemm_raw((length, length, d), bf16, part(&dout), As(transposed(v)), square_mut(dp, length));
            }
            for row in 0..length {
                let span = row * length..(row + 1) * length;
                let (p, dropped, dp) = (&mut p[span.clone()], &mut dropped[span.clone()], &mut dp[span]);
                let mask = dropout.map(|dropout| dropout.row(site, rows.sample(i), row));
                let log_sum = log_sums[head * tokens + range.start + row];
                let (out, dout) = (&out[at(row)..][..d], &dout[at(row)..][..d]);
                probabilities_backward(p, dropped, dp, self.seen(row, length), self.scale(), log_sum, mask, out, dout);
            }
            // SAFETY: as above; no other task writes these rows and columns of `dqkv`, which has room for them.
            unsafe {
                gemm_raw((length, d, length), bf16, square(dp, length), As(k), to(0));
                gemm_raw((length, d, length), bf16, transposed(square(dp, length)), As(q), to(1));
                gemm_raw((length, d, length), bf16, transposed(square(dropped, length)), As(part(&dout)), to(2));
            }
        });
        // SAFETY: every (sequence, head) has written its rows and columns of all three parts.
        tensor(unsafe { dqkv.assume_init() }.into_vec(), (tokens, 3 * hidden))
    }

    /// All (sequence, head) pairs, in parallel.
    fn each_head(&self, rows: &Rows) -> impl IndexedParallelIterator<Item = (usize, usize)> + use<> {
        let heads = self.heads;
        (0..rows.sequences() * heads).into_par_iter().map(move |task| (task / heads, task % heads))
    }

    /// How many keys the query in `row` sees.
    fn seen(&self, row: usize, length: usize) -> usize {
        if self.causal { row + 1 } else { length }
    }

    /// Queries (0), keys (1) or values (2) of one head of one sequence.
    fn part(&self, qkv: Elements, range: &std::ops::Range<usize>, head: usize, part: usize) -> RawMat<Elements> {
        let hidden = self.hidden();
        let start = range.start * 3 * hidden + part * hidden + head * self.head_dim;
        RawMat { ptr: qkv.at(start), row_stride: 3 * hidden, col_stride: 1 }
    }
}

simd! {
    /// Products of one query with the keys, of which it sees the first `seen`, to the numbers that are probabilities once
    /// they are multiplied by the second result; the first is the log-sum-exp. (`scale` times the products are scores.)
    fn softmax(p: &mut [f32], seen: usize, scale: f32) -> (f32, f32) {
        let (visible, hidden) = p.split_at_mut(seen);
        let top = scale * largest(visible);
        let total = replace_and_sum(visible, |p| exp(scale * p - top));
        hidden.fill(0.0);
        (top + total.ln(), 1.0 / total)
    }

    fn apply_mask(p: &mut [f32], mask: RowMask) {
        for (c, p) in p.iter_mut().enumerate() {
            *p *= mask.factor(c as u32);
        }
    }

    /// One query: `p` from products to probabilities and `dropped` to what the values were weighted with; `dp` from the
    /// gradient of the latter to the gradient of the products.
    fn probabilities_backward(
        p: &mut [f32], dropped: &mut [f32], dp: &mut [f32], seen: usize, scale: f32, log_sum: f32,
        mask: Option<RowMask>, out: &[f32], dout: &[f32],
    ) {
        for p in &mut p[..seen] {
            *p = exp(scale * *p - log_sum);
        }
        p[seen..].fill(0.0);
        dropped.copy_from_slice(p);
        if let Some(mask) = mask {
            for (c, (dropped, dp)) in dropped.iter_mut().zip(dp.iter_mut()).enumerate() {
                let factor = mask.factor(c as u32);
                *dropped *= factor;
                *dp *= factor;
            }
        }
        // sum_j p_j dp_j = out . dout, whatever the dropout.
        let delta = sum2(out, dout, |o, g| o * g);
        for (dp, p) in dp.iter_mut().zip(&*p) {
            *dp = scale * p * (*dp - delta);
        }
    }
}

fn square(x: &[f32], n: usize) -> RawMat<Elements> {
    RawMat { ptr: Elements::F32(x.as_ptr()), row_stride: n, col_stride: 1 }
}

fn square_mut(x: &mut [f32], n: usize) -> RawMat<*mut f32> {
    RawMat { ptr: x.as_mut_ptr(), row_stride: n, col_stride: 1 }
}

fn transposed<T>(m: RawMat<T>) -> RawMat<T> {
    RawMat { ptr: m.ptr, row_stride: m.col_stride, col_stride: m.row_stride }
}

/// Where the result goes.
#[derive(Clone, Copy)]
enum Out {
    F32(Shared<f32>),
    Bf16(Shared<bf16>),
}

/// A buffer that tasks write disjoint parts of.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);
// SAFETY: every task writes a part of its own, and the buffer is used again only when all tasks have ended.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as for `Send`.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// `offset` must lie within the buffer.
    unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: the address stays within the buffer, as the caller promises.
        unsafe { self.0.add(offset) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tokens;
    use super::super::testing::*;
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

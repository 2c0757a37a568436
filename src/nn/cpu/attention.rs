//! Attention on slices: one task for each head of each sequence.

use half::bf16;
use rayon::prelude::*;

use super::super::dropout::{Dropout, RowMask, Site};
use super::super::heads::Heads;
use super::super::rows::Rows;
use super::gemm::OperandB::{self, Plain};
use super::gemm::{Elements, RawMat, bf16_unit, gemm_raw};
use super::math::{exp, largest, replace_and_sum, round, scale, sum2};
use super::memory::Shared;
use crate::error::{Error, Result};
use crate::simd::simd;

/// Queries worked on at a time: their scores stay in a core's own caches.
const STRIP: usize = 48;

/// What a task keeps from head to head: scores (and sums of values), packed keys, packed values.
type TaskMemory = (Vec<f32>, Vec<u32>, Vec<u32>);

/// What the forward pass and the backward pass of one layer share.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// The layer's heads.
    pub heads: &'a Heads,
    /// Whether the operands of matmuls are rounded to bf16.
    pub bf16: bool,
    /// The batch.
    pub rows: &'a Rows,
    /// What drops probabilities, if anything does.
    pub dropout: Option<&'a Dropout>,
}

impl Pass<'_> {
    fn fits(&self, x: usize, width: usize) -> Result<()> {
        if x == self.rows.tokens() * width * self.heads.hidden() {
            return Ok(());
        }
        Err(Error::new("attention: the operands do not fit the batch"))
    }

    /// `[tokens, 3 hidden]` to `[tokens, hidden]`, and the log-sum-exp of every row of scores, `[heads, tokens]`.
    pub fn forward(&self, qkv: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
        self.fits(qkv.len(), 3)?;
        let mut out = Box::<[f32]>::new_uninit_slice(qkv.len() / 3);
        let to = Output::F32(Shared(out.as_mut_ptr().cast()));
        // SAFETY: both have the shapes that were checked, and all of `out` is written.
        let (log_sums, out) =
            unsafe { (self.forward_into(Elements::F32(qkv.as_ptr()), self.bf16, to), out.assume_init()) };
        Ok((out.into_vec(), log_sums))
    }

    /// [`Self::forward`] from bf16 to bf16.
    pub fn forward_bf16(&self, qkv: &[bf16]) -> Result<(Vec<bf16>, Vec<f32>)> {
        if bf16_unit().is_none() {
            return Err(Error::new("attention: no bf16 on this CPU"));
        }
        self.fits(qkv.len(), 3)?;
        let mut out = Box::<[bf16]>::new_uninit_slice(qkv.len() / 3);
        let to = Output::Bf16(Shared(out.as_mut_ptr().cast()));
        // SAFETY: as in `forward`, and this CPU multiplies bf16.
        let (log_sums, out) = unsafe { (self.forward_into(Elements::Bf16(qkv.as_ptr()), true, to), out.assume_init()) };
        Ok((out.into_vec(), log_sums))
    }

    /// The forward pass by address: writes all heads of all tokens of `out`, and returns the log-sum-exps.
    ///
    /// # Safety
    /// `qkv` is valid for `[tokens, 3 hidden]`, in bf16 only with `bf16` and where this CPU has a [`bf16_unit`]. `out` may be
    /// written for `[tokens, hidden]`, and nobody else uses it.
    unsafe fn forward_into(&self, qkv: Elements, bf16: bool, out: Output) -> Vec<f32> {
        let Self { heads, rows, dropout, .. } = *self;
        let (hidden, tokens, d) = (heads.hidden(), rows.tokens(), heads.dim);
        let mut log_sums = Box::<[f32]>::new_uninit_slice(heads.count * tokens);
        let sums_ptr = Shared(log_sums.as_mut_ptr());
        self.each_head().for_each_init(Default::default, |(memory, keys, values): &mut TaskMemory, (i, head)| {
            let (range, site) = (rows.range(i), Site::Attention { layer: heads.layer, head });
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
            // `keys` is not changed until the last matmul.
            let k = unsafe { OperandB::prepare((length, length, d), bf16, transposed(k), keys) };
            // SAFETY: as for the keys.
            let v = unsafe { OperandB::prepare((length, d, length), bf16, v, values) };
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
                    (log_sum, *share) = softmax(p, heads.seen(row, length), heads.scale());
                    sum.write(log_sum);
                    if let Some(dropout) = dropout {
                        apply_mask(p, dropout.row(site, rows.sample(i), row));
                    }
                }
                let at = (range.start + start) * hidden + head * d;
                // SAFETY: `p` holds the strip, and `to` has room for it: in `out`, which has a row for every token, or in this
                // task's own memory. No other task writes these rows and columns of `out`. The matmul writes all of `to`
                // before its rows are seen as slices.
                unsafe {
                    let to = match out {
                        Output::F32(out) => RawMat { ptr: out.at(at), row_stride: hidden, col_stride: 1 },
                        Output::Bf16(_) => RawMat { ptr: sums_of_values.as_mut_ptr(), row_stride: d, col_stride: 1 },
                    };
                    let p = RawMat { ptr: Elements::F32(p.as_ptr()), row_stride: stride, col_stride: 1 };
                    gemm_raw((strip, d, length), bf16, p, v, to);
                    for (row, share) in shares.iter().enumerate().take(strip) {
                        let values = std::slice::from_raw_parts_mut(to.ptr.add(row * to.row_stride), d);
                        scale(values, *share);
                        if let Output::Bf16(out) = out {
                            round(std::slice::from_raw_parts_mut(out.at(at + row * hidden).cast(), d), values);
                        }
                    }
                }
            }
        });
        // SAFETY: every (sequence, head) has written its rows.
        unsafe { log_sums.assume_init() }.into_vec()
    }

    /// The gradient of `qkv` from that of the output; `out` and `log_sums` are what [`Self::forward`] gave.
    pub fn backward(&self, qkv: &[f32], out: &[f32], log_sums: &[f32], dout: &[f32]) -> Result<Vec<f32>> {
        let Self { heads, bf16, rows, dropout } = *self;
        let (hidden, tokens, d) = (heads.hidden(), rows.tokens(), heads.dim);
        self.fits(qkv.len(), 3)?;
        self.fits(out.len(), 1)?;
        self.fits(dout.len(), 1)?;
        if log_sums.len() != heads.count * tokens {
            return Err(Error::new("attention: the log-sum-exps do not fit the batch"));
        }
        let mut dqkv = Box::<[f32]>::new_uninit_slice(tokens * 3 * hidden);
        let dqkv_ptr = Shared(dqkv.as_mut_ptr().cast::<f32>());
        self.each_head().for_each_init(Vec::new, |scratch, (i, head)| {
            let (range, site) = (rows.range(i), Site::Attention { layer: heads.layer, head });
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
                gemm_raw((length, length, d), bf16, q, Plain(transposed(k)), square_mut(p, length));
                gemm_raw((length, length, d), bf16, part(dout), Plain(transposed(v)), square_mut(dp, length));
            }
            for row in 0..length {
                let span = row * length..(row + 1) * length;
                let (p, dropped, dp) = (&mut p[span.clone()], &mut dropped[span.clone()], &mut dp[span]);
                let mask = dropout.map(|dropout| dropout.row(site, rows.sample(i), row));
                let log_sum = log_sums[head * tokens + range.start + row];
                let (out, dout) = (&out[at(row)..][..d], &dout[at(row)..][..d]);
                probabilities_backward(
                    p,
                    dropped,
                    dp,
                    heads.seen(row, length),
                    heads.scale(),
                    log_sum,
                    mask,
                    out,
                    dout,
                );
            }
            // SAFETY: as above; no other task writes these rows and columns of `dqkv`, which has room for them.
            unsafe {
                gemm_raw((length, d, length), bf16, square(dp, length), Plain(k), to(0));
                gemm_raw((length, d, length), bf16, transposed(square(dp, length)), Plain(q), to(1));
                gemm_raw((length, d, length), bf16, transposed(square(dropped, length)), Plain(part(dout)), to(2));
            }
        });
        // SAFETY: every (sequence, head) has written its rows and columns of all three parts.
        Ok(unsafe { dqkv.assume_init() }.into_vec())
    }

    /// All (sequence, head) pairs, in parallel.
    fn each_head(&self) -> impl IndexedParallelIterator<Item = (usize, usize)> + use<> {
        let heads = self.heads.count;
        (0..self.rows.sequences() * heads).into_par_iter().map(move |task| (task / heads, task % heads))
    }

    /// Queries (0), keys (1) or values (2) of one head of one sequence.
    fn part(&self, qkv: Elements, range: &std::ops::Range<usize>, head: usize, part: usize) -> RawMat<Elements> {
        let hidden = self.heads.hidden();
        let start = range.start * 3 * hidden + part * hidden + head * self.heads.dim;
        RawMat { ptr: qkv.at(start), row_stride: 3 * hidden, col_stride: 1 }
    }
}

simd! {
    /// Replaces `q k` of one query, which sees the first `seen` keys, by `exp(scale q k - max)`. Returns the log-sum-exp of
    /// the row's scores `scale q k`, and the factor that turns the row into probabilities.
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

    /// The backward pass of one query's row: `p` goes from `q k` to probabilities, `dropped` becomes the probabilities after
    /// dropout, and `dp` goes from the gradient of `dropped` to that of `q k`.
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

/// Where the forward pass writes.
#[derive(Clone, Copy)]
enum Output {
    F32(Shared<f32>),
    Bf16(Shared<bf16>),
}

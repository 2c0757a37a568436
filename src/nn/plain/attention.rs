//! Attention in candle tensor algebra, on sequences padded to the longest.

use candle_core::{D, Device, Tensor};

use super::super::dropout::{Dropout, Site};
use super::super::heads::Heads;
use super::super::rows::Rows;
use crate::error::Result;

/// `[tokens, 3 hidden]` to `[tokens, hidden]`.
pub fn forward(heads: &Heads, qkv: &Tensor, rows: &Rows, dropout: Option<&Dropout>) -> Result<Tensor> {
    let padding = Padding::new(heads, rows, qkv.device())?;
    let padded = Padded::new(heads, qkv, rows, dropout, &padding)?;
    padding.pack(&padded.dropped.matmul(&padded.v)?)
}

/// The gradient of `qkv` from the gradient `dout` of the output.
pub fn backward(heads: &Heads, qkv: &Tensor, dout: &Tensor, rows: &Rows, dropout: Option<&Dropout>) -> Result<Tensor> {
    let padding = Padding::new(heads, rows, qkv.device())?;
    let Padded { q, k, v, p, mask, dropped } = Padded::new(heads, qkv, rows, dropout, &padding)?;
    let dout = padding.unpack(dout)?;
    let dv = dropped.t()?.matmul(&dout)?;
    let mut dp = dout.matmul(&v.t()?)?;
    if let Some(mask) = &mask {
        dp = (dp * mask)?;
    }
    let delta = (&dp * &p)?.sum_keepdim(D::Minus1)?;
    let ds = ((p * dp.broadcast_sub(&delta)?)? * f64::from(heads.scale()))?;
    let (dq, dk) = (ds.matmul(&k)?, ds.t()?.matmul(&q)?);
    Ok(Tensor::cat(&[padding.pack(&dq)?, padding.pack(&dk)?, padding.pack(&dv)?], 1)?)
}

/// The operands of a layer's attention, `[sequences, heads, longest, head_dim]`, and its probabilities before and after
/// dropout, `[sequences, heads, longest, longest]`.
struct Padded {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    p: Tensor,
    mask: Option<Tensor>,
    dropped: Tensor,
}

impl Padded {
    fn new(heads: &Heads, qkv: &Tensor, rows: &Rows, dropout: Option<&Dropout>, padding: &Padding) -> Result<Self> {
        let hidden = heads.hidden();
        let part = |i: usize| padding.unpack(&qkv.narrow(1, i * hidden, hidden)?);
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let scores = (q.matmul(&k.t()?)? * f64::from(heads.scale()))?.broadcast_add(&padding.bias)?;
        // (Not `softmax_last_dim`, which has no backward.)
        let p = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let mask = match dropout {
            Some(dropout) => Some(mask(heads, rows, dropout, qkv.device())?),
            None => None,
        };
        let dropped = match &mask {
            Some(mask) => (&p * mask)?,
            None => p.clone(),
        };
        Ok(Self { q, k, v, p, mask, dropped })
    }
}

/// The dropout factors of all probabilities, `[sequences, heads, longest, longest]`.
fn mask(heads: &Heads, rows: &Rows, dropout: &Dropout, device: &Device) -> Result<Tensor> {
    let longest = rows.longest();
    let mut mask = Vec::with_capacity(rows.sequences() * heads.count * longest * longest);
    for i in 0..rows.sequences() {
        for head in 0..heads.count {
            for query in 0..longest {
                let row = dropout.row(Site::Attention { layer: heads.layer, head }, rows.sample(i), query);
                mask.extend((0..longest as u32).map(|key| row.factor(key)));
            }
        }
    }
    Ok(Tensor::from_vec(mask, (rows.sequences(), heads.count, longest, longest), device)?)
}

/// Packed to padded and back, for the plain path only. The tensors are made once for a batch.
struct Padding {
    /// Row of the packed tensor for each padded place (the extra zero row where there is none).
    gather: Tensor,
    /// Padded place of each packed row.
    scatter: Tensor,
    /// 0 where a query sees a key, else a large negative number, `[sequences, 1, longest, longest]`.
    bias: Tensor,
    shape: (usize, usize, usize, usize), // sequences, longest, heads, head_dim
}

impl Padding {
    fn new(heads: &Heads, rows: &Rows, device: &Device) -> Result<Self> {
        let (n, longest, tokens) = (rows.sequences(), rows.longest(), rows.tokens());
        let gather = rows.once("attention: gather", device, || {
            let mut gather = vec![tokens as u32; n * longest];
            for i in 0..n {
                rows.range(i).enumerate().for_each(|(position, row)| gather[i * longest + position] = row as u32);
            }
            Ok(Tensor::from_vec(gather, n * longest, device)?)
        })?;
        let scatter = rows.once("attention: scatter", device, || {
            let place = |i: usize| (i * longest..).take(rows.range(i).len()).map(|place| place as u32);
            Ok(Tensor::from_vec((0..n).flat_map(place).collect(), tokens, device)?)
        })?;
        let name = if heads.causal { "attention: causal bias" } else { "attention: bias" };
        let bias = rows.once(name, device, || {
            let mut bias = vec![-1e30f32; n * longest * longest];
            for i in 0..n {
                let length = rows.range(i).len();
                for query in 0..longest {
                    let seen = heads.seen(query, length).min(length);
                    bias[(i * longest + query) * longest..][..seen].fill(0.0);
                }
            }
            Ok(Tensor::from_vec(bias, (n, 1, longest, longest), device)?)
        })?;
        Ok(Self { gather, scatter, bias, shape: (n, longest, heads.count, heads.dim) })
    }

    /// `[tokens, hidden]` to `[sequences, heads, longest, head_dim]`, zeros in the padding.
    fn unpack(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?.pad_with_zeros(0, 0, 1)?;
        Ok(x.index_select(&self.gather, 0)?.reshape(self.shape)?.transpose(1, 2)?.contiguous()?)
    }

    /// The reverse of [`Self::unpack`].
    fn pack(&self, x: &Tensor) -> Result<Tensor> {
        let (n, longest, heads, d) = self.shape;
        Ok(x.transpose(1, 2)?.reshape((n * longest, heads * d))?.index_select(&self.scatter, 0)?)
    }
}

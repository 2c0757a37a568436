//! Dropout whose masks are a function of (seed, step, layer, site, sample, position, channel).
//!
//! Nothing is stored for the backward or for a resume, and a batch gives the same result however it is cut.

use std::mem::MaybeUninit;

use candle_core::Tensor;
use rayon::prelude::*;

use super::Rows;
use super::storage::{Slice, tensor};
use crate::error::{Error, Result};
use crate::rng::mix;
use crate::simd::simd;

/// Where in the model a mask is applied.
#[derive(Clone, Copy, Debug)]
pub enum Site {
    /// After the embeddings' norm.
    Embeddings,
    /// On the attention probabilities of a head of a layer.
    Attention {
        /// The layer, counted from 0.
        layer: usize,
        /// The head, counted from 0.
        head: usize,
    },
    /// On the output of a layer's attention.
    AttentionOutput {
        /// The layer, counted from 0.
        layer: usize,
    },
    /// On the output of a layer's feed-forward block.
    MlpOutput {
        /// The layer, counted from 0.
        layer: usize,
    },
}

impl Site {
    fn word(self) -> u64 {
        let (kind, layer, head) = match self {
            Self::Embeddings => (0, 0, 0),
            Self::Attention { layer, head } => (1, layer, head),
            Self::AttentionOutput { layer } => (2, layer, 0),
            Self::MlpOutput { layer } => (3, layer, 0),
        };
        (kind << 56) | ((layer as u64) << 28) | head as u64
    }
}

/// The dropout of one training step.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    key: u64,
    /// Share of hidden values set to zero.
    pub hidden: f32,
    /// Share of attention probabilities set to zero.
    pub attention: f32,
}

/// The mask of one row: decides for each of its channels.
#[derive(Clone, Copy)]
pub struct RowMask {
    low: u32,
    high: u32,
    threshold: u32,
    scale: f32,
}

impl RowMask {
    /// 0 if `channel` is dropped, else 1 / (1 - p).
    #[inline(always)]
    pub fn factor(self, channel: u32) -> f32 {
        // Two multiplications of the 32-bit mixer "lowbias32" (C. Wellons, "Prospecting for Hash Functions", 2018),
        // the row's key added before and between them.
        let mut x = channel.wrapping_mul(0x9e37_79b9).wrapping_add(self.low);
        x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        x = (x ^ (x >> 15) ^ self.high).wrapping_mul(0x846c_a68b);
        x ^= x >> 16;
        if x < self.threshold { 0.0 } else { self.scale }
    }
}

simd! {
    /// `out = x` times `mask`, one row `[channels]` of the batch.
    pub fn masked(out: &mut [MaybeUninit<f32>], x: &[f32], mask: RowMask) {
        for (c, (o, &v)) in out.iter_mut().zip(x).enumerate() {
            o.write(v * mask.factor(c as u32));
        }
    }
}

impl Dropout {
    /// Masks for step `step` of the run with `seed`.
    pub fn new(seed: u64, step: u64, hidden: f32, attention: f32) -> Self {
        Self { key: mix(mix(0x6472_6f70, seed), step), hidden, attention }
    }

    /// The mask of one row: `position` of `sample` of the batch.
    pub fn row(&self, site: Site, sample: usize, position: usize) -> RowMask {
        let p = if matches!(site, Site::Attention { .. }) { self.attention } else { self.hidden };
        let key = mix(mix(self.key, site.word()), ((sample as u64) << 32) | position as u64);
        let threshold = (f64::from(p) * 2f64.powi(32)) as u32;
        RowMask { low: key as u32, high: (key >> 32) as u32, threshold, scale: 1.0 / (1.0 - p) }
    }

    /// The masks of a site for the rows of a batch; none if nothing is dropped there.
    pub fn at<'a>(&'a self, site: Site, rows: &'a Rows) -> Option<Mask<'a>> {
        (self.hidden > 0.0).then_some(Mask { dropout: self, site, rows })
    }
}

/// The masks of one site for the rows of a batch.
#[derive(Clone, Copy)]
pub struct Mask<'a> {
    dropout: &'a Dropout,
    site: Site,
    rows: &'a Rows,
}

impl Mask<'_> {
    /// The mask of every row, in order.
    pub fn each_row(self) -> Vec<RowMask> {
        let row = |(sample, position)| self.dropout.row(self.site, sample, position);
        self.rows.places().map(row).collect()
    }

    /// Multiplies `x` `[tokens, channels]` by its mask. The backward pass is the same function. Both implementations give the
    /// same bits.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        if x.device().is_cpu() { self.apply_to_slices(x) } else { self.apply_to_tensors(x) }
    }

    fn apply_to_tensors(self, x: &Tensor) -> Result<Tensor> {
        let width = x.dim(1)?;
        let factors = self.each_row().into_iter().flat_map(|row| (0..width as u32).map(move |c| row.factor(c)));
        Ok((x * Tensor::from_vec(factors.collect::<Vec<f32>>(), x.shape(), x.device())?)?)
    }

    fn apply_to_slices(self, x: &Tensor) -> Result<Tensor> {
        let (n, width) = x.dims2()?;
        let masks = self.each_row();
        if masks.len() != n {
            return Err(Error::new(format!("dropout: the masks of {} rows do not fit {n}", masks.len())));
        }
        let x = Slice::new(x)?;
        let mut out = Box::new_uninit_slice(x.len());
        (out.par_chunks_mut(width), x.par_chunks(width), &masks)
            .into_par_iter()
            .with_min_len(16)
            .for_each(|(out, x, mask)| masked(out, x, *mask));
        // SAFETY: `out`, `x` and the masks have `n` rows each, and every row was written.
        tensor(unsafe { out.assume_init() }.into_vec(), (n, width))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn both_backends_and_any_cut_give_the_same_mask_at_the_right_rate() {
        let dropout = Dropout::new(3, 5, 0.1, 0.1);
        let site = Site::MlpOutput { layer: 2 };
        let rows = Rows::new([3, 1, 40], 0).unwrap();
        let x = candle_core::Tensor::ones((44, 500), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let mask = dropout.at(site, &rows).unwrap();
        let fast = values(&mask.apply(&x).unwrap());
        assert_eq!(fast, values(&mask.apply_to_tensors(&x).unwrap()));
        let dropped = fast.iter().filter(|v| **v == 0.0).count() as f64 / fast.len() as f64;
        assert!((dropped - 0.1).abs() < 0.01, "{dropped}");
        let last = Rows::new([40], 2).unwrap();
        let cut = values(&dropout.at(site, &last).unwrap().apply(&x.narrow(0, 4, 40).unwrap()).unwrap());
        assert_eq!(cut, fast[4 * 500..]);
        let other = Dropout::new(3, 6, 0.1, 0.1);
        assert!(Dropout::new(3, 5, 0.0, 0.1).at(site, &rows).is_none());
        assert_ne!(values(&other.at(site, &rows).unwrap().apply(&x).unwrap()), fast);
    }
}

//! How the attention of one layer is cut into heads.

use crate::error::{Error, Result};

/// The shape of one layer's attention, for both of its implementations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    /// How many heads.
    pub count: usize,
    /// Width of one head.
    pub dim: usize,
    /// A query sees the keys up to its own position only.
    pub causal: bool,
    /// Which layer's dropout masks to use.
    pub layer: usize,
}

impl Heads {
    /// `hidden` must be a multiple of `count`.
    pub fn new(hidden: usize, count: usize, causal: bool, layer: usize) -> Result<Self> {
        if count == 0 || !hidden.is_multiple_of(count) {
            return Err(Error::new(format!("{count} attention heads do not divide a hidden size of {hidden}")));
        }
        Ok(Self { count, dim: hidden / count, causal, layer })
    }

    /// Width of all heads together.
    pub fn hidden(&self) -> usize {
        self.count * self.dim
    }

    /// What `q k` is multiplied by to become a score, 1 / sqrt(dim).
    pub fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// How many keys the query in `row` sees.
    pub fn seen(&self, row: usize, length: usize) -> usize {
        if self.causal { row + 1 } else { length }
    }
}

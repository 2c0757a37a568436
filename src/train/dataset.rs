//! Tokenized captions with their targets, and the order in which an epoch visits them.

use candle_core::{Device, Tensor};

use crate::data::pairs::Pair;
use crate::data::targets::Targets;
use crate::error::Result;
use crate::rng;

/// What a student is trained on, or validated with.
pub struct Dataset {
    /// The captions.
    pub pairs: Vec<Pair>,
    /// Token ids of each Spanish caption.
    pub tokens: Vec<Vec<u32>>,
    /// The teacher's feature of each English caption.
    pub targets: Targets,
}

impl Dataset {
    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The targets of some captions, `[indices, dim]`.
    pub fn targets_of(&self, indices: &[usize], device: &Device) -> Result<Tensor> {
        let mut rows = Vec::with_capacity(indices.len() * self.targets.dim());
        indices.iter().for_each(|i| self.targets.append(*i, &mut rows));
        Ok(Tensor::from_vec(rows, (indices.len(), self.targets.dim()), device)?)
    }

    /// The order of an epoch: a function of the seed and the epoch alone.
    pub fn order(&self, seed: u64, epoch: usize, shuffle: bool) -> Vec<usize> {
        if shuffle {
            rng::permutation(rng::mix(rng::mix(0x7368_7566, seed), epoch as u64), self.len())
        } else {
            (0..self.len()).collect()
        }
    }
}

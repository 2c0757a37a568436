//! Which sequence and position each row of a packed batch is.

use super::Dropout;
use super::dropout::{Mask, Site};
use crate::error::{Error, Result};

/// The layout of a packed batch: sequence `i` owns the rows `cu_seqlens[i]..cu_seqlens[i + 1]`.
#[derive(Clone, Debug)]
pub struct Rows {
    cu_seqlens: Vec<usize>,
    /// Index of sequence 0 within the whole batch, where this is one of its micro-batches.
    first_sample: usize,
}

impl Rows {
    /// From the lengths of the sequences (each at least 1); `first_sample` is where this micro-batch starts in its
    /// batch, so that dropout masks do not depend on how a batch is cut.
    pub fn new(lengths: impl IntoIterator<Item = usize>, first_sample: usize) -> Result<Self> {
        let mut cu_seqlens = vec![0];
        let mut total = 0;
        for (i, length) in lengths.into_iter().enumerate() {
            if length == 0 {
                return Err(Error::new(format!("sequence {} of the batch has no token", first_sample + i)));
            }
            total += length;
            cu_seqlens.push(total);
        }
        Ok(Self { cu_seqlens, first_sample })
    }

    /// Total number of tokens.
    pub fn tokens(&self) -> usize {
        self.cu_seqlens[self.cu_seqlens.len() - 1]
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// The cumulative lengths, `[sequences + 1]`, starting with 0.
    pub fn cu_seqlens(&self) -> &[usize] {
        &self.cu_seqlens
    }

    /// The rows of sequence `i`.
    pub fn range(&self, i: usize) -> std::ops::Range<usize> {
        self.cu_seqlens[i]..self.cu_seqlens[i + 1]
    }

    /// The place of sequence `i` within the whole batch.
    pub fn sample(&self, i: usize) -> usize {
        self.first_sample + i
    }

    /// The longest sequence.
    pub fn longest(&self) -> usize {
        (0..self.sequences()).map(|i| self.range(i).len()).max().unwrap_or(0)
    }

    /// `(sample, position)` of every row, in order.
    pub fn places(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.sequences()).flat_map(move |i| self.range(i).enumerate().map(move |(p, _)| (self.sample(i), p)))
    }
}

/// Token ids of a packed batch.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// `[tokens]`, all sequences one after another.
    pub ids: Vec<u32>,
    /// Which sequence each belongs to.
    pub rows: Rows,
}

/// What a forward pass and its backward pass have in common.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The sequences.
    pub tokens: &'a Tokens,
    /// The dropout of a training step.
    pub dropout: Option<&'a Dropout>,
}

impl<'a> Batch<'a> {
    /// Without dropout.
    pub fn plain(tokens: &'a Tokens) -> Self {
        Self { tokens, dropout: None }
    }

    /// Where the rows belong.
    pub fn rows(self) -> &'a Rows {
        &self.tokens.rows
    }

    /// The masks of a site; none if nothing is dropped there.
    pub fn mask(self, site: Site) -> Option<Mask<'a>> {
        self.dropout.and_then(|dropout| dropout.at(site, &self.tokens.rows))
    }
}

impl Tokens {
    /// Packs sequences; `first_sample` as for [`Rows::new`].
    pub fn pack<S: AsRef<[u32]>>(sequences: &[S], first_sample: usize) -> Result<Self> {
        let rows = Rows::new(sequences.iter().map(|s| s.as_ref().len()), first_sample)?;
        Ok(Self { ids: sequences.iter().flat_map(|s| s.as_ref()).copied().collect(), rows })
    }

    /// The position of each token in its sequence.
    pub fn positions(&self) -> Vec<u32> {
        self.rows.places().map(|(_, position)| position as u32).collect()
    }
}

//! The layout of a packed batch: which sequence and position each of its rows is.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};

/// The layout of a packed batch: sequence `i` owns the rows `cu_seqlens[i]..cu_seqlens[i + 1]`.
#[derive(Clone, Debug)]
pub struct Rows {
    cu_seqlens: Vec<usize>,
    /// Index of sequence 0 within the whole batch, where this is one of its micro-batches.
    first_sample: usize,
    /// What the plain path made of this layout so far. Clones have the same layout, and share it.
    made: Arc<Mutex<Vec<(Derived, Tensor)>>>,
}

/// Which of the tensors that are derived from a layout it is.
#[derive(Debug, PartialEq)]
enum Derived {
    /// A function of the layout.
    Name(&'static str),
    /// An index tensor, by its content.
    Indices(Vec<u32>),
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
        Ok(Self { cu_seqlens, first_sample, made: Arc::default() })
    }

    /// Total number of tokens.
    pub fn tokens(&self) -> usize {
        self.cu_seqlens[self.cu_seqlens.len() - 1]
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// The rows of sequence `i`.
    pub fn range(&self, i: usize) -> std::ops::Range<usize> {
        self.cu_seqlens[i]..self.cu_seqlens[i + 1]
    }

    /// The index of sequence `i` within the whole batch.
    pub fn sample(&self, i: usize) -> usize {
        self.first_sample + i
    }

    /// The length of the longest sequence.
    pub fn longest(&self) -> usize {
        (0..self.sequences()).map(|i| self.range(i).len()).max().unwrap_or(0)
    }

    /// `(sample, position)` of every row, in order.
    pub fn places(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.sequences()).flat_map(move |i| self.range(i).enumerate().map(move |(p, _)| (self.sample(i), p)))
    }

    /// The tensor on `device` that `make` gives, a function of this layout that `name` stands for. It is made once, for
    /// all layers, and for the backward pass too.
    pub(super) fn once(
        &self, name: &'static str, device: &Device, make: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.made(Derived::Name(name), device, make)
    }

    /// The tensor of `indices` `[tokens]` on `device`, made once for all uses of the same indices.
    pub(super) fn indices(&self, indices: &[u32], device: &Device) -> Result<Tensor> {
        self.made(Derived::Indices(indices.to_vec()), device, || Ok(Tensor::new(indices, device)?))
    }

    fn made(&self, key: Derived, device: &Device, make: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |(known, tensor): &&(Derived, Tensor)| *known == key && tensor.device().same_device(device);
        if let Some((_, tensor)) = made.iter().find(is_it) {
            return Ok(tensor.clone());
        }
        let tensor = make()?;
        made.push((key, tensor.clone()));
        Ok(tensor)
    }

    /// The names of the tensors that were made of this layout so far; index tensors have none.
    #[cfg(test)]
    pub(crate) fn made_so_far(&self) -> Vec<Option<&'static str>> {
        let name = |(key, _): &(Derived, Tensor)| if let Derived::Name(name) = key { Some(*name) } else { None };
        self.made.lock().unwrap().iter().map(name).collect()
    }
}

/// Token ids of a packed batch.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// `[tokens]`, all sequences one after another.
    pub ids: Vec<u32>,
    /// Which sequence and position each is.
    pub rows: Rows,
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

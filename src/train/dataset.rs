//! Caption pairs as batches of tokens and targets, and the order in which an epoch visits them.

use std::cell::RefCell;
use std::sync::mpsc::sync_channel;

use candle_core::Tensor;

use super::step::PairBatch;
use super::teacher::Teacher;
use crate::data::PairSet;
use crate::data::tokens::TextTokenizer;
use crate::error::Result;
use crate::rng;
use crate::ui::console::progress;

/// Batches that are tokenized ahead of their use.
const BATCHES_AHEAD: usize = 2;
/// Pairs whose features the teacher computes at once, where they are missing.
const FEATURES_AHEAD: usize = 512;

/// What a student is trained on, or validated with. Memory holds neither captions nor tokens nor features: a caption is
/// tokenized when a batch needs it, on a thread of its own, and a feature that the cache does not have is computed then.
pub struct Dataset<'a> {
    captions: Captions<'a>,
    teacher: &'a RefCell<Teacher<'a>>,
}

/// The part of a data set that other threads may use.
struct Captions<'a> {
    pairs: PairSet,
    tokenizer: &'a TextTokenizer,
}

impl Captions<'_> {
    /// Token ids of the Spanish captions of `indices`.
    fn tokens(&self, indices: &[usize]) -> Result<Vec<Vec<u32>>> {
        indices.iter().map(|i| self.tokenizer.encode_one(self.pairs.pair(*i)?.0)).collect()
    }

    /// The English captions of `indices`.
    fn english(&self, indices: &[usize]) -> Result<Vec<&str>> {
        indices.iter().map(|i| Ok(self.pairs.pair(*i)?.1)).collect()
    }
}

/// Batches as they come: the indices of their pairs, and what a step takes.
pub type Batches<'b> = dyn Iterator<Item = Result<(&'b [usize], PairBatch)>> + 'b;

impl<'a> Dataset<'a> {
    /// `pairs` for the student of `tokenizer`, with the features of `teacher` as targets.
    pub fn new(pairs: PairSet, tokenizer: &'a TextTokenizer, teacher: &'a RefCell<Teacher<'a>>) -> Self {
        Self { captions: Captions { pairs, tokenizer }, teacher }
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.captions.pairs.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The captions.
    pub fn pairs(&self) -> &PairSet {
        &self.captions.pairs
    }

    /// Has the teacher compute all features that the cache lacks.
    pub fn compute_features(&self) -> Result<()> {
        let (mut teacher, mut computed) = (self.teacher.borrow_mut(), 0);
        let bar = progress(self.len() as u64, "teacher features");
        for start in (0..self.len()).step_by(FEATURES_AHEAD) {
            let some: Vec<usize> = (start..self.len().min(start + FEATURES_AHEAD)).collect();
            computed += teacher.ensure(&self.captions.english(&some)?)?;
            bar.inc(some.len() as u64);
        }
        teacher.unload();
        tracing::info!("the teacher's features of {} pairs are in the cache, {computed} of them new", self.len());
        Ok(())
    }

    /// Token ids of the Spanish captions of `indices`.
    pub fn tokens(&self, indices: &[usize]) -> Result<Vec<Vec<u32>>> {
        self.captions.tokens(indices)
    }

    /// The English captions of `indices`.
    pub fn english(&self, indices: &[usize]) -> Result<Vec<&str>> {
        self.captions.english(indices)
    }

    /// The teacher's features of the English captions of `indices`, `[indices, dim]`.
    pub fn features(&self, indices: &[usize]) -> Result<Tensor> {
        let (english, mut teacher) = (self.english(indices)?, self.teacher.borrow_mut());
        teacher.ensure(&english)?;
        teacher.features(&english)
    }

    /// The order of an epoch: a function of the seed and the epoch alone.
    pub fn order(&self, seed: u64, epoch: usize, shuffle: bool) -> Vec<usize> {
        if shuffle {
            rng::permutation(rng::mix(rng::mix(0x7368_7566, seed), epoch as u64), self.len())
        } else {
            (0..self.len()).collect()
        }
    }

    /// Gives `work` the pairs of `order` in batches of `size`, the captions of the next ones being tokenized meanwhile.
    pub fn with_batches<R>(
        &self, order: &[usize], size: usize, work: impl FnOnce(&mut Batches) -> Result<R>,
    ) -> Result<R> {
        let captions = &self.captions;
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(BATCHES_AHEAD);
            scope.spawn(move || {
                // Sending fails once nobody listens any more.
                order.chunks(size).all(|batch| sender.send(captions.tokens(batch)).is_ok())
            });
            let mut computed = 0;
            let mut targets = |at: usize, batch: &[usize]| {
                let mut teacher = self.teacher.borrow_mut();
                if at + batch.len() > computed {
                    computed = order.len().min(at + size.max(FEATURES_AHEAD));
                    teacher.ensure(&captions.english(&order[at..computed])?)?;
                }
                teacher.features(&captions.english(batch)?)
            };
            let mut batches = order.chunks(size).zip(receiver).enumerate().map(|(i, (batch, tokens))| {
                Ok((batch, PairBatch { tokens: tokens?, targets: targets(i * size, batch)? }))
            });
            let worked = work(&mut batches);
            self.teacher.borrow_mut().unload();
            worked
        })
    }
}

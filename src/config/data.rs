//! The caption pairs, and where data are.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::require;
use crate::error::{Result, ResultExt};

/// The keys that choose the pairs of a run and say how they are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Data {
    /// The folder of the training pairs (WIT) and of the sets for testing.
    pub data_dir: PathBuf,
    /// Holds the teacher's features from run to run.
    pub cache_dir: PathBuf,
    /// Data sets to train on, by name (see [`crate::sets`]); `parallel` if there are none and no `pairs` either.
    pub dataset: Vec<String>,
    /// Files of pairs to train on (`-` is standard input), after the data sets.
    pub pairs: Vec<PathBuf>,
    /// The same for validation.
    pub val_pairs: Vec<PathBuf>,
    /// Whether pairs and class names are brought into Unicode's normal form C.
    pub normalize: bool,
    /// Whether the rows before the damage in a WIT shard are trained on; it is an error otherwise.
    pub allow_damaged: bool,
    /// Whether the teacher computes the features of all pairs before the first step, and not as steps need them.
    pub features_first: bool,
    /// Whether the pairs are shuffled each epoch.
    pub shuffle: bool,
    /// Tokens at which a caption is cut for the student, special tokens included.
    pub max_sequence_length: usize,
    /// Only the first pairs of the training set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_train_pairs: Option<usize>,
    /// Trains on as many pairs as fill this many batches, to see whether the student can overfit them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overfit_batches: Option<usize>,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            data_dir: "data".into(),
            cache_dir: "data/cache".into(),
            dataset: Vec::new(),
            pairs: Vec::new(),
            val_pairs: Vec::new(),
            normalize: true,
            allow_damaged: false,
            features_first: false,
            shuffle: true,
            max_sequence_length: 77,
            limit_train_pairs: None,
            overfit_batches: None,
        }
    }
}

impl Data {
    /// A value for each key that has none by default.
    pub(super) fn example() -> Self {
        Self {
            dataset: vec!["parallel".into()],
            pairs: vec!["train.tsv".into()],
            val_pairs: vec!["val.tsv".into()],
            limit_train_pairs: Some(1000),
            overfit_batches: Some(1),
            ..Self::default()
        }
    }

    /// Refuses values with which no run can work.
    pub(super) fn validate(&self) -> Result<()> {
        require(self.max_sequence_length >= 3, "max-sequence-length", self.max_sequence_length, || {
            "it must be 3 or more (two special tokens and one of text)".into()
        })?;
        for (key, value) in [("limit-train-pairs", self.limit_train_pairs), ("overfit-batches", self.overfit_batches)] {
            require(value != Some(0), key, 0, || "it must be 1 or more".into())?;
        }
        self.dataset.iter().try_for_each(|name| crate::sets::check_name(name)).context(|| "dataset")?;
        let from_stdin = self.pairs.iter().chain(&self.val_pairs).filter(|path| *path == Path::new("-")).count();
        require(from_stdin < 2, "pairs", "- twice", || {
            "standard input can be read once: give the other of --pairs and --val-pairs a file".into()
        })
    }
}

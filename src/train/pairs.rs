//! The caption pairs of a run.

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::data::pairs::{self, Pair};
use crate::data::{PairSet, wit};
use crate::error::Result;

/// The training text, and the validation text (which may be empty); one batch of each for `--fast-dev-run`.
pub fn load(config: &Config, one_batch: bool) -> Result<(PairSet, Option<PairSet>)> {
    let from_files = |files: &[PathBuf]| -> Result<Vec<Pair>> {
        let all = files.iter().map(|file| pairs::read_tsv(file, config.data.normalize)).collect::<Result<Vec<_>>>()?;
        Ok(all.into_iter().flatten().collect())
    };
    let wit_dir = Path::new(&config.data.data_dir).join("wit");
    let mut train = if config.data.pairs.is_empty() {
        wit::read_split(&wit_dir, "train", config.data.normalize)?
    } else {
        from_files(&config.data.pairs)?
    };
    let mut val = if !config.data.val_pairs.is_empty() {
        from_files(&config.data.val_pairs)?
    } else if config.data.pairs.is_empty() && wit::has_split(&wit_dir, "val") {
        wit::read_split(&wit_dir, "val", config.data.normalize)?
    } else {
        tracing::warn!("no validation pairs: val/loss will not be measured (--val-pairs FILE.tsv gives some)");
        None
    };
    let (mut val, validation) = validation.unzip();
    let val = val.get_or_insert_default();
    let most = [
        config.data.limit_train_pairs,
        config.data.overfit_batches.map(|batches| batches.saturating_mul(config.limits.batch_size)),
        one_batch.then_some(config.limits.batch_size),
    ];
    most.into_iter().flatten().for_each(|most| train.truncate(most));
    if one_batch {
        val.truncate(config.limits.batch_size);
    }
    Ok((PairSet::of(&train)?, (!val.is_empty()).then(|| PairSet::of(&val)).transpose()?))
}

//! `themo train`.

use std::path::PathBuf;

use clap::Args;
use serde::{Serialize, Serializer};
use toml::Table;

use super::recipe::RecipeArgs;
use crate::error::{Error, Result};
use crate::interval::Interval;
use crate::nn::Precision;

pub(super) const EXAMPLES: &str = "\
Every option is also a key of the --config file, without the dashes
(`batch-size = 256`; --no-shuffle is `shuffle = false`). Options win over the
file, and the run folder keeps the outcome in config.toml.

Examples:
  The bundled demo, in a minute or two:
    themo train --config configs/demo.toml
  The same with another seed and a shorter run:
    themo train --config configs/demo.toml --seed 1 --max-epochs 3
  The published best run:
    themo train --name best --batch-size 256 --learn-rate 8e-5
  Go on with a run that was stopped:
    themo train --resume logs/demo/version_0
  Your own pairs, one `Spanish TAB English` a line:
    themo train --pairs train.tsv --val-pairs val.tsv";

/// The options of `themo train`. All but `config` serialise under the key of the configuration that they set.
#[derive(Debug, Default, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrainArgs {
    /// TOML file of settings, which the options below override
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Go on with a run that was stopped: its folder, whose configuration rules
    #[arg(long, value_name = "DIR", help_heading = "Run", conflicts_with = "config")]
    #[serde(skip)]
    pub resume: Option<PathBuf>,
    /// With --resume: let --learn-rate or --device differ from the run's
    #[arg(long = "override", help_heading = "Run")]
    #[serde(skip)]
    pub overriding: bool,
    /// Try everything with one batch and write no run
    #[arg(long, help_heading = "Run", conflicts_with = "resume")]
    #[serde(skip)]
    pub fast_dev_run: bool,
    /// Runs go to LOG_DIR/NAME/version_N [default: default]
    #[arg(long, help_heading = "Run")]
    name: Option<String>,
    /// Decides the order, new weights and dropout [default: 0]
    // TOML's integers are signed.
    #[arg(long, value_name = "N", help_heading = "Run", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// Folder of all runs [default: logs]
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    log_dir: Option<PathBuf>,
    /// auto, cpu, cuda, cuda:N or metal [default: auto]
    #[arg(long, help_heading = "Run")]
    device: Option<String>,
    /// Matrix products in f32, in bf16 (operands rounded, sums f32), or auto: bf16
    /// where the CPU is faster at it [default: f32]
    #[arg(long, value_parser = Precision::NAMES, help_heading = "Run")]
    precision: Option<String>,
    /// Steps between two logged ones [default: 50]
    #[arg(long, allow_negative_numbers = true, value_name = "STEPS", help_heading = "Run")]
    log_every: Option<usize>,
    /// Write tokens/s to metrics.csv too (then equal runs' files differ)
    #[arg(long, help_heading = "Run")]
    #[serde(skip_serializing_if = "is_false")]
    log_speed: bool,
    /// Write checkpoints/last every so many steps, or so much time (30s, 10m,
    /// 1h), besides the end of an epoch [default: 5m]
    #[arg(long, value_name = "STEPS|TIME", help_heading = "Run")]
    checkpoint_every: Option<Interval>,
    /// How many of the best checkpoints to keep [default: 1]
    #[arg(long, allow_negative_numbers = true, value_name = "K", help_heading = "Run")]
    keep_best: Option<usize>,

    /// BERT to start from: a folder, a themo checkpoint or a hub id
    /// (owner/name, owner/name@revision) [default:
    /// dccuchile/bert-base-spanish-wwm-uncased]
    #[arg(long, value_name = "MODEL", help_heading = "Models")]
    student: Option<String>,
    /// CLIP to learn from: a folder or a hub id [default:
    /// openai/clip-vit-large-patch14]
    #[arg(long, value_name = "MODEL", help_heading = "Models")]
    teacher: Option<String>,
    /// Token states to one vector [default: mean]
    #[arg(long, value_parser = ["mean", "first"], help_heading = "Models")]
    pooling: Option<String>,
    /// Dropout of the student, 0 to 1 [default: the student's own]
    #[arg(long, allow_negative_numbers = true, value_name = "P", help_heading = "Models")]
    dropout: Option<f64>,

    /// Folder with wit/ and the evaluation data [default: data]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    data_dir: Option<PathBuf>,
    /// Folder of teacher features, reused by later runs [default: data/cache]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    cache_dir: Option<PathBuf>,
    /// Train on `Spanish TAB English` lines instead of WIT: a file, which may be
    /// gzip or zstd, or - for standard input; repeatable
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pairs: Vec<PathBuf>,
    /// Validate on such lines; repeatable
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    val_pairs: Vec<PathBuf>,
    /// Leave the pairs as they are, not in Unicode's normal form C
    #[arg(long, help_heading = "Data")]
    #[serde(rename = "normalize", skip_serializing_if = "is_false", serialize_with = "negated")]
    no_normalize: bool,
    /// Train on the first pairs only
    #[arg(long, allow_negative_numbers = true, value_name = "N", help_heading = "Data")]
    limit_train_pairs: Option<usize>,
    /// Train on the first batches' pairs only, again and again
    #[arg(long, allow_negative_numbers = true, value_name = "N", help_heading = "Data")]
    overfit_batches: Option<usize>,
    /// Tokens at which a caption is cut [default: 77]
    #[arg(long, allow_negative_numbers = true, value_name = "TOKENS", help_heading = "Data")]
    max_sequence_length: Option<usize>,
    /// Keep the pairs in the order of the files
    #[arg(long, help_heading = "Data")]
    #[serde(rename = "shuffle", skip_serializing_if = "is_false", serialize_with = "negated")]
    no_shuffle: bool,

    /// Pairs a step [default: 32]
    #[arg(long, allow_negative_numbers = true, value_name = "PAIRS", help_heading = "Training")]
    batch_size: Option<usize>,
    /// Learning rate [default: 5e-4]
    #[arg(long, allow_negative_numbers = true, value_name = "RATE", help_heading = "Training")]
    learn_rate: Option<f64>,
    /// Passes over the pairs at most; 0 saves the untrained student [default:
    /// 1000]
    #[arg(long, allow_negative_numbers = true, value_name = "N", help_heading = "Training")]
    max_epochs: Option<usize>,
    /// Steps at most, over all epochs [default: no limit]
    #[arg(long, allow_negative_numbers = true, value_name = "N", help_heading = "Training")]
    max_steps: Option<usize>,
    /// Epochs without a better monitored value before stopping [default: 5]
    #[arg(long, allow_negative_numbers = true, value_name = "EPOCHS", help_heading = "Training")]
    patience: Option<usize>,
    /// Tokens computed at once: less memory, same result [default: 3072]
    #[arg(long, allow_negative_numbers = true, value_name = "TOKENS", help_heading = "Training")]
    micro_batch_tokens: Option<usize>,
    /// Memory that training may take, such as 4GiB: smaller micro-batches where
    /// that is needed [default: no limit]
    #[arg(long, value_name = "SIZE", help_heading = "Training")]
    memory_limit: Option<String>,

    #[command(flatten)]
    #[serde(flatten)]
    recipe: RecipeArgs,
}

impl TrainArgs {
    /// The options given, under the keys of the configuration.
    pub fn settings(&self) -> Result<Table> {
        Table::try_from(self).map_err(|e| Error::usage(e.to_string()).context("cannot use the options"))
    }
}

pub(super) fn is_false(flag: &bool) -> bool {
    !flag
}

pub(super) fn negated<S: Serializer>(flag: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(!flag)
}

//! `themo train`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use toml::Table;

use super::recipe::RecipeArgs;
use super::{is_false, negated};
use crate::compute::Precision;
use crate::data::pairs::Columns;
use crate::error::{Error, Result};
use crate::interval::Interval;

pub(super) const EXAMPLES: &str = "\
Examples:
  The bundled demo, in a minute or two:
    themo train --config configs/demo.toml
  The same with another seed and a shorter run:
    themo train --config configs/demo.toml --seed 1 --max-epochs 3
  The best published run of the original:
    themo train --name best --batch-size 256 --learn-rate 8e-5
  Continue a run that was stopped:
    themo train --resume logs/demo/version_0
  Your own pairs, one `Spanish TAB English` a line:
    themo train --pairs train.tsv --val-pairs val.tsv
  Pairs of a data set:
    themo train --pairs 0000.parquet --columns es=caption_es,en=caption";

/// The options of `themo train`. All but `config` serialise under the key of the configuration that they set.
#[derive(Debug, Default, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrainArgs {
    /// TOML file of settings, which the options below override
    ///
    /// Its keys are the names of the options without the dashes. The config.toml of a run repeats that run.
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Continue the run in this folder, with its saved configuration
    ///
    /// The run continues at the next batch after its newest checkpoint, and ends as if it had never been stopped.
    /// --max-epochs, --max-steps, --patience, --checkpoint-every, --keep-best and --cache-dir may be given anew.
    #[arg(long, value_name = "DIR", help_heading = "Run", conflicts_with = "config")]
    #[serde(skip)]
    pub resume: Option<PathBuf>,
    /// With --resume: allow --learn-rate, --device or --precision to change
    ///
    /// Also --max-epochs and --max-steps, if the run has a --schedule other than constant: they change its learning
    /// rates.
    #[arg(long = "override", help_heading = "Run")]
    #[serde(skip)]
    pub overriding: bool,
    /// Process one batch of everything and write no run
    ///
    /// A check of models, data and settings, in seconds. The teacher's features of that batch stay in the cache.
    #[arg(long, help_heading = "Run", conflicts_with = "resume")]
    #[serde(skip)]
    pub fast_dev_run: bool,
    /// Runs go to LOG_DIR/NAME/version_N [default: default]
    ///
    /// Each run takes the number after the highest one, also if several start at once.
    #[arg(long, help_heading = "Run")]
    name: Option<String>,
    /// Decides the order of the pairs, new weights and dropout [default: 0]
    ///
    /// Runs with equal settings and seeds write equal files on one machine.
    // TOML's integers are signed.
    #[arg(long, value_name = "N", help_heading = "Run", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// Folder of all runs [default: logs]
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    log_dir: Option<PathBuf>,
    /// auto, cpu, cuda, cuda:N or metal [default: auto]
    ///
    /// GPUs need a build with --features cuda, cudnn or metal, and are experimental. auto takes the first GPU that
    /// this build supports and that can be opened, else the CPU.
    #[arg(long, help_heading = "Run")]
    device: Option<String>,
    /// Precision of matrix multiplications [default: f32]
    ///
    /// bf16 rounds their operands to bf16; sums, weights and everything else stay f32. It is faster on CPUs with
    /// AVX512-BF16 or AMX. auto chooses bf16 on such CPUs and f32 elsewhere.
    #[arg(long, value_parser = Precision::NAMES, help_heading = "Run")]
    precision: Option<String>,
    /// Log every STEPS steps [default: 50]
    ///
    /// Such a row of metrics.csv has the loss of one step; the row at the end of an epoch has the epoch's mean.
    #[arg(long, allow_negative_numbers = true, value_name = "STEPS", help_heading = "Run")]
    log_every: Option<usize>,
    /// Write tokens per second to metrics.csv too
    ///
    /// Then the files of equal runs differ. TensorBoard and the log have the speed in any case.
    #[arg(long, help_heading = "Run")]
    #[serde(skip_serializing_if = "is_false")]
    log_speed: bool,
    /// Write checkpoints/last every N steps, or every so often (30s, 10m, 1h), and at the end of each epoch [default:
    /// 5m]
    ///
    /// A run that is killed repeats the steps since its newest checkpoint when it is resumed.
    #[arg(long, value_name = "STEPS|TIME", help_heading = "Run")]
    checkpoint_every: Option<Interval>,
    /// Number of best checkpoints to keep [default: 1]
    ///
    /// --monitor decides which are the best; on a tie, the older one stays.
    #[arg(long, allow_negative_numbers = true, value_name = "K", help_heading = "Run")]
    keep_best: Option<usize>,

    /// BERT to start from [default: dccuchile/bert-base-spanish-wwm-uncased]
    ///
    /// A folder, or the name of a model on the hub (owner/name or owner/name@revision). A checkpoint of an earlier
    /// run is such a folder: the new run starts with its weights, a fresh optimizer, at step 0.
    #[arg(long, value_name = "MODEL", help_heading = "Models")]
    student: Option<String>,
    /// CLIP to learn from [default: openai/clip-vit-large-patch14]
    ///
    /// A folder, or the name of a model on the hub (owner/name or owner/name@revision). Its features of the English
    /// captions are computed once and kept in the cache.
    #[arg(long, value_name = "MODEL", help_heading = "Models")]
    teacher: Option<String>,
    /// How token states become one vector [default: mean]
    ///
    /// mean averages all tokens of a caption, special tokens included; first takes the first one.
    #[arg(long, value_parser = ["mean", "first"], help_heading = "Models")]
    pooling: Option<String>,
    /// Dropout of the student, 0 to 1 [default: the student's own]
    #[arg(long, allow_negative_numbers = true, value_name = "P", help_heading = "Models")]
    dropout: Option<f64>,

    /// Folder with wit/, datasets.toml and the evaluation data [default: data]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    data_dir: Option<PathBuf>,
    /// Folder of what later runs use again: prepared pairs, teacher features [default: data/cache]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    cache_dir: Option<PathBuf>,
    /// Train on this data set; repeatable [default: parallel, without --pairs]
    ///
    /// A name of `themo data list`, or hub:OWNER/NAME[@REVISION][:CONFIG[/SPLIT]] for any data set of the hub. What is
    /// missing is fetched. Several sets are read one after the other, and the files of --pairs after them.
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dataset: Vec<String>,
    /// Train on the pairs of this file; repeatable
    ///
    /// TSV (without a header: Spanish TAB English), CSV with a header, JSON lines, Parquet, or moses (x.es beside x.en, or a
    /// zip of both). Text may be packed by gzip or zstd, or come from standard input (-). Rows that are not two texts are
    /// skipped and counted.
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pairs: Vec<PathBuf>,
    /// Validate on the pairs of this file; repeatable
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    val_pairs: Vec<PathBuf>,
    /// Spanish and English column of those files
    ///
    /// Such as es=translation.es,en=translation.en; or es=2,en=4, the numbers of columns of a TSV without a header. If not
    /// given: es and en, spanish and english, translation.es and translation.en, or non_english and english.
    #[arg(long, value_name = "es=NAME,en=NAME", help_heading = "Data")]
    columns: Option<Columns>,
    /// Keep all pairs, and their white space; only pairs with an empty side are left out
    ///
    /// Without it, white space is trimmed and made single spaces, and pairs with two equal sides or seen before are left
    /// out. The log and pairs.json in the run folder say how many.
    #[arg(long, help_heading = "Data")]
    #[serde(rename = "clean", skip_serializing_if = "is_false", serialize_with = "negated")]
    no_clean: bool,
    /// Leave out pairs of which one side has more than RATIO times the characters of the other [default: no limit]
    #[arg(long, allow_negative_numbers = true, value_name = "RATIO", help_heading = "Data")]
    max_length_ratio: Option<f64>,
    /// Leave out pairs with a side of fewer characters [default: no limit]
    #[arg(long, allow_negative_numbers = true, value_name = "N", help_heading = "Data")]
    min_caption_chars: Option<usize>,
    /// Leave out pairs with a side of more characters [default: no limit]
    #[arg(long, allow_negative_numbers = true, value_name = "N", help_heading = "Data")]
    max_caption_chars: Option<usize>,
    /// Leave captions as they are, not in Unicode's normal form C
    #[arg(long, help_heading = "Data")]
    #[serde(rename = "normalize", skip_serializing_if = "is_false", serialize_with = "negated")]
    no_normalize: bool,
    /// Of a damaged WIT shard, keep the rows before the damage
    ///
    /// Such a shard, cut short or corrupt, is an error otherwise.
    #[arg(long, help_heading = "Data")]
    #[serde(skip_serializing_if = "is_false")]
    allow_damaged: bool,
    /// Train on the first N pairs only
    #[arg(long, allow_negative_numbers = true, value_name = "N", help_heading = "Data")]
    limit_train_pairs: Option<usize>,
    /// Train on the pairs of the first N batches only
    ///
    /// A check that the student can learn them by heart: the loss should fall towards zero.
    #[arg(long, allow_negative_numbers = true, value_name = "N", help_heading = "Data")]
    overfit_batches: Option<usize>,
    /// Cut captions to this many tokens [default: 77]
    ///
    /// Special tokens are included.
    #[arg(long, allow_negative_numbers = true, value_name = "TOKENS", help_heading = "Data")]
    max_sequence_length: Option<usize>,
    /// Compute the teacher's features of all pairs before the first step
    ///
    /// Without it, features that the cache lacks are computed when a step needs them.
    #[arg(long, help_heading = "Data")]
    #[serde(skip_serializing_if = "is_false")]
    features_first: bool,
    /// Keep the pairs in the order of the files
    #[arg(long, help_heading = "Data")]
    #[serde(rename = "shuffle", skip_serializing_if = "is_false", serialize_with = "negated")]
    no_shuffle: bool,

    /// Pairs per step [default: 32]
    ///
    /// A batch of any size fits into memory; see --micro-batch-tokens.
    #[arg(long, allow_negative_numbers = true, value_name = "PAIRS", help_heading = "Training")]
    batch_size: Option<usize>,
    /// Learning rate [default: 5e-4]
    #[arg(long, allow_negative_numbers = true, value_name = "RATE", help_heading = "Training")]
    learn_rate: Option<f64>,
    /// Passes over the pairs at most [default: 1000]
    ///
    /// 0 saves the untrained student.
    #[arg(long, allow_negative_numbers = true, value_name = "N", help_heading = "Training")]
    max_epochs: Option<usize>,
    /// Steps at most, over all epochs [default: no limit]
    #[arg(long, allow_negative_numbers = true, value_name = "N", help_heading = "Training")]
    max_steps: Option<usize>,
    /// Stop after this many epochs in a row without a better value [default: 5]
    ///
    /// --monitor names the value.
    #[arg(long, allow_negative_numbers = true, value_name = "EPOCHS", help_heading = "Training")]
    patience: Option<usize>,
    /// Tokens computed at once [default: 3072]
    ///
    /// A larger batch is cut into micro-batches of about equal size. Less memory; loss and gradient are those of the
    /// whole batch, up to rounding.
    #[arg(long, allow_negative_numbers = true, value_name = "TOKENS", help_heading = "Training")]
    micro_batch_tokens: Option<usize>,
    /// Memory that training may take, such as 4GiB [default: no limit]
    ///
    /// Micro-batches become smaller if an estimate of the memory requires it.
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

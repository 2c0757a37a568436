//! The settings of a training run: one flat TOML table whose keys are the names of the flags.
//!
//! A file given with `--config` is overlaid by the flags; the result is validated once, and its [`Config::to_toml`]
//! is what a run folder keeps and `--config` accepts again. Relative paths mean the working folder, as flags do.

pub mod recipe;

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::data::image::Transparency;
use crate::device;
use crate::error::{Error, Result, ResultExt};
use crate::interval::Interval;
use crate::nn::{Pooling, Precision};
use recipe::Recipe;

/// Everything that decides what a training run does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Config {
    /// Runs of one name share the folder `log-dir/name`.
    pub name: String,
    /// Decides the order of the pairs, the new weights and the dropout.
    pub seed: u64,
    /// A BERT folder, a themo checkpoint, or a model of the hub (`owner/name[@revision]`).
    pub student: String,
    /// A CLIP folder, or a model of the hub.
    pub teacher: String,
    /// The folder of the training pairs (WIT) and of the sets for testing.
    pub data_dir: PathBuf,
    /// The folder of all runs.
    pub log_dir: PathBuf,
    /// Holds the teacher's features from run to run.
    pub cache_dir: PathBuf,
    /// Files of `Spanish TAB English` lines to train on (`-` is standard input); the WIT folder of `data-dir` if there are
    /// none.
    pub pairs: Vec<PathBuf>,
    /// The same for validation.
    pub val_pairs: Vec<PathBuf>,
    /// Whether pairs and class names are brought into Unicode's normal form C.
    pub normalize: bool,
    /// Pairs a step.
    pub batch_size: usize,
    /// Tokens at which a caption is cut for the student, special tokens included.
    pub max_sequence_length: usize,
    /// The learning rate that the schedule starts from, after the warm-up.
    pub learn_rate: f64,
    /// Passes over the pairs at most; 0 writes an untrained checkpoint.
    pub max_epochs: usize,
    /// Steps at most, over all epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<usize>,
    /// Epochs without a better value of `monitor` before the run stops.
    pub patience: usize,
    /// How the student makes one vector of the states of a caption.
    pub pooling: Pooling,
    /// `auto`, `cpu`, `cuda[:N]` or `metal`, see [`device::select`].
    pub device: String,
    /// Precision of matrix multiplications.
    pub precision: Precision,
    /// Whether the pairs are shuffled each epoch.
    pub shuffle: bool,
    /// Tokens a micro-batch may hold; a larger batch is cut, with the same gradient.
    pub micro_batch_tokens: usize,
    /// The memory that training may take, such as `4GiB`: makes micro-batches smaller where that is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<String>,
    /// The student's dropout in `[0, 1)`; what its own configuration says if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Steps between two logged ones.
    pub log_every: usize,
    /// How often `checkpoints/last` is written within an epoch.
    pub checkpoint_every: Interval,
    /// How many of the best checkpoints are kept.
    pub keep_best: usize,
    /// Only the first pairs of the training set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_train_pairs: Option<usize>,
    /// Trains on as many pairs as fill this many batches, to see whether the student can overfit them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overfit_batches: Option<usize>,
    /// Whether metrics.csv has tokens/s. TensorBoard always does, but a reading of the clock would make the
    /// metrics.csv of two equal runs differ.
    pub log_speed: bool,
    /// The Spanish prompt of zero-shot classification: `{}` or `{name}` stands for the class name, `{un}`, `{el}`,
    /// `{del}`, `{al}` for the article that agrees with it; `ensemble` means all of configs/prompts/es.toml.
    pub prompt: String,
    /// The teacher's English prompt.
    pub english_prompt: String,
    /// What becomes of transparent pixels where images are embedded: `drop` or `white`.
    pub transparency: Transparency,
    /// The Spanish class names, one a line; see [`Config::class_names`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_names: Option<PathBuf>,
    /// How to train.
    #[serde(flatten)]
    pub recipe: Recipe,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "default".into(),
            seed: 0,
            student: "dccuchile/bert-base-spanish-wwm-uncased".into(),
            teacher: "openai/clip-vit-large-patch14".into(),
            data_dir: "data".into(),
            log_dir: "logs".into(),
            cache_dir: "data/cache".into(),
            pairs: Vec::new(),
            val_pairs: Vec::new(),
            normalize: true,
            batch_size: 32,
            max_sequence_length: 77,
            learn_rate: 5e-4,
            max_epochs: 1000,
            max_steps: None,
            patience: 5,
            pooling: Pooling::Mean,
            device: "auto".into(),
            precision: Precision::F32,
            shuffle: true,
            micro_batch_tokens: 3072,
            memory_limit: None,
            dropout: None,
            log_every: 50,
            checkpoint_every: Interval::Time(Duration::from_secs(5 * 60)),
            keep_best: 1,
            limit_train_pairs: None,
            overfit_batches: None,
            log_speed: false,
            prompt: "una imagen de {un} {name}".into(),
            english_prompt: "a picture of a {}".into(),
            transparency: Transparency::Drop,
            class_names: None,
            recipe: Recipe::default(),
        }
    }
}

impl Config {
    /// The settings of `file`, overlaid by those of `flags`, over the defaults; valid, or an error that names the key.
    pub fn resolve(file: Option<&Path>, flags: Table) -> Result<Self> {
        let mut table = match file {
            Some(path) => read(path)?,
            None => Table::new(),
        };
        check(&flags).context(|| "on the command line")?;
        table.extend(flags);
        let config: Self = table.try_into().map_err(|e: toml::de::Error| Error::usage(one_line(e.message())))?;
        config.validate()?;
        Ok(config)
    }

    /// Refuses values with which no run can work.
    pub fn validate(&self) -> Result<()> {
        let least = [
            ("batch-size", self.batch_size, 1),
            ("max-sequence-length", self.max_sequence_length, 3),
            ("patience", self.patience, 1),
            ("micro-batch-tokens", self.micro_batch_tokens, 1),
            ("log-every", self.log_every, 1),
            ("keep-best", self.keep_best, 1),
            ("limit-train-pairs", self.limit_train_pairs.unwrap_or(1), 1),
            ("overfit-batches", self.overfit_batches.unwrap_or(1), 1),
        ];
        for (key, value, least) in least {
            let why = if least == 3 { " (two special tokens and one of text)" } else { "" };
            require(value >= least, key, value, || format!("it must be {least} or more{why}"))?;
        }
        let alone = self.batch_size == 1 && self.recipe.loss.needs_whole_batch();
        require(!alone, "batch-size", self.batch_size, || {
            "the losses similarity and clip compare the pairs of a batch: give 2 or more".into()
        })?;
        require(self.learn_rate.is_finite() && self.learn_rate > 0.0, "learn-rate", self.learn_rate, || {
            "it must be a positive number, such as 5e-4".into()
        })?;
        if let Some(dropout) = self.dropout {
            require((0.0..1.0).contains(&dropout), "dropout", dropout, || {
                "it must be 0 or more and less than 1".into()
            })?;
        }
        // TOML's integers are signed: a larger seed could not be written down.
        require(i64::try_from(self.seed).is_ok(), "seed", self.seed, || format!("it must be at most {}", i64::MAX))?;
        let mut parts = Path::new(&self.name).components();
        let one_part = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        let plain = one_part && !self.name.contains(|c: char| matches!(c, '/' | '\\') || c.is_control());
        require(plain, "name", format!("`{}`", self.name), || {
            "it names one folder below log-dir: not empty, without / or \\, and not `..`".into()
        })?;
        for (key, prompt) in [("prompt", &self.prompt), ("english-prompt", &self.english_prompt)] {
            let holds = prompt.contains("{}") || prompt.contains("{name}") || (key == "prompt" && prompt == "ensemble");
            require(holds, key, format!("`{prompt}`"), || "it must hold {} where the class name goes".into())?;
        }
        require(self.pooling != Pooling::Last, "pooling", "last", || "it must be mean or first".into())?;
        for (key, model) in [("student", &self.student), ("teacher", &self.teacher)] {
            require(!model.is_empty(), key, "empty", || "give the folder or the name of a model".into())?;
        }
        let from_stdin = self.pairs.iter().chain(&self.val_pairs).filter(|path| *path == Path::new("-")).count();
        require(from_stdin < 2, "pairs", "- twice", || {
            "standard input can be read once: give the other of --pairs and --val-pairs a file".into()
        })?;
        self.recipe.validate()?;
        self.device.parse::<device::Spec>().map(drop).context(|| "device")
    }

    /// All settings as TOML that `--config` accepts.
    pub fn to_toml(&self) -> Result<String> {
        let table = toml::to_string(self).map_err(|e| Error::usage(e.to_string()).context("cannot write as TOML"))?;
        Ok(format!("# All settings of this run; `themo train --config` with this file repeats it.\n{table}"))
    }

    /// The file of Spanish class names: the one given, else `data-dir/imagenet/classnames_es.txt` where there is one;
    /// none means the bundled list.
    pub fn class_names(&self) -> Option<PathBuf> {
        let beside_the_data = || Some(self.data_dir.join("imagenet/classnames_es.txt")).filter(|path| path.exists());
        self.class_names.clone().or_else(beside_the_data)
    }
}

fn require(holds: bool, key: &str, value: impl std::fmt::Display, hint: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::usage(format!("{key} cannot be {value}")).hint(hint())) }
}

fn read(path: &Path) -> Result<Table> {
    let doing = || format!("cannot use configuration {}", path.display());
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::usage(e.to_string()))
        .context(doing)
        .hint(|| "--config takes a TOML file, such as configs/demo.toml or the config.toml of a run")?;
    let table = text
        .parse::<Table>()
        .map_err(|e| {
            let start = e.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
            Error::usage(format!("line {line}: {}", one_line(e.message())))
        })
        .context(doing)
        .hint(|| "a line is `key = value`, once for each key; text stands in \"double quotes\"")?;
    check(&table).context(doing)?;
    Ok(table)
}

/// Checks keys and types one key at a time, because serde's errors about a value do not name its key.
fn check(table: &Table) -> Result<()> {
    let known = examples()?;
    for (key, value) in table {
        let Some(example) = known.get(key) else {
            let near =
                known.keys().max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
            let near = near.map_or(String::new(), |near| format!("did you mean `{near}`?"));
            return Err(Error::usage(format!("unknown key `{key}`")).hint(near));
        };
        Table::from_iter([(key.clone(), value.clone())]).try_into::<Config>().map_err(|e: toml::de::Error| {
            Error::usage(format!("{key}: {}", one_line(e.message()))).hint(format!("for example `{key} = {example}`"))
        })?;
    }
    Ok(())
}

/// Every key with a value that it takes.
fn examples() -> Result<Table> {
    let all = Config {
        pairs: vec!["train.tsv".into()],
        val_pairs: vec!["val.tsv".into()],
        max_steps: Some(1000),
        limit_train_pairs: Some(1000),
        overfit_batches: Some(1),
        dropout: Some(0.1),
        memory_limit: Some("4GiB".into()),
        class_names: Some("classnames_es.txt".into()),
        recipe: Recipe::example(),
        ..Config::default()
    };
    match Value::try_from(all) {
        Ok(Value::Table(table)) => Ok(table),
        Ok(_) => Ok(Table::new()),
        Err(e) => Err(Error::new(e.to_string())),
    }
}

fn one_line(message: &str) -> String {
    message.trim().replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(toml: &str) -> Table {
        toml.parse().unwrap()
    }

    fn resolve_file(toml: &str) -> Result<Config> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        Config::resolve(Some(file.path()), Table::new()).inspect_err(|e| {
            assert!(!e.to_string().contains("configuration") || e.to_string().contains(file.path().to_str().unwrap()))
        })
    }

    #[test]
    fn flags_override_the_file_and_the_file_the_defaults() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "batch-size = 256\nlearn-rate = 1\npairs = ['a', 'b']").unwrap();
        let flags = table("learn-rate = 8e-5\npairs = ['c']\nshuffle = false");
        let config = Config::resolve(Some(file.path()), flags).unwrap();
        let pairs = vec!["c".into()];
        let expected = Config { batch_size: 256, learn_rate: 8e-5, pairs, shuffle: false, ..Config::default() };
        assert_eq!(config, expected);
        assert_eq!(Config::resolve(None, Table::new()).unwrap(), Config::default());
    }

    #[test]
    fn the_resolved_copy_is_accepted_again() {
        let full: Config = examples().unwrap().try_into().unwrap();
        for config in [Config::default(), Config { learn_rate: 0.1 + 0.2, seed: i64::MAX as u64, ..full }] {
            assert_eq!(resolve_file(&config.to_toml().unwrap()).unwrap(), config);
        }
    }

    #[test]
    fn class_names_follow_the_data_folder() {
        let config = Config { data_dir: "data/demo".into(), ..Config::default() };
        assert_eq!(config.class_names().unwrap(), Path::new("data/demo/imagenet/classnames_es.txt"));
        assert_eq!(Config { data_dir: "d".into(), ..Config::default() }.class_names(), None);
    }

    #[test]
    fn errors_name_the_key_and_what_to_do() {
        for (toml, what, hint) in [
            ("batchsize = 1", "unknown key `batchsize`", "`batch-size`"),
            ("learning-rate = 1", "unknown key `learning-rate`", "`learn-rate`"),
            ("batch-size = 'x'", "batch-size: invalid type", "`batch-size = 32`"),
            ("batch-size = -1", "batch-size: invalid value", "`batch-size = 32`"),
            ("max-steps = 1.5", "max-steps: invalid type", "`max-steps = 1000`"),
            ("pairs = 'a'", "pairs: invalid type", "`pairs = [\"train.tsv\"]`"),
            ("pooling = 'max'", "pooling: unknown variant `max`", "`pooling = \"mean\"`"),
            ("\n\nname = x", "line 3", "double quotes"),
            ("seed = 1\nseed = 2", "line 2", "once"),
            ("batch-size = 0", "batch-size cannot be 0", "1 or more"),
            ("max-sequence-length = 2", "max-sequence-length cannot be 2", "3 or more"),
            ("patience = 0", "patience cannot be 0", "1 or more"),
            ("keep-best = 0", "keep-best cannot be 0", "1 or more"),
            ("overfit-batches = 0", "overfit-batches cannot be 0", "1 or more"),
            ("limit-train-pairs = 0", "limit-train-pairs cannot be 0", "1 or more"),
            ("checkpoint-every = '5 minutes'", "checkpoint-every: `5 minutes` is no interval", "= \"5m\"`"),
            ("checkpoint-every = 0", "checkpoint-every: `0` is no interval", "= \"5m\"`"),
            ("log-every = 0", "log-every cannot be 0", "1 or more"),
            ("micro-batch-tokens = 0", "micro-batch-tokens cannot be 0", "1 or more"),
            ("learn-rate = 0", "learn-rate cannot be 0", "positive"),
            ("learn-rate = nan", "learn-rate cannot be NaN", "positive"),
            ("learn-rate = inf", "learn-rate cannot be inf", "positive"),
            ("dropout = 1.0", "dropout cannot be 1", "less than 1"),
            ("weight-decay = -1", "weight-decay cannot be -1", "0 or more"),
            ("betas = [0.9]", "betas: invalid length 1", "`betas = [0.9, 0.999]`"),
            ("betas = [0.9, 1]", "betas cannot be 0.9,1", "0.9,0.999"),
            ("optimizer = 'sgd'", "optimizer: unknown variant `sgd`", "`optimizer = \"adamw\"`"),
            ("warmup-steps = -3", "warmup-steps: invalid value", "`warmup-steps = 0`"),
            ("layer-decay = 0", "layer-decay cannot be 0", "at most 1"),
            ("grad-clip = 0", "grad-clip cannot be 0", "positive"),
            ("temperature = inf", "temperature cannot be inf", "positive"),
            ("ema = 1", "ema cannot be 1", "0.999"),
            ("loss = 'mae'", "loss: unknown loss `mae`", "`loss = \"mse\"`"),
            ("monitor = 'loss'", "monitor: unknown variant `loss`", "`monitor = \"train/loss\"`"),
            ("name = ''", "name cannot be ``", "not empty"),
            ("name = '..'", "name cannot be `..`", "`..`"),
            ("name = 'a/b'", "name cannot be `a/b`", "without /"),
            ("name = 'a/'", "name cannot be `a/`", "without /"),
            ("prompt = 'una foto'", "prompt cannot be `una foto`", "{}"),
            ("student = ''", "student cannot be empty", "folder"),
            ("pairs = ['-', 'a', '-']", "pairs cannot be - twice", "--val-pairs a file"),
            ("pairs = ['-']\nval-pairs = ['-']", "pairs cannot be - twice", "--val-pairs a file"),
            ("transparency = 'black'", "transparency: unknown variant `black`", "`transparency = \"drop\"`"),
            ("device = 'gpu'", "device: unknown device `gpu`", "cuda:N"),
        ] {
            let error = resolve_file(toml).unwrap_err();
            assert!(error.to_string().contains(what), "{toml}: {error}");
            assert!(error.advice().unwrap_or("").contains(hint), "{toml}: {error:?}");
            assert_eq!(error.exit_code(), 2, "{toml}");
        }
        assert!(resolve_file("max-epochs = 0\nname = 'a..b'").is_ok());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::resolve(Some(Path::new("no/such.toml")), Table::new()).unwrap_err();
        assert!(error.to_string().contains("no/such.toml") && error.advice().is_some());
        assert_eq!(error.exit_code(), 2);
    }
}

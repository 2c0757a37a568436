//! The settings of a training run: one flat TOML table whose keys are the names of the flags.
//!
//! [`Config`] has a part for each subject, with its defaults and its checks; in the file the keys of all parts stand
//! side by side. A file given with `--config` is overlaid by the flags; the result is validated once, and its
//! [`Config::to_toml`] is what a run folder keeps and `--config` accepts again. Relative paths mean the working folder,
//! as flags do; those of a run, the folder it was started in ([`Config::start_from`]).

pub mod data;
pub mod evaluation;
pub mod limits;
pub mod logging;
pub mod models;
pub mod recipe;
pub mod run;
pub mod text;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::{Error, Result, ResultExt};

/// Everything that decides what a training run does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Which run it is, and on what it is computed.
    #[serde(flatten)]
    pub run: run::Run,
    /// The student and the teacher.
    #[serde(flatten)]
    pub models: models::Models,
    /// The caption pairs.
    #[serde(flatten)]
    pub data: data::Data,
    /// How files become caption pairs.
    #[serde(flatten)]
    pub text: text::TextSettings,
    /// How much is computed at once, and when the run ends.
    #[serde(flatten)]
    pub limits: limits::Limits,
    /// How to train.
    #[serde(flatten)]
    pub recipe: recipe::Recipe,
    /// What is logged, and which checkpoints are kept.
    #[serde(flatten)]
    pub logging: logging::Logging,
    /// How the student is measured.
    #[serde(flatten)]
    pub evaluation: evaluation::Evaluation,
}

/// Keys that are at least this similar (Jaro-Winkler, 0 to 1) to an unknown one are suggested in its place.
const NEAR: f64 = 0.85;

impl Config {
    /// The settings of `file`, overlaid by those of `flags`, over the defaults; valid, or an error that names the key.
    pub fn resolve(file: Option<&Path>, flags: Table) -> Result<Self> {
        let table = match file {
            Some(path) => read(path)?,
            None => Table::new(),
        };
        Self::of(table, flags)
    }

    /// These settings, overlaid by those of `flags`.
    pub fn overlaid(&self, flags: Table) -> Result<Self> {
        let table = Table::try_from(self).map_err(|e| Error::new(e.to_string()))?;
        Self::of(table, flags)
    }

    fn of(mut table: Table, flags: Table) -> Result<Self> {
        check(&flags, as_option).context(|| "on the command line")?;
        // Together they say what to train on: what the command line says takes the place of both.
        if ["dataset", "pairs"].iter().any(|key| flags.contains_key(*key)) {
            table.retain(|key, _| !["dataset", "pairs"].contains(&key));
        }
        let is_prompt_given = flags.contains_key("prompt");
        table.extend(flags);
        let mut config: Self = table.try_into().map_err(|e: toml::de::Error| Error::usage(one_line(e.message())))?;
        config.evaluation.is_prompt_given = is_prompt_given;
        config.validate()?;
        Ok(config)
    }

    /// Makes relative paths those that they were in the folder `base`. A name of a model is a folder where there is one in
    /// `base`, or where it cannot be a name on the hub.
    pub fn start_from(&mut self, base: &Path) {
        let rebase = |path: &mut PathBuf| *path = base.join(&*path);
        [&mut self.data.data_dir, &mut self.data.cache_dir, &mut self.run.log_dir].into_iter().for_each(rebase);
        [&mut self.recipe.probe, &mut self.evaluation.class_names].into_iter().flatten().for_each(rebase);
        let files = self.data.pairs.iter_mut().chain(&mut self.data.val_pairs);
        files.filter(|path| **path != Path::new("-")).for_each(rebase);
        for model in [&mut self.models.student, &mut self.models.teacher] {
            let (at, name) = (base.join(&*model), Path::new(&*model));
            let is_name = name.components().count() <= 2 && !model.starts_with(['.', '~']);
            if let Some(path) = at.to_str().filter(|_| at.exists() || !is_name) {
                *model = path.to_owned();
            }
        }
    }

    /// Refuses values with which no run can work.
    pub fn validate(&self) -> Result<()> {
        self.run.validate()?;
        self.models.validate()?;
        self.data.validate()?;
        self.text.validate()?;
        self.limits.validate()?;
        self.recipe.validate()?;
        self.logging.validate()?;
        self.evaluation.validate()?;
        let alone = self.limits.batch_size == 1 && self.recipe.loss.needs_whole_batch();
        require(!alone, "batch-size", self.limits.batch_size, || {
            "the loss compares the pairs of a batch with each other: give 2 or more".into()
        })
    }

    /// All settings as TOML that `--config` accepts.
    pub fn to_toml(&self) -> Result<String> {
        let table = toml::to_string(self).map_err(|e| Error::usage(e.to_string()).context("cannot write as TOML"))?;
        Ok(format!("# All settings of this run; `themo train --config` with this file repeats it.\n{table}"))
    }

    /// The file of Spanish class names: the one given, else `data-dir/imagenet/classnames_es.txt` where there is one;
    /// none means the bundled list.
    pub fn class_names(&self) -> Option<PathBuf> {
        let beside_the_data =
            || Some(self.data.data_dir.join("imagenet/classnames_es.txt")).filter(|path| path.exists());
        self.evaluation.class_names.clone().or_else(beside_the_data)
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
    check(&table, |key, example| format!("{key} = {example}")).context(doing)?;
    Ok(table)
}

/// A setting as it is given on the command line.
fn as_option(key: &str, value: &Value) -> String {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let value = match value {
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        value => plain(value),
    };
    format!("--{key} {value}")
}

/// Checks keys and types one key at a time, because serde's errors about a value do not name its key. A hint has a
/// valid value, written by `shown`.
fn check(table: &Table, shown: impl Fn(&str, &Value) -> String) -> Result<()> {
    let known = examples()?;
    for (key, value) in table {
        let Some(example) = known.get(key) else {
            let near = known.keys().map(|known| (strsim::jaro_winkler(known, key), known));
            let near = near.filter(|(similarity, _)| *similarity >= NEAR).max_by(|(a, _), (b, _)| a.total_cmp(b));
            return Err(Error::usage(format!("unknown key `{key}`")).hint(match near {
                Some((_, near)) => format!("did you mean `{near}`?"),
                None => "the keys are the options that `themo train --help` lists, without the dashes".to_owned(),
            }));
        };
        Table::from_iter([(key.clone(), value.clone())]).try_into::<Config>().map_err(|e: toml::de::Error| {
            Error::usage(format!("{key}: {}", one_line(e.message())))
                .hint(format!("for example `{}`", shown(key, example)))
        })?;
    }
    Ok(())
}

/// Every key with a value that it takes.
fn examples() -> Result<Table> {
    let all = Config {
        models: models::Models::example(),
        data: data::Data::example(),
        text: text::TextSettings::example(),
        limits: limits::Limits::example(),
        recipe: recipe::Recipe::example(),
        evaluation: evaluation::Evaluation::example(),
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
        let mut expected = Config::default();
        (expected.limits.batch_size, expected.recipe.learn_rate) = (256, 8e-5);
        (expected.data.pairs, expected.data.shuffle) = (vec!["c".into()], false);
        assert_eq!(config, expected);
        assert_eq!(Config::resolve(None, Table::new()).unwrap(), Config::default());
    }

    #[test]
    fn the_resolved_copy_is_accepted_again() {
        let mut full: Config = examples().unwrap().try_into().unwrap();
        (full.recipe.learn_rate, full.run.seed) = (0.1 + 0.2, i64::MAX as u64);
        for config in [Config::default(), full] {
            assert_eq!(resolve_file(&config.to_toml().unwrap()).unwrap(), config);
        }
    }

    #[test]
    fn the_paths_of_a_run_are_those_of_the_folder_it_was_started_in() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(base.path().join("models/clip")).unwrap();
        let given = "student = 'owner/bert'\nteacher = 'models/clip'\npairs = ['a.tsv', '-', '/b.tsv']\nprobe = 'p'";
        let mut config = Config::resolve(None, table(given)).unwrap();
        config.start_from(base.path());
        let at = |name: &str| base.path().join(name);
        assert_eq!(config.models.student, "owner/bert");
        assert_eq!(Path::new(&config.models.teacher), at("models/clip"));
        assert_eq!(config.data.pairs, [at("a.tsv"), "-".into(), "/b.tsv".into()]);
        assert_eq!((config.recipe.probe, config.data.data_dir), (Some(at("p")), at("data")));
        let mut config = Config::resolve(None, table("teacher = 'x/y/z'\nstudent = '../bert'")).unwrap();
        config.start_from(base.path());
        assert_eq!([config.models.teacher, config.models.student].map(PathBuf::from), [at("x/y/z"), at("../bert")]);
    }

    #[test]
    fn class_names_follow_the_data_folder() {
        let mut config = Config::default();
        config.data.data_dir = "data/demo".into();
        assert_eq!(config.class_names().unwrap(), Path::new("data/demo/imagenet/classnames_es.txt"));
        config.data.data_dir = "d".into();
        assert_eq!(config.class_names(), None);
    }

    #[test]
    fn errors_name_the_key_and_what_to_do() {
        for (toml, what, hint) in [
            ("batchsize = 1", "unknown key `batchsize`", "`batch-size`"),
            ("learning-rate = 1", "unknown key `learning-rate`", "`learn-rate`"),
            ("colour = 'red'", "unknown key `colour`", "themo train --help"),
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
            ("memory-limit = '4'", "memory-limit cannot be `4`", "4GiB"),
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
            ("ema = 0.99999999", "ema cannot be 0.99999999", "0.999999"),
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
            ("dataset = 'ted'", "dataset: invalid type", "`dataset = [\"parallel\"]`"),
            ("dataset = ['x/a.tsv']", "dataset: `x/a.tsv` is no name of a data set", "themo data list"),
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
    fn hints_for_an_option_are_written_as_options() {
        for (flags, what, hint) in [
            ("loss = 'mae'", "on the command line: loss: unknown loss `mae`", "for example `--loss mse`"),
            ("betas = [0.9]", "on the command line: betas: invalid length 1", "for example `--betas 0.9,0.999`"),
        ] {
            let error = Config::resolve(None, table(flags)).unwrap_err();
            assert!(error.to_string().starts_with(what), "{error}");
            assert_eq!(error.advice(), Some(hint));
        }
    }

    /// The config.toml of a run from before the settings were in parts (commit 4b9b8a5).
    #[test]
    fn an_older_config_toml_still_loads() {
        let old = "# All settings of this run; `themo train --config` with this file repeats it.\n\
            name = 'demo'\nseed = 3\nstudent = 's'\nteacher = 't'\ndata-dir = 'd'\nlog-dir = 'logs'\ncache-dir = 'c'\n\
            pairs = []\nval-pairs = []\nnormalize = true\nbatch-size = 64\nmax-sequence-length = 77\n\
            learn-rate = 0.001\nmax-epochs = 12\npatience = 5\npooling = 'mean'\ndevice = 'cpu'\nprecision = 'f32'\n\
            shuffle = true\nmicro-batch-tokens = 3072\nlog-every = 50\ncheckpoint-every = '5m'\nkeep-best = 2\n\
            log-speed = false\nprompt = '{}'\nenglish-prompt = '{}'\ntransparency = 'drop'\noptimizer = 'adam'\n\
            betas = [0.9, 0.999]\nno-decay-bias-norm = false\nschedule = 'constant'\nwarmup-steps = 0\n\
            layer-decay = 1.0\nfinal-norm = false\nprojection-bias = false\ninit = 'clip'\nloss = 'mse'\n\
            temperature = 0.07\ntarget = 'hidden'\nmonitor = 'train/loss'\n";
        let config = resolve_file(old).unwrap();
        assert_eq!((config.run.seed, config.limits.batch_size, config.logging.keep_best), (3, 64, 2));
        assert_eq!((config.recipe.optimizer, config.recipe.learn_rate), (recipe::OptimizerKind::Adam, 0.001));
        // The file that is written today is one flat table as well.
        let written = config.to_toml().unwrap().parse::<Table>().unwrap();
        for (key, value) in old.parse::<Table>().unwrap() {
            assert_eq!(written.get(&key), Some(&value), "{key}");
        }
    }

    #[test]
    fn data_of_the_command_line_take_the_place_of_those_of_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "dataset = ['wit']\npairs = ['a']").unwrap();
        let resolve = |flags: &str| Config::resolve(Some(file.path()), flags.parse().unwrap()).unwrap().data;
        let [none, pairs, dataset] = ["", "pairs = ['b']", "dataset = ['ted']"].map(resolve);
        assert_eq!((none.dataset, none.pairs), (vec!["wit".to_owned()], vec!["a".into()]));
        assert_eq!((pairs.dataset, pairs.pairs), (vec![], vec!["b".into()]));
        assert_eq!((dataset.dataset, dataset.pairs), (vec!["ted".to_owned()], vec![]));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::resolve(Some(Path::new("no/such.toml")), Table::new()).unwrap_err();
        assert!(error.to_string().contains("no/such.toml") && error.advice().is_some());
        assert_eq!(error.exit_code(), 2);
    }
}

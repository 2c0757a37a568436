//! The command line: definitions only. Arguments become settings in `commands`.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use serde::{Serialize, Serializer};
use toml::Table;

use crate::error::{Error, Result};

/// Teaches a Spanish BERT to speak CLIP, and measures how well it does.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 80, args_override_self = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Only warnings and errors, no progress
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Logging")]
    pub quiet: bool,
    /// More detail; twice for even more (RUST_LOG works too)
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Logging")]
    pub verbose: u8,
}

impl Cli {
    /// -1 for `-q`, else the number of `-v`.
    pub fn verbosity(&self) -> i8 {
        if self.quiet { -1 } else { self.verbose.min(2) as i8 }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a student on the teacher's text space
    #[command(args_override_self = true, after_help = TRAIN_EXAMPLES)]
    Train(Box<TrainArgs>),
    /// Measure a trained student: retrieval and zero-shot classification
    #[command(args_override_self = true, after_help = TEST_EXAMPLES)]
    Test(TestArgs),
    /// Write the vectors of texts and images to a file
    #[command(args_override_self = true, after_help = EMBED_EXAMPLES)]
    Embed(EmbedArgs),
}

const EXAMPLES: &str = "\
Examples:
  themo train --config configs/demo.toml
  themo test --version-path logs/demo/version_0";

const TRAIN_EXAMPLES: &str = "\
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
  Your own pairs, one `Spanish TAB English` a line:
    themo train --pairs train.tsv --val-pairs val.tsv";

const TEST_EXAMPLES: &str = "\
Examples:
  themo test --version-path logs/demo/version_0
  themo test --version-path logs/demo/version_0 --with-teacher
  themo test --version-path logs/demo/version_0 --task retrieval --json";

const EMBED_EXAMPLES: &str = "\
The file holds `text_embeds` [texts, dim] and `image_embeds` [images, dim] in
f32 and input order; its metadata key `image_names` is a JSON list.

Examples:
  themo embed --version-path logs/demo/version_0 --texts es.txt --output es.safetensors
  themo embed --model data/demo/models/toy-clip --images photos --output im.safetensors
  echo 'una luna azul' | themo embed --version-path logs/demo/version_0 \\
      --texts - --output one.safetensors";

/// The options of `themo train`. All but `config` serialise under the key of the configuration that they set.
#[derive(Debug, Default, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrainArgs {
    /// TOML file of settings, which the options below override
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
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
    /// Steps between two logged ones [default: 50]
    #[arg(long, value_name = "STEPS", help_heading = "Run")]
    log_every: Option<usize>,
    /// Write tokens/s to metrics.csv too (then equal runs' files differ)
    #[arg(long, help_heading = "Run")]
    #[serde(skip_serializing_if = "is_false")]
    log_speed: bool,

    /// BERT folder or themo checkpoint to start from [default:
    /// dccuchile/bert-base-spanish-wwm-uncased]
    #[arg(long, value_name = "DIR", help_heading = "Models")]
    student: Option<String>,
    /// CLIP folder to learn from [default: openai/clip-vit-large-patch14]
    #[arg(long, value_name = "DIR", help_heading = "Models")]
    teacher: Option<String>,
    /// Token states to one vector [default: mean]
    #[arg(long, value_parser = ["mean", "first"], help_heading = "Models")]
    pooling: Option<String>,
    /// Dropout of the student, 0 to 1 [default: the student's own]
    #[arg(long, value_name = "P", help_heading = "Models")]
    dropout: Option<f64>,

    /// Folder with wit/ and the evaluation data [default: data]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    data_dir: Option<PathBuf>,
    /// Folder of teacher features, reused by later runs [default: data/cache]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    cache_dir: Option<PathBuf>,
    /// Train on `Spanish TAB English` lines instead of WIT; repeatable
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pairs: Vec<PathBuf>,
    /// Validate on such lines; repeatable
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    val_pairs: Vec<PathBuf>,
    /// Tokens at which a caption is cut [default: 77]
    #[arg(long, value_name = "TOKENS", help_heading = "Data")]
    max_sequence_length: Option<usize>,
    /// Keep the pairs in the order of the files
    #[arg(long, help_heading = "Data")]
    #[serde(rename = "shuffle", skip_serializing_if = "is_false", serialize_with = "negated")]
    no_shuffle: bool,

    /// Pairs a step [default: 32]
    #[arg(long, value_name = "PAIRS", help_heading = "Training")]
    batch_size: Option<usize>,
    /// AdamW's learning rate [default: 5e-4]
    #[arg(long, value_name = "RATE", help_heading = "Training")]
    learn_rate: Option<f64>,
    /// Passes over the pairs at most; 0 saves the untrained student [default:
    /// 1000]
    #[arg(long, value_name = "N", help_heading = "Training")]
    max_epochs: Option<usize>,
    /// Steps at most, over all epochs [default: no limit]
    #[arg(long, value_name = "N", help_heading = "Training")]
    max_steps: Option<usize>,
    /// Epochs without a better train/loss before stopping [default: 5]
    #[arg(long, value_name = "EPOCHS", help_heading = "Training")]
    patience: Option<usize>,
    /// Tokens computed at once: less memory, same result [default: 4096]
    #[arg(long, value_name = "TOKENS", help_heading = "Training")]
    micro_batch_tokens: Option<usize>,
}

impl TrainArgs {
    /// The options given, under the keys of the configuration.
    pub fn settings(&self) -> Result<Table> {
        Table::try_from(self).map_err(|e| Error::usage(e.to_string()).context("cannot use the options"))
    }
}

/// What `themo test` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Spanish captions to images and back (XTD10 on MSCOCO): recall@k
    Retrieval,
    /// Zero-shot ImageNet with Spanish class names: accuracy@k
    Classification,
}

/// The options of `themo test`; what is not given is as the run was trained. The settings among them serialise under
/// their keys of the configuration.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TestArgs {
    /// Folder of the run, such as logs/demo/version_0
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    pub version_path: PathBuf,
    /// What to measure; repeatable [default: both]
    #[arg(long, value_enum, help_heading = "What")]
    #[serde(skip)]
    task: Vec<Task>,
    /// Measure the teacher with English text too: the ceiling
    #[arg(long, help_heading = "What")]
    #[serde(skip)]
    pub with_teacher: bool,
    /// Print one JSON object instead of tables
    #[arg(long, help_heading = "What")]
    #[serde(skip)]
    pub json: bool,

    /// Folder with xtd10/, mscoco/ and imagenet/ [default: the run's]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    data_dir: Option<PathBuf>,
    /// Spanish class names, one a line, or a table with gender and number
    /// [default: the run's, else DATA_DIR/imagenet/classnames_es.txt, else the
    /// bundled list of the 1000 ImageNet classes]
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    class_names: Option<PathBuf>,
    /// Spanish prompt: {} is the class name, {un}, {el}, {del} and {al} the
    /// article that agrees with it; `ensemble` averages the bundled prompts
    /// [default: the run's]
    #[arg(long, value_name = "TEXT", help_heading = "Data")]
    prompt: Option<String>,
    /// The teacher's English prompt [default: the run's]
    #[arg(long, value_name = "TEXT", help_heading = "Data")]
    english_prompt: Option<String>,

    /// CLIP folder with the image tower [default: the run's teacher]
    #[arg(long, value_name = "DIR", help_heading = "Computing")]
    teacher: Option<String>,
    /// Images or captions at once
    #[arg(long, value_name = "N", default_value = "128", value_parser = positive, help_heading = "Computing")]
    #[serde(skip)]
    pub batch_size: usize,
    /// auto, cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "auto", help_heading = "Computing")]
    device: String,
}

impl TestArgs {
    /// The settings given, under the keys of the configuration.
    pub fn settings(&self) -> Result<Table> {
        Table::try_from(self).map_err(|e| Error::usage(e.to_string()).context("cannot use the options"))
    }

    /// Whether `task` is to be measured: all are if none was named.
    pub fn wants(&self, task: Task) -> bool {
        self.task.is_empty() || self.task.contains(&task)
    }
}

/// The options of `themo embed`.
#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// Folder of a run: Spanish texts through its student, images through the
    /// CLIP it was trained on
    #[arg(long, value_name = "DIR", required_unless_present = "model", conflicts_with = "model")]
    pub version_path: Option<PathBuf>,
    /// Folder of a CLIP: its own text and image towers
    #[arg(long, value_name = "DIR")]
    pub model: Option<String>,
    /// One text a line; - reads standard input
    #[arg(long, value_name = "FILE")]
    pub texts: Option<PathBuf>,
    /// Folder of images (sorted by name), or a file with one path a line
    #[arg(long, value_name = "PATH")]
    pub images: Option<PathBuf>,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Give every vector length 1
    #[arg(long)]
    pub normalize: bool,
    /// Images at once
    #[arg(long, value_name = "N", default_value = "128", value_parser = positive)]
    pub batch_size: usize,
    /// auto, cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "auto")]
    pub device: String,
}

fn positive(text: &str) -> Result<usize> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| Error::usage("it must be a whole number, 1 or more"))
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn negated<S: Serializer>(flag: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(!flag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    fn settings(line: &str) -> Table {
        match parse(line).unwrap().command {
            Command::Train(args) => args.settings().unwrap(),
            _ => panic!("not train"),
        }
    }

    #[test]
    fn the_definition_is_sound_and_help_fits_80_columns() {
        Cli::command().debug_assert();
        for line in ["themo --help", "themo train --help", "themo train -h", "themo test --help", "themo embed --help"]
        {
            let help = parse(line).unwrap_err().to_string();
            let wide: Vec<_> = help.lines().filter(|line| line.chars().count() > 80).collect();
            assert!(wide.is_empty(), "{line}: {wide:#?}");
        }
    }

    #[test]
    fn only_given_options_become_settings() {
        assert!(settings("themo train --config a.toml").is_empty());
        let given = settings("themo train --no-shuffle --pairs a --pairs b --learn-rate 8e-5 --batch-size 256 -v");
        let expected = "shuffle = false\npairs = ['a', 'b']\nlearn-rate = 8e-5\nbatch-size = 256";
        assert_eq!(given, expected.parse::<Table>().unwrap());
    }

    #[test]
    fn every_option_is_a_key_of_the_configuration() {
        let train = Cli::command().find_subcommand("train").unwrap().clone();
        let mut line = "themo train".to_owned();
        for arg in train.get_arguments().filter(|arg| arg.get_id() != "config") {
            let value = match arg.get_id().as_str() {
                "pooling" => " first",
                "dropout" | "learn_rate" => " 0.5",
                "device" => " cpu",
                _ if arg.get_action().takes_values() => " 3",
                _ => "",
            };
            line += &format!(" --{}{value}", arg.get_long().unwrap());
        }
        let given = settings(&line);
        assert_eq!(given.len(), 22, "{line}");
        Config::resolve(None, given).unwrap();
    }

    #[test]
    fn stated_defaults_are_the_defaults() {
        let help = parse("themo train --help").unwrap_err().to_string();
        let words: Vec<_> = help.split_whitespace().collect();
        let flat = words.join(" ");
        let default = Table::try_from(Config::default()).unwrap();
        for (key, value) in &default {
            let value = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Float(_) if key == "learn-rate" => "5e-4".to_owned(),
                toml::Value::Integer(n) => n.to_string(),
                _ => continue,
            };
            // The option's part of the help ends where the next option begins.
            if let Some((_, part)) = flat.split_once(&format!("--{key} <")) {
                let part = part.split(" --").next().unwrap();
                assert!(part.contains(&format!("[default: {value}]")), "{key}: {part}");
            }
        }
        assert_eq!(Config::default().learn_rate, 5e-4);
    }

    #[test]
    fn tests_default_to_both_tasks() {
        let wants = |line: &str| match parse(line).unwrap().command {
            Command::Test(args) => [Task::Retrieval, Task::Classification].map(|task| args.wants(task)),
            _ => panic!("not test"),
        };
        assert_eq!(wants("themo test --version-path a"), [true, true]);
        assert_eq!(wants("themo test --version-path a --task retrieval"), [true, false]);
        assert_eq!(wants("themo test --version-path a --task retrieval --task classification"), [true, true]);
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in [
            "themo test",
            "themo test --version-path a --batch-size 0",
            "themo test --version-path a --task x",
            "themo train --pooling max",
            "themo train --batch-size x",
            "themo train --seed 9223372036854775808",
            "themo train -q -v",
            "themo trian",
            "themo",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(parse("themo --version").unwrap_err().exit_code(), 0);
        assert_eq!(parse("themo train -vv").unwrap().verbosity(), 2);
        assert_eq!(parse("themo -q train").unwrap().verbosity(), -1);
    }
}

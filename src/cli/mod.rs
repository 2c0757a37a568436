//! The command line: definitions only. Arguments become settings in `commands`.

mod data;
mod embed;
mod export;
mod generate;
mod recipe;
mod runs;
mod test;
mod train;

pub use data::{DataArgs, DataCommand};
pub use embed::EmbedArgs;
pub use export::{ExportArgs, ExportFor};
pub use generate::{GenerateArgs, Generated};
pub use runs::{CompareArgs, OutputFormat, RunsArgs, RunsCommand};
pub use test::{Benchmark, TestArgs};
pub use train::TrainArgs;

use clap::{ArgAction, Parser, Subcommand};

use crate::error::{Error, Result};

/// Teaches a Spanish BERT to speak CLIP, and measures how well it does.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 80, args_override_self = true, after_help = EXAMPLES)]
pub struct Cli {
    /// What is to be done
    #[command(subcommand)]
    pub command: Command,
    /// Only warnings and errors, no progress
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Logging")]
    pub quiet: bool,
    /// More detail; twice for even more
    ///
    /// Without it, the environment variable RUST_LOG decides.
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Logging")]
    pub verbose: u8,
}

impl Cli {
    /// -1 for `-q`, else the number of `-v`.
    pub fn verbosity(&self) -> i8 {
        if self.quiet { -1 } else { self.verbose.min(2) as i8 }
    }
}

/// The subcommands, each with its arguments
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a student on the teacher's text space
    ///
    /// The student, a Spanish BERT with a projection, learns to give a Spanish caption the vector that the teacher, CLIP's
    /// text tower, gives its English translation. The run is written to LOG_DIR/NAME/version_N; Ctrl-C stops it, and
    /// --resume continues it.
    ///
    /// Every setting of the run is also a key of the --config file, without the dashes (`batch-size = 256`; --no-shuffle is
    /// `shuffle = false`). Options take precedence over the file, and the file over the defaults. The run folder keeps the
    /// result in config.toml.
    #[command(args_override_self = true, after_help = train::EXAMPLES)]
    Train(Box<TrainArgs>),
    /// Measure a trained student: retrieval and zero-shot classification
    ///
    /// Retrieval is recall@k between the Spanish captions of XTD10 and MSCOCO images, both ways. Classification is
    /// accuracy@k of zero-shot ImageNet with Spanish class names. Ties count against the model. The results are printed,
    /// and written to the folder eval of the run. Settings that are not given are those of the run.
    #[command(args_override_self = true, after_help = test::EXAMPLES)]
    Test(TestArgs),
    /// Write the vectors of texts and images to a file
    ///
    /// The safetensors file holds `text_embeds` [texts, dim] and `image_embeds` [images, dim], in f32 and in the order of
    /// the input; its metadata key `image_names` is a JSON list of the images.
    #[command(args_override_self = true, after_help = embed::EXAMPLES)]
    Embed(EmbedArgs),
    /// Write a trained student as a folder that other programs load
    ///
    /// The folder holds weights, tokenizer, and a model card with the figures of `themo test`. Nothing is uploaded.
    #[command(args_override_self = true, after_help = export::EXAMPLES)]
    Export(ExportArgs),
    /// List, fetch and check the data sets to train on
    ///
    /// The table of known data sets is bundled; DATA_DIR/datasets.toml, of the same form as configs/datasets.toml, adds to
    /// it. `themo train` fetches what it needs by itself.
    #[command(after_help = data::EXAMPLES)]
    Data(DataArgs),
    /// List runs, newest first
    ///
    /// A run is running, finished, stopped (by Ctrl-C or SIGTERM), interrupted (its process was killed) or failed.
    /// `themo train --resume RUN` continues one that is not finished.
    #[command(after_help = runs::EXAMPLES)]
    Runs(RunsArgs),
    /// Write completion scripts or man pages
    #[command(hide = true)]
    Generate(GenerateArgs),
}

const EXAMPLES: &str = "\
Examples:
  themo train --config configs/demo.toml
  themo test --version-path logs/demo/version_0";

fn positive(text: &str) -> Result<usize> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| Error::usage("it must be a whole number, 1 or more"))
}

/// Whether a flag is not set, so that the configuration does not hold it.
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A flag `--no-x` as the value of `x`.
fn negated<S: serde::Serializer>(flag: &bool, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_bool(!flag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use clap::CommandFactory;
    use toml::Table;

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
        for line in [
            "themo --help",
            "themo train --help",
            "themo train -h",
            "themo test -h",
            "themo embed -h",
            "themo export -h",
            "themo export --help",
            "themo runs -h",
            "themo runs compare --help",
            "themo data -h",
            "themo data fetch --help",
            "themo data check --help",
            "themo test --help",
            "themo embed --help",
            "themo runs --help",
        ] {
            let help = parse(line).unwrap_err().to_string();
            let wide: Vec<_> = help.lines().filter(|line| line.chars().count() > 80).collect();
            assert!(wide.is_empty(), "{line}: {wide:#?}");
        }
    }

    #[test]
    fn the_long_help_says_more() {
        for command in ["train", "test", "embed", "export", "runs", "data"] {
            let words = |flag: &str| {
                let help = parse(&format!("themo {command} {flag}")).unwrap_err().to_string();
                help.split_whitespace().count()
            };
            let (short, long) = (words("-h"), words("--help"));
            assert!(long > short + short / 4, "{command}: {short} and {long} words");
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
        let others = ["config", "resume", "overriding", "fast_dev_run"];
        for arg in train.get_arguments().filter(|arg| !others.contains(&arg.get_id().as_str())) {
            let choices = arg.get_possible_values();
            let value = match arg.get_id().as_str() {
                _ if !arg.get_action().takes_values() => "",
                _ if !choices.is_empty() => choices[0].get_name(),
                "dropout" | "learn_rate" | "layer_decay" | "ema" => "0.5",
                "betas" => "0.8,0.9",
                "loss" => "mse+0.1*clip",
                "device" => "cpu",
                "precision" => "f32",
                "memory_limit" => "8GiB",
                "columns" => "es=a,en=b",
                _ => "3",
            };
            line += &format!(" --{} {value}", arg.get_long().unwrap());
        }
        let given = settings(&line);
        assert_eq!(given.len(), 56, "{line}");
        Config::resolve(None, given).unwrap();
    }

    #[test]
    fn every_choice_of_an_option_is_a_value_of_its_key() {
        let train = Cli::command().find_subcommand("train").unwrap().clone();
        for arg in train.get_arguments().filter(|arg| arg.get_action().takes_values()) {
            for choice in arg.get_possible_values() {
                let line = format!("themo train --{} {}", arg.get_long().unwrap(), choice.get_name());
                Config::resolve(None, settings(&line)).unwrap_or_else(|e| panic!("{line}: {e}"));
            }
        }
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
                toml::Value::Float(x) => x.to_string(),
                toml::Value::Integer(n) => n.to_string(),
                _ => continue,
            };
            // The option's part of the help ends where the next option begins.
            if let Some((_, part)) = flat.split_once(&format!("--{key} <")) {
                let part = part.split(" --").next().unwrap();
                assert!(part.contains(&format!("[default: {value}]")), "{key}: {part}");
            }
        }
        assert_eq!(Config::default().recipe.learn_rate, 5e-4);
    }

    #[test]
    fn tests_default_to_both_tasks() {
        let wants = |line: &str| match parse(line).unwrap().command {
            Command::Test(args) => [Benchmark::Retrieval, Benchmark::Classification].map(|task| args.wants(task)),
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
            "themo data",
            "themo data fetch",
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

//! The README, the guide and the help: every command in them parses, the ones on the demo run, and the prose keeps to the
//! words of the field. Also the files that `themo generate` makes from the same definitions.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use themo::cli::Cli;

/// The README first: its commands make the run that the guide's examples use.
const DOCUMENTS: [&str; 10] = [
    "README.md",
    "src/guide/data.md",
    "src/guide/training.md",
    "src/guide/runs.md",
    "src/guide/evaluation.md",
    "src/guide/export.md",
    "src/guide/recipes.md",
    "src/guide/performance.md",
    "src/guide/formats.md",
    ".github/CONTRIBUTING.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|e| panic!("{document}: {e}"))
}

/// A code block, or a stretch of text between two of them.
struct Part {
    /// What follows the fence, such as `sh demo`; none for text.
    info: Option<String>,
    /// Of the first line, counted from 1.
    line: usize,
    text: String,
}

/// A document cut at its fences; blocks in lists lose their indentation.
fn parts(document: &str) -> Vec<Part> {
    let mut parts = vec![Part { info: None, line: 1, text: String::new() }];
    for (number, line) in document.lines().enumerate() {
        let is_code = parts.last().is_some_and(|part| part.info.is_some());
        if let Some(info) = line.trim_start().strip_prefix("```") {
            let info = (!is_code).then(|| info.trim().to_owned());
            parts.push(Part { info, line: number + 2, text: String::new() });
        } else if let Some(part) = parts.last_mut() {
            part.text += &format!("{}\n", if is_code { line.trim_start() } else { line });
        }
    }
    assert!(parts.last().is_some_and(|part| part.info.is_none()), "a code block is not closed");
    parts
}

/// The simple commands of a script, each as its words, as a shell cuts them: quotes, escapes, comments, continued lines.
fn commands(script: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut chars = script.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                while let Some(inner) = chars.next().filter(|inner| *inner != c) {
                    word.push(if (c, inner) == ('"', '\\') {
                        chars.next().expect("an escaped character")
                    } else {
                        inner
                    });
                }
            }
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            c if c.is_whitespace() || "|&;<>".contains(c) => {
                words.extend(word.take());
                if c != ' ' && c != '\t' && !words.is_empty() {
                    commands.push(std::mem::take(&mut words));
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    commands.extend((!words.is_empty()).then_some(words));
    commands
}

/// The arguments with which a command calls themo, if it does, `themo` in front.
fn call(mut words: &[String]) -> Option<Vec<String>> {
    let is_variable = |word: &String| word.split_once('=').is_some_and(|(name, _)| !name.starts_with('-'));
    while words.first().is_some_and(is_variable) {
        words = &words[1..];
    }
    let rest = match words {
        [themo, rest @ ..] if themo == "themo" => rest,
        [cargo, run, rest @ ..] if cargo == "cargo" && run == "run" => {
            &rest[rest.iter().position(|word| word == "--")? + 1..]
        }
        _ => return None,
    };
    Some([&["themo".to_owned()], rest].concat())
}

/// Fails if themo would refuse `words`.
fn parse(words: &[String], place: &str) {
    if let Err(error) = Cli::try_parse_from(words) {
        let shows = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
        assert!(shows.contains(&error.kind()), "{place}: {}\n{error}", words.join(" "));
    }
}

#[test]
fn scripts_are_cut_as_a_shell_cuts_them() {
    let script = "A=1 themo test \\\n  --prompt \"una \\\"foto\\\" de {}\" # --no\necho 'a b'|themo embed --texts - > f; cargo run --release -- runs\n";
    let expected: [&[&str]; 5] = [
        &["A=1", "themo", "test", "--prompt", "una \"foto\" de {}"],
        &["echo", "a b"],
        &["themo", "embed", "--texts", "-"],
        &["f"],
        &["cargo", "run", "--release", "--", "runs"],
    ];
    let found = commands(script);
    assert_eq!(found, expected);
    let calls: Vec<_> = found.iter().filter_map(|words| call(words)).map(|words| words[1].clone()).collect();
    assert_eq!(calls, ["test", "embed", "runs"]);
}

#[test]
fn every_command_of_readme_and_guide_parses() {
    let mut seen = 0;
    for document in DOCUMENTS {
        for part in parts(&read(document)) {
            match part.info.as_deref() {
                Some("sh" | "sh demo") => {}
                Some("text" | "toml" | "mermaid" | "python") | None => continue,
                Some(other) => panic!("{document}:{}: a block is marked `{other}`", part.line),
            }
            for words in commands(&part.text).iter().filter_map(|words| call(words)) {
                parse(&words, &format!("{document}:{}", part.line));
                seen += 1;
            }
        }
    }
    assert!(seen >= 40, "{seen} commands");
}

#[test]
fn every_option_that_the_text_names_exists() {
    let cli = Cli::command();
    let below = cli.get_subcommands().flat_map(clap::Command::get_subcommands);
    let all = std::iter::once(&cli).chain(cli.get_subcommands()).chain(below).flat_map(clap::Command::get_arguments);
    let mut options: HashSet<&str> = all.filter_map(clap::Arg::get_long).collect();
    options.extend(["help", "version", "features", "release"]); // the last two are cargo's
    let mut seen = 0;
    for document in DOCUMENTS {
        for part in parts(&read(document)).iter().filter(|part| part.info.is_none()) {
            for span in part.text.split('`').skip(1).step_by(2) {
                let found = commands(span);
                let is_of = |program: &str| found.first().is_some_and(|words| words[0] == program);
                if ["cargo", "python3", "git"].into_iter().any(is_of) {
                    continue;
                }
                for word in found.iter().flatten() {
                    let Some(name) = word.strip_prefix("--") else { continue };
                    let name = name.split('=').next().unwrap_or(name);
                    assert!(options.contains(name), "{document}: no option --{name} in `{span}`");
                    seen += 1;
                }
            }
        }
    }
    assert!(seen >= 60, "{seen} options");
}

#[test]
fn links_and_paths_lead_to_files() {
    let mut seen = 0;
    for document in DOCUMENTS {
        for part in parts(&read(document)).iter().filter(|part| part.info.is_none()) {
            let inline = part.text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            let definitions = part.text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
            for link in inline.chain(definitions.map(|(_, link)| link)).filter(|link| !link.starts_with("https://")) {
                let folder = root().join(document).parent().unwrap().to_owned();
                assert!(folder.join(link).exists(), "{document}: {link}");
                seen += 1;
            }
            let is_source = |span: &&str| ["src/", "tests/", ".ci/"].iter().any(|folder| span.starts_with(folder));
            for span in part.text.split('`').skip(1).step_by(2).filter(is_source).filter(|span| !span.contains("NAME"))
            {
                let is_pattern = span.contains(|c: char| "*[{<".contains(c) || c.is_whitespace());
                assert!(is_pattern || root().join(span).exists(), "{document}: {span}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 60, "{seen} links");
}

#[test]
fn every_example_of_the_help_parses() {
    let mut cli = Cli::command();
    for name in ["train", "test", "embed", "export", "data", "runs"] {
        let help = cli.find_subcommand_mut(name).unwrap().get_after_help().unwrap().to_string();
        let found = commands(&help);
        let calls: Vec<_> = found.iter().filter_map(|words| call(words)).collect();
        assert!(!calls.is_empty(), "{name}");
        calls.iter().for_each(|words| parse(words, &format!("themo {name} --help")));
    }
}

#[test]
fn the_readme_is_a_page() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 130, "{lines} lines");
}

#[test]
fn text_and_help_keep_to_the_words_of_the_field() {
    let mut cli = Cli::command();
    let mut texts: Vec<(String, String)> = DOCUMENTS.iter().map(|name| (name.to_string(), read(name))).collect();
    texts.push(("themo".into(), cli.render_long_help().to_string()));
    for name in ["train", "test", "embed", "export", "data", "runs"] {
        let help = cli.find_subcommand_mut(name).unwrap().render_long_help().to_string();
        texts.push((format!("themo {name}"), help));
    }
    for (place, text) in texts {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        let registry = format!("crates.{}", "io");
        let idioms = ["goes on", "go on", "going on", "told", "of equals", "so many", "not there", "rules", &registry];
        for idiom in idioms {
            let at = text.match_indices(idiom).find(|(at, _)| {
                let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
                !is_letter(text[..*at].chars().next_back()) && !is_letter(text[at + idiom.len()..].chars().next())
            });
            assert!(at.is_none(), "{place}: `{idiom}`");
        }
    }
}

/// Runs the blocks marked `demo` in the order of the documents, in one scratch folder that looks like the repository.
/// Training is cut to a few steps, which the figures do not survive, but everything else does.
#[cfg(unix)]
#[test]
fn the_demo_blocks_run() {
    const PRELUDE: &str = "set -eu
themo() {
    case \" $* \" in
    *' --max-steps '* | *' --fast-dev-run '*) ;;
    *' train '*) set -- \"$@\" --max-steps 4 ;;
    esac
    \"$THEMO\" \"$@\"
}
cargo() {
    shift 3
    themo \"$@\"
}
";
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join("data")).unwrap();
    for shared in ["configs", "tests", "data/demo"] {
        std::os::unix::fs::symlink(root().join(shared), scratch.path().join(shared)).unwrap();
    }
    let mut seen = 0;
    for document in DOCUMENTS {
        for part in parts(&read(document)).iter().filter(|part| part.info.as_deref() == Some("sh demo")) {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{PRELUDE}{}", part.text)]).current_dir(scratch.path());
            command.env("THEMO", env!("CARGO_BIN_EXE_themo"));
            command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", scratch.path().join("hub"));
            let output = command.output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{document}:{}:\n{}{stderr}", part.line, part.text);
            seen += 1;
        }
    }
    assert!(seen >= 15, "{seen} blocks");
    for left in ["logs/demo/version_0/eval/retrieval.json", "out.safetensors", "one.safetensors"] {
        assert!(scratch.path().join(left).exists(), "{left}");
    }
}

fn themo(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_themo")).args(args).output().unwrap()
}

#[test]
fn completions_know_every_option_and_the_command_is_hidden() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = themo(&["generate", "completions", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        for option in ["micro-batch-tokens", "version-path", "texts"] {
            assert!(script.contains(option), "{shell}: {option}");
        }
    }
    assert_eq!(themo(&["generate", "completions", "cmd"]).status.code(), Some(2));
    assert!(!String::from_utf8(themo(&["--help"]).stdout).unwrap().contains("generate"));
}

#[test]
fn man_pages_are_one_for_each_command() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("share/man1");
    let output = themo(&["generate", "man", folder.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut pages: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    let names: Vec<_> = pages.iter().map(|page| page.file_name().unwrap().to_str().unwrap()).collect();
    let commands =
        ["data-check", "data-fetch", "data-list", "data", "embed", "export", "runs-compare", "runs", "test", "train"];
    let mut pages_of: Vec<String> = commands.iter().map(|name| format!("themo-{name}.1")).collect();
    pages_of.push("themo.1".to_owned());
    assert_eq!(names, pages_of);
    let train = fs::read_to_string(folder.join("themo-train.1")).unwrap();
    let cli = Cli::command();
    for option in cli.find_subcommand("train").unwrap().get_arguments().filter_map(clap::Arg::get_long) {
        assert!(train.contains(&format!("--{option}").replace('-', "\\-")), "{option}");
    }

    // A file where the folder should be.
    let output = themo(&["generate", "man", folder.join("themo.1").to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("themo.1") && stderr.contains("hint: "), "{stderr}");
}

//! A whole training run: resolve the request, prepare the models, train, report.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Table;

use super::loss::Objective;
use super::pairs::Loaded;
use super::teacher::{STOPPED, Teacher, key_of_files};
use super::trainer::RecallMeasure;
use super::{Dataset, Setup, Start, Summary, Trainer, memory, pairs, probe};
use crate::cache::Key;
use crate::compute::Compute;
use crate::compute::device;
use crate::config::Config;
use crate::config::recipe::Recipe;
use crate::data::PairSet;
use crate::data::tokens::TextTokenizer;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::fs::{quoted, write_atomic, write_json};
use crate::hub::Part;
use crate::models::clip::ClipConfig;
use crate::models::clip_text::text_projection;
use crate::models::student::Head;
use crate::models::{Student, TokenizerFacts};
use crate::record::environment::describe;
use crate::record::hparams::Hparams;
use crate::runs::checkpoint::find_best;
use crate::runs::folder::ENVIRONMENT;
use crate::runs::resume::{self, Resumed};
use crate::runs::status::{RunState, Status};
use crate::runs::{Journal, RunDir, State};
use crate::signals::Signals;
use crate::ui::{log_file, model_folder};

/// What `themo train` was asked to do.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Settings of the configuration given now.
    pub settings: Table,
    /// A TOML file of further settings.
    pub config: Option<PathBuf>,
    /// The folder of a run to resume.
    pub resume: Option<PathBuf>,
    /// Allow some settings to differ from those of the resumed run.
    pub overriding: bool,
    /// Process one batch of everything and write no run.
    pub fast_dev_run: bool,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The message for the user.
    pub text: String,
    /// 0, or what the signal that stopped the run asks for.
    pub exit_code: u8,
}

/// Trains a student according to `request`.
pub fn run(request: &Request) -> Result<Ended> {
    let (mut config, resumed) = match resolve(request)? {
        Resolved::Done(text) => return Ok(Ended { text, exit_code: 0 }),
        Resolved::Work(work) => *work,
    };
    let plan = Plan::prepare(&mut config, resumed.as_ref(), request.fast_dev_run)?;
    resumed.as_ref().map_or(Ok(()), Resumed::keep_settings)?;
    let signals = Signals::watch()?;
    // Before the teacher's long work, so that a folder that cannot be written is found out now.
    let is_new = resumed.is_none();
    let run = match resumed {
        _ if request.fast_dev_run => None,
        Some(resumed) => Some(resumed.run),
        None => Some(RunDir::create(Path::new(&config.run.log_dir), &config.run.name, &config.to_toml()?)?),
    };
    let train = || plan.train(&config, run.as_ref(), &|| signals.exit_code().is_some());
    let (text, stopped) = in_folder(run.as_ref(), is_new, config.recipe.monitor.name(), train)?;
    log_file::note(&text);
    Ok(Ended { text, exit_code: signals.exit_code().filter(|_| stopped).unwrap_or(0) })
}

/// Trains, and keeps the status of the run in its folder. Removes a new folder if training left nothing in it.
fn in_folder(
    run: Option<&RunDir>, is_new: bool, monitor: &str, train: impl FnOnce() -> Result<Summary>,
) -> Result<(String, bool)> {
    let ended = run.map(Status::begin).transpose().and_then(|status| report(train(), monitor, run, status));
    if ended.is_err() && is_new {
        run.inspect(|run| run.discard_if_unused());
    }
    ended
}

/// What a request means.
enum Resolved {
    /// The run to resume has ended.
    Done(String),
    Work(Box<(Config, Option<Resumed>)>),
}

fn resolve(request: &Request) -> Result<Resolved> {
    let settings = request.settings.clone();
    let (mut config, resumed) = match &request.resume {
        Some(path) => {
            let (config, resumed) = resume::open(path, settings, request.overriding)?;
            if let Some(done) = resumed.finished(&config) {
                Status::set_finished(&resumed.run);
                return Ok(Resolved::Done(done));
            }
            (config, Some(resumed))
        }
        None if request.overriding => {
            return Err(Error::usage("--override is for --resume").hint("a new run takes all options as they are"));
        }
        None => (Config::resolve(request.config.as_deref(), settings)?, None),
    };
    if request.fast_dev_run {
        (config.limits.max_epochs, config.limits.max_steps) = (1, Some(1));
    }
    Ok(Resolved::Work(Box::new((config, resumed))))
}

/// All that a training needs, found and checked before its long work.
struct Plan {
    compute: Compute,
    student_dir: PathBuf,
    teacher_dir: PathBuf,
    teacher_key: Key,
    student: Student,
    objective: Objective,
    tokenizer: TextTokenizer,
    train_pairs: PairSet,
    val_pairs: Option<PairSet>,
    pairs_report: pairs::Report,
    state: State,
    checkpoint: Option<PathBuf>,
}

impl Plan {
    /// Reads the pairs, finds the models and loads the student; settles how many tokens a micro-batch has.
    fn prepare(config: &mut Config, resumed: Option<&Resumed>, one_batch: bool) -> Result<Self> {
        let compute = Compute::with_precision(device::select(&config.run.device)?, config.run.precision)?;
        // Before any model is fetched.
        let Loaded { train: train_pairs, val: val_pairs, report: pairs_report } = pairs::load(config, one_batch)?;
        probe::check(config, val_pairs.is_some())?;
        let checkpoint = resumed.and_then(|resumed| resumed.checkpoint.clone());
        let text_tower = [Part::Weights, Part::Tokenizer];
        let student_dir = match &checkpoint {
            Some(folder) => folder.clone(),
            None => model_folder("--student", &config.models.student, &text_tower)?,
        };
        let teacher_dir = model_folder("--teacher", &config.models.teacher, &text_tower)?;
        let teacher_key = key_of_files(&teacher_dir, &config.data.cache_dir)?;
        let (fingerprint, inputs) = (
            train_pairs.fingerprint(),
            BTreeMap::from([
                ("the validation pairs".to_owned(), val_pairs.as_ref().map(PairSet::fingerprint).unwrap_or_default()),
                ("the teacher's files".to_owned(), teacher_key.name()),
                ("the files of the probe".to_owned(), probe::fingerprint(config)?),
            ]),
        );
        let state = match resumed {
            Some(resumed) => resumed.state(config.run.seed, fingerprint, inputs)?,
            None => State::new(config.run.seed, fingerprint, inputs),
        };
        let student = load_student(config, &student_dir, &teacher_dir, &compute)
            .map_err(|e| checkpoint.iter().fold(e, |e, folder| resume::unreadable(e, folder)))?;
        let objective = Objective::new(&config.recipe, || text_projection(&teacher_dir, &compute.device))?;
        if train_pairs.len() == 1 && objective.needs_whole_batch() {
            return Err(Error::usage("there is one training pair, and the losses similarity and clip compare pairs")
                .hint("give more pairs, or --loss mse"));
        }
        config.limits.micro_batch_tokens = memory::micro_batch_tokens(config, &student)?;
        let tokenizer = TextTokenizer::from_folder(&student_dir, config.data.max_sequence_length)?;
        tracing::info!(
            "student {} ({:.1} M parameters), teacher {}, {} training and {} validation pairs, on {}",
            config.models.student,
            student.params().elements() as f64 / 1e6,
            config.models.teacher,
            train_pairs.len(),
            val_pairs.as_ref().map_or(0, PairSet::len),
            if compute.device.is_cpu() {
                format!("cpu, {} threads", rayon::current_num_threads())
            } else {
                config.run.device.clone()
            },
        );
        Ok(Self {
            compute,
            student_dir,
            teacher_dir,
            teacher_key,
            student,
            objective,
            tokenizer,
            train_pairs,
            val_pairs,
            pairs_report,
            state,
            checkpoint,
        })
    }

    /// Computes the teacher's features where they are missing, and trains.
    fn train(self, config: &Config, run: Option<&RunDir>, should_stop: &dyn Fn() -> bool) -> Result<Summary> {
        let Self { compute, teacher_dir, teacher_key, student, objective, tokenizer, state, .. } = self;
        let mut journal = match run {
            Some(run) => {
                let hparams = introduce(run, config, &compute, &self.pairs_report)?;
                let facts = TokenizerFacts { padding: tokenizer.padding(), class: Some(tokenizer.class()) };
                Journal::open(run, (&self.student_dir, facts), config, &hparams, &state)?
            }
            None => Journal::none(),
        };
        let teacher =
            RefCell::new(Teacher::new(&teacher_dir, teacher_key, &config.data.cache_dir, &compute, should_stop)?);
        let train = Dataset::new(self.train_pairs, &tokenizer, &teacher);
        let val = self.val_pairs.map(|pairs| Dataset::new(pairs, &tokenizer, &teacher));
        if config.data.features_first {
            [Some(&train), val.as_ref()].into_iter().flatten().try_for_each(Dataset::compute_features)?;
        }
        let projection = || text_projection(&teacher_dir, &compute.device);
        let probe = probe::load(config, val.as_ref(), &tokenizer, &teacher, projection)?;
        let recall = probe.as_ref().map(|probe| |student: &Student| probe.recall_at_1(student, should_stop));
        let recall = recall.as_ref().map(|recall| recall as &RecallMeasure);
        let setup = Setup { student: &student, objective: &objective, train: &train, val: val.as_ref(), recall };
        let start = Start { state, checkpoint: self.checkpoint };
        let fitted = Trainer::new(config, setup, start, &mut journal, should_stop).and_then(Trainer::run);
        let stopped = fitted.as_ref().is_ok_and(|summary| summary.stopped);
        let finished = journal.finish((!stopped).then_some(fitted.is_ok()));
        let summary = fitted?;
        finished.map(|()| summary)
    }
}

/// The student that `config` asks for, with a head of the teacher's width.
fn load_student(config: &Config, folder: &Path, teacher: &Path, compute: &Compute) -> Result<Student> {
    let dim = ClipConfig::from_folder(teacher)?.text()?.hidden_size;
    let Recipe { projection_bias, final_norm, init, .. } = config.recipe;
    let head = Head { pooling: config.models.pooling, dim, projection_bias, final_norm, init };
    let mut student = Student::load(folder, head, config.run.seed, compute)
        .hint(|| "--student takes the folder of a BERT, or a checkpoint folder of a themo run")?;
    student.freeze(config.recipe.freeze_layers)?;
    let most = student.config().max_tokens();
    if config.data.max_sequence_length > most {
        return Err(Error::usage(format!(
            "--max-sequence-length {} is more than the student's {most} positions",
            config.data.max_sequence_length
        ))
        .hint(format!("use at most {most}")));
    }
    Ok(student)
}

/// Writes to the run's folder how it ended; returns the message for the user, and whether the run was stopped.
fn report(
    trained: Result<Summary>, monitor: &str, run: Option<&RunDir>, status: Option<Status>,
) -> Result<(String, bool)> {
    let stopped = match &trained {
        Ok(summary) => summary.stopped,
        Err(error) => error.kind() == Kind::Stopped,
    };
    let ended = match &trained {
        _ if stopped => RunState::Stopped,
        Ok(_) => RunState::Finished,
        Err(_) => RunState::Failed,
    };
    if let (Some(run), Some(status)) = (run, status) {
        status.end(run, ended, trained.as_ref().err().filter(|_| !stopped).map(Error::to_string));
    }
    let text = match trained {
        Ok(summary) => ending(&summary, monitor, run),
        Err(_) if stopped => how_to_resume(STOPPED.to_owned(), run),
        Err(error) => return Err(error),
    };
    Ok((text, stopped))
}

/// Starts the log of a run and writes its hyper-parameters, its environment and where its pairs come from.
fn introduce(run: &RunDir, config: &Config, compute: &Compute, pairs: &pairs::Report) -> Result<Hparams> {
    log_file::open(&run.log())?;
    let hparams =
        Hparams::new(&Table::try_from(config).map_err(|e| Error::new(e.to_string()))?, config.recipe.monitor.name());
    write_atomic(&run.path().join("hparams.yaml"), hparams.to_yaml().as_bytes())?;
    let operations = format!("{:?}", compute.backend).to_lowercase();
    let folder = run.started_in().or_else(|| std::env::current_dir().ok());
    let device = format!("{:?}", compute.device.location()).to_lowercase();
    write_json(&run.path().join(ENVIRONMENT), &describe(&device, &operations, folder.as_deref()))?;
    write_json(&run.path().join("pairs.json"), pairs)?;
    Ok(hparams)
}

/// The message at the end of a run, or when it was stopped.
fn ending(summary: &Summary, monitor: &str, run: Option<&RunDir>) -> String {
    let Summary { epochs, steps, training_secs, .. } = summary;
    let figures = format!("({epochs} epochs, {steps} steps, {training_secs:.1} s of training)");
    if summary.stopped {
        return how_to_resume(format!("stopped {figures}"), run);
    }
    let done = match summary.best {
        Some(best) => format!("best {monitor} {best:.4} {figures}"),
        None if *steps > 0 => format!("no epoch has ended {figures}"),
        None => "not trained: 0 epochs".to_owned(),
    };
    let Some(run) = run else {
        return format!("{done}\nno run folder was written; the teacher's features stay in the cache");
    };
    let checkpoint = match find_best(&run.checkpoints()) {
        Ok(path) => path.display().to_string(),
        Err(error) => format!("not found: {error}"),
    };
    let (run, quoted) = (run.path().display(), quoted(run.path()));
    format!(
        "{done}\n\
         run folder      {run}\n\
         checkpoint      {checkpoint}\n\
         test it with    themo test --version-path {quoted}\n\
         from source     cargo run --release -- test --version-path {quoted}"
    )
}

fn how_to_resume(stopped: String, run: Option<&RunDir>) -> String {
    match run.map(RunDir::path) {
        Some(run) => {
            let (run, quoted) = (run.display(), quoted(run));
            format!("{stopped}\nrun folder      {run}\nresume it with  themo train --resume {quoted}")
        }
        None => stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary { best: Some(0.5), epochs: 1, steps: 2, training_secs: 3.0, stopped: false }
    }

    #[test]
    fn a_new_run_whose_status_cannot_be_written_leaves_no_folder() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        for (is_new, stays) in [(true, false), (false, true)] {
            let run = RunDir::create(&logs, "a", "").unwrap();
            // A folder in the place of the file fails the write, as a full disk does.
            std::fs::create_dir_all(run.status().join("in the way")).unwrap();
            let error = in_folder(Some(&run), is_new, "train/loss", || unreachable!()).unwrap_err();
            assert!(error.to_string().contains("status.json"), "{error}");
            assert_eq!((run.path().exists(), logs.exists()), (stays, stays), "{error}");
        }
    }

    #[test]
    fn a_checkpoint_that_cannot_be_found_is_not_taken_for_a_run_without_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), "a", "").unwrap();
        let text = ending(&summary(), "train/loss", Some(&run));
        assert!(text.contains("not found: no checkpoint in") && !text.contains("no run folder"), "{text}");
        assert!(ending(&summary(), "train/loss", None).contains("no run folder was written"));
    }
}

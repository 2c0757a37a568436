//! `themo train`.

use std::path::{Path, PathBuf};

use toml::Table;

use crate::cli::TrainArgs;
use crate::config::Config;
use crate::config::recipe::Recipe;
use crate::data::pairs::{self, Pair};
use crate::data::targets::{Key, Targets};
use crate::data::tokens::{TextTokenizer, cut_by_tokens};
use crate::data::wit;
use crate::device;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::fs::write_atomic;
use crate::hub::Part;
use crate::models::clip::ClipConfig;
use crate::models::clip_text::text_projection;
use crate::models::student::Head;
use crate::models::weight_file::model_files;
use crate::models::{ClipText, Student, TokenizerFacts};
use crate::nn::{Backend, Compute, Tokens};
use crate::record::environment::describe;
use crate::record::hparams::Hparams;
use crate::runs::RunDir;
use crate::runs::resume;
use crate::runs::status::{RunState, Status};
use crate::runs::{Journal, State};
use crate::signals::Signals;
use crate::train::loss::Objective;
use crate::train::probe;
use crate::train::trainer::Measure;
use crate::train::{Dataset, Start, Summary, Task, Trainer, memory};
use crate::ui::console::{print, progress};
use crate::ui::log_file;
use crate::ui::model_folder;

/// Captions embedded by the teacher between two writes to the cache.
const TEACHER_TOKENS: usize = 4096;

/// Trains a student and prints where it is and how to test it; returns the exit code.
pub fn run(args: &TrainArgs) -> Result<u8> {
    let (mut config, resumed) = match &args.resume {
        Some(path) => {
            let (config, resumed) = resume::open(path, args.settings()?, args.overriding)?;
            if let Some(done) = resumed.finished(&config) {
                return print(done).map(|()| 0);
            }
            (config, Some(resumed))
        }
        None if args.overriding => {
            return Err(Error::usage("--override is for --resume").hint("a new run takes all options as they are"));
        }
        None => (Config::resolve(args.config.as_deref(), args.settings()?)?, None),
    };
    if args.fast_dev_run {
        (config.max_epochs, config.max_steps) = (1, Some(1));
    }
    let compute = Compute::with_precision(device::select(&config.device)?, config.precision)?;
    // Before any model is fetched.
    let (train_pairs, val_pairs) = load_pairs(&config, args.fast_dev_run)?;
    probe::check(&config, !val_pairs.is_empty())?;
    let checkpoint = resumed.as_ref().and_then(|resumed| resumed.checkpoint.clone());
    let text_tower = [Part::Weights, Part::Tokenizer];
    let student_dir = match &checkpoint {
        Some(folder) => folder.clone(),
        None => model_folder("--student", &config.student, &text_tower)?,
    };
    let teacher_dir = model_folder("--teacher", &config.teacher, &text_tower)?;
    let state = match &resumed {
        Some(resumed) => resumed.state(config.seed, identify(&train_pairs))?,
        None => State::new(config.seed, identify(&train_pairs)),
    };

    let dim = ClipConfig::from_folder(&teacher_dir)?.text()?.hidden_size;
    let Recipe { projection_bias, final_norm, init, .. } = config.recipe;
    let head = Head { pooling: config.pooling, dim, projection_bias, final_norm, init };
    let mut student = Student::load(&student_dir, head, config.seed, &compute)
        .hint(|| "--student takes the folder of a BERT, or a checkpoint folder of a themo run")?;
    student.freeze(config.recipe.freeze_layers)?;
    let objective = Objective::new(&config.recipe, || text_projection(&teacher_dir, &compute.device))?;
    config.micro_batch_tokens = memory::micro_batch_tokens(&config, &student)?;
    let most = student.config().max_tokens();
    if config.max_sequence_length > most {
        return Err(Error::usage(format!(
            "--max-sequence-length {} is more than the student's {most} positions",
            config.max_sequence_length
        ))
        .hint(format!("use at most {most}")));
    }
    let tokenizer = TextTokenizer::from_folder(&student_dir, config.max_sequence_length)?;
    tracing::info!(
        "student {} ({:.1} M parameters), teacher {}, {} training and {} validation pairs, on {}",
        config.student,
        student.params().elements() as f64 / 1e6,
        config.teacher,
        train_pairs.len(),
        val_pairs.len(),
        if compute.device.is_cpu() {
            format!("cpu, {} threads", rayon::current_num_threads())
        } else {
            config.device.clone()
        },
    );

    // Before the teacher's long work, so that a folder that cannot be written is found out now.
    let is_new = resumed.is_none();
    let run = match resumed {
        _ if args.fast_dev_run => None,
        Some(resumed) => Some(resumed.run),
        None => Some(RunDir::create(Path::new(&config.log_dir), &config.name, &config.to_toml()?)?),
    };
    let signals = Signals::watch()?;
    let status = run.as_ref().map(Status::begin).transpose()?;
    let train = || -> Result<Summary> {
        let mut journal = match &run {
            Some(run) => {
                let hparams = introduce(run, &config, &compute)?;
                let facts = TokenizerFacts { padding: tokenizer.padding(), class: Some(tokenizer.class()) };
                Journal::open(run, (&student_dir, facts), &config, &hparams, &state)?
            }
            None => Journal::none(),
        };
        let key = Key::of_files(&model_files(&teacher_dir)?)?.in_bf16(compute.backend == Backend::Bf16);
        let mut teacher = Teacher { dir: &teacher_dir, compute: &compute, key, loaded: None, signals: &signals };
        let train = dataset(&config, train_pairs, &tokenizer, &mut teacher)?;
        let val = match val_pairs.is_empty() {
            true => None,
            false => Some(dataset(&config, val_pairs, &tokenizer, &mut teacher)?),
        };
        let projection = || text_projection(&teacher_dir, &compute.device);
        let probe = probe::load(&config, val.as_ref(), &tokenizer, &teacher_dir, &teacher.key, &compute, projection)?;
        drop(teacher);
        let recall = probe.as_ref().map(|probe| |student: &Student| probe.recall_at_1(student));
        let should_stop = || signals.exit_code().is_some();
        let task = Task {
            student: &student,
            objective: &objective,
            train: &train,
            val: val.as_ref(),
            recall: recall.as_ref().map(|recall| recall as &Measure),
        };
        let start = Start { state, checkpoint };
        let fitted = Trainer::new(&config, task, start, &mut journal, &should_stop).and_then(Trainer::run);
        let stopped = fitted.as_ref().is_ok_and(|summary| summary.stopped);
        let finished = journal.finish((!stopped).then_some(fitted.is_ok()));
        let summary = fitted?;
        finished.map(|()| summary)
    };
    let trained = train();
    let stopped = match &trained {
        Ok(summary) => summary.stopped,
        Err(error) => error.kind() == Kind::Stopped,
    };
    let ended = match &trained {
        _ if stopped => RunState::Stopped,
        Ok(_) => RunState::Finished,
        Err(_) => RunState::Failed,
    };
    if let (Some(run), Some(status)) = (&run, status) {
        status.end(run, ended, trained.as_ref().err().filter(|_| !stopped).map(Error::to_string));
    }
    let text = match trained {
        Ok(summary) => told(&summary, config.recipe.monitor.name(), run.as_ref()),
        Err(_) if stopped => how_to_go_on(STOPPED.to_owned(), run.as_ref()),
        Err(error) => {
            run.filter(|_| is_new).inspect(RunDir::discard_if_unused);
            return Err(error);
        }
    };
    log_file::note(&text);
    print(text)?;
    Ok(signals.exit_code().filter(|_| stopped).unwrap_or(0))
}

/// Starts the log of a run and writes down its hyper-parameters and where it runs.
fn introduce(run: &RunDir, config: &Config, compute: &Compute) -> Result<Hparams> {
    log_file::open(&run.log())?;
    let hparams =
        Hparams::new(&Table::try_from(config).map_err(|e| Error::new(e.to_string()))?, config.recipe.monitor.name());
    write_atomic(&run.path().join("hparams.yaml"), hparams.to_yaml().as_bytes())?;
    let operations = format!("{:?}", compute.backend).to_lowercase();
    let environment = describe(&format!("{:?}", compute.device.location()).to_lowercase(), &operations);
    write_atomic(&run.path().join("environment.json"), format!("{environment:#}\n").as_bytes())?;
    Ok(hparams)
}

/// What a run that has ended, or was stopped, says.
fn told(summary: &Summary, monitor: &str, run: Option<&RunDir>) -> String {
    let Summary { epochs, steps, training_secs, .. } = summary;
    let figures = format!("({epochs} epochs, {steps} steps, {training_secs:.1} s of training)");
    if summary.stopped {
        return how_to_go_on(format!("stopped {figures}"), run);
    }
    let done = match summary.best {
        Some(best) => format!("best {monitor} {best:.4} {figures}"),
        None => format!("not trained: {epochs} epochs"),
    };
    match (run, &summary.checkpoint) {
        (Some(run), Some(checkpoint)) => {
            let run = run.path().display();
            format!(
                "{done}\n\
                 run folder      {run}\n\
                 checkpoint      {}\n\
                 test it with    themo test --version-path {run}\n\
                 from source     cargo run --release -- test --version-path {run}",
                checkpoint.display()
            )
        }
        _ => format!("{done}\nno run folder was written; the teacher's features stay in the cache"),
    }
}

fn how_to_go_on(stopped: String, run: Option<&RunDir>) -> String {
    match run.map(|run| run.path().display()) {
        Some(run) => format!("{stopped}\nrun folder      {run}\ngo on with      themo train --resume {run}"),
        None => stopped,
    }
}

/// A fingerprint of the training pairs, so that a run is not resumed on others.
fn identify(pairs: &[Pair]) -> String {
    let mut hasher = blake3::Hasher::new();
    for text in pairs.iter().flat_map(|pair| [&pair.es, &pair.en]) {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// The training text, and the validation text (which may be empty); one batch of each for `--fast-dev-run`.
fn load_pairs(config: &Config, one_batch: bool) -> Result<(Vec<Pair>, Vec<Pair>)> {
    let from_files = |files: &[PathBuf]| -> Result<Vec<Pair>> {
        let all = files.iter().map(|file| pairs::read_tsv(file, config.normalize)).collect::<Result<Vec<_>>>()?;
        Ok(all.into_iter().flatten().collect())
    };
    let wit_dir = Path::new(&config.data_dir).join("wit");
    let mut train = if config.pairs.is_empty() {
        wit::read_split(&wit_dir, "train", config.normalize)?
    } else {
        from_files(&config.pairs)?
    };
    let mut val = if !config.val_pairs.is_empty() {
        from_files(&config.val_pairs)?
    } else if config.pairs.is_empty() && wit::has_split(&wit_dir, "val") {
        wit::read_split(&wit_dir, "val", config.normalize)?
    } else {
        tracing::warn!("no validation pairs: val/loss will not be measured (--val-pairs FILE.tsv gives some)");
        Vec::new()
    };
    let most = [
        config.limit_train_pairs,
        config.overfit_batches.map(|batches| batches.saturating_mul(config.batch_size)),
        one_batch.then_some(config.batch_size),
    ];
    most.into_iter().flatten().for_each(|most| train.truncate(most));
    if one_batch {
        val.truncate(config.batch_size);
    }
    Ok((train, val))
}

/// The teacher, loaded only when a feature is missing in the cache.
struct Teacher<'a> {
    dir: &'a Path,
    compute: &'a Compute,
    key: Key,
    loaded: Option<(ClipText, TextTokenizer)>,
    signals: &'a Signals,
}

/// What a run says that a signal ended while the teacher's features were computed.
const STOPPED: &str = "stopped before the first step";

impl Teacher<'_> {
    fn get(&mut self) -> Result<&(ClipText, TextTokenizer)> {
        if self.loaded.is_none() {
            let clip = ClipText::load(self.dir, self.compute).hint(|| "--teacher takes the folder of a CLIP")?;
            let tokenizer = TextTokenizer::from_folder(self.dir, clip.max_tokens())?;
            self.loaded = Some((clip, tokenizer));
        }
        self.loaded.as_ref().ok_or_else(|| Error::new("the teacher is not loaded"))
    }
}

/// Tokens of the Spanish captions and targets of the English ones, from the cache or computed into it.
fn dataset(config: &Config, pairs: Vec<Pair>, tokenizer: &TextTokenizer, teacher: &mut Teacher) -> Result<Dataset> {
    let spanish: Vec<&str> = pairs.iter().map(|p| p.es.as_str()).collect();
    let english: Vec<&str> = pairs.iter().map(|p| p.en.as_str()).collect();
    let key = teacher.key.of_captions(&english);
    let dim = ClipConfig::from_folder(teacher.dir)?.text()?.hidden_size;
    let mut plan = None;
    let targets = Targets::open_or_compute(Path::new(&config.cache_dir), &key, pairs.len(), dim, |start| {
        if teacher.signals.exit_code().is_some() {
            return Err(Error::stopped(STOPPED));
        }
        let (clip, clip_tokenizer) = teacher.get()?;
        if plan.is_none() {
            let mut ids = clip_tokenizer.encode(&english)?;
            ids.iter_mut().try_for_each(|ids| clip.cut(ids))?;
            tracing::info!("computing the teacher's features of {} captions", pairs.len() - start);
            let runs = cut_by_tokens(ids[start..].iter().map(Vec::len), TEACHER_TOKENS).into_iter();
            plan = Some((ids, runs, progress((pairs.len() - start) as u64, "teacher features")));
        }
        let (ids, runs, bar) = plan.as_mut().ok_or_else(|| Error::new("no captions"))?;
        let run = runs.next().ok_or_else(|| Error::new("no captions"))?;
        let features = clip.pooled(&Tokens::pack(&ids[start..start + run.len()], 0)?, None)?;
        bar.inc(run.len() as u64);
        Ok(features.flatten_all()?.to_vec1()?)
    })?;
    if targets.computed == 0 {
        tracing::info!("the teacher's features of {} captions are in the cache", pairs.len());
    }
    Ok(Dataset { tokens: tokenizer.encode(&spanish)?, targets, pairs })
}

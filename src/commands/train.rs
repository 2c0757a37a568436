//! `themo train`.

use std::path::{Path, PathBuf};

use crate::cli::TrainArgs;
use crate::config::Config;
use crate::data::pairs::{self, Pair};
use crate::data::targets::{Key, Targets};
use crate::data::tokens::{TOKENIZER_FILES, TextTokenizer, cut_by_tokens};
use crate::data::wit;
use crate::error::{Error, Result, ResultExt};
use crate::models::clip::ClipConfig;
use crate::models::student::Head;
use crate::models::weights::weight_files;
use crate::models::{ClipText, Student};
use crate::nn::{Compute, Tokens};
use crate::report::Recorder;
use crate::report::console::{print, progress};
use crate::run_dir::{RunDir, write_atomic};
use crate::train::checkpoint::Checkpoints;
use crate::train::{Dataset, Summary, fit};
use crate::{device, hub};

/// Captions embedded by the teacher between two writes to the cache.
const TEACHER_TOKENS: usize = 4096;

/// Trains a student and prints where it is and how to test it.
pub fn run(args: &TrainArgs) -> Result<()> {
    let config = Config::resolve(args.config.as_deref(), args.settings()?)?;
    let compute = Compute::new(device::select(&config.device)?);
    let (student_dir, teacher_dir) = (hub::model_folder(&config.student)?, hub::model_folder(&config.teacher)?);
    let (train_pairs, val_pairs) = load_pairs(&config)?;

    let dim = ClipConfig::from_folder(&teacher_dir)?.text_config.hidden_size;
    let student = Student::load(&student_dir, Head { pooling: config.pooling, dim }, config.seed, &compute)
        .hint(|| "--student takes the folder of a BERT, or a checkpoint folder of a themo run")?;
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
    let run = RunDir::create(Path::new(&config.log_dir), &config.name)?;
    let train_in = |run: &RunDir| -> Result<Summary> {
        write_atomic(&run.config(), config.to_toml()?.as_bytes())?;
        let mut recorder = Recorder::create(run.path(), config.log_speed)?;
        let mut checkpoints = Checkpoints::new(run.checkpoints(), &student_dir)?;
        let key = Key::of_files(&teacher_files(&teacher_dir)?)?;
        let mut teacher = Teacher { dir: &teacher_dir, compute: &compute, key, loaded: None };
        let train = dataset(&config, &train_pairs, &tokenizer, &mut teacher)?;
        let val = match val_pairs.is_empty() {
            true => None,
            false => Some(dataset(&config, &val_pairs, &tokenizer, &mut teacher)?),
        };
        drop(teacher);
        fit(&config, &student, &train, val.as_ref(), &mut checkpoints, &mut recorder)
    };
    let summary = train_in(&run).inspect_err(|_| run.discard_if_unused())?;

    let done = match summary.best_loss {
        Some(loss) => format!(
            "best train/loss {loss:.4} ({} epochs, {} steps, {:.1} s of training)",
            summary.epochs, summary.steps, summary.training_secs
        ),
        None => format!("not trained: {} epochs", summary.epochs),
    };
    let run = run.path().display();
    print(format!(
        "{done}\n\
         run folder      {run}\n\
         checkpoint      {}\n\
         test it with    themo test --version-path {run}\n\
         from source     cargo run --release -- test --version-path {run}",
        summary.checkpoint.display()
    ))
}

/// The training text, and the validation text (which may be empty).
fn load_pairs(config: &Config) -> Result<(Vec<Pair>, Vec<Pair>)> {
    let from_files = |files: &[PathBuf]| -> Result<Vec<Pair>> {
        let all = files.iter().map(|file| pairs::read_tsv(file)).collect::<Result<Vec<_>>>()?;
        Ok(all.into_iter().flatten().collect())
    };
    let wit_dir = Path::new(&config.data_dir).join("wit");
    let train = if config.pairs.is_empty() { wit::read_split(&wit_dir, "train")? } else { from_files(&config.pairs)? };
    let val = if !config.val_pairs.is_empty() {
        from_files(&config.val_pairs)?
    } else if config.pairs.is_empty() && wit::has_split(&wit_dir, "val") {
        wit::read_split(&wit_dir, "val")?
    } else {
        tracing::warn!("no validation pairs: val/loss will not be measured (--val-pairs FILE.tsv gives some)");
        Vec::new()
    };
    Ok((train, val))
}

/// The files on which the teacher's features depend.
fn teacher_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = weight_files(dir)?;
    files.push(dir.join("config.json"));
    files.extend(TOKENIZER_FILES.map(|name| dir.join(name)).into_iter().filter(|path| path.exists()));
    Ok(files)
}

/// The teacher, loaded only when a feature is missing in the cache.
struct Teacher<'a> {
    dir: &'a Path,
    compute: &'a Compute,
    key: Key,
    loaded: Option<(ClipText, TextTokenizer)>,
}

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
fn dataset(config: &Config, pairs: &[Pair], tokenizer: &TextTokenizer, teacher: &mut Teacher) -> Result<Dataset> {
    let spanish: Vec<&str> = pairs.iter().map(|p| p.es.as_str()).collect();
    let english: Vec<&str> = pairs.iter().map(|p| p.en.as_str()).collect();
    let key = teacher.key.of_captions(&english);
    let dim = ClipConfig::from_folder(teacher.dir)?.text_config.hidden_size;
    let mut plan: Option<(Vec<Vec<u32>>, crate::report::console::Progress)> = None;
    let targets = Targets::open_or_compute(Path::new(&config.cache_dir), &key, pairs.len(), dim, |start| {
        let (clip, clip_tokenizer) = teacher.get()?;
        if plan.is_none() {
            let mut ids = clip_tokenizer.encode(&english)?;
            ids.iter_mut().try_for_each(|ids| clip.cut(ids))?;
            tracing::info!("computing the teacher's features of {} captions", pairs.len() - start);
            plan = Some((ids, progress((pairs.len() - start) as u64, "teacher features")));
        }
        let (ids, bar) = plan.as_ref().ok_or_else(|| Error::new("no captions"))?;
        let run = cut_by_tokens(ids[start..].iter().map(Vec::len), TEACHER_TOKENS).swap_remove(0);
        let features = clip.pooled(&Tokens::pack(&ids[start..start + run.len()], 0)?, None)?;
        bar.inc(run.len() as u64);
        Ok(features.flatten_all()?.to_vec1()?)
    })?;
    if targets.computed == 0 {
        tracing::info!("the teacher's features of {} captions are in the cache", pairs.len());
    }
    Ok(Dataset { tokens: tokenizer.encode(&spanish)?, targets })
}

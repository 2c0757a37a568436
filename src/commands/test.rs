//! `themo test`.

use std::path::{Path, PathBuf};

use crate::cli::{Task, TestArgs};
use crate::config::Config;
use crate::data::class_names::{self, ClassName};
use crate::data::imagenet::{self, ImageNet};
use crate::data::tokens::TextTokenizer;
use crate::data::xtd10;
use crate::error::{Error, Result, ResultExt};
use crate::eval::TextEmbedder;
use crate::eval::classification::{ClassificationScores, classify, embed_classes, embed_readable_images};
use crate::eval::images::Embedded;
use crate::eval::report::Report;
use crate::eval::retrieval::{RetrievalScores, embed_all_images, score};
use crate::eval::towers::{StudentTexts, TeacherImages, TeacherTexts};
use crate::models::{ClipText, Student};
use crate::nn::Compute;
use crate::report::console::{print, progress};
use crate::run_dir::RunDir;
use crate::train::checkpoint::find_best;
use crate::{device, hub};

/// Measures a run's student, prints the figures and writes them into the run folder.
pub fn run(args: &TestArgs) -> Result<()> {
    let run = RunDir::open(&args.version_path)?;
    let config = run_config(&run, args.settings()?)?;
    let checkpoint = find_best(&run.checkpoints())?;
    let data_dir = Path::new(&config.data_dir);

    // Everything that may be missing is looked for before a model runs.
    let retrieval =
        if args.wants(Task::Retrieval) { Some(RetrievalData::load(data_dir, args.with_teacher)?) } else { None };
    let classification =
        if args.wants(Task::Classification) { Some(ClassificationData::load(data_dir, &config)?) } else { None };

    let compute = Compute::new(device::select(&config.device)?);
    let teacher_dir = hub::model_folder(&config.teacher)?;
    let student = Student::from_checkpoint(&checkpoint, &compute)?;
    let tokenizer = TextTokenizer::from_folder(&checkpoint, config.max_sequence_length)?;
    let teacher = ClipText::load(&teacher_dir, &compute).hint(|| "--teacher takes the folder of a CLIP")?;
    if student.dim() != teacher.hidden() {
        let (ours, theirs) = (student.dim(), teacher.hidden());
        return Err(Error::new(format!(
            "the student gives vectors of {ours} numbers, the teacher {} takes {theirs}",
            config.teacher
        ))
        .hint("--teacher must be the CLIP that the student was trained on"));
    }
    let teacher_tokenizer = TextTokenizer::from_folder(&teacher_dir, teacher.max_tokens())?;
    let images = TeacherImages::load(&teacher_dir, &compute)?;
    tracing::info!("checkpoint {}, images through {}", checkpoint.display(), config.teacher);

    let retrieval = retrieval.map(|data| data.embed_images(&images, args.batch_size)).transpose()?;
    let classification = classification.map(|data| data.embed_images(&images, args.batch_size)).transpose()?;
    let measure = |texts: &dyn TextEmbedder, language: Language| -> Result<Report> {
        Ok(Report {
            retrieval: retrieval.as_ref().map(|data| data.score(texts, language)).transpose()?,
            classification: classification.as_ref().map(|data| data.score(texts, language)).transpose()?,
            teacher: None,
        })
    };
    let ours = StudentTexts { student: &student, tokenizer: &tokenizer, teacher: &teacher };
    let mut report = measure(&ours, Language::Spanish)?;
    if args.with_teacher {
        let own = TeacherTexts { tokenizer: &teacher_tokenizer, teacher: &teacher };
        report.teacher = Some(Box::new(measure(&own, Language::English)?));
    }

    report.write(&run.eval())?;
    if args.json { print(report.to_json()?) } else { print(format!("{report}\nWritten to {}", run.eval().display())) }
}

/// The configuration of a run, overlaid by the options given now.
pub fn run_config(run: &RunDir, settings: toml::Table) -> Result<Config> {
    if !run.config().exists() {
        return Err(Error::new(format!("{} has no config.toml", run.path().display()))
            .hint("it is written when a run starts and says which teacher it belongs to; test the run's own folder"));
    }
    Config::resolve(Some(&run.config()), settings)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Spanish,
    English,
}

struct RetrievalData {
    spanish: Vec<String>,
    english: Vec<String>, // empty unless the teacher is measured
    image_of: Vec<usize>,
    images: Vec<PathBuf>,
    embedded: Vec<f32>,
}

impl RetrievalData {
    fn load(data_dir: &Path, with_english: bool) -> Result<Self> {
        let set = xtd10::load(data_dir, "es")?;
        let english = if with_english { xtd10::load(data_dir, "en")?.captions } else { Vec::new() };
        let xtd10::Retrieval { captions, images, image_of } = set;
        Ok(Self { spanish: captions, english, image_of, images, embedded: Vec::new() })
    }

    fn embed_images(mut self, tower: &TeacherImages, batch_size: usize) -> Result<Self> {
        let bar = progress(self.images.len() as u64, "retrieval images");
        self.embedded = embed_all_images(&self.images, tower, batch_size, &|done, _| bar.set(done))?;
        Ok(self)
    }

    fn score(&self, texts: &dyn TextEmbedder, language: Language) -> Result<RetrievalScores> {
        let captions = if language == Language::Spanish { &self.spanish } else { &self.english };
        score(&texts.embed_texts(captions)?, &self.embedded, texts.dim(), &self.image_of)
    }
}

struct ClassificationData {
    spanish: Vec<Vec<String>>, // for each template, the prompts of all classes
    english: Vec<Vec<String>>,
    paths: Vec<PathBuf>,
    labels: Vec<Vec<usize>>,
    embedded: Embedded,
}

impl ClassificationData {
    fn load(data_dir: &Path, config: &Config) -> Result<Self> {
        let ImageNet { images, classes } = imagenet::load(data_dir)?;
        let fill = |names: &[ClassName], template: &String| names.iter().map(|name| name.fill(template)).collect();
        let names = class_names::load(config.class_names().as_deref(), &classes)?;
        let templates = class_names::templates(&config.prompt)?;
        let spanish = templates.iter().map(|template| fill(&names, template)).collect::<Result<_>>()?;
        // The original's rule: the first of an English class's names.
        let names: Vec<ClassName> = classes.iter().map(|class| ClassName::plain(&class.names[0])).collect();
        let english = vec![fill(&names, &config.english_prompt)?];
        let (paths, labels) = images.into_iter().unzip();
        let embedded = Embedded { rows: Vec::new(), kept: Vec::new(), failed: Vec::new() };
        Ok(Self { spanish, english, paths, labels, embedded })
    }

    fn embed_images(mut self, tower: &TeacherImages, batch_size: usize) -> Result<Self> {
        let bar = progress(self.paths.len() as u64, "classification images");
        self.embedded = embed_readable_images(&self.paths, tower, batch_size, &|done, _| bar.set(done))?;
        Ok(self)
    }

    fn score(&self, texts: &dyn TextEmbedder, language: Language) -> Result<ClassificationScores> {
        let prompts = if language == Language::Spanish { &self.spanish } else { &self.english };
        classify(&embed_classes(texts, prompts)?, &self.embedded, texts.dim(), &self.labels)
    }
}

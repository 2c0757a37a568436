//! `themo test`.

use std::path::{Path, PathBuf};

use crate::cli::{Task, TestArgs};
use crate::config::Config;
use crate::data::imagenet::{self, ImageNet};
use crate::data::tokens::TextTokenizer;
use crate::data::{Preprocess, xtd10};
use crate::error::{Result, ResultExt};
use crate::eval::TextEmbedder;
use crate::eval::classification::{ClassificationScores, classify, embed_readable_images, fill_prompt};
use crate::eval::images::Embedded;
use crate::eval::report::Report;
use crate::eval::retrieval::{RetrievalScores, embed_all_images, score};
use crate::eval::towers::{StudentTexts, TeacherImages, TeacherTexts};
use crate::models::{ClipText, ClipVision, Student};
use crate::nn::Compute;
use crate::report::console::progress;
use crate::run_dir::RunDir;
use crate::train::checkpoint::find_best;
use crate::{device, hub};

/// Measures a run's student, prints the figures and writes them into the run folder.
pub fn run(args: &TestArgs) -> Result<()> {
    let run = RunDir::open(&args.version_path)?;
    let config = Config::resolve(Some(&run.config()), args.settings()?)?;
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
    let teacher_tokenizer = TextTokenizer::from_folder(&teacher_dir, teacher.max_tokens())?;
    let images = TeacherImages {
        vision: ClipVision::load(&teacher_dir, &compute)?,
        preprocess: Preprocess::from_file(&teacher_dir.join("preprocessor_config.json"))?,
    };
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
    if args.json {
        println!("{}", report.to_json()?);
    } else {
        println!("{report}\nWritten to {}", run.eval().display());
    }
    Ok(())
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
    spanish: Vec<String>,
    english: Vec<String>,
    paths: Vec<PathBuf>,
    labels: Vec<Vec<usize>>,
    embedded: Embedded,
}

impl ClassificationData {
    fn load(data_dir: &Path, config: &Config) -> Result<Self> {
        let ImageNet { images, classes } = imagenet::load(data_dir)?;
        let spanish = imagenet::spanish_names(&config.class_names(), classes.len())?;
        let prompts = |template: &str, names: &mut dyn Iterator<Item = &str>| -> Result<Vec<String>> {
            names.map(|name| fill_prompt(template, name)).collect()
        };
        // The original's rule: the first of an English class's names.
        let english = prompts(&config.english_prompt, &mut classes.iter().map(|c| c.names[0].as_str()))?;
        let (paths, labels) = images.into_iter().unzip();
        let embedded = Embedded { rows: Vec::new(), kept: Vec::new(), failed: Vec::new() };
        Ok(Self {
            spanish: prompts(&config.prompt, &mut spanish.iter().map(String::as_str))?,
            english,
            paths,
            labels,
            embedded,
        })
    }

    fn embed_images(mut self, tower: &TeacherImages, batch_size: usize) -> Result<Self> {
        let bar = progress(self.paths.len() as u64, "classification images");
        self.embedded = embed_readable_images(&self.paths, tower, batch_size, &|done, _| bar.set(done))?;
        Ok(self)
    }

    fn score(&self, texts: &dyn TextEmbedder, language: Language) -> Result<ClassificationScores> {
        let prompts = if language == Language::Spanish { &self.spanish } else { &self.english };
        classify(&texts.embed_texts(prompts)?, &self.embedded, texts.dim(), &self.labels)
    }
}

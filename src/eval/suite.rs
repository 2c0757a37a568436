//! The sets of the data folder: their images are embedded once, then texts are scored on them.

use std::path::PathBuf;

use super::classification::{ClassRanks, ClassificationScores, classify, embed_classes};
use super::images::{Embedded, embed_readable};
use super::retrieval_sets::{Named, RetrievalSet};
use super::{ImageEmbedder, Language, Results, TextEmbedder};
use crate::cache::{Digests, Key};
use crate::config::Config;
use crate::config::evaluation::Evaluation;
use crate::data::class_names::{self, ClassName};
use crate::data::imagenet::{self, ImageNet};
use crate::error::Result;
use crate::ui::console::progress;

/// The default prompt where an article cannot agree with the class names.
const NO_ARTICLE: &str = "una imagen de {}";

/// Which sets are asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Captions and images, both ways.
    pub retrieval: Vec<Named>,
    /// ImageNet, by the names of its classes.
    pub classification: bool,
    /// English texts too, for the teacher.
    pub english: bool,
}

/// The sets that were asked for, complete when they were read.
pub struct Suite {
    /// Those of captions and images that are wanted.
    pub retrieval: Vec<RetrievalSet>,
    /// ImageNet, where it is wanted.
    pub classification: Option<ClassificationSet>,
}

/// The sets' images in the space of an image tower.
pub struct Images {
    retrieval: Vec<Vec<f32>>,
    classification: Option<Embedded>,
}

impl Suite {
    /// Reads the sets that are `wanted` from the data folder of `config`.
    pub fn load(wanted: Wanted, config: &Config) -> Result<Self> {
        let Wanted { retrieval, classification, english } = wanted;
        let load = |named| RetrievalSet::load(named, &config.data.data_dir, english);
        let retrieval = retrieval.iter().map(load).collect::<Result<_>>()?;
        let classification = classification.then(|| ClassificationSet::load(config, english)).transpose()?;
        Ok(Self { retrieval, classification })
    }

    /// All images through `tower`.
    pub fn embed_images(&self, tower: &dyn ImageEmbedder, batch_size: usize) -> Result<Images> {
        let retrieval = self.retrieval.iter().map(|set| set.embed_images(tower, batch_size));
        let classification = self.classification.as_ref().map(|set| set.embed_images(tower, batch_size));
        Ok(Images { retrieval: retrieval.collect::<Result<_>>()?, classification: classification.transpose()? })
    }

    /// The figures of `texts` against `images`.
    pub fn measure(&self, texts: &dyn TextEmbedder, images: &Images, language: Language) -> Result<Results> {
        let retrieval = self.retrieval.iter().zip(&images.retrieval).map(|(set, images)| {
            let ranks = set.rank(texts, images, language)?;
            Ok((set.name().to_owned(), set.score(ranks, language)))
        });
        let classification = self.classification.as_ref().zip(images.classification.as_ref());
        Ok(Results {
            retrieval: retrieval.collect::<Result<_>>()?,
            classification: classification
                .map(|(set, images)| set.rank(texts, images, language).map(ClassificationScores::new))
                .transpose()?,
            ..Results::default()
        })
    }
}

/// ImageNet's images, and the prompts of its classes.
pub struct ClassificationSet {
    spanish: Vec<Vec<String>>, // for each template, the prompts of all classes
    english: Vec<Vec<String>>, // empty unless the teacher is measured
    paths: Vec<PathBuf>,
    labels: Vec<Vec<usize>>,
}

impl ClassificationSet {
    fn load(config: &Config, with_english: bool) -> Result<Self> {
        let ImageNet { images, classes } = imagenet::load(&config.data.data_dir)?;
        let fill = |names: &[ClassName], template: &String| names.iter().map(|name| name.fill(template)).collect();
        let names = class_names::load(config.class_names().as_deref(), &classes, config.data.normalize)?;
        let mut templates = class_names::templates(&config.evaluation.prompt)?;
        let is_default = config.evaluation.prompt == Evaluation::default().prompt && !config.evaluation.is_prompt_given;
        if is_default && names.iter().any(|name| name.grammar.is_none()) {
            templates = vec![NO_ARTICLE.to_owned()];
            tracing::warn!("the class names come without gender: the prompt is `{NO_ARTICLE}`");
        }
        let spanish = templates.iter().map(|template| fill(&names, template)).collect::<Result<_>>()?;
        let english = match with_english {
            true => vec![fill(&class_names::english(&classes)?, &config.evaluation.english_prompt)?],
            false => Vec::new(),
        };
        let (paths, labels) = images.into_iter().unzip();
        Ok(Self { spanish, english, paths, labels })
    }

    /// The embeddings of the images that can be read.
    pub fn embed_images(&self, tower: &dyn ImageEmbedder, batch_size: usize) -> Result<Embedded> {
        let bar = progress(self.paths.len() as u64, "classification images");
        embed_readable(&self.paths, tower, batch_size, true, &|done, _| bar.set(done))
    }

    /// The ranks of the classes for what [`Self::embed_images`] gave.
    pub fn rank(&self, texts: &dyn TextEmbedder, images: &Embedded, language: Language) -> Result<ClassRanks> {
        let prompts = if language == Language::Spanish { &self.spanish } else { &self.english };
        classify(&embed_classes(texts, prompts)?, images, texts.dim(), &self.labels)
    }

    /// The files of the images, and for each the indices of its classes.
    pub fn images(&self) -> (&[PathBuf], &[Vec<usize>]) {
        (&self.paths, &self.labels)
    }

    /// The first prompt of each class in `language`.
    pub fn prompts(&self, language: Language) -> &[String] {
        let prompts = if language == Language::Spanish { &self.spanish } else { &self.english };
        prompts.first().map_or(&[], Vec::as_slice)
    }

    /// Adds to `key` all that the scores with Spanish prompts depend on, but for the models.
    pub fn identify(&self, key: &mut Key, digests: &mut Digests) -> Result<()> {
        self.spanish.iter().for_each(|prompts| key.add_all(prompts));
        key.add_all(&digests.of(&self.paths)?);
        key.add(&format!("{:?}", self.labels));
        Ok(())
    }
}

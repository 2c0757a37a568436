//! The sets on which retrieval is measured: their images are embedded once, then texts are scored on them.

use std::path::{Path, PathBuf};

use super::relevance::Relevance;
use super::retrieval::{RetrievalRanks, RetrievalScores, embed_all_images, rank};
use super::{ImageEmbedder, Language, TextEmbedder};
use crate::cache::{Digests, Key};
use crate::data::captioned::Captioned;
use crate::data::{caption_file, crossmodal, karpathy, xtd10};
use crate::error::{Error, Result};
use crate::ui::console::progress;

/// What a retrieval set is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// XTD10 and its MSCOCO images; of one folder of these, where it is named.
    Xtd10(Option<&'static str>),
    /// Crossmodal-3600.
    Crossmodal,
    /// A data set of Karpathy's: its name, and the folders of its images.
    Karpathy(&'static str, &'static str),
    /// A file of captions, and the folder of its images.
    File(PathBuf, PathBuf),
}

/// A retrieval set that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What its results are called.
    pub name: String,
    /// What it is read from.
    pub origin: Origin,
    /// The language of its captions, where it has several.
    pub language: String,
}

/// Captions and the images they belong to.
pub struct RetrievalSet {
    name: String,
    images: Vec<PathBuf>,
    own: Captions,
    /// For the teacher, where the set has English captions too.
    english: Option<Captions>,
}

struct Captions {
    texts: Vec<String>,
    relevance: Relevance,
}

impl Origin {
    /// Reads the captions in `language`; fetches XTD10's where they are missing.
    fn read(&self, data_dir: &Path, language: &str) -> Result<Captioned> {
        match self {
            Self::Xtd10(folder) => {
                xtd10::fetch_missing(data_dir, &[language], &xtd10::Source::from_env())?;
                let xtd10::Retrieval { captions, images, image_of } = xtd10::load(data_dir, language)?;
                let set =
                    Captioned { captions, images, images_of: image_of.into_iter().map(|image| vec![image]).collect() };
                let Some(folder) = folder else { return Ok(set) };
                let set = set.only(|path| path.parent().is_some_and(|parent| parent.ends_with(folder)));
                match set.captions.is_empty() {
                    true => Err(Error::new(format!("none of XTD10's images is one of MSCOCO's {folder}"))
                        .hint("fetch test_image_names.txt again; the demo's own has images of both folders")),
                    false => Ok(set),
                }
            }
            Self::Crossmodal => crossmodal::load(&data_dir.join("xm3600"), language),
            Self::Karpathy(name, images) => {
                let file = data_dir.join(name).join(format!("dataset_{name}.json"));
                karpathy::load(&file, &data_dir.join(images), "test")
            }
            Self::File(captions, images) => caption_file::load(captions, images),
        }
    }
}

impl RetrievalSet {
    /// Reads `named` from `data_dir`, with English captions where the teacher is measured.
    pub fn load(named: &Named, data_dir: &Path, with_english: bool) -> Result<Self> {
        let Named { name, origin, language } = named;
        let set = origin.read(data_dir, language)?;
        let translated = matches!(origin, Origin::Xtd10(_) | Origin::Crossmodal);
        let english = match with_english && translated && language != "en" {
            true => {
                let english = origin.read(data_dir, "en")?;
                if english.images != set.images {
                    return Err(Error::new(format!("{name}: not the same images in {language} and in English"))
                        .hint("fetch the set again"));
                }
                Some(Captions::new(english)?)
            }
            false => None,
        };
        Ok(Self { name: name.clone(), images: set.images.clone(), own: Captions::new(set)?, english })
    }

    /// What its results are called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The embeddings `[images, dim]`.
    pub fn embed_images(&self, tower: &dyn ImageEmbedder, batch_size: usize) -> Result<Vec<f32>> {
        let bar = progress(self.images.len() as u64, "retrieval images");
        embed_all_images(&self.images, tower, batch_size, &|done, _| bar.set(done))
    }

    /// The ranks of `texts` against what [`Self::embed_images`] gave.
    pub fn rank(&self, texts: &dyn TextEmbedder, images: &[f32], language: Language) -> Result<RetrievalRanks> {
        rank(&texts.embed_texts(self.captions(language))?, images, texts.dim(), self.relevance(language))
    }

    /// The figures of `ranks`, of captions in `language`.
    pub fn score(&self, ranks: RetrievalRanks, language: Language) -> RetrievalScores {
        RetrievalScores::new(ranks, self.relevance(language))
    }

    fn in_language(&self, language: Language) -> &Captions {
        self.english.as_ref().filter(|_| language == Language::English).unwrap_or(&self.own)
    }

    /// The captions in `language`; the set's own where it has no others.
    pub fn captions(&self, language: Language) -> &[String] {
        &self.in_language(language).texts
    }

    /// Which of these captions and which images belong together.
    pub fn relevance(&self, language: Language) -> &Relevance {
        &self.in_language(language).relevance
    }

    /// The files of the images.
    pub fn images(&self) -> &[PathBuf] {
        &self.images
    }

    /// Adds to `key` all that the ranks of the set's own captions depend on, but for the models.
    pub fn identify(&self, key: &mut Key, digests: &mut Digests) -> Result<()> {
        key.add_all(&self.own.texts);
        key.add_all(&digests.of(&self.images)?);
        key.add(&format!("{:?}", self.own.relevance.images_of));
        Ok(())
    }
}

impl Captions {
    fn new(set: Captioned) -> Result<Self> {
        let relevance = Relevance::new(set.images.len(), set.images_of)?;
        Ok(Self { texts: set.captions, relevance })
    }
}

//! The baseline of `themo test`: M-CLIP with CLIP's images. Its ranks depend on the models, the data and the protocol,
//! so they are measured once and cached under a name made of all these.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::classification::{ClassRanks, ClassificationScores};
use super::retrieval::RetrievalRanks;
use super::retrieval_sets::RetrievalSet;
use super::towers::{MclipTexts, TeacherImages};
use super::{ImageEmbedder, Language, Results, Suite, TextEmbedder};
use crate::cache::{Digests, Key};
use crate::compute::Compute;
use crate::config::Config;
use crate::data::image::settings_file;
use crate::data::tokens::{TOKENIZER_FILES, tokenizer_files};
use crate::error::{Error, Result, ResultExt};
use crate::fs::write_json_at;
use crate::hub::Part;
use crate::models::MclipConfig;
use crate::models::folder::model_files;
use crate::ui::model_folder;

/// Changes whenever the same models and data would give other ranks than before.
const PROTOCOL: &str = "themo baseline, protocol 3";

/// The option that names the baseline.
const OPTION: &str = "--baseline-model";

/// Which models are the baseline.
#[derive(Clone, Copy, Debug)]
pub struct Baseline<'a> {
    /// The M-CLIP: a folder or a name on the hub.
    pub model: &'a str,
    /// The CLIP of its images, likewise; as the M-CLIP's name says where none is given.
    pub vision: Option<&'a str>,
    /// Images embedded at once.
    pub batch_size: usize,
}

/// The baseline's figures on `sets`, from the cache or measured now and kept there; `unwritten` gets why what could not be
/// kept was not.
pub fn measure(
    baseline: Baseline, config: &Config, sets: &Suite, compute: &Compute, unwritten: &mut Vec<Error>,
) -> Result<Results> {
    let name = baseline.model;
    let vision_name = match baseline.vision {
        Some(vision) => vision,
        None => vision_of(name)?,
    };
    let folder = model_folder(OPTION, name, &[Part::Weights, Part::TokenizerIfAny])?;
    let mclip = MclipConfig::find(&folder)?.ok_or_else(|| {
        Error::new(format!("`{name}` is not an M-CLIP: its config.json has no modelBase"))
            .hint("--baseline-model takes an M-CLIP, such as M-CLIP/XLM-Roberta-Large-Vit-B-32")
    })?;
    let vision = model_folder("--vision", vision_name, &[Part::Weights, Part::Images])?;

    let mut files = model_files(&folder)?;
    files.extend(model_files(&vision)?);
    let tokenizer = tokenizer_folder(OPTION, &folder, &mclip)?;
    files.extend(tokenizer_files(&tokenizer));
    files.push(settings_file(&vision));
    let mut digests = Digests::open(&config.data.cache_dir);
    let models = digests.of(&files).hint(|| "fetch the model's files again")?;
    let mut place = |task: &str, identify: &dyn Fn(&mut Key, &mut Digests) -> Result<()>| -> Result<PathBuf> {
        let mut key = Key::new(PROTOCOL);
        key.add(task);
        key.add_all(&models);
        key.add(&format!("{:?}", compute.backend)); // bf16 matmuls give other figures
        key.add(&config.evaluation.transparency.pixels());
        identify(&mut key, &mut digests)?;
        Ok(config.data.cache_dir.join(format!("baseline-{task}-{}.json", key.name())))
    };
    let mut retrieval = Vec::new();
    for set in &sets.retrieval {
        retrieval.push((set, place("retrieval", &|key, digests| set.identify(key, digests))?));
    }
    let classification = sets.classification.as_ref();
    let classification =
        classification.map(|set| Ok::<_, Error>((set, place("classification", &|k, d| set.identify(k, d))?)));
    let classification = classification.transpose()?;
    unwritten.extend(digests.save().err());

    // The ranks on each set, where they are in the cache.
    let mut known: Vec<Option<RetrievalRanks>> = retrieval.iter().map(|(_, path)| read(path)).collect();
    let mut known_classes: Option<ClassRanks> = classification.as_ref().and_then(|(_, path)| read(path));
    let is_complete = known.iter().all(Option::is_some) && (classification.is_none() || known_classes.is_some());
    if is_complete {
        tracing::info!("the baseline {name} on these data is in the cache {}", config.data.cache_dir.display());
        return Ok(figures(sets, known, known_classes));
    }
    tracing::info!("measuring the baseline {name}, images through {vision_name}");
    let texts = load_mclip(OPTION, &folder, &mclip, compute)?;
    let images = TeacherImages::load(&vision, config.evaluation.transparency, compute)?;
    if texts.dim() != images.dim() {
        let (ours, theirs) = (texts.dim(), images.dim());
        return Err(Error::new(format!("`{name}` embeds texts in {ours} numbers, `{vision_name}` images in {theirs}"))
            .hint("--vision must be the CLIP whose space this M-CLIP was trained on"));
    }
    for ((set, path), known) in retrieval.iter().zip(&mut known).filter(|(_, known)| known.is_none()) {
        let embedded = set.embed_images(&images, baseline.batch_size)?;
        let ranks = set.rank(&texts, &embedded, Language::Spanish)?;
        unwritten.extend(keep(path, &ranks).err());
        *known = Some(ranks);
    }
    if let Some((set, path)) = classification.filter(|_| known_classes.is_none()) {
        let embedded = set.embed_images(&images, baseline.batch_size)?;
        let ranks = set.rank(&texts, &embedded, Language::Spanish)?;
        unwritten.extend(keep(&path, &ranks).err());
        known_classes = Some(ranks);
    }
    Ok(figures(sets, known, known_classes))
}

fn figures(sets: &Suite, retrieval: Vec<Option<RetrievalRanks>>, classes: Option<ClassRanks>) -> Results {
    let scores = |(set, ranks): (&RetrievalSet, Option<RetrievalRanks>)| {
        Some((set.name().to_owned(), set.score(ranks?, Language::Spanish)))
    };
    Results {
        retrieval: sets.retrieval.iter().zip(retrieval).filter_map(scores).collect(),
        classification: classes.map(ClassificationScores::new),
        ..Results::default()
    }
}

/// The cached ranks at `path`, if there are any.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = std::fs::read(path).ok()?;
    serde_json::from_slice(&bytes)
        .inspect_err(|e| tracing::warn!("{} is damaged ({e}); measuring again", path.display()))
        .ok()
}

/// Writes `ranks` to the cache.
fn keep(path: &Path, ranks: &impl Serialize) -> Result<()> {
    write_json_at(path, ranks, "with --cache-dir")
}

/// The CLIP whose images an M-CLIP's name says it is for.
fn vision_of(mclip: &str) -> Result<&'static str> {
    let name = mclip.to_lowercase();
    if name.contains("vit-b-16plus") {
        let what = format!("`{mclip}` is not supported: its image tower is open_clip's ViT-B-16-plus-240");
        return Err(
            Error::new(what).hint("choose M-CLIP/XLM-Roberta-Large-Vit-B-32 or M-CLIP/XLM-Roberta-Large-Vit-L-14")
        );
    }
    let known = [("vit-b-32", "openai/clip-vit-base-patch32"), ("vit-l-14", "openai/clip-vit-large-patch14")];
    known.iter().find(|(part, _)| name.contains(part)).map(|(_, vision)| *vision).ok_or_else(|| {
        Error::usage(format!("the name `{mclip}` does not say which CLIP's images it is for"))
            .hint("give that CLIP with --vision")
    })
}

/// The M-CLIP in `folder`, which the command line's `option` gave.
pub fn load_mclip(option: &str, folder: &Path, config: &MclipConfig, compute: &Compute) -> Result<MclipTexts> {
    MclipTexts::load(folder, &tokenizer_folder(option, folder, config)?, config, compute)
}

/// Where an M-CLIP's tokenizer is: in its folder, or in that of the model that it is built on.
fn tokenizer_folder(option: &str, folder: &Path, config: &MclipConfig) -> Result<PathBuf> {
    let beside = ["_config.json", "_map.json", "_tokens.json"];
    let mut vocabularies = TOKENIZER_FILES.iter().filter(|name| !beside.iter().any(|end| name.ends_with(end)));
    if vocabularies.any(|name| folder.join(name).exists()) {
        return Ok(folder.to_owned());
    }
    model_folder(option, &config.model_base, &[Part::Tokenizer])
        .context(|| format!("{} has no tokenizer; it is that of `{}`", folder.display(), config.model_base))
        .hint(|| format!("put tokenizer.json or sentencepiece.bpe.model of `{}` there", config.model_base))
}

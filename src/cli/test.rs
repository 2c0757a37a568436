//! `themo test`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;
use toml::Table;

use super::{is_false, negated, positive};
use crate::compute::Precision;
use crate::data::image::Transparency;
use crate::error::{Error, Result};
use crate::eval::retrieval_sets::{Named, Origin};

pub(super) const EXAMPLES: &str = "\
Examples:
  themo test --version-path logs/demo/version_0
  themo test --version-path logs/demo/version_0 --with-teacher
  themo test --version-path logs/demo/version_0 --task retrieval --json
  themo test --version-path logs/demo/version_0 --set xtd10-val2014
  themo test --version-path logs/demo/version_0 --captions own.tsv --images photos
  themo test --baseline
  themo test --version-path logs/default/version_0 --baseline \\
      --baseline-model M-CLIP/XLM-Roberta-Large-Vit-L-14
  themo test --baseline --published";

const DEFAULT_BASELINE: &str = "M-CLIP/XLM-Roberta-Large-Vit-B-32";

/// A benchmark of `themo test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Benchmark {
    /// Spanish captions to images and back (XTD10 on MSCOCO): recall@k
    Retrieval,
    /// Zero-shot ImageNet with Spanish class names: accuracy@k
    Classification,
}

/// A set of captions and images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Set {
    /// XTD10 on 1000 images of MSCOCO
    Xtd10,
    /// Those of its images that are of MSCOCO's train2014
    #[value(name = "xtd10-train2014")]
    Xtd10Train,
    /// Those of its images that are of MSCOCO's val2014
    #[value(name = "xtd10-val2014")]
    Xtd10Val,
    /// Crossmodal-3600
    Xm3600,
    /// COCO, the test images of Karpathy's split
    Coco,
    /// Flickr30k, the test images of Karpathy's split
    #[value(name = "flickr30k")]
    Flickr30k,
}

/// The options of `themo test`; those not given are as the run was trained. The settings among them serialise under
/// their keys of the configuration.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TestArgs {
    /// Folder of the run (its best checkpoint is tested) or of one of its checkpoints
    ///
    /// Or a run or a .ckpt, .pt, .pth or .bin file of the Python Themo.
    #[arg(long, value_name = "DIR", required_unless_present = "baseline")]
    #[serde(skip)]
    pub version_path: Option<PathBuf>,
    /// What to measure; repeatable [default: both]
    #[arg(long, value_enum, help_heading = "What")]
    #[serde(skip)]
    task: Vec<Benchmark>,
    /// A set of captions and images; repeatable [default: xtd10 and classification]
    ///
    /// The guide says which files each is read from. The results are called after the set.
    #[arg(long, value_enum, value_name = "NAME", help_heading = "What")]
    #[serde(skip)]
    set: Vec<Set>,
    /// The language of the captions of xtd10 and xm3600
    #[arg(long, value_name = "CODE", default_value = "es", help_heading = "What")]
    #[serde(skip)]
    lang: String,
    /// Your own captions: image TAB caption, or JSON lines {"image", "caption"}
    #[arg(long, value_name = "FILE", requires = "images", help_heading = "What")]
    #[serde(skip)]
    captions: Option<PathBuf>,
    /// The folder of the images that --captions names
    #[arg(long, value_name = "DIR", requires = "captions", help_heading = "What")]
    #[serde(skip)]
    images: Option<PathBuf>,
    /// Measure the teacher with English text too, the ceiling
    #[arg(long, requires = "version_path", help_heading = "What")]
    #[serde(skip)]
    pub with_teacher: bool,
    /// Measure M-CLIP too, or alone without --version-path
    ///
    /// The result is kept in the cache, under a name made from the content of models, texts and images.
    #[arg(long, help_heading = "What")]
    #[serde(skip)]
    pub baseline: bool,
    /// With --baseline, print published figures and their sources instead; needs no data
    #[arg(long, requires = "baseline", conflicts_with = "version_path", help_heading = "What")]
    #[serde(skip)]
    pub published: bool,
    /// Print one JSON object instead of tables
    #[arg(long, help_heading = "What")]
    #[serde(skip)]
    pub json: bool,

    /// Folder with xtd10/, mscoco/ and imagenet/ [default: the run's]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    data_dir: Option<PathBuf>,
    /// Spanish class names, one per line, or a table with gender and number
    ///
    /// Default: those of the run, else DATA_DIR/imagenet/classnames_es.txt, else the bundled list of the 1000
    /// ImageNet classes, configs/prompts/imagenet_es.tsv, which is such a table.
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    class_names: Option<PathBuf>,
    /// Leave class names as they are, not in Unicode's normal form C
    #[arg(long, help_heading = "Data")]
    #[serde(rename = "normalize", skip_serializing_if = "is_false", serialize_with = "negated")]
    no_normalize: bool,
    /// Spanish prompt, such as `una foto de {un} {name}` [default: the run's]
    ///
    /// {} or {name} is the class name; {un}, {el}, {del} and {al} are articles that agree with it. `ensemble`
    /// averages the bundled prompts.
    #[arg(long, value_name = "TEXT", help_heading = "Data")]
    prompt: Option<String>,
    /// The teacher's English prompt [default: the run's]
    #[arg(long, value_name = "TEXT", help_heading = "Data")]
    english_prompt: Option<String>,
    /// What becomes of transparent pixels: alpha is dropped, or laid over white [default: the run's, else drop]
    ///
    /// drop is what OpenAI's CLIP, open_clip and transformers 4 do; white is what transformers 5 does.
    #[arg(long, value_parser = Transparency::NAMES, help_heading = "Data")]
    transparency: Option<String>,
    /// Folder of cached results [default: the run's, else data/cache]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    cache_dir: Option<PathBuf>,

    /// CLIP in whose space the student was trained [default: the run's]
    ///
    /// A folder, or the name of a model on the hub (owner/name or owner/name@revision).
    #[arg(long, value_name = "MODEL", requires = "version_path", help_heading = "Computing")]
    teacher: Option<String>,
    /// BERT from which a checkpoint of the Python Themo was trained [default:
    /// dccuchile/bert-base-spanish-wwm-uncased]
    ///
    /// A folder, or the name of a model on the hub (owner/name or owner/name@revision). Its configuration and
    /// tokenizer are used.
    #[arg(long, value_name = "MODEL", requires = "version_path", help_heading = "Computing")]
    student: Option<String>,
    /// The baseline, an M-CLIP
    ///
    /// A folder, or the name of a model on the hub (owner/name or owner/name@revision).
    #[arg(long, value_name = "MODEL", default_value = DEFAULT_BASELINE, requires = "baseline", help_heading = "Computing")]
    #[serde(skip)]
    pub baseline_model: String,
    /// CLIP whose image tower is used [default: the teacher, or as the baseline's name says]
    ///
    /// A folder, or the name of a model on the hub (owner/name or owner/name@revision). With --baseline it is the
    /// baseline's: by default openai/clip-vit-base-patch32 for ...Vit-B-32 and openai/clip-vit-large-patch14 for
    /// ...Vit-L-14. Otherwise it is the student's.
    #[arg(long, value_name = "MODEL", help_heading = "Computing")]
    #[serde(skip)]
    pub vision: Option<String>,
    /// Images per batch
    #[arg(long, value_name = "N", default_value = "128", value_parser = positive, help_heading = "Computing")]
    #[serde(skip)]
    pub batch_size: usize,
    /// auto, cpu, cuda, cuda:N or metal
    ///
    /// GPUs need a build with --features cuda, cudnn or metal, and are experimental. auto takes the first GPU that
    /// this build supports and that can be opened, else the CPU.
    #[arg(long, default_value = "auto", help_heading = "Computing")]
    device: String,
    /// Precision of matrix multiplications
    ///
    /// bf16 rounds their operands to bf16; sums, weights and everything else stay f32. It is faster on CPUs with
    /// AVX512-BF16 or AMX. auto chooses bf16 on such CPUs and f32 elsewhere.
    #[arg(long, default_value = "f32", value_parser = Precision::NAMES, help_heading = "Computing")]
    precision: String,
}

impl TestArgs {
    /// The settings given, under the keys of the configuration.
    pub fn settings(&self) -> Result<Table> {
        Table::try_from(self).map_err(|e| Error::usage(e.to_string()).context("cannot use the options"))
    }

    /// Whether `task` is to be measured: all are if neither a task nor a set was named.
    pub fn wants(&self, task: Benchmark) -> bool {
        let has_sets = !self.set.is_empty() || self.captions.is_some();
        match self.task.is_empty() {
            true => !has_sets || task == Benchmark::Retrieval,
            false => self.task.contains(&task) || has_sets && task == Benchmark::Retrieval,
        }
    }

    /// The sets of captions and images that are asked for, each once.
    pub fn retrieval_sets(&self) -> Result<Vec<Named>> {
        if !self.wants(Benchmark::Retrieval) {
            return Ok(Vec::new());
        }
        let language = self.lang.as_str();
        if language.is_empty() || !language.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            return Err(
                Error::usage(format!("--lang: {language:?} is no language")).hint("languages are es, en, fr, ...")
            );
        }
        let named = |name: &str, origin| Named { name: name.to_owned(), origin, language: language.to_owned() };
        // Only sets with several languages are named after them.
        let end = if language == "es" { String::new() } else { format!("-{language}") };
        let mut sets: Vec<Named> = Vec::new();
        for set in &self.set {
            let set = match set {
                Set::Xtd10 => named(&format!("xtd10{end}"), Origin::Xtd10(None)),
                Set::Xtd10Train => named(&format!("xtd10-train2014{end}"), Origin::Xtd10(Some("train2014"))),
                Set::Xtd10Val => named(&format!("xtd10-val2014{end}"), Origin::Xtd10(Some("val2014"))),
                Set::Xm3600 => named(&format!("xm3600{end}"), Origin::Crossmodal),
                Set::Coco => named("coco", Origin::Karpathy("coco", "mscoco")),
                Set::Flickr30k => named("flickr30k", Origin::Karpathy("flickr30k", "flickr30k/images")),
            };
            if !sets.contains(&set) {
                sets.push(set);
            }
        }
        if let (Some(captions), Some(images)) = (&self.captions, &self.images) {
            let stem = captions.file_name().unwrap_or_default().to_string_lossy();
            let stem = stem.split('.').next().unwrap_or_default();
            if stem.is_empty() || stem == "classification" || sets.iter().any(|set| set.name == stem) {
                let what = format!("--captions: results cannot be called {stem:?}, after this file");
                return Err(Error::usage(what).hint("results are named after the file of captions: rename it"));
            }
            sets.push(named(stem, Origin::File(captions.clone(), images.clone())));
        }
        if sets.is_empty() {
            let name = if language == "es" { "retrieval".to_owned() } else { format!("retrieval{end}") };
            sets.push(named(&name, Origin::Xtd10(None)));
        }
        Ok(sets)
    }
}

//! The teacher's features of English captions: from the cache, or computed into it.

use std::path::Path;

use super::Dataset;
use crate::config::Config;
use crate::data::Pair;
use crate::data::targets::{Key, Targets};
use crate::data::tokens::{TextTokenizer, cut_by_tokens};
use crate::error::{Error, Result, ResultExt};
use crate::models::ClipText;
use crate::models::clip::ClipConfig;
use crate::models::folder::model_files;
use crate::nn::{Backend, Compute, Tokens};
use crate::ui::console::progress;

/// Captions embedded by the teacher between two writes to the cache.
const TEACHER_TOKENS: usize = 4096;

/// The teacher, loaded only when a feature is missing in the cache.
pub struct Teacher<'a> {
    folder: &'a Path,
    compute: &'a Compute,
    key: Key,
    loaded: Option<(ClipText, TextTokenizer)>,
    pub(super) should_stop: &'a dyn Fn() -> bool,
}

/// What a run says that a signal ended while the teacher's features were computed.
pub(super) const STOPPED: &str = "stopped while the teacher's features were computed";

impl<'a> Teacher<'a> {
    /// The CLIP in `folder`; its work ends once `should_stop` says so.
    pub fn new(folder: &'a Path, compute: &'a Compute, should_stop: &'a dyn Fn() -> bool) -> Result<Self> {
        let key = Key::of_files(&model_files(folder)?)?.in_bf16(compute.backend == Backend::Bf16);
        Ok(Self { folder, compute, key, loaded: None, should_stop })
    }

    /// Identifies the teacher, and how it computes.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder
    }

    /// Where and with which operations it computes.
    pub fn compute(&self) -> &Compute {
        self.compute
    }

    fn get(&mut self) -> Result<&(ClipText, TextTokenizer)> {
        if self.loaded.is_none() {
            let clip = ClipText::load(self.folder, self.compute).hint(|| "--teacher takes the folder of a CLIP")?;
            let tokenizer = TextTokenizer::from_folder(self.folder, clip.max_tokens())?;
            self.loaded = Some((clip, tokenizer));
        }
        self.loaded.as_ref().ok_or_else(|| Error::new("the teacher is not loaded"))
    }
}

/// Tokens of the Spanish captions and targets of the English ones, from the cache or computed into it.
pub fn dataset(config: &Config, pairs: Vec<Pair>, tokenizer: &TextTokenizer, teacher: &mut Teacher) -> Result<Dataset> {
    let spanish: Vec<&str> = pairs.iter().map(|p| p.es.as_str()).collect();
    let english: Vec<&str> = pairs.iter().map(|p| p.en.as_str()).collect();
    let key = teacher.key.of_captions(&english);
    let dim = ClipConfig::from_folder(teacher.folder)?.text()?.hidden_size;
    let mut plan = None;
    let targets = Targets::open_or_compute(Path::new(&config.data.cache_dir), &key, pairs.len(), dim, |start| {
        if (teacher.should_stop)() {
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

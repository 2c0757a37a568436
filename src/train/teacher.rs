//! The teacher's features of English captions: from the cache, or computed into it.

use std::path::Path;

use candle_core::Tensor;

use crate::cache::store::{Digest, digest};
use crate::cache::{Digests, Key, Store};
use crate::compute::Compute;
use crate::data::tokens::{TextTokenizer, cut_evenly};
use crate::error::{Error, Result, ResultExt};
use crate::models::ClipText;
use crate::models::clip::ClipConfig;
use crate::models::folder::model_files;
use crate::nn::cpu::gemm::bf16_unit;
use crate::nn::{Backend, Tokens};

/// Tokens of captions that the teacher embeds at once, and that the cache gets at once.
const TEACHER_TOKENS: usize = 4096;
/// Changes whenever the same files would give other features than before.
const VERSION: &str = "themo teacher features, version 3";

/// The text tower of the teacher with the features that it has computed; loaded only when one is missing.
pub struct Teacher<'a> {
    folder: &'a Path,
    compute: &'a Compute,
    key: Key,
    store: Store,
    loaded: Option<(ClipText, TextTokenizer)>,
    pub(super) should_stop: &'a dyn Fn() -> bool,
}

/// What a run says that a signal ended while the teacher's features were computed.
pub(super) const STOPPED: &str = "stopped while the teacher's features were computed";

impl<'a> Teacher<'a> {
    /// The CLIP in `folder` whose files have the key `files` (see `key_of_files`), its features in `cache_dir`; its work
    /// ends once `should_stop` says so.
    pub fn new(
        folder: &'a Path, files: Key, cache_dir: &Path, compute: &'a Compute, should_stop: &'a dyn Fn() -> bool,
    ) -> Result<Self> {
        let mut key = files;
        if compute.backend == Backend::Bf16 {
            key.add("bf16, attention too");
            // Without instructions for bf16, other results are rounded on the way.
            key.add(if bf16_unit().is_some() { "by instructions" } else { "by f32" });
        }
        let width = ClipConfig::from_folder(folder)?.text()?.hidden_size;
        let store = Store::open(cache_dir, &key, width)?;
        Ok(Self { folder, compute, key, store, loaded: None, should_stop })
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

    /// The features of `captions`, `[captions, dim]`, all of which must have been [`Self::ensure`]d.
    pub fn features(&self, captions: &[&str]) -> Result<Tensor> {
        let mut rows = Vec::with_capacity(captions.len() * self.store.width());
        match captions.iter().find(|caption| !self.store.append_to(&digest(caption.as_bytes()), &mut rows)) {
            Some(caption) => Err(Error::new(format!("the teacher's feature of `{caption}` was damaged meanwhile"))
                .hint("resume the run: it will be computed again")),
            None => Ok(Tensor::from_vec(rows, (captions.len(), self.store.width()), &self.compute.device)?),
        }
    }

    /// Computes the features of `captions` that the cache lacks; returns how many.
    pub fn ensure(&mut self, captions: &[&str]) -> Result<usize> {
        let digests: Vec<Digest> = captions.iter().map(|caption| digest(caption.as_bytes())).collect();
        let missing: Vec<usize> = (0..captions.len()).filter(|i| !self.store.has(&digests[*i])).collect();
        if missing.is_empty() {
            return Ok(0);
        }
        if self.loaded.is_none() {
            let clip = ClipText::load(self.folder, self.compute).hint(|| "--teacher takes the folder of a CLIP")?;
            let tokenizer = TextTokenizer::from_folder(self.folder, clip.max_tokens())?;
            self.loaded = Some((clip, tokenizer));
        }
        let (clip, tokenizer) = self.loaded.as_ref().ok_or_else(|| Error::new("the teacher is not loaded"))?;
        let texts: Vec<&str> = missing.iter().map(|i| captions[*i]).collect();
        let mut ids = tokenizer.encode(&texts)?;
        ids.iter_mut().try_for_each(|ids| clip.cut(ids))?;
        let mut computed = 0;
        for run in cut_evenly(&ids.iter().map(Vec::len).collect::<Vec<_>>(), TEACHER_TOKENS) {
            if (self.should_stop)() {
                return Err(Error::stopped(STOPPED));
            }
            let wanted: Vec<Digest> = missing[run.clone()].iter().map(|i| digests[*i]).collect();
            computed += self.store.fill(&wanted, |places| {
                let tokens: Vec<&[u32]> = places.iter().map(|place| ids[run.start + place].as_slice()).collect();
                let rows = clip.pooled(&Tokens::pack(&tokens, 0)?, None)?.flatten_all()?.to_vec1()?;
                require_finite(&rows, tokens.len(), |row| texts[run.start + places[row]])?;
                Ok(rows)
            })?;
        }
        Ok(computed)
    }

    /// Gives back the memory of its weights.
    pub fn unload(&mut self) {
        self.loaded = None;
    }
}

/// Identifies a teacher by the content of its files.
pub(super) fn key_of_files(folder: &Path, cache_dir: &Path) -> Result<Key> {
    let mut digests = Digests::open(cache_dir);
    let files = model_files(folder)?;
    let mut key = Key::new(VERSION);
    for (file, digest) in files.iter().zip(digests.of(&files).hint(|| "fetch the model's files again")?) {
        key.add(&file.file_name().unwrap_or_default().to_string_lossy());
        key.add(&digest);
    }
    digests.keep();
    Ok(key)
}

/// An error that names the first of the captions whose row of numbers has one that is not finite.
fn require_finite<'a>(rows: &[f32], captions: usize, caption: impl Fn(usize) -> &'a str) -> Result<()> {
    match rows.iter().position(|number| !number.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let caption = caption(at / (rows.len() / captions));
            let what = format!("the teacher's feature of the caption `{caption}` is not finite");
            Err(Error::new(what).hint("the teacher's weights may be broken; fetch them again"))
        }
    }
}

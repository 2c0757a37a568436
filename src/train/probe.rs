//! What `val/recall@1` is measured on while a student trains.

use std::cell::RefCell;
use std::path::PathBuf;

use candle_core::Tensor;

use super::Dataset;
use super::teacher::{STOPPED, Teacher};
use crate::cache::store::{Digest, digest};
use crate::cache::{Digests, Key, Store};
use crate::config::Config;
use crate::config::recipe::Monitor;
use crate::data::image::settings_file;
use crate::data::tokens::TextTokenizer;
use crate::data::xtd10::{self, Retrieval};
use crate::error::{Error, Result};
use crate::eval::probe::Probe;
use crate::eval::retrieval::embed_all_images;
use crate::eval::towers::TeacherImages;
use crate::ui::console::progress;

/// Images embedded between two writes to the cache.
const IMAGES_AT_ONCE: usize = 128;

/// Refuses to watch what cannot be measured.
pub fn check(config: &Config, has_val: bool) -> Result<()> {
    if let Some(dir) = config.recipe.probe.as_ref().filter(|dir| !dir.is_dir()) {
        return Err(Error::usage(format!("--probe {} is no folder", dir.display()))
            .hint("give a folder with xtd10/ and mscoco/ in it, as themo test reads one"));
    }
    let monitor = config.recipe.monitor;
    let missing = match monitor {
        Monitor::TrainLoss => false,
        Monitor::ValLoss => !has_val,
        Monitor::ValRecall => !has_val && config.recipe.probe.is_none(),
    };
    if !missing {
        return Ok(());
    }
    let probe = if monitor == Monitor::ValRecall { ", or --probe DIR" } else { "" };
    Err(Error::usage(format!("--monitor {} needs validation pairs", monitor.name()))
        .hint(format!("give --val-pairs FILE{probe}")))
}

/// Identifies the captions and the images of `--probe`; empty where there are none.
pub fn fingerprint(config: &Config) -> Result<String> {
    let Some(dir) = &config.recipe.probe else { return Ok(String::new()) };
    let Retrieval { captions, images, image_of } = xtd10::load(dir, "es")?;
    let (mut key, mut digests) = (Key::new("probe"), Digests::open(&config.data.cache_dir));
    key.add_all(&captions);
    key.add_all(&digests.of(&images)?);
    key.add(&format!("{image_of:?}"));
    digests.save()?;
    Ok(key.name())
}

/// The probe, where one is asked for: the images of `--probe`, else the English captions of the validation pairs.
pub fn load(
    config: &Config, val: Option<&Dataset>, tokenizer: &TextTokenizer, teacher: &RefCell<Teacher>,
    text_projection: impl FnOnce() -> Result<Tensor>,
) -> Result<Option<Probe>> {
    match (&config.recipe.probe, config.recipe.monitor, val) {
        (Some(dir), ..) => {
            let Retrieval { captions, images, image_of } = xtd10::load(dir, "es")?;
            let projection = text_projection()?;
            let rows = image_rows(config, &images, projection.dim(0)?, &teacher.borrow())?;
            Probe::new(tokenizer.encode(&captions)?, rows, image_of, projection).map(Some)
        }
        (None, Monitor::ValRecall, Some(val)) => {
            let all = val.order(0, 0, false);
            let english = val.english(&all)?;
            Probe::of_captions(val.tokens(&all)?, &english, &|some| val.features(some), text_projection()?).map(Some)
        }
        _ => Ok(None),
    }
}

/// The vectors `[images, dim]` of the teacher's image tower, from the cache or computed into it.
fn image_rows(config: &Config, images: &[PathBuf], dim: usize, teacher: &Teacher) -> Result<Vec<f32>> {
    let folder = teacher.folder();
    let mut key = teacher.key().clone();
    key.add("image embeddings");
    key.add(&config.evaluation.transparency.pixels());
    let mut digests = Digests::open(&config.data.cache_dir);
    key.add_all(&digests.of(&[settings_file(folder)])?);
    let mut store = Store::open(&config.data.cache_dir, &key, dim)?;
    let contents: Vec<Digest> = digests.of(images)?.iter().map(|content| digest(content.as_bytes())).collect();
    digests.keep();
    let missing: Vec<usize> = (0..images.len()).filter(|i| !store.has(&contents[*i])).collect();
    if !missing.is_empty() {
        let tower = TeacherImages::load(folder, config.evaluation.transparency, teacher.compute())?;
        let bar = progress(missing.len() as u64, "probe images");
        for part in missing.chunks(IMAGES_AT_ONCE) {
            if (teacher.should_stop)() {
                return Err(Error::stopped(STOPPED));
            }
            let wanted: Vec<Digest> = part.iter().map(|i| contents[*i]).collect();
            store.fill(&wanted, |places| {
                let paths: Vec<PathBuf> = places.iter().map(|place| images[part[*place]].clone()).collect();
                embed_all_images(&paths, &tower, IMAGES_AT_ONCE, &|_, _| {})
            })?;
            bar.inc(part.len() as u64);
        }
    }
    let mut rows = Vec::with_capacity(images.len() * dim);
    let found = contents.iter().all(|content| store.append_to(content, &mut rows));
    found.then_some(rows).ok_or_else(|| Error::new("the cache of the probe's images was damaged meanwhile"))
}

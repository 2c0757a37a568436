//! What `val/recall@1` is measured on while a student trains.

use candle_core::Tensor;

use super::Dataset;
use super::teacher::{STOPPED, Teacher};
use crate::config::Config;
use crate::config::recipe::Monitor;
use crate::data::image::settings_file;
use crate::data::targets::Targets;
use crate::data::tokens::TextTokenizer;
use crate::data::xtd10::{self, Retrieval};
use crate::error::{Error, Result};
use crate::eval::ImageEmbedder;
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

/// The probe, where one is asked for: the images of `--probe`, else the English captions of the validation pairs.
pub fn load(
    config: &Config, val: Option<&Dataset>, tokenizer: &TextTokenizer, teacher: &Teacher,
    text_projection: impl FnOnce() -> Result<Tensor>,
) -> Result<Option<Probe>> {
    let (folder, compute) = (teacher.folder(), teacher.compute());
    match (&config.recipe.probe, config.recipe.monitor, val) {
        (Some(dir), ..) => {
            let Retrieval { captions, images, image_of } = xtd10::load(dir, "es")?;
            // The towers' files and the images: the vectors depend on their names and contents, and on how pixels are made.
            let mut files = vec![settings_file(folder)];
            files.extend(images.iter().cloned());
            let key = teacher
                .key()
                .and_files(&files)?
                .of_captions(&["image embeddings", &config.evaluation.transparency.pixels()]);
            let projection = text_projection()?;
            let (dim, mut tower) = (projection.dim(0)?, None);
            let bar = progress(images.len() as u64, "probe images");
            let cached = Targets::open_or_compute(&config.data.cache_dir, &key, images.len(), dim, |start| {
                if (teacher.should_stop)() {
                    return Err(Error::stopped(STOPPED));
                }
                if tower.is_none() {
                    tower = Some(TeacherImages::load(folder, config.evaluation.transparency, compute)?);
                }
                let tower: &dyn ImageEmbedder = tower.as_ref().ok_or_else(|| Error::new("no image tower"))?;
                let part = &images[start..images.len().min(start + IMAGES_AT_ONCE)];
                let rows = embed_all_images(part, tower, IMAGES_AT_ONCE, &|_, _| {})?;
                bar.set((start + part.len()) as u64);
                Ok(rows)
            })?;
            let mut rows = Vec::with_capacity(images.len() * dim);
            (0..images.len()).for_each(|i| cached.append(i, &mut rows));
            Probe::new(tokenizer.encode(&captions)?, rows, image_of, projection).map(Some)
        }
        (None, Monitor::ValRecall, Some(val)) => {
            let english: Vec<&str> = val.pairs.iter().map(|pair| pair.en.as_str()).collect();
            let latent = |rows: &[usize]| val.targets_of(rows, &compute.device);
            Probe::of_captions(val.tokens.clone(), &english, &latent, text_projection()?).map(Some)
        }
        _ => Ok(None),
    }
}

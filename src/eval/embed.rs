//! Texts and images to vectors in a safetensors file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Tensor;
use toml::Table;

use super::baseline::load_mclip;
use super::towers::{StudentTexts, TeacherImages, TeacherTexts, expect_finite, normalise};
use super::{ImageEmbedder, TextEmbedder, images};
use crate::compute::Compute;
use crate::config::Config;
use crate::data::text::read_all;
use crate::data::tokens::TextTokenizer;
use crate::data::{first_few, image};
use crate::error::{Error, Result, ResultExt};
use crate::fs::write_atomic;
use crate::hub::Part;
use crate::models::weights::to_bytes;
use crate::models::{ClipText, MclipConfig};
use crate::runs::Trained;
use crate::ui::console::progress;
use crate::ui::model_folder;

/// Texts tokenized and embedded between two steps of the progress bar.
const TEXTS_AT_ONCE: usize = 1024;

/// A model that has been found.
enum Found {
    Trained(Box<Trained>),
    Clip,
    Mclip(MclipConfig),
}

/// The model that was asked for.
#[derive(Clone, Copy, Debug)]
pub enum Model<'a> {
    /// The student of a run or a checkpoint, and its teacher's images.
    Version(&'a Path),
    /// A CLIP or an M-CLIP: a folder or a name on the hub.
    Named(&'a str),
}

/// What is embedded, by which model, and where the vectors go.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The model that embeds.
    pub model: Model<'a>,
    /// Settings of the configuration given now.
    pub settings: Table,
    /// A file of texts, one a line; - is standard input.
    pub texts: Option<&'a Path>,
    /// A folder or a list of images; - is standard input.
    pub images: Option<&'a Path>,
    /// The safetensors file to write.
    pub output: &'a Path,
    /// Give every vector length 1.
    pub normalize: bool,
    /// Images embedded at once.
    pub batch_size: usize,
    /// Where and with which operations they are computed.
    pub compute: Compute,
}

/// Embeds what was asked for and writes one safetensors file; returns how many texts and images it holds.
pub fn embed(request: Request) -> Result<(Option<usize>, Option<usize>)> {
    let Request { model, settings, texts, images, output, normalize, batch_size, compute } = request;
    let texts = texts.map(read_texts).transpose()?;
    let images = images.map(list_images).transpose()?;
    let (source, folder) = open(model, &settings, texts.is_some(), images.is_some())?;
    let (mut tensors, mut metadata) = (BTreeMap::new(), BTreeMap::new());
    if let Some(texts) = &texts {
        let rows = match &source {
            Found::Trained(trained) => {
                let (student, tokenizer) = trained.load(&compute)?;
                embed_texts(texts, &StudentTexts::new(&student, &tokenizer, &folder, &compute)?, normalize)?
            }
            Found::Clip => {
                let teacher = ClipText::load(&folder, &compute)?;
                let tokenizer = TextTokenizer::from_folder(&folder, teacher.max_tokens())?;
                embed_texts(texts, &TeacherTexts { tokenizer: &tokenizer, teacher: &teacher }, normalize)?
            }
            Found::Mclip(config) => embed_texts(texts, &load_mclip(&folder, config, &compute)?, normalize)?,
        };
        tensors.insert("text_embeds", rows);
    }
    let mut image_names = Vec::new();
    if let Some((names, paths)) = &images {
        let transparency = match &source {
            Found::Trained(trained) => trained.config.evaluation.transparency,
            _ => Config::resolve(None, settings)?.evaluation.transparency,
        };
        let tower = TeacherImages::load(&folder, transparency, &compute)?;
        let began = Instant::now();
        let bar = progress(paths.len() as u64, "images");
        let progress = |done, _| bar.set(done);
        let embedded = images::embed_readable(paths, &tower, batch_size, normalize, &progress)?;
        log_speed(paths.len(), "images", began);
        image_names.extend(embedded.kept.iter().map(|&k| &names[k]));
        tensors.insert("image_embeds", finish(embedded.rows, tower.dim(), false)?);
        metadata.insert("image_names".to_owned(), serde_json::to_string(&image_names)?);
        metadata.insert("transparency".to_owned(), transparency.name().to_owned());
    }
    write_atomic(output, &to_bytes(tensors, metadata)?)?;
    let embedded = images.as_ref().map(|_| image_names.len());
    Ok((texts.map(|texts| texts.len()), embedded))
}

/// The model and the folder of its CLIP or M-CLIP, with the parts that are needed.
fn open(model: Model, settings: &Table, texts: bool, images: bool) -> Result<(Found, PathBuf)> {
    let mut parts = vec![Part::Weights];
    parts.extend(images.then_some(Part::Images));
    match model {
        Model::Version(path) => {
            let trained = Trained::open(path, settings.clone())?;
            let folder = model_folder("--teacher", &trained.config.models.teacher, &parts)?;
            Ok((Found::Trained(trained.into()), folder))
        }
        Model::Named(model) => {
            parts.extend(texts.then_some(Part::TokenizerIfAny));
            let folder = model_folder("--model", model, &parts)?;
            match MclipConfig::find(&folder)? {
                Some(_) if images => Err(Error::usage(format!("`{model}` is an M-CLIP, which embeds texts only"))
                    .hint(
                        "embed the images with --model and the CLIP whose space it shares, such as \
                           openai/clip-vit-base-patch32",
                    )),
                Some(config) => Ok((Found::Mclip(config), folder)),
                None => Ok((Found::Clip, folder)),
            }
        }
    }
}

/// All texts as rows `[texts, dim]`, in order.
fn embed_texts(texts: &[String], towers: &dyn TextEmbedder, normalized: bool) -> Result<Tensor> {
    let began = Instant::now();
    let bar = progress(texts.len() as u64, "texts");
    let mut rows = Vec::new();
    for part in texts.chunks(TEXTS_AT_ONCE) {
        rows.extend(towers.embed(part)?);
        bar.inc(part.len() as u64);
    }
    log_speed(texts.len(), "texts", began);
    finish(rows, towers.dim(), normalized)
}

/// Logs the speed since `began`.
fn log_speed(count: usize, what: &str, began: Instant) {
    let secs = began.elapsed().as_secs_f64();
    tracing::info!("{count} {what} in {secs:.3} s ({:.1} a second)", count as f64 / secs);
}

fn finish(mut rows: Vec<f32>, dim: usize, normalized: bool) -> Result<Tensor> {
    if normalized {
        normalise(&mut rows, dim);
    }
    expect_finite(&rows, dim)?;
    let n = rows.len() / dim;
    crate::nn::storage::tensor(rows, (n, dim))
}

/// One text a line, from a file or (`-`) standard input; an empty line is an empty text. No text is changed.
fn read_texts(path: &Path) -> Result<Vec<String>> {
    let failed = || "cannot read the texts";
    let texts = read_all(path).context(failed).hint(|| "--texts takes a text file, or - for standard input")?;
    if texts.is_empty() {
        return Err(Error::new(format!("no text in {}", path.display())).context(failed()).hint("one text a line"));
    }
    Ok(texts)
}

/// Names and paths: the images of a folder, sorted, or those that a list names, one a line. A list means every file that
/// it names, so one that cannot be used is an error, before any work. A folder may hold anything: what is no image by its
/// content is left out here, and images that turn out to be broken are left out of the result.
fn list_images(path: &Path) -> Result<(Vec<String>, Vec<PathBuf>)> {
    let failed = || format!("cannot read the images {}", path.display());
    let hint = || "--images takes a folder of images, or a text file with one path a line";
    let (names, paths): (Vec<String>, Vec<PathBuf>) = if path.is_dir() {
        let (mut found, mut others) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(path).context(failed)? {
            let entry = entry.context(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !entry.path().is_file() || name.starts_with('.') {
                continue;
            }
            if image::is_image(&entry.path()) { found.push((name, entry.path())) } else { others.push(name) }
        }
        found.sort();
        others.sort();
        if !others.is_empty() {
            tracing::warn!("left out {} files that are no images: {}", others.len(), first_few(&others));
        }
        found.into_iter().unzip()
    } else {
        let list = read_all(path).context(|| "cannot read the images").hint(hint)?;
        let lines = list.iter().map(|line| line.trim()).filter(|line| !line.is_empty());
        let listed: (_, Vec<PathBuf>) = lines.map(|line| (line.to_owned(), line.into())).unzip();
        images::check_all(&listed.1).context(failed).hint(|| "mend the list or the files; nothing was embedded")?;
        listed
    };
    if paths.is_empty() {
        return Err(Error::new("no image").context(failed()).hint(hint()));
    }
    Ok((names, paths))
}

//! Texts and images to vectors in a safetensors file.

use std::path::{Path, PathBuf};
use std::time::Instant;

use toml::Table;

use super::baseline::load_mclip;
use super::towers::{StudentTexts, TeacherImages, TeacherTexts, expect_finite, normalise};
use super::vectors::{Metadata, Vectors};
use super::{ImageEmbedder, TextEmbedder, images};
use crate::compute::Compute;
use crate::config::Config;
use crate::data::text::{Blocks, read_all};
use crate::data::tokens::TextTokenizer;
use crate::data::{first_few, image};
use crate::error::{Error, Result, ResultExt};
use crate::fs::output::Output;
use crate::fs::{distinct, shown};
use crate::hub::Part;
use crate::models::{ClipText, MclipConfig};
use crate::runs::Trained;
use crate::signals;
use crate::ui::console::progress;
use crate::ui::model_folder;

/// Texts that are read, tokenized, embedded and written before the next ones: memory holds no more of them.
const TEXTS_AT_ONCE: usize = 1024;
/// Batches of images that are embedded before their vectors are written.
const BATCHES_AT_ONCE: usize = 64;

const TEXTS: &str = "text_embeds";
const IMAGES: &str = "image_embeds";

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
    /// The safetensors file to write; - is standard output.
    pub output: &'a Path,
    /// Give every vector length 1.
    pub normalize: bool,
    /// Images embedded at once.
    pub batch_size: usize,
    /// Where and with which operations they are computed.
    pub compute: Compute,
}

/// What an output holds.
#[derive(Clone, Copy, Debug)]
pub struct Embedded {
    /// How many texts, where texts were asked for.
    pub texts: Option<u64>,
    /// How many images, likewise.
    pub images: Option<usize>,
    /// Whether standard output has the vectors, so that nothing else may be printed there.
    pub to_stdout: bool,
}

/// Embeds what was asked for and writes one safetensors file. The output is opened first, and the input checked as far as
/// it can be read twice: what cannot be done is found out before the work.
pub fn embed(request: Request) -> Result<Embedded> {
    let Request { model, settings, texts, images, output, normalize, batch_size, compute } = request;
    let output = Output::open(output, "with --output")?;
    signals::end_after(output.undo())?;
    let to_stdout = output.is_stdout();
    let mut texts = texts.map(Texts::open).transpose()?;
    let images = images.map(list_images).transpose()?;
    let (source, folder) = open(model, &settings, texts.is_some(), images.is_some())?;
    let transparency = match &source {
        Found::Trained(trained) => trained.config.evaluation.transparency,
        _ => Config::resolve(None, settings)?.evaluation.transparency,
    };
    let noted = |names: &[&String]| -> Result<Metadata> {
        Ok([("image_names", serde_json::to_string(names)?), ("transparency", transparency.name().to_owned())].into())
    };
    let all = images.as_ref().map(|(names, _)| names.iter().collect::<Vec<_>>());
    let longest = all.as_deref().map(noted).transpose()?.unwrap_or_default();
    let tensors: Vec<_> =
        [texts.as_ref().map(|_| TEXTS), images.as_ref().map(|_| IMAGES)].into_iter().flatten().collect();
    let mut vectors = Vectors::start(output, &tensors, &longest)?;
    if let Some(texts) = &mut texts {
        match &source {
            Found::Trained(trained) => {
                let (student, tokenizer) = trained.load(&compute)?;
                texts.embed(&StudentTexts::new(&student, &tokenizer, &folder, &compute)?, normalize, &mut vectors)?;
            }
            Found::Clip => {
                let teacher = ClipText::load(&folder, &compute)?;
                let tokenizer = TextTokenizer::from_folder(&folder, teacher.max_tokens())?;
                texts.embed(&TeacherTexts { tokenizer: &tokenizer, teacher: &teacher }, normalize, &mut vectors)?;
            }
            Found::Mclip(config) => {
                texts.embed(&load_mclip("--model", &folder, config, &compute)?, normalize, &mut vectors)?;
            }
        }
    }
    let mut metadata = Metadata::new();
    let mut kept = None;
    if let Some((names, paths)) = &images {
        let tower = TeacherImages::load(&folder, transparency, &compute)?;
        let names: Vec<_> =
            embed_images(paths, &tower, batch_size, normalize, &mut vectors)?.iter().map(|&k| &names[k]).collect();
        kept = Some(names.len());
        metadata = noted(&names)?;
    }
    vectors.finish(&metadata)?;
    Ok(Embedded { texts: texts.map(|texts| texts.done), images: kept, to_stdout })
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

/// Texts, one a line, from a file or (`-`) standard input; an empty line is an empty text. No text is changed.
struct Texts<'a> {
    path: &'a Path,
    blocks: Blocks,
    /// Texts of `blocks` that have been read and not embedded.
    first: Vec<String>,
    /// How many there are, where that is known before they are read.
    count: Option<u64>,
    done: u64,
}

impl<'a> Texts<'a> {
    /// Opens the texts at `path`. A file is read to its end first, a pipe as far as one block goes: what is wrong there is
    /// an error before any work.
    fn open(path: &'a Path) -> Result<Self> {
        let what = || "cannot read the texts";
        let open = || Blocks::open(path).context(what).hint(|| "--texts takes a text file, or - for standard input");
        let mut texts = Self { path, blocks: open()?, first: Vec::new(), count: None, done: 0 };
        let mut block = texts.blocks.next(TEXTS_AT_ONCE).context(what)?;
        if block.is_empty() {
            return Err(Error::new(format!("no text in {}", shown(path))).context(what()).hint("one text a line"));
        }
        if path == Path::new("-") || !path.is_file() {
            texts.first = block;
            return Ok(texts);
        }
        let mut count = 0;
        while !block.is_empty() {
            count += block.len() as u64;
            block = texts.blocks.next(TEXTS_AT_ONCE).context(what)?;
        }
        Ok(Self { blocks: open()?, count: Some(count), ..texts })
    }

    /// Embeds all texts, in order, as the next tensor of `vectors`.
    fn embed(&mut self, towers: &dyn TextEmbedder, normalized: bool, vectors: &mut Vectors) -> Result<()> {
        let began = Instant::now();
        let bar = progress(self.count.unwrap_or(0), "texts");
        vectors.tensor(TEXTS, towers.dim());
        loop {
            let block = match std::mem::take(&mut self.first) {
                first if first.is_empty() => self.blocks.next(TEXTS_AT_ONCE).context(|| "cannot read the texts")?,
                first => first,
            };
            if block.is_empty() {
                break;
            }
            let (first, last) = (self.done + 1, self.done + block.len() as u64);
            let rows = towers.embed(&block).and_then(|rows| finish(rows, towers.dim(), normalized));
            vectors.append(&rows.context(|| format!("texts {first} to {last}"))?)?;
            self.done = last;
            bar.set_length(self.count.unwrap_or(last));
            bar.set(last);
        }
        if let Some(count) = self.count.filter(|count| *count != self.done) {
            let what = format!("{} had {count} lines, and then {}", shown(self.path), self.done);
            return Err(Error::new(what).hint("leave the file as it is while its texts are embedded"));
        }
        log_speed(self.done, "texts", began);
        Ok(())
    }
}

/// Embeds the images that can be read as the next tensor of `vectors`; returns their indices.
fn embed_images(
    paths: &[PathBuf], tower: &TeacherImages, batch_size: usize, normalized: bool, vectors: &mut Vectors,
) -> Result<Vec<usize>> {
    let began = Instant::now();
    let bar = progress(paths.len() as u64, "images");
    vectors.tensor(IMAGES, tower.dim());
    let (mut kept, mut unread, mut start) = (Vec::new(), Vec::new(), 0);
    for part in paths.chunks(batch_size.saturating_mul(BATCHES_AT_ONCE)) {
        let part_of = |done: u64| start as u64 + done;
        let embedded = images::embed(part, tower, batch_size, normalized, &|done, _| bar.set(part_of(done)))?;
        kept.extend(embedded.kept.iter().map(|k| start + k));
        unread.extend(embedded.failed);
        vectors.append(&finish(embedded.rows, tower.dim(), false)?)?;
        start += part.len();
    }
    images::report(&unread, paths.len())?;
    log_speed(paths.len() as u64, "images", began);
    Ok(kept)
}

/// Logs how fast it went, loading not counted.
fn log_speed(count: u64, what: &str, began: Instant) {
    let secs = began.elapsed().as_secs_f64();
    tracing::info!("{count} {what} in {secs:.3} s ({:.1} a second)", count as f64 / secs);
}

fn finish(mut rows: Vec<f32>, dim: usize, normalized: bool) -> Result<Vec<f32>> {
    if normalized {
        normalise(&mut rows, dim);
    }
    expect_finite(&rows, dim)?;
    Ok(rows)
}

/// Names and paths: the images of a folder, sorted, or those that a list names, one a line. A list means every file that
/// it names, so one that cannot be used is an error, before any work. A folder may hold anything: what is no image by its
/// content is left out here, and images that turn out to be broken are left out of the result.
fn list_images(path: &Path) -> Result<(Vec<String>, Vec<PathBuf>)> {
    let failed = || format!("cannot read the images {}", shown(path));
    let hint = || "--images takes a folder of images, or a text file with one path a line";
    let (names, paths): (Vec<String>, Vec<PathBuf>) = if path.is_dir() {
        let (mut found, mut others) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(path).context(failed)? {
            let entry = entry.context(failed)?;
            let name = distinct(&entry.file_name());
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

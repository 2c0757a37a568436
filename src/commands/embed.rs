//! `themo embed`: texts and images to vectors in a file, for users and for checking against other implementations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Tensor;

use crate::cli::EmbedArgs;
use crate::commands::baseline::load_mclip;
use crate::config::Config;
use crate::data::text::read_all;
use crate::data::tokens::TextTokenizer;
use crate::data::{first_few, image};
use crate::device;
use crate::error::{Error, Result, ResultExt};
use crate::eval::images;
use crate::eval::towers::{StudentTexts, TeacherImages, TeacherTexts, expect_finite, normalise};
use crate::eval::{ImageEmbedder, TextEmbedder};
use crate::fs::write_atomic;
use crate::hub::Part;
use crate::models::weights::to_bytes;
use crate::models::{ClipText, MclipConfig};
use crate::nn::Compute;
use crate::runs::trained::Trained;
use crate::ui::console::{print, progress};
use crate::ui::model_folder;

/// Texts tokenized and embedded between two steps of the progress bar.
const TEXTS_AT_ONCE: usize = 1024;

/// Whose vectors are asked for.
enum Source {
    Trained(Box<Trained>),
    Clip,
    Mclip(MclipConfig),
}

/// Embeds what was asked for and writes one safetensors file.
pub fn run(args: &EmbedArgs) -> Result<()> {
    if args.texts.is_none() && args.images.is_none() {
        return Err(Error::usage("nothing to embed").hint("give --texts FILE, --images FOLDER, or both"));
    }
    if args.output.is_dir() || args.output == Path::new("-") {
        return Err(Error::usage(format!("--output {} is no file to write", args.output.display()))
            .hint("give the name of a file, such as vectors.safetensors"));
    }
    if let (Some(texts), Some(images)) = (&args.texts, &args.images)
        && [texts, images].iter().all(|path| path.as_os_str() == "-")
    {
        return Err(Error::usage("--texts and --images cannot both be standard input").hint("give one of them a file"));
    }
    let texts = args.texts.as_deref().map(read_texts).transpose()?;
    let images = args.images.as_deref().map(list_images).transpose()?;
    let compute = Compute::with_precision(device::select(&args.device)?, args.precision.parse()?)?;
    let mut parts = vec![Part::Weights];
    parts.extend(images.as_ref().map(|_| Part::Images));
    let (source, folder) = match (&args.version_path, &args.model) {
        (Some(path), _) => {
            let trained = Trained::open(path, args.settings())?;
            let folder = model_folder("--teacher", &trained.config.teacher, &parts)?;
            (Source::Trained(trained.into()), folder)
        }
        (None, Some(model)) => {
            parts.extend(texts.as_ref().map(|_| Part::TokenizerIfAny));
            let folder = model_folder("--model", model, &parts)?;
            (MclipConfig::find(&folder)?.map_or(Source::Clip, Source::Mclip), folder)
        }
        (None, None) => return Err(Error::usage("no model").hint("give --version-path DIR or --model DIR")),
    };
    if let (Source::Mclip(_), Some(model), true) = (&source, &args.model, images.is_some()) {
        return Err(Error::usage(format!("`{model}` is an M-CLIP, which embeds texts only")).hint(
            "embed the images with --model and the CLIP whose space it shares, such as openai/clip-vit-base-patch32",
        ));
    }

    let (mut tensors, mut metadata) = (BTreeMap::new(), BTreeMap::new());
    if let Some(texts) = &texts {
        let rows = match &source {
            Source::Trained(trained) => {
                let (student, tokenizer) = trained.load(&compute)?;
                embed_texts(texts, &StudentTexts::new(&student, &tokenizer, &folder, &compute)?, args.normalize)?
            }
            Source::Clip => {
                let teacher = ClipText::load(&folder, &compute)?;
                let tokenizer = TextTokenizer::from_folder(&folder, teacher.max_tokens())?;
                embed_texts(texts, &TeacherTexts { tokenizer: &tokenizer, teacher: &teacher }, args.normalize)?
            }
            Source::Mclip(config) => embed_texts(texts, &load_mclip(&folder, config, &compute)?, args.normalize)?,
        };
        tensors.insert("text_embeds", rows);
    }
    let mut image_names = Vec::new();
    if let Some((names, paths)) = &images {
        let transparency = match &source {
            Source::Trained(trained) => trained.config.transparency,
            _ => Config::resolve(None, args.settings())?.transparency,
        };
        let tower = TeacherImages::load(&folder, transparency, &compute)?;
        let began = Instant::now();
        let bar = progress(paths.len() as u64, "images");
        let progress = |done, _| bar.set(done);
        let embedded = images::embed_readable(paths, &tower, args.batch_size, args.normalize, &progress)?;
        told(paths.len(), "images", began);
        image_names.extend(embedded.kept.iter().map(|&k| &names[k]));
        tensors.insert("image_embeds", finish(embedded.rows, tower.dim(), false)?);
        metadata.insert("image_names".to_owned(), serde_json::to_string(&image_names)?);
        metadata.insert("transparency".to_owned(), transparency.name().to_owned());
    }
    write_atomic(&args.output, &to_bytes(tensors, metadata)?)?;
    let count = |n: Option<usize>, what: &str| n.map(|n| format!("{n} {what}"));
    let counts = [count(texts.map(|t| t.len()), "texts"), count(images.as_ref().map(|_| image_names.len()), "images")];
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    print(format!("{} to {}", counts.join(" and "), args.output.display()))
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
    told(texts.len(), "texts", began);
    finish(rows, towers.dim(), normalized)
}

/// Logs how fast it went, loading not counted.
fn told(count: usize, what: &str, began: Instant) {
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

//! A trained student as other programs load it: `themo export`.
//!
//! | file | |
//! |---|---|
//! | `sentence` | the folder of sentence-transformers, which text-embeddings-inference reads too |
//! | `open_clip` | the folder of open_clip, with both towers |
//! | `head` | pooling and projections as one matrix |
//! | `tokenizer` | the tokenizer's files |
//! | `images` | the teacher's image tower by itself |
//! | [`card`] | the model card |
//! | [`escape`] | names in YAML, Python, Markdown and shells |
//!
//! The folder appears whole, or not at all.

pub mod card;
pub mod escape;
mod head;
mod images;
mod open_clip;
mod sentence;
mod tokenizer;

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device;
use serde_json::Value;
use toml::Table;

use crate::compute::Compute;
use crate::data::tokens::TextTokenizer;
use crate::error::{Error, Result, ResultExt};
use crate::fs::{sync_dir, write_error};
use crate::hub::{Id, Kind, Part};
use crate::models::Student;
use crate::nn::{Params, Pooling};
use crate::runs::Trained;
use crate::ui::model_folder;

/// The program that is to load the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// sentence-transformers 2 to 6, and servers that read its folders.
    SentenceTransformers,
    /// open_clip 2 and 3.
    OpenClip,
}

/// What is exported, and to where.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// A run, or one of its checkpoints; see [`Trained::open`].
    pub version: &'a Path,
    /// Settings of the configuration given now.
    pub settings: Table,
    /// The folder to make; it must not exist, or be empty.
    pub output: &'a Path,
    /// Who is to load it.
    pub program: Program,
    /// Add the teacher's image tower (open_clip's folder always has it).
    pub with_images: bool,
    /// The repository of the hub where the folder will lie.
    pub hub_name: Option<&'a str>,
}

/// What was exported.
#[derive(Debug)]
pub struct Exported {
    /// The absolute path of the folder.
    pub folder: PathBuf,
    /// What its readers should know, a sentence each.
    pub notes: Vec<String>,
}

/// What an export is made of.
struct Source<'a> {
    student: &'a Student,
    tokenizer: &'a TextTokenizer,
    /// Of the tokenizer's files.
    tokenizer_folder: &'a Path,
    teacher: &'a Path,
    trained: &'a Trained,
    /// Where the folder will be found: a name on the hub, or an absolute path.
    place: &'a str,
    hub_name: Option<&'a str>,
}

/// Writes the folder.
///
/// # Errors
/// If the folder exists and is not empty, and if the program cannot compute what the student does, by name.
pub fn export(request: Request) -> Result<Exported> {
    let output = std::path::absolute(request.output)?;
    refuse_content(&output)?;
    if let Some(name) = request.hub_name
        && (Id::parse(Kind::Model, name).is_none() || name.contains('@') || !name.contains('/'))
    {
        return Err(Error::usage(format!("--hub-name {name} is no name of a repository"))
            .hint("give OWNER/NAME, such as maria/themo-base"));
    }
    let place = match (request.hub_name, output.to_str()) {
        (Some(name), _) => name,
        (None, Some(path)) => path,
        (None, None) => {
            return Err(Error::usage(format!("--output {} is not UTF-8", output.display()))
                .hint("files inside name this folder: choose another name"));
        }
    };
    let trained = Trained::open(request.version, request.settings.clone())?;
    let mut parts = vec![Part::Weights];
    let with_images = request.with_images || request.program == Program::OpenClip;
    parts.extend(with_images.then_some(Part::Images));
    let teacher = model_folder("--teacher", &trained.config.models.teacher, &parts)?;
    let compute = Compute::new(Device::Cpu);
    let (student, tokenizer, folder) = trained.load_with(&compute, || Params::new(compute.backend))?;
    let source = Source {
        student: &student,
        tokenizer: &tokenizer,
        tokenizer_folder: &folder,
        teacher: &teacher,
        trained: &trained,
        place,
        hub_name: request.hub_name,
    };
    source.check()?;

    let (parent, name) = (output.parent().unwrap_or(&output), output.file_name().unwrap_or_default());
    let failed = |e| write_error(&output, e);
    fs::create_dir_all(parent).map_err(failed)?;
    let prefix = format!(".{}.", name.to_string_lossy());
    let temporary = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).map_err(failed)?;
    // tempfile makes folders for the owner alone.
    fs::metadata(parent).and_then(|m| fs::set_permissions(temporary.path(), m.permissions())).map_err(failed)?;
    let notes = match request.program {
        Program::SentenceTransformers => sentence::write(&source, request.with_images, temporary.path())?,
        Program::OpenClip => open_clip::write(&source, temporary.path())?,
    };
    if output.exists() {
        fs::remove_dir(&output).map_err(failed)?; // (an empty one)
    }
    fs::rename(temporary.path(), &output).and_then(|()| sync_dir(parent)).map_err(failed)?;
    Ok(Exported { folder: output, notes })
}

fn refuse_content(output: &Path) -> Result<()> {
    let exists = || Error::usage(format!("--output {} exists already", output.display()));
    match fs::read_dir(output).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(exists().hint("nothing is overwritten: choose a new folder, or remove this one")),
        Err(_) if output.exists() => Err(exists().hint("it is a file: choose the name of a new folder")),
        _ => Ok(()),
    }
}

impl Source<'_> {
    /// Refuses what none of the programs can load.
    fn check(&self) -> Result<()> {
        if self.tokenizer.padding().is_none() {
            return Err(Error::new("the student's tokenizer has no padding token")
                .hint("other programs pad the texts of a batch: name one as pad_token in tokenizer_config.json"));
        }
        if self.student.head().pooling == Pooling::Last {
            return Err(Error::new("students that take the last token cannot be exported")
                .hint("train with --pooling mean or first"));
        }
        Ok(())
    }

    /// The most tokens of a text.
    fn max_tokens(&self) -> usize {
        self.tokenizer.truncation().0
    }
}

/// Writes JSON, indented.
fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_text(path, &(serde_json::to_string_pretty(value)? + "\n"))
}

/// Writes a text into a folder that is made where it is missing.
fn write_text(path: &Path, text: &str) -> Result<()> {
    let write = || fs::create_dir_all(path.parent().unwrap_or(path)).and_then(|()| fs::write(path, text));
    write().context(|| format!("cannot write {}", path.display()))
}

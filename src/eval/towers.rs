//! What is evaluated: the student, the teacher's own towers and the baseline, as things that embed texts and images.

use std::path::Path;

use candle_core::Tensor;

use super::{ImageEmbedder, TextEmbedder};
use crate::compute::Compute;
use crate::data::image::{Preprocess, Transparency, settings_file};
use crate::data::tokens::{TextTokenizer, cut_by_tokens};
use crate::error::{Error, Result, ResultExt};
use crate::models::clip_text::text_projection;
use crate::models::{ClipText, ClipVision, Mclip, MclipConfig, Student};
use crate::nn::Tokens;

/// Tokens embedded at a time; more would only take memory.
const BATCH_TOKENS: usize = 4096;
/// Patches of images embedded at a time on a CPU: what the widest layer makes of them stays in its cache.
const BATCH_PATCHES: usize = 1100;

/// Spanish texts through the student and the teacher's frozen text projection.
pub struct StudentTexts<'a> {
    student: &'a Student,
    tokenizer: &'a TextTokenizer,
    projection: Tensor, // [projection_dim, dim]
}

/// English texts through the teacher's own text tower.
pub struct TeacherTexts<'a> {
    /// The tokenizer of the tower.
    pub tokenizer: &'a TextTokenizer,
    /// The text tower with its projection.
    pub teacher: &'a ClipText,
}

/// Texts in many languages through M-CLIP, the baseline.
pub struct MclipTexts {
    /// The text tower with its linear layer.
    pub mclip: Mclip,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
}

/// Images through the teacher's image tower.
pub struct TeacherImages {
    /// The image tower with its projection.
    pub vision: ClipVision,
    /// How an image becomes its pixels.
    pub preprocess: Preprocess,
}

impl<'a> StudentTexts<'a> {
    /// Uses the text projection of the CLIP in `teacher`, and reads nothing else of it.
    pub fn new(student: &'a Student, tokenizer: &'a TextTokenizer, teacher: &Path, compute: &Compute) -> Result<Self> {
        let projection = text_projection(teacher, &compute.device).hint(|| "--teacher takes the folder of a CLIP")?;
        let (ours, theirs) = (student.dim(), projection.dim(1)?);
        if ours != theirs {
            let teacher = teacher.display();
            return Err(Error::new(format!(
                "the student gives vectors of {ours} numbers, the teacher {teacher} takes {theirs}"
            ))
            .hint("--teacher must be the CLIP that the student was trained on"));
        }
        Ok(Self { student, tokenizer, projection })
    }
}

impl TextEmbedder for StudentTexts<'_> {
    fn dim(&self) -> usize {
        self.projection.dims()[0]
    }

    fn embed(&self, texts: &[String]) -> Result<Vec<f32>> {
        let projection = self.projection.t()?;
        in_batches(&self.tokenizer.encode(texts)?, |tokens| Ok(self.student.embed(tokens)?.matmul(&projection)?))
    }
}

impl TextEmbedder for TeacherTexts<'_> {
    fn dim(&self) -> usize {
        self.teacher.projection_dim()
    }

    fn embed(&self, texts: &[String]) -> Result<Vec<f32>> {
        let mut ids = self.tokenizer.encode(texts)?;
        ids.iter_mut().try_for_each(|ids| self.teacher.cut(ids))?;
        in_batches(&ids, |tokens| self.teacher.project(&self.teacher.pooled(tokens, None)?))
    }
}

impl MclipTexts {
    /// The M-CLIP in `folder` with the tokenizer of `tokenizer_folder`.
    pub fn load(folder: &Path, tokenizer_folder: &Path, config: &MclipConfig, compute: &Compute) -> Result<Self> {
        let mclip = Mclip::load(folder, config, compute)?;
        let tokenizer = TextTokenizer::from_folder(tokenizer_folder, mclip.max_tokens())?;
        Ok(Self { mclip, tokenizer })
    }
}

impl TextEmbedder for MclipTexts {
    fn dim(&self) -> usize {
        self.mclip.dim()
    }

    fn embed(&self, texts: &[String]) -> Result<Vec<f32>> {
        in_batches(&self.tokenizer.encode(texts)?, |tokens| self.mclip.embed(tokens))
    }
}

impl TeacherImages {
    /// The image tower of the CLIP in `folder`, with its preprocessing and what becomes of transparent pixels.
    pub fn load(folder: &Path, transparency: Transparency, compute: &Compute) -> Result<Self> {
        let (vision, path) = (ClipVision::load(folder, compute)?, settings_file(folder));
        let preprocess = Preprocess::from_file(&path, transparency)?;
        let (size, (height, width)) = (vision.image_size(), preprocess.output_size());
        if (height, width) != (size, size) {
            return Err(Error::new(format!(
                "{} makes images of {height} x {width} pixels, config.json asks for {size} x {size}",
                path.display()
            ))
            .hint("fetch both files from the same place"));
        }
        Ok(Self { vision, preprocess })
    }
}

impl ImageEmbedder for TeacherImages {
    fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    fn dim(&self) -> usize {
        self.vision.projection_dim()
    }

    fn embed(&self, pixels: &[Vec<f32>]) -> Result<Vec<f32>> {
        let mut out = Vec::new();
        let most = if self.vision.device().is_cpu() { BATCH_PATCHES } else { BATCH_TOKENS };
        for part in pixels.chunks((most / self.vision.tokens()).max(1)) {
            out.extend(self.vision.embed(part)?.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(out)
    }
}

pub(super) fn in_batches(ids: &[Vec<u32>], embed: impl Fn(&Tokens) -> Result<Tensor>) -> Result<Vec<f32>> {
    let mut out = Vec::new();
    for run in cut_by_tokens(ids.iter().map(Vec::len), BATCH_TOKENS) {
        out.extend(embed(&Tokens::pack(&ids[run], 0)?)?.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(out)
}

/// Gives every row of `dim` numbers length 1.
pub fn normalise(rows: &mut [f32], dim: usize) {
    for row in rows.chunks_exact_mut(dim) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= norm);
    }
}

pub(super) fn normalised(mut rows: Vec<f32>, dim: usize) -> Result<Vec<f32>> {
    normalise(&mut rows, dim);
    expect_finite(&rows, dim)?;
    Ok(rows)
}

/// Refuses vectors of `dim` numbers of which one is not finite.
pub fn expect_finite(rows: &[f32], dim: usize) -> Result<()> {
    match rows.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::new(format!("vector {} that the model gives is not finite", at / dim + 1))
            .hint("the checkpoint may be broken: train again, or fetch it again")),
    }
}

//! What is evaluated: the student and the teacher's own towers, as things that embed texts and images.

use candle_core::{D, Device, Tensor};

use super::{ImageEmbedder, TextEmbedder};
use crate::data::image::Preprocess;
use crate::data::tokens::{TextTokenizer, cut_by_tokens};
use crate::error::Result;
use crate::models::{ClipText, ClipVision, Student};
use crate::nn::Tokens;

/// Tokens embedded at a time; more would only take memory.
const BATCH_TOKENS: usize = 4096;

/// Spanish texts through the student and the teacher's frozen text projection.
pub struct StudentTexts<'a> {
    pub student: &'a Student,
    pub tokenizer: &'a TextTokenizer,
    pub teacher: &'a ClipText,
}

/// English texts through the teacher's own text tower.
pub struct TeacherTexts<'a> {
    pub tokenizer: &'a TextTokenizer,
    pub teacher: &'a ClipText,
}

/// Images through the teacher's image tower.
pub struct TeacherImages {
    pub vision: ClipVision,
    pub preprocess: Preprocess,
}

impl TextEmbedder for StudentTexts<'_> {
    fn dim(&self) -> usize {
        self.teacher.projection_dim()
    }

    fn embed_texts(&self, texts: &[String]) -> Result<Vec<f32>> {
        in_batches(&self.tokenizer.encode(texts)?, |tokens| self.teacher.project(&self.student.embed(tokens)?))
    }
}

impl TextEmbedder for TeacherTexts<'_> {
    fn dim(&self) -> usize {
        self.teacher.projection_dim()
    }

    fn embed_texts(&self, texts: &[String]) -> Result<Vec<f32>> {
        let mut ids = self.tokenizer.encode(texts)?;
        ids.iter_mut().try_for_each(|ids| self.teacher.cut(ids))?;
        in_batches(&ids, |tokens| self.teacher.project(&self.teacher.pooled(tokens, None)?))
    }
}

impl ImageEmbedder for TeacherImages {
    fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    fn dim(&self) -> usize {
        self.vision.projection_dim()
    }

    fn embed_images(&self, pixels: &[Vec<f32>]) -> Result<Vec<f32>> {
        let size = self.vision.image_size();
        let shape = (pixels.len(), pixels.first().map_or(0, |p| p.len() / (size * size)), size, size);
        normalised(&self.vision.embed(&Tensor::from_vec(pixels.concat(), shape, &Device::Cpu)?)?)
    }
}

fn in_batches(ids: &[Vec<u32>], embed: impl Fn(&Tokens) -> Result<Tensor>) -> Result<Vec<f32>> {
    let mut out = Vec::new();
    for run in cut_by_tokens(ids.iter().map(Vec::len), BATCH_TOKENS) {
        out.extend(normalised(&embed(&Tokens::pack(&ids[run], 0)?)?)?);
    }
    Ok(out)
}

/// L2-normalised rows, one after another.
fn normalised(x: &Tensor) -> Result<Vec<f32>> {
    let norm = x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    Ok(x.broadcast_div(&norm)?.flatten_all()?.to_vec1()?)
}

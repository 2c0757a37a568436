//! A trained student, measured on the sets.

use super::provenance::describe;
use super::towers::{StudentTexts, TeacherImages, TeacherTexts};
use super::{ImageEmbedder, Language, Results, Suite, TextEmbedder};
use crate::compute::Compute;
use crate::data::tokens::TextTokenizer;
use crate::error::{Error, Result};
use crate::hub::Part;
use crate::models::ClipText;
use crate::runs::Trained;
use crate::ui::model_folder;

/// How a student is measured.
#[derive(Clone, Copy, Debug)]
pub struct Measuring<'a> {
    /// The CLIP of the images, where it is not the student's teacher: a folder or a name on the hub.
    pub vision: Option<&'a str>,
    /// Measure the teacher with English texts too.
    pub with_teacher: bool,
    /// Images embedded at once.
    pub batch_size: usize,
}

/// The figures of a trained student on `sets`, and of its teacher if that is asked for.
pub fn measure(how: Measuring, trained: &Trained, sets: &Suite, compute: &Compute) -> Result<Results> {
    let (config, other_vision) = (&trained.config, how.vision);
    let mut parts = vec![Part::Weights];
    parts.extend(how.with_teacher.then_some(Part::Tokenizer));
    parts.extend(other_vision.is_none().then_some(Part::Images));
    let teacher_dir = model_folder("--teacher", &config.models.teacher, &parts)?;
    let vision_dir = match other_vision {
        Some(name) => model_folder("--vision", name, &[Part::Weights, Part::Images])?,
        None => teacher_dir.clone(),
    };
    let (student, tokenizer) = trained.load(compute)?;
    let ours = StudentTexts::new(&student, &tokenizer, &teacher_dir, compute)?;
    let teacher = if how.with_teacher {
        let teacher = ClipText::load(&teacher_dir, compute)?;
        let tokenizer = TextTokenizer::from_folder(&teacher_dir, teacher.max_tokens())?;
        Some((teacher, tokenizer))
    } else {
        None
    };
    let vision = other_vision.unwrap_or(&config.models.teacher);
    let images = TeacherImages::load(&vision_dir, config.evaluation.transparency, compute)?;
    if images.dim() != ours.dim() {
        let (theirs, ours) = (images.dim(), ours.dim());
        return Err(Error::new(format!(
            "{vision} embeds images in {theirs} numbers, {} embeds texts in {ours}",
            config.models.teacher
        ))
        .hint("--vision takes a CLIP whose images share the space of the teacher's texts"));
    }
    let checkpoint = trained.checkpoint();
    tracing::info!("checkpoint {}, images through {vision}", checkpoint.display());

    let embedded = sets.embed_images(&images, how.batch_size)?;
    let mut report = sets.measure(&ours, &embedded, Language::Spanish)?;
    report.measured = Some(describe(&checkpoint, vision, config, sets, compute));
    if let Some((teacher, tokenizer)) = &teacher {
        let own = TeacherTexts { tokenizer, teacher };
        report.teacher = Some(Box::new(sets.measure(&own, &embedded, Language::English)?));
    }
    Ok(report)
}

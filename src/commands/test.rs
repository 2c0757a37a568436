//! `themo test`.

use crate::cli::TestArgs;
use crate::commands::baseline;
use crate::commands::evaluation::{Language, Sets};
use crate::config::Config;
use crate::data::tokens::TextTokenizer;
use crate::device;
use crate::error::{Error, Result};
use crate::eval::published::{Table, published};
use crate::eval::report::Report;
use crate::eval::towers::{StudentTexts, TeacherImages, TeacherTexts};
use crate::eval::{ImageEmbedder, TextEmbedder};
use crate::hub::Part;
use crate::models::ClipText;
use crate::nn::Compute;
use crate::runs::trained::Trained;
use crate::ui::console::print;
use crate::ui::model_folder;

/// Measures a run's student, the baseline or both, prints the figures, and writes them into the run folder.
pub fn run(args: &TestArgs) -> Result<()> {
    if args.published {
        return if args.json { print(serde_json::to_string_pretty(&published())?) } else { print(Table) };
    }
    // Everything that may be missing is looked for before a model runs.
    let trained = args.version_path.as_deref().map(|path| Trained::open(path, args.settings()?)).transpose()?;
    let config = match &trained {
        Some(trained) => trained.config.clone(),
        None => Config::resolve(None, args.settings()?)?,
    };
    let sets = Sets::load(args, &config)?;
    let compute = Compute::with_precision(device::select(&config.device)?, config.precision)?;
    // (One after the other: both at once would take the memory of both.)
    let baseline = args.baseline.then(|| baseline::measure(args, &config, &sets, &compute)).transpose()?;
    let Some(trained) = trained else {
        let report = Report { transparency: Some(config.transparency), ..baseline.unwrap_or_default() };
        return if args.json { print(report.to_json()?) } else { print(report) };
    };
    let mut report = measure_student(args, &trained, &sets, &compute)?;
    report.baseline = baseline.map(Box::new);
    report.transparency = Some(config.transparency);
    report.write(&trained.eval)?;
    if args.json { print(report.to_json()?) } else { print(format!("{report}\nWritten to {}", trained.eval.display())) }
}

/// The trained student, and its teacher if that is asked for.
fn measure_student(args: &TestArgs, trained: &Trained, sets: &Sets, compute: &Compute) -> Result<Report> {
    let config = &trained.config;
    // (With --baseline, --vision is that of the baseline.)
    let other_vision = args.vision.as_ref().filter(|_| !args.baseline);
    let mut parts = vec![Part::Weights];
    parts.extend(args.with_teacher.then_some(Part::Tokenizer));
    parts.extend(other_vision.is_none().then_some(Part::Images));
    let teacher_dir = model_folder("--teacher", &config.teacher, &parts)?;
    let vision_dir = match other_vision {
        Some(name) => model_folder("--vision", name, &[Part::Weights, Part::Images])?,
        None => teacher_dir.clone(),
    };
    let (student, tokenizer) = trained.load(compute)?;
    let ours = StudentTexts::new(&student, &tokenizer, &teacher_dir, compute)?;
    let teacher = if args.with_teacher {
        let teacher = ClipText::load(&teacher_dir, compute)?;
        let tokenizer = TextTokenizer::from_folder(&teacher_dir, teacher.max_tokens())?;
        Some((teacher, tokenizer))
    } else {
        None
    };
    let vision = other_vision.unwrap_or(&config.teacher);
    let images = TeacherImages::load(&vision_dir, config.transparency, compute)?;
    if images.dim() != ours.dim() {
        let (theirs, ours) = (images.dim(), ours.dim());
        return Err(Error::new(format!(
            "{vision} embeds images in {theirs} numbers, {} embeds texts in {ours}",
            config.teacher
        ))
        .hint("--vision takes a CLIP whose images share the space of the teacher's texts"));
    }
    tracing::info!("checkpoint {}, images through {vision}", trained.checkpoint.display());

    let embedded = sets.embed_images(&images, args.batch_size)?;
    let mut report = sets.measure(&ours, &embedded, Language::Spanish)?;
    if let Some((teacher, tokenizer)) = &teacher {
        let own = TeacherTexts { tokenizer, teacher };
        report.teacher = Some(Box::new(sets.measure(&own, &embedded, Language::English)?));
    }
    Ok(report)
}

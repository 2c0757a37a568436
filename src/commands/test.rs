//! `themo test`.

use crate::cli::{Benchmark, TestArgs};
use crate::compute::Compute;
use crate::compute::device;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::eval::baseline::{self, Baseline};
use crate::eval::student::{self, Measuring};
use crate::eval::{Results, Suite, Wanted};
use crate::report::published::{Table, published};
use crate::report::queries;
use crate::runs::Trained;
use crate::ui::console::print;

/// Measures a run's student, the baseline or both, prints the figures, and writes them into the run folder.
pub fn run(args: &TestArgs) -> Result<()> {
    if args.published {
        let rows = published()?;
        return if args.json { print(serde_json::to_string_pretty(&rows)?) } else { print(Table(rows)) };
    }
    // Everything that may be missing is looked for before a model runs.
    let trained = args.version_path.as_deref().map(|path| Trained::open(path, args.settings()?)).transpose()?;
    let config = match &trained {
        Some(trained) => trained.config.clone(),
        None => Config::resolve(None, args.settings()?)?,
    };
    let (retrieval, classification) = (args.retrieval_sets()?, args.wants(Benchmark::Classification));
    let sets = Suite::load(Wanted { retrieval, classification, english: args.with_teacher }, &config)?;
    let compute = Compute::with_precision(device::select(&config.run.device)?, config.run.precision)?;
    let (vision, batch_size) = (args.vision.as_deref(), args.batch_size);
    // (One after the other: both at once would take the memory of both.)
    let which = Baseline { model: &args.baseline_model, vision, batch_size };
    let mut unwritten = Vec::new();
    let baseline =
        args.baseline.then(|| baseline::measure(which, &config, &sets, &compute, &mut unwritten)).transpose()?;
    let transparency = Some(config.evaluation.transparency);
    let Some(trained) = trained else {
        let results = Results { transparency, ..baseline.unwrap_or_default() };
        return show(&results, args.json).and(account_for(unwritten));
    };
    // (With --baseline, --vision is that of the baseline.)
    let how = Measuring { vision: vision.filter(|_| !args.baseline), with_teacher: args.with_teacher, batch_size };
    let measured = student::measure(how, &trained, &sets, &compute)?;
    let results = Results { baseline: baseline.map(Box::new), transparency, ..measured };
    // Printed before they are written, and written even if they cannot be printed: nothing that was computed is lost.
    let mut shown = show(&results, args.json);
    let not_in_run = results.write(&trained.eval);
    if not_in_run.is_empty() && !args.json {
        shown = shown.and_then(|()| print(format!("Written to {}", trained.eval.display())));
    }
    unwritten.extend(not_in_run);
    unwritten.extend(queries::write(&sets, &results, &trained.eval).err());
    shown.and(account_for(unwritten))
}

fn show(results: &Results, json: bool) -> Result<()> {
    if json { print(results.to_json()?) } else { print(results) }
}

/// Warns of each file that could not be written; an error if there are any.
fn account_for(unwritten: Vec<Error>) -> Result<()> {
    unwritten.iter().for_each(|error| tracing::warn!("{error}"));
    let hint = unwritten.iter().find_map(Error::advice).unwrap_or("try again");
    match unwritten.len() {
        0 => Ok(()),
        n => Err(Error::new(format!(
            "the figures above stand, but {n} of the files that keep them could not be written"
        ))
        .hint(hint)),
    }
}

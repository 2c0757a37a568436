//! What figures were measured with: all that tells two results apart.

use std::path::Path;

use serde_json::{Value, json};

use super::Suite;
use crate::cache::{Digests, Key};
use crate::clock;
use crate::compute::Compute;
use crate::config::Config;
use crate::error::Result;
use crate::record::environment::{commit, cpu};

/// The `measured` object of results: the models and settings, the data with a fingerprint for each set, the build, the
/// processor and the time. `vision` is the tower of the images.
pub fn describe(checkpoint: &Path, vision: &str, config: &Config, sets: &Suite, compute: &Compute) -> Value {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or(path.to_owned()).display().to_string();
    // Only a description: what was measured stands, also where the cache cannot be written.
    let fingerprints = fingerprints(sets, &config.data.cache_dir).unwrap_or_else(|error| {
        tracing::warn!("the results have no fingerprint of their data: {error}");
        Value::Null
    });
    json!({
        "checkpoint": absolute(checkpoint),
        "teacher": config.models.teacher,
        "vision": vision,
        "precision": config.run.precision,
        "operations": format!("{:?}", compute.backend).to_lowercase(),
        "transparency": config.evaluation.transparency.name(),
        "prompt": config.evaluation.prompt,
        "english-prompt": config.evaluation.english_prompt,
        "data-dir": absolute(&config.data.data_dir),
        "data": fingerprints,
        "version": env!("CARGO_PKG_VERSION"),
        "commit": commit(),
        "cpu": cpu(),
        "time": clock::now().as_secs(),
    })
}

/// Of each set, one of its captions or prompts, its images and which belong together.
fn fingerprints(sets: &Suite, cache_dir: &Path) -> Result<Value> {
    let mut digests = Digests::open(cache_dir);
    let name = |identify: &dyn Fn(&mut Key, &mut Digests) -> Result<()>, digests: &mut Digests| {
        let mut key = Key::new("evaluation set");
        identify(&mut key, digests).map(|()| key.name())
    };
    let mut found = serde_json::Map::new();
    for set in &sets.retrieval {
        found.insert(set.name().to_owned(), name(&|k, d| set.identify(k, d), &mut digests)?.into());
    }
    if let Some(set) = &sets.classification {
        found.insert("classification".to_owned(), name(&|k, d| set.identify(k, d), &mut digests)?.into());
    }
    digests.keep();
    Ok(Value::Object(found))
}

//! `themo embed`: texts and images to vectors in a file, for users and for checking against other implementations.

use crate::cli::EmbedArgs;
use crate::compute::Compute;
use crate::compute::device;
use crate::error::{Error, Result};
use crate::eval::embed::{Model, Request, embed};
use crate::fs::shown;
use crate::ui::console::print;

/// Embeds what was asked for, writes one safetensors file and prints what it holds.
pub fn run(args: &EmbedArgs) -> Result<()> {
    if args.texts.is_none() && args.images.is_none() {
        return Err(Error::usage("nothing to embed").hint("give --texts FILE, --images FOLDER, or both"));
    }
    if let (Some(texts), Some(images)) = (&args.texts, &args.images)
        && [texts, images].iter().all(|path| path.as_os_str() == "-")
    {
        return Err(Error::usage("--texts and --images cannot both be standard input").hint("give one of them a file"));
    }
    let model = match (&args.version_path, &args.model) {
        (Some(path), _) => Model::Version(path),
        (None, Some(model)) => Model::Named(model),
        (None, None) => return Err(Error::usage("no model").hint("give --version-path DIR or --model DIR")),
    };
    let compute = Compute::with_precision(device::select(&args.device)?, args.precision.parse()?)?;
    let done = embed(Request {
        model,
        settings: args.settings(),
        texts: args.texts.as_deref(),
        images: args.images.as_deref(),
        output: &args.output,
        normalize: args.normalize,
        batch_size: args.batch_size,
        compute,
    })?;
    let texts = done.texts.map(|n| format!("{n} texts"));
    let images = done.images.map(|n| format!("{n} images"));
    let counts: Vec<String> = [texts, images].into_iter().flatten().collect();
    let told = format!("{} to {}", counts.join(" and "), shown(&args.output));
    if done.to_stdout {
        tracing::info!("{told}");
        return Ok(());
    }
    print(told)
}

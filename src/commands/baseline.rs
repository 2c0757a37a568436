//! The baseline: M-CLIP with CLIP's images.

use std::path::Path;

use crate::data::tokens::TOKENIZER_FILES;
use crate::error::{Result, ResultExt};
use crate::eval::towers::MclipTexts;
use crate::hub;
use crate::models::MclipConfig;
use crate::nn::Compute;

/// The M-CLIP in `folder`, with its own tokenizer's files, or those of the model that it is built on.
pub fn load_mclip(folder: &Path, config: &MclipConfig, compute: &Compute) -> Result<MclipTexts> {
    let mut vocabularies =
        TOKENIZER_FILES.iter().filter(|name| !name.ends_with("_config.json") && !name.ends_with("_map.json"));
    let complete = vocabularies.any(|name| folder.join(name).exists());
    let tokenizer = match complete {
        true => folder.to_owned(),
        false => hub::model_folder(&config.model_base)
            .context(|| format!("{} has no tokenizer; it is that of `{}`", folder.display(), config.model_base))
            .hint(|| format!("put tokenizer.json or sentencepiece.bpe.model of `{}` there", config.model_base))?,
    };
    MclipTexts::load(folder, &tokenizer, config, compute)
}

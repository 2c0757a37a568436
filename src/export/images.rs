//! The teacher's image tower by itself: transformers' CLIPVisionModelWithProjection and its preprocessing.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use super::write_json;
use crate::data::image::{Preprocess, Transparency, settings_file, settings_json};
use crate::error::{Error, Result};
use crate::models::clip::{ClipConfig, find_tower};
use crate::models::kinds::{Kind, Role};
use crate::models::weights::{Weights, write_model};

/// The last part of the name of the patches' kernel, by which the tower is found.
const PATCHES: &str = "embeddings.patch_embedding.weight";

/// The tensors of the image tower of the CLIP in `folder` under the names within the tower, f32, and the projection
/// `[projection_dim, hidden]`.
pub(super) fn tower(folder: &Path) -> Result<(BTreeMap<String, Tensor>, Tensor)> {
    let mut weights = Weights::open(folder, &Device::Cpu)?;
    let outer = find_tower(&mut weights, PATCHES)?;
    let (whole, prefix) = (weights.below(""), weights.prefix());
    let mut tensors = BTreeMap::new();
    let parts = ["embeddings.", "pre_layrnorm.", "encoder.", "post_layernorm."];
    for name in weights.names() {
        let Some(inner) = name.strip_prefix(prefix).filter(|inner| parts.iter().any(|part| inner.starts_with(part)))
        else {
            continue;
        };
        if !inner.ends_with("position_ids") {
            tensors.insert(inner.to_owned(), whole.get_unchecked(name)?.detach());
        }
    }
    let projection = whole.get_unchecked(&format!("{outer}visual_projection.weight"))?.detach();
    Ok((tensors, projection))
}

/// Writes the tower of the CLIP in `teacher` into the new folder `folder`; returns its class in transformers.
pub(super) fn write(teacher: &Path, folder: &Path) -> Result<String> {
    let config = ClipConfig::from_folder(teacher)?;
    let kind = match config.kind.role {
        Role::ClipVision => Some(config.kind),
        _ => Kind::of_type(&format!("{}_vision_model", config.kind.model_type)),
    };
    let kind = kind.ok_or_else(|| Error::new(format!("a {} has no image tower of its own", config.kind.model_type)))?;
    Preprocess::from_file(&settings_file(teacher), Transparency::Drop)?; // refuses what is not understood
    let class = format!("{}ModelWithProjection", kind.class);
    let mut file = serde_json::to_value(config.vision()?)?;
    file["architectures"] = json!([class]);
    file["model_type"] = json!(kind.model_type);
    file["projection_dim"] = json!(config.projection_dim);
    file["dtype"] = json!("float32");
    file["attention_dropout"] = json!(0.0);
    write_json(&folder.join("config.json"), &file)?;
    let mut settings = settings_json(teacher)?;
    if let Value::Object(settings) = &mut settings {
        settings.remove("processor_class"); // of texts and images together
    }
    write_json(&folder.join("preprocessor_config.json"), &settings)?;
    let (tower, projection) = tower(teacher)?;
    let mut tensors: BTreeMap<_, _> =
        tower.into_iter().map(|(name, tensor)| (format!("vision_model.{name}"), tensor)).collect();
    tensors.insert("visual_projection.weight".to_owned(), projection);
    write_model(tensors, &folder.join("model.safetensors"))?;
    Ok(class)
}

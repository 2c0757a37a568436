//! The folder of open_clip: student, merged projection and image tower in one file of weights.
//!
//! Source: open_clip 3.3 (`hf_model.py`, `model.py`, `transformer.py`, `factory.py`). The text tower's linear layer has
//! no bias there; the image tower has OpenAI's names and layout, with queries, keys and values in one matrix.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

use super::card::{self, Card};
use super::head::{Dense, Head};
use super::{Program, Source, images, tokenizer, write_json, write_text};
use crate::data::image::openai_normalisation;
use crate::error::{Error, Result, ResultExt};
use crate::models::TokenizerFacts;
use crate::models::clip::{ClipConfig, VisionConfig};
use crate::models::folder::read_json;
use crate::models::weights::{Weights, write_model};
use crate::nn::Pooling;

/// The `model_type`s of text towers that open_clip builds (`hf_configs.py`), of those that themo trains.
const TEXT_TOWERS: [&str; 3] = ["bert", "roberta", "xlm-roberta"];

/// A CLIP's logit scale before training (Radford et al. 2021, 2.5), where a file has none.
const INITIAL_LOGIT_SCALE: f64 = 2.659_260_036_932_778; // ln(1 / 0.07)

const HINT: &str = "export it with --for sentence-transformers";

/// Writes the folder; returns what its readers should know.
pub(super) fn write(source: &Source, folder: &Path) -> Result<Vec<String>> {
    let weight = projection(source)?;
    let kind = source.student.config().kind.model_type;
    if !TEXT_TOWERS.contains(&kind) {
        let what = format!("open_clip has no text tower of the type {kind}, only {}", TEXT_TOWERS.join(", "));
        return Err(Error::new(what).hint(HINT));
    }
    let config = ClipConfig::from_folder(source.teacher)?;
    let vision = vision_config(&config)?;
    let facts = TokenizerFacts { padding: source.tokenizer.padding(), class: Some(source.tokenizer.class()) };
    source.student.save_config(folder, facts)?;
    without_dropout(&folder.join("config.json"))?;
    tokenizer::write(source, folder)?;

    let mut tensors = BTreeMap::new();
    for (name, tensor) in source.student.encoder_tensors()? {
        tensors.insert(format!("text.transformer.{name}"), tensor);
    }
    tensors.insert("text.proj.weight".to_owned(), weight.contiguous()?);
    tensors.insert("logit_scale".to_owned(), logit_scale(source.teacher)?);
    let (tower, projection) = images::tower(source.teacher)?;
    for (name, tensor) in as_openai(tower, config.vision()?)? {
        tensors.insert(format!("visual.{name}"), tensor);
    }
    tensors.insert("visual.proj".to_owned(), projection.t()?.contiguous()?);
    write_model(tensors, &folder.join("open_clip_model.safetensors"))?;

    let [mean, std] = openai_normalisation(source.teacher, config.vision()?.image_size as u32).hint(|| HINT)?;
    let pooler = match source.student.head().pooling {
        Pooling::First => "cls_last_hidden_state_pooler",
        _ => "mean_pooler",
    };
    let text = json!({
        "hf_model_name": source.place,
        "hf_tokenizer_name": source.place,
        "hf_proj_type": "linear",
        "hf_pooler_type": pooler,
        "context_length": source.max_tokens(),
    });
    let model = json!({
        "embed_dim": config.projection_dim,
        "quick_gelu": config.vision()?.hidden_act == "quick_gelu",
        "vision_cfg": vision,
        "text_cfg": text,
    });
    let preprocess = json!({"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest"});
    let config = json!({"model_cfg": model, "preprocess_cfg": preprocess});
    write_json(&folder.join("open_clip_config.json"), &config)?;
    let notes = match source.hub_name {
        Some(name) => {
            vec![format!("It loads after it was uploaded as {name}, from where open_clip reads its config.json.")]
        }
        None => vec!["It loads at this path only: --hub-name makes one that can be uploaded.".to_owned()],
    };
    let card = Card { source, program: Program::OpenClip, image_class: None, notes: &[] };
    write_text(&folder.join("README.md"), &card::render(&card)?)?;
    Ok(notes)
}

/// open_clip returns a model in training mode: whoever forgets `eval()` would get vectors with the student's dropout.
fn without_dropout(path: &Path) -> Result<()> {
    let mut config: Value = read_json(path)?;
    for key in ["hidden_dropout_prob", "attention_probs_dropout_prob"] {
        config[key] = json!(0.0);
    }
    write_json(path, &config)
}

/// The merged projection, which is all of a head that open_clip can hold.
fn projection(source: &Source) -> Result<Tensor> {
    let refuse = |what: &str| Err(Error::new(format!("open_clip cannot hold the student's {what}")).hint(HINT));
    match Head::of(source)? {
        Head::Normed(..) => refuse("final norm"),
        Head::Merged(Dense { bias: Some(_), .. }) => refuse("projection bias"),
        Head::Merged(Dense { weight, bias: None }) => Ok(weight),
    }
}

/// The image tower's settings.
fn vision_config(config: &ClipConfig) -> Result<Value> {
    let c = config.vision()?;
    let (hidden, heads) = (c.hidden_size, c.num_attention_heads);
    let refuse = |what: String| Err(Error::new(format!("open_clip cannot hold an image tower {what}")).hint(HINT));
    let ratio = c.intermediate_size as f64 / hidden as f64;
    if !["quick_gelu", "gelu"].contains(&c.hidden_act.as_str()) {
        return refuse(format!("with the activation {}", c.hidden_act));
    }
    if c.num_channels != 3 {
        return refuse(format!("for images of {} channels", c.num_channels));
    }
    if c.image_size % c.patch_size != 0 || heads == 0 || hidden % heads != 0 {
        return refuse("whose sizes are no multiples of each other".to_owned());
    }
    if (hidden as f64 * ratio) as usize != c.intermediate_size {
        return refuse(format!("of the widths {hidden} and {}", c.intermediate_size));
    }
    let mut settings = json!({
        "layers": c.num_hidden_layers,
        "width": hidden,
        "head_width": hidden / heads,
        "mlp_ratio": ratio,
        "patch_size": c.patch_size,
        "image_size": c.image_size,
    });
    if c.layer_norm_eps != 1e-5 {
        settings["norm_kwargs"] = json!({"eps": c.layer_norm_eps});
    }
    Ok(settings)
}

/// The teacher's logit scale, a tensor without dimensions.
fn logit_scale(teacher: &Path) -> Result<Tensor> {
    let weights = Weights::open(teacher, &Device::Cpu)?;
    let name = weights.names().find(|name| *name == "logit_scale" || name.ends_with(".logit_scale"));
    match name {
        Some(name) => Ok(weights.below("").get_unchecked(name)?.detach().reshape(())?),
        None => Ok(Tensor::new(INITIAL_LOGIT_SCALE, &Device::Cpu)?.to_dtype(DType::F32)?),
    }
}

/// The tensors of a tower of transformers under OpenAI's names.
fn as_openai(mut tower: BTreeMap<String, Tensor>, config: &VisionConfig) -> Result<BTreeMap<String, Tensor>> {
    let mut named = BTreeMap::new();
    let mut take = |name: &str| {
        tower.remove(name).ok_or_else(|| Error::new(format!("the image tower has no tensor `{name}`")).hint(HINT))
    };
    for (theirs, ours) in [
        ("conv1.weight", "embeddings.patch_embedding.weight"),
        ("class_embedding", "embeddings.class_embedding"),
        ("positional_embedding", "embeddings.position_embedding.weight"),
        ("ln_pre.weight", "pre_layrnorm.weight"),
        ("ln_pre.bias", "pre_layrnorm.bias"),
        ("ln_post.weight", "post_layernorm.weight"),
        ("ln_post.bias", "post_layernorm.bias"),
    ] {
        named.insert(theirs.to_owned(), take(ours)?);
    }
    for layer in 0..config.num_hidden_layers {
        let (ours, theirs) = (format!("encoder.layers.{layer}"), format!("transformer.resblocks.{layer}"));
        for part in ["weight", "bias"] {
            let mut qkv = Vec::new();
            for projection in ["q_proj", "k_proj", "v_proj"] {
                qkv.push(take(&format!("{ours}.self_attn.{projection}.{part}"))?);
            }
            named.insert(format!("{theirs}.attn.in_proj_{part}"), Tensor::cat(&qkv, 0)?);
            for (their, our) in [
                ("attn.out_proj", "self_attn.out_proj"),
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ] {
                named.insert(format!("{theirs}.{their}.{part}"), take(&format!("{ours}.{our}.{part}"))?);
            }
        }
    }
    match tower.keys().next() {
        Some(left) => {
            Err(Error::new(format!("open_clip has no place for the image tower's tensor `{left}`")).hint(HINT))
        }
        None => Ok(named),
    }
}

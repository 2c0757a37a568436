//! The folder of sentence-transformers.
//!
//! Class paths, pooling keys and `max_seq_length` have the form of before version 5.4: every version from 2 reads it, and
//! text-embeddings-inference and vLLM read no other. Everything with a default is written out, since defaults differ:
//! a Dense without `activation_function` is a Tanh to sentence-transformers and the identity to
//! text-embeddings-inference. Source: sentence-transformers 6.2 (`base/modules/dense.py`, `util/deprecated_import.py`),
//! text-embeddings-inference 1.9 (`backends/src/lib.rs`).

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use serde_json::{Value, json};

use super::card::{self, Card};
use super::head::{Dense, Head};
use super::{Program, Source, images, tokenizer, write_json, write_text};
use crate::error::{Error, Result};
use crate::models::TokenizerFacts;
use crate::models::weights::write_model;
use crate::nn::Pooling;

/// What the readers of a folder with a final norm should know.
const NORM_NOTE: &str = "The final norm is a LayerNorm module: sentence-transformers loads it, \
                         text-embeddings-inference does not.";

/// Writes the folder; returns what its readers should know.
pub(super) fn write(source: &Source, with_images: bool, folder: &Path) -> Result<Vec<String>> {
    let student = source.student;
    let facts = TokenizerFacts { padding: source.tokenizer.padding(), class: Some(source.tokenizer.class()) };
    student.save_encoder(folder)?;
    student.save_config(folder, facts)?;
    tokenizer::write(source, folder)?;
    let hidden = student.config().sizes.hidden_size;
    let mut modules = vec![module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling")];
    write_json(&folder.join("1_Pooling/config.json"), &pooling(student.head().pooling, hidden)?)?;
    let mut notes = Vec::new();
    match Head::of(source)? {
        Head::Merged(only) => {
            modules.push(module(2, "2_Dense", "Dense"));
            dense(only, &folder.join("2_Dense"))?;
        }
        Head::Normed(first, [weight, bias], second) => {
            modules.push(module(2, "2_Dense", "Dense"));
            dense(first, &folder.join("2_Dense"))?;
            modules.push(module(3, "3_LayerNorm", "LayerNorm"));
            let path = folder.join("3_LayerNorm");
            write_json(&path.join("config.json"), &json!({"dimension": student.dim()}))?;
            write_tensors([("norm.weight", Some(weight)), ("norm.bias", Some(bias))], &path)?;
            modules.push(module(4, "4_Dense", "Dense"));
            dense(second, &folder.join("4_Dense"))?;
            notes.push(NORM_NOTE.to_owned());
        }
    }
    write_json(&folder.join("modules.json"), &Value::Array(modules))?;
    let settings = json!({"max_seq_length": source.max_tokens(), "do_lower_case": false});
    write_json(&folder.join("sentence_bert_config.json"), &settings)?;
    // A version above the reader's would make it warn.
    let versions = json!({"sentence_transformers": "3.0.0", "transformers": "4.46.0", "pytorch": "2.4.0"});
    let settings = json!({
        "__version__": versions,
        "prompts": {},
        "default_prompt_name": null,
        "similarity_fn_name": "cosine",
    });
    write_json(&folder.join("config_sentence_transformers.json"), &settings)?;
    let image_class = if with_images { Some(images::write(source.teacher, &folder.join("image"))?) } else { None };
    let card = Card { source, program: Program::SentenceTransformers, image_class, notes: &notes };
    write_text(&folder.join("README.md"), &card::render(&card)?)?;
    Ok(notes)
}

fn module(index: usize, path: &str, class: &str) -> Value {
    let class = format!("sentence_transformers.models.{class}");
    json!({"idx": index, "name": index.to_string(), "path": path, "type": class})
}

/// `1_Pooling/config.json` over states of `width` numbers. The mean counts the special tokens, as themo's does.
fn pooling(pooling: Pooling, width: usize) -> Result<Value> {
    if pooling == Pooling::Last {
        return Err(Error::new("pooling `last` cannot be exported"));
    }
    Ok(json!({
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": pooling == Pooling::First,
        "pooling_mode_mean_tokens": pooling == Pooling::Mean,
        "pooling_mode_max_tokens": false,
        "pooling_mode_mean_sqrt_len_tokens": false,
        "pooling_mode_weightedmean_tokens": false,
        "pooling_mode_lasttoken": false,
        "include_prompt": true,
    }))
}

fn dense(Dense { weight, bias }: Dense, folder: &Path) -> Result<()> {
    let (outputs, inputs) = weight.dims2()?;
    let config = json!({
        "in_features": inputs,
        "out_features": outputs,
        "bias": bias.is_some(),
        "activation_function": "torch.nn.modules.linear.Identity",
    });
    write_json(&folder.join("config.json"), &config)?;
    write_tensors([("linear.weight", Some(weight)), ("linear.bias", bias)], folder)
}

fn write_tensors<const N: usize>(tensors: [(&str, Option<Tensor>); N], folder: &Path) -> Result<()> {
    let mut named = BTreeMap::new();
    for (name, tensor) in tensors {
        if let Some(tensor) = tensor {
            named.insert(name.to_owned(), tensor.contiguous()?);
        }
    }
    write_model(named, &folder.join("model.safetensors"))
}

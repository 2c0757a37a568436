//! The options of `themo train` that say how to train.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::train::is_false;
use crate::data::image::Transparency;

/// Each under the key of the configuration that it sets.
#[derive(Debug, Default, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RecipeArgs {
    /// AdamW, or Adam with the decay in the gradient [default: adamw]
    #[arg(long, value_parser = ["adamw", "adam"], help_heading = "Optimizer")]
    optimizer: Option<String>,
    /// Weight decay [default: 0.01 for adamw, 0 for adam]
    #[arg(long, allow_negative_numbers = true, value_name = "DECAY", help_heading = "Optimizer")]
    weight_decay: Option<f64>,
    /// What the optimizer's two running means keep [default: 0.9,0.999]
    #[arg(long, allow_hyphen_values = true, value_name = "B1,B2", value_delimiter = ',', help_heading = "Optimizer")]
    betas: Option<Vec<f64>>,
    /// No weight decay for biases and norms
    #[arg(long, help_heading = "Optimizer")]
    #[serde(skip_serializing_if = "is_false")]
    no_decay_bias_norm: bool,
    /// Learning rate after the warm-up [default: constant]
    #[arg(long, value_parser = ["constant", "linear", "cosine"], help_heading = "Optimizer")]
    schedule: Option<String>,
    /// Steps in which the learning rate rises from 0 [default: 0]
    #[arg(long, allow_negative_numbers = true, value_name = "STEPS", help_heading = "Optimizer")]
    warmup_steps: Option<usize>,
    /// Learning rate of a layer as a share of the next one's, the head's being
    /// the full one [default: 1]
    #[arg(long, allow_negative_numbers = true, value_name = "SHARE", help_heading = "Optimizer")]
    layer_decay: Option<f64>,
    /// Longest gradient of all parameters together [default: no limit]
    #[arg(long, allow_negative_numbers = true, value_name = "NORM", help_heading = "Optimizer")]
    grad_clip: Option<f64>,
    /// Train neither the embeddings nor the first N layers
    #[arg(long, allow_negative_numbers = true, value_name = "N", help_heading = "Optimizer")]
    freeze_layers: Option<usize>,
    /// Average the weights over the steps, keeping this share; the average is
    /// what is validated, kept as best and tested
    #[arg(long, allow_negative_numbers = true, value_name = "SHARE", help_heading = "Optimizer")]
    ema: Option<f64>,

    /// A layer norm after the projection
    #[arg(long, help_heading = "Models")]
    #[serde(skip_serializing_if = "is_false")]
    final_norm: bool,
    /// A bias in the projection
    #[arg(long, help_heading = "Models")]
    #[serde(skip_serializing_if = "is_false")]
    projection_bias: bool,
    /// How a new projection is drawn [default: clip]
    #[arg(long, value_parser = ["clip", "xavier"], help_heading = "Models")]
    init: Option<String>,

    /// mse, cosine, similarity, clip or a weighted sum of them, such as
    /// mse+0.1*clip [default: mse]
    #[arg(long, value_name = "LOSS", help_heading = "Loss")]
    loss: Option<String>,
    /// By which the loss clip divides its cosines [default: 0.07]
    #[arg(long, allow_negative_numbers = true, value_name = "T", help_heading = "Loss")]
    temperature: Option<f64>,
    /// Compare before the teacher's text projection, or after it [default:
    /// hidden]
    #[arg(long, value_parser = ["hidden", "projected", "projected-normalized"], help_heading = "Loss")]
    target: Option<String>,
    /// What decides the best epoch and early stopping [default: train/loss]
    #[arg(long, value_parser = ["train/loss", "val/loss", "val/recall@1"], help_heading = "Loss")]
    monitor: Option<String>,
    /// Measure val/recall@1 on the images of this data folder (xtd10/, mscoco/)
    /// instead of the English validation captions
    #[arg(long, value_name = "DIR", help_heading = "Loss")]
    probe: Option<PathBuf>,
    /// What becomes of transparent pixels of these images, and where the run is
    /// tested: alpha is dropped, or laid over white as transformers 5 does
    /// [default: drop]
    #[arg(long, value_parser = Transparency::NAMES, help_heading = "Loss")]
    transparency: Option<String>,
}

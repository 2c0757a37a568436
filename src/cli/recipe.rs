//! The options of `themo train` that say how to train.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::is_false;
use crate::data::image::Transparency;

/// Each under the key of the configuration that it sets.
#[derive(Debug, Default, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RecipeArgs {
    /// AdamW, or Adam with the weight decay in the gradient [default: adamw]
    #[arg(long, value_parser = ["adamw", "adam"], help_heading = "Optimizer")]
    optimizer: Option<String>,
    /// Weight decay [default: 0.01 for adamw, 0 for adam]
    #[arg(long, allow_negative_numbers = true, value_name = "DECAY", help_heading = "Optimizer")]
    weight_decay: Option<f64>,
    /// Decay rates of Adam's two moment estimates [default: 0.9,0.999]
    #[arg(long, allow_hyphen_values = true, value_name = "B1,B2", value_delimiter = ',', help_heading = "Optimizer")]
    betas: Option<Vec<f64>>,
    /// No weight decay for biases and layer norms
    #[arg(long, help_heading = "Optimizer")]
    #[serde(skip_serializing_if = "is_false")]
    no_decay_bias_norm: bool,
    /// Learning rate after the warm-up [default: constant]
    ///
    /// linear and cosine fall to 0 at the last step of the run, as transformers' schedules do.
    #[arg(long, value_parser = ["constant", "linear", "cosine"], help_heading = "Optimizer")]
    schedule: Option<String>,
    /// Steps in which the learning rate rises from 0 [default: 0]
    #[arg(long, allow_negative_numbers = true, value_name = "STEPS", help_heading = "Optimizer")]
    warmup_steps: Option<usize>,
    /// Learning rate of each layer as a fraction of that of the layer above it [default: 1]
    ///
    /// The head has the full rate.
    #[arg(long, allow_negative_numbers = true, value_name = "SHARE", help_heading = "Optimizer")]
    layer_decay: Option<f64>,
    /// Clip the gradient to this norm, over all parameters [default: no clipping]
    #[arg(long, allow_negative_numbers = true, value_name = "NORM", help_heading = "Optimizer")]
    grad_clip: Option<f64>,
    /// Train neither the embeddings nor the first N layers
    ///
    /// 0 freezes the embeddings only.
    #[arg(long, allow_negative_numbers = true, value_name = "N", help_heading = "Optimizer")]
    freeze_layers: Option<usize>,
    /// Keep an exponential moving average of the weights, with this decay
    ///
    /// The average is what is validated, saved as the best and tested.
    #[arg(long, allow_negative_numbers = true, value_name = "SHARE", help_heading = "Optimizer")]
    ema: Option<f64>,

    /// Add a layer norm after the projection
    #[arg(long, help_heading = "Models")]
    #[serde(skip_serializing_if = "is_false")]
    final_norm: bool,
    /// Add a bias to the projection
    #[arg(long, help_heading = "Models")]
    #[serde(skip_serializing_if = "is_false")]
    projection_bias: bool,
    /// Initial values of a new projection [default: clip]
    #[arg(long, value_parser = ["clip", "xavier"], help_heading = "Models")]
    init: Option<String>,

    /// mse, cosine, similarity, clip or a weighted sum of them, such as mse+0.1*clip [default: mse]
    ///
    /// mse: mean squared difference of the vectors. cosine: mean of 1 - cosine. similarity: mean squared difference
    /// of the two matrices of cosines within the batch; alone it does not learn the task. clip: CLIP's symmetric cross-entropy
    /// within the batch.
    #[arg(long, value_name = "LOSS", help_heading = "Loss")]
    loss: Option<String>,
    /// Temperature of the clip loss: its cosines are divided by it [default: 0.07]
    #[arg(long, allow_negative_numbers = true, value_name = "T", help_heading = "Loss")]
    temperature: Option<f64>,
    /// Where student and teacher are compared [default: hidden]
    ///
    /// hidden: before the teacher's text projection. projected: after it. projected-normalized: after it, with length
    /// 1.
    #[arg(long, value_parser = ["hidden", "projected", "projected-normalized"], help_heading = "Loss")]
    target: Option<String>,
    /// Value that decides the best epoch and early stopping [default: train/loss]
    ///
    /// val/recall@1 is the retrieval of the English validation captions by the Spanish ones, or of the images of
    /// --probe.
    #[arg(long, value_parser = ["train/loss", "val/loss", "val/recall@1"], help_heading = "Loss")]
    monitor: Option<String>,
    /// Measure val/recall@1 on the images of this data folder (xtd10/, mscoco/)
    ///
    /// Without it, val/recall@1 is measured on the English validation captions.
    #[arg(long, value_name = "DIR", help_heading = "Loss")]
    probe: Option<PathBuf>,
    /// What becomes of transparent pixels: alpha is dropped, or laid over white [default: drop]
    ///
    /// drop is what OpenAI's CLIP, open_clip and transformers 4 do; white is what transformers 5 does.
    #[arg(long, value_parser = Transparency::NAMES, help_heading = "Data")]
    transparency: Option<String>,
}

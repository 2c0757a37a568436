//! How many tokens fit into memory at once.

use crate::config::Config;
use crate::config::limits::parse_bytes;
use crate::error::{Error, Result};
use crate::models::Student;

/// Tokens of a micro-batch: `micro-batch-tokens`, or fewer where `memory-limit` requires it.
///
/// Weights, gradients, the two moments and an average of the weights take 4 bytes a parameter each; where it is frozen,
/// only the weights do. A token's forward pass keeps, in every trained layer, the projection of the attention (3 hidden),
/// its result, two sums, two normalised sums, and the inner values of the feed-forward block; on top of that come the
/// buffers of the layer at work. On BERT-base, training was measured to take an eighth more than that per token, and
/// also a copy of the weights and 300 MiB.
pub fn micro_batch_tokens(config: &Config, student: &Student) -> Result<usize> {
    let Some(limit) = &config.limits.memory_limit else { return Ok(config.limits.micro_batch_tokens) };
    let limit = parse_bytes(limit)?;
    let bert = &student.config().sizes;
    let (layers, hidden, inner) = (bert.num_hidden_layers, bert.hidden_size, bert.intermediate_size);
    let trained_layers = layers - config.recipe.freeze_layers.unwrap_or(0).min(layers);
    let token = 4 * (trained_layers * (8 * hidden + inner) + 8 * hidden + 6 * inner) as u64;
    let trained: usize = student.params().iter().filter(|p| p.trainable).map(|p| p.var.elem_count()).sum();
    let of_trained = if config.recipe.ema.is_some() { 16 } else { 12 };
    let token = token + token / 8;
    let fixed = 8 * student.params().elements() as u64 + of_trained * trained as u64 + (300 << 20);
    let fits = limit.saturating_sub(fixed) / token;
    let longest = config.data.max_sequence_length as u64;
    if fits < longest {
        let least = (fixed + longest * token).div_ceil(1 << 20);
        return Err(Error::new(format!("memory-limit is too small for this student: it takes at least {least} MiB"))
            .hint(format!("--memory-limit {least}MiB, a lower --max-sequence-length, or a smaller student")));
    }
    let tokens = config.limits.micro_batch_tokens.min(fits as usize);
    tracing::info!("micro-batches of up to {tokens} tokens");
    Ok(tokens)
}

//! The training loop.

use std::path::PathBuf;
use std::time::Instant;

use super::Dataset;
use super::checkpoint::{Checkpoints, State};
use super::optimizer::{AdamW, AdamWConfig};
use super::step::{loss_and_gradients, validate};
use super::stopping::EarlyStopping;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::models::Student;
use crate::nn::{Dropout, Gradients};
use crate::report::console::progress;
use crate::report::{Logged, Recorder};

/// How a run ended.
pub struct Summary {
    /// The smallest mean training loss of an epoch.
    pub best_loss: Option<f64>,
    /// The checkpoint to test.
    pub checkpoint: PathBuf,
    /// Epochs and steps done.
    pub epochs: usize,
    pub steps: usize,
    /// Time spent in training steps.
    pub training_secs: f64,
}

/// Trains `student` on `train` until the epochs or steps are used up or the loss stops falling, recording metrics
/// and keeping the best and the last checkpoint.
pub fn fit(
    config: &Config, student: &Student, train: &Dataset, val: Option<&Dataset>, checkpoints: &mut Checkpoints,
    recorder: &mut Recorder,
) -> Result<Summary> {
    let mut grads = Gradients::zeros(student.params())?;
    let mut optimizer = AdamW::new(AdamWConfig::default(), student.params())?;
    let mut stopping = EarlyStopping::new(config.patience);
    let (hidden_dropout, attention_dropout) = match config.dropout {
        Some(p) => (p, p),
        None => (student.config().hidden_dropout_prob, student.config().attention_probs_dropout_prob),
    };
    let mut state = State { epochs: 0, steps: 0, train_loss: None, val_loss: None };
    let mut training_secs = 0.0;
    let mut best = None;
    let (mut since_logged, mut tokens_since_logged) = (0.0, 0);

    for epoch in 0..config.max_epochs {
        let order = train.order(config.seed, epoch, config.shuffle);
        let (mut loss_sum, mut samples, mut epoch_secs, mut epoch_tokens) = (0.0, 0, 0.0, 0);
        let bar = progress(train.len().div_ceil(config.batch_size) as u64, &format!("epoch {epoch}"));
        for batch in order.chunks(config.batch_size) {
            if config.max_steps.is_some_and(|max| state.steps >= max) {
                break;
            }
            let began = Instant::now();
            let dropout =
                Dropout::new(config.seed, state.steps as u64, hidden_dropout as f32, attention_dropout as f32);
            grads.clear(student.backend())?;
            let loss =
                loss_and_gradients(student, train, batch, Some(&dropout), config.micro_batch_tokens, &mut grads)?;
            if state.steps == 0 {
                audit(student, &grads)?;
            }
            if !loss.is_finite() {
                return Err(diverged(loss, epoch, state.steps, config.learn_rate));
            }
            optimizer.step(student.backend(), student.params(), &grads, config.learn_rate)?;
            state.steps += 1;

            let (secs, tokens) =
                (began.elapsed().as_secs_f64(), batch.iter().map(|i| train.tokens[*i].len()).sum::<usize>());
            (epoch_secs, epoch_tokens) = (epoch_secs + secs, epoch_tokens + tokens);
            (since_logged, tokens_since_logged) = (since_logged + secs, tokens_since_logged + tokens);
            loss_sum += loss * batch.len() as f64;
            samples += batch.len();
            bar.inc(1);
            bar.message(format!("loss {loss:.4}, {:.0} tokens/s", epoch_tokens as f64 / epoch_secs));
            if state.steps.is_multiple_of(config.log_every) {
                recorder.record(&Logged {
                    epoch,
                    step: state.steps,
                    train_loss: Some(loss),
                    val_loss: None,
                    lr: Some(config.learn_rate),
                    tokens_per_sec: Some(tokens_since_logged as f64 / since_logged),
                })?;
                (since_logged, tokens_since_logged) = (0.0, 0);
            }
        }
        drop(bar);
        training_secs += epoch_secs;
        if samples == 0 {
            break; // the steps were used up at the end of the epoch before
        }

        let train_loss = loss_sum / samples as f64;
        let val_loss = val.map(|data| validate(student, data, config.micro_batch_tokens)).transpose()?;
        let tokens_per_sec = epoch_tokens as f64 / epoch_secs;
        recorder.record(&Logged {
            epoch,
            step: state.steps,
            train_loss: Some(train_loss),
            val_loss,
            lr: Some(config.learn_rate),
            tokens_per_sec: Some(tokens_per_sec),
        })?;
        (state.epochs, state.train_loss, state.val_loss) = (epoch + 1, Some(train_loss), val_loss);
        let decision = stopping.observe(train_loss);
        let validated = val_loss.map_or(String::new(), |v| format!(", val/loss {v:.4}"));
        tracing::info!(
            "epoch {epoch}: train/loss {train_loss:.4}{validated}{}, {epoch_secs:.1} s, {tokens_per_sec:.0} tokens/s",
            if decision.is_best { " (best)" } else { "" }
        );
        if decision.is_best {
            best = Some(checkpoints.save_best(student, &state)?);
        }
        checkpoints.save_last(student, &state)?;
        if decision.stop {
            tracing::info!("train/loss has not improved for {} epochs: stopping", config.patience);
            break;
        }
        if config.max_steps.is_some_and(|max| state.steps >= max) {
            break;
        }
    }
    let checkpoint = match best {
        Some(path) => path,
        None => checkpoints.save_last(student, &state)?, // no epoch was asked for
    };
    let (best_loss, State { epochs, steps, .. }) = (stopping.best(), state);
    Ok(Summary { best_loss, checkpoint, epochs, steps, training_secs })
}

fn diverged(loss: f64, epoch: usize, steps: usize, learn_rate: f64) -> Error {
    Error::new(format!("the training loss became {loss} in epoch {epoch}, step {}", steps + 1)).hint(format!(
        "the learning rate {learn_rate} may be too high; a checkpoint of an earlier epoch is from before this"
    ))
}

/// Before the first update: no gradient may be missing or broken, or the run would train something else than it says.
fn audit(student: &Student, grads: &Gradients) -> Result<()> {
    let suspicious = grads.suspicious(student.params())?;
    if suspicious.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!("no finite, non-zero gradient reaches {}", suspicious.join(", ")))
        .hint("the student's weights may be broken (NaN, or all zero)"))
}

//! The training loop.

use std::path::PathBuf;
use std::time::Instant;

use super::Dataset;
use super::checkpoint;
use super::journal::Journal;
use super::loss::Objective;
use super::optimizer::Optimizer;
use super::schedule::{factor, total_steps};
use super::state::{Limit, Measured, State};
use super::step::{loss_and_gradients, validate};
use crate::config::Config;
use crate::config::recipe::Monitor;
use crate::error::{Error, Result};
use crate::models::Student;
use crate::nn::{Dropout, Gradients, on_pool};
use crate::report::Logged;
use crate::report::console::progress;

/// How a run ended.
pub struct Summary {
    /// The best value of the monitored metric.
    pub best: Option<f64>,
    /// The checkpoint to test; none if the run wrote nothing.
    pub checkpoint: Option<PathBuf>,
    /// Epochs (one that was not finished counts) and steps done.
    pub epochs: usize,
    pub steps: usize,
    /// Time spent in training steps.
    pub training_secs: f64,
    /// The run was asked to stop before its end.
    pub stopped: bool,
}

/// Measures a student.
pub type Measure<'a> = dyn Fn(&Student) -> Result<f64> + 'a;

/// What is learned, by whom and from what.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    pub student: &'a Student,
    pub objective: &'a Objective,
    pub train: &'a Dataset,
    pub val: Option<&'a Dataset>,
    /// Measures val/recall@1, where that is wanted.
    pub recall: Option<&'a Measure<'a>>,
}

/// Where a run begins.
pub struct Start {
    /// A new one, or that of the checkpoint.
    pub state: State,
    /// The checkpoint folder to go on from, whose student has been loaded.
    pub checkpoint: Option<PathBuf>,
}

/// Trains until a limit of `config` is reached or `should_stop` says so, leaving metrics and
/// checkpoints in `journal`. From a checkpoint it goes on as if it had never stopped.
pub fn fit(
    config: &Config, task: &Task, start: Start, journal: &mut Journal, should_stop: &dyn Fn() -> bool,
) -> Result<Summary> {
    let Task { student, objective, train, val, recall } = *task;
    let monitor = config.recipe.monitor;
    let mut grads = Gradients::zeros(student.params())?;
    let mut optimizer = Optimizer::new(&config.recipe, student.params())?;
    if let Some(folder) = &start.checkpoint {
        checkpoint::restore(folder, student, start.state.steps, &mut optimizer)?;
        optimizer.swap_average(student.params())?; // a checkpoint's student is the average
    }
    let mut state = State { finished: false, ..start.state };
    let (hidden_dropout, attention_dropout) = match config.dropout {
        Some(p) => (p, p),
        None => (student.config().sizes.hidden_dropout_prob, student.config().sizes.attention_probs_dropout_prob),
    };
    let total_steps = total_steps(train.len(), config.batch_size, config.max_epochs, config.max_steps);
    let learn_rate_at =
        |step| config.learn_rate * factor(config.recipe.schedule, config.recipe.warmup_steps, total_steps, step);
    let (mut since_logged, mut tokens_since_logged) = (0.0, 0);

    // A run that was killed at the end of an epoch, before that was recorded, has the end still to come.
    while state.batches > 0 || state.limit(config).is_none() {
        let epoch = state.epoch;
        let order = train.order(config.seed, epoch, config.shuffle);
        let batches = order.len().div_ceil(config.batch_size);
        let bar = progress(batches as u64, &format!("epoch {epoch}"));
        bar.set(state.batches as u64);
        let (mut epoch_secs, mut epoch_tokens) = (0.0, 0);
        for batch in order.chunks(config.batch_size).skip(state.batches) {
            if state.limit(config) == Some(Limit::Steps) {
                break;
            }
            let began = Instant::now();
            let learn_rate = learn_rate_at(state.steps);
            let dropout =
                Dropout::new(config.seed, state.steps as u64, hidden_dropout as f32, attention_dropout as f32);
            let first = state.steps == 0;
            let (loss, norm) = on_pool(|| {
                grads.clear()?;
                let tokens = config.micro_batch_tokens;
                let loss = loss_and_gradients(student, objective, train, batch, Some(&dropout), tokens, &mut grads)?;
                if first {
                    audit(student, &grads)?;
                }
                if !loss.is_finite() {
                    return Ok((loss, grads.norm()?));
                }
                let norm = optimizer.step(student.params(), &grads, learn_rate)?;
                Ok::<_, Error>((loss, norm))
            })?;
            if !loss.is_finite() || !norm.is_finite() {
                let report = journal.write_diverged(train, batch, &state, learn_rate, loss, norm);
                return Err(diverged(loss, norm, &state, learn_rate, report));
            }

            let (secs, tokens) =
                (began.elapsed().as_secs_f64(), batch.iter().map(|i| train.tokens[*i].len()).sum::<usize>());
            state.add_step(loss, batch.len(), secs);
            (epoch_secs, epoch_tokens) = (epoch_secs + secs, epoch_tokens + tokens);
            (since_logged, tokens_since_logged) = (since_logged + secs, tokens_since_logged + tokens);
            bar.inc(1);
            bar.message(format!("loss {loss:.4}, {:.0} tokens/s", epoch_tokens as f64 / epoch_secs));
            if state.steps.is_multiple_of(config.log_every) {
                journal.record(&Logged {
                    epoch,
                    step: state.steps,
                    train_loss: Some(loss),
                    val_loss: None,
                    val_recall: None,
                    lr: Some(learn_rate),
                    tokens_per_sec: Some(tokens_since_logged as f64 / since_logged),
                });
                (since_logged, tokens_since_logged) = (0.0, 0);
            }
            let stop = should_stop();
            // At the end of the epoch a checkpoint follows anyway.
            let due = state.batches < batches && config.checkpoint_every.due(state.steps, journal.since_saved());
            if stop || due {
                require_finite(student, None, &state)?;
                state.recorded = journal.position();
                optimizer.swap_average(student.params())?;
                journal.save_last(student, &optimizer, &state);
                optimizer.swap_average(student.params())?;
            }
            if stop {
                return Ok(summary(&state, journal, true));
            }
        }
        drop(bar);

        let train_loss = state.loss_sum / state.pairs as f64;
        optimizer.swap_average(student.params())?;
        let (batch_size, tokens) = (config.batch_size, config.micro_batch_tokens);
        let validated = val.map(|data| validate(student, objective, data, batch_size, tokens, should_stop));
        let validated = validated.transpose()?;
        let val_loss = validated.flatten();
        require_finite(student, val_loss, &state)?;
        if validated == Some(None) {
            state.recorded = journal.position();
            journal.save_last(student, &optimizer, &state); // with the end of the epoch still to come
            return Ok(summary(&state, journal, true));
        }
        let val_recall = recall.map(|recall| recall(student)).transpose()?;
        let tokens_per_sec = (epoch_secs > 0.0).then(|| epoch_tokens as f64 / epoch_secs);
        state.recorded = journal.position();
        // An epoch that the steps did not suffice for is closed for now; with more of them it would go on.
        let unfinished = (state.batches < batches).then(|| State { finished: true, ..state.clone() });
        let value = match monitor {
            Monitor::TrainLoss => Some(train_loss),
            Monitor::ValLoss => val_loss,
            Monitor::ValRecall => val_recall,
        };
        let value = value.unwrap_or(f64::NAN); // the command refuses to watch what is not measured
        let maximise = monitor.rises();
        let is_best = state.stopping.observe(value, maximise);
        if is_best {
            journal.record_best(state.steps, value);
        }
        journal.record(&Logged {
            epoch,
            step: state.steps,
            train_loss: Some(train_loss),
            val_loss,
            val_recall,
            lr: Some(learn_rate_at(state.steps.saturating_sub(1))),
            tokens_per_sec,
        });
        state.end_epoch(Measured { epoch, train_loss, val_loss, monitor: monitor.name().into(), value, maximise });
        state.recorded = journal.position();
        state.finished = state.limit(config).is_some();
        let shown = |what, value: Option<f64>| value.map_or(String::new(), |value| format!(", {what} {value:.4}"));
        let validated = shown("val/loss", val_loss) + &shown("val/recall@1", val_recall);
        tracing::info!(
            "epoch {epoch}: train/loss {train_loss:.4}{validated}{}, {epoch_secs:.1} s, {:.0} tokens/s",
            if is_best { " (best)" } else { "" },
            tokens_per_sec.unwrap_or_default()
        );
        journal.save_epoch(student, &optimizer, &state, unfinished.as_ref().unwrap_or(&state));
        optimizer.swap_average(student.params())?;
        if state.limit(config) == Some(Limit::Patience) {
            tracing::info!("{} has not improved for {} epochs: stopping", monitor.name(), config.patience);
        }
        if should_stop() && !state.finished {
            return Ok(summary(&state, journal, true));
        }
    }
    if state.steps == 0 {
        state.finished = true;
        journal.save_last(student, &optimizer, &state); // no epoch was asked for
    }
    Ok(summary(&state, journal, false))
}

fn summary(state: &State, journal: &Journal, stopped: bool) -> Summary {
    Summary {
        best: state.stopping.best(),
        checkpoint: journal.best(),
        epochs: state.epochs(),
        steps: state.steps,
        training_secs: state.training_secs,
        stopped,
    }
}

fn diverged(loss: f64, norm: f64, state: &State, learn_rate: f64, report: Option<PathBuf>) -> Error {
    let what = if loss.is_finite() { format!("gradient's norm became {norm}") } else { format!("loss became {loss}") };
    let report = report.map_or(String::new(), |path| format!("; {} names the batch's captions", path.display()));
    Error::new(format!("the training {what} in epoch {}, step {}", state.epoch, state.steps + 1))
        .hint(format!("the learning rate {learn_rate:?} may be too high; the checkpoints are from before this{report}"))
}

/// Before a checkpoint: broken weights must not take the place of good ones.
fn require_finite(student: &Student, val_loss: Option<f64>, state: &State) -> Result<()> {
    let broken = match val_loss {
        _ if !student.params().are_finite()? => "the student's weights became infinite or NaN".to_owned(),
        Some(loss) if !loss.is_finite() => format!("val/loss became {loss}"),
        _ => return Ok(()),
    };
    Err(Error::new(format!("{broken} in epoch {}, step {}", state.epoch, state.steps))
        .hint("the learning rate may be too high; the checkpoints are from before this"))
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

//! The training loop: [`Trainer`] with `run`, `epoch`, `step` and `end_epoch`.

use std::path::PathBuf;
use std::time::Instant;

use super::Dataset;
use super::dataset::Batches;
use super::loss::Objective;
use super::optimizer::Optimizer;
use super::schedule::{factor, total_steps};
use super::step::{MicroBatches, PairBatch, validate};
use crate::config::Config;
use crate::config::limits::Limits;
use crate::config::recipe::Monitor;
use crate::error::{Error, Kind, Result};
use crate::models::Student;
use crate::nn::{Dropout, Gradients, on_pool};
use crate::record::Logged;
use crate::runs::checkpoint::{self, Snapshot};
use crate::runs::journal::Diverged;
use crate::runs::resume::unreadable;
use crate::runs::state::{Limit, Measured};
use crate::runs::{Journal, State};
use crate::ui::console::progress;

/// Pairs of a validation set that are in memory at once.
const VALIDATED_AT_ONCE: usize = 8192;

/// How a run ended.
pub struct Summary {
    /// The best value of the monitored metric.
    pub best: Option<f64>,
    /// Epochs done; one that was not finished counts.
    pub epochs: usize,
    /// Optimizer steps done.
    pub steps: usize,
    /// Time spent in training steps.
    pub training_secs: f64,
    /// The run was asked to stop before its end.
    pub stopped: bool,
}

/// Measures the val/recall@1 of a student.
pub type RecallMeasure<'a> = dyn Fn(&Student) -> Result<f64> + 'a;

/// The student, its loss and its data.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// The student to train.
    pub student: &'a Student,
    /// The loss.
    pub objective: &'a Objective,
    /// The pairs to learn from.
    pub train: &'a Dataset<'a>,
    /// The pairs to validate on, where there are any.
    pub val: Option<&'a Dataset<'a>>,
    /// Measures val/recall@1, where that is wanted.
    pub recall: Option<&'a RecallMeasure<'a>>,
}

/// Where a run begins.
pub struct Start {
    /// A new one, or that of the checkpoint.
    pub state: State,
    /// The checkpoint folder to resume, whose student has been loaded.
    pub checkpoint: Option<PathBuf>,
}

/// Trains a student, leaving metrics and checkpoints in a journal.
pub struct Trainer<'a> {
    config: &'a Config,
    setup: Setup<'a>,
    optimizer: Optimizer,
    grads: Gradients,
    state: State,
    journal: &'a mut Journal,
    should_stop: &'a dyn Fn() -> bool,
    /// Shares of hidden values and of attention probabilities to drop.
    dropout: [f32; 2],
    /// Work since the last row of metrics.
    logged: Work,
}

/// The time that some steps took, and their tokens.
#[derive(Clone, Copy, Default)]
struct Work {
    secs: f64,
    tokens: usize,
}

impl Work {
    fn add(&mut self, secs: f64, tokens: usize) {
        *self = Self { secs: self.secs + secs, tokens: self.tokens + tokens };
    }

    fn tokens_per_sec(self) -> Option<f64> {
        (self.secs > 0.0).then(|| self.tokens as f64 / self.secs)
    }
}

/// Whether a run continues.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    /// It was asked to stop, and its state is saved.
    Stop,
}

impl<'a> Trainer<'a> {
    /// A trainer for `setup`, which stops once `should_stop` returns true. From a checkpoint it continues as if it had never
    /// stopped.
    pub fn new(
        config: &'a Config, setup: Setup<'a>, start: Start, journal: &'a mut Journal, should_stop: &'a dyn Fn() -> bool,
    ) -> Result<Self> {
        let params = setup.student.params();
        let (grads, mut optimizer) = (Gradients::zeros(params)?, Optimizer::new(&config.recipe, params)?);
        if let Some(folder) = &start.checkpoint {
            checkpoint::restore(folder, setup.student, optimizer.slots_mut(start.state.steps))
                .map_err(|e| unreadable(e, folder))?;
            optimizer.swap_average(params)?; // a checkpoint's student is the average
        }
        let sizes = &setup.student.config().sizes;
        let dropout = match config.models.dropout {
            Some(p) => [p, p],
            None => [sizes.hidden_dropout_prob, sizes.attention_probs_dropout_prob],
        };
        let dropout = dropout.map(|p| p as f32);
        let state = State { finished: false, ..start.state };
        Ok(Self { config, setup, optimizer, grads, state, journal, should_stop, dropout, logged: Work::default() })
    }

    /// Trains until a limit of the configuration is reached or the run is asked to stop.
    pub fn run(mut self) -> Result<Summary> {
        while self.has_epoch_to_do() {
            if self.epoch()? == Flow::Stop {
                return Ok(self.summary(true));
            }
        }
        if !self.state.finished {
            // No epoch was asked for, or a resumed run is to end before where it is already.
            self.state.finished = true;
            self.save_averaged()?;
        }
        Ok(self.summary(false))
    }

    /// Whether an epoch is to be begun or continued.
    fn has_epoch_to_do(&self) -> bool {
        match self.state.limit(self.config) {
            None => true,
            // An epoch that max-steps cuts is ended, too: the run may have been killed before that.
            Some(Limit::Steps) => self.state.batches > 0,
            Some(Limit::Epochs | Limit::Patience) => false,
        }
    }

    /// The batches of an epoch that are still to come, and its end.
    fn epoch(&mut self) -> Result<Flow> {
        let batch_size = self.config.limits.batch_size;
        let order = self.setup.train.order(self.config.run.seed, self.state.epoch, self.config.data.shuffle);
        let batches = order.len().div_ceil(batch_size);
        let bar = progress(batches as u64, &format!("epoch {}", self.state.epoch));
        bar.set(self.state.batches as u64);
        let mut work = Work::default();
        let rest = &order[order.len().min(self.state.batches * batch_size)..];
        let flow = self.setup.train.with_batches(rest, batch_size, |coming| {
            while self.state.batches < batches && self.state.limit(self.config) != Some(Limit::Steps) {
                let Some((indices, batch)) = self.next(coming)? else { return Ok(Flow::Stop) };
                let loss = self.step(indices, &batch, &mut work)?;
                bar.inc(1);
                bar.message(format!("loss {loss:.4}, {:.0} tokens/s", work.tokens_per_sec().unwrap_or_default()));
                let stop = (self.should_stop)();
                // At the end of the epoch a checkpoint follows anyway.
                let due = self.state.batches < batches
                    && self.config.logging.checkpoint_every.due(self.state.steps, self.journal.since_saved());
                if stop || due {
                    self.save_between()?;
                }
                if stop {
                    return Ok(Flow::Stop);
                }
            }
            Ok(Flow::Continue)
        })?;
        if flow == Flow::Stop {
            return Ok(flow);
        }
        drop(bar);
        let is_cut = self.state.batches < batches;
        self.averaged(|this| this.end_epoch(work, is_cut))
    }

    /// The next batch; none, and all that was learnt is saved, if the run was asked to stop while the teacher computed its
    /// features.
    fn next<'b>(&mut self, coming: &mut Batches<'b>) -> Result<Option<(&'b [usize], PairBatch)>> {
        match coming.next() {
            Some(Err(error)) if error.kind() == Kind::Stopped => self.save_between().map(|()| None),
            next => next.unwrap_or_else(|| Err(Error::new("the epoch has no batch left"))).map(Some),
        }
    }

    /// A checkpoint within an epoch.
    fn save_between(&mut self) -> Result<()> {
        require_finite(self.setup.student, None, &self.state)?;
        self.save_averaged()
    }

    /// One step: the loss of `batch`, the pairs `indices`, its gradient and the update; returns the loss.
    fn step(&mut self, indices: &[usize], batch: &PairBatch, work: &mut Work) -> Result<f64> {
        let Setup { student, objective, train, .. } = self.setup;
        let (began, learn_rate) = (Instant::now(), self.learn_rate_at(self.state.steps));
        let [hidden, attention] = self.dropout;
        let dropout = Dropout::new(self.config.run.seed, self.state.steps as u64, hidden, attention);
        let (is_first, micro_batch_tokens) = (self.state.steps == 0, self.config.limits.micro_batch_tokens);
        let (grads, optimizer) = (&mut self.grads, &mut self.optimizer);
        let (loss, norm) = on_pool(|| {
            grads.clear()?;
            let parts = MicroBatches::new(student, batch, micro_batch_tokens);
            let loss = parts.loss_and_gradients(objective, Some(&dropout), grads)?;
            if is_first {
                audit(student, grads)?;
            }
            let norm = match loss.is_finite() {
                true => optimizer.step(student.params(), grads, learn_rate)?,
                false => grads.norm()?,
            };
            Ok::<_, Error>((loss, norm))
        })?;
        if !loss.is_finite() || !norm.is_finite() {
            let (epoch, step) = (self.state.epoch, self.state.steps + 1);
            let diverged = Diverged { epoch, step, learn_rate, loss, gradient_norm: norm };
            let report = self
                .journal
                .write_diverged(indices.iter().filter_map(|i| Some((*i, train.pairs().pair(*i).ok()?))), &diverged);
            return Err(divergence_error(&diverged, report));
        }
        let (secs, tokens) = (began.elapsed().as_secs_f64(), batch.token_count());
        self.state.add_step(loss, indices.len(), secs);
        work.add(secs, tokens);
        self.logged.add(secs, tokens);
        if self.state.steps.is_multiple_of(self.config.logging.log_every) {
            let tokens_per_sec = std::mem::take(&mut self.logged).tokens_per_sec();
            let row = Logged { train_loss: Some(loss), lr: Some(learn_rate), tokens_per_sec, ..self.row() };
            self.journal.record(&row);
        }
        Ok(loss)
    }

    /// The end of an epoch, after `work`, with the averaged weights in place: measures, decides, records, saves. `is_cut`
    /// means that max-steps ended the epoch before its last batch.
    fn end_epoch(&mut self, work: Work, is_cut: bool) -> Result<Flow> {
        let (monitor, train_loss) = (self.config.recipe.monitor, self.state.loss_sum / self.state.pairs as f64);
        let Some(val_loss) = self.validate()? else {
            self.save_last(); // with the end of the epoch still to come
            return Ok(Flow::Stop);
        };
        let val_recall = match self.setup.recall.map(|recall| recall(self.setup.student)).transpose() {
            Err(error) if error.kind() == Kind::Stopped => {
                self.save_last(); // likewise
                return Ok(Flow::Stop);
            }
            measured => measured?,
        };
        // An epoch that was cut is closed for now; with more steps it would continue.
        self.journal.stamp(&mut self.state);
        let unfinished = is_cut.then(|| State { finished: true, ..self.state.clone() });
        let value = match monitor {
            Monitor::TrainLoss => Some(train_loss),
            Monitor::ValLoss => val_loss,
            Monitor::ValRecall => val_recall,
        };
        let value = value.unwrap_or(f64::NAN); // `probe::check` refuses to monitor what is not measured
        let (epoch, maximise) = (self.state.epoch, monitor.rises());
        let is_best = self.state.stopping.observe(value, maximise);
        if is_best {
            self.journal.record_best(self.state.steps, value);
        }
        let (lr, tokens_per_sec) = (self.learn_rate_at(self.state.steps.saturating_sub(1)), work.tokens_per_sec());
        let row = Logged { ends_epoch: true, lr: Some(lr), tokens_per_sec, ..self.row() };
        self.journal.record(&Logged { train_loss: Some(train_loss), val_loss, val_recall, ..row });
        self.state.end_epoch(Measured { epoch, train_loss, val_loss, monitor: monitor.name().into(), value, maximise });
        self.state.finished = self.state.limit(self.config).is_some();
        let measured =
            [(Monitor::TrainLoss, Some(train_loss)), (Monitor::ValLoss, val_loss), (Monitor::ValRecall, val_recall)];
        let shown = measured.into_iter().filter_map(|(what, value)| {
            let best = if is_best && what == monitor { " (best)" } else { "" };
            Some(format!("{} {:.4}{best}, ", what.name(), value?))
        });
        let (shown, speed) = (shown.collect::<String>(), tokens_per_sec.unwrap_or_default());
        tracing::info!("epoch {epoch}: {shown}{:.1} s, {speed:.0} tokens/s", work.secs);
        let moments = self.optimizer.slots();
        let snapshot = Snapshot { student: self.setup.student, moments: &moments };
        self.journal.save_epoch(snapshot, &mut self.state, unfinished);
        if self.state.limit(self.config) == Some(Limit::Patience) {
            tracing::info!("{} has not improved for {} epochs: stopping", monitor.name(), self.config.limits.patience);
        }
        Ok(if (self.should_stop)() && !self.state.finished { Flow::Stop } else { Flow::Continue })
    }

    /// val/loss, where there are validation pairs; none at all if the run was asked to stop meanwhile.
    fn validate(&self) -> Result<Option<Option<f64>>> {
        let Setup { student, objective, val, .. } = self.setup;
        let Limits { batch_size, micro_batch_tokens, .. } = self.config.limits;
        // A loss of single pairs does not depend on the batches.
        let size = if objective.needs_whole_batch() { batch_size } else { VALIDATED_AT_ONCE };
        let validated = val.map(|data| {
            data.with_batches(&data.order(0, 0, false), size, |batches| {
                let mut batches = batches.map(|batch| batch.map(|(_, batch)| batch));
                validate(student, objective, data.len(), &mut batches, micro_batch_tokens, self.should_stop)
            })
        });
        let validated = match validated.transpose() {
            Err(error) if error.kind() == Kind::Stopped => Some(None), // while the teacher computed their features
            validated => validated?,
        };
        require_finite(student, validated.flatten(), &self.state)?;
        Ok(if validated == Some(None) { None } else { Some(validated.flatten()) })
    }

    /// Does `work` with the moving average of the weights, where there is one, in the student's place.
    fn averaged<R>(&mut self, work: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        let params = self.setup.student.params();
        self.optimizer.swap_average(params)?;
        let done = work(self);
        self.optimizer.swap_average(params)?;
        done
    }

    /// Writes `last` with the averaged weights.
    fn save_averaged(&mut self) -> Result<()> {
        self.averaged(|this| {
            this.save_last();
            Ok(())
        })
    }

    /// Writes `last` with the weights as they are.
    fn save_last(&mut self) {
        let moments = self.optimizer.slots();
        self.journal.save_last(Snapshot { student: self.setup.student, moments: &moments }, &mut self.state);
    }

    /// A row of metrics of this moment, still without values.
    fn row(&self) -> Logged {
        Logged { epoch: self.state.epoch, step: self.state.steps, ..Logged::default() }
    }

    fn learn_rate_at(&self, step: usize) -> f64 {
        let Config { limits, recipe, .. } = self.config;
        let total = total_steps(self.setup.train.len(), limits.batch_size, limits.max_epochs, limits.max_steps);
        recipe.learn_rate * factor(recipe.schedule, recipe.warmup_steps, total, step)
    }

    fn summary(&self, stopped: bool) -> Summary {
        Summary {
            best: self.state.stopping.best(),
            epochs: self.state.epochs(),
            steps: self.state.steps,
            training_secs: self.state.training_secs,
            stopped,
        }
    }
}

fn divergence_error(diverged: &Diverged, report: Option<PathBuf>) -> Error {
    let Diverged { epoch, step, learn_rate, loss, gradient_norm } = diverged;
    let what = match loss.is_finite() {
        true => format!("gradient's norm became {gradient_norm}"),
        false => format!("loss became {loss}"),
    };
    let report = report.map_or(String::new(), |path| format!("; {} names the batch's captions", path.display()));
    Error::new(format!("the training {what} in epoch {epoch}, step {step}"))
        .hint(format!("the learning rate {learn_rate:?} may be too high; the checkpoints are from before this{report}"))
}

/// Checked before a checkpoint is written: broken weights must not replace good ones.
fn require_finite(student: &Student, val_loss: Option<f64>, state: &State) -> Result<()> {
    let broken = match val_loss {
        _ if !student.params().are_finite()? => "the student's weights became infinite or NaN".to_owned(),
        Some(loss) if !loss.is_finite() => format!("val/loss became {loss}"),
        _ => return Ok(()),
    };
    Err(Error::new(format!("{broken} in epoch {}, step {}", state.epoch, state.steps))
        .hint("the learning rate may be too high; the checkpoints are from before this"))
}

/// Checked before the first update: every trained parameter has a finite gradient that is not zero.
fn audit(student: &Student, grads: &Gradients) -> Result<()> {
    let suspicious = grads.suspicious(student.params())?;
    if suspicious.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!("no finite, non-zero gradient reaches {}", suspicious.join(", ")))
        .hint("the student's weights may be broken (NaN, or all zero)"))
}

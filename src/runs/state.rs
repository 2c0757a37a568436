//! Where a run is: all that the next step depends on, but for weights and moments.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::stopping::EarlyStopping;
use crate::config::Config;
use crate::record::Position;

/// The state of a run between two steps, as `state.json` in a checkpoint keeps it. Order and dropout masks are
/// functions of the seed and these counters, so nothing else has to be saved for them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct State {
    /// The seed of the run.
    pub seed: u64,
    /// Identifies the training pairs.
    pub data: String,
    /// Identifies all else that a resumed run must find as it was, by what an error calls it; empty in a state from
    /// before this was kept.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// Steps done since the start of the run.
    pub steps: usize,
    /// The epoch of the next step, counted from 0; this is also the number of epochs that have ended.
    pub epoch: usize,
    /// Batches of this epoch that are done; if all are, the epoch's end is still to come.
    pub batches: usize,
    /// Sum of the losses of this epoch's pairs so far.
    pub loss_sum: f64,
    /// The number of pairs in that sum.
    pub pairs: usize,
    /// The best value of the monitored metric, and the number of epochs since.
    pub stopping: EarlyStopping,
    /// What was measured at the end of the last epoch; nothing before the first.
    pub measured: Option<Measured>,
    /// The run had reached its limits when this was written.
    pub finished: bool,
    /// How far metrics.csv and the event files were.
    pub recorded: Position,
    /// Time spent in training steps.
    pub training_secs: f64,
}

/// The end of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Measured {
    /// Counted from 0.
    pub epoch: usize,
    /// Mean loss over the epoch's pairs.
    pub train_loss: f64,
    /// Loss of the validation pairs, where there are any.
    pub val_loss: Option<f64>,
    /// The metric by which the best checkpoint is chosen.
    pub monitor: String,
    /// Its value.
    pub value: f64,
    /// Whether more of it is better.
    pub maximise: bool,
}

impl Measured {
    /// Whether this is better than `other`; NaN counts as worse than any number.
    pub fn better_than(&self, other: &Self) -> bool {
        let worth = |m: &Self| match m.value {
            value if value.is_nan() => f64::NEG_INFINITY,
            value if m.maximise => value,
            value => -value,
        };
        worth(self) > worth(other)
    }
}

/// Why a run has ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `max-epochs` have ended.
    Epochs,
    /// `max-steps` are done.
    Steps,
    /// The monitored metric has not become better for `patience` epochs.
    Patience,
}

impl State {
    /// The start of a run on the training pairs `data` and the `inputs`.
    pub fn new(seed: u64, data: String, inputs: BTreeMap<String, String>) -> Self {
        Self { seed, data, inputs, ..Self::default() }
    }

    /// What a run on the training pairs `data` and the `inputs` has other than this one had: its name, if there is one.
    pub fn differs<'a>(&self, data: &str, inputs: &'a BTreeMap<String, String>) -> Option<&'a str> {
        if self.data != data {
            return Some("the training pairs");
        }
        let differs = |(what, now): &(&String, &String)| self.inputs.get(*what).is_some_and(|before| before != *now);
        inputs.iter().find(differs).map(|(what, _)| what.as_str())
    }

    /// Which limit of the configuration is reached, if any.
    pub fn limit(&self, config: &Config) -> Option<Limit> {
        if config.limits.max_steps.is_some_and(|max| self.steps >= max) {
            Some(Limit::Steps)
        } else if self.epoch >= config.limits.max_epochs {
            Some(Limit::Epochs)
        } else if self.stopping.exhausted(config.limits.patience) {
            Some(Limit::Patience)
        } else {
            None
        }
    }

    /// Epochs done; one that was begun counts.
    pub fn epochs(&self) -> usize {
        self.epoch + usize::from(self.batches > 0)
    }

    /// Counts a step over `pairs` pairs with this mean loss.
    pub fn add_step(&mut self, loss: f64, pairs: usize, secs: f64) {
        self.steps += 1;
        self.batches += 1;
        self.loss_sum += loss * pairs as f64;
        self.pairs += pairs;
        self.training_secs += secs;
    }

    /// Ends the epoch.
    pub fn end_epoch(&mut self, measured: Measured) {
        self.measured = Some(measured);
        (self.epoch, self.batches, self.loss_sum, self.pairs) = (self.epoch + 1, 0, 0.0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(value: f64, maximise: bool) -> Measured {
        Measured { epoch: 0, train_loss: 1.0, val_loss: None, monitor: "m".into(), value, maximise }
    }

    #[test]
    fn better_follows_the_direction_and_nan_is_worst() {
        assert!(measured(1.0, false).better_than(&measured(2.0, false)));
        assert!(!measured(1.0, true).better_than(&measured(2.0, true)));
        assert!(!measured(1.0, true).better_than(&measured(1.0, true)));
        assert!(measured(9.0, false).better_than(&measured(f64::NAN, false)));
        assert!(!measured(f64::NAN, true).better_than(&measured(-9.0, true)));
    }

    #[test]
    fn what_differs_is_named_and_an_older_state_knows_only_the_training_pairs() {
        let inputs = |teacher: &str, val: &str| {
            BTreeMap::from([("the teacher".into(), teacher.into()), ("the validation pairs".into(), val.into())])
        };
        let state = State::new(7, "x".into(), inputs("t", "v"));
        assert_eq!(state.differs("x", &inputs("t", "v")), None);
        assert_eq!(state.differs("y", &inputs("t", "v")), Some("the training pairs"));
        assert_eq!(state.differs("x", &inputs("u", "v")), Some("the teacher"));
        assert_eq!(state.differs("x", &inputs("t", "w")), Some("the validation pairs"));
        let mut old = serde_json::to_value(&state).unwrap();
        old.as_object_mut().unwrap().remove("inputs");
        let old: State = serde_json::from_value(old).unwrap();
        assert_eq!((old.differs("x", &inputs("u", "w")), old.differs("y", &inputs("t", "v")).is_some()), (None, true));
    }

    #[test]
    fn numbers_survive_json_to_the_bit() {
        let mut state = State::new(7, "x".into(), BTreeMap::from([("the teacher".into(), "y".into())]));
        let mut loss = 0.1;
        for _ in 0..1000 {
            loss = (loss * 1.9371_f64).fract() + 1e-9;
            state.add_step(loss, 3, loss);
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
        }
    }
}

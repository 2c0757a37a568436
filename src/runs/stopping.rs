//! Early stopping: a pure policy, epoch values in, decisions out.

use serde::{Deserialize, Serialize};

/// Watches a value (as Lightning's EarlyStopping with `min_delta=0`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EarlyStopping {
    best: Option<f64>,
    waited: usize,
}

impl EarlyStopping {
    /// The best value seen.
    pub fn best(&self) -> Option<f64> {
        self.best
    }

    /// Takes the value of an epoch, which should rise or fall; says whether it is the best so far.
    pub fn observe(&mut self, value: f64, should_rise: bool) -> bool {
        let better = |best| if should_rise { value > best } else { value < best };
        let is_best = self.best.is_none_or(better);
        if is_best {
            self.best = Some(value);
            self.waited = 0;
        } else {
            self.waited += 1;
        }
        is_best
    }

    /// Whether the value has not improved for `patience` epochs.
    pub fn exhausted(&self, patience: usize) -> bool {
        self.waited >= patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_after_patience_epochs_without_a_better_value() {
        let mut stopping = EarlyStopping::default();
        let seen: Vec<(bool, bool)> = [3.0, 2.0, 2.0, 1.0, 1.5, f64::NAN]
            .iter()
            .map(|value| (stopping.observe(*value, false), stopping.exhausted(2)))
            .collect();
        assert_eq!(seen, [(true, false), (true, false), (false, false), (true, false), (false, false), (false, true)]);
        assert_eq!(stopping.best(), Some(1.0));
        let mut rising = EarlyStopping::default();
        assert_eq!([0.5, 0.5, 0.7, 0.6].map(|value| rising.observe(value, true)), [true, false, true, false]);
    }
}

//! Early stopping: a pure policy, epoch losses in, decisions out.

/// What to do after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// This epoch is the best so far.
    pub is_best: bool,
    /// The loss has not improved for `patience` epochs.
    pub stop: bool,
}

/// Watches a value that should fall (as Lightning's EarlyStopping with `mode="min"`, `min_delta=0`).
#[derive(Clone, Debug)]
pub struct EarlyStopping {
    patience: usize,
    best: Option<f64>,
    waited: usize,
}

impl EarlyStopping {
    /// Stops after `patience` epochs without improvement.
    pub fn new(patience: usize) -> Self {
        Self { patience, best: None, waited: 0 }
    }

    /// The smallest value seen.
    pub fn best(&self) -> Option<f64> {
        self.best
    }

    /// Takes the value of an epoch.
    pub fn observe(&mut self, value: f64) -> Decision {
        let is_best = self.best.is_none_or(|best| value < best);
        if is_best {
            self.best = Some(value);
            self.waited = 0;
        } else {
            self.waited += 1;
        }
        Decision { is_best, stop: self.waited >= self.patience }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_after_patience_epochs_without_a_better_value() {
        let mut stopping = EarlyStopping::new(2);
        let seen: Vec<(bool, bool)> = [3.0, 2.0, 2.0, 1.0, 1.5, f64::NAN]
            .iter()
            .map(|v| stopping.observe(*v))
            .map(|d| (d.is_best, d.stop))
            .collect();
        assert_eq!(seen, [(true, false), (true, false), (false, false), (true, false), (false, false), (false, true)]);
        assert_eq!(stopping.best(), Some(1.0));
    }
}

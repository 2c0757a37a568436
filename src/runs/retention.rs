//! Which of the best checkpoints are written and which stay: a pure policy; `checkpoint` carries it out.

use super::state::Measured;

/// What to do after an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The epoch's student is among the best and should be kept.
    pub keep: bool,
    /// The names of the checkpoints that are no longer among them.
    pub drop: Vec<String>,
}

/// Decides, after an epoch, whether to write the new checkpoint and which to remove. The best `most` stay; on a tie, the
/// older one.
pub fn keep_best(there: &[(String, Measured)], new: &Measured, most: usize) -> Decision {
    let better = there.iter().filter(|(_, old)| !new.better_than(old)).count();
    let mut ranked: Vec<&(String, Measured)> = there.iter().collect();
    ranked.sort_by(|(_, a), (_, b)| b.better_than(a).cmp(&a.better_than(b)).then(a.epoch.cmp(&b.epoch)));
    let keep = better < most && !new.value.is_nan();
    let stay = if keep { most - 1 } else { most };
    Decision { keep, drop: ranked.into_iter().skip(stay).map(|(name, _)| name.clone()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(epoch: usize, value: f64) -> Measured {
        Measured { epoch, train_loss: 1.0, val_loss: None, monitor: "train/loss".into(), value, maximise: false }
    }

    #[test]
    fn the_best_stay_and_on_a_tie_the_older() {
        let there = |values: &[f64]| -> Vec<(String, Measured)> {
            values.iter().enumerate().map(|(i, v)| (i.to_string(), measured(i, *v))).collect()
        };
        let decide = |values: &[f64], new: f64, most| {
            let decision = keep_best(&there(values), &measured(9, new), most);
            (decision.keep, decision.drop.join(","))
        };
        assert_eq!(decide(&[], 1.0, 1), (true, String::new()));
        assert_eq!(decide(&[2.0], 1.0, 1), (true, "0".into()));
        assert_eq!(decide(&[2.0], 2.0, 1), (false, String::new()));
        assert_eq!(decide(&[2.0], f64::NAN, 1), (false, String::new()));
        assert_eq!(decide(&[], f64::NAN, 1), (false, String::new()));
        assert_eq!(decide(&[3.0, 1.0], 2.0, 2), (true, "0".into()));
        assert_eq!(decide(&[3.0, 1.0], 2.0, 3), (true, String::new()));
        assert_eq!(decide(&[1.0, 3.0, 2.0], 4.0, 1), (false, "2,1".into()), "a crash left more than should be");
    }
}

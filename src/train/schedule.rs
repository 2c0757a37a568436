//! Learning-rate schedules: a pure function of the step.

use crate::config::recipe::Schedule;

/// The learning rate of the update that follows `step` finished ones, as a share of the full rate, of `total` steps:
/// transformers' `get_{constant,linear,cosine}_schedule_with_warmup`. With a warm-up the very first update has the
/// rate 0.
pub fn factor(schedule: Schedule, warmup: usize, total: usize, step: usize) -> f64 {
    if step < warmup {
        return step as f64 / warmup as f64;
    }
    let length = total.saturating_sub(warmup).max(1) as f64;
    let progress = (step - warmup) as f64 / length;
    match schedule {
        Schedule::Constant => 1.0,
        Schedule::Linear => (1.0 - progress).max(0.0),
        Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos()),
    }
}

/// The steps of a run that nothing stops early.
pub fn total_steps(pairs: usize, batch_size: usize, max_epochs: usize, max_steps: Option<usize>) -> usize {
    let all = pairs.div_ceil(batch_size).saturating_mul(max_epochs);
    max_steps.map_or(all, |max| max.min(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(schedule: Schedule, steps: &[usize]) -> Vec<f64> {
        steps.iter().map(|step| factor(schedule, 10, 50, *step)).collect()
    }

    #[test]
    fn rises_then_stays_or_falls_to_zero() {
        let steps = [0, 5, 10, 30, 50, 60];
        assert_eq!(at(Schedule::Constant, &steps), [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(at(Schedule::Linear, &steps), [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]);
        for (got, want) in at(Schedule::Cosine, &steps).iter().zip([0.0, 0.5, 1.0, 0.5, 0.0, 0.0]) {
            assert!((got - want).abs() < 1e-15, "{got} {want}");
        }
        // Without a warm-up the first step has the full rate; a warm-up longer than the run never gets there.
        assert_eq!(factor(Schedule::Constant, 0, 0, 0), 1.0);
        assert_eq!(factor(Schedule::Linear, 100, 50, 49), 0.49);
    }

    #[test]
    fn the_total_is_that_of_the_epochs_or_the_limit() {
        assert_eq!(total_steps(7000, 64, 12, None), 1320);
        assert_eq!(total_steps(7000, 64, 12, Some(100)), 100);
        assert_eq!(total_steps(7000, 64, usize::MAX, Some(100)), 100);
        assert_eq!(total_steps(10, 64, 1, Some(100)), 1);
    }
}

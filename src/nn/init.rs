//! The initial values of new weights.

use serde::{Deserialize, Serialize};

use crate::rng;

/// How a new weight is drawn; every draw is a function of the seed and its index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// N(0, in^-0.5), as CLIP draws its projections.
    #[default]
    Clip,
    /// Uniform in +-sqrt(6 / (in + out)) (Glorot and Bengio 2010; `torch.nn.init.xavier_uniform_`).
    Xavier,
}

impl Init {
    /// A weight `[outer, inner]`.
    pub fn draw(self, outer: usize, inner: usize, key: u64) -> Vec<f32> {
        let draw: Box<dyn Fn(u64) -> f64> = match self {
            Self::Clip => {
                let scale = (inner as f64).powf(-0.5);
                Box::new(move |i| rng::normal(key, i) * scale)
            }
            Self::Xavier => {
                let bound = (6.0 / (inner + outer) as f64).sqrt();
                Box::new(move |i| (2.0 * rng::uniform(key, i) - 1.0) * bound)
            }
        };
        (0..(outer * inner) as u64).map(|i| draw(i) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_weights_have_the_spread_they_promise() {
        let (outer, inner) = (200, 300);
        for (init, deviation, most) in [
            (Init::Clip, 300f64.powf(-0.5), f64::INFINITY),
            (Init::Xavier, (2.0f64 / 500.0).sqrt(), (6.0f64 / 500.0).sqrt()),
        ] {
            let draws = init.draw(outer, inner, 5);
            let square = draws.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / draws.len() as f64;
            assert!((square.sqrt() / deviation - 1.0).abs() < 0.02, "{init:?}");
            assert!(draws.iter().all(|x| f64::from(x.abs()) <= most), "{init:?}");
        }
    }
}

//! AdamW (Loshchilov and Hutter 2019) as `torch.optim.AdamW` computes it.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::nn::math::vectorised;
use crate::nn::storage::{Slice, edit};
use crate::nn::{Backend, Gradients, Params};

/// Hyper-parameters other than the learning rate; the defaults are torch's.
#[derive(Clone, Copy, Debug)]
pub struct AdamWConfig {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

/// The optimizer and its moments, in the order of the parameters.
pub struct AdamW {
    config: AdamWConfig,
    step: i32,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
}

/// Elements a rayon task updates.
const BLOCK: usize = 16 * 1024;

impl AdamW {
    /// Moments of zero.
    pub fn new(config: AdamWConfig, params: &Params) -> Result<Self> {
        let zeros = || params.iter().map(|entry| Ok(entry.var.zeros_like()?.detach())).collect::<Result<Vec<_>>>();
        Ok(Self { config, step: 0, first: zeros()?, second: zeros()? })
    }

    /// Updates every parameter in place.
    pub fn step(&mut self, backend: Backend, params: &Params, grads: &Gradients, learn_rate: f64) -> Result<()> {
        self.step += 1;
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let decay = 1.0 - learn_rate * weight_decay;
        let step_size = learn_rate / (1.0 - beta1.powi(self.step));
        let correction = (1.0 - beta2.powi(self.step)).sqrt();
        for (i, (entry, gradient)) in params.iter().zip(grads.iter()).enumerate() {
            if backend == Backend::Plain {
                let m = ((&self.first[i] * beta1)? + (gradient * (1.0 - beta1))?)?;
                let v = ((&self.second[i] * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
                let denominator = ((v.sqrt()? / correction)? + eps)?;
                let change = ((&m / denominator)? * step_size)?;
                entry.var.set(&((entry.var.as_detached_tensor() * decay)? - change)?)?;
                (self.first[i], self.second[i]) = (m, v);
                continue;
            }
            let gradient = Slice::new(gradient)?;
            let (b1, b2) = (beta1 as f32, beta2 as f32);
            let (c1, c2) = ((1.0 - beta1) as f32, (1.0 - beta2) as f32);
            let (decay, step_size) = (decay as f32, step_size as f32);
            let (correction, eps) = (correction as f32, eps as f32);
            let update = |p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]| {
                vectorised(|| {
                    for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
                        *m = b1 * *m + c1 * g;
                        *v = b2 * *v + c2 * g * g;
                        *p = decay * *p - step_size * (*m / (v.sqrt() / correction + eps));
                    }
                });
            };
            let (mut of_first, mut of_second) = (Ok(()), Ok(()));
            edit(&entry.var, |p| {
                of_first = edit(&self.first[i], |m| {
                    of_second = edit(&self.second[i], |v| {
                        (
                            p.par_chunks_mut(BLOCK),
                            m.par_chunks_mut(BLOCK),
                            v.par_chunks_mut(BLOCK),
                            gradient.par_chunks(BLOCK),
                        )
                            .into_par_iter()
                            .for_each(|(p, m, v, g)| update(p, m, v, g));
                    });
                });
            })?;
            of_first.and(of_second)?;
        }
        Ok(())
    }
}

//! AdamW (Loshchilov and Hutter 2019) as `torch.optim.AdamW` computes it.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::nn::math::simd;
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

    /// What a checkpoint keeps: named lists of tensors in the order of the parameters (torch's names).
    pub fn slots(&self) -> [(&'static str, &[Tensor]); 2] {
        [("exp_avg", &self.first), ("exp_avg_sq", &self.second)]
    }

    /// The same to be filled from a checkpoint made after `steps` steps.
    pub fn slots_mut(&mut self, steps: usize) -> [(&'static str, &mut Vec<Tensor>); 2] {
        self.step = steps as i32;
        [("exp_avg", &mut self.first), ("exp_avg_sq", &mut self.second)]
    }

    /// Updates every parameter in place.
    pub fn step(&mut self, backend: Backend, params: &Params, grads: &Gradients, learn_rate: f64) -> Result<()> {
        self.step += 1;
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let decay = 1.0 - learn_rate * weight_decay;
        let step_size = learn_rate / (1.0 - beta1.powi(self.step));
        let correction = (1.0 - beta2.powi(self.step)).sqrt();
        for (i, (entry, gradient)) in params.iter().zip(grads.iter()?).enumerate() {
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
            let update = Update {
                b1: beta1 as f32,
                b2: beta2 as f32,
                c1: (1.0 - beta1) as f32,
                c2: (1.0 - beta2) as f32,
                decay: decay as f32,
                step_size: step_size as f32,
                correction: correction as f32,
                eps: eps as f32,
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
                            .for_each(|(p, m, v, g)| adamw(p, m, v, g, update));
                    });
                });
            })?;
            of_first.and(of_second)?;
        }
        Ok(())
    }
}

/// The numbers of one step.
#[derive(Clone, Copy)]
struct Update {
    b1: f32,
    b2: f32,
    c1: f32,
    c2: f32,
    decay: f32,
    step_size: f32,
    correction: f32,
    eps: f32,
}

simd! {
    fn adamw(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], u: Update) {
        for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
            *m = u.b1 * *m + u.c1 * g;
            *v = u.b2 * *v + u.c2 * g * g;
            *p = u.decay * *p - u.step_size * (*m / (v.sqrt() / u.correction + u.eps));
        }
    }
}

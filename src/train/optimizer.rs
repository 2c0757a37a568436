//! AdamW (Loshchilov and Hutter 2019) and Adam (Kingma and Ba 2015) as `torch.optim` computes them, with clipping of
//! the gradient and a moving average of the weights.

use candle_core::{Tensor, Var};
use rayon::prelude::*;

use super::groups::{Group, groups};
use crate::config::recipe::{OptimizerKind, Recipe};
use crate::error::{Error, Result};
use crate::nn::params::{NamedParam, SQUARES, sum_of_squares, zeros};
use crate::nn::storage::{Slice, edit};
use crate::nn::{Backend, Gradients, Params};
use crate::simd::simd;

/// The optimizer and its moments, in the order of the parameters; what is frozen has none and stays as it is.
pub struct Optimizer {
    kind: OptimizerKind,
    betas: [f64; 2],
    grad_clip: Option<f64>,
    groups: Vec<Group>,
    step: usize,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
    average: Option<Average>,
}

/// An exponential moving average of the weights that starts with the initial ones.
struct Average {
    keep: f64,
    tensors: Vec<Tensor>,
}

/// Added to the root of the second moment (torch's default).
const EPS: f64 = 1e-8;

/// Elements that one rayon task updates and whose squares it sums.
const BLOCK: usize = SQUARES;

impl Optimizer {
    /// Moments of zero.
    pub fn new(recipe: &Recipe, params: &Params) -> Result<Self> {
        let average = |keep| {
            let copy = |(entry, zero): (&NamedParam, Tensor)| match entry.trainable {
                true => Ok(entry.var.as_detached_tensor().copy()?),
                false => Ok(zero),
            };
            let tensors = params.iter().zip(zeros(params)?).map(copy).collect::<Result<_>>()?;
            Ok::<_, Error>(Average { keep, tensors })
        };
        Ok(Self {
            kind: recipe.optimizer,
            betas: recipe.betas,
            grad_clip: recipe.grad_clip,
            groups: groups(recipe, params),
            step: 0,
            first: zeros(params)?,
            second: zeros(params)?,
            average: recipe.ema.map(average).transpose()?,
        })
    }

    /// Updates every trained parameter in place, and the average of the weights; returns [`Gradients::norm`]. If that is
    /// not finite, neither are the weights any more.
    pub fn step(&mut self, params: &Params, grads: &Gradients, learn_rate: f64) -> Result<f64> {
        let backend = params.backend();
        self.step += 1;
        let [beta1, beta2] = self.betas;
        // Without clipping the gradients are read once, for the update and for their norm.
        let norm = match self.grad_clip {
            None if backend != Backend::Plain => None,
            _ => Some(grads.norm()?),
        };
        let clip = match (self.grad_clip, norm) {
            // As torch.nn.utils.clip_grad_norm_.
            (Some(most), Some(norm)) => (most / (norm + 1e-6)).min(1.0),
            _ => 1.0,
        };
        let mut squares = 0.0;
        let correction1 = 1.0 - beta1.powi(self.step as i32);
        let correction2 = (1.0 - beta2.powi(self.step as i32)).sqrt();
        for (i, (entry, gradient)) in params.iter().zip(grads.iter()?).enumerate().filter(|(_, (e, _))| e.trainable) {
            let Group { rate, weight_decay } = self.groups[i];
            let learn_rate = learn_rate * rate;
            let (decay, l2) = match self.kind {
                OptimizerKind::Adamw => (1.0 - learn_rate * weight_decay, 0.0),
                OptimizerKind::Adam => (1.0, weight_decay),
            };
            let step_size = learn_rate / correction1;
            if backend == Backend::Plain {
                let old = entry.var.as_detached_tensor();
                let gradient = ((gradient * clip)? + (&old * l2)?)?;
                let m = ((&self.first[i] * beta1)? + (&gradient * (1.0 - beta1))?)?;
                let v = ((&self.second[i] * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
                let denominator = ((v.sqrt()? / correction2)? + EPS)?;
                let change = ((&m / denominator)? * step_size)?;
                entry.var.set(&((old * decay)? - change)?)?;
                (self.first[i], self.second[i]) = (m, v);
                continue;
            }
            let update = Update {
                clip: clip as f32,
                l2: l2 as f32,
                b1: beta1 as f32,
                b2: beta2 as f32,
                c1: (1.0 - beta1) as f32,
                c2: (1.0 - beta2) as f32,
                decay: decay as f32,
                step_size: step_size as f32,
                correction: (1.0 / correction2) as f32,
                eps: EPS as f32,
            };
            squares += update.apply(&entry.var, &self.first[i], &self.second[i], gradient)?;
        }
        if let Some(average) = &mut self.average {
            average.follow(params)?;
        }
        Ok(norm.unwrap_or(squares.sqrt()))
    }

    /// Exchanges the weights with their moving average, where there is one: before an evaluation, and again after it.
    pub fn swap_average(&mut self, params: &Params) -> Result<()> {
        let Some(Average { tensors, .. }) = &mut self.average else { return Ok(()) };
        for (entry, average) in params.iter().zip(tensors).filter(|(entry, _)| entry.trainable) {
            if params.backend() == Backend::Plain {
                let weights = entry.var.as_detached_tensor().copy()?;
                entry.var.set(average)?;
                *average = weights;
                continue;
            }
            let mut inner = Ok(());
            edit(&entry.var, |weights| inner = edit(average, |average| weights.swap_with_slice(average)))?;
            inner?;
        }
        Ok(())
    }

    /// What a checkpoint keeps: named lists of tensors in the order of the parameters (torch's names), empty ones for
    /// what is frozen. While the weights are exchanged with their average, as they are in a checkpoint, `weights` are
    /// those that are trained.
    pub fn slots(&self) -> Vec<(&'static str, &[Tensor])> {
        let weights = self.average.as_ref().map(|average| ("weights", &average.tensors[..]));
        [("exp_avg", &self.first[..]), ("exp_avg_sq", &self.second[..])].into_iter().chain(weights).collect()
    }

    /// [`Self::slots`], to be filled from a checkpoint made after `steps` steps.
    pub fn slots_mut(&mut self, steps: usize) -> Vec<(&'static str, &mut Vec<Tensor>)> {
        self.step = steps;
        let weights = self.average.as_mut().map(|average| ("weights", &mut average.tensors));
        [("exp_avg", &mut self.first), ("exp_avg_sq", &mut self.second)].into_iter().chain(weights).collect()
    }
}

impl Average {
    /// Moves towards the weights.
    fn follow(&mut self, params: &Params) -> Result<()> {
        let (keep, take) = (self.keep as f32, (1.0 - self.keep) as f32);
        for (entry, average) in params.iter().zip(&mut self.tensors).filter(|(entry, _)| entry.trainable) {
            let weights = entry.var.as_detached_tensor();
            if params.backend() == Backend::Plain {
                *average = ((&*average * self.keep)? + (weights * (1.0 - self.keep))?)?;
                continue;
            }
            let weights = Slice::new(&weights)?;
            edit(average, |average| {
                let blocks = average.par_chunks_mut(BLOCK).zip(weights.par_chunks(BLOCK));
                blocks.for_each(|(average, weights)| blend(average, weights, keep, take));
            })?;
        }
        Ok(())
    }
}

/// The numbers of one step.
#[derive(Clone, Copy)]
struct Update {
    clip: f32,
    l2: f32,
    b1: f32,
    b2: f32,
    c1: f32,
    c2: f32,
    decay: f32,
    step_size: f32,
    correction: f32,
    eps: f32,
}

impl Update {
    /// Returns the sum of the gradient's squares.
    fn apply(self, weights: &Var, first: &Tensor, second: &Tensor, gradient: &Tensor) -> Result<f64> {
        let gradient = Slice::new(gradient)?;
        let (mut of_first, mut of_second, mut squares) = (Ok(()), Ok(()), Vec::new());
        edit(weights, |p| {
            of_first = edit(first, |m| {
                of_second = edit(second, |v| {
                    let blocks = (
                        p.par_chunks_mut(BLOCK),
                        m.par_chunks_mut(BLOCK),
                        v.par_chunks_mut(BLOCK),
                        gradient.par_chunks(BLOCK),
                    );
                    let one = |(p, m, v, g): (&mut [f32], &mut [f32], &mut [f32], &[f32])| {
                        let squares = sum_of_squares(g);
                        adam(p, m, v, g, self);
                        squares
                    };
                    squares = blocks.into_par_iter().map(one).collect();
                });
            });
        })?;
        of_first.and(of_second)?;
        Ok(squares.iter().sum())
    }
}

simd! {
    fn adam(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], u: Update) {
        for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
            let g = u.clip * g + u.l2 * *p;
            *m = u.b1 * *m + u.c1 * g;
            *v = u.b2 * *v + u.c2 * g * g;
            *p = u.decay * *p - u.step_size * (*m / (v.sqrt() * u.correction + u.eps));
        }
    }

    fn blend(average: &mut [f32], weights: &[f32], keep: f32, take: f32) {
        for (average, &weight) in average.iter_mut().zip(weights) {
            *average = keep * *average + take * weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Shape};

    use super::*;

    fn params(backend: Backend) -> Params {
        let mut params = Params::new(backend);
        for shape in [Shape::from((6, 5)), Shape::from(6)] {
            params.next_layer();
            let value = Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
            let depth = params.depth();
            params.add(["a", "b", "c"].map(|name| format!("{name}{depth}")).to_vec(), &value).unwrap();
        }
        params
    }

    fn grads(params: &Params, step: usize) -> Gradients {
        let mut grads = Gradients::zeros(params).unwrap();
        for (i, entry) in params.iter().enumerate().filter(|(_, entry)| entry.trainable) {
            let param = crate::nn::Param { value: entry.var.as_detached_tensor(), id: Some(i) };
            let gradient = (entry.var.as_detached_tensor() * (step as f64 * 0.3)).unwrap();
            grads.add(&param, &gradient.sin().unwrap()).unwrap();
        }
        grads
    }

    fn bits(params: &Params) -> Vec<Vec<u32>> {
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        params.iter().map(|e| flat(e.var.as_tensor()).into_iter().map(f32::to_bits).collect()).collect()
    }

    fn step(optimizer: &mut Optimizer, params: &Params, n: usize) {
        let grads = grads(params, n);
        let norm = optimizer.step(params, &grads, 1e-2).unwrap();
        assert_eq!(norm, grads.norm().unwrap());
    }

    #[test]
    fn slots_of_a_checkpoint_go_on_to_the_bit() {
        let recipe = Recipe { ema: Some(0.9), grad_clip: Some(0.5), layer_decay: 0.5, ..Recipe::default() };
        for backend in [Backend::Fast, Backend::Plain] {
            let params = params(backend);
            let copies = |tensors: &[Tensor]| tensors.iter().map(|t| t.copy().unwrap()).collect::<Vec<_>>();
            let mut optimizer = Optimizer::new(&recipe, &params).unwrap();
            (0..3).for_each(|n| step(&mut optimizer, &params, n));
            let trained = bits(&params);
            optimizer.swap_average(&params).unwrap();
            let model: Vec<Tensor> = params.iter().map(|e| e.var.as_tensor().copy().unwrap()).collect();
            let slots: Vec<Vec<Tensor>> = optimizer.slots().iter().map(|(_, list)| copies(list)).collect();
            assert!(trained != bits(&params));
            optimizer.swap_average(&params).unwrap();
            assert!(trained == bits(&params));
            let finish = |optimizer: &mut Optimizer| {
                (3..6).for_each(|n| step(optimizer, &params, n));
                let weights = bits(&params);
                optimizer.swap_average(&params).unwrap();
                (weights, bits(&params))
            };
            let straight = finish(&mut optimizer);
            params.iter().zip(&model).for_each(|(entry, value)| entry.var.set(value).unwrap());
            let mut resumed = Optimizer::new(&recipe, &params).unwrap();
            resumed.slots_mut(3).into_iter().zip(slots).for_each(|((_, list), kept)| *list = kept);
            resumed.swap_average(&params).unwrap();
            assert!(finish(&mut resumed) == straight, "{backend:?}");
        }
    }

    #[test]
    fn what_is_frozen_stays() {
        for backend in [Backend::Fast, Backend::Plain] {
            let mut params = params(backend);
            params.freeze(Some(1));
            let before = bits(&params);
            let recipe = Recipe { ema: Some(0.5), grad_clip: Some(1.0), ..Recipe::default() };
            let mut optimizer = Optimizer::new(&recipe, &params).unwrap();
            step(&mut optimizer, &params, 1);
            optimizer.swap_average(&params).unwrap();
            let after = bits(&params);
            assert!(before[0] == after[0] && before[1] != after[1]);
            assert!(optimizer.slots().iter().all(|(_, list)| list[0].elem_count() == 0 && list[1].elem_count() == 6));
        }
    }
}

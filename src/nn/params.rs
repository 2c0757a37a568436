//! Parameters as one ordered list of named tensors, and gradients in the same order.

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Tensor, Var};
use rayon::prelude::*;

use super::Backend;
use super::storage::{Slice, edit};
use crate::error::{Error, Result};
use crate::simd::simd;

/// A parameter as an operation uses it: its value and its place in the lists of [`Params`] and [`Gradients`].
#[derive(Clone, Debug)]
pub struct Param {
    /// The current value; updated in place by the optimizer.
    pub value: Tensor,
    /// Index into the ordered lists; none for a parameter that is never trained.
    pub id: Option<usize>,
}

impl Param {
    fn place(&self) -> Result<usize> {
        self.id.ok_or_else(|| Error::new("a parameter that is never trained has no gradient"))
    }
}

/// One parameter of the list.
pub struct NamedParam {
    /// Its names in a checkpoint (see `models::weights`): more than one where a parameter is several checkpoint
    /// tensors of one shape, one below the other (query, key and value).
    names: Vec<String>,
    /// The value.
    pub var: Var,
    /// Which layer of its model it belongs to: 0 for the embeddings, then the layers from 1, then what follows them.
    pub depth: usize,
    /// Whether it is trained: gets a gradient and updates.
    pub trainable: bool,
}

impl NamedParam {
    /// Its names as one string, for messages.
    pub fn name(&self) -> String {
        self.names.join(" + ")
    }

    /// Cuts `tensor`, of this parameter's shape, into the tensors of the checkpoint, each with its name.
    pub fn parts(&self, tensor: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let parts = tensor.chunk(self.names.len(), 0)?;
        Ok(self.names.iter().cloned().zip(parts).collect())
    }
}

/// The ordered list of a model's parameters.
#[derive(Default)]
pub struct Params {
    entries: Vec<NamedParam>,
    depth: usize,
    frozen: bool,
    backend: Backend,
}

impl Params {
    /// For a model whose layers will use `backend`.
    pub fn new(backend: Backend) -> Self {
        Self { backend, ..Self::default() }
    }

    /// For a model that is never trained: nothing is listed.
    pub fn frozen(backend: Backend) -> Self {
        Self { frozen: true, ..Self::new(backend) }
    }

    /// Which operations the layers of these parameters use.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Whether this is [`Self::frozen`].
    pub fn are_frozen(&self) -> bool {
        self.frozen
    }

    /// Appends a parameter. It shares the memory of a `value` that is a variable, as those of a VarBuilder are, and
    /// copies any other.
    pub fn add(&mut self, names: Vec<String>, value: &Tensor) -> Result<Param> {
        let value = value.to_dtype(DType::F32)?;
        if self.frozen {
            return Ok(Param { value: value.detach(), id: None });
        }
        let var = Var::from_tensor(&value)?;
        let param = Param { value: var.as_detached_tensor(), id: Some(self.entries.len()) };
        self.entries.push(NamedParam { names, var, depth: self.depth, trainable: true });
        Ok(param)
    }

    /// What is added from now on belongs to the next layer.
    pub fn next_layer(&mut self) {
        self.depth += 1;
    }

    /// The depth of the last layer.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Trains only what lies above `depth`; all of it if none is given.
    pub fn freeze(&mut self, depth: Option<usize>) {
        self.entries.iter_mut().for_each(|entry| entry.trainable = depth.is_none_or(|depth| entry.depth > depth));
    }

    /// The parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = &NamedParam> {
        self.entries.iter()
    }

    /// How many parameters (tensors) there are.
    #[doc(hidden)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the list is empty.
    #[doc(hidden)]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether all numbers are finite, and small enough for their sum to be.
    pub fn are_finite(&self) -> Result<bool> {
        for entry in &self.entries {
            if !entry.var.as_detached_tensor().abs()?.sum_all()?.to_scalar::<f32>()?.is_finite() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How many numbers they hold together.
    pub fn elements(&self) -> usize {
        self.entries.iter().map(|entry| entry.var.elem_count()).sum()
    }
}

/// Zeros in the shape of every trained parameter, and an empty tensor for each of the others, so that indices agree.
pub fn zeros(params: &Params) -> Result<Vec<Tensor>> {
    let zeros = |entry: &NamedParam| {
        let shape = if entry.trainable { entry.var.shape().clone() } else { 0.into() };
        Ok(Tensor::zeros(shape, DType::F32, entry.var.device())?)
    };
    params.iter().map(zeros).collect()
}

/// One gradient for each parameter, in the order of [`Params`]; operations add to it.
pub struct Gradients {
    backend: Backend,
    tensors: Vec<Tensor>,
    held: Vec<Mutex<Held>>,
}

/// What the memory of a gradient holds (the fast path).
#[derive(Default)]
enum Held {
    /// Its value.
    #[default]
    Value,
    /// Zeros, except in these rows.
    OnlyRows(Vec<u32>),
    /// Numbers of an earlier step; its value is zero.
    Stale,
}

impl Gradients {
    /// Zero gradients for `params`; what is not trained has an empty one.
    pub fn zeros(params: &Params) -> Result<Self> {
        let tensors = zeros(params)?;
        let held = tensors.iter().map(|_| Mutex::new(Held::OnlyRows(Vec::new()))).collect();
        Ok(Self { backend: params.backend, tensors, held })
    }

    /// The gradient of `param`.
    #[doc(hidden)]
    pub fn of(&self, param: &Param) -> Result<&Tensor> {
        let id = param.place()?;
        self.settle(id)?;
        Ok(&self.tensors[id])
    }

    /// All gradients in order.
    pub fn iter(&self) -> Result<impl Iterator<Item = &Tensor>> {
        (0..self.tensors.len()).try_for_each(|id| self.settle(id))?;
        Ok(self.tensors.iter())
    }

    /// Sets every gradient to zero. On the fast path, memory that the next step overwrites is only marked as stale, and of
    /// an embedding table only the rows that are not zero are cleared.
    pub fn clear(&mut self) -> Result<()> {
        let backend = self.backend;
        for (tensor, held) in self.tensors.iter_mut().zip(&mut self.held) {
            match (backend, held.get_mut().unwrap_or_else(PoisonError::into_inner)) {
                (Backend::Plain, held) => {
                    *tensor = tensor.zeros_like()?;
                    *held = Held::Value;
                }
                (_, Held::OnlyRows(rows)) => {
                    let width = tensor.elem_count() / tensor.dim(0)?.max(1);
                    edit(tensor, |g| rows.drain(..).for_each(|row| g[row as usize * width..][..width].fill(0.0)))?;
                }
                (_, held) => *held = Held::Stale,
            }
        }
        Ok(())
    }

    /// Clears the memory of a gradient if it is stale, so that it holds the gradient's value.
    fn settle(&self, id: usize) -> Result<()> {
        let mut held = self.held[id].lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*held, Held::Stale) {
            edit(&self.tensors[id], |g| g.fill(0.0))?;
            *held = Held::Value;
        }
        Ok(())
    }

    fn held(&mut self, id: usize) -> &mut Held {
        self.held[id].get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a whole tensor to the gradient of `param` (the plain path).
    pub fn add(&mut self, param: &Param, gradient: &Tensor) -> Result<()> {
        let id = param.place()?;
        self.settle(id)?;
        *self.held(id) = Held::Value;
        let sum = (&self.tensors[id] + gradient)?;
        self.tensors[id] = sum;
        Ok(())
    }

    /// Updates the gradient of `param` in place (the fast path).
    pub fn edit(&mut self, param: &Param, change: impl FnOnce(&mut [f32])) -> Result<()> {
        let id = param.place()?;
        self.settle(id)?;
        *self.held(id) = Held::Value;
        edit(&self.tensors[id], change)
    }

    /// [`Self::edit`] for a change that adds to the rows `rows` only.
    pub fn edit_rows(&mut self, param: &Param, rows: &[u32], change: impl FnOnce(&mut [f32])) -> Result<()> {
        let id = param.place()?;
        self.settle(id)?;
        if let Held::OnlyRows(known) = self.held(id) {
            known.extend(rows);
        }
        edit(&self.tensors[id], change)
    }

    /// [`Self::edit`] for a change to all elements. `change` is given `true` where the gradient is zero so far: it must then
    /// overwrite the memory, which may hold numbers of an earlier step.
    pub fn accumulate(&mut self, param: &Param, change: impl FnOnce(&mut [f32], bool)) -> Result<()> {
        let id = param.place()?;
        let is_zero = match std::mem::take(self.held(id)) {
            Held::Stale => true,
            Held::OnlyRows(rows) => rows.is_empty(),
            Held::Value => false,
        };
        edit(&self.tensors[id], |g| change(g, is_zero))
    }

    /// The norm of all gradients together, as `torch.nn.utils.clip_grad_norm_` has it; finite only if every gradient
    /// is. On the fast path squares are added in f64, where those of f32 numbers cannot overflow, in a fixed order.
    pub fn norm(&self) -> Result<f64> {
        let mut sum = 0.0;
        for gradient in self.iter()? {
            sum += match self.backend {
                Backend::Fast | Backend::Bf16 => {
                    let gradient = Slice::new(gradient)?;
                    let blocks: Vec<f64> = gradient.par_chunks(SQUARES).map(sum_of_squares).collect();
                    blocks.iter().sum()
                }
                Backend::Plain => f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?),
            };
        }
        Ok(sum.sqrt())
    }

    /// The names of trained parameters whose gradient is not finite, or zero everywhere.
    pub fn suspicious(&self, params: &Params) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (entry, gradient) in params.iter().zip(self.iter()?).filter(|(entry, _)| entry.trainable) {
            let size = gradient.abs()?.sum_all()?.to_scalar::<f32>()?;
            if !size.is_finite() || size == 0.0 {
                found.push(entry.name());
            }
        }
        Ok(found)
    }
}

/// Elements in one partial sum of squares.
pub(crate) const SQUARES: usize = 16 * 1024;

simd! {
    pub(crate) fn sum_of_squares(values: &[f32]) -> f64 {
        let mut lanes = [0.0f64; 16];
        let (chunks, rest) = values.as_chunks::<16>();
        for chunk in chunks {
            for (lane, &value) in lanes.iter_mut().zip(chunk) {
                *lane = f64::from(value).mul_add(f64::from(value), *lane);
            }
        }
        for (lane, &value) in lanes.iter_mut().zip(rest) {
            *lane = f64::from(value).mul_add(f64::from(value), *lane);
        }
        lanes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn what_is_cleared_is_zero_whatever_wrote_it() {
        let mut params = Params::default();
        let ones = |g: &mut [f32]| g.iter_mut().for_each(|g| *g += 1.0);
        for name in ["edited", "rows", "accumulated"] {
            params.add(vec![name.into()], &Tensor::zeros((4, 2), DType::F32, &Device::Cpu).unwrap()).unwrap();
        }
        let param = |id| Param { value: Tensor::zeros((4, 2), DType::F32, &Device::Cpu).unwrap(), id: Some(id) };
        let mut grads = Gradients::zeros(&params).unwrap();
        for round in 0..3 {
            grads.edit(&param(0), ones).unwrap();
            for _ in 0..2 {
                grads.edit_rows(&param(1), &[2, 0, 2], |g| g[4] += 1.0).unwrap();
            }
            for again in [false, true] {
                grads
                    .accumulate(&param(2), |g, is_zero| {
                        assert_eq!(is_zero, !again, "round {round}");
                        if is_zero { g.fill(1.0) } else { ones(g) }
                    })
                    .unwrap();
            }
            let sums = |grads: &Gradients| -> Vec<f32> {
                grads.iter().unwrap().map(|g| g.sum_all().unwrap().to_scalar().unwrap()).collect()
            };
            assert_eq!(sums(&grads), [8.0, 2.0, 16.0]);
            grads.clear().unwrap();
            if round != 1 {
                assert_eq!(sums(&grads), [0.0; 3]);
                assert_eq!(grads.suspicious(&params).unwrap().len(), 3);
                grads.clear().unwrap();
            }
        }
    }

    #[test]
    fn the_norm_is_that_of_all_gradients_and_tells_of_any_that_is_not_finite() {
        // candle adds f32 up in f32.
        for (backend, tolerance) in [(Backend::Fast, 1e-6), (Backend::Plain, 1e-4)] {
            let zeros = |n: usize| Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
            let mut params = Params::new(backend);
            let first = params.add(vec!["a".into()], &zeros(40_000)).unwrap();
            let second = params.add(vec!["b".into()], &zeros(3)).unwrap();
            let mut grads = Gradients::zeros(&params).unwrap();
            grads.edit(&first, |g| g.iter_mut().for_each(|g| *g = 0.01)).unwrap();
            grads.edit(&second, |g| g.copy_from_slice(&[0.0, 3.0, 0.0])).unwrap();
            let norm = grads.norm().unwrap();
            assert!((norm / 13f64.sqrt() - 1.0).abs() < tolerance, "{norm}");
            grads.edit(&first, |g| g[39_999] = f32::MAX).unwrap();
            assert!(backend == Backend::Plain || grads.norm().unwrap().is_finite());
            for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                grads.edit(&first, |g| g[20_000] = broken).unwrap();
                assert!(!grads.norm().unwrap().is_finite());
            }
        }
    }
}

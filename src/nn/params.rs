//! Parameters as one ordered list of named tensors, and gradients in the same order.

use candle_core::{DType, Tensor, Var};

use super::Backend;
use super::storage::edit;
use crate::error::Result;

/// A parameter as an operation uses it: its value and its place in the lists of [`Params`] and [`Gradients`].
#[derive(Clone, Debug)]
pub struct Param {
    /// The current value; updated in place by the optimizer.
    pub value: Tensor,
    /// Index into the ordered lists.
    pub id: usize,
}

/// One parameter of the list.
pub struct Entry {
    /// Its names in a checkpoint (see `models::weights`): more than one where a parameter is several checkpoint
    /// tensors of one shape, one below the other (query, key and value).
    names: Vec<String>,
    /// The value.
    pub var: Var,
}

impl Entry {
    /// The names for people, one string.
    pub fn name(&self) -> String {
        self.names.join(" + ")
    }

    /// `tensor`, of this parameter's shape, as the checkpoint has it: a name and a part each.
    pub fn parts(&self, tensor: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let parts = tensor.chunk(self.names.len(), 0)?;
        Ok(self.names.iter().cloned().zip(parts).collect())
    }
}

/// The ordered list of a model's parameters.
#[derive(Default)]
pub struct Params {
    entries: Vec<Entry>,
}

impl Params {
    /// Appends a parameter.
    pub fn add(&mut self, names: Vec<String>, value: &Tensor) -> Result<Param> {
        let var = Var::from_tensor(&value.to_dtype(DType::F32)?.contiguous()?)?;
        let param = Param { value: var.as_detached_tensor(), id: self.entries.len() };
        self.entries.push(Entry { names, var });
        Ok(param)
    }

    /// The parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// How many parameters (tensors) there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many numbers they hold together.
    pub fn elements(&self) -> usize {
        self.entries.iter().map(|entry| entry.var.elem_count()).sum()
    }
}

/// One gradient a parameter, in the order of [`Params`]; operations add to it.
pub struct Gradients {
    tensors: Vec<Tensor>,
}

impl Gradients {
    /// Zero gradients for `params`.
    pub fn zeros(params: &Params) -> Result<Self> {
        let zeros = |entry: &Entry| Ok(Tensor::zeros(entry.var.shape(), DType::F32, entry.var.device())?);
        Ok(Self { tensors: params.iter().map(zeros).collect::<Result<_>>()? })
    }

    /// The gradient of `param`.
    pub fn of(&self, param: &Param) -> &Tensor {
        &self.tensors[param.id]
    }

    /// All gradients in order.
    pub fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.iter()
    }

    /// Sets every gradient to zero, keeping the memory where that is possible.
    pub fn clear(&mut self, backend: Backend) -> Result<()> {
        for tensor in &mut self.tensors {
            match backend {
                Backend::Fast => edit(tensor, |g| g.fill(0.0))?,
                Backend::Plain => *tensor = tensor.zeros_like()?,
            }
        }
        Ok(())
    }

    /// Adds a whole tensor to the gradient of `param` (the plain path).
    pub fn add(&mut self, param: &Param, gradient: &Tensor) -> Result<()> {
        let sum = (&self.tensors[param.id] + gradient)?;
        self.tensors[param.id] = sum;
        Ok(())
    }

    /// Updates the gradient of `param` in place (the fast path).
    pub fn edit(&mut self, param: &Param, change: impl FnOnce(&mut [f32])) -> Result<()> {
        edit(&self.tensors[param.id], change)
    }

    /// The names of parameters whose gradient is not finite, or zero everywhere.
    pub fn suspicious(&self, params: &Params) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (entry, gradient) in params.iter().zip(&self.tensors) {
            let size = gradient.abs()?.sum_all()?.to_scalar::<f32>()?;
            if !size.is_finite() || size == 0.0 {
                found.push(entry.name());
            }
        }
        Ok(found)
    }
}

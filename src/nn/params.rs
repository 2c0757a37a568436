//! Parameters as one ordered list of named tensors, and gradients in the same order.

use candle_core::{DType, Tensor, Var};

use super::storage::edit;
use super::Backend;
use crate::error::{Error, Result};

/// A parameter as an operation uses it: its value and its place in the lists of [`Params`] and [`Gradients`].
#[derive(Clone, Debug)]
pub struct Param {
    /// The current value; updated in place by the optimizer.
    pub value: Tensor,
    /// Index into the ordered lists.
    pub id: usize,
}

/// The ordered list of a model's parameters. The names are the ones of checkpoints (see `models::weights`).
#[derive(Default)]
pub struct Params {
    entries: Vec<(String, Var)>,
}

impl Params {
    /// Appends a parameter.
    pub fn add(&mut self, name: impl Into<String>, value: &Tensor) -> Result<Param> {
        let var = Var::from_tensor(&value.to_dtype(DType::F32)?.contiguous()?)?;
        let param = Param { value: var.as_detached_tensor(), id: self.entries.len() };
        self.entries.push((name.into(), var));
        Ok(param)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.entries.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// The parameter called `name`.
    pub fn get(&self, name: &str) -> Option<Param> {
        let id = self.entries.iter().position(|(n, _)| n == name)?;
        Some(Param { value: self.entries[id].1.as_detached_tensor(), id })
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
        self.entries.iter().map(|(_, var)| var.elem_count()).sum()
    }
}

/// One gradient a parameter, in the order of [`Params`]; operations add to it.
pub struct Gradients {
    tensors: Vec<Tensor>,
}

impl Gradients {
    /// Zero gradients for `params`.
    pub fn zeros(params: &Params) -> Result<Self> {
        let zeros = |(_, var): (&str, &Var)| Ok(Tensor::zeros(var.shape(), DType::F32, var.device())?);
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
    pub fn suspicious<'a>(&self, params: &'a Params) -> Result<Vec<&'a str>> {
        let mut found = Vec::new();
        for ((name, _), gradient) in params.iter().zip(&self.tensors) {
            let size = gradient.abs()?.sum_all()?.to_scalar::<f32>().map_err(Error::from)?;
            if !size.is_finite() || size == 0.0 {
                found.push(name);
            }
        }
        Ok(found)
    }
}

//! candle tensors as slices: how the fast path reads operands and updates gradients in place, without a copy.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Shape, Storage, StorageRef, Tensor, WithDType};
use half::bf16;

use crate::error::{Error, Result};

/// A contiguous CPU tensor seen as a slice; holds the tensor's read lock.
pub struct Slice<'a, T = f32> {
    guard: StorageRef<'a>,
    range: std::ops::Range<usize>,
    element: PhantomData<T>,
}

impl<'a> Slice<'a> {
    /// Fails if the tensor is not f32, not on the CPU or not contiguous.
    pub fn new(tensor: &'a Tensor) -> Result<Self> {
        Self::of(tensor)
    }
}

impl<'a> Slice<'a, bf16> {
    /// Fails if the tensor is not bf16, not on the CPU or not contiguous.
    pub fn bf16(tensor: &'a Tensor) -> Result<Self> {
        Self::of(tensor)
    }
}

impl<'a, T: WithDType> Slice<'a, T> {
    fn of(tensor: &'a Tensor) -> Result<Self> {
        let (guard, layout) = tensor.storage_and_layout();
        match (&*guard, layout.contiguous_offsets()) {
            (Storage::Cpu(data), Some((start, end))) if T::cpu_storage_as_slice(data).is_ok() => {
                Ok(Self { guard, range: start..end, element: PhantomData })
            }
            _ => {
                let dtype = T::DTYPE.as_str();
                Err(Error::new(format!("the fast path needs a contiguous {dtype} CPU tensor, not {tensor:?}")))
            }
        }
    }
}

impl<T: WithDType> Deref for Slice<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &*self.guard {
            Storage::Cpu(data) => T::cpu_storage_as_slice(data).map_or(&[], |data| &data[self.range.clone()]),
            _ => &[], // `of` let only the first case pass
        }
    }
}

struct Edit<F>(Mutex<Option<F>>);

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Edit<F> {
    fn name(&self) -> &'static str {
        "edit in place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(data), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("the fast path updates contiguous f32 tensors only");
        };
        if let Some(edit) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            edit(&mut data[start..end]);
        }
        Ok(())
    }
}

/// Runs `edit` on the elements of a contiguous f32 CPU tensor, in place. Every tensor that shares the storage sees
/// the change, so this is for parameters, gradients and moments only.
pub fn edit(tensor: &Tensor, edit: impl FnOnce(&mut [f32])) -> Result<()> {
    Ok(tensor.inplace_op1(&Edit(Mutex::new(Some(edit))))?)
}

/// A CPU tensor that takes over `data`.
pub fn tensor<T: WithDType>(data: Vec<T>, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(data, shape, &Device::Cpu)?)
}

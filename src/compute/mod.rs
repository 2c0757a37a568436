//! Where and how a model computes: the device, the precision of matmuls, and the implementation of the layers that both
//! lead to.

pub mod device;
pub mod precision;

pub use precision::Precision;

use candle_core::Device;

use crate::error::Result;
use crate::nn::Backend;

/// Where a model lives and which operations it uses there.
#[derive(Clone, Debug)]
pub struct Compute {
    /// Where its tensors are.
    pub device: Device,
    /// The operations it uses there.
    pub backend: Backend,
}

impl Compute {
    /// `device` with the backend that is fastest on it.
    pub fn new(device: Device) -> Self {
        let backend = if device.is_cpu() { Backend::Fast } else { Backend::Plain };
        Self { device, backend }
    }

    /// `device` with matmuls in `precision`.
    pub fn with_precision(device: Device, precision: Precision) -> Result<Self> {
        let backend = precision.backend(&device)?;
        Ok(Self { device, backend })
    }

    /// `device` with plain tensor operations, as other devices than the CPU use them.
    #[doc(hidden)]
    pub fn plain(device: Device) -> Self {
        Self { device, backend: Backend::Plain }
    }
}

//! In which precision matmuls are computed.

use candle_core::Device;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nn::Backend;
use crate::nn::cpu::gemm;

/// The precision of the operands of matmuls. Their sums, the weights and all else are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32, as the tensors are.
    #[default]
    F32,
    /// Rounded to bf16.
    Bf16,
    /// Bf16 where this CPU has instructions for it, else f32.
    Auto,
}

impl Precision {
    /// The names on the command line.
    pub const NAMES: [&str; 3] = ["f32", "bf16", "auto"];

    /// The operations for `device`. Logs what `auto` came to, and warns where bf16 brings no speed.
    pub fn backend(self, device: &Device) -> Result<Backend> {
        let unit = gemm::bf16_unit();
        match (self, device.is_cpu()) {
            (Self::F32, true) => Ok(Backend::Fast),
            (Self::F32 | Self::Auto, false) => Ok(Backend::Plain),
            (Self::Bf16, false) => Err(Error::usage("bf16 matmuls are made for the CPU")
                .hint("use --precision f32 on this device, or --device cpu")),
            (Self::Auto, true) => {
                match unit {
                    Some(unit) => {
                        tracing::info!("precision auto: bf16, which this CPU multiplies faster (through {unit})")
                    }
                    None => tracing::info!("precision auto: f32"),
                }
                Ok(if unit.is_some() { Backend::Bf16 } else { Backend::Fast })
            }
            (Self::Bf16, true) => {
                match unit {
                    Some(unit) => tracing::info!("matmuls in bf16 through {unit}"),
                    None => tracing::warn!("this CPU has no bf16 instructions: --precision f32 would be faster"),
                }
                Ok(Backend::Bf16)
            }
        }
    }
}

impl std::str::FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let all = [Self::F32, Self::Bf16, Self::Auto];
        let found = all.into_iter().zip(Self::NAMES).find(|(_, known)| *known == name);
        found.map(|(precision, _)| precision).ok_or_else(|| Error::usage(format!("unknown precision `{name}`")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_configuration() {
        for name in Precision::NAMES {
            let precision: Precision = name.parse().unwrap();
            assert_eq!(serde_json::to_value(precision).unwrap(), name);
        }
        assert_eq!(Precision::F32.backend(&Device::Cpu).unwrap(), Backend::Fast);
        assert_eq!(Precision::Bf16.backend(&Device::Cpu).unwrap(), Backend::Bf16);
        assert_ne!(Precision::Auto.backend(&Device::Cpu).unwrap(), Backend::Plain);
    }
}

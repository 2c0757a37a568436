//! Which device computes: `auto`, `cpu`, `cuda[:N]` or `metal`.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

use crate::error::{Error, Result, ResultExt};

/// A device as the user names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spec {
    /// The first CUDA device, else Metal, else the CPU; of those that this build knows.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number, counted from 0.
    Cuda(usize),
    /// The first Metal device.
    Metal,
}

impl FromStr for Spec {
    type Err = Error;

    fn from_str(spec: &str) -> Result<Self> {
        match spec {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda(0)),
            "metal" => return Ok(Self::Metal),
            _ => {}
        }
        spec.strip_prefix("cuda:")
            .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|number| number.parse().ok())
            .map(Self::Cuda)
            .ok_or_else(|| {
                Error::usage(format!("unknown device `{spec}`"))
                    .hint("use auto, cpu, cuda, cuda:N (N counts from 0) or metal")
            })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

/// Opens the device that `spec` names. Only `auto` falls back to another device, and it logs why.
pub fn select(spec: &str) -> Result<Device> {
    match spec.parse()? {
        Spec::Cpu => Ok(Device::Cpu),
        Spec::Auto => Ok(automatic()),
        named @ Spec::Cuda(number) => {
            compiled_in(cfg!(feature = "cuda"), named, "cuda")?;
            Device::new_cuda(number)
                .context(|| format!("cannot open device {named}"))
                .hint(|| "`nvidia-smi` lists the GPUs and their numbers; --device cpu works everywhere")
        }
        Spec::Metal => {
            compiled_in(cfg!(feature = "metal"), Spec::Metal, "metal")?;
            Device::new_metal(0)
                .context(|| "cannot open device metal")
                .hint(|| "Metal needs a Mac with a GPU; --device cpu works everywhere")
        }
    }
}

fn automatic() -> Device {
    let candidates = [(cfg!(feature = "cuda"), Spec::Cuda(0)), (cfg!(feature = "metal"), Spec::Metal)];
    for (_, spec) in candidates.into_iter().filter(|(compiled, _)| *compiled) {
        match select(&spec.to_string()) {
            Ok(device) => return device,
            Err(error) => tracing::warn!("{error}; looking for another device"),
        }
    }
    Device::Cpu
}

fn compiled_in(is: bool, device: Spec, feature: &str) -> Result<()> {
    if is {
        return Ok(());
    }
    Err(Error::usage(format!("this build of themo has no support for device {device}"))
        .hint(format!("build it in with `cargo build --release --features {feature}`, or use --device cpu")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_parse_and_print() {
        for (text, spec) in
            [("auto", Spec::Auto), ("cpu", Spec::Cpu), ("cuda:0", Spec::Cuda(0)), ("cuda:3", Spec::Cuda(3))]
        {
            assert_eq!(text.parse::<Spec>().unwrap(), spec);
            assert_eq!(spec.to_string(), text);
        }
        assert_eq!("cuda".parse::<Spec>().unwrap(), Spec::Cuda(0));
        for wrong in ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cuda:99999999999999999999"] {
            let error = wrong.parse::<Spec>().unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong}");
            assert!(error.advice().is_some());
        }
    }

    #[test]
    fn the_cpu_is_always_there() {
        assert!(matches!(select("cpu"), Ok(Device::Cpu)));
        assert!(select("auto").is_ok());
    }

    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    #[test]
    fn a_device_that_is_not_compiled_in_says_how_to_get_it() {
        for (device, feature) in [("cuda:1", "--features cuda"), ("metal", "--features metal")] {
            let error = select(device).unwrap_err();
            assert!(error.to_string().contains(device) && error.advice().unwrap().contains(feature));
        }
    }
}

//! Which device a model computes on: what people may ask for, and what this build and this machine have.

use std::{fmt, str::FromStr};

use candle_core::Device;

/// A device by its name: `auto`, `cpu`, `cuda`, `cuda:1` or `metal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first device that this build can use and the machine has, else the CPU.
    #[default]
    Auto,
    /// The CPU, by the engine's own kernels.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
    Metal,
}

impl DeviceChoice {
    /// The device; `None` is the CPU.
    ///
    /// # Errors
    /// A device was asked for by name, and this build or this machine does not have it.
    pub fn open(self) -> Result<Option<Device>, DeviceError> {
        match self {
            Self::Auto => Ok([Self::Cuda(0), Self::Metal].into_iter().find_map(Self::try_open)),
            Self::Cpu => Ok(None),
            Self::Cuda(_) if !cfg!(feature = "cuda") => Err(DeviceError::NotBuilt("cuda")),
            Self::Metal if !cfg!(feature = "metal") => Err(DeviceError::NotBuilt("metal")),
            Self::Cuda(number) => self.opened(Device::new_cuda(number)),
            Self::Metal => self.opened(Device::new_metal(0)),
        }
    }

    /// As [`Self::open`], where nobody asked for this one: says why it can't be had, and goes on.
    fn try_open(self) -> Option<Device> {
        match self.open() {
            Ok(device) => device,
            Err(DeviceError::NotBuilt(_)) => None,
            Err(error) => {
                log::info!("computing on the CPU: {error}");
                None
            }
        }
    }

    fn opened(self, device: candle_core::Result<Device>) -> Result<Option<Device>, DeviceError> {
        device.map(Some).map_err(|error| DeviceError::Refused { device: self, why: error.to_string() })
    }
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown(name.to_owned());
        match name.split_once(':') {
            None => match name {
                "auto" => Ok(Self::Auto),
                "cpu" => Ok(Self::Cpu),
                "cuda" => Ok(Self::Cuda(0)),
                "metal" => Ok(Self::Metal),
                _ => Err(unknown()),
            },
            Some(("cuda", number)) => number.parse().map(Self::Cuda).map_err(|_| unknown()),
            Some(_) => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

/// Why there is no such device.
#[derive(Debug, Clone, PartialEq)]
pub enum DeviceError {
    /// No device has this name.
    Unknown(String),
    /// The program was built without this Cargo feature.
    NotBuilt(&'static str),
    /// The driver says no.
    Refused { device: DeviceChoice, why: String },
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(f, "there is no device {name:?}: it is one of auto, cpu, cuda, cuda:NUMBER, metal")
            }
            Self::NotBuilt(feature) => {
                write!(f, "this program was built without {feature}: build it with --features {feature}")
            }
            Self::Refused { device, why } => write!(f, "device {device} can't be used: {why}"),
        }
    }
}

impl std::error::Error for DeviceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let good = [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:7", DeviceChoice::Cuda(7)),
            ("metal", DeviceChoice::Metal),
        ];
        for (name, choice) in good {
            assert_eq!(name.parse(), Ok(choice));
            assert_eq!(choice.to_string(), name);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for bad in ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "metal:0", "cpu:0"] {
            assert_eq!(bad.parse::<DeviceChoice>(), Err(DeviceError::Unknown(bad.to_owned())));
        }
    }

    #[test]
    fn the_cpu_needs_no_device() {
        assert!(matches!(DeviceChoice::Cpu.open(), Ok(None)));
    }

    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    #[test]
    fn what_was_not_built_is_refused_by_name_and_passed_over_by_auto() {
        assert!(matches!(DeviceChoice::Auto.open(), Ok(None)));
        assert_eq!(DeviceChoice::Cuda(0).open().unwrap_err(), DeviceError::NotBuilt("cuda"));
        assert_eq!(DeviceChoice::Metal.open().unwrap_err(), DeviceError::NotBuilt("metal"));
    }
}

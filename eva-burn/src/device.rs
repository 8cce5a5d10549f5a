//! The one place that chooses a device.

use std::str::FromStr;

use burn::tensor::Device;

/// Where the model runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The processor (Burn's flex backend).
    #[default]
    Cpu,
    /// An NVIDIA GPU, by index; needs the feature `cuda`.
    Cuda(usize),
    /// The default GPU through Vulkan, Metal or DX12; needs the feature `wgpu`.
    Wgpu,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceError {
    /// The name is not one of the devices.
    #[error("`{0}` is not a device; use cpu, wgpu, cuda or cuda:N")]
    Unknown(String),
    /// The device's feature was not compiled in.
    #[error("device `{device}` is not compiled in; build with `--features {feature}`")]
    NotCompiled {
        /// The device that was asked for.
        device: &'static str,
        /// The feature that brings it.
        feature: &'static str,
    },
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        match name {
            "cpu" => Ok(Self::Cpu),
            "wgpu" => Ok(Self::Wgpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => name
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| DeviceError::Unknown(name.to_owned())),
        }
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Wgpu => f.write_str("wgpu"),
        }
    }
}

impl DeviceChoice {
    /// Burn's device.
    ///
    /// # Errors
    /// [`DeviceError::NotCompiled`] names the missing feature.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => Ok(Device::cuda(index)),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) => Err(DeviceError::NotCompiled {
                device: "cuda",
                feature: "cuda",
            }),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(not(feature = "wgpu"))]
            Self::Wgpu => Err(DeviceError::NotCompiled {
                device: "wgpu",
                feature: "wgpu",
            }),
        }
    }
}

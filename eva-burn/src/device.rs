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
    /// An Apple GPU, in Metal's own shading language; needs the feature `metal`.
    Metal,
    /// The default GPU through Vulkan, in SPIR-V, with matrix units where the driver offers them; needs
    /// the feature `vulkan`.
    Vulkan,
    /// The default GPU through Vulkan, Metal or DX12, whichever there is; needs the feature `wgpu`.
    Wgpu,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceError {
    /// The name is not one of the devices.
    #[error("`{0}` is not a device; use cpu, wgpu, vulkan, metal, cuda or cuda:N")]
    Unknown(String),
    /// The device's feature was not compiled in.
    #[error("device `{device}` is not compiled in; build with `--features {feature}`")]
    NotCompiled {
        /// The device that was asked for.
        device: &'static str,
        /// The feature that brings it.
        feature: &'static str,
    },
    /// There is no such device in this machine, or its driver does not work.
    #[error(
        "device `{device}` cannot be used: {reason}; check the driver (`vulkaninfo`, `nvidia-smi`), or run on `cpu`"
    )]
    Unavailable {
        /// The device that was asked for.
        device: String,
        /// What its first use said.
        reason: String,
    },
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        match name {
            "cpu" => Ok(Self::Cpu),
            "wgpu" => Ok(Self::Wgpu),
            "vulkan" => Ok(Self::Vulkan),
            "metal" => Ok(Self::Metal),
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
            Self::Metal => f.write_str("metal"),
            Self::Vulkan => f.write_str("vulkan"),
            Self::Wgpu => f.write_str("wgpu"),
        }
    }
}

impl DeviceChoice {
    /// Burn's device, used once to see that it works. For a GPU, the process's panic hook is silent
    /// for that moment.
    ///
    /// # Errors
    /// [`DeviceError::NotCompiled`] names the missing feature, [`DeviceError::Unavailable`] a device
    /// that this machine lacks.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => self.first_use(|| Device::cuda(index)),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) => Err(DeviceError::NotCompiled {
                device: "cuda",
                feature: "cuda",
            }),
            #[cfg(feature = "metal")]
            Self::Metal => {
                self.first_use(|| Device::metal(burn::tensor::DeviceKind::DefaultDevice))
            }
            #[cfg(not(feature = "metal"))]
            Self::Metal => Err(DeviceError::NotCompiled {
                device: "metal",
                feature: "metal",
            }),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => {
                self.first_use(|| Device::vulkan(burn::tensor::DeviceKind::DefaultDevice))
            }
            #[cfg(not(feature = "vulkan"))]
            Self::Vulkan => Err(DeviceError::NotCompiled {
                device: "vulkan",
                feature: "vulkan",
            }),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => self.first_use(|| Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(not(feature = "wgpu"))]
            Self::Wgpu => Err(DeviceError::NotCompiled {
                device: "wgpu",
                feature: "wgpu",
            }),
        }
    }

    /// Burn panics where a device or driver is missing, and not before the first tensor is made:
    /// here that becomes an error, before anything is loaded.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    fn first_use(self, make: impl Fn() -> Device) -> Result<Device, DeviceError> {
        let attempt = || {
            #[cfg(feature = "kernel-cache")]
            crate::gpu::keep_kernels();
            let device = make();
            let sum = burn::tensor::Tensor::<1>::ones([2], &device).sum();
            match sum.try_into_scalar::<f32>() {
                Ok(2.0) => Ok(device),
                Ok(other) => Err(format!("it computes 1 + 1 as {other}")),
                Err(error) => Err(error.to_string()),
            }
        };
        // The first panic says why, and it may be that of a thread of Burn's; the error says it, so
        // that none need be printed.
        let first = std::sync::Arc::new(std::sync::OnceLock::new());
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new({
            let first = first.clone();
            move |panic| {
                let line = panic.payload_as_str().and_then(|text| text.lines().next());
                first.get_or_init(|| line.unwrap_or("it failed").to_owned());
            }
        }));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt));
        std::panic::set_hook(hook);
        let reason = match result {
            Ok(Ok(device)) => return Ok(device),
            Ok(Err(reason)) => first.get().cloned().unwrap_or(reason),
            Err(_) => first.get().cloned().unwrap_or_default(),
        };
        Err(DeviceError::Unavailable {
            device: self.to_string(),
            reason,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for choice in [
            DeviceChoice::Cpu,
            DeviceChoice::Metal,
            DeviceChoice::Vulkan,
            DeviceChoice::Wgpu,
            DeviceChoice::Cuda(0),
            DeviceChoice::Cuda(3),
        ] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for name in ["", "CPU", "cuda:", "cuda:-1", "tpu"] {
            let error = name.parse::<DeviceChoice>().unwrap_err();
            assert_eq!(error, DeviceError::Unknown(name.to_owned()));
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_is_not_compiled_in_names_its_feature() {
        let error = DeviceChoice::Cuda(0).open().unwrap_err();
        assert!(error.to_string().ends_with("build with `--features cuda`"));
    }
}

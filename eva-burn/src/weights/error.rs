//! [`WeightsError`].

use std::path::PathBuf;

use crate::config::ConfigError;
use crate::weights::Precision;

/// Why weights could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The configuration, or the index of the shards, is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no weight file.
    #[error(
        "{dir} has neither model.safetensors nor model.safetensors.index.json; is it a model directory?"
    )]
    NoWeights {
        /// The directory.
        dir: PathBuf,
    },
    /// A weight file cannot be read or written.
    #[error("cannot access {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A weight file is not safetensors, or is damaged.
    #[error("{path} is not a valid safetensors file: {source}; download it again")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A tensor that the configuration asks for is not in the files.
    #[error(
        "tensor `{name}` is missing from {dir}; config.json and the weights do not belong together, or a shard is missing"
    )]
    Missing {
        /// The tensor.
        name: String,
        /// The directory.
        dir: PathBuf,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error("tensor `{name}` has shape {found:?}, config.json asks for {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that was expected.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a type that is not read.
    #[error("tensor `{name}` is stored as {dtype}; f32, f16 and bf16 are read")]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// A quantized precision on a device that has no kernels for it.
    #[error(
        "{precision} weights are multiplied on the cpu and on GPUs, and are not trained; to train, use f32, f16 or bf16"
    )]
    Device {
        /// The precision.
        precision: Precision,
    },
    /// A tensor is stored in blocks of integers, and another precision or training was asked for.
    #[error(
        "tensor `{name}` is stored as {stored}, which cannot be read as {precision} or for training; leave the precision out, or take the model's original weights"
    )]
    Quantized {
        /// The tensor.
        name: String,
        /// Its precision.
        stored: &'static str,
        /// What was asked for.
        precision: Precision,
    },
    /// A tensor that is to be saved could not be read from its device.
    #[error(
        "tensor `{name}` cannot be read from its device, and was not saved; is the device lost or out of memory?"
    )]
    Unreadable {
        /// The tensor.
        name: String,
    },
    /// A packed model or a quantized precision cannot be saved this way.
    #[error(
        "a model that was loaded in f32 is saved in f32, f16 or bf16; quantize the directory that was saved, or keep the one that this model came from"
    )]
    Save,
    /// A tensor is stored in blocks of integers without their scales.
    #[error("tensor `{name}`, the scales of a quantized one, is missing; quantize the model again")]
    NoScales {
        /// The missing tensor.
        name: String,
    },
}

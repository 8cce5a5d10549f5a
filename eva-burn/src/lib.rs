//! Qwen2.5-VL in [Burn](https://burn.dev): the model behind the EVA video agent, and its training.
//!
//! - [`BurnPolicy`] loads a Hugging Face directory and answers as an [`eva_core::Policy`].
//! - [`bundled`] is eva-tiny, a model small enough to come with the crate.
//! - [`device`] chooses where it runs: CPU, wgpu (Vulkan, Metal) or CUDA.
//! - [`quantized`] keeps weights in 8 or 4 bits, and writes a model directory that way.
//! - [`memory`] says how much of it a model needs, before anything is loaded.
//! - [`train`] turns conversations into batches and fits a model to them.
// But in `cpu::matmul` and in the kernels of f16.
#![deny(unsafe_code)]

mod ahead;
mod attention;
pub mod bundled;
mod cache;
pub mod chat;
pub mod config;
pub mod context;
mod cpu;
pub mod device;
mod features;
mod generate;
#[cfg(feature = "gpu-kernels")]
mod gpu;
pub mod input;
mod joined;
mod layers;
pub mod memory;
mod model;
mod policy;
mod projection;
pub mod quantized;
mod reply;
pub mod rope;
pub mod sample;
mod shared;
mod slots;
mod text;
mod threads;
pub mod train;
mod turns;
mod vision;
pub mod weights;

pub use burn::tensor::Device;
pub use cache::kv_bytes_per_token;
pub use config::ModelConfig;
pub use device::{DeviceChoice, DeviceError};
pub use generate::GenerateError;
pub use model::Qwen25Vl;
pub use policy::{BurnPolicy, FEATURE_CACHE_BYTES, LoadError, MAX_NEW_TOKENS};
pub use reply::Sampled;
pub use shared::SharedPolicy;
pub use vision::window_order;

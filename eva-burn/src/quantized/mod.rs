//! Weights in fewer bits than they are multiplied in.
//!
//! As small integers with a scale for each block they take a quarter or an eighth of `f32`'s bytes.
//! A row of a matrix is cut into blocks of [`BLOCK`] weights. A block keeps one scale in bf16 and its
//! weights as multiples of it: 8 bits, -127 to 127, or 4 bits, -8 to 7. Decoding reads every weight
//! once for each token, so that its speed is that of reading memory, and fewer bytes are faster.
//!
//! A product with few vectors (decoding) multiplies the integers as they are, by the vectors rounded
//! to 16 bits. One with many (a prompt, pictures) is bound by arithmetic: there the weights are
//! written out as `f32`, some rows at a time, for Burn's own product.
//!
//! On a GPU it is the same with kernels of our own (`gpu`): the integers by vectors of `f32`, or written
//! out for Burn's product.
//!
//! On the processor floats of 16 bits go the same way, where Burn's CPU backend would widen the whole matrix for each
//! product.

mod activations;
mod convert;
#[cfg(feature = "gpu-kernels")]
mod gpu;
mod halves;
mod kernel;
mod layer;
mod matrix;

pub use convert::{ConvertError, Converted, convert};
pub(crate) use convert::{scales_name, scheme};
#[cfg(feature = "gpu-kernels")]
pub(crate) use gpu::GpuLinear;
pub(crate) use halves::{Half, HalfMatrix};
pub(crate) use kernel::halves::widen;
pub(crate) use layer::{Matrix, PackedLinear, TILE_BYTES};
pub(crate) use matrix::{Bits, QuantizedMatrix};

/// Weights that share a scale.
pub const BLOCK: usize = 32;

/// Bytes of weights that a GPU writes out at a time: more than the processor, since each time is a few
/// kernels to start.
pub(crate) const GPU_TILE_BYTES: usize = 64 << 20;

/// Rows are padded with zeros to a multiple of this: two blocks, whose 4-bit weights share bytes.
const PAIR: usize = 2 * BLOCK;

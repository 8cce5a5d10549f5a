//! Packed rows: how they are made, and their products with a vector.

#[cfg(target_arch = "x86_64")]
mod avx2;
pub(super) mod blocks;
pub(crate) mod halves;
pub(super) mod quantize;

/// Numbers of 16 bits that are multiplied at a time: those of a line of the cache.
pub(super) const LANES: usize = 32;

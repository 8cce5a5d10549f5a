//! Packed rows: how they are made, and their products with a vector.

pub(super) mod blocks;
pub(super) mod halves;
pub(super) mod quantize;

/// Numbers of 16 bits that are multiplied at a time: those of a line of the cache.
pub(super) const LANES: usize = 32;

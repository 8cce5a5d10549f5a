//! [`Precision`]: the number type of weights.

/// The number type of weights, in a file and in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// 16 bits with the range of `f32` and 8 bits of mantissa: half the size. The published weights'.
    /// On the CPU matrices, keys and values are kept so, and all is computed in `f32`.
    Bf16,
    /// 16 bits with 11 bits of mantissa; numbers end at 65,504. On the CPU as [`Bf16`](Self::Bf16).
    F16,
    /// Exactly what was trained.
    #[default]
    F32,
    /// Weights as multiples of a scale for each block of 32, from -127 to 127: 8.5 bits a weight. All
    /// else is computed in `f32`, on the CPU and on GPUs; keys and values are kept in `f16`.
    Int8,
    /// As [`Int8`](Self::Int8), with the decoder's layers from -8 to 7: 4.5 bits a weight. The
    /// embeddings, the output head and the vision tower stay in 8 bits.
    Int4,
}

impl Precision {
    /// All of them, the largest first.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::Int8, Self::Int4];

    /// Whether weights are kept in blocks of integers.
    #[must_use]
    pub const fn is_quantized(self) -> bool {
        matches!(self, Self::Int8 | Self::Int4)
    }
}

/// A precision was named that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a precision; use f32, f16, bf16, int8 or int4")]
pub struct UnknownPrecision(String);

impl std::str::FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        match name {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            "int4" => Ok(Self::Int4),
            _ => Err(UnknownPrecision(name.to_owned())),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        })
    }
}

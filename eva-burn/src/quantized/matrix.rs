//! [`QuantizedMatrix`]: the integers and scales of one matrix.

use rayon::prelude::*;

use super::activations::Activations;
use super::{BLOCK, PAIR};

/// Rows that are worth another core.
pub(super) const ROWS_AT_ONCE: usize = 256;

/// Bits of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bits {
    Four,
    Eight,
}

impl Bits {
    /// Bytes of the weights of `columns` numbers, their padding included.
    pub(crate) const fn row_bytes(self, columns: usize) -> usize {
        let padded = columns.next_multiple_of(PAIR);
        match self {
            Self::Four => padded / 2,
            Self::Eight => padded,
        }
    }

    /// How many they are.
    #[cfg(feature = "gpu-kernels")]
    pub(crate) const fn number(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// The name of the precision.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Four => "int4",
            Self::Eight => "int8",
        }
    }

    /// Scales of a row of `columns` numbers.
    pub(crate) const fn row_scales(columns: usize) -> usize {
        columns.next_multiple_of(PAIR) / BLOCK
    }
}

/// A matrix whose rows are the checkpoint's: one for each number of the output.
#[derive(Clone)]
pub(crate) struct QuantizedMatrix {
    pub(super) bits: Bits,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Rows of [`Bits::row_bytes`]. 8 bits: two's complement. 4 bits: weight + 8; a byte holds one
    /// weight of the first block of a pair below and one of the second above.
    pub(super) codes: Vec<u8>,
    /// Rows of [`Bits::row_scales`], in bf16.
    pub(super) scales: Vec<u16>,
}

impl std::fmt::Debug for QuantizedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} bits, {} x {}", self.bits, self.rows, self.columns)
    }
}

impl QuantizedMatrix {
    /// A matrix of `columns` without rows yet, with room for `rows`.
    pub(crate) fn with_capacity(bits: Bits, rows: usize, columns: usize) -> Self {
        Self {
            bits,
            rows: 0,
            columns,
            codes: Vec::with_capacity(rows * bits.row_bytes(columns)),
            scales: Vec::with_capacity(rows * Bits::row_scales(columns)),
        }
    }

    /// A matrix from what [`codes`](Self::codes) and [`scales`](Self::scales) gave; `None` when their
    /// lengths do not fit the sizes.
    pub(crate) fn from_parts(
        bits: Bits,
        rows: usize,
        columns: usize,
        codes: Vec<u8>,
        scales: Vec<u16>,
    ) -> Option<Self> {
        let fits = codes.len() == rows * bits.row_bytes(columns)
            && scales.len() == rows * Bits::row_scales(columns);
        fits.then_some(Self {
            bits,
            rows,
            columns,
            codes,
            scales,
        })
    }

    /// What [`from_parts`](Self::from_parts) makes a matrix of.
    #[cfg(feature = "gpu-kernels")]
    pub(crate) fn into_parts(self) -> (Vec<u8>, Vec<u16>) {
        (self.codes, self.scales)
    }

    /// Appends rows, given one after the other.
    pub(crate) fn push_rows(&mut self, numbers: &[f32]) {
        let columns = self.columns.max(1);
        let rows = numbers.len() / columns;
        let bytes = self.bits.row_bytes(self.columns);
        let blocks = Bits::row_scales(self.columns);
        let (codes, scales) = (self.codes.len(), self.scales.len());
        self.codes.resize(codes + rows * bytes, 0);
        self.scales.resize(scales + rows * blocks, 0);
        let codes = self.codes.get_mut(codes..).unwrap_or_default();
        let scales = self.scales.get_mut(scales..).unwrap_or_default();
        numbers
            .par_chunks_exact(columns)
            .with_min_len(ROWS_AT_ONCE)
            .zip(codes.par_chunks_exact_mut(bytes.max(1)))
            .zip(scales.par_chunks_exact_mut(blocks.max(1)))
            .for_each(|((row, codes), scales)| {
                super::kernel::quantize::quantize(self.bits, row, codes, scales);
            });
        self.rows += rows;
    }

    pub(crate) fn bits(&self) -> Bits {
        self.bits
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn codes(&self) -> &[u8] {
        &self.codes
    }

    pub(crate) fn scales(&self) -> &[u16] {
        &self.scales
    }

    /// Products of rows from `first` on with vectors.
    ///
    /// - out: for each row one number for each vector
    pub(super) fn multiply(&self, first: usize, vectors: &Activations, out: &mut [f32]) {
        let bytes = self.bits.row_bytes(self.columns);
        let blocks = Bits::row_scales(self.columns);
        let codes = self.codes.get(first * bytes..).unwrap_or_default();
        let scales = self.scales.get(first * blocks..).unwrap_or_default();
        super::kernel::blocks::multiply(self.bits, codes, scales, vectors, out);
    }

    /// The numbers of rows from `first` on, as many as `out` takes. What lies behind the last row is left as it
    /// is, and so is what lies between rows.
    ///
    /// - stride: numbers from a row to the next, at least [`columns`](Self::columns)
    pub(crate) fn dequantize(&self, first: usize, stride: usize, out: &mut [f32]) {
        let bytes = self.bits.row_bytes(self.columns);
        let blocks = Bits::row_scales(self.columns);
        let codes = self.codes.get(first * bytes..).unwrap_or_default();
        let scales = self.scales.get(first * blocks..).unwrap_or_default();
        out.par_chunks_mut(stride.max(1))
            .with_min_len(ROWS_AT_ONCE)
            .zip(codes.par_chunks(bytes.max(1)))
            .zip(scales.par_chunks(blocks.max(1)))
            .for_each(|((out, codes), scales)| {
                let end = self.columns.min(out.len());
                super::kernel::blocks::dequantize(self.bits, codes, scales, &mut out[..end]);
            });
    }
}

/// A scale as a number: bf16 is the upper half of an `f32`.
#[inline(always)]
pub(super) fn scale_value(scale: u16) -> f32 {
    f32::from_bits(u32::from(scale) << 16)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::quantized::kernel::quantize::largest;
    use proptest::prelude::*;

    fn back(bits: Bits, columns: usize, numbers: &[f32]) -> Vec<f32> {
        let rows = numbers.len() / columns;
        let mut matrix = QuantizedMatrix::with_capacity(bits, rows, columns);
        matrix.push_rows(numbers);
        assert_eq!(matrix.rows(), rows);
        let mut out = vec![0.0; numbers.len()];
        matrix.dequantize(0, columns, &mut out);
        out
    }

    proptest! {
        #[test]
        fn a_weight_is_off_by_at_most_half_a_step_of_its_block(
            columns in 1usize..200,
            rows in 1usize..4,
            seed in prop::collection::vec(-1.0f32..1.0, 800),
            size in prop::sample::select(vec![1e-20f32, 1e-3, 1.0, 1e4]),
        ) {
            let numbers: Vec<f32> = seed.iter().take(columns * rows).map(|x| x * size).collect();
            prop_assume!(numbers.len() == columns * rows);
            for (bits, steps, whole) in [(Bits::Eight, 127.0, 0.5f32), (Bits::Four, 8.0, 1.0)] {
                let close = back(bits, columns, &numbers);
                prop_assert_eq!(close.len(), numbers.len());
                for (new, old) in close.chunks(columns).zip(numbers.chunks(columns)) {
                    for (new, old) in new.chunks(BLOCK).zip(old.chunks(BLOCK)) {
                        // 4 bits reach from -8 to 7 steps: the far end on the other side is cut.
                        let step = largest(old).abs() / steps * (1.0 + 1.0 / 127.0);
                        for (new, old) in new.iter().zip(old) {
                            prop_assert!(
                                (new - old).abs() <= step * whole * 1.0001,
                                "{bits:?}: {old} became {new}, a step is {step}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn zeros_stay_zeros_and_a_block_with_what_is_no_number_is_none() {
        for bits in [Bits::Eight, Bits::Four] {
            assert_eq!(back(bits, 70, &[0.0; 140]), [0.0; 140]);
            for odd in [f32::INFINITY, f32::NAN, f32::NEG_INFINITY] {
                let numbers = back(bits, 33, &[&[odd][..], &[1.0; 32]].concat());
                assert!(numbers.iter().take(32).all(|x| x.is_nan()));
                assert!((numbers[32] - 1.0).abs() < 0.01);
            }
            let extreme = back(bits, 4, &[1e38, -1e38, 1e-45, -0.0]);
            assert!((extreme[0] / 1e38 - 1.0).abs() < 0.01);
            assert_eq!(back(bits, 3, &[1e-45, -1e-44, 0.0]), [0.0; 3]);
        }
    }

    #[test]
    fn parts_of_another_length_are_no_matrix() {
        let part = |codes, scales| {
            QuantizedMatrix::from_parts(Bits::Eight, 2, 60, vec![0; codes], vec![0; scales])
        };
        assert!(part(128, 4).is_some());
        assert!(part(127, 4).is_none());
        assert!(part(128, 3).is_none());
    }
}

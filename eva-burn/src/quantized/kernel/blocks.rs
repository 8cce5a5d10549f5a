//! Products of quantized rows with vectors.

use crate::quantized::activations::{Activations, Vector};
use crate::quantized::matrix::{Bits, scale_value};
use crate::quantized::{BLOCK, PAIR};

/// Vectors that a row is multiplied with for one taking apart of its weights.
const TOGETHER: usize = 4;

/// Bytes of rows that are still in the cache when the next vectors come.
const CACHED_BYTES: usize = 256 << 10;

/// Sums of the products of each row with each vector.
///
/// - codes, scales: rows of [`Bits::row_bytes`] and [`Bits::row_scales`]
/// - out: for each row one number for each vector
pub(in crate::quantized) fn multiply(
    bits: Bits,
    codes: &[u8],
    scales: &[u16],
    vectors: &Activations,
    out: &mut [f32],
) {
    multiply_in_pieces(bits, codes, scales, vectors, out, CACHED_BYTES);
}

/// - cached: bytes of rows that are multiplied with all vectors before the next come
fn multiply_in_pieces(
    bits: Bits,
    codes: &[u8],
    scales: &[u16],
    vectors: &Activations,
    out: &mut [f32],
    cached: usize,
) {
    let count = vectors.count();
    let bytes = bits.row_bytes(vectors.padded()).max(1);
    let blocks = Bits::row_scales(vectors.padded()).max(1);
    // Where all vectors are multiplied together, each row is read but once.
    let once = matches!(count, 1 | 2 | TOGETHER);
    let rows = if once { out.len() } else { cached / bytes };
    let rows = rows.max(1);
    let pieces = codes.chunks(rows * bytes).zip(scales.chunks(rows * blocks));
    for ((codes, scales), out) in pieces.zip(out.chunks_mut((rows * count).max(1))) {
        let mut rows = Rows {
            bits,
            codes,
            scales,
            out,
            count,
        };
        let mut first = 0;
        while first < count {
            first += match count - first {
                TOGETHER.. => rows.multiply::<TOGETHER>(vectors, first),
                2.. => rows.multiply::<2>(vectors, first),
                _ => rows.multiply::<1>(vectors, first),
            };
        }
    }
}

/// Some rows, and room for their products with `count` vectors each.
pub(super) struct Rows<'a> {
    pub(super) bits: Bits,
    pub(super) codes: &'a [u8],
    pub(super) scales: &'a [u16],
    pub(super) out: &'a mut [f32],
    pub(super) count: usize,
}

impl Rows<'_> {
    /// With `N` vectors from `first` on; returns how many these are.
    fn multiply<const N: usize>(&mut self, vectors: &Activations, first: usize) -> usize {
        let vectors: [Vector<'_>; N] = std::array::from_fn(|index| vectors.vector(first + index));
        #[cfg(target_arch = "x86_64")]
        if super::avx2::multiply(self, &vectors, first) {
            return N;
        }
        for (index, vector) in vectors.iter().enumerate() {
            let out = self.out.get_mut(first + index..).unwrap_or_default();
            multiply_plain(self.bits, self.codes, self.scales, vector, out, self.count);
        }
        N
    }
}

/// Plain loops over blocks of a fixed size. A sum of products of 16-bit numbers in 32 bits is one instruction
/// of every SIMD set (`pmaddwd` on x86, `smlal` on Arm), which the compiler finds in this form.
///
/// - out: one number for each row, `stride` apart
#[multiversion::multiversion(targets("x86_64+sse4.2"))]
fn multiply_plain(
    bits: Bits,
    codes: &[u8],
    scales: &[u16],
    vector: &Vector<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let columns = vector.steps.as_flattened().len();
    let rows = codes
        .chunks_exact(bits.row_bytes(columns).max(1))
        .zip(scales.chunks_exact(Bits::row_scales(columns).max(1)));
    let out = out.iter_mut().step_by(stride.max(1));
    match bits {
        Bits::Eight => {
            for (to, (codes, scales)) in out.zip(rows) {
                *to = row8(codes, scales, vector);
            }
        }
        Bits::Four => {
            for (to, (codes, scales)) in out.zip(rows) {
                *to = row4(codes, scales, vector);
            }
        }
    }
}

#[inline(always)]
fn row8(codes: &[u8], scales: &[u16], vector: &Vector<'_>) -> f32 {
    let mut total = 0.0;
    let codes = codes.as_chunks::<BLOCK>().0.iter();
    let steps = vector.steps.as_flattened().as_chunks::<BLOCK>().0;
    let units = vector.units.as_flattened();
    for (((codes, steps), scale), unit) in codes.zip(steps).zip(scales).zip(units) {
        let mut sum = 0;
        for index in 0..BLOCK {
            // At most 127 x 32,767 x 32: far from the end of 32 bits.
            sum += i32::from(i16::from(codes[index] as i8)) * i32::from(steps[index]);
        }
        total += sum as f32 * (scale_value(*scale) * unit);
    }
    total
}

#[inline(always)]
fn row4(codes: &[u8], scales: &[u16], vector: &Vector<'_>) -> f32 {
    let mut totals = [0.0; 2];
    let codes = codes.as_chunks::<BLOCK>().0.iter();
    let scales = scales.as_chunks::<2>().0;
    let units = vector.units.as_flattened().as_chunks::<2>().0;
    let eights = vector.eights.as_flattened().as_chunks::<2>().0;
    let vector = vector.steps.iter().zip(units).zip(eights);
    for ((codes, scales), ((steps, units), eights)) in codes.zip(scales).zip(vector) {
        let mut sums = [0; 2];
        for index in 0..BLOCK {
            sums[0] += i32::from(i16::from(codes[index] & 15)) * i32::from(steps[index]);
        }
        for index in 0..BLOCK {
            sums[1] += i32::from(i16::from(codes[index] >> 4)) * i32::from(steps[BLOCK + index]);
        }
        for half in 0..2 {
            // The codes are 8 more than the weights. Both are whole numbers of at most 24 bits.
            let sum = sums[half] as f32 - eights[half];
            totals[half] += sum * (scale_value(scales[half]) * units[half]);
        }
    }
    totals[0] + totals[1]
}

/// The numbers of one row, as many as `out` takes.
#[multiversion::multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
pub(in crate::quantized) fn dequantize(bits: Bits, codes: &[u8], scales: &[u16], out: &mut [f32]) {
    let codes = codes.as_chunks::<BLOCK>().0.iter();
    match bits {
        Bits::Eight => {
            for ((out, codes), scale) in out.chunks_mut(BLOCK).zip(codes).zip(scales) {
                let scale = scale_value(*scale);
                for (to, code) in out.iter_mut().zip(codes) {
                    *to = f32::from(*code as i8) * scale;
                }
            }
        }
        Bits::Four => {
            let scales = scales.as_chunks::<2>().0;
            for ((out, codes), scales) in out.chunks_mut(PAIR).zip(codes).zip(scales) {
                let (first, second) = out.split_at_mut(BLOCK.min(out.len()));
                let [low, high] = scales.map(scale_value);
                for (to, code) in first.iter_mut().zip(codes) {
                    *to = (f32::from(code & 15) - 8.0) * low;
                }
                for (to, code) in second.iter_mut().zip(codes) {
                    *to = (f32::from(code >> 4) - 8.0) * high;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantized::QuantizedMatrix;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn products_are_those_of_the_plain_loops_however_many_vectors_come(
            columns in 1usize..700,
            rows in 1usize..6,
            count in 1usize..13,
            cached in prop::sample::select(vec![1usize, 700, 1500, CACHED_BYTES]),
            seed in prop::collection::vec(-1.0f32..1.0, 97),
        ) {
            let numbers = |count: usize, from: usize| -> Vec<f32> {
                (0..count).map(|at| seed[(at * 7 + at / 97 + from) % 97]).collect()
            };
            let vectors = numbers(count * columns, 5);
            let activations = Activations::new(&vectors, columns);
            prop_assert_eq!(activations.count(), count);
            for bits in [Bits::Eight, Bits::Four] {
                let mut matrix = QuantizedMatrix::with_capacity(bits, rows, columns);
                matrix.push_rows(&numbers(rows * columns, 0));
                let (codes, scales) = (matrix.codes(), matrix.scales());
                let mut found = vec![f32::NAN; rows * count];
                multiply_in_pieces(bits, codes, scales, &activations, &mut found, cached);
                for (index, vector) in vectors.chunks(columns).enumerate() {
                    let mut plain = vec![f32::NAN; rows];
                    multiply_plain(bits, codes, scales, &activations.vector(index), &mut plain, 1);
                    let mut alone = vec![f32::NAN; rows];
                    multiply(bits, codes, scales, &Activations::new(vector, columns), &mut alone);
                    for row in 0..rows {
                        let found = found[row * count + index];
                        prop_assert_eq!(found.to_bits(), alone[row].to_bits());
                        // Sums of up to 700 products of up to 1 each, in another order.
                        prop_assert!((found - plain[row]).abs() < 1e-4, "{} for {}", found, plain[row]);
                    }
                }
            }
        }
    }
}

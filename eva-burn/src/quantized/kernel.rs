//! Products of quantized rows with a vector.
//!
//! Plain loops over blocks of a fixed size, compiled for several instruction sets and chosen at run
//! time. A sum of products of 16-bit numbers in 32 bits is one instruction of every SIMD set
//! (`pmaddwd` on x86, `smlal` on Arm), which the compiler finds in this form: 14 to 18 G weights/s
//! a core with AVX2, where the same with `f32` weights read 5 to 7.

use super::activations::Block;
use super::halves::Half;
use super::matrix::{Bits, scale_value};
use super::{BLOCK, PAIR};

/// Sums of the products of each row with one vector.
///
/// - codes, scales: rows of `row_bytes` and `row_scales`
/// - steps, blocks: the vector
/// - out: one number for each row, `stride` apart
#[multiversion::multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
pub(super) fn multiply(
    bits: Bits,
    codes: &[u8],
    scales: &[u16],
    steps: &[i16],
    blocks: &[Block],
    out: &mut [f32],
    stride: usize,
) {
    let rows = codes
        .chunks_exact(bits.row_bytes(steps.len()).max(1))
        .zip(scales.chunks_exact(blocks.len().max(1)));
    let out = out.iter_mut().step_by(stride.max(1));
    match bits {
        Bits::Eight => {
            for (to, (codes, scales)) in out.zip(rows) {
                *to = row8(codes, scales, steps, blocks);
            }
        }
        Bits::Four => {
            for (to, (codes, scales)) in out.zip(rows) {
                *to = row4(codes, scales, steps, blocks);
            }
        }
    }
}

#[inline(always)]
fn row8(codes: &[u8], scales: &[u16], steps: &[i16], blocks: &[Block]) -> f32 {
    let mut total = 0.0;
    let codes = codes.as_chunks::<BLOCK>().0.iter();
    let steps = steps.as_chunks::<BLOCK>().0;
    for (((codes, steps), scale), block) in codes.zip(steps).zip(scales).zip(blocks) {
        let mut sum = 0;
        for index in 0..BLOCK {
            // At most 127 x 32,767 x 32: far from the end of 32 bits.
            sum += i32::from(i16::from(codes[index] as i8)) * i32::from(steps[index]);
        }
        total += sum as f32 * (scale_value(*scale) * block.step);
    }
    total
}

#[inline(always)]
fn row4(codes: &[u8], scales: &[u16], steps: &[i16], blocks: &[Block]) -> f32 {
    let mut totals = [0.0; 2];
    let codes = codes.as_chunks::<BLOCK>().0.iter();
    let steps = steps.as_chunks::<PAIR>().0;
    let scales = scales.as_chunks::<2>().0;
    let blocks = blocks.as_chunks::<2>().0;
    for (((codes, steps), scales), blocks) in codes.zip(steps).zip(scales).zip(blocks) {
        let (mut first, mut second) = (0, 0);
        for index in 0..BLOCK {
            first += i32::from(i16::from(codes[index] & 15)) * i32::from(steps[index]);
        }
        for index in 0..BLOCK {
            second += i32::from(i16::from(codes[index] >> 4)) * i32::from(steps[BLOCK + index]);
        }
        // The codes are 8 more than the weights.
        let sums = [first - 8 * blocks[0].sum, second - 8 * blocks[1].sum];
        for half in 0..2 {
            totals[half] += sums[half] as f32 * (scale_value(scales[half]) * blocks[half].step);
        }
    }
    totals[0] + totals[1]
}

/// Numbers that are added up side by side.
pub(super) const LANES: usize = 32;

/// Adds the sums of the products of each row of 16-bit numbers with one vector.
///
/// - finite: whether all numbers are
/// - rows: of as many numbers as `vector`
/// - out: one number for each row, `stride` apart
#[multiversion::multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
pub(super) fn multiply_halves(
    half: Half,
    finite: bool,
    rows: &[u16],
    vector: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    let rows = rows.chunks_exact(vector.len().max(1));
    let out = out.iter_mut().step_by(stride.max(1));
    match half {
        Half::F16 if finite => {
            for (to, row) in out.zip(rows) {
                *to += product(row, vector, finite_f16_value);
            }
        }
        Half::F16 => {
            for (to, row) in out.zip(rows) {
                *to += product(row, vector, f16_value);
            }
        }
        Half::Bf16 => {
            for (to, row) in out.zip(rows) {
                *to += product(row, vector, scale_value);
            }
        }
    }
}

#[inline(always)]
fn product(row: &[u16], vector: &[f32], value: impl Fn(u16) -> f32) -> f32 {
    let mut sums = [0.0; LANES];
    let (numbers, last) = row.as_chunks::<LANES>();
    let (vectors, last_of_vector) = vector.as_chunks::<LANES>();
    for (numbers, vector) in numbers.iter().zip(vectors) {
        for lane in 0..LANES {
            sums[lane] += value(numbers[lane]) * vector[lane];
        }
    }
    let last = last.iter().zip(last_of_vector);
    let last: f32 = last.map(|(number, x)| value(*number) * x).sum();
    sums.iter().sum::<f32>() + last
}

const TWO_TO_112: f32 = f32::from_bits((112 + 127) << 23);

/// A finite f16 as a number: its bits are shifted into place, and a product mends the exponent. Twice as
/// fast as with a look at the exponent.
#[inline(always)]
fn finite_f16_value(bits: u16) -> f32 {
    // Widened with its sign: that arrives in place too, behind copies which are cut out.
    let wide = i32::from(bits.cast_signed()).cast_unsigned();
    f32::from_bits((wide << 13) & 0x8fff_e000) * TWO_TO_112
}

/// An f16 as a number.
#[inline(always)]
fn f16_value(bits: u16) -> f32 {
    let finite = finite_f16_value(bits);
    if bits & 0x7c00 == 0x7c00 {
        f32::from_bits(finite.to_bits() | 0x7f80_0000)
    } else {
        finite
    }
}

/// 16-bit numbers as `f32`, as many as `out` takes.
#[multiversion::multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
pub(super) fn widen(half: Half, numbers: &[u16], out: &mut [f32]) {
    match half {
        Half::F16 => {
            for (to, bits) in out.iter_mut().zip(numbers) {
                *to = f16_value(*bits);
            }
        }
        Half::Bf16 => {
            for (to, bits) in out.iter_mut().zip(numbers) {
                *to = scale_value(*bits);
            }
        }
    }
}

/// The numbers of one row, as many as `out` takes.
#[multiversion::multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
pub(super) fn dequantize(bits: Bits, codes: &[u8], scales: &[u16], out: &mut [f32]) {
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

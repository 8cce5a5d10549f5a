//! Products of quantized rows with a vector.
//!
//! Plain loops over blocks of a fixed size, compiled for several instruction sets and chosen at run
//! time. A sum of products of 16-bit numbers in 32 bits is one instruction of every SIMD set
//! (`pmaddwd` on x86, `smlal` on Arm), which the compiler finds in this form: 14 to 18 G weights/s
//! a core with AVX2, where the same with `f32` weights read 5 to 7.

use crate::ahead::Ahead;
use crate::quantized::activations::Block;
use crate::quantized::matrix::{Bits, scale_value};
use crate::quantized::{BLOCK, PAIR};

/// Sums of the products of each row with one vector.
///
/// - codes, scales: rows of `row_bytes` and `row_scales`
/// - steps, blocks: the vector
/// - out: one number for each row, `stride` apart
#[multiversion::multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
pub(in crate::quantized) fn multiply(
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
    let mut ahead = Ahead::of(codes);
    let out = out.iter_mut().step_by(stride.max(1));
    match bits {
        Bits::Eight => {
            for (to, (codes, scales)) in out.zip(rows) {
                *to = row8(codes, &mut ahead, scales, steps, blocks);
            }
        }
        Bits::Four => {
            for (to, (codes, scales)) in out.zip(rows) {
                *to = row4(codes, &mut ahead, scales, steps, blocks);
            }
        }
    }
}

#[inline(always)]
fn row8(
    codes: &[u8],
    ahead: &mut Ahead<'_, u8, BLOCK>,
    scales: &[u16],
    steps: &[i16],
    blocks: &[Block],
) -> f32 {
    let mut total = 0.0;
    let codes = codes.as_chunks::<BLOCK>().0.iter();
    let steps = steps.as_chunks::<BLOCK>().0;
    for (((codes, steps), scale), block) in codes.zip(steps).zip(scales).zip(blocks) {
        ahead.ask();
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
fn row4(
    codes: &[u8],
    ahead: &mut Ahead<'_, u8, BLOCK>,
    scales: &[u16],
    steps: &[i16],
    blocks: &[Block],
) -> f32 {
    let mut totals = [0.0; 2];
    let codes = codes.as_chunks::<BLOCK>().0.iter();
    let steps = steps.as_chunks::<PAIR>().0;
    let scales = scales.as_chunks::<2>().0;
    let blocks = blocks.as_chunks::<2>().0;
    for (((codes, steps), scales), blocks) in codes.zip(steps).zip(scales).zip(blocks) {
        ahead.ask();
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

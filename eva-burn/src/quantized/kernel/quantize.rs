//! Rows in integers with a scale for each block.

use multiversion::multiversion;

use crate::quantized::matrix::{Bits, scale_value};
use crate::quantized::{BLOCK, PAIR};

/// Writes a row's codes and scales, as [`QuantizedMatrix`](crate::quantized::QuantizedMatrix) keeps them; what lacks
/// of the last pair of blocks is zeros.
#[multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
pub(in crate::quantized) fn quantize(
    bits: Bits,
    row: &[f32],
    codes: &mut [u8],
    scales: &mut [u16],
) {
    let codes = codes.chunks_exact_mut(bits.row_bytes(PAIR));
    let scales = scales.as_chunks_mut::<2>().0;
    for ((numbers, codes), scales) in row.chunks(PAIR).zip(codes).zip(scales) {
        let mut pair = [0.0; PAIR];
        for (to, from) in pair.iter_mut().zip(numbers) {
            *to = *from;
        }
        let (first, second) = pair.split_at(BLOCK);
        match bits {
            Bits::Eight => {
                let blocks = codes.chunks_exact_mut(BLOCK).zip([first, second]);
                for ((codes, block), scale) in blocks.zip(scales) {
                    let by = reciprocal(largest(block) / 127.0, scale);
                    for (code, x) in codes.iter_mut().zip(block) {
                        *code = nearest(x * by).clamp(-127.0, 127.0) as i32 as u8;
                    }
                }
            }
            Bits::Four => {
                // The largest becomes -8, so that all 16 values serve.
                let [low, high] = scales;
                let low = reciprocal(largest(first) / -8.0, low);
                let high = reciprocal(largest(second) / -8.0, high);
                let code = |x: f32, by: f32| (nearest(x * by) + 8.0).clamp(0.0, 15.0) as i32 as u8;
                for (byte, (a, b)) in codes.iter_mut().zip(first.iter().zip(second)) {
                    *byte = code(*a, low) | code(*b, high) << 4;
                }
            }
        }
    }
}

/// The number farthest from zero, with its sign; not a number when one is not finite, so that damage
/// is not read as weights.
#[inline(always)]
pub(in crate::quantized) fn largest(block: &[f32]) -> f32 {
    // As bits, of which the compiler takes several at a time.
    let size = |x: &f32| x.to_bits() & (u32::MAX >> 1);
    let most = block.iter().map(size).fold(0, u32::max);
    if most >= f32::INFINITY.to_bits() {
        return f32::NAN;
    }
    let first = block.iter().find(|x| most > 0 && size(x) == most);
    first.copied().unwrap_or(0.0)
}

/// `x.round()`, without a call to the C library for each number.
#[inline(always)]
fn nearest(x: f32) -> f32 {
    let whole = x.trunc();
    if (x - whole).abs() >= 0.5 {
        whole + 1.0f32.copysign(x)
    } else {
        whole
    }
}

/// Keeps a block's scale in bf16, rounded away from zero so that the largest weight still fits,
/// and returns the reciprocal of what was kept.
#[inline(always)]
fn reciprocal(scale: f32, kept: &mut u16) -> f32 {
    *kept = (scale.to_bits().saturating_add(0xFFFF) >> 16) as u16;
    let kept = scale_value(*kept);
    if kept.abs() < f32::MIN_POSITIVE {
        0.0
    } else {
        kept.recip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_nearest_whole_number_is_that_of_the_library(bits: u32, near in -300i16..300) {
            for x in [f32::from_bits(bits), f32::from(near) / 2.0] {
                for x in [x, x.next_up(), x.next_down()] {
                    let (ours, theirs) = (nearest(x), x.round());
                    let same = ours.to_bits() == theirs.to_bits();
                    prop_assert!(same || ours.is_nan() && theirs.is_nan(), "{} for {}", ours, x);
                }
            }
        }

        #[test]
        fn the_largest_is_the_first_that_is_farthest_from_zero(
            block in prop::collection::vec(
                prop_oneof![Just(0.0f32), Just(-0.0), Just(2.0), Just(-2.0), any::<f32>()],
                0..40,
            )
        ) {
            let expected = if block.iter().any(|x| !x.is_finite()) {
                f32::NAN
            } else {
                block.iter().fold(0.0, |most: f32, x| if x.abs() > most.abs() { *x } else { most })
            };
            prop_assert_eq!(largest(&block).to_bits(), expected.to_bits());
        }
    }
}

//! Products of rows of 16-bit numbers with a vector.
//!
//! Loops over pieces of a fixed size, compiled for several instruction sets and chosen at run time.

use multiversion::multiversion;

use super::LANES;
use crate::ahead::Ahead;
use crate::quantized::halves::Half;
use crate::quantized::matrix::scale_value;

/// Sums of the products of each row with one vector.
///
/// - rows: of as many numbers as `vector`
/// - out: one number for each row, `stride` apart
pub(in crate::quantized) fn multiply(
    half: Half,
    rows: &[u16],
    vector: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    let out = out.iter_mut().step_by(stride.max(1));
    match half {
        #[cfg(target_arch = "x86_64")]
        Half::F16 if f16c::is_there() => f16c::multiply(rows, vector, out),
        half => multiply_plain(half, rows, vector, out),
    }
}

type Out<'a> = std::iter::StepBy<std::slice::IterMut<'a, f32>>;

#[multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
fn multiply_plain(half: Half, rows: &[u16], vector: &[f32], out: Out<'_>) {
    match half {
        Half::F16 => products(rows, vector, out, |halves| each(halves, f16_value)),
        Half::Bf16 => products(rows, vector, out, |halves| each(halves, scale_value)),
    }
}

#[inline(always)]
fn products(
    rows: &[u16],
    vector: &[f32],
    out: Out<'_>,
    values: impl Fn([u16; LANES]) -> [f32; LANES],
) {
    let mut ahead = Ahead::<_, LANES>::of(rows);
    let (vectors, last_of_vector) = vector.as_chunks::<LANES>();
    for (to, row) in out.zip(rows.chunks_exact(vector.len().max(1))) {
        let (halves, last) = row.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for (halves, vector) in halves.iter().zip(vectors) {
            ahead.ask();
            let values = values(*halves);
            for lane in 0..LANES {
                sums[lane] += values[lane] * vector[lane];
            }
        }
        if !last.is_empty() {
            let values = values(padded(last));
            for (lane, x) in last_of_vector.iter().enumerate() {
                sums[lane] += values[lane] * x;
            }
        }
        *to = sums.iter().sum();
    }
}

/// 16-bit numbers as `f32`, as many as `out` takes.
pub(crate) fn widen(half: Half, numbers: &[u16], out: &mut [f32]) {
    match half {
        #[cfg(target_arch = "x86_64")]
        Half::F16 if f16c::is_there() => f16c::widen(numbers, out),
        half => widen_plain(half, numbers, out),
    }
}

#[multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
fn widen_plain(half: Half, numbers: &[u16], out: &mut [f32]) {
    match half {
        Half::F16 => write(numbers, out, |halves| each(halves, f16_value)),
        Half::Bf16 => write(numbers, out, |halves| each(halves, scale_value)),
    }
}

#[inline(always)]
fn write(halves: &[u16], out: &mut [f32], values: impl Fn([u16; LANES]) -> [f32; LANES]) {
    let mut done = 0;
    let whole = out.as_chunks_mut::<LANES>().0.iter_mut();
    for (to, halves) in whole.zip(halves.as_chunks::<LANES>().0) {
        *to = values(*halves);
        done += LANES;
    }
    let (last, out) = (&halves[done..], &mut out[done..]);
    if !last.is_empty() && !out.is_empty() {
        let values = values(padded(last));
        for ((to, value), _) in out.iter_mut().zip(values).zip(last) {
            *to = value;
        }
    }
}

/// Few numbers with zeros after them.
#[inline(always)]
fn padded(few: &[u16]) -> [u16; LANES] {
    let mut halves = [0; LANES];
    for (to, half) in halves.iter_mut().zip(few) {
        *to = *half;
    }
    halves
}

// Not `map`, which is not inlined.
#[inline(always)]
fn each(halves: [u16; LANES], value: impl Fn(u16) -> f32) -> [f32; LANES] {
    let mut values = [0.0; LANES];
    for (to, half) in values.iter_mut().zip(halves) {
        *to = value(half);
    }
    values
}

const TWO_TO_112: f32 = f32::from_bits((112 + 127) << 23);

/// An f16 as a number: its bits are shifted into place, and a product mends the exponent.
#[inline(always)]
fn f16_value(bits: u16) -> f32 {
    // Widened with its sign: that arrives in place too, behind copies which are cut out.
    let wide = i32::from(bits.cast_signed()).cast_unsigned();
    let value = f32::from_bits((wide << 13) & 0x8fff_e000) * TWO_TO_112;
    if bits & 0x7c00 == 0x7c00 {
        // Not finite.
        f32::from_bits(value.to_bits() | 0x7f80_0000)
    } else {
        value
    }
}

/// The processor's own instruction, where it has one.
///
/// What is above is as fast, but where a number is too small for the usual form of an f16, as one of some hundred
/// weights is: with those x86 takes far longer, and f16 decoded at two thirds of bf16's speed.
#[cfg(target_arch = "x86_64")]
#[allow(
    unsafe_code,
    reason = "no crate has a safe way to this instruction, which makes f16 half as fast again"
)]
mod f16c {
    use std::arch::x86_64::{__m128i, __m256, _mm256_cvtph_ps};

    use pulp::cast;

    use super::{LANES, Out, products, write};

    /// Whether it has, with what else the compiler makes use of here.
    pub(super) fn is_there() -> bool {
        is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
    }

    pub(super) fn multiply(rows: &[u16], vector: &[f32], out: Out<'_>) {
        #[target_feature(enable = "f16c,avx2,fma")]
        fn multiply(rows: &[u16], vector: &[f32], out: Out<'_>) {
            products(rows, vector, out, |halves| values(halves));
        }
        assert!(is_there());
        // SAFETY: the processor has these instructions.
        unsafe { multiply(rows, vector, out) }
    }

    pub(super) fn widen(numbers: &[u16], out: &mut [f32]) {
        #[target_feature(enable = "f16c,avx2,fma")]
        fn widen(numbers: &[u16], out: &mut [f32]) {
            write(numbers, out, |halves| values(halves));
        }
        assert!(is_there());
        // SAFETY: the processor has these instructions.
        unsafe { widen(numbers, out) }
    }

    #[inline]
    #[target_feature(enable = "f16c")]
    fn values(halves: [u16; LANES]) -> [f32; LANES] {
        let eights: [__m128i; LANES / 8] = cast(halves);
        let mut values = [cast::<_, __m256>([0.0f32; 8]); LANES / 8];
        for (to, eight) in values.iter_mut().zip(eights) {
            *to = _mm256_cvtph_ps(eight);
        }
        cast(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_instruction_every_half_becomes_its_number_too() {
        for bits in 0..=u16::MAX {
            let (ours, expected) = (f16_value(bits), half::f16::from_bits(bits).to_f32());
            assert!(
                ours.to_bits() == expected.to_bits() || ours.is_nan() && expected.is_nan(),
                "{bits:#x}: {ours} for {expected}"
            );
        }
    }
}

//! Plain loops over slices, compiled for several instruction sets and chosen at run time.

/// Numbers that are added up side by side.
const LANES: usize = 16;

/// `e^x`, which the compiler can compute for many numbers at a time: within 3 units in the last place for x
/// from -87 to 88, and the value at these ends beyond them. What is not a number stays so.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Cephes' polynomial. Adding this rounds to an integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // Not `clamp`, `min` and `max`: comparisons with NaN are false, and it stays.
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let power = shifted - ROUND;
    let x = x - power * LN_2[0] - power * LN_2[1];
    let mut sum = 1.987_569_1e-4;
    sum = sum * x + 1.398_199_9e-3;
    sum = sum * x + 8.333_452e-3;
    sum = sum * x + 4.166_579_6e-2;
    sum = sum * x + 1.666_666_5e-1;
    sum = sum * x + 0.5;
    let sum = sum * x * x + x + 1.0;
    let two_to_power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    sum * two_to_power
}

/// Rows as long as `weight`, by the root of the mean of their squares.
#[multiversion::multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
pub(super) fn norm(rows: &mut [f32], weight: &[f32], epsilon: f32) {
    for row in rows.chunks_exact_mut(weight.len().max(1)) {
        let mut squares = [0.0; LANES];
        let (whole, rest) = row.as_chunks::<LANES>();
        for part in whole {
            for lane in 0..LANES {
                squares[lane] += part[lane] * part[lane];
            }
        }
        let rest: f32 = rest.iter().map(|x| x * x).sum();
        let mean = (squares.iter().sum::<f32>() + rest) / weight.len() as f32;
        let scale = 1.0 / (mean + epsilon).sqrt();
        for (x, weight) in row.iter_mut().zip(weight) {
            *x = *x * scale * weight;
        }
    }
}

/// `sum + other` in the place of `sum`.
#[multiversion::multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
pub(super) fn add(sum: &mut [f32], other: &[f32]) {
    for (sum, other) in sum.iter_mut().zip(other) {
        *sum += other;
    }
}

/// `silu(gate) * up` in the place of `gate`.
#[multiversion::multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
pub(super) fn gate(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

/// Rotates the first half of a row against the second.
#[multiversion::multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
pub(super) fn rotate(row: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = row.split_at_mut(cos.len().min(row.len()));
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// The softmax of a row times `scale`.
#[multiversion::multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
pub(super) fn softmax(row: &mut [f32], scale: f32) {
    let most = largest(row);
    let share = 1.0 / exponentials(row, most, scale);
    for x in row {
        *x *= share;
    }
}

/// The largest number.
#[inline(always)]
pub(super) fn largest(row: &[f32]) -> f32 {
    let mut most = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = row.as_chunks::<LANES>();
    for part in whole {
        for lane in 0..LANES {
            most[lane] = most[lane].max(part[lane]);
        }
    }
    let most = most.iter().chain(rest).copied();
    most.fold(f32::NEG_INFINITY, f32::max)
}

/// Makes each number `e` to its distance from `most` times `scale`, and returns their sum.
#[inline(always)]
pub(super) fn exponentials(row: &mut [f32], most: f32, scale: f32) -> f32 {
    let mut sums = [0.0; LANES];
    let (whole, rest) = row.as_chunks_mut::<LANES>();
    for part in whole {
        for lane in 0..LANES {
            part[lane] = exp((part[lane] - most) * scale);
            sums[lane] += part[lane];
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for x in rest {
        *x = exp((*x - most) * scale);
        sum += *x;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_those_of_more_digits() {
        for step in -87_000..=88_000 {
            let x = step as f32 / 1000.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 3.0 * f64::from(f32::EPSILON), "{x}: {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), exp(-87.0));
        assert_eq!(exp(f32::INFINITY), exp(88.0));
        assert!(exp(f32::NAN).is_nan());
    }
}

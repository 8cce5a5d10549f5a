//! The steps between matrix products, for inference in `f32` on the processor: each in one pass over the
//! numbers, in place, on all threads.
//!
//! Burn's CPU backend takes such a step as several operations, each on one thread with arrays of its
//! own, and calls the C library's `expf` for one number at a time: a long prompt takes over a quarter
//! longer that way (docs/hardware.md), and a token behind a long prompt too, whose attention is taken straight
//! from the KV cache. Rows are computed alike whatever the number of threads, so results are
//! the same to the bit. With gradients, and on every other device, Burn's own operations are used.

mod attention;
mod kernel;
mod matmul;
mod vector;

pub(crate) use attention::{attended, widened};
pub(crate) use matmul::{few, linear, linear_each, matmul, tiled};

use std::ops::Range;

use burn::tensor::{Bool, DType, Device, Tensor, TensorData};
use rayon::prelude::*;

/// Numbers that take less time than waking another thread.
const ALONE: usize = 1 << 14;

/// Pieces of the rows for each thread, so that one which wakes late leaves its work to the others.
const PIECES: usize = 4;

/// Whether a tensor's steps are taken here.
pub(crate) fn applies<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && !x.is_autodiff() && x.device() == Device::flex()
}

/// Root-mean-square normalisation of rows as long as `weight`.
pub(crate) fn normed<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let weight = weight.into_data();
    let weight = numbers(&weight);
    changed(x, |x| {
        each(x, weight.len(), |_, rows| {
            kernel::norm(rows, weight, epsilon as f32);
        });
    })
}

/// `x + y`, in the place of `y`.
pub(crate) fn added<const D: usize>(x: Tensor<D>, y: Tensor<D>) -> Tensor<D> {
    let x = x.into_data();
    let x = numbers(&x);
    changed(y, |y| {
        each(y, 1, |first, y| kernel::add(y, &x[first..first + y.len()]));
    })
}

/// Rows as long as `bias`, plus it.
pub(crate) fn biased<const D: usize>(x: Tensor<D>, bias: Tensor<1>) -> Tensor<D> {
    let bias = bias.into_data();
    let bias = numbers(&bias);
    let width = bias.len().max(1);
    changed(x, |x| {
        each(x, width, |_, rows| {
            for row in rows.chunks_exact_mut(width) {
                kernel::add(row, bias);
            }
        });
    })
}

/// `silu(gate) * up`, number by number.
pub(crate) fn gated<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    let up = up.into_data();
    let up = numbers(&up);
    changed(gate, |gate| {
        each(gate, 1, |first, gate| {
            kernel::gate(gate, &up[first..first + gate.len()]);
        });
    })
}

/// Rows rotated by halves.
///
/// # Shapes
/// - x: `[batch, heads, tokens, width]`, returned alike
/// - cos, sin: `[batch or 1, 1, tokens, width / 2]`
pub(crate) fn rotated(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let [_, heads, tokens, width] = x.dims();
    let (cos, sin) = (cos.into_data(), sin.into_data());
    let half = (width / 2).max(1);
    let cos = numbers(&cos).chunks_exact(half);
    let sin = numbers(&sin).chunks_exact(half);
    let angles: Vec<(&[f32], &[f32])> = cos.zip(sin).collect();
    changed(x, |x| {
        each(x, width, |first, rows| {
            for (index, row) in rows.chunks_exact_mut(width).enumerate() {
                let row_index = first + index;
                let token = row_index / (heads * tokens) * tokens + row_index % tokens;
                let (cos, sin) = angles[token % angles.len()];
                kernel::rotate(row, cos, sin);
            }
        });
    })
}

/// What each query of a block may attend to.
pub(crate) struct Seen<'a> {
    /// For each sequence the keys before its first token; empty where all are tokens.
    pub(crate) starts: &'a [usize],
    /// Queries of the block, which are repeated for each head of a group.
    pub(crate) queries: usize,
    /// Whether a query sees no key after its own, the queries being the last of the keys.
    pub(crate) causal: bool,
}

/// Scores times `scale`, as shares of what each query may see; nothing of the rest.
///
/// # Shapes
/// - scores: `[batch, kv_heads, group * queries, keys]`, returned alike
pub(crate) fn shares(scores: Tensor<4>, scale: f32, seen: &Seen<'_>) -> Tensor<4> {
    let [_, kv_heads, rows, keys] = scores.dims();
    let range = |row: usize| -> Range<usize> {
        let sequence = row / (kv_heads * rows).max(1);
        let first = seen.starts.get(sequence).copied().unwrap_or(0);
        let last = if seen.causal {
            keys - seen.queries + row % seen.queries + 1
        } else {
            keys
        };
        first.min(last)..last
    };
    changed(scores, |scores| {
        each(scores, keys, |first, rows| {
            for (index, row) in rows.chunks_exact_mut(keys).enumerate() {
                let range = range(first + index);
                row[..range.start].fill(0.0);
                row[range.end..].fill(0.0);
                kernel::softmax(&mut row[range], scale);
            }
        });
    })
}

/// For each sequence how many keys lie before its first token.
///
/// # Shapes
/// - padding: `[batch, 1, 1, keys]`, true where there is no token
pub(crate) fn starts(padding: Tensor<4, Bool>) -> Vec<usize> {
    let keys = padding.dims()[3].max(1);
    let data = padding.into_data();
    let padded: Vec<bool> = data.iter::<bool>().collect();
    let sequences = padded.chunks(keys);
    sequences
        .map(|keys| keys.iter().take_while(|padded| **padded).count())
        .collect()
}

/// The numbers of a tensor. Not `into_vec`, which copies what Burn has aligned its own way.
fn numbers(data: &TensorData) -> &[f32] {
    #[expect(clippy::expect_used, reason = "`applies` has seen the type")]
    data.as_slice().expect("numbers of another type")
}

/// A tensor whose numbers were changed, in place where nothing else holds them.
fn changed<const D: usize>(x: Tensor<D>, change: impl FnOnce(&mut [f32])) -> Tensor<D> {
    let device = x.device();
    let mut data = x.into_data();
    #[expect(clippy::expect_used, reason = "`applies` has seen the type")]
    change(data.as_mut_slice().expect("numbers of another type"));
    Tensor::from_data(data, &device)
}

/// Hands rows of `width` numbers to `work`, with the index of the first: all at once, or in pieces to
/// several threads where that pays.
fn each(numbers: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    let threads = rayon::current_num_threads();
    if threads == 1 || numbers.len() < ALONE {
        work(0, numbers);
        return;
    }
    let width = width.max(1);
    let rows = (numbers.len() / width).div_ceil(threads * PIECES).max(1);
    let pieces = numbers.par_chunks_mut(rows * width).enumerate();
    pieces.for_each(|(piece, part)| work(piece * rows, part));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use burn::tensor::Distribution;
    use burn::tensor::activation::{silu, softmax};

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 3.0), &Device::flex())
    }

    fn vector<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        numbers(&x.into_data()).to_vec()
    }

    #[track_caller]
    fn close<const D: usize>(ours: Tensor<D>, burns: Tensor<D>) {
        assert_eq!(ours.dims(), burns.dims());
        let (ours, burns) = (vector(ours), vector(burns));
        for (ours, burns) in ours.iter().zip(&burns) {
            let room = 1e-6 * burns.abs().max(1.0);
            assert!((ours - burns).abs() <= room, "{ours} for {burns}");
        }
    }

    #[test]
    fn steps_with_gradients_or_in_halves_are_burns() {
        let x = random([2, 3]);
        assert!(applies(&x));
        assert!(!applies(&x.clone().cast(DType::F16)));
        assert!(!applies(&x.autodiff()));
    }

    /// Few numbers, which one thread takes, and many.
    const ROWS: [usize; 3] = [1, 7, 3000];

    #[test]
    fn normalisation_is_burns() {
        for rows in ROWS {
            for width in [1, 15, 64, 200] {
                let (x, weight) = (random([rows, width]), random([width]));
                let scale = (x.clone().square().mean_dim(1) + 1e-6).sqrt().recip();
                let burns = x.clone() * scale * weight.clone().unsqueeze();
                close(normed(x, weight, 1e-6), burns);
            }
        }
    }

    #[test]
    fn sums_are_burns() {
        for rows in ROWS {
            let (x, y, bias) = (random([rows, 33]), random([rows, 33]), random([33]));
            close(added(x.clone(), y.clone()), x.clone() + y);
            close(biased(x.clone(), bias.clone()), x + bias.unsqueeze());
        }
    }

    #[test]
    fn gates_are_burns() {
        for rows in ROWS {
            let (gate, up) = (random([rows, 33]), random([rows, 33]));
            close(gated(gate.clone(), up.clone()), silu(gate) * up);
        }
    }

    #[test]
    fn shares_are_burns_where_all_is_seen() {
        for rows in ROWS {
            for keys in [1, 9, 100] {
                let scores = random([2, 3, rows, keys]);
                let burns = softmax(scores.clone().mul_scalar(0.3), 3);
                let seen = Seen {
                    starts: &[],
                    queries: rows,
                    causal: false,
                };
                close(shares(scores, 0.3, &seen), burns);
            }
        }
    }

    #[test]
    fn what_is_held_elsewhere_is_not_changed() {
        let x = random([3, 40]);
        let before = vector(x.clone());
        drop(gated(x.clone(), x.clone()));
        drop(added(x.clone(), x.clone()));
        drop(biased(x.clone(), random([40])));
        drop(normed(x.clone(), random([40]), 1e-6));
        assert_eq!(vector(x), before);
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let x = Tensor::<1>::from_floats([1.0, f32::NAN, -2.0], &Device::flex());
        let gate = vector(gated(x.clone(), x.clone().ones_like()));
        assert_eq!([false, true, false], [0, 1, 2].map(|at| gate[at].is_nan()));
        let seen = Seen {
            starts: &[],
            queries: 1,
            causal: false,
        };
        let shares = vector(shares(x.clone().reshape([1, 1, 1, 3]), 1.0, &seen));
        assert!(shares.iter().all(|share| share.is_nan()));
        let normed = vector(normed(x.clone(), x.ones_like(), 1e-6));
        assert!(normed.iter().all(|number| number.is_nan()));
    }
}

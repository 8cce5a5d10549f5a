//! Attention of one new token of each sequence, straight from the KV cache: [`attended`].
//!
//! Keys and values are read once, where they lie, by all threads. Burn's matrix product rearranges them
//! first, on one thread. The keys are taken in pieces of a fixed number, each with the shares among its
//! own, and the pieces are put together in order: results are the same to the bit whatever the number
//! of threads.

use std::ops::Range;

use burn::backend::Flex;
use burn::tensor::{DType, Element, Tensor, TensorData};
use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{kernel, numbers};
use crate::quantized::{Half, widen};
use crate::threads::share_out;

/// Keys that are taken at a time.
const KEYS: usize = 256;

/// The keys or the values of a layer: `[sequences, kv_heads, capacity, width]`.
struct Kept {
    data: TensorData,
    capacity: usize,
}

impl Kept {
    /// Takes them out of `tensor`, with those of a new token, `[sequences, kv_heads, 1, width]`, at `place`.
    fn with(tensor: &mut Tensor<4>, new: Tensor<4>, place: usize) -> Self {
        let empty = Tensor::zeros([1; 4], &tensor.device());
        let taken = std::mem::replace(tensor, empty);
        let [_, _, capacity, width] = taken.dims();
        let mut data = taken.into_data();
        let new = new.into_data();
        let new = numbers(&new).chunks_exact(width.max(1));
        let head = (capacity * width).max(1);
        let at = place * width..(place + 1) * width;
        match data.dtype() {
            DType::F16 => {
                for (head, new) in all::<f16>(&mut data).chunks_exact_mut(head).zip(new) {
                    head[at.clone()].convert_from_f32_slice(new);
                }
            }
            DType::BF16 => {
                for (head, new) in all::<bf16>(&mut data).chunks_exact_mut(head).zip(new) {
                    head[at.clone()].convert_from_f32_slice(new);
                }
            }
            _ => {
                for (head, new) in all::<f32>(&mut data).chunks_exact_mut(head).zip(new) {
                    head[at.clone()].copy_from_slice(new);
                }
            }
        }
        Self { data, capacity }
    }

    /// The rows of some tokens of one head of one sequence.
    fn rows(&self, head: usize, tokens: &Range<usize>, width: usize) -> Rows<'_> {
        let first = (head * self.capacity + tokens.start) * width;
        let place = first..first + tokens.len() * width;
        if let Ok(kept) = self.data.as_slice::<f16>() {
            Rows::Halves(Half::F16, kept[place].reinterpret_cast())
        } else if let Ok(kept) = self.data.as_slice::<bf16>() {
            Rows::Halves(Half::Bf16, kept[place].reinterpret_cast())
        } else {
            Rows::Whole(&numbers(&self.data)[place])
        }
    }
}

/// - `E`: the type that they have
fn all<E: Element>(data: &mut TensorData) -> &mut [E] {
    #[expect(clippy::expect_used, reason = "the caller has seen the type")]
    data.as_mut_slice().expect("numbers of another type")
}

/// The first `len` tokens of a cache of 16 bits, in `f32`, by all threads.
///
/// # Shapes
/// - kept: `[sequences, kv_heads, capacity, width]`
/// - returned: `[sequences, kv_heads, len, width]`
pub(crate) fn widened(kept: &Tensor<4>, len: usize) -> Tensor<4> {
    let (device, dtype) = (kept.device(), kept.dtype());
    let [sequences, heads, capacity, width] = kept.dims();
    let primitive = kept.clone().try_into_primitive::<Flex>();
    let (Ok(primitive), true) = (primitive, [DType::F16, DType::BF16].contains(&dtype)) else {
        return kept.clone().narrow(2, 0, len).cast(DType::F32);
    };
    let primitive = primitive.to_contiguous();
    let (half, numbers) = if dtype == DType::F16 {
        (Half::F16, primitive.storage::<f16>().reinterpret_cast())
    } else {
        (Half::Bf16, primitive.storage::<bf16>().reinterpret_cast())
    };
    let mut wide = vec![0.0; sequences * heads * len * width];
    let of_heads = wide.chunks_exact_mut((len * width).max(1));
    let of_heads = of_heads.zip(numbers.chunks_exact((capacity * width).max(1)));
    let pieces = of_heads.flat_map(|(wide, kept)| wide.chunks_mut(PIECE).zip(kept.chunks(PIECE)));
    let pieces: Vec<_> = pieces.collect();
    pieces
        .into_par_iter()
        .for_each(|(wide, kept)| widen(half, kept, wide));
    Tensor::from_data(
        TensorData::new(wide, [sequences, heads, len, width]),
        &device,
    )
}

/// Numbers that are widened by one thread.
const PIECE: usize = 1 << 14;

/// Numbers of the cache, one token's after the other's.
#[derive(Clone, Copy)]
enum Rows<'a> {
    Whole(&'a [f32]),
    Halves(Half, &'a [u16]),
}

impl Rows<'_> {
    fn len(self) -> usize {
        match self {
            Self::Whole(numbers) => numbers.len(),
            Self::Halves(_, numbers) => numbers.len(),
        }
    }

    /// `count` numbers from `first` on, or what is left: where they lie, or in `wide`.
    #[inline(always)]
    fn part<'b>(&'b self, first: usize, count: usize, wide: &'b mut Vec<f32>) -> &'b [f32] {
        let place = first..(first + count).min(self.len());
        match self {
            Self::Whole(numbers) => &numbers[place],
            Self::Halves(half, numbers) => {
                wide.resize(place.len(), 0.0);
                widen(*half, &numbers[place], wide);
                wide
            }
        }
    }
}

/// Some tokens of one head of one sequence, and what the queries that share it find there.
struct Piece<'a> {
    head: usize,
    tokens: Range<usize>,
    /// See [`Attend::found`].
    found: &'a mut [f32],
}

/// Appends the keys and values of one token of each sequence to those of `len` before it, and returns
/// the attention of its queries over them all.
///
/// # Shapes
/// - query: `[sequences, heads, 1, width]`, returned alike
/// - keys, values: `[sequences, kv_heads, capacity, width]`, in `f32`, `f16` or `bf16`, and the new ones,
///   `[sequences, kv_heads, 1, width]`
/// - starts: of each sequence, the tokens before its first
pub(crate) fn attended(
    query: Tensor<4>,
    (keys, new_keys): (&mut Tensor<4>, Tensor<4>),
    (values, new_values): (&mut Tensor<4>, Tensor<4>),
    len: usize,
    starts: &[usize],
) -> Tensor<4> {
    let device = query.device();
    let shape = query.dims();
    let [sequences, heads, _, width] = shape;
    let stored = keys.dims();
    let kv_heads = stored[1];
    let group = heads / kv_heads.max(1);
    let scale = (width as f32).powf(-0.5);
    let kept_keys = Kept::with(keys, new_keys, len);
    let kept_values = Kept::with(values, new_values, len);

    let tokens = |head: usize| {
        let first = starts.get(head / kv_heads).copied().unwrap_or(0).min(len);
        (first..len + 1)
            .step_by(KEYS)
            .map(move |first| first..(first + KEYS).min(len + 1))
    };
    let size = group * (width + 2);
    let count: usize = (0..sequences * kv_heads)
        .map(|head| tokens(head).len())
        .sum();
    let mut found = vec![0.0; count * size];
    let query = query.into_data();
    let queries: Vec<&[f32]> = numbers(&query)
        .chunks_exact((group * width).max(1))
        .collect();
    let pieces =
        (0..sequences * kv_heads).flat_map(|head| tokens(head).map(move |tokens| (head, tokens)));
    let pieces = pieces.zip(found.chunks_exact_mut(size.max(1)));
    let pieces = pieces.map(|((head, tokens), found)| Piece {
        head,
        tokens,
        found,
    });
    let arch = Arch::new();
    share_out(pieces, count, |piece| {
        arch.dispatch(Attend {
            queries: queries[piece.head],
            keys: kept_keys.rows(piece.head, &piece.tokens, width),
            values: kept_values.rows(piece.head, &piece.tokens, width),
            width,
            scale,
            found: piece.found,
        });
    });

    let mut mixed = vec![0.0; sequences * heads * width];
    let mut pieces = found.chunks_exact(size.max(1));
    for (head, out) in mixed.chunks_exact_mut((group * width).max(1)).enumerate() {
        let pieces: Vec<&[f32]> = pieces.by_ref().take(tokens(head).len()).collect();
        for (query, out) in out.chunks_exact_mut(width.max(1)).enumerate() {
            let found = pieces
                .iter()
                .map(|found| &found[query * (width + 2)..][..width + 2]);
            put_together(found, scale, out);
        }
    }
    let back = |kept: Kept| {
        // The type named: without it, they would become the device's usual one.
        let dtype = kept.data.dtype();
        Tensor::from_data(kept.data, (&device, dtype))
    };
    (*keys, *values) = (back(kept_keys), back(kept_values));
    Tensor::from_data(TensorData::new(mixed, shape), &device)
}

/// What the queries of a group find among some tokens.
struct Attend<'a> {
    /// Rows of `width`.
    queries: &'a [f32],
    /// A row of `width` for each token.
    keys: Rows<'a>,
    /// As `keys`.
    values: Rows<'a>,
    width: usize,
    scale: f32,
    /// For each query the largest score, the sum of the shares beside it, and the values in these shares.
    found: &'a mut [f32],
}

/// Tokens that are taken at a time: they stay in the fastest cache for all queries.
const TOKENS: usize = 32;

/// Vectors that are added up side by side.
const SIDE: usize = 4;

// Not left to the compiler, as the loops of `kernel` are: what it makes of such short products takes twice
// as long, or four times, by the turn of a phrase. No closures: they would not have the instructions.
impl WithSimd for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { width, .. } = self;
        let tokens = self.keys.len() / width;
        let mut scores = vec![0.0; self.queries.len() / width * tokens];
        let mut wide = Vec::new();
        for first in (0..tokens).step_by(TOKENS) {
            let keys = self.keys.part(first * width, TOKENS * width, &mut wide);
            for (token, key) in keys.chunks_exact(width).enumerate() {
                let queries = self.queries.chunks_exact(width);
                for (scores, query) in scores.chunks_exact_mut(tokens).zip(queries) {
                    scores[first + token] = product(simd, query, key);
                }
            }
        }
        let found = self.found.chunks_exact_mut(self.width + 2);
        for (scores, found) in scores.chunks_exact_mut(tokens).zip(found) {
            let most = kernel::largest(scores);
            found.fill(0.0);
            found[0] = most;
            found[1] = kernel::exponentials(scores, most, self.scale);
        }
        for first in (0..tokens).step_by(TOKENS) {
            let values = self.values.part(first * width, TOKENS * width, &mut wide);
            let found = self.found.chunks_exact_mut(width + 2);
            for (shares, found) in scores.chunks_exact(tokens).zip(found) {
                mix(simd, &shares[first..], values, &mut found[2..]);
            }
        }
    }
}

#[inline(always)]
fn product<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let (a, rest_of_a) = S::as_simd_f32s(a);
    let (b, rest_of_b) = S::as_simd_f32s(b);
    let mut sum = simd.splat_f32s(0.0);
    for (a, b) in a.iter().zip(b) {
        sum = simd.mul_add_f32s(*a, *b, sum);
    }
    let rest = rest_of_a.iter().zip(rest_of_b);
    simd.reduce_sum_f32s(sum) + rest.map(|(a, b)| a * b).sum::<f32>()
}

/// Adds rows of `values`, as long as `sums`, in their shares.
#[inline(always)]
fn mix<S: Simd>(simd: S, shares: &[f32], values: &[f32], sums: &mut [f32]) {
    let width = sums.len();
    let rows = || shares.iter().zip(values.chunks_exact(width));
    let (vectors, rest) = S::as_mut_simd_f32s(sums);
    let behind = width - rest.len();
    let (groups, singles) = vectors.as_chunks_mut::<SIDE>();
    for (index, sums) in groups.iter_mut().enumerate() {
        let mut local = *sums;
        for (share, row) in rows() {
            let share = simd.splat_f32s(*share);
            let row = S::as_simd_f32s(row).0.as_chunks::<SIDE>().0[index];
            for at in 0..SIDE {
                local[at] = simd.mul_add_f32s(share, row[at], local[at]);
            }
        }
        *sums = local;
    }
    let grouped = groups.len() * SIDE;
    for (index, sum) in singles.iter_mut().enumerate() {
        for (share, row) in rows() {
            let value = S::as_simd_f32s(row).0[grouped + index];
            *sum = simd.mul_add_f32s(simd.splat_f32s(*share), value, *sum);
        }
    }
    if !rest.is_empty() {
        for (share, row) in rows() {
            for (sum, value) in rest.iter_mut().zip(&row[behind..]) {
                *sum += share * value;
            }
        }
    }
}

/// What one query found among several sets of tokens, as one: added to the zeros of `out`.
fn put_together<'a>(found: impl Iterator<Item = &'a [f32]> + Clone, scale: f32, out: &mut [f32]) {
    let most = found.clone().map(|found| found[0]);
    let most = most.fold(f32::NEG_INFINITY, f32::max);
    let weight = |found: &[f32]| kernel::exp((found[0] - most) * scale);
    let sum: f32 = found.clone().map(|found| weight(found) * found[1]).sum();
    for found in found {
        let weight = weight(found) / sum;
        for (out, value) in out.iter_mut().zip(&found[2..]) {
            *out += weight * value;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::attention::{Reach, attend_padded};

    fn random(shape: [usize; 4]) -> Tensor<4> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn vector(x: Tensor<4>) -> Vec<f32> {
        numbers(&x.into_data()).to_vec()
    }

    /// A layer's cache with room for more than `len` tokens and a new one, and what comes with that.
    struct Case {
        query: Tensor<4>,
        cached: [Tensor<4>; 2],
        new: [Tensor<4>; 2],
        len: usize,
        starts: Vec<usize>,
    }

    impl Case {
        fn new(heads: [usize; 2], width: usize, len: usize, starts: &[usize]) -> Self {
            let (sequences, [heads, kv_heads]) = (starts.len(), heads);
            Self {
                query: random([sequences, heads, 1, width]),
                cached: [(); 2].map(|()| random([sequences, kv_heads, len + 9, width])),
                new: [(); 2].map(|()| random([sequences, kv_heads, 1, width])),
                len,
                starts: starts.to_vec(),
            }
        }

        /// The attention, and the cache after it.
        fn ours(&self) -> (Tensor<4>, [Tensor<4>; 2]) {
            let [mut keys, mut values] = self.cached.clone();
            let [new_keys, new_values] = self.new.clone();
            let mixed = attended(
                self.query.clone(),
                (&mut keys, new_keys),
                (&mut values, new_values),
                self.len,
                &self.starts,
            );
            (mixed, [keys, values])
        }

        /// The same by way of Burn's products.
        fn burns(&self) -> (Tensor<4>, [Tensor<4>; 2]) {
            let [sequences, kv_heads, _, width] = self.new[0].dims();
            let (len, all) = (self.len, self.len + 1);
            let place = [0..sequences, 0..kv_heads, len..all, 0..width];
            let after = [0, 1].map(|which: usize| {
                let cached = self.cached[which].clone();
                let new = self.new[which].clone().cast(cached.dtype());
                cached.slice_assign(place.clone(), new)
            });
            let [keys, values] = after
                .clone()
                .map(|kept| kept.narrow(2, 0, all).cast(DType::F32));
            let columns = self.starts.iter().flat_map(|start| {
                let padded = (0..all).map(move |column| column < *start);
                padded.collect::<Vec<bool>>()
            });
            let padding = TensorData::new(columns.collect(), [sequences, 1, 1, all]);
            let padding = Tensor::from_data(padding, &Device::flex());
            let query = self.query.clone();
            let mixed = attend_padded(query, keys, values, Reach::Causal, Some(padding));
            (mixed, after)
        }
    }

    #[test]
    fn attention_straight_from_the_cache_is_that_of_burns_products() {
        for heads in [[1, 1], [4, 4], [4, 2], [14, 2], [8, 1]] {
            // Widths that fill vectors, that leave a few numbers over, and that fill none.
            for width in [64, 128, 80, 36, 3] {
                for len in [0, 1, KEYS - 1, KEYS, 700] {
                    for starts in [vec![0], vec![0, len / 3, len]] {
                        let case = Case::new(heads, width, len, &starts);
                        let ((ours, our_cache), (burns, cache)) = (case.ours(), case.burns());
                        assert_eq!(ours.dims(), burns.dims());
                        for (ours, burns) in vector(ours).iter().zip(vector(burns)) {
                            assert!(
                                (ours - burns).abs() < 2e-5,
                                "{heads:?} {width} {len} {starts:?}: {ours} for {burns}"
                            );
                        }
                        assert_eq!(our_cache.map(vector), cache.map(vector));
                    }
                }
            }
        }
    }

    #[test]
    fn a_cache_of_16_bits_is_read_as_its_numbers_and_appended_to() {
        for dtype in [DType::F16, DType::BF16] {
            for (heads, width, len) in [([4, 2], 64, 700), ([14, 2], 128, KEYS), ([1, 1], 3, 0)] {
                let mut case = Case::new(heads, width, len, &[0, len / 3]);
                case.cached = case.cached.map(|kept| kept.cast(dtype));
                let ((ours, our_cache), (burns, cache)) = (case.ours(), case.burns());
                for (ours, burns) in vector(ours).iter().zip(vector(burns)) {
                    assert!((ours - burns).abs() < 2e-5, "{ours} for {burns}");
                }
                for (ours, burns) in our_cache.iter().zip(cache) {
                    assert_eq!(ours.dtype(), dtype);
                    let burns = burns.narrow(2, 0, len + 1).cast(DType::F32);
                    assert_eq!(vector(widened(ours, len + 1)), vector(burns));
                }
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let case = Case::new([14, 2], 64, 1500, &[0]);
        let [one, three] = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| vector(case.ours().0))
        });
        assert_eq!(one, three);
    }

    #[test]
    fn a_key_or_value_that_is_no_number_is_not_hidden() {
        for which in [0, 1] {
            let mut case = Case::new([7, 1], 64, 600, &[0]);
            let odd = Tensor::full([1, 1, 1, 1], f32::NAN, &Device::flex());
            let cached = case.cached[which].clone();
            case.cached[which] = cached.slice_assign([0..1, 0..1, 300..301, 5..6], odd);
            let found = vector(case.ours().0);
            let (nan, columns) = (found.iter().filter(|x| x.is_nan()).count(), found.len());
            // A key's makes all shares so; a value's its own column.
            assert_eq!(nan, [columns, 7][which]);
        }
    }
}

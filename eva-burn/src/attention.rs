//! Scaled dot-product attention with grouped queries.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, DType, Device, Int, Tensor};

use crate::cpu;
#[cfg(feature = "gpu-kernels")]
use crate::gpu;

/// Queries are taken in blocks of this many, so that a long prompt never materialises its full
/// square of scores, and keys after a block are not multiplied at all.
pub(crate) const QUERY_BLOCK: usize = 128;

/// On a GPU a block may be larger while its scores take no more bytes than this: each block costs kernels to be
/// asked for, and few queries leave most of it idle.
#[cfg(feature = "gpu-kernels")]
const GPU_BLOCK_BYTES: usize = 32 << 20;

/// A score whose `exp()` is 0 beside any other, finite in every float type.
const NEVER: f32 = -60_000.0;

/// What a query may attend to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All keys.
    Everything,
    /// Its own position and everything before: the queries are the last of the keys.
    Causal,
}

/// Attention of `query` over `keys` and `values`.
///
/// Query heads that share a key head are folded into the query axis, so that keys and values are
/// never copied per query head.
///
/// # Shapes
/// - query: `[batch, heads, new, head_dim]`
/// - keys, values: `[batch, kv_heads, all, head_dim]`, `kv_heads` divides `heads`
/// - returned: `[batch, heads, new, head_dim]`
pub(crate) fn attend(
    query: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    reach: Reach,
) -> Tensor<4> {
    attend_padded(query, keys, values, reach, None)
}

/// As [`attend`], where some keys of some sequences are no tokens.
///
/// # Shapes
/// - padding: `[batch, 1, 1, all]`, true where there is no token
pub(crate) fn attend_padded(
    query: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    reach: Reach,
    padding: Option<Tensor<4, Bool>>,
) -> Tensor<4> {
    let [batch, heads, new, width] = query.dims();
    let [_, kv_heads, all, _] = keys.dims();
    let group = heads / kv_heads;
    let scale = (width as f64).powf(-0.5);
    let on_cpu = cpu::applies(&query);
    let (query, starts) = if on_cpu {
        (query, padding.clone().map(cpu::starts).unwrap_or_default())
    } else {
        (query.mul_scalar(scale), Vec::new())
    };

    let past = all - new;
    let block = query_block(&query, all, padding.is_some());
    let mut blocks = Vec::with_capacity(new.div_ceil(block));
    for start in (0..new).step_by(block) {
        let count = block.min(new - start);
        let seen = match reach {
            Reach::Everything => all,
            Reach::Causal => past + start + count,
        };
        let part = if count == new {
            query.clone()
        } else {
            query.clone().narrow(2, start, count)
        };
        let part = part.reshape([batch, kv_heads, group * count, width]);
        let (k, v) = if seen == all {
            (keys.clone(), values.clone())
        } else {
            (
                keys.clone().narrow(2, 0, seen),
                values.clone().narrow(2, 0, seen),
            )
        };
        let scores = cpu::matmul(part, k.swap_dims(2, 3));
        let weights = if on_cpu {
            let seen = cpu::Seen {
                starts: &starts,
                queries: count,
                causal: reach == Reach::Causal,
            };
            cpu::shares(scores, scale as f32, &seen)
        } else {
            shares(scores, reach, count, padding.as_ref())
        };
        let mixed = cpu::matmul(weights, v);
        blocks.push(mixed.reshape([batch, heads, count, width]));
    }
    if blocks.len() == 1 {
        blocks.swap_remove(0)
    } else {
        Tensor::cat(blocks, 2)
    }
}

/// Queries that are taken at a time.
///
/// - keys: how many there are
/// - padded: whether some of them are no tokens, so that the softmax is Burn's
fn query_block(query: &Tensor<4>, keys: usize, padded: bool) -> usize {
    #[cfg(feature = "gpu-kernels")]
    if !padded && gpu::applies(query) {
        let [batch, heads, _, _] = query.dims();
        let bytes = batch * heads * keys * query.dtype().size() * QUERY_BLOCK;
        return (GPU_BLOCK_BYTES / bytes.max(1)).max(1) * QUERY_BLOCK;
    }
    let _ = (query, keys, padded);
    QUERY_BLOCK
}

/// The softmax of scores over what each of `count` queries may attend to.
///
/// # Shapes
/// - scores: `[batch, kv_heads, group * count, seen]`, returned alike
fn shares(
    mut scores: Tensor<4>,
    reach: Reach,
    count: usize,
    padding: Option<&Tensor<4, Bool>>,
) -> Tensor<4> {
    #[cfg(feature = "gpu-kernels")]
    if padding.is_none() && gpu::applies(&scores) {
        return gpu::shares(scores, count, reach == Reach::Causal);
    }
    let shape = scores.dims();
    let [_, _, rows, seen] = shape;
    if reach == Reach::Causal && count > 1 {
        let mask = future_mask(count, seen, rows / count, &scores.device());
        scores = scores.mask_fill(mask.expand(shape), NEVER);
    }
    if let Some(padding) = padding {
        let mask = padding.clone().narrow(3, 0, seen);
        scores = scores.mask_fill(mask.expand(shape), NEVER);
    }
    // In f32 whatever the weights are: halves lose too much of a sum over many keys.
    let dtype = scores.dtype();
    softmax(scores.cast(DType::F32), 3).cast(dtype)
}

/// True where a key lies after its query, for `count` queries that are the last of `seen` keys,
/// repeated for each query head of a group.
///
/// # Shapes
/// - returned: `[1, 1, group * count, seen]`
fn future_mask(count: usize, seen: usize, group: usize, device: &Device) -> Tensor<4, Bool> {
    let first = seen - count;
    let rows = Tensor::<1, Int>::arange(first as i64..seen as i64, device).reshape([1, count, 1]);
    let columns = Tensor::<1, Int>::arange(0..seen as i64, device).reshape([1, 1, seen]);
    let mask = columns
        .expand([1, count, seen])
        .greater(rows.expand([1, count, seen]));
    mask.expand([group, count, seen])
        .reshape([1, 1, group * count, seen])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use burn::tensor::TensorData;

    const WIDTH: usize = 4;

    /// Numbers without a pattern.
    fn values(shape: [usize; 4], seed: usize) -> Vec<f32> {
        (0..shape.iter().product())
            .map(|at: usize| ((at * 7919 + seed * 104_729) % 1000) as f32 / 500.0 - 1.0)
            .collect()
    }

    /// Plain attention of one query head over the keys that `may` lets it see.
    fn plain(query: &[f32], keys: &[f32], values: &[f32], may: impl Fn(usize) -> bool) -> Vec<f32> {
        let keys = keys.chunks(WIDTH).enumerate().filter(|(at, _)| may(*at));
        let weights: Vec<(usize, f32)> = keys
            .map(|(at, key)| {
                let product: f32 = key.iter().zip(query).map(|(a, b)| a * b).sum();
                (at, (product / (WIDTH as f32).sqrt()).exp())
            })
            .collect();
        let total: f32 = weights.iter().map(|(_, weight)| weight).sum();
        (0..WIDTH)
            .map(|column| {
                let mixed = weights.iter();
                mixed
                    .map(|(at, weight)| weight * values[at * WIDTH + column])
                    .sum::<f32>()
                    / total
            })
            .collect()
    }

    /// The new tokens' attention over all, against plain numbers.
    fn compare(
        heads: usize,
        kv_heads: usize,
        new: usize,
        all: usize,
        reach: Reach,
        starts: &[usize],
    ) {
        let batch = starts.len();
        let shapes = [
            [batch, heads, new, WIDTH],
            [batch, kv_heads, all, WIDTH],
            [batch, kv_heads, all, WIDTH],
        ];
        let numbers: Vec<Vec<f32>> = (0..3).map(|at| values(shapes[at], at)).collect();
        let mask: Vec<bool> = starts
            .iter()
            .flat_map(|start| (0..all).map(move |column| column < *start))
            .collect();
        // Our own steps, and Burn's.
        for device in [Device::flex(), Device::flex().autodiff()] {
            let [query, keys, mixed] = [0, 1, 2].map(|at: usize| {
                Tensor::<4>::from_data(TensorData::new(numbers[at].clone(), shapes[at]), &device)
            });
            let mask = TensorData::new(mask.clone(), [batch, 1, 1, all]);
            let padding = starts.iter().any(|start| *start > 0);
            let padding = padding.then(|| Tensor::<4, Bool>::from_data(mask, &device));
            let ours = attend_padded(query, keys, mixed, reach, padding);
            let ours: Vec<f32> = ours.try_into_vec_as().unwrap();
            for (row, ours) in ours.chunks(WIDTH).enumerate() {
                let (sequence, head, token) = (row / (heads * new), row / new % heads, row % new);
                let shared = (sequence * kv_heads + head / (heads / kv_heads)) * all * WIDTH;
                let query = &numbers[0][row * WIDTH..][..WIDTH];
                let (keys, values) = (&numbers[1][shared..], &numbers[2][shared..]);
                let (keys, values) = (&keys[..all * WIDTH], &values[..all * WIDTH]);
                let last = match reach {
                    Reach::Everything => all,
                    Reach::Causal => all - new + token,
                };
                let expected = plain(query, keys, values, |at| {
                    at >= starts[sequence] && at <= last
                });
                for (ours, expected) in ours.iter().zip(&expected) {
                    assert!(
                        (ours - expected).abs() < 1e-5,
                        "{ours} for {expected}, row {row}"
                    );
                }
            }
        }
    }

    #[test]
    fn blocks_of_queries_are_plain_attention() {
        for (heads, kv_heads) in [(1, 1), (4, 4), (4, 2), (7, 1)] {
            for (new, all) in [(1, 1), (1, 300), (5, 9), (128, 128), (129, 140), (300, 300)] {
                compare(heads, kv_heads, new, all, Reach::Causal, &[0, 0]);
            }
            compare(heads, kv_heads, 130, 130, Reach::Everything, &[0]);
        }
    }

    #[test]
    fn what_is_no_token_is_not_attended_to() {
        for (heads, kv_heads) in [(4, 4), (4, 2), (7, 1)] {
            compare(heads, kv_heads, 1, 40, Reach::Causal, &[0, 13, 39]);
            compare(heads, kv_heads, 6, 40, Reach::Causal, &[20, 0, 34]);
            compare(heads, kv_heads, 200, 300, Reach::Causal, &[100, 3]);
        }
    }
}

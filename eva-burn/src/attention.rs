//! Scaled dot-product attention with grouped queries.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, DType, Device, Int, Tensor};

/// Queries are taken in blocks of this many, so that a long prompt never materialises its full
/// square of scores, and keys after a block are not multiplied at all.
const QUERY_BLOCK: usize = 128;

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
    let [batch, heads, new, width] = query.dims();
    let [_, kv_heads, all, _] = keys.dims();
    let group = heads / kv_heads;
    let query = query.mul_scalar((width as f64).powf(-0.5));

    let past = all - new;
    let mut blocks = Vec::with_capacity(new.div_ceil(QUERY_BLOCK));
    for start in (0..new).step_by(QUERY_BLOCK) {
        let count = QUERY_BLOCK.min(new - start);
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
        let mut scores = part.matmul(k.swap_dims(2, 3));
        if reach == Reach::Causal && count > 1 {
            let mask = future_mask(count, seen, group, &scores.device());
            let shape = scores.dims();
            // The most negative finite value: exp() of it is 0 in every float type.
            scores = scores.mask_fill(mask.expand(shape), -60_000.0);
        }
        // In f32 whatever the weights are: halves lose too much of a sum over many keys.
        let dtype = scores.dtype();
        let weights = softmax(scores.cast(DType::F32), 3).cast(dtype);
        let mixed = weights.matmul(v);
        blocks.push(mixed.reshape([batch, heads, count, width]));
    }
    if blocks.len() == 1 {
        blocks.swap_remove(0)
    } else {
        Tensor::cat(blocks, 2)
    }
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

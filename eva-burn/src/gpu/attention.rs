//! Attention of one new token of each sequence, straight from the KV cache.
//!
//! The keys are taken in parts of [`KEYS`], a cube for each part and each head of keys, and the parts are put
//! together by a second kernel: a single cube for all keys of a head would leave most of a GPU idle. Query heads
//! that share a head of keys read it once.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Int, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;

use super::{WIDTH, element, empty};

/// Keys of a part, and units of a cube: each unit takes a key first, and some columns of the values then.
const KEYS: usize = 128;

/// A score whose `exp()` is 0 beside any other.
const NEVER: f32 = -60_000.0;

/// Bytes that cubes share, at most: what WebGPU promises.
const SHARED_BYTES: usize = 16 << 10;

/// Whether heads of this shape are taken here.
///
/// - group: query heads that share a head of keys
pub(crate) fn fits(group: usize, width: usize) -> bool {
    let shared = group * (width + 2 * KEYS) + KEYS * (WIDTH + 1);
    width.is_multiple_of(2 * WIDTH)
        && width <= KEYS * WIDTH
        && shared * size_of::<f32>() <= SHARED_BYTES
}

/// Appends a token's keys, which are rotated, and values of each sequence to those in the cache.
///
/// # Shapes
/// - kept: keys and values, `[sequences, kv_heads, capacity, width]`, returned alike; in place if nothing else
///   holds them
/// - new: keys and values, `sequences * kv_heads * width` numbers in this order
/// - rotary: cosine and sine, `sequences * width / 2` numbers each
pub(crate) fn append<const D: usize>(
    (keys, values): (Tensor<4>, Tensor<4>),
    (new_keys, new_values): (Tensor<D>, Tensor<D>),
    (cos, sin): (Tensor<4>, Tensor<4>),
    place: usize,
) -> (Tensor<4>, Tensor<4>) {
    let [sequences, kv_heads, capacity, width] = keys.dims();
    assert!(place < capacity, "no room was made for the token");
    let count = |x: &[usize]| x.iter().product::<usize>();
    assert_eq!(
        count(&new_keys.dims()),
        sequences * kv_heads * width,
        "a token's keys"
    );
    assert_eq!(count(&cos.dims()), sequences * width / 2, "angles");
    let (keys, values) = Dispatch::append_token(
        keys.into_dispatch(),
        values.into_dispatch(),
        new_keys.into_dispatch(),
        new_values.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        place,
    );
    (Tensor::from_dispatch(keys), Tensor::from_dispatch(values))
}

/// Attention of a token's queries, which are rotated, over the first `len` keys of each sequence.
///
/// # Shapes
/// - query: `sequences * heads * width` numbers in this order; returned alike
/// - keys, values: `[sequences, kv_heads, capacity, width]`
/// - rotary: as for [`append`]
/// - starts: of each sequence, the tokens before its first
pub(crate) fn attend<const D: usize>(
    query: Tensor<D>,
    (keys, values): (Tensor<4>, Tensor<4>),
    (cos, sin): (Tensor<4>, Tensor<4>),
    starts: Tensor<1, Int>,
    len: usize,
) -> Tensor<D> {
    let [sequences, _, capacity, width] = keys.dims();
    assert!(len <= capacity, "more keys than there are");
    assert_eq!(starts.dims(), [sequences], "a start for each sequence");
    let numbers = query.dims().iter().product::<usize>();
    assert!(
        numbers.is_multiple_of((sequences * width).max(1)),
        "whole heads"
    );
    Tensor::from_dispatch(Dispatch::attend_token(
        query.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        starts.into_dispatch(),
        len,
    ))
}

/// What Burn's backends take many operations for. Shapes are those of [`append`] and [`attend`].
#[backend_extension(Cube)]
pub(crate) trait AttentionOps: Backend {
    /// See [`append`].
    fn append_token(
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        new_keys: FloatTensor<Self>,
        new_values: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        place: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// See [`attend`].
    fn attend_token(
        query: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        starts: IntTensor<Self>,
        len: usize,
    ) -> FloatTensor<Self>;
}

impl AttentionOps for CubeBackend {
    fn append_token(
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        new_keys: FloatTensor<Self>,
        new_values: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        place: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        // On CUDA a copy may have padded rows, as may what comes from elsewhere.
        let [keys, values] = [keys, values]
            .map(|kept| into_contiguous(if kept.can_mut() { kept } else { kept.copy() }));
        let shape = keys.meta.shape();
        let (heads, capacity, width) = (shape[1], shape[2], shape[3]);
        let units = shape[0] * heads * width / 2;
        let dim = CubeDim::new_1d(64);
        let elements = [element(keys.dtype), element(new_keys.dtype)];
        append_rows::launch(
            &keys.client,
            calculate_cube_count_elemwise(&keys.client, units, dim),
            dim,
            into_contiguous(new_keys).into_buffer_arg(),
            into_contiguous(new_values).into_buffer_arg(),
            into_contiguous(cos).into_buffer_arg(),
            into_contiguous(sin).into_buffer_arg(),
            keys.clone().into_buffer_arg(),
            values.clone().into_buffer_arg(),
            units,
            heads,
            capacity,
            width / 2,
            place,
            elements,
        );
        (keys, values)
    }

    fn attend_token(
        query: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        starts: IntTensor<Self>,
        len: usize,
    ) -> FloatTensor<Self> {
        let query = into_contiguous(query);
        let (keys, values) = (into_contiguous(keys), into_contiguous(values));
        let shape = keys.meta.shape();
        let (sequences, kv_heads, capacity, width) = (shape[0], shape[1], shape[2], shape[3]);
        let heads = query.meta.shape().num_elements() / (sequences * width).max(1);
        let group = heads / kv_heads.max(1);
        let parts = len.div_ceil(KEYS).max(1);
        let rows = sequences * heads;
        let mixed = empty(&query, Shape::from([rows * parts, width]), DType::F32);
        let found = empty(&query, Shape::from([rows * parts, 2]), DType::F32);
        let out = empty(&query, query.meta.shape().clone(), query.dtype);
        let client = &out.client;
        let dim = CubeDim::new_1d(KEYS as u32);
        let cubes = |count: usize| calculate_cube_count_elemwise(client, count * KEYS, dim);
        let elements = [element(query.dtype), element(keys.dtype)];
        attend_part::launch(
            client,
            cubes(sequences * kv_heads * parts),
            dim,
            WIDTH,
            query.into_buffer_arg(),
            keys.into_buffer_arg(),
            values.into_buffer_arg(),
            into_contiguous(cos).into_buffer_arg(),
            into_contiguous(sin).into_buffer_arg(),
            into_contiguous(starts).into_buffer_arg(),
            mixed.clone().into_buffer_arg(),
            found.clone().into_buffer_arg(),
            sequences,
            kv_heads,
            capacity,
            parts,
            len,
            (width as f32).powf(-0.5),
            group,
            width,
            elements,
        );
        put_together::launch(
            client,
            cubes(rows),
            dim,
            mixed.into_buffer_arg(),
            found.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows,
            parts,
            width,
            element(out.dtype),
        );
        out
    }
}

/// One unit takes two numbers of a key, which are rotated together, and of a value.
#[cube(launch)]
#[expect(
    clippy::too_many_arguments,
    reason = "a kernel's buffers and their sizes"
)]
fn append_rows<K: Float, F: Float>(
    new_keys: &[F],
    new_values: &[F],
    cos: &[f32],
    sin: &[f32],
    keys: &mut [K],
    values: &mut [K],
    units: usize,
    heads: usize,
    capacity: usize,
    half: usize,
    place: usize,
    #[define(K, F)] _elements: [ElemType; 2],
) {
    if ABSOLUTE_POS >= units {
        terminate!();
    }
    // Of all sequences.
    let head = ABSOLUTE_POS / half;
    let column = ABSOLUTE_POS % half;
    let angle = head / heads * half + column;
    let from = head * 2 * half + column;
    let to = (head * capacity + place) * 2 * half + column;
    let first = f32::cast_from(new_keys[from]);
    let second = f32::cast_from(new_keys[from + half]);
    keys[to] = K::cast_from(first * cos[angle] - second * sin[angle]);
    keys[to + half] = K::cast_from(second * cos[angle] + first * sin[angle]);
    values[to] = K::cast_from(new_values[from]);
    values[to + half] = K::cast_from(new_values[from + half]);
}

/// One cube finds what the queries of a group make of [`KEYS`] keys: `mixed`, the values weighed by
/// `exp(score - top)`, and `found`, that `top` and the sum of the weights.
#[cube(launch)]
#[expect(
    clippy::too_many_arguments,
    reason = "a kernel's buffers and their sizes"
)]
fn attend_part<F: Float, K: Float, N: Size>(
    query: &[F],
    keys: &[Vector<K, N>],
    values: &[Vector<K, N>],
    cos: &[f32],
    sin: &[f32],
    starts: &[i32],
    mixed: &mut [Vector<f32, N>],
    found: &mut [f32],
    sequences: usize,
    kv_heads: usize,
    capacity: usize,
    parts: usize,
    len: usize,
    scale: f32,
    #[comptime] group: usize,
    #[comptime] width: usize,
    #[define(F, K)] _elements: [ElemType; 2],
) {
    if CUBE_POS >= sequences * kv_heads * parts {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let part = CUBE_POS % parts;
    // Of all sequences.
    let head = CUBE_POS / parts;
    let sequence = head / kv_heads;
    let half = comptime!(width / 2);
    // Vectors of a row.
    let across = comptime!(width / WIDTH);

    // The group's queries, rotated and scaled, as all units need all of them.
    let mut queries = Shared::<[f32]>::new_slice(comptime!(group * width));
    let mut at = unit;
    while at < comptime!(group * half) {
        let query_head = at / half;
        let column = at % half;
        let angle = sequence * half + column;
        let from = (head * group + query_head) * width + column;
        let first = f32::cast_from(query[from]) * scale;
        let second = f32::cast_from(query[from + half]) * scale;
        queries[query_head * width + column] = first * cos[angle] - second * sin[angle];
        queries[query_head * width + column + half] = second * cos[angle] + first * sin[angle];
        at += KEYS;
    }
    sync_cube();

    // A key for each unit.
    let key = part * KEYS + unit;
    let mut scores = Array::<f32>::new(group);
    #[unroll]
    for one in 0..group {
        scores[one] = 0.0;
    }
    let seen = key < len && key >= usize::cast_from(starts[sequence]);
    if seen {
        let row = (head * capacity + key) * across;
        for step in 0..across {
            let numbers = Vector::<f32, N>::cast_from(keys[row + step]);
            #[unroll]
            for one in 0..group {
                #[unroll]
                for number in 0..WIDTH {
                    scores[one] +=
                        numbers.extract(number) * queries[one * width + step * WIDTH + number];
                }
            }
        }
    }
    let mut weights = Shared::<[f32]>::new_slice(comptime!(group * KEYS));
    let mut tops = Shared::<[f32]>::new_slice(comptime!(group * KEYS));
    #[unroll]
    for one in 0..group {
        if !seen {
            scores[one] = NEVER;
        }
        tops[one * KEYS + unit] = scores[one];
    }
    #[unroll]
    for level in 0..KEYS.ilog2() {
        sync_cube();
        let active = comptime!(KEYS >> (level + 1));
        if unit < active {
            #[unroll]
            for one in 0..group {
                let ours = tops[one * KEYS + unit];
                let other = tops[one * KEYS + unit + active];
                tops[one * KEYS + unit] = max(ours, other);
            }
        }
    }
    sync_cube();
    #[unroll]
    for one in 0..group {
        weights[one * KEYS + unit] = (scores[one] - tops[one * KEYS]).exp();
    }
    sync_cube();

    // Some columns of every so many keys' values for each unit.
    let sharing = comptime!(KEYS / across);
    let column = unit % across;
    let first = unit / across;
    let mut sums = Array::<Vector<f32, N>>::new(group);
    let mut totals = Array::<f32>::new(group);
    #[unroll]
    for one in 0..group {
        sums[one] = Vector::new(0.0);
        totals[one] = 0.0;
    }
    if first < sharing {
        let last = min(len - part * KEYS, KEYS);
        let mut key = first;
        while key < last {
            let row = (head * capacity + part * KEYS + key) * across;
            let numbers = Vector::<f32, N>::cast_from(values[row + column]);
            #[unroll]
            for one in 0..group {
                let weight = weights[one * KEYS + key];
                sums[one] += numbers * Vector::new(weight);
                totals[one] += weight;
            }
            key += sharing;
        }
    }
    let mut shared_sums = Shared::<[Vector<f32, N>]>::new_slice(KEYS);
    let mut shared_totals = Shared::<[f32]>::new_slice(KEYS);
    #[unroll]
    for one in 0..group {
        shared_sums[unit] = sums[one];
        shared_totals[unit] = totals[one];
        sync_cube();
        let row = (head * group + one) * parts + part;
        if unit < across {
            let mut sum = shared_sums[unit];
            let mut total = shared_totals[unit];
            for other in 1..sharing {
                sum += shared_sums[other * across + unit];
                total += shared_totals[other * across + unit];
            }
            mixed[row * across + unit] = sum;
            if unit == 0 {
                found[2 * row] = tops[one * KEYS];
                found[2 * row + 1] = total;
            }
        }
        sync_cube();
    }
}

/// One cube puts together what the parts of the keys have for a query.
#[cube(launch)]
fn put_together<F: Float>(
    mixed: &[f32],
    found: &[f32],
    out: &mut [F],
    rows: usize,
    parts: usize,
    width: usize,
    #[define(F)] _element: ElemType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let mut top = f32::new(NEVER);
    for part in 0..parts {
        top = max(top, found[2 * (row * parts + part)]);
    }
    let mut column = UNIT_POS as usize;
    while column < width {
        let mut sum = 0.0f32;
        let mut total = 0.0f32;
        for part in 0..parts {
            let from = row * parts + part;
            let share = (found[2 * from] - top).exp();
            sum += share * mixed[from * width + column];
            total += share * found[2 * from + 1];
        }
        out[row * width + column] = F::cast_from(sum / total);
        column += KEYS;
    }
}

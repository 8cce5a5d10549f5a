//! The kernels of [`GpuLinear`](super::GpuLinear), as operations of Burn's backends.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::{cast, into_contiguous};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use crate::gpu::steps::{ROWS, UNITS, add_up};
use crate::quantized::{BLOCK, PAIR};

/// Numbers that are read at a time.
const WIDTH: usize = 4;

/// What Burn's backends lack. Codes and scales are those of [`GpuLinear`](super::GpuLinear).
#[backend_extension(Cube)]
pub(crate) trait BlockOps: Backend {
    /// Products of vectors with the rows of a matrix.
    ///
    /// # Shapes
    /// - x: `[vectors, columns]`, whole pairs of blocks
    /// - returned: `[vectors, rows]`
    fn multiply_blocks(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scales: IntTensor<Self>,
        rows: usize,
        bits: usize,
    ) -> FloatTensor<Self>;

    /// As [`multiply_blocks`](Self::multiply_blocks), plus other numbers.
    ///
    /// # Shapes
    /// - more: `[rows]` (a bias), or `[vectors * rows]`
    fn multiply_blocks_add(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scales: IntTensor<Self>,
        more: FloatTensor<Self>,
        rows: usize,
        bits: usize,
    ) -> FloatTensor<Self>;

    /// `silu` of the products with one matrix times those with another of the same shape and bits.
    fn multiply_blocks_gated(
        x: FloatTensor<Self>,
        gate_codes: IntTensor<Self>,
        gate_scales: IntTensor<Self>,
        up_codes: IntTensor<Self>,
        up_scales: IntTensor<Self>,
        rows: usize,
        bits: usize,
    ) -> FloatTensor<Self>;

    /// Rows by their indices, as floats.
    ///
    /// # Shapes
    /// - returned: `[indices, columns]`, whole pairs of blocks
    fn write_out_blocks(
        indices: IntTensor<Self>,
        codes: IntTensor<Self>,
        scales: IntTensor<Self>,
        columns: usize,
        bits: usize,
    ) -> FloatTensor<Self>;
}

impl BlockOps for CubeBackend {
    fn multiply_blocks(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scales: IntTensor<Self>,
        rows: usize,
        bits: usize,
    ) -> FloatTensor<Self> {
        product(x, codes, scales, None, rows, bits)
    }

    fn multiply_blocks_add(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scales: IntTensor<Self>,
        more: FloatTensor<Self>,
        rows: usize,
        bits: usize,
    ) -> FloatTensor<Self> {
        product(x, codes, scales, Some(more), rows, bits)
    }

    fn multiply_blocks_gated(
        x: FloatTensor<Self>,
        gate_codes: IntTensor<Self>,
        gate_scales: IntTensor<Self>,
        up_codes: IntTensor<Self>,
        up_scales: IntTensor<Self>,
        rows: usize,
        bits: usize,
    ) -> FloatTensor<Self> {
        let x = into_contiguous(x);
        let (vectors, columns) = (x.meta.shape()[0], x.meta.shape()[1]);
        let out = empty(&x, Shape::from([vectors, rows]));
        let units = vectors * rows.div_ceil(ROWS) * UNITS;
        let dim = CubeDim::new_1d(UNITS as u32);
        multiply_gated::launch(
            &out.client,
            calculate_cube_count_elemwise(&out.client, units, dim),
            dim,
            WIDTH,
            x.into_buffer_arg(),
            gate_codes.into_buffer_arg(),
            gate_scales.into_buffer_arg(),
            up_codes.into_buffer_arg(),
            up_scales.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            vectors,
            rows,
            columns / PAIR,
            bits,
        );
        out
    }

    fn write_out_blocks(
        indices: IntTensor<Self>,
        codes: IntTensor<Self>,
        scales: IntTensor<Self>,
        columns: usize,
        bits: usize,
    ) -> FloatTensor<Self> {
        let indices = cast(into_contiguous(indices), DType::U32);
        let rows = indices.meta.shape()[0];
        let out = empty(&indices, Shape::from([rows, columns]));
        let in_row = columns * bits / 32 / WIDTH;
        let units = rows * in_row;
        let dim = CubeDim::new(&out.client, units);
        write_out::launch(
            &out.client,
            calculate_cube_count_elemwise(&out.client, units, dim),
            dim,
            WIDTH,
            indices.into_buffer_arg(),
            codes.into_buffer_arg(),
            scales.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows,
            in_row,
            bits,
        );
        out
    }
}

fn product(
    x: CubeTensor,
    codes: CubeTensor,
    scales: CubeTensor,
    more: Option<CubeTensor>,
    rows: usize,
    bits: usize,
) -> CubeTensor {
    let x = into_contiguous(x);
    let (vectors, columns) = (x.meta.shape()[0], x.meta.shape()[1]);
    let out = empty(&x, Shape::from([vectors, rows]));
    let units = vectors * rows.div_ceil(ROWS) * UNITS;
    let dim = CubeDim::new_1d(UNITS as u32);
    let add = more.is_some();
    let more = into_contiguous(more.unwrap_or_else(|| x.clone()));
    let count = more.meta.shape().num_elements();
    multiply::launch(
        &out.client,
        calculate_cube_count_elemwise(&out.client, units, dim),
        dim,
        WIDTH,
        x.into_buffer_arg(),
        codes.into_buffer_arg(),
        scales.into_buffer_arg(),
        more.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        vectors,
        rows,
        columns / PAIR,
        count,
        bits,
        add,
    );
    out
}

fn empty(like: &CubeTensor, shape: Shape) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, shape, DType::F32)
}

/// One cube makes [`ROWS`] numbers of one vector's product: its units each take some columns of all of
/// them, and add up what they have.
#[cube(launch)]
#[expect(
    clippy::too_many_arguments,
    reason = "a kernel's buffers and their sizes"
)]
fn multiply<N: Size>(
    x: &[Vector<f32, N>],
    codes: &[Vector<u32, N>],
    scales: &[u32],
    more: &[f32],
    out: &mut [f32],
    vectors: usize,
    rows: usize,
    pairs: usize,
    count: usize,
    #[comptime] bits: usize,
    #[comptime] add: bool,
) {
    let groups = rows.div_ceil(ROWS);
    let vector = CUBE_POS / groups;
    if vector >= vectors {
        terminate!();
    }
    let first = CUBE_POS % groups * ROWS;
    let unit = UNIT_POS as usize;

    let sums = sums_of_rows::<N>(x, codes, scales, vector, first, rows, pairs, bits);
    let mut shared = Shared::<[f32]>::new_slice(comptime!(UNITS * ROWS));
    add_up(&sums, &mut shared);
    if unit < ROWS && first + unit < rows {
        let place = vector * rows + first + unit;
        let mut number = shared[unit];
        if comptime!(add) {
            number += more[place % count];
        }
        out[place] = number;
    }
}

/// As [`multiply`], of two matrices: `silu` of the first one's products times the second one's.
#[cube(launch)]
#[expect(
    clippy::too_many_arguments,
    reason = "a kernel's buffers and their sizes"
)]
fn multiply_gated<N: Size>(
    x: &[Vector<f32, N>],
    gate_codes: &[Vector<u32, N>],
    gate_scales: &[u32],
    up_codes: &[Vector<u32, N>],
    up_scales: &[u32],
    out: &mut [f32],
    vectors: usize,
    rows: usize,
    pairs: usize,
    #[comptime] bits: usize,
) {
    let groups = rows.div_ceil(ROWS);
    let vector = CUBE_POS / groups;
    if vector >= vectors {
        terminate!();
    }
    let first = CUBE_POS % groups * ROWS;
    let unit = UNIT_POS as usize;
    let gates = sums_of_rows::<N>(x, gate_codes, gate_scales, vector, first, rows, pairs, bits);
    let ups = sums_of_rows::<N>(x, up_codes, up_scales, vector, first, rows, pairs, bits);
    let mut shared_gates = Shared::<[f32]>::new_slice(comptime!(UNITS * ROWS));
    let mut shared_ups = Shared::<[f32]>::new_slice(comptime!(UNITS * ROWS));
    add_up(&gates, &mut shared_gates);
    add_up(&ups, &mut shared_ups);
    if unit < ROWS && first + unit < rows {
        let gate = shared_gates[unit];
        out[vector * rows + first + unit] = gate / (1.0 + (-gate).exp()) * shared_ups[unit];
    }
}

/// A unit's share of a vector's products with [`ROWS`] rows.
#[cube]
#[expect(
    clippy::too_many_arguments,
    reason = "a kernel's buffers and their sizes"
)]
fn sums_of_rows<N: Size>(
    x: &[Vector<f32, N>],
    codes: &[Vector<u32, N>],
    scales: &[u32],
    vector: usize,
    first: usize,
    rows: usize,
    pairs: usize,
    #[comptime] bits: usize,
) -> Array<f32> {
    let mut sums = Array::<f32>::new(ROWS);
    #[unroll]
    for row in 0..ROWS {
        sums[row] = 0.0;
    }
    let per_pair = comptime!(PAIR * bits / 32 / WIDTH);
    let steps = pairs * per_pair;
    let mut step = UNIT_POS as usize;
    while step < steps {
        let pair = step / per_pair;
        let in_pair = step % per_pair;
        // Of the first and the second block; of 8 bits, all four words are of one block.
        let mut low = Array::<f32>::new(ROWS);
        let mut high = Array::<f32>::new(ROWS);
        let mut words = Array::<Vector<u32, N>>::new(ROWS);
        #[unroll]
        for row in 0..ROWS {
            // The last row again where there are no more: nothing is written for it.
            words[row] = codes[min(first + row, rows - 1) * steps + step];
            low[row] = 0.0;
            high[row] = 0.0;
        }
        let x_at = (vector * pairs + pair) * comptime!(PAIR / WIDTH) + in_pair * WIDTH;
        #[unroll]
        for word in 0..WIDTH {
            let x_low = x[x_at + word];
            #[unroll]
            for row in 0..ROWS {
                low[row] += dot::<N>(x_low, words[row].extract(word), 0usize, bits);
            }
            if comptime!(bits == 4) {
                let x_high = x[x_at + word + comptime!(BLOCK / WIDTH)];
                #[unroll]
                for row in 0..ROWS {
                    high[row] += dot::<N>(x_high, words[row].extract(word), 4usize, bits);
                }
            }
        }
        #[unroll]
        for row in 0..ROWS {
            let both = scales[min(first + row, rows - 1) * pairs + pair];
            if comptime!(bits == 4) {
                sums[row] += low[row] * scale(both, false) + high[row] * scale(both, true);
            } else {
                sums[row] += low[row] * scale(both, in_pair >= comptime!(per_pair / 2));
            }
        }
        step += UNITS;
    }
    sums
}

/// One unit writes out what four words hold, of which there are `in_row`.
#[cube(launch)]
fn write_out<N: Size>(
    indices: &[u32],
    codes: &[Vector<u32, N>],
    scales: &[u32],
    out: &mut [Vector<f32, N>],
    rows: usize,
    in_row: usize,
    #[comptime] bits: usize,
) {
    let row = ABSOLUTE_POS / in_row;
    if row >= rows {
        terminate!();
    }
    let step = ABSOLUTE_POS % in_row;
    let from = indices[row] as usize * in_row + step;
    let per_pair = comptime!(PAIR * bits / 32 / WIDTH);
    let in_pair = step % per_pair;
    let both = scales[from / per_pair];
    let words = codes[from];
    let at = ABSOLUTE_POS / per_pair * comptime!(PAIR / WIDTH) + in_pair * WIDTH;
    #[unroll]
    for word in 0..WIDTH {
        let fields = words.extract(word);
        if comptime!(bits == 4) {
            out[at + word] = weights::<N>(fields, 0usize, bits) * Vector::new(scale(both, false));
            out[at + word + comptime!(BLOCK / WIDTH)] =
                weights::<N>(fields, 4usize, bits) * Vector::new(scale(both, true));
        } else {
            let scale = scale(both, in_pair >= comptime!(per_pair / 2));
            out[at + word] = weights::<N>(fields, 0usize, bits) * Vector::new(scale);
        }
    }
}

/// The four weights in a word's bytes, of 4 bits in the lower or the upper half of each.
#[cube]
fn weights<N: Size>(
    word: u32,
    #[comptime] shift: usize,
    #[comptime] bits: usize,
) -> Vector<f32, N> {
    let mut weights = Vector::<f32, N>::empty();
    #[unroll]
    for byte in 0..WIDTH {
        let field = (word >> comptime!((8 * byte + shift) as u32)) & comptime!((1u32 << bits) - 1);
        weights.insert(byte, f32::cast_from(field));
    }
    weights - Vector::new(comptime!((1u32 << (bits - 1)) as f32))
}

#[cube]
fn dot<N: Size>(
    x: Vector<f32, N>,
    word: u32,
    #[comptime] shift: usize,
    #[comptime] bits: usize,
) -> f32 {
    x.dot(weights::<N>(word, shift, bits))
}

/// One of the two scales in a word: bf16 is the upper half of an `f32`.
#[cube]
fn scale(both: u32, second: bool) -> f32 {
    let bits = if second {
        both & 0xFFFF_0000u32
    } else {
        both << 16u32
    };
    f32::reinterpret(bits)
}

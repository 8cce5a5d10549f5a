//! The steps between the products of many vectors, as operations of Burn's backends: a gate, a rotation and
//! the shares of attention, each in one pass.
//!
//! Burn takes such a step as several operations, each of which reads and writes all numbers. Its feature `fusion`
//! makes one kernel of them, and takes longer to find that out for each token than the kernels run
//! (docs/hardware.md).

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::{element, empty, vector_size};

/// The most units that share a row of scores.
const MOST_UNITS: usize = 256;

/// The fewest.
const LEAST_UNITS: usize = 32;

/// Less than any score.
const LEAST: f32 = -3.0e38;

/// What Burn's backends take several operations for.
#[backend_extension(Cube)]
pub(crate) trait RowOps: Backend {
    /// `silu(gate) * up`, number by number; in place if nothing else holds the gate.
    ///
    /// # Shapes
    /// - gate, up: alike, and so is what is returned
    fn gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Rows rotated by halves.
    ///
    /// # Shapes
    /// - x: `[sequences, heads, tokens, width]`, returned alike
    /// - cos, sin: `[sequences or 1, 1, tokens, width / 2]`, in `f32`
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// The softmax of scores over the keys that a query sees, with sums in `f32` whatever the numbers are; 0 for
    /// the others. In place if nothing else holds the scores.
    ///
    /// - queries: how many there are, over and over, the last of the keys
    /// - causal: whether a query sees no key after its own
    ///
    /// # Shapes
    /// - scores: `[.., keys]`, returned alike
    fn share_out(scores: FloatTensor<Self>, queries: usize, causal: bool) -> FloatTensor<Self>;
}

impl RowOps for CubeBackend {
    fn gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let (gate, pitch) = in_rows(owned(gate));
        let (up, up_pitch) = in_rows(up);
        let (rows, columns) = rows_and_columns(&gate);
        let width = vector_size(&[columns, pitch, up_pitch]);
        let units = rows * columns / width;
        let dim = CubeDim::new_1d(256);
        gate_rows::launch(
            &gate.client,
            calculate_cube_count_elemwise(&gate.client, units, dim),
            dim,
            width,
            gate.clone().into_buffer_arg(),
            up.into_buffer_arg(),
            units,
            columns / width,
            pitch / width,
            up_pitch / width,
            element(gate.dtype),
        );
        gate
    }

    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let x = if x.meta.strides()[3] == 1 {
            x
        } else {
            into_contiguous(x)
        };
        let (cos, sin) = (into_contiguous(cos), into_contiguous(sin));
        let (shape, strides) = (x.meta.shape().clone(), x.meta.strides().clone());
        let half = shape[3] / 2;
        let units = shape.num_elements() / 2;
        let angles = cos.meta.shape()[0] * shape[2];
        let out = empty(&x, shape.clone(), x.dtype);
        let dim = CubeDim::new_1d(256);
        rotate_rows::launch(
            &out.client,
            calculate_cube_count_elemwise(&out.client, units, dim),
            dim,
            x.into_buffer_arg(),
            cos.into_buffer_arg(),
            sin.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            units,
            shape[1],
            shape[2],
            half,
            angles,
            strides[0],
            strides[1],
            strides[2],
            element(out.dtype),
        );
        out
    }

    fn share_out(scores: FloatTensor<Self>, queries: usize, causal: bool) -> FloatTensor<Self> {
        let (scores, pitch) = in_rows(owned(scores));
        let (rows, keys) = rows_and_columns(&scores);
        let units = keys.next_power_of_two().clamp(LEAST_UNITS, MOST_UNITS);
        let dim = CubeDim::new_1d(units as u32);
        share_out_rows::launch(
            &scores.client,
            calculate_cube_count_elemwise(&scores.client, rows * units, dim),
            dim,
            scores.clone().into_buffer_arg(),
            rows,
            keys,
            pitch,
            queries,
            units,
            causal,
            element(scores.dtype),
        );
        scores
    }
}

/// A tensor that may be written to.
fn owned(x: CubeTensor) -> CubeTensor {
    if x.can_mut() { x } else { x.copy() }
}

/// A tensor row after row, and the numbers from one row to the next: on CUDA rows have gaps between them, and to copy
/// them together takes as long as the step itself.
fn in_rows(x: CubeTensor) -> (CubeTensor, usize) {
    if let Some(pitch) = row_pitch(&x) {
        return (x, pitch);
    }
    let x = into_contiguous(x);
    let pitch = row_pitch(&x).unwrap_or_else(|| rows_and_columns(&x).1);
    (x, pitch)
}

/// The numbers from one row to the next; `None` where that is not the same all over.
fn row_pitch(x: &CubeTensor) -> Option<usize> {
    let mut sides = x.meta.shape().iter().zip(x.meta.strides().iter()).rev();
    let (&columns, &step) = sides.next()?;
    if columns > 1 && step != 1 {
        return None;
    }
    // What is alone on its side may claim to lie anywhere.
    let mut outer = sides.filter(|(side, _)| **side > 1);
    let Some((side, &pitch)) = outer.next() else {
        return Some(columns);
    };
    let mut expected = side * pitch;
    for (side, stride) in outer {
        if *stride != expected {
            return None;
        }
        expected *= side;
    }
    (pitch >= columns).then_some(pitch)
}

fn rows_and_columns(x: &CubeTensor) -> (usize, usize) {
    let shape = x.meta.shape();
    let columns = shape[shape.num_dims() - 1];
    (shape.num_elements() / columns.max(1), columns)
}

/// One unit takes some numbers that lie side by side.
///
/// - columns: of a row, in vectors, as the pitches are
#[cube(launch)]
fn gate_rows<F: Float, N: Size>(
    gate: &mut [Vector<F, N>],
    up: &[Vector<F, N>],
    units: usize,
    columns: usize,
    pitch: usize,
    up_pitch: usize,
    #[define(F)] _element: ElemType,
) {
    if ABSOLUTE_POS >= units {
        terminate!();
    }
    let row = ABSOLUTE_POS / columns;
    let column = ABSOLUTE_POS % columns;
    let place = row * pitch + column;
    let one = Vector::<f32, N>::new(1.0);
    let numbers = Vector::<f32, N>::cast_from(gate[place]);
    let gated = numbers / (one + (-numbers).exp());
    let up = Vector::<f32, N>::cast_from(up[row * up_pitch + column]);
    gate[place] = Vector::cast_from(gated * up);
}

/// One unit takes two numbers, which are rotated together.
///
/// - angles: rows of `cos` and `sin`
#[cube(launch)]
#[expect(
    clippy::too_many_arguments,
    reason = "a kernel's buffers and their sizes"
)]
fn rotate_rows<F: Float>(
    x: &[F],
    cos: &[f32],
    sin: &[f32],
    out: &mut [F],
    units: usize,
    heads: usize,
    tokens: usize,
    half: usize,
    angles: usize,
    sequence_stride: usize,
    head_stride: usize,
    token_stride: usize,
    #[define(F)] _element: ElemType,
) {
    if ABSOLUTE_POS >= units {
        terminate!();
    }
    let row = ABSOLUTE_POS / half;
    let column = ABSOLUTE_POS % half;
    let token = row % tokens;
    let head = row / tokens % heads;
    let sequence = row / (tokens * heads);
    let angle = (sequence * tokens + token) % angles * half + column;
    let from = sequence * sequence_stride + head * head_stride + token * token_stride + column;
    let to = row * 2 * half + column;
    let first = f32::cast_from(x[from]);
    let second = f32::cast_from(x[from + half]);
    out[to] = F::cast_from(first * cos[angle] - second * sin[angle]);
    out[to + half] = F::cast_from(second * cos[angle] + first * sin[angle]);
}

/// One cube takes a row of scores.
#[cube(launch)]
#[expect(
    clippy::too_many_arguments,
    reason = "a kernel's buffers and their sizes"
)]
fn share_out_rows<F: Float>(
    scores: &mut [F],
    rows: usize,
    keys: usize,
    pitch: usize,
    queries: usize,
    #[comptime] units: usize,
    #[comptime] causal: bool,
    #[define(F)] _element: ElemType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let start = row * pitch;
    let mut seen = keys;
    if comptime!(causal) {
        seen = keys - queries + row % queries + 1;
    }

    let mut shared = Shared::<[f32]>::new_slice(units);
    let mut top = f32::new(LEAST);
    let mut key = unit;
    while key < seen {
        top = max(top, f32::cast_from(scores[start + key]));
        key += units;
    }
    shared[unit] = top;
    #[unroll]
    for level in 0..comptime!(units.ilog2()) {
        sync_cube();
        let active = comptime!(units >> (level + 1));
        if unit < active {
            let other = shared[unit + active];
            shared[unit] = max(shared[unit], other);
        }
    }
    sync_cube();
    let top = shared[0];
    sync_cube();

    let mut sum = f32::new(0.0);
    let mut key = unit;
    while key < seen {
        sum += (f32::cast_from(scores[start + key]) - top).exp();
        key += units;
    }
    shared[unit] = sum;
    #[unroll]
    for level in 0..comptime!(units.ilog2()) {
        sync_cube();
        let active = comptime!(units >> (level + 1));
        if unit < active {
            let other = shared[unit + active];
            shared[unit] += other;
        }
    }
    sync_cube();
    let whole = 1.0 / shared[0];

    let mut key = unit;
    while key < keys {
        let mut share = f32::new(0.0);
        if key < seen {
            share = (f32::cast_from(scores[start + key]) - top).exp() * whole;
        }
        scores[start + key] = F::cast_from(share);
        key += units;
    }
}

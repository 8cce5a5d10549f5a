//! The steps of a layer but its attention, as operations of Burn's backends: normalisation, and products
//! of few vectors with what follows from them.

use burn::backend::ops::{ActivationOps as _, FloatTensorOps as _};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};
use burn::tensor::Shape;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::{WIDTH, element, empty, vector_size};

/// Units that share a row of numbers to normalise.
const NORM_UNITS: usize = 256;

/// Units that share the rows of a cube in a product.
pub(crate) const UNITS: usize = 64;

/// Rows of a cube in a product: a vector is read once for all of them.
pub(crate) const ROWS: usize = 4;

/// What Burn's backends take several operations for.
///
/// A matrix is `[columns, rows]`, as [`burn::nn::Linear`] has it. Where the numbers of a row lie side by side, as
/// in a checkpoint, it is multiplied by kernels of our own, and by Burn's otherwise.
#[backend_extension(Cube)]
pub(crate) trait StepOps: Backend {
    /// Root-mean-square normalisation, with sums in `f32` whatever the numbers are.
    ///
    /// # Shapes
    /// - x: `[vectors, columns]`, returned alike
    /// - weight: `[columns]`
    fn normalise(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;

    /// Products of few vectors with a matrix.
    ///
    /// # Shapes
    /// - x: `[vectors, columns]`
    /// - returned: `[vectors, rows]`
    fn multiply_dense(x: FloatTensor<Self>, matrix: FloatTensor<Self>) -> FloatTensor<Self>;

    /// As [`multiply_dense`](Self::multiply_dense), plus other numbers.
    ///
    /// # Shapes
    /// - more: `[rows]` (a bias), or `[vectors * rows]`
    fn multiply_dense_add(
        x: FloatTensor<Self>,
        matrix: FloatTensor<Self>,
        more: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// `silu(x * gate) * (x * up)`, number by number.
    fn multiply_dense_gated(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl StepOps for CubeBackend {
    fn normalise(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let x = into_contiguous(x);
        let (vectors, columns) = (x.meta.shape()[0], x.meta.shape()[1]);
        let out = empty(&x, x.meta.shape().clone(), x.dtype);
        let dim = CubeDim::new_1d(NORM_UNITS as u32);
        let width = vector_size(&[columns]);
        let elements = [element(x.dtype), element(weight.dtype)];
        normalise_rows::launch(
            &out.client,
            calculate_cube_count_elemwise(&out.client, vectors * NORM_UNITS, dim),
            dim,
            width,
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            vectors,
            columns,
            columns / width,
            epsilon as f32,
            elements,
        );
        out
    }

    fn multiply_dense(x: FloatTensor<Self>, matrix: FloatTensor<Self>) -> FloatTensor<Self> {
        match pitch(&x, &[&matrix]) {
            Some(pitch) => product(x, matrix.clone(), matrix, pitch, After::Nothing),
            None => Self::float_matmul(x, matrix),
        }
    }

    fn multiply_dense_add(
        x: FloatTensor<Self>,
        matrix: FloatTensor<Self>,
        more: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        match pitch(&x, &[&matrix]) {
            Some(pitch) if more.dtype == x.dtype => {
                product(x, matrix, into_contiguous(more), pitch, After::Add)
            }
            _ => {
                let rows = matrix.meta.shape()[1];
                let count = more.meta.shape().num_elements() / rows.max(1);
                let more = Self::float_reshape(more, Shape::from([count, rows]));
                Self::float_add(Self::float_matmul(x, matrix), more)
            }
        }
    }

    fn multiply_dense_gated(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        match pitch(&x, &[&gate, &up]) {
            Some(pitch) => product(x, gate, up, pitch, After::Gate),
            None => {
                let gate = Self::float_matmul(x.clone(), gate);
                let share = Self::sigmoid(gate.clone());
                let gate = Self::float_mul(gate, share);
                Self::float_mul(gate, Self::float_matmul(x, up))
            }
        }
    }
}

/// The distance between two rows of matrices that are all laid out alike, row by row, in numbers; `None` where
/// they are not, or the numbers are of different types.
fn pitch(x: &CubeTensor, matrices: &[&CubeTensor]) -> Option<usize> {
    let first = matrices.first()?.meta.strides()[1];
    let alike = |matrix: &&CubeTensor| {
        let strides = matrix.meta.strides();
        matrix.dtype == x.dtype && strides[0] == 1 && strides[1] == first
    };
    let columns = x.meta.shape()[1];
    let vectors = vector_size(&[columns, first]) == WIDTH;
    (vectors && matrices.iter().all(alike)).then_some(first)
}

/// What is done with a product before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum After {
    Nothing,
    /// The numbers of the second buffer are added, over and over.
    Add,
    /// It gates the product with the second matrix.
    Gate,
}

fn product(
    x: CubeTensor,
    matrix: CubeTensor,
    second: CubeTensor,
    pitch: usize,
    after: After,
) -> CubeTensor {
    let x = into_contiguous(x);
    let (vectors, columns) = (x.meta.shape()[0], x.meta.shape()[1]);
    let rows = matrix.meta.shape()[1];
    let out = empty(&x, Shape::from([vectors, rows]), x.dtype);
    let units = vectors * rows.div_ceil(ROWS) * UNITS;
    let dim = CubeDim::new_1d(UNITS as u32);
    let count = calculate_cube_count_elemwise(&out.client, units, dim);
    let more = second.meta.shape().num_elements();
    let element = element(x.dtype);
    match after {
        After::Gate => multiply_gated::launch(
            &out.client,
            count,
            dim,
            WIDTH,
            x.into_buffer_arg(),
            matrix.into_buffer_arg(),
            second.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            vectors,
            rows,
            columns / WIDTH,
            pitch / WIDTH,
            element,
        ),
        After::Nothing | After::Add => multiply::launch(
            &out.client,
            count,
            dim,
            WIDTH,
            x.into_buffer_arg(),
            matrix.into_buffer_arg(),
            second.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            vectors,
            rows,
            columns / WIDTH,
            pitch / WIDTH,
            more,
            after == After::Add,
            element,
        ),
    }
    out
}

/// One cube normalises a row.
#[cube(launch)]
fn normalise_rows<F: Float, W: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<W, N>],
    out: &mut [Vector<F, N>],
    rows: usize,
    columns: usize,
    steps: usize,
    epsilon: f32,
    #[define(F, W)] _elements: [ElemType; 2],
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let mut sum = Vector::<f32, N>::new(0.0);
    let mut step = unit;
    while step < steps {
        let numbers = Vector::<f32, N>::cast_from(x[row * steps + step]);
        sum += numbers * numbers;
        step += NORM_UNITS;
    }
    let mut shared = Shared::<[f32]>::new_slice(NORM_UNITS);
    shared[unit] = sum.dot(Vector::new(1.0));
    #[unroll]
    for level in 0..NORM_UNITS.ilog2() {
        sync_cube();
        let active = comptime!(NORM_UNITS >> (level + 1));
        if unit < active {
            let other = shared[unit + active];
            shared[unit] += other;
        }
    }
    sync_cube();
    let scale = 1.0 / (shared[0] / f32::cast_from(columns) + epsilon).sqrt();
    let mut step = unit;
    while step < steps {
        let numbers = Vector::<f32, N>::cast_from(x[row * steps + step]) * Vector::new(scale);
        let weight = Vector::<f32, N>::cast_from(weight[step]);
        // Rounded before it is weighed, as the published model does.
        let rounded = Vector::<f32, N>::cast_from(Vector::<F, N>::cast_from(numbers));
        out[row * steps + step] = Vector::cast_from(rounded * weight);
        step += NORM_UNITS;
    }
}

/// One cube makes [`ROWS`] numbers of one vector's product, each of its units some columns of all of them.
#[cube(launch)]
#[expect(
    clippy::too_many_arguments,
    reason = "a kernel's buffers and their sizes"
)]
fn multiply<F: Float, N: Size>(
    x: &[Vector<F, N>],
    matrix: &[Vector<F, N>],
    more: &[F],
    out: &mut [F],
    vectors: usize,
    rows: usize,
    steps: usize,
    pitch: usize,
    count: usize,
    #[comptime] add: bool,
    #[define(F)] _element: ElemType,
) {
    let groups = rows.div_ceil(ROWS);
    let vector = CUBE_POS / groups;
    if vector >= vectors {
        terminate!();
    }
    let first = CUBE_POS % groups * ROWS;
    let unit = UNIT_POS as usize;
    let sums = sums_of_rows::<F, N>(x, matrix, vector, first, rows, steps, pitch);
    let mut shared = Shared::<[f32]>::new_slice(comptime!(UNITS * ROWS));
    add_up(&sums, &mut shared);
    if unit < ROWS && first + unit < rows {
        let place = vector * rows + first + unit;
        let mut number = shared[unit];
        if comptime!(add) {
            number += f32::cast_from(more[place % count]);
        }
        out[place] = F::cast_from(number);
    }
}

/// As [`multiply`], of two matrices: `silu` of the first one's products times the second one's.
#[cube(launch)]
#[expect(
    clippy::too_many_arguments,
    reason = "a kernel's buffers and their sizes"
)]
fn multiply_gated<F: Float, N: Size>(
    x: &[Vector<F, N>],
    gate: &[Vector<F, N>],
    up: &[Vector<F, N>],
    out: &mut [F],
    vectors: usize,
    rows: usize,
    steps: usize,
    pitch: usize,
    #[define(F)] _element: ElemType,
) {
    let groups = rows.div_ceil(ROWS);
    let vector = CUBE_POS / groups;
    if vector >= vectors {
        terminate!();
    }
    let first = CUBE_POS % groups * ROWS;
    let unit = UNIT_POS as usize;
    let gates = sums_of_rows::<F, N>(x, gate, vector, first, rows, steps, pitch);
    let ups = sums_of_rows::<F, N>(x, up, vector, first, rows, steps, pitch);
    let mut shared_gates = Shared::<[f32]>::new_slice(comptime!(UNITS * ROWS));
    let mut shared_ups = Shared::<[f32]>::new_slice(comptime!(UNITS * ROWS));
    add_up(&gates, &mut shared_gates);
    add_up(&ups, &mut shared_ups);
    if unit < ROWS && first + unit < rows {
        let gate = shared_gates[unit];
        let number = gate / (1.0 + (-gate).exp()) * shared_ups[unit];
        out[vector * rows + first + unit] = F::cast_from(number);
    }
}

/// A unit's share of a vector's products with [`ROWS`] rows.
#[cube]
fn sums_of_rows<F: Float, N: Size>(
    x: &[Vector<F, N>],
    matrix: &[Vector<F, N>],
    vector: usize,
    first: usize,
    rows: usize,
    steps: usize,
    pitch: usize,
) -> Array<f32> {
    let mut sums = Array::<f32>::new(ROWS);
    #[unroll]
    for row in 0..ROWS {
        sums[row] = 0.0;
    }
    let mut step = UNIT_POS as usize;
    while step < steps {
        let numbers = Vector::<f32, N>::cast_from(x[vector * steps + step]);
        #[unroll]
        for row in 0..ROWS {
            // The last row again where there are no more: nothing is written for it.
            let weights = matrix[min(first + row, rows - 1) * pitch + step];
            sums[row] += numbers.dot(Vector::<f32, N>::cast_from(weights));
        }
        step += UNITS;
    }
    sums
}

/// Adds up the units' shares; the sums are then at the beginning of `shared`.
#[cube]
pub(crate) fn add_up(sums: &Array<f32>, shared: &mut Shared<[f32]>) {
    let unit = UNIT_POS as usize;
    #[unroll]
    for row in 0..ROWS {
        shared[unit * ROWS + row] = sums[row];
    }
    #[unroll]
    for level in 0..UNITS.ilog2() {
        sync_cube();
        let active = comptime!(UNITS >> (level + 1));
        if unit < active {
            #[unroll]
            for row in 0..ROWS {
                let other = shared[(unit + active) * ROWS + row];
                shared[unit * ROWS + row] += other;
            }
        }
    }
    sync_cube();
}

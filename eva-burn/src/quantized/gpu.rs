//! [`GpuLinear`]: a linear layer of integers with a scale for each block, on a GPU.
//!
//! A few vectors (decoding) are multiplied by a kernel that reads the integers as they are, since a
//! token costs what its weights take to be read. For many (a prompt, pictures) another kernel writes
//! the weights out as floats, some rows at a time, for Burn's own product. Activations are `f32`.

use std::sync::Arc;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, DispatchDevice, backend_extension};
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Shape, Tensor, TensorData};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::matrix::{Bits, QuantizedMatrix};
use super::{BLOCK, GPU_TILE_BYTES, PAIR};

/// Up to this many vectors the integers are multiplied as they are: each vector reads them once more,
/// where writing them out moves some eight bytes for each.
const FEW: usize = 8;

/// Units that share the rows of a cube.
const UNITS: usize = 64;

/// Rows of a cube: a vector is read once for all of them.
const ROWS: usize = 4;

/// Numbers that are read at a time.
const WIDTH: usize = 4;

/// Whether a device is one that the kernels are written for.
pub(crate) fn is_gpu(device: &Device) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Cube(_))
}

/// A linear layer whose matrix lies on the GPU. Clones share it: nothing trains it.
#[derive(Module, Debug)]
pub(crate) struct GpuLinear {
    #[module(skip)]
    matrix: Arc<Blocks>,
    bias: Option<Param<Tensor<1>>>,
}

/// A matrix as [`QuantizedMatrix`] keeps it, on the GPU.
#[derive(Debug)]
struct Blocks {
    columns: usize,
    /// `[rows, words]` of four bytes; in 8 bits too, a weight is a number above the least that there is.
    codes: Tensor<2, Int>,
    /// `[rows, pairs of blocks]`: the scale of the first below, that of the second above.
    scales: Tensor<2, Int>,
}

impl GpuLinear {
    /// A matrix brought to the device.
    pub(crate) fn new(
        matrix: &QuantizedMatrix,
        bias: Option<Param<Tensor<1>>>,
        device: &Device,
    ) -> Self {
        let (rows, columns) = (matrix.rows(), matrix.columns());
        let least = match matrix.bits() {
            Bits::Eight => 0x8080_8080,
            Bits::Four => 0,
        };
        let codes = matrix.codes().as_chunks::<4>().0;
        let codes: Vec<u32> = codes
            .iter()
            .map(|word| u32::from_le_bytes(*word) ^ least)
            .collect();
        let scales = matrix.scales().as_chunks::<2>().0;
        let scales: Vec<u32> = scales
            .iter()
            .map(|[first, second]| u32::from(*first) | u32::from(*second) << 16)
            .collect();
        let upload = |numbers: Vec<u32>| {
            let shape = [rows, numbers.len() / rows.max(1)];
            let data = TensorData::new(numbers, shape);
            Tensor::<2, Int>::from_data(data, (device, DType::U32))
        };
        let matrix = Arc::new(Blocks {
            columns,
            codes: upload(codes),
            scales: upload(scales),
        });
        Self { matrix, bias }
    }

    /// # Shapes
    /// - x: `[.., columns]`
    /// - returned: `[.., rows]`
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut shape = x.dims();
        assert_eq!(shape[D - 1], self.matrix.columns, "numbers of a vector");
        let vectors = shape.iter().product::<usize>() / self.matrix.columns.max(1);
        let x = x.reshape([vectors, self.matrix.columns]);
        let product = if vectors <= FEW {
            self.multiply(x)
        } else {
            self.multiply_many(&x)
        };
        shape[D - 1] = product.dims()[1];
        let product = product.reshape(shape);
        match &self.bias {
            Some(bias) => product + bias.val().unsqueeze(),
            None => product,
        }
    }

    /// Rows by their index, as floats.
    ///
    /// # Shapes
    /// - returned: `[indices, columns]`
    pub(crate) fn rows(&self, indices: Tensor<1, Int>) -> Tensor<2> {
        let codes = self.matrix.codes.clone().select(0, indices.clone());
        self.written_out(codes, self.matrix.scales.clone().select(0, indices))
    }

    fn multiply(&self, x: Tensor<2>) -> Tensor<2> {
        // Weights are padded with zeros to whole pairs of blocks.
        let [vectors, columns] = x.dims();
        let x = match columns.next_multiple_of(PAIR) - columns {
            0 => x,
            missing => {
                let zeros = Tensor::zeros([vectors, missing], &x.device());
                Tensor::cat(vec![x, zeros], 1)
            }
        };
        Tensor::from_dispatch(Dispatch::multiply_blocks(
            x.into_dispatch(),
            self.matrix.codes.clone().into_dispatch(),
            self.matrix.scales.clone().into_dispatch(),
        ))
    }

    fn multiply_many(&self, x: &Tensor<2>) -> Tensor<2> {
        let (codes, scales) = (self.matrix.codes.clone(), self.matrix.scales.clone());
        let rows = codes.dims()[0];
        let tile = (GPU_TILE_BYTES / (size_of::<f32>() * self.matrix.columns).max(1)).max(1);
        let products = (0..rows)
            .step_by(tile)
            .map(|first| {
                let part = first..rows.min(first + tile);
                let codes = codes.clone().slice([part.clone()]);
                let weights = self.written_out(codes, scales.clone().slice([part]));
                x.clone().matmul(weights.transpose())
            })
            .collect();
        Tensor::cat(products, 1)
    }

    fn written_out(&self, codes: Tensor<2, Int>, scales: Tensor<2, Int>) -> Tensor<2> {
        let (codes, scales) = (codes.into_dispatch(), scales.into_dispatch());
        let weights = Tensor::<2>::from_dispatch(Dispatch::write_out_blocks(codes, scales));
        let [rows, padded] = weights.dims();
        if padded == self.matrix.columns {
            return weights;
        }
        weights.slice([0..rows, 0..self.matrix.columns])
    }
}

/// What Burn's backends lack.
#[backend_extension(Cube, Fusion)]
pub(crate) trait BlockOps: Backend {
    /// Products of vectors with the rows of a matrix.
    ///
    /// # Shapes
    /// - x: `[vectors, columns]`, whole pairs of blocks
    /// - codes, scales: as in `Blocks`
    /// - returned: `[vectors, rows]`
    #[fusion(dtype = DType::F32, shape = product_shape(x, codes))]
    fn multiply_blocks(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scales: IntTensor<Self>,
    ) -> FloatTensor<Self>;

    /// The numbers that codes stand for.
    ///
    /// # Shapes
    /// - returned: `[rows, columns]`, whole pairs of blocks
    #[fusion(dtype = DType::F32, shape = written_shape(scales))]
    fn write_out_blocks(codes: IntTensor<Self>, scales: IntTensor<Self>) -> FloatTensor<Self>;
}

fn product_shape(x: &Shape, codes: &Shape) -> Shape {
    Shape::from([x[0], codes[0]])
}

fn written_shape(scales: &Shape) -> Shape {
    Shape::from([scales[0], scales[1] * PAIR])
}

impl BlockOps for CubeBackend {
    fn multiply_blocks(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scales: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let [x, codes, scales] = [x, codes, scales].map(into_contiguous);
        let shape = product_shape(x.meta.shape(), codes.meta.shape());
        let (vectors, rows) = (shape[0], shape[1]);
        let (pairs, bits) = (scales.meta.shape()[1], bits(&codes, &scales));
        let out = empty(&x, shape);
        let units = vectors * rows.div_ceil(ROWS) * UNITS;
        let dim = CubeDim::new_1d(UNITS as u32);
        multiply::launch(
            &out.client,
            calculate_cube_count_elemwise(&out.client, units, dim),
            dim,
            WIDTH,
            x.into_buffer_arg(),
            codes.into_buffer_arg(),
            scales.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            vectors,
            rows,
            pairs,
            bits,
        );
        out
    }

    fn write_out_blocks(codes: IntTensor<Self>, scales: IntTensor<Self>) -> FloatTensor<Self> {
        let [codes, scales] = [codes, scales].map(into_contiguous);
        let shape = written_shape(scales.meta.shape());
        let bits = bits(&codes, &scales);
        let out = empty(&codes, shape);
        let steps = codes.meta.num_elements() / WIDTH;
        let dim = CubeDim::new(&out.client, steps);
        write_out::launch(
            &out.client,
            calculate_cube_count_elemwise(&out.client, steps, dim),
            dim,
            WIDTH,
            codes.into_buffer_arg(),
            scales.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            steps,
            bits,
        );
        out
    }
}

/// Bits of a weight.
fn bits(codes: &CubeTensor, scales: &CubeTensor) -> usize {
    codes.meta.shape()[1] * 32 / (scales.meta.shape()[1] * PAIR).max(1)
}

fn empty(like: &CubeTensor, shape: Shape) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, shape, DType::F32)
}

/// One cube makes [`ROWS`] numbers of one vector's product: its units each take some columns of all of
/// them, and add up what they have.
#[cube(launch)]
fn multiply<N: Size>(
    x: &[Vector<f32, N>],
    codes: &[Vector<u32, N>],
    scales: &[u32],
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

    let mut sums = Array::<f32>::new(ROWS);
    #[unroll]
    for row in 0..ROWS {
        sums[row] = 0.0;
    }
    let per_pair = comptime!(PAIR * bits / 32 / WIDTH);
    let steps = pairs * per_pair;
    let mut step = unit;
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

    let mut shared = Shared::<[f32]>::new_slice(comptime!(UNITS * ROWS));
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
    if unit < ROWS && first + unit < rows {
        out[vector * rows + first + unit] = shared[unit];
    }
}

/// One unit writes out what four words hold.
#[cube(launch)]
fn write_out<N: Size>(
    codes: &[Vector<u32, N>],
    scales: &[u32],
    out: &mut [Vector<f32, N>],
    steps: usize,
    #[comptime] bits: usize,
) {
    if ABSOLUTE_POS >= steps {
        terminate!();
    }
    let per_pair = comptime!(PAIR * bits / 32 / WIDTH);
    let (pair, in_pair) = (ABSOLUTE_POS / per_pair, ABSOLUTE_POS % per_pair);
    let both = scales[pair];
    let words = codes[ABSOLUTE_POS];
    let at = pair * comptime!(PAIR / WIDTH) + in_pair * WIDTH;
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

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::device::DeviceChoice;
    use burn::tensor::Distribution;

    /// On the processor, whatever the device.
    fn numbers(x: Tensor<2>) -> Vec<f32> {
        x.try_into_vec_as().unwrap()
    }

    #[test]
    fn products_and_rows_are_those_of_the_weights_on_the_processor() {
        let (cpu, gpu) = (Device::flex(), DeviceChoice::Wgpu.open().unwrap());
        let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &cpu);
        for (rows, columns) in [(1, 1), (6, 64), (70, 200), (300, 1088)] {
            for bits in [Bits::Eight, Bits::Four] {
                let mut matrix = QuantizedMatrix::with_capacity(bits, rows, columns);
                matrix.push_rows(&numbers(random([rows, columns])));
                let mut plain = vec![0.0; rows * columns];
                matrix.dequantize(0, &mut plain);
                let bias = random([1, rows]);
                let to_gpu = |x: Tensor<2>| Tensor::<2>::from_data(x.into_data(), &gpu);
                let gpu_bias = Param::from_tensor(to_gpu(bias.clone()).squeeze_dim::<1>(0));
                let layer = GpuLinear::new(&matrix, Some(gpu_bias), &gpu);

                let order = [rows as i32 - 1, 0];
                let index = Tensor::from_data(TensorData::new(order.to_vec(), [2]), &gpu);
                let picked = numbers(layer.rows(index));
                let expected = [&plain[(rows - 1) * columns..], &plain[..columns]].concat();
                assert_eq!(picked, expected, "{matrix:?}");

                let weights = TensorData::new(plain, [rows, columns]);
                let weights = Tensor::<2>::from_data(weights, &cpu).transpose();
                for vectors in [1, 3, FEW, FEW + 1] {
                    let x = random([vectors, columns]);
                    let expected = numbers(x.clone().matmul(weights.clone()) + bias.clone());
                    let found = layer
                        .forward(to_gpu(x).unsqueeze::<3>())
                        .squeeze_dim::<2>(0);
                    let found = numbers(found);
                    assert_eq!(found.len(), expected.len());
                    let size = expected.iter().fold(1e-6f32, |most, x| most.max(x.abs()));
                    for (a, b) in found.iter().zip(&expected) {
                        assert!(
                            (a - b).abs() <= 1e-5 * size,
                            "{matrix:?}, {vectors}: {a} for {b}"
                        );
                    }
                }
            }
        }
    }
}

//! [`GpuLinear`]: a linear layer of integers with a scale for each block, on a GPU.
//!
//! A few vectors (decoding) are multiplied by a kernel that reads the integers as they are, since a
//! token costs what its weights take to be read. For many (a prompt, pictures) another kernel writes
//! the weights out as floats, some rows at a time, for Burn's own product. Activations are `f32`.

mod kernels;

use burn::backend::{Dispatch, DispatchDevice};
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::matrix::{Bits, QuantizedMatrix};
use super::{GPU_TILE_BYTES, PAIR};
use kernels::BlockOps as _;

/// Up to this many vectors the integers are multiplied as they are: each vector reads them once more,
/// where writing them out moves some eight bytes for each.
const FEW: usize = 8;

/// Whether a device is one that the kernels are written for.
pub(crate) fn is_gpu(device: &Device) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Cube(_))
}

/// A linear layer whose matrix lies on the GPU.
#[derive(Module, Debug)]
pub(crate) struct GpuLinear {
    /// Words of four bytes, row by row as [`QuantizedMatrix`] keeps them; but in 8 bits as in 4, a weight
    /// is a number above the least that there is. Without a second dimension, for which CUDA would pad
    /// the rows, and copy all of them for each product.
    codes: Tensor<1, Int>,
    /// A word for each pair of blocks: the scale of the first below, that of the second above.
    scales: Tensor<1, Int>,
    #[module(skip)]
    rows: usize,
    #[module(skip)]
    columns: usize,
    #[module(skip)]
    bits: Bits,
    bias: Option<Param<Tensor<1>>>,
}

impl GpuLinear {
    /// A matrix brought to the device.
    pub(crate) fn new(
        matrix: QuantizedMatrix,
        bias: Option<Param<Tensor<1>>>,
        device: &Device,
    ) -> Self {
        let (bits, rows, columns) = (matrix.bits(), matrix.rows(), matrix.columns());
        let (mut codes, scales) = matrix.into_parts();
        if bits == Bits::Eight {
            for code in &mut codes {
                *code ^= 0x80;
            }
        }
        // Both have whole words in a row.
        let scales: Vec<u8> = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
        let upload = |bytes: Vec<u8>| {
            let words = bytes.len() / size_of::<u32>();
            let data = TensorData::from_bytes_vec(bytes, [words], DType::U32);
            Tensor::<1, Int>::from_data(data, (device, DType::U32))
        };
        Self {
            codes: upload(codes),
            scales: upload(scales),
            rows,
            columns,
            bits,
            bias,
        }
    }

    /// # Shapes
    /// - x: `[.., columns]`
    /// - returned: `[.., rows]`
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut shape = x.dims();
        assert_eq!(shape[D - 1], self.columns, "numbers of a vector");
        let vectors = shape.iter().product::<usize>() / self.columns.max(1);
        let x = x.reshape([vectors, self.columns]);
        let product = if vectors <= FEW {
            self.multiply(x)
        } else {
            self.multiply_many(&x, GPU_TILE_BYTES)
        };
        shape[D - 1] = self.rows;
        let product = product.reshape(shape);
        match &self.bias {
            Some(bias) => product + bias.val().unsqueeze(),
            None => product,
        }
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
            self.codes.clone().into_dispatch(),
            self.scales.clone().into_dispatch(),
            self.rows,
            self.bits.number(),
        ))
    }

    /// With the weights written out as floats, so many bytes of them at a time.
    fn multiply_many(&self, x: &Tensor<2>, tile: usize) -> Tensor<2> {
        let tile = (tile / (size_of::<f32>() * self.columns).max(1)).max(1);
        let products = (0..self.rows)
            .step_by(tile)
            .map(|first| {
                let rows = first as i64..self.rows.min(first + tile) as i64;
                let weights = self.rows(Tensor::arange(rows, &x.device()));
                x.clone().matmul(weights.transpose())
            })
            .collect();
        Tensor::cat(products, 1)
    }

    /// Rows by their index, as floats.
    ///
    /// # Shapes
    /// - returned: `[indices, columns]`
    pub(crate) fn rows(&self, indices: Tensor<1, Int>) -> Tensor<2> {
        let padded = self.columns.next_multiple_of(PAIR);
        let weights = Tensor::<2>::from_dispatch(Dispatch::write_out_blocks(
            indices.into_dispatch(),
            self.codes.clone().into_dispatch(),
            self.scales.clone().into_dispatch(),
            padded,
            self.bits.number(),
        ));
        let rows = weights.dims()[0];
        if padded == self.columns {
            return weights;
        }
        weights.slice([0..rows, 0..self.columns])
    }
}

#[cfg(all(test, any(feature = "wgpu", feature = "cuda")))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::device::DeviceChoice;
    use burn::tensor::Distribution;

    /// As in the tests of whole models: `EVA_DEVICE`, or what is compiled in.
    fn gpu() -> Device {
        let choice = match std::env::var("EVA_DEVICE") {
            Ok(name) => name.parse().unwrap(),
            Err(_) if cfg!(feature = "wgpu") => DeviceChoice::Wgpu,
            Err(_) => DeviceChoice::Cuda(0),
        };
        choice.open().unwrap()
    }

    fn numbers(x: Tensor<2>) -> Vec<f32> {
        x.try_into_vec_as().unwrap()
    }

    fn normal(shape: [usize; 2]) -> Tensor<2> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn to(device: &Device, x: Tensor<2>) -> Tensor<2> {
        Tensor::from_data(x.into_data(), device)
    }

    /// Random weights on the GPU, and as the processor writes them out.
    fn random(bits: Bits, rows: usize, columns: usize, gpu: &Device) -> (GpuLinear, Vec<f32>) {
        let mut matrix = QuantizedMatrix::with_capacity(bits, rows, columns);
        matrix.push_rows(&numbers(normal([rows, columns])));
        let mut plain = vec![0.0; rows * columns];
        matrix.dequantize(0, &mut plain);
        (GpuLinear::new(matrix, None, gpu), plain)
    }

    fn assert_close(found: &[f32], expected: &[f32], of: &str) {
        assert_eq!(found.len(), expected.len());
        let size = expected.iter().fold(1e-6f32, |most, x| most.max(x.abs()));
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= 1e-5 * size, "{of}: {a} for {b}");
        }
    }

    #[test]
    fn products_and_rows_are_those_of_the_weights_on_the_processor() {
        let (cpu, gpu) = (Device::flex(), gpu());
        for (rows, columns) in [(1, 1), (6, 64), (70, 200), (300, 1088)] {
            for bits in [Bits::Eight, Bits::Four] {
                let (mut layer, plain) = random(bits, rows, columns, &gpu);
                let name = format!("{} {rows} x {columns}", bits.name());
                let bias = normal([1, rows]);
                let on_gpu = to(&gpu, bias.clone()).squeeze_dim::<1>(0);
                layer.bias = Some(Param::from_tensor(on_gpu));

                let order = [rows as i32 - 1, 0];
                let index = Tensor::from_data(TensorData::new(order.to_vec(), [2]), &gpu);
                let expected = [&plain[(rows - 1) * columns..], &plain[..columns]].concat();
                assert_eq!(numbers(layer.rows(index)), expected, "{name}");

                let weights = TensorData::new(plain, [rows, columns]);
                let weights = Tensor::<2>::from_data(weights, &cpu).transpose();
                for vectors in [1, 3, FEW, FEW + 1] {
                    let x = normal([vectors, columns]);
                    let expected = x.clone().matmul(weights.clone()) + bias.clone();
                    let found = layer.forward(to(&gpu, x).unsqueeze::<3>());
                    let found = numbers(found.squeeze_dim::<2>(0));
                    assert_close(&found, &numbers(expected), &name);
                }
            }
        }
    }

    #[test]
    fn it_does_not_matter_how_much_is_written_out_at_a_time() {
        let gpu = gpu();
        let (layer, plain) = random(Bits::Four, 53, 192, &gpu);
        let x = normal([20, 192]);
        let weights = Tensor::<2>::from_data(TensorData::new(plain, [53, 192]), &x.device());
        let expected = numbers(x.clone().matmul(weights.transpose()));
        // All; some rows and a rest; a row at least.
        for tile in [GPU_TILE_BYTES, 4 * 192 * 24, 1] {
            let found = numbers(layer.multiply_many(&to(&gpu, x.clone()), tile));
            assert_close(&found, &expected, &format!("{tile} bytes"));
        }
    }

    #[test]
    fn more_rows_than_a_grid_has_in_one_direction_are_multiplied() {
        let gpu = gpu();
        let (layer, plain) = random(Bits::Eight, 40_000, 64, &gpu);
        let x = normal([FEW, 64]);
        let weights = Tensor::<2>::from_data(TensorData::new(plain, [40_000, 64]), &x.device());
        let expected = numbers(x.clone().matmul(weights.transpose()));
        assert_close(&numbers(layer.forward(to(&gpu, x))), &expected, "products");
    }
}

//! [`GpuLinear`]: a linear layer of integers with a scale for each block, on a GPU.
//!
//! A few vectors (decoding) are multiplied by a kernel that reads the integers as they are, since a
//! token costs what its weights take to be read. For many (a prompt, pictures) another kernel writes
//! the weights out as floats, some rows at a time, for Burn's own product. Activations are `f32`.

mod kernels;

use burn::backend::Dispatch;
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::matrix::{Bits, QuantizedMatrix};
use super::{GPU_TILE_BYTES, PAIR};
use crate::gpu::FEW;
use crate::weights::to_stay;
use kernels::BlockOps as _;

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
            to_stay(data, device, |data| {
                Tensor::<1, Int>::from_data(data, (device, DType::U32))
            })
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
        shape[D - 1] = self.rows;
        let x = x.reshape([vectors, self.columns]);
        let bias = self.bias.as_ref().map(Param::val);
        if vectors <= FEW {
            return self.multiply(x, bias).reshape(shape);
        }
        let product = self.multiply_many(&x, GPU_TILE_BYTES).reshape(shape);
        match bias {
            Some(bias) => product + bias.unsqueeze(),
            None => product,
        }
    }

    /// What it makes of few vectors, added to `to`; `None` where there are more of them, or there is a bias.
    ///
    /// # Shapes
    /// - x: `[.., columns]`
    /// - to: `[.., rows]`, returned alike
    pub(crate) fn add_to<const D: usize>(
        &self,
        to: &Tensor<D>,
        x: &Tensor<D>,
    ) -> Option<Tensor<D>> {
        let shape = to.dims();
        let vectors = shape[..D - 1].iter().product::<usize>();
        if vectors > FEW || self.bias.is_some() {
            return None;
        }
        let x = x.clone().reshape([vectors, self.columns]);
        let to = to.clone().reshape([vectors * self.rows]);
        Some(self.multiply(x, Some(to)).reshape(shape))
    }

    /// `silu(gate(x)) * up(x)` of few vectors; `None` where there are more of them, or there is a bias.
    ///
    /// # Shapes
    /// - x: `[.., columns]`
    /// - returned: `[.., rows]`
    pub(crate) fn gated<const D: usize>(
        gate: &Self,
        up: &Self,
        x: &Tensor<D>,
    ) -> Option<Tensor<D>> {
        let mut shape = x.dims();
        let vectors = shape[..D - 1].iter().product::<usize>();
        let alike = |layer: &Self| (layer.rows, layer.columns, layer.bits);
        let biased = gate.bias.is_some() || up.bias.is_some();
        if vectors > FEW || biased || alike(gate) != alike(up) {
            return None;
        }
        shape[D - 1] = gate.rows;
        let x = gate.padded(x.clone().reshape([vectors, gate.columns]));
        let codes_and_scales = |layer: &Self| {
            let (codes, scales) = (layer.codes.clone(), layer.scales.clone());
            (codes.into_dispatch(), scales.into_dispatch())
        };
        let (gate_codes, gate_scales) = codes_and_scales(gate);
        let (up_codes, up_scales) = codes_and_scales(up);
        let gated = Tensor::<2>::from_dispatch(Dispatch::multiply_blocks_gated(
            x.into_dispatch(),
            gate_codes,
            gate_scales,
            up_codes,
            up_scales,
            gate.rows,
            gate.bits.number(),
        ));
        Some(gated.reshape(shape))
    }

    /// Vectors with zeros after them, as the weights have: whole pairs of blocks.
    fn padded(&self, x: Tensor<2>) -> Tensor<2> {
        let [vectors, columns] = x.dims();
        match columns.next_multiple_of(PAIR) - columns {
            0 => x,
            missing => {
                let zeros = Tensor::zeros([vectors, missing], &x.device());
                Tensor::cat(vec![x, zeros], 1)
            }
        }
    }

    /// Products of few vectors, plus other numbers where there are some: as many as rows, or as products.
    fn multiply(&self, x: Tensor<2>, more: Option<Tensor<1>>) -> Tensor<2> {
        let x = self.padded(x).into_dispatch();
        let (codes, scales) = (self.codes.clone(), self.scales.clone());
        let (codes, scales) = (codes.into_dispatch(), scales.into_dispatch());
        let (rows, bits) = (self.rows, self.bits.number());
        Tensor::from_dispatch(match more {
            Some(more) => {
                Dispatch::multiply_blocks_add(x, codes, scales, more.into_dispatch(), rows, bits)
            }
            None => Dispatch::multiply_blocks(x, codes, scales, rows, bits),
        })
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
    use crate::gpu::tests::{EXACT, burns_product, gpu, normal, to};

    fn numbers(x: Tensor<2>) -> Vec<f32> {
        x.try_into_vec_as().unwrap()
    }

    /// Random weights on the GPU, and as the processor writes them out.
    fn random(bits: Bits, rows: usize, columns: usize, gpu: &Device) -> (GpuLinear, Vec<f32>) {
        let mut matrix = QuantizedMatrix::with_capacity(bits, rows, columns);
        matrix.push_rows(&numbers(normal([rows, columns])));
        let mut plain = vec![0.0; rows * columns];
        matrix.dequantize(0, matrix.columns(), &mut plain);
        (GpuLinear::new(matrix, None, gpu), plain)
    }

    fn assert_close(room: f32, found: &[f32], expected: &[f32], of: &str) {
        assert_eq!(found.len(), expected.len());
        let size = expected.iter().fold(1e-6f32, |most, x| most.max(x.abs()));
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= room * size, "{of}: {a} for {b}");
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
                let on_gpu = to(&gpu, &bias).squeeze_dim::<1>(0);
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
                    let found = layer.forward(to(&gpu, &x).unsqueeze::<3>());
                    let found = numbers(found.squeeze_dim::<2>(0));
                    let room = if vectors <= FEW {
                        EXACT
                    } else {
                        burns_product()
                    };
                    assert_close(room, &found, &numbers(expected), &name);
                }
            }
        }
    }

    #[test]
    fn products_of_few_vectors_are_added_to_what_is_there() {
        let gpu = gpu();
        let (mut layer, plain) = random(Bits::Eight, 70, 200, &gpu);
        let (x, there) = (normal([2, 200]), normal([2, 70]));
        let weights = Tensor::<2>::from_data(TensorData::new(plain, [70, 200]), &x.device());
        let expected = numbers(there.clone() + x.clone().matmul(weights.transpose()));
        let sum = layer.add_to(&to(&gpu, &there), &to(&gpu, &x)).unwrap();
        assert_close(EXACT, &numbers(sum), &expected, "sum");
        let many = |columns| Tensor::<2>::zeros([FEW + 1, columns], &gpu);
        assert!(layer.add_to(&many(70), &many(200)).is_none());
        assert!(GpuLinear::gated(&layer, &layer, &many(200)).is_none());
        layer.bias = Some(Param::from_tensor(Tensor::zeros([70], &gpu)));
        let (to, x) = (to(&gpu, &there), to(&gpu, &x));
        assert!(layer.add_to(&to, &x).is_none());
    }

    #[test]
    fn one_matrix_gates_another() {
        let gpu = gpu();
        for bits in [Bits::Eight, Bits::Four] {
            let layers = [(); 2].map(|()| random(bits, 70, 200, &gpu));
            let x = normal([3, 200]);
            let [gate, up] = layers.each_ref().map(|(_, plain)| {
                let weights = TensorData::new(plain.clone(), [70, 200]);
                let weights = Tensor::<2>::from_data(weights, &x.device());
                x.clone().matmul(weights.transpose())
            });
            let expected = numbers(burn::tensor::activation::silu(gate) * up);
            let [(gate, _), (up, _)] = &layers;
            let gated = GpuLinear::gated(gate, up, &to(&gpu, &x)).unwrap();
            assert_close(EXACT, &numbers(gated), &expected, bits.name());
        }
        let [(one, _), (other, _)] = [70, 71].map(|rows| random(Bits::Four, rows, 200, &gpu));
        assert!(GpuLinear::gated(&one, &other, &to(&gpu, &normal([1, 200]))).is_none());
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
            let found = numbers(layer.multiply_many(&to(&gpu, &x), tile));
            assert_close(burns_product(), &found, &expected, &format!("{tile} bytes"));
        }
    }

    #[test]
    fn more_rows_than_a_grid_has_in_one_direction_are_multiplied() {
        let gpu = gpu();
        let (layer, plain) = random(Bits::Eight, 40_000, 64, &gpu);
        let x = normal([FEW, 64]);
        let weights = Tensor::<2>::from_data(TensorData::new(plain, [40_000, 64]), &x.device());
        let expected = numbers(x.clone().matmul(weights.transpose()));
        assert_close(
            EXACT,
            &numbers(layer.forward(to(&gpu, &x))),
            &expected,
            "products",
        );
    }
}

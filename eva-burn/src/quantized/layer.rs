//! [`QuantizedLinear`]: a linear layer of quantized weights.

use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};

use super::activations::Activations;
use super::kernel;
use super::matrix::{Bits, QuantizedMatrix};

/// Up to this many vectors the integers are multiplied as they are; above, writing the weights out
/// costs less than it saves (measured: see docs/hardware.md).
const FEW: usize = 12;

/// Products of a weight and a number that take less time than waking another core.
const ALONE: usize = 1 << 20;

/// Pieces of a matrix for each core, so that one which wakes late leaves its work to the others.
const PIECES: usize = 4;

/// Bytes of weights written out at a time: they stay in the cache until they are multiplied.
pub(crate) const TILE_BYTES: usize = 8 << 20;

/// A linear layer on the processor. The matrix is shared between clones: nothing trains it.
#[derive(Module, Debug)]
pub(crate) struct QuantizedLinear {
    #[module(skip)]
    matrix: Arc<QuantizedMatrix>,
    bias: Option<Param<Tensor<1>>>,
}

impl QuantizedLinear {
    pub(crate) fn new(matrix: QuantizedMatrix, bias: Option<Param<Tensor<1>>>) -> Self {
        Self {
            matrix: Arc::new(matrix),
            bias,
        }
    }

    pub(crate) fn matrix(&self) -> &QuantizedMatrix {
        &self.matrix
    }

    /// # Shapes
    /// - x: `[.., columns]`
    /// - returned: `[.., rows]`
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (rows, columns) = (self.matrix.rows(), self.matrix.columns());
        let mut shape = x.dims();
        let vectors = shape.iter().product::<usize>() / columns.max(1);
        let x = x.reshape([vectors, columns]);
        let product = if vectors <= FEW {
            self.multiply_few(x, vectors)
        } else {
            self.multiply_many(x)
        };
        shape[D - 1] = rows;
        let product = product.reshape(shape);
        match &self.bias {
            Some(bias) => product + bias.val().unsqueeze(),
            None => product,
        }
    }

    fn multiply_few(&self, x: Tensor<2>, vectors: usize) -> Tensor<2> {
        let device = x.device();
        let numbers: Vec<f32> = x.try_into_vec_as().unwrap_or_default();
        let QuantizedMatrix {
            bits,
            rows,
            columns,
            codes,
            scales,
        } = &*self.matrix;
        let x = Activations::new(&numbers, *columns);
        let blocks = Bits::row_scales(*columns);
        let mut out = vec![0.0; rows * vectors];
        // Some rows of weights for all vectors, while they are in the cache.
        let multiply = |((out, codes), scales): ((&mut [f32], &[u8]), &[u16])| {
            let vectors_of_x = x
                .steps
                .chunks_exact(x.padded.max(1))
                .zip(x.blocks.chunks_exact(blocks.max(1)));
            for (index, (steps, of_steps)) in vectors_of_x.enumerate() {
                let out = out.get_mut(index..).unwrap_or_default();
                kernel::multiply(*bits, codes, scales, steps, of_steps, out, vectors);
            }
        };
        let threads = if rows * columns * vectors < ALONE {
            1
        } else {
            rayon::current_num_threads()
        };
        let piece = rows.div_ceil(threads * PIECES).max(1);
        let pieces = out
            .chunks_mut((piece * vectors).max(1))
            .zip(codes.chunks((piece * bits.row_bytes(*columns)).max(1)))
            .zip(scales.chunks((piece * blocks).max(1)));
        if threads == 1 {
            pieces.for_each(multiply);
        } else {
            // This thread begins at once: handing all to the pool costs a sleep and two wakings, which
            // for a layer of a small model is as long as the product.
            let pieces = Mutex::new(pieces);
            let work = || {
                loop {
                    let next = pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(piece) = next else { break };
                    multiply(piece);
                }
            };
            rayon::in_place_scope(|scope| {
                for _ in 1..threads {
                    scope.spawn(|_| work());
                }
                work();
            });
        }
        Tensor::<2>::from_data(TensorData::new(out, [*rows, vectors]), &device).transpose()
    }

    fn multiply_many(&self, x: Tensor<2>) -> Tensor<2> {
        let (rows, columns) = (self.matrix.rows(), self.matrix.columns());
        let device = x.device();
        let tile = (TILE_BYTES / (size_of::<f32>() * columns).max(1)).max(1);
        let products = (0..rows)
            .step_by(tile)
            .map(|start| {
                let end = rows.min(start + tile);
                let mut numbers = vec![0.0; (end - start) * columns];
                self.matrix.dequantize(start, &mut numbers);
                let weights = TensorData::new(numbers, [end - start, columns]);
                let weights = Tensor::<2>::from_data(weights, &device);
                x.clone().matmul(weights.transpose())
            })
            .collect();
        Tensor::cat(products, 1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::{Device, Distribution};

    fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().iter::<f32>().collect()
    }

    /// The same product with the weights written out.
    fn plain(layer: &QuantizedLinear, x: Tensor<2>) -> Vec<f32> {
        let matrix = layer.matrix();
        let mut weights = vec![0.0; matrix.rows() * matrix.columns()];
        matrix.dequantize(0, &mut weights);
        let weights = TensorData::new(weights, [matrix.rows(), matrix.columns()]);
        let weights = Tensor::<2>::from_data(weights, &x.device());
        let product = x.matmul(weights.transpose());
        numbers(match &layer.bias {
            Some(bias) => product + bias.val().unsqueeze(),
            None => product,
        })
    }

    #[test]
    fn products_are_those_of_the_weights_written_out() {
        let device = Device::flex();
        for bits in [Bits::Eight, Bits::Four] {
            for (rows, columns) in [(1, 1), (3, 64), (70, 65), (200, 200), (130, 896)] {
                let random =
                    |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
                let mut matrix = QuantizedMatrix::with_capacity(bits, rows, columns);
                matrix.push_rows(&numbers(random([rows, columns])));
                let bias = (rows % 2 == 0)
                    .then(|| Param::from_tensor(random([1, rows]).squeeze_dim::<1>(0)));
                let layer = QuantizedLinear::new(matrix, bias);
                for vectors in [1, 2, FEW, FEW + 1, 40] {
                    let x = random([vectors, columns]);
                    let expected = plain(&layer, x.clone());
                    let found = numbers(layer.forward(x.unsqueeze::<3>()));
                    assert_eq!(found.len(), expected.len());
                    let size = expected.iter().fold(1e-6f32, |most, x| most.max(x.abs()));
                    for (a, b) in found.iter().zip(&expected) {
                        assert!(
                            (a - b).abs() <= 2e-4 * size,
                            "{bits:?} {vectors}: {a} for {b}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_is_not_hidden() {
        let device = Device::flex();
        let mut matrix = QuantizedMatrix::with_capacity(Bits::Four, 1, 64);
        matrix.push_rows(&[1.0; 64]);
        let layer = QuantizedLinear::new(matrix, None);
        let mut x = [1.0; 64];
        x[5] = f32::NAN;
        let x = Tensor::<2>::from_data(TensorData::new(x.to_vec(), [1, 64]), &device);
        assert!(numbers(layer.forward(x))[0].is_nan());
    }
}

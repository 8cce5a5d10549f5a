//! [`PackedLinear`]: a linear layer of weights in fewer bits than they are multiplied in.

use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};

use super::activations::Activations;
use super::halves::HalfMatrix;
use super::matrix::QuantizedMatrix;

/// Up to this many vectors the weights are multiplied as they are; above, writing them out costs less
/// than it saves (measured: see docs/hardware.md).
const FEW: usize = 12;

/// Products of a weight and a number that take less time than waking another core.
const ALONE: usize = 1 << 20;

/// Pieces of a matrix for each core, so that one which wakes late leaves its work to the others.
const PIECES: usize = 4;

/// Bytes of weights written out at a time: they stay in the cache until they are multiplied.
pub(crate) const TILE_BYTES: usize = 8 << 20;

/// The weights of a layer.
#[derive(Debug, Clone)]
pub(crate) enum Matrix {
    /// Blocks of integers.
    Blocks(QuantizedMatrix),
    /// Floats of 16 bits.
    Halves(HalfMatrix),
}

impl Matrix {
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Blocks(matrix) => matrix.rows(),
            Self::Halves(matrix) => matrix.rows(),
        }
    }

    pub(crate) fn columns(&self) -> usize {
        match self {
            Self::Blocks(matrix) => matrix.columns(),
            Self::Halves(matrix) => matrix.columns(),
        }
    }

    /// The numbers of rows from `first` on, as many as `out` takes; what lies behind the last row is left
    /// as it is.
    pub(crate) fn write_out(&self, first: usize, out: &mut [f32]) {
        match self {
            Self::Blocks(matrix) => matrix.dequantize(first, out),
            Self::Halves(matrix) => matrix.write_out(first, out),
        }
    }
}

/// A linear layer on the processor. The matrix is shared between clones: nothing trains it.
#[derive(Module, Debug)]
pub(crate) struct PackedLinear {
    #[module(skip)]
    matrix: Arc<Matrix>,
    bias: Option<Param<Tensor<1>>>,
}

impl PackedLinear {
    pub(crate) fn new(matrix: Matrix, bias: Option<Param<Tensor<1>>>) -> Self {
        Self {
            matrix: Arc::new(matrix),
            bias,
        }
    }

    pub(crate) fn matrix(&self) -> &Matrix {
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

    fn multiply_few(&self, x: Tensor<2>, count: usize) -> Tensor<2> {
        let device = x.device();
        let rows = self.matrix.rows();
        let numbers: Vec<f32> = x.try_into_vec_as().unwrap_or_default();
        let products = match &*self.matrix {
            Matrix::Blocks(matrix) => {
                let x = Activations::new(&numbers, matrix.columns);
                self.in_pieces(count, |first, out| matrix.multiply(first, &x, out))
            }
            Matrix::Halves(matrix) => {
                self.in_pieces(count, |first, out| matrix.multiply(first, &numbers, out))
            }
        };
        Tensor::<2>::from_data(TensorData::new(products, [rows, count]), &device).transpose()
    }

    /// Products of all rows with `count` vectors: for each row one number for each vector. `multiply`
    /// makes those of some rows, from a first one on, while their weights are in the cache.
    fn in_pieces(&self, count: usize, multiply: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
        let (rows, columns) = (self.matrix.rows(), self.matrix.columns());
        let mut out = vec![0.0; rows * count];
        let threads = if rows * columns * count < ALONE {
            1
        } else {
            rayon::current_num_threads()
        };
        let piece = rows.div_ceil(threads * PIECES).max(1);
        let pieces = out.chunks_mut((piece * count).max(1)).enumerate();
        if threads == 1 {
            pieces.for_each(|(index, out)| multiply(index * piece, out));
        } else {
            // This thread begins at once: handing all to the pool costs a sleep and two wakings, which
            // for a layer of a small model is as long as the product.
            let pieces = Mutex::new(pieces);
            let work = || {
                loop {
                    let next = pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((index, out)) = next else { break };
                    multiply(index * piece, out);
                }
            };
            rayon::in_place_scope(|scope| {
                for _ in 1..threads {
                    scope.spawn(|_| work());
                }
                work();
            });
        }
        out
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
                self.matrix.write_out(start, &mut numbers);
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
    use super::super::halves::Half;
    use super::super::matrix::Bits;
    use super::*;
    use burn::tensor::{Device, Distribution};

    /// Weights in every way they are kept.
    fn matrices(rows: usize, columns: usize, numbers: &[f32]) -> Vec<Matrix> {
        let mut all = Vec::new();
        for bits in [Bits::Eight, Bits::Four] {
            let mut matrix = QuantizedMatrix::with_capacity(bits, rows, columns);
            matrix.push_rows(numbers);
            all.push(Matrix::Blocks(matrix));
        }
        for half in [Half::F16, Half::Bf16] {
            let mut matrix = HalfMatrix::with_capacity(half, rows, columns);
            matrix.push_rows(numbers);
            all.push(Matrix::Halves(matrix));
        }
        all
    }

    fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().iter::<f32>().collect()
    }

    /// The same product with the weights written out.
    fn plain(layer: &PackedLinear, x: Tensor<2>) -> Vec<f32> {
        let matrix = layer.matrix();
        let mut weights = vec![0.0; matrix.rows() * matrix.columns()];
        matrix.write_out(0, &mut weights);
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
        for (rows, columns) in [(1, 1), (3, 64), (70, 65), (200, 200), (130, 896)] {
            let random =
                |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
            for matrix in matrices(rows, columns, &numbers(random([rows, columns]))) {
                assert_eq!((matrix.rows(), matrix.columns()), (rows, columns));
                let bias = (rows % 2 == 0)
                    .then(|| Param::from_tensor(random([1, rows]).squeeze_dim::<1>(0)));
                let layer = PackedLinear::new(matrix, bias);
                for vectors in [1, 2, FEW, FEW + 1, 40] {
                    let x = random([vectors, columns]);
                    let expected = plain(&layer, x.clone());
                    let found = numbers(layer.forward(x.unsqueeze::<3>()));
                    assert_eq!(found.len(), expected.len());
                    let size = expected.iter().fold(1e-6f32, |most, x| most.max(x.abs()));
                    for (a, b) in found.iter().zip(&expected) {
                        assert!(
                            (a - b).abs() <= 2e-4 * size,
                            "{:?} {vectors}: {a} for {b}",
                            layer.matrix()
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_is_not_hidden() {
        let device = Device::flex();
        let mut x = [1.0; 64];
        x[5] = f32::NAN;
        let x = Tensor::<2>::from_data(TensorData::new(x.to_vec(), [1, 64]), &device);
        for matrix in matrices(1, 64, &[1.0; 64]) {
            let layer = PackedLinear::new(matrix, None);
            assert!(numbers(layer.forward(x.clone()))[0].is_nan());
        }
    }
}

//! [`PackedLinear`]: a linear layer of weights in fewer bits than they are multiplied in.

use std::sync::{Arc, OnceLock};

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, TensorData};

use super::activations::Activations;
use super::halves::{Half, HalfMatrix};
use super::matrix::{Bits, QuantizedMatrix};
use crate::cpu;
use crate::threads::share_out;

/// Products of a weight and a number that take less time than waking another core.
const ALONE: usize = 1 << 19;

/// Pieces of a matrix for each core, so that one which wakes late leaves its work to the others.
const PIECES: usize = 16;

/// Bytes of a piece at least: what is asked for ahead is to be a small part of it.
const PIECE_BYTES: usize = 64 << 10;

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

    /// What keys and values are kept in beside such weights.
    pub(crate) fn kv_dtype(&self) -> DType {
        match self {
            Self::Halves(matrix) if matrix.half() == Half::Bf16 => DType::BF16,
            Self::Blocks(_) | Self::Halves(_) => DType::F16,
        }
    }

    /// Up to this many vectors the weights are multiplied as they are; above, writing them out costs less than it
    /// saves (docs/hardware.md). Matrices with few rows of many columns would have it later, others are near.
    fn few(&self) -> usize {
        match self {
            Self::Blocks(matrix) if matrix.bits() == Bits::Eight => 64,
            Self::Blocks(_) => 32,
            Self::Halves(_) => 16,
        }
    }

    /// Bytes of a row's weights.
    fn row_bytes(&self) -> usize {
        match self {
            Self::Blocks(matrix) => matrix.bits().row_bytes(matrix.columns()),
            Self::Halves(matrix) => size_of::<u16>() * matrix.columns(),
        }
    }

    /// Products of rows from `first` on, as many as `out` takes.
    fn multiply(&self, first: usize, vectors: &Vectors, out: &mut [f32]) {
        match self {
            Self::Blocks(matrix) => matrix.multiply(first, vectors.steps(), out),
            Self::Halves(matrix) => matrix.multiply(first, &vectors.numbers, out),
        }
    }

    /// The numbers of rows from `first` on, as many as `out` takes. What lies behind the last row is left as it
    /// is, and so is what lies between rows.
    ///
    /// - stride: numbers from a row to the next, at least [`columns`](Self::columns)
    pub(crate) fn write_out(&self, first: usize, stride: usize, out: &mut [f32]) {
        match self {
            Self::Blocks(matrix) => matrix.dequantize(first, stride, out),
            Self::Halves(matrix) => matrix.write_out(first, stride, out),
        }
    }
}

/// What a layer multiplies.
struct Vectors {
    columns: usize,
    numbers: Vec<f32>,
    /// As blocks of integers are multiplied; made when the first is.
    steps: OnceLock<Activations>,
}

impl Vectors {
    fn steps(&self) -> &Activations {
        self.steps
            .get_or_init(|| Activations::new(&self.numbers, self.columns))
    }
}

/// A linear layer on the processor, of `f32` without gradients. The matrix is shared between clones: nothing
/// trains it.
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
        let [product] = Self::forward_each([self], x);
        product
    }

    /// What each of several layers makes of the same numbers. Few vectors are multiplied with all of
    /// them in one go, for which the other cores are woken once.
    ///
    /// # Shapes
    /// - x: `[.., columns]`
    /// - returned: `[.., rows]` of each
    pub(crate) fn forward_each<const N: usize, const D: usize>(
        layers: [&Self; N],
        x: Tensor<D>,
    ) -> [Tensor<D>; N] {
        let shape = x.dims();
        let columns = shape[D - 1];
        for layer in layers {
            assert_eq!(layer.matrix.columns(), columns, "numbers of a vector");
        }
        let vectors = shape.iter().product::<usize>() / columns.max(1);
        let x = x.reshape([vectors, columns]);
        let few = |layer: &Self| vectors <= layer.matrix.few();
        let products = if layers.iter().copied().all(few) {
            Self::multiply_few(layers, x, vectors)
        } else {
            layers.map(|layer| {
                if few(layer) {
                    let [product] = Self::multiply_few([layer], x.clone(), vectors);
                    return product;
                }
                layer.multiply_many(x.clone())
            })
        };
        let mut layers = layers.into_iter();
        products.map(|product| {
            let mut shape = shape;
            shape[D - 1] = product.dims()[1];
            let product = product.reshape(shape);
            match layers.next().and_then(|layer| layer.bias.as_ref()) {
                Some(bias) => cpu::biased(product, bias.val()),
                None => product,
            }
        })
    }

    /// In pieces of rows, each of which is multiplied with all vectors while it is in the cache.
    fn multiply_few<const N: usize>(
        layers: [&Self; N],
        x: Tensor<2>,
        count: usize,
    ) -> [Tensor<2>; N] {
        let device = x.device();
        let vectors = Vectors {
            columns: x.dims()[1],
            numbers: x.try_into_vec_as().unwrap_or_default(),
            steps: OnceLock::new(),
        };
        let matrices = layers.map(|layer| &*layer.matrix);
        if matrices.iter().any(|m| matches!(m, Matrix::Blocks(_))) {
            // Before the others come, who would have to wait for them.
            vectors.steps();
        }
        let mut products = matrices.map(|matrix| vec![0.0; matrix.rows() * count]);
        let sizes = matrices.map(|matrix| matrix.rows() * matrix.columns() * count);
        let alone = sizes.iter().sum::<usize>() < ALONE;
        let threads = rayon::current_num_threads();
        let parts = matrices.into_iter().zip(&mut products);
        let pieces = parts.flat_map(|(matrix, out)| {
            let least = PIECE_BYTES / matrix.row_bytes().max(1);
            let piece = matrix.rows().div_ceil(threads * PIECES).max(least).max(1);
            let pieces = out.chunks_mut((piece * count).max(1)).enumerate();
            pieces.map(move |(index, out)| (matrix, index * piece, out))
        });
        let most = if alone { 1 } else { N * threads * PIECES };
        share_out(pieces, most, |(matrix, first, out)| {
            matrix.multiply(first, &vectors, out);
        });
        let mut matrices = matrices.into_iter();
        products.map(|products| {
            let rows = matrices.next().map_or(0, Matrix::rows);
            if count == 1 {
                return Tensor::from_data(TensorData::new(products, [1, rows]), &device);
            }
            Tensor::<2>::from_data(TensorData::new(products, [rows, count]), &device).transpose()
        })
    }

    /// With the weights written out, so many bytes of them at a time.
    fn multiply_many(&self, x: Tensor<2>) -> Tensor<2> {
        cpu::tiled(
            x,
            self.matrix.rows(),
            TILE_BYTES,
            |first, stride, numbers| {
                self.matrix.write_out(first, stride, numbers);
            },
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
        matrix.write_out(0, matrix.columns(), &mut weights);
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
        let wide = [(70, 2049), (33, 4864), (300, 4100)];
        for (rows, columns) in [(1, 1), (3, 64), (70, 65), (200, 200), (130, 896)]
            .into_iter()
            .chain(wide)
        {
            let random =
                |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
            for matrix in matrices(rows, columns, &numbers(random([rows, columns]))) {
                assert_eq!((matrix.rows(), matrix.columns()), (rows, columns));
                let bias = (rows % 2 == 0)
                    .then(|| Param::from_tensor(random([1, rows]).squeeze_dim::<1>(0)));
                let layer = PackedLinear::new(matrix, bias);
                for vectors in [1, 2, 13, 16, 17, 32, 33, 64, 65] {
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
    fn what_lies_between_rows_that_are_written_out_is_left_as_it_is() {
        let weights = [1.0, -1.0, 1.0, 0.0, 1.0, 1.0];
        for matrix in matrices(2, 3, &weights) {
            let mut out = [7.0; 9];
            matrix.write_out(0, 5, &mut out);
            let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.13);
            assert!(near(&out[..3], &weights[..3]), "{matrix:?}: {out:?}");
            assert!(near(&out[5..8], &weights[3..]), "{matrix:?}: {out:?}");
            assert_eq!((&out[3..5], out[8]), (&[7.0; 2][..], 7.0));
        }
    }

    #[test]
    fn several_layers_in_one_go_are_each_by_itself() {
        let device = Device::flex();
        let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let layer = |rows: usize, which: usize, bias: bool| {
            let mut all = matrices(rows, 300, &numbers(random([rows, 300])));
            let bias = bias.then(|| Param::from_tensor(random([1, rows]).squeeze_dim::<1>(0)));
            PackedLinear::new(all.swap_remove(which), bias)
        };
        // Of integers and of halves, one too small for several threads and one that is not.
        let [a, b, c] = [layer(4000, 2, true), layer(70, 0, false), layer(1, 3, true)];
        for vectors in [1, 16, 17, 64, 65] {
            let x = random([vectors, 300]);
            let together = PackedLinear::forward_each([&a, &b, &c], x.clone());
            for (together, layer) in together.into_iter().zip([&a, &b, &c]) {
                assert_eq!(together.dims(), [vectors, layer.matrix().rows()]);
                let (together, alone) = (numbers(together), numbers(layer.forward(x.clone())));
                assert_eq!(together, alone);
            }
        }
    }

    #[test]
    #[should_panic(expected = "numbers of a vector")]
    fn vectors_of_another_length_are_not_multiplied() {
        let layer = PackedLinear::new(matrices(2, 8, &[1.0; 16]).swap_remove(2), None);
        layer.forward(Tensor::<2>::zeros([1, 16], &Device::flex()));
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

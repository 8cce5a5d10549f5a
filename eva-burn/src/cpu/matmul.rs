//! Matrix products of `f32`: [`matmul`], [`linear`] and [`tiled`].
//!
//! They are Burn's own, taken by `gemm` in the same order, but for two things. Burn asks for a product's memory
//! zeroed, and copies it to where it is aligned, on one thread: a sixth of a long prompt's time (docs/hardware.md).
//! And few vectors times large matrices are [`vector::products`].
#![allow(
    unsafe_code,
    reason = "gemm takes pointers, and what it writes need not be zeroed: a sixth of a long prompt's time"
)]

use std::mem::MaybeUninit;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Device, Tensor, TensorData};
use gemm::Parallelism;
use rayon::prelude::*;

use super::vector;

/// Products of numbers from which several threads take one matrix product, as Burn has it.
const TOGETHER: usize = 192 * 192 * 192;

/// Products of numbers from which several threads take one of a batch each, as Burn has it.
const EACH: usize = 128 * 128 * 128;

/// A matrix in memory.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    // Not to be changed: `new` has seen that they fit.
    numbers: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// - shape: rows and columns
    /// - strides: from a row to the next, and from a column to the next
    pub(super) fn new(numbers: &'a [f32], shape: [usize; 2], strides: [usize; 2]) -> Self {
        let [rows, columns] = [0, 1].map(|of| shape[of].saturating_sub(1).checked_mul(strides[of]));
        let last = rows.and_then(|rows| rows.checked_add(columns?));
        assert!(
            shape.contains(&0) || last.is_some_and(|last| last < numbers.len()),
            "a matrix of {shape:?} in {} numbers",
            numbers.len()
        );
        Self {
            numbers,
            shape,
            strides,
        }
    }

    pub(super) fn numbers(&self) -> &'a [f32] {
        self.numbers
    }

    /// Rows and columns.
    pub(super) fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// From a row to the next, and from a column to the next.
    pub(super) fn strides(&self) -> [usize; 2] {
        self.strides
    }
}

/// Matrices in memory: of all dimensions but the last two.
struct Matrices<'a> {
    numbers: &'a [f32],
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl<'a> Matrices<'a> {
    /// `None` if some numbers lie backwards, which is left to Burn.
    fn of(tensor: &'a FlexTensor) -> Option<Self> {
        let layout = tensor.layout();
        let strides = layout.strides().iter();
        Some(Self {
            numbers: tensor.storage().get(layout.start_offset()..)?,
            shape: layout.shape().to_vec(),
            strides: strides
                .map(|stride| usize::try_from(*stride).ok())
                .collect::<Option<_>>()?,
        })
    }

    fn count(&self) -> usize {
        self.shape.iter().rev().skip(2).product()
    }

    fn matrix(&self, mut index: usize) -> Matrix<'a> {
        let mut start = 0;
        let dimensions = self.shape.iter().zip(&self.strides).rev();
        for (size, stride) in dimensions.skip(2) {
            start += index % size * stride;
            index /= size;
        }
        let last = |of: &[usize]| [of[of.len() - 2], of[of.len() - 1]];
        let numbers = self.numbers.get(start..).unwrap_or_default();
        Matrix::new(numbers, last(&self.shape), last(&self.strides))
    }
}

/// Where a product is written: rows that begin `stride` numbers after each other.
struct Target<'a> {
    numbers: &'a mut [MaybeUninit<f32>],
    stride: usize,
}

/// Writes the product of two matrices: every number of as many rows and columns as it has.
fn write(a: Matrix<'_>, b: Matrix<'_>, to: Target<'_>, threads: Parallelism) {
    let ([rows, inner], [rows_of_b, columns]) = (a.shape, b.shape);
    assert_eq!(inner, rows_of_b, "numbers of a row and of a column");
    if rows == 0 || columns == 0 {
        return;
    }
    let end = (rows - 1).checked_mul(to.stride);
    let end = end.and_then(|last| last.checked_add(columns));
    assert!(
        columns <= to.stride && end.is_some_and(|end| end <= to.numbers.len()),
        "a product of {rows} x {columns} in {} numbers",
        to.numbers.len()
    );
    if inner == 0 || rows == 1 || columns == 1 {
        // Of one row or column, gemm makes a slice, which may not be of what was never written.
        for row in to.numbers.chunks_mut(to.stride).take(rows) {
            row[..columns].fill(MaybeUninit::new(0.0));
        }
    }
    if inner == 0 {
        return;
    }
    let strides = |of: Matrix<'_>| of.strides.map(|stride| stride as isize);
    let ([a_row, a_column], [b_row, b_column]) = (strides(a), strides(b));
    // SAFETY: `Matrix::new` has seen that every number of `a` and `b` lies in its slice, and the lines above
    // that every number of the product lies in `to`, which nothing else refers to. What is there is not read.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            to.numbers.as_mut_ptr().cast::<f32>(),
            1,
            to.stride as isize,
            false,
            a.numbers.as_ptr(),
            a_column,
            a_row,
            b.numbers.as_ptr(),
            b_column,
            b_row,
            0.0,
            1.0,
            false,
            false,
            false,
            threads,
        );
    }
}

/// A tensor of numbers that `write` writes.
///
/// # Safety
/// `write` writes all of them.
unsafe fn written<const D: usize>(
    shape: [usize; D],
    write: impl FnOnce(&mut [MaybeUninit<f32>]),
) -> Tensor<D> {
    let count = shape
        .iter()
        .try_fold(1usize, |all, of| all.checked_mul(*of));
    #[expect(clippy::expect_used, reason = "as any vector that is too long")]
    let count = count.expect("more numbers than there can be");
    let mut numbers = Vec::with_capacity(count);
    write(&mut numbers.spare_capacity_mut()[..count]);
    // SAFETY: there is room for so many, and the caller promises that they are written.
    unsafe {
        numbers.set_len(count);
    }
    Tensor::from_data(TensorData::new(numbers, shape), &Device::flex())
}

/// How many threads Burn has take a product.
fn threads(products: usize) -> Parallelism {
    if products >= TOGETHER {
        Parallelism::Rayon(0)
    } else {
        Parallelism::None
    }
}

/// The products of the matrices of two tensors.
///
/// # Shapes
/// - a: `[.., rows, inner]`
/// - b: `[.., inner, columns]`, the first dimensions as in `a`
/// - returned: `[.., rows, columns]`
pub(crate) fn matmul<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    if super::applies(&a) && super::applies(&b) && a.dims()[..D - 2] == b.dims()[..D - 2] {
        let primitives = (
            a.clone().try_into_primitive::<Flex>(),
            b.clone().try_into_primitive::<Flex>(),
        );
        if let (Ok(a), Ok(b)) = &primitives
            && let (Some(a), Some(b)) = (Matrices::of(a), Matrices::of(b))
        {
            return products(&a, &b);
        }
    }
    a.matmul(b)
}

fn products<const D: usize>(a: &Matrices<'_>, b: &Matrices<'_>) -> Tensor<D> {
    let (rows, inner) = (a.shape[D - 2], a.shape[D - 1]);
    let columns = b.shape[D - 1];
    let mut shape = [0; D];
    shape.copy_from_slice(&a.shape);
    shape[D - 1] = columns;
    let count = a.count();
    if count == 1
        && let Some([product]) = vector::products(a.matrix(0), [b.matrix(0)])
    {
        return Tensor::from_data(TensorData::new(product, shape), &Device::flex());
    }
    let each = rows * inner * columns;
    let size = (rows * columns).max(1);
    let one = |index: usize, numbers: &mut [MaybeUninit<f32>], threads: Parallelism| {
        let to = Target {
            numbers,
            stride: columns,
        };
        write(a.matrix(index), b.matrix(index), to, threads);
    };
    let all = count * each;
    let write_all = |numbers: &mut [MaybeUninit<f32>]| {
        if count > 1 && all >= EACH && (count >= 4 || each < TOGETHER) {
            let matrices = numbers.par_chunks_mut(size).enumerate();
            matrices.for_each(|(index, numbers)| one(index, numbers, Parallelism::None));
        } else {
            for (index, numbers) in numbers.chunks_mut(size).enumerate() {
                one(index, numbers, threads(each));
            }
        }
    };
    // SAFETY: there is a chunk for each matrix of the product, and `write` writes all of it.
    unsafe { written(shape, write_all) }
}

/// `x` times a matrix.
///
/// # Shapes
/// - x: `[.., inner]`
/// - matrix: `[inner, columns]`, laid out either way
/// - returned: `[.., columns]`
pub(crate) fn linear<const D: usize>(x: Tensor<D>, matrix: Tensor<2>) -> Tensor<D> {
    let mut shape = x.dims();
    let columns = matrix.dims()[1];
    let (inner, vectors) = (shape[D - 1], shape[..D - 1].iter().product::<usize>());
    let batches = vectors / shape[D - 2].max(1);
    if vectors * inner == 0 || (batches > 1 && shape[D - 2] > 1) {
        // Burn does not always take several batches together, which makes a difference in the last bit.
        return burn::tensor::module::linear(x, matrix, None);
    }
    shape[D - 1] = columns;
    matmul(x.reshape([vectors, inner]), matrix).reshape(shape)
}

/// Whether `x` is what [`linear_each`] multiplies: few vectors.
pub(crate) fn few<const D: usize>(x: &Tensor<D>) -> bool {
    let vectors = x.dims()[..D - 1].iter().product::<usize>();
    (1..=vector::FEW).contains(&vectors) && super::applies(x)
}

/// `x`, for which [`few`] holds, times each of several matrices in one go; `None` where Burn takes that as fast.
///
/// # Shapes
/// - x: `[.., inner]`
/// - matrices: `[inner, columns]` each
/// - returned: `[.., columns]` each
pub(crate) fn linear_each<const N: usize, const D: usize>(
    x: &Tensor<D>,
    matrices: [Tensor<2>; N],
) -> Option<[Tensor<D>; N]> {
    let mut shape = x.dims();
    let inner = shape[D - 1];
    let vectors = shape[..D - 1].iter().product::<usize>();
    if !matrices.iter().all(super::applies) {
        return None;
    }
    let flex = |x: Tensor<2>| x.try_into_primitive::<Flex>().ok();
    let x = flex(x.clone().reshape([vectors, inner]))?;
    let matrices = matrices.map(flex);
    let mut of = Vec::with_capacity(N);
    for matrix in &matrices {
        of.push(Matrices::of(matrix.as_ref()?)?.matrix(0));
    }
    let products = vector::products(Matrices::of(&x)?.matrix(0), <[_; N]>::try_from(of).ok()?)?;
    Some(products.map(|product| {
        shape[D - 1] = product.len() / vectors.max(1);
        Tensor::from_data(TensorData::new(product, shape), &Device::flex())
    }))
}

/// Numbers of a line of the cache.
const LINE: usize = 16;

/// Numbers from a row that is written out to the next: an odd number of lines. `gemm` reads a column of some fifty
/// rows at a time, and rows that are a power of two apart, or nearly so, would share a few places of the cache: with
/// 2,048 columns it took six times as long to put them in order (docs/hardware.md).
fn row_stride(columns: usize) -> usize {
    (columns.div_ceil(LINE) | 1) * LINE
}

/// `x`, for which [`applies`](super::applies) holds, times a matrix whose rows are written out some at a time, by
/// `write_out` with the first of them and the numbers from a row to the next.
///
/// - bytes: that are written out at a time, but one row at least
///
/// # Shapes
/// - x: `[vectors, columns]`
/// - returned: `[vectors, rows]`
pub(crate) fn tiled(
    x: Tensor<2>,
    rows: usize,
    bytes: usize,
    write_out: impl Fn(usize, usize, &mut [f32]),
) -> Tensor<2> {
    let [vectors, columns] = x.dims();
    #[expect(clippy::expect_used, reason = "`applies` has seen the device")]
    let x = x.try_into_primitive::<Flex>().expect("another device");
    let x = x.to_contiguous();
    let x = Matrix::new(x.storage(), [vectors, columns], [columns, 1]);
    let between = row_stride(columns);
    let tile = bytes / (size_of::<f32>() * between);
    let tile = tile.clamp(1, rows.max(1));
    let mut weights = vec![0.0; tile * between];
    let write_all = |numbers: &mut [MaybeUninit<f32>]| {
        for first in (0..rows).step_by(tile) {
            let count = tile.min(rows - first);
            let weights = &mut weights[..count * between];
            write_out(first, between, weights);
            let weights = Matrix::new(weights, [columns, count], [1, between]);
            let to = Target {
                numbers: numbers.get_mut(first..).unwrap_or_default(),
                stride: rows,
            };
            write(x, weights, to, threads(vectors * columns * count));
        }
    };
    // SAFETY: the tiles hold all rows, each of which is a column of the product.
    unsafe { written([vectors, rows], write_all) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use burn::tensor::{DType, Distribution};

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    #[track_caller]
    fn same<const D: usize>(ours: Tensor<D>, burns: Tensor<D>) {
        assert_eq!(ours.dims(), burns.dims());
        let [ours, burns] = [ours, burns].map(|x| x.try_into_vec_as::<f32>().unwrap());
        assert_eq!(ours, burns);
    }

    #[test]
    fn products_are_burns_to_the_bit() {
        let sizes = [
            [1, 1, 1],
            [1, 384, 128],
            [3, 7, 5],
            [40, 128, 384],
            [300, 200, 333],
        ];
        for [rows, inner, columns] in sizes {
            let (a, b) = (random([rows, inner]), random([inner, columns]));
            same(matmul(a.clone(), b.clone()), a.clone().matmul(b));
            let b = random([columns, inner]).transpose();
            same(matmul(a.clone(), b.clone()), a.matmul(b));
        }
    }

    #[test]
    fn products_of_batches_are_burns_to_the_bit() {
        for (batch, heads, rows) in [(1, 2, 3), (2, 2, 70), (1, 2, 400), (3, 4, 130)] {
            let query = random([batch, heads, rows, 64]);
            // Parts of something larger, as keys in a cache are.
            let keys = random([batch, 200, heads, 64])
                .narrow(1, 20, 150)
                .swap_dims(1, 2);
            let burns = query.clone().matmul(keys.clone().transpose());
            same(matmul(query, keys.clone().transpose()), burns.clone());
            same(matmul(burns.clone(), keys.clone()), burns.matmul(keys));
        }
    }

    #[test]
    fn vectors_of_any_shape_are_multiplied() {
        let (x, matrix) = (random([2, 3, 40]), random([40, 30]));
        let burns = x.clone().matmul(matrix.clone().unsqueeze());
        same(linear(x, matrix.clone()), burns);
        for shape in [[4, 1, 40], [2, 64, 40], [1, 64, 40], [1, 1, 40]] {
            let x = random(shape);
            let burns = burn::tensor::module::linear(x.clone(), matrix.clone(), None);
            same(linear(x, matrix.clone()), burns);
        }
        let none = linear(random([0, 40]), matrix);
        assert_eq!(none.dims(), [0, 30]);
        let nothing = matmul(random([5, 0]), random([0, 4]));
        same(nothing, Tensor::zeros([5, 4], &Device::flex()));
    }

    #[test]
    fn what_is_not_ours_is_left_to_burn() {
        let (a, b) = (random([5, 20]), random([20, 6]));
        let burns = a.clone().matmul(b.clone());
        // Backwards, and with gradients.
        same(matmul(a.clone().flip([1]), b.clone().flip([0])), {
            a.clone().flip([1]).matmul(b.clone().flip([0]))
        });
        let with = matmul(a.clone().autodiff(), b.clone().autodiff());
        assert!(with.is_autodiff());
        same(with.inner(), burns);
        let halves = [&a, &b.transpose()].map(|x| x.clone().cast(DType::F16));
        let [a, b] = halves;
        assert_eq!(matmul(a, b.transpose()).dtype(), DType::F16);
        let (one, many) = (random([1, 5, 20]), random([3, 20, 6]));
        same(matmul(one.clone(), many.clone()), one.matmul(many));
    }

    #[test]
    fn numbers_that_stand_for_several_are_multiplied() {
        let (row, b) = (random([1, 20]), random([20, 6]));
        let rows: Tensor<2> = row.expand([5, 20]);
        same(matmul(rows.clone(), b.clone()), rows.matmul(b));
    }

    #[test]
    #[should_panic(expected = "numbers of a row and of a column")]
    fn matrices_that_do_not_fit_are_refused() {
        matmul(random([2, 3]), random([4, 5]));
    }

    #[test]
    fn a_matrix_written_out_in_tiles_is_multiplied_as_in_one() {
        let sizes = [
            (1, 1, 1),
            (0, 3, 4),
            (3, 0, 4),
            (30, 53, 64),
            (20, 256, 100),
        ];
        for (vectors, rows, columns) in sizes {
            let (x, weights) = (random([vectors, columns]), random([rows, columns]));
            let burns = x.clone().matmul(weights.clone().transpose());
            let weights: Vec<f32> = weights.try_into_vec_as().unwrap();
            for tile in [0, 1, 7, 100, rows, 1000] {
                let bytes = tile * 4 * row_stride(columns);
                let ours = tiled(x.clone(), rows, bytes, |first, between, numbers| {
                    let from = weights.chunks(columns.max(1)).skip(first);
                    for (to, from) in numbers.chunks_mut(between).zip(from) {
                        to[..columns].copy_from_slice(from);
                    }
                });
                assert_eq!(ours.dims(), [vectors, rows]);
                let [ours, burns] = [ours, burns.clone()].map(|x| x.try_into_vec_as::<f32>());
                for (ours, burns) in ours.unwrap().iter().zip(&burns.unwrap()) {
                    let room = 1e-5 * (columns as f32).sqrt();
                    assert!((ours - burns).abs() <= room, "tiles of {tile}");
                }
            }
        }
    }
}

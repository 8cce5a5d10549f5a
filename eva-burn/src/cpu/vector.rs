//! The product of one vector with a large matrix: [`product`].
//!
//! It takes as long as the matrix takes to come from memory. Burn takes it on one thread, which alone does not get all
//! that memory gives.

use multiversion::multiversion;

use super::kernel::add;
use super::matmul::Matrix;
use crate::ahead::Ahead;
use crate::threads::share_out;

/// Numbers of a matrix that are read in less time than waking another thread takes.
const ALONE: usize = 1 << 19;

/// Pieces of the rows: no more, since what each makes is added up in the end.
const PIECES: usize = 8;

/// Columns of a piece.
const COLUMNS: usize = 256;

/// Numbers of a line of the cache.
const LINE: usize = 16;

/// `x` times a matrix on all threads; `None` where Burn takes that as fast: of several vectors, of a small
/// matrix, or of one with space between its numbers.
///
/// Pieces are of a fixed size, so that results are the same to the bit whatever the number of threads.
pub(super) fn product(x: Matrix<'_>, matrix: Matrix<'_>) -> Option<Vec<f32>> {
    let [inner, columns] = matrix.shape();
    let size = inner * columns;
    if x.shape() != [1, inner] || x.strides()[1] != 1 || size < ALONE {
        return None;
    }
    let x = &x.numbers()[..inner];
    let numbers = matrix.numbers();
    if matrix.strides() == [columns, 1] {
        Some(sum_of_rows(x, numbers, columns))
    } else if matrix.strides() == [1, inner] {
        Some(products_of_columns(x, numbers, columns))
    } else {
        None
    }
}

/// Of a matrix whose rows lie one after the other: the rows, each times its number of `x`, are added up.
fn sum_of_rows(x: &[f32], numbers: &[f32], columns: usize) -> Vec<f32> {
    let rows = x.len().div_ceil(PIECES);
    let mut sums = vec![0.0; PIECES * columns];
    let first = (0..).step_by(rows * columns);
    let pieces = sums.chunks_mut(columns).zip(x.chunks(rows)).zip(first);
    share_out(pieces, PIECES, |((sum, x), first)| {
        add_rows(x, &numbers[first..], sum);
    });
    let (sum, others) = sums.split_at_mut(columns);
    for other in others.chunks(columns) {
        add(sum, other);
    }
    sums.truncate(columns);
    sums
}

/// - rows: as long as `sum`, one for each number of `x`, and what follows them
#[multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
fn add_rows(x: &[f32], rows: &[f32], sum: &mut [f32]) {
    let mut ahead = Ahead::<_, LINE>::of(rows);
    for (x, row) in x.iter().zip(rows.chunks_exact(sum.len())) {
        let (lines, rest) = row.as_chunks::<LINE>();
        let (sums, rest_of_sum) = sum.as_chunks_mut::<LINE>();
        for (sum, line) in sums.iter_mut().zip(lines) {
            ahead.ask();
            for lane in 0..LINE {
                sum[lane] += x * line[lane];
            }
        }
        for (sum, number) in rest_of_sum.iter_mut().zip(rest) {
            *sum += x * number;
        }
    }
}

/// Of a matrix whose columns lie one after the other.
fn products_of_columns(x: &[f32], numbers: &[f32], columns: usize) -> Vec<f32> {
    let mut products = vec![0.0; columns];
    let first = (0..).step_by(COLUMNS * x.len());
    let pieces = products.chunks_mut(COLUMNS).zip(first);
    share_out(pieces, columns.div_ceil(COLUMNS), |(products, first)| {
        multiply_columns(x, &numbers[first..], products);
    });
    products
}

/// - columns: as long as `x`, one for each of `products`, and what follows them
#[multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
fn multiply_columns(x: &[f32], columns: &[f32], products: &mut [f32]) {
    const LANES: usize = 2 * LINE;
    let mut ahead = Ahead::<_, LINE>::of(columns);
    let (parts, rest_of_x) = x.as_chunks::<LANES>();
    for (product, column) in products.iter_mut().zip(columns.chunks_exact(x.len())) {
        let (numbers, rest) = column.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for (numbers, x) in numbers.iter().zip(parts) {
            ahead.ask();
            ahead.ask();
            for lane in 0..LANES {
                sums[lane] += numbers[lane] * x[lane];
            }
        }
        for ((sum, number), x) in sums.iter_mut().zip(rest).zip(rest_of_x) {
            *sum += number * x;
        }
        *product = sums.iter().sum();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Numbers between -1 and 1, of which no two are alike.
    fn numbers(count: usize) -> Vec<f32> {
        let numbers = (0..count as u32).map(|at| at.wrapping_mul(0x9e37_79b9) >> 8);
        numbers.map(|x| x as f32 / 8_388_608.0 - 1.0).collect()
    }

    fn on(threads: usize, x: Matrix<'_>, matrix: Matrix<'_>) -> Option<Vec<f32>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| product(x, matrix))
    }

    #[test]
    fn products_are_those_of_more_digits_whatever_the_layout_and_the_threads() {
        for [inner, columns] in [[700, 900], [61, 10_001], [9000, 61], [2, 300_000]] {
            let (x, weights) = (numbers(inner), numbers(inner * columns + 40));
            let vector = Matrix::new(&x, [1, inner], [inner, 1]);
            for strides in [[columns, 1], [1, inner]] {
                let matrix = Matrix::new(&weights, [inner, columns], strides);
                let ours = on(1, vector, matrix).unwrap();
                assert_eq!(ours.len(), columns);
                for (column, ours) in ours.iter().enumerate() {
                    let weights = weights.iter().skip(column * strides[1]).step_by(strides[0]);
                    let products = x
                        .iter()
                        .zip(weights)
                        .map(|(x, y)| f64::from(*x) * f64::from(*y));
                    let (sum, size) = products.fold((0.0, 0.0), |(sum, size), product| {
                        (sum + product, size + product.abs())
                    });
                    assert!((f64::from(*ours) - sum).abs() <= 1e-6 * size);
                }
                for threads in [2, 3, 16] {
                    assert_eq!(on(threads, vector, matrix).unwrap(), ours);
                }
            }
        }
    }

    #[test]
    fn small_matrices_several_vectors_and_gaps_are_left_to_burn() {
        let (x, weights) = (numbers(4000), numbers(2_000_000));
        let vector = |rows, strides| Matrix::new(&x, [rows, 1000], strides);
        let matrix = |strides| Matrix::new(&weights, [1000, 1000], strides);
        assert!(on(2, vector(1, [1000, 1]), matrix([1000, 1])).is_some());
        assert!(on(2, vector(2, [1000, 1]), matrix([1000, 1])).is_none());
        assert!(on(2, vector(1, [1000, 2]), matrix([1000, 1])).is_none());
        assert!(on(2, vector(1, [1000, 1]), matrix([1001, 1])).is_none());
        let small = Matrix::new(&weights, [1000, 100], [100, 1]);
        assert!(on(2, vector(1, [1000, 1]), small).is_none());
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let mut x = numbers(1000);
        x[999] = f32::NAN;
        let weights = numbers(1_000_000);
        let vector = Matrix::new(&x, [1, 1000], [1000, 1]);
        for strides in [[1000, 1], [1, 1000]] {
            let matrix = Matrix::new(&weights, [1000, 1000], strides);
            assert!(product(vector, matrix).unwrap().iter().all(|x| x.is_nan()));
        }
    }
}

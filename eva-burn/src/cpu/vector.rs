//! Products of few vectors with large matrices, as decoding has them: [`products`].
//!
//! They take as long as the matrices take to come from memory. Burn takes one vector on one thread, which alone does
//! not get all that memory gives, and for several it first orders the matrix anew.

use multiversion::multiversion;

use super::kernel::add;
use super::matmul::Matrix;
use crate::ahead::{Ahead, ask};
use crate::threads::share_out;

/// Numbers of matrices that are read in less time than waking another thread takes.
const ALONE: usize = 1 << 19;

/// Up to this many vectors arithmetic takes hardly longer than memory does.
pub(super) const FEW: usize = 8;

/// Numbers of a piece of a matrix, at least: threads wait for the one that has the last.
const PIECE: usize = 1 << 17;

/// Bands of a matrix's rows: no more, since what each makes is added up in the end.
const BANDS: usize = 16;

/// Pieces of a matrix: no more bands than are needed for so many.
const PIECES: usize = 64;

/// Columns of a piece for several vectors, so that some rows and what is made of them stay in the first level of the
/// cache: with whole rows of 3,072 columns four vectors took longer than `gemm` does, with these three quarters of its time.
const PART: usize = 1024;

/// Columns up to which one vector is multiplied with whole rows, one after the other.
const WIDE: usize = 8192;

/// Numbers of a line of the cache.
const LINE: usize = 16;

/// `x` times each of several matrices, on all threads; `None` where Burn takes that as fast: of many vectors, of
/// matrices that are small all together, or with space between numbers; and of shapes that do not fit.
///
/// Pieces are of a fixed size, so that results are the same to the bit whatever the number of threads, and of
/// vectors up to [`FEW`].
///
/// # Shapes
/// - x: `[vectors, inner]`
/// - matrices: `[inner, columns]` each
/// - returned: `[vectors, columns]` each, row by row
pub(super) fn products<const N: usize>(
    x: Matrix<'_>,
    matrices: [Matrix<'_>; N],
) -> Option<[Vec<f32>; N]> {
    let [vectors, inner] = x.shape();
    let size: usize = matrices.iter().map(|m| m.shape()[0] * m.shape()[1]).sum();
    let side_by_side = x.strides()[1] == 1 && (vectors == 1 || x.strides()[0] == inner);
    let fits = matrices.iter().all(|matrix| matrix.shape()[0] == inner);
    if !(1..=FEW).contains(&vectors) || size < ALONE || !side_by_side || !fits {
        return None;
    }
    let x = &x.numbers()[..vectors * inner];
    let mut plans = Vec::with_capacity(N);
    for matrix in matrices {
        plans.push(Plan::of(matrix, x)?);
    }
    let count = plans.iter().map(Plan::count).sum();
    let pieces = plans.iter_mut().flat_map(Plan::pieces);
    share_out(pieces, count, Piece::multiply);
    let products: Vec<_> = plans.into_iter().map(Plan::products).collect();
    products.try_into().ok()
}

/// How a matrix is divided, and what its pieces make.
struct Plan<'a> {
    x: &'a [f32],
    numbers: &'a [f32],
    inner: usize,
    columns: usize,
    lies: Lies,
    /// Rows of a piece: all of them where columns lie one after the other.
    rows: usize,
    /// Columns of a piece.
    width: usize,
    /// `[vectors, width]` of each piece.
    sums: Vec<f32>,
}

/// How the numbers of a matrix lie in memory.
#[derive(Clone, Copy)]
enum Lies {
    /// Row after row: rows, each times its number of a vector, are added up.
    Rows,
    /// Column after column.
    Columns,
}

/// A part of a matrix.
struct Piece<'a> {
    /// What the vectors have for its rows.
    x: &'a [f32],
    /// From one vector to the next.
    inner: usize,
    /// From its first number on.
    numbers: &'a [f32],
    /// From a row, or a column, to the next.
    stride: usize,
    lies: Lies,
    rows: usize,
    /// `[vectors, columns of the piece]`, zeros.
    sums: &'a mut [f32],
}

impl<'a> Plan<'a> {
    /// `None` for a matrix with space between its numbers.
    fn of(matrix: Matrix<'a>, x: &'a [f32]) -> Option<Self> {
        let [inner, columns] = matrix.shape();
        if inner * columns == 0 {
            return None;
        }
        let lies = match matrix.strides() {
            [down, 1] if down == columns => Lies::Rows,
            [1, across] if across == inner => Lies::Columns,
            _ => return None,
        };
        let (rows, width) = match lies {
            Lies::Rows => {
                // Whatever the number of vectors, so that each product is added up in the same order.
                let most = BANDS.min(PIECES.div_ceil((columns / PART).max(1)));
                let bands = (inner * columns / PIECE).clamp(1, most);
                let parts = match x.len() / inner {
                    1 if columns < WIDE => 1,
                    _ => (columns / PART).max(1),
                };
                (
                    inner.div_ceil(bands),
                    columns.div_ceil(parts).next_multiple_of(LINE),
                )
            }
            Lies::Columns => (inner, (PIECE / inner).max(1)),
        };
        let (vectors, down) = (x.len() / inner, inner.div_ceil(rows));
        Some(Self {
            x,
            numbers: &matrix.numbers()[..inner * columns],
            inner,
            columns,
            lies,
            rows,
            width,
            sums: vec![0.0; down * vectors * columns],
        })
    }

    fn vectors(&self) -> usize {
        self.x.len() / self.inner
    }

    fn count(&self) -> usize {
        self.inner.div_ceil(self.rows) * self.columns.div_ceil(self.width)
    }

    fn pieces(&mut self) -> impl Iterator<Item = Piece<'_>> + Send {
        let vectors = self.vectors();
        let (x, numbers, lies) = (self.x, self.numbers, self.lies);
        let (inner, columns, rows, width) = (self.inner, self.columns, self.rows, self.width);
        let bands = self.sums.chunks_mut(vectors * columns).enumerate();
        bands.flat_map(move |(band, sums)| {
            let row = band * rows;
            let parts = sums.chunks_mut(vectors * width).enumerate();
            parts.map(move |(part, sums)| {
                let column = part * width;
                let (first, stride) = match lies {
                    Lies::Rows => (row * columns + column, columns),
                    Lies::Columns => (column * inner, inner),
                };
                Piece {
                    x: &x[row..],
                    inner,
                    numbers: &numbers[first..],
                    stride,
                    lies,
                    rows: rows.min(inner - row),
                    sums,
                }
            })
        })
    }

    /// `[vectors, columns]`.
    fn products(mut self) -> Vec<f32> {
        let size = self.vectors() * self.columns;
        let (sum, others) = self.sums.split_at_mut(size);
        for other in others.chunks(size) {
            add(sum, other);
        }
        self.sums.truncate(size);
        let vectors = self.vectors();
        if vectors == 1 || self.columns <= self.width {
            return self.sums;
        }
        let mut products = Vec::with_capacity(size);
        for vector in 0..vectors {
            for part in self.sums.chunks(vectors * self.width) {
                let width = part.len() / vectors;
                products.extend_from_slice(&part[vector * width..][..width]);
            }
        }
        products
    }
}

impl Piece<'_> {
    fn multiply(self) {
        let vectors = self.x.len().div_ceil(self.inner);
        let width = self.sums.len() / vectors;
        match self.lies {
            Lies::Rows => add_rows(self, width),
            Lies::Columns => multiply_columns(self, width),
        }
    }
}

/// Rows that are added up in one pass over the sums.
const AT_ONCE: usize = 4;

fn add_rows(piece: Piece<'_>, width: usize) {
    if piece.sums.len() == width && piece.stride == width {
        return add_one_by_one(&piece.x[..piece.rows], piece.numbers, piece.sums);
    }
    let row = |index: usize| &piece.numbers[index * piece.stride..][..width];
    let some = |first: usize| [first, first + 1, first + 2, first + 3].map(row);
    let whole = piece.rows / AT_ONCE * AT_ONCE;
    for first in (0..whole).step_by(AT_ONCE) {
        let rows = some(first);
        // Those after them come from memory meanwhile.
        let mut next = (first + AT_ONCE < whole).then(|| some(first + AT_ONCE));
        let vectors = piece.x.chunks(piece.inner);
        for (x, sums) in vectors.zip(piece.sums.chunks_exact_mut(width)) {
            add_some(&x[first..], rows, next.take(), sums);
        }
    }
    let vectors = piece.x.chunks(piece.inner);
    for (x, sums) in vectors.zip(piece.sums.chunks_exact_mut(width)) {
        for (index, x) in x.iter().enumerate().take(piece.rows).skip(whole) {
            for (sum, number) in sums.iter_mut().zip(row(index)) {
                *sum += x * number;
            }
        }
    }
}

/// - rows: as long as `sum`, one for each number of `x`, and what follows them
#[multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
fn add_one_by_one(x: &[f32], rows: &[f32], sum: &mut [f32]) {
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

/// Adds rows, each times its number of `x`, one after the other.
///
/// - next: rows to ask memory for meanwhile, as long
#[multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
fn add_some(x: &[f32], rows: [&[f32]; AT_ONCE], next: Option<[&[f32]; AT_ONCE]>, sums: &mut [f32]) {
    let [a, b, c, d] = rows.map(|row| row.as_chunks::<LINE>().0);
    let next = next.map(|rows| rows.map(|row| row.as_chunks::<LINE>().0));
    let (lines, rest) = sums.as_chunks_mut::<LINE>();
    let numbers = a.iter().zip(b).zip(c).zip(d);
    for (at, (sum, (((a, b), c), d))) in lines.iter_mut().zip(numbers).enumerate() {
        if let Some(next) = &next {
            for row in next {
                ask(&row[at]);
            }
        }
        for lane in 0..LINE {
            let sum = &mut sum[lane];
            *sum += x[0] * a[lane];
            *sum += x[1] * b[lane];
            *sum += x[2] * c[lane];
            *sum += x[3] * d[lane];
        }
    }
    let first = lines.len() * LINE;
    for (x, row) in x.iter().zip(rows) {
        for (sum, number) in rest.iter_mut().zip(&row[first..]) {
            *sum += x * number;
        }
    }
}

fn multiply_columns(piece: Piece<'_>, width: usize) {
    let (inner, columns) = (piece.inner, &piece.numbers[..width * piece.inner]);
    let mut pairs = piece.sums.chunks_exact_mut(2 * width);
    let mut vectors = piece.x.chunks_exact(2 * inner);
    for (products, pair) in pairs.by_ref().zip(vectors.by_ref()) {
        let (x, y) = pair.split_at(inner);
        let (of_x, of_y) = products.split_at_mut(width);
        multiply_by_two(x, y, columns, of_x, of_y);
    }
    if !vectors.remainder().is_empty() {
        multiply_by_one(vectors.remainder(), columns, pairs.into_remainder());
    }
}

/// Numbers of a column that are multiplied at a time.
const LANES: usize = 2 * LINE;

/// - columns: as long as `x`, one for each of `products`
#[multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
fn multiply_by_one(x: &[f32], columns: &[f32], products: &mut [f32]) {
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
        *product = summed(sums, rest, rest_of_x);
    }
}

/// As [`multiply_by_one`], of two vectors for one reading of the columns.
#[multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
fn multiply_by_two(x: &[f32], y: &[f32], columns: &[f32], of_x: &mut [f32], of_y: &mut [f32]) {
    let mut ahead = Ahead::<_, LINE>::of(columns);
    let (parts_of_x, rest_of_x) = x.as_chunks::<LANES>();
    let (parts_of_y, rest_of_y) = y.as_chunks::<LANES>();
    let products = of_x.iter_mut().zip(of_y);
    for ((of_x, of_y), column) in products.zip(columns.chunks_exact(x.len())) {
        let (numbers, rest) = column.as_chunks::<LANES>();
        let (mut sums_of_x, mut sums_of_y) = ([0.0; LANES], [0.0; LANES]);
        for ((numbers, x), y) in numbers.iter().zip(parts_of_x).zip(parts_of_y) {
            ahead.ask();
            ahead.ask();
            for lane in 0..LANES {
                sums_of_x[lane] += numbers[lane] * x[lane];
            }
            for lane in 0..LANES {
                sums_of_y[lane] += numbers[lane] * y[lane];
            }
        }
        *of_x = summed(sums_of_x, rest, rest_of_x);
        *of_y = summed(sums_of_y, rest, rest_of_y);
    }
}

/// The sum of all lanes, once the products of what is left are added to the first of them.
#[inline(always)]
fn summed(mut sums: [f32; LANES], rest: &[f32], rest_of_x: &[f32]) -> f32 {
    for ((sum, number), x) in sums.iter_mut().zip(rest).zip(rest_of_x) {
        *sum += number * x;
    }
    sums.iter().sum()
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
        let products = pool.build().unwrap().install(|| products(x, [matrix]));
        products.map(|[product]| product)
    }

    #[test]
    fn products_are_those_of_more_digits_whatever_the_layout_the_threads_and_the_vectors() {
        for [inner, columns] in [
            [700, 900],
            [61, 10_001],
            [9000, 61],
            [2, 300_000],
            [130, 4100],
        ] {
            let (x, weights) = (numbers(FEW * inner), numbers(inner * columns + 40));
            let vectors = |count| Matrix::new(&x, [count, inner], [inner, 1]);
            for strides in [[columns, 1], [1, inner]] {
                let matrix = Matrix::new(&weights, [inner, columns], strides);
                let ours = on(1, vectors(1), matrix).unwrap();
                assert_eq!(ours.len(), columns);
                for (column, ours) in ours.iter().enumerate() {
                    let weights = weights.iter().skip(column * strides[1]).step_by(strides[0]);
                    let products = x[..inner].iter().zip(weights);
                    let products = products.map(|(x, y)| f64::from(*x) * f64::from(*y));
                    let (sum, size) = products.fold((0.0, 0.0), |(sum, size), product| {
                        (sum + product, size + product.abs())
                    });
                    assert!((f64::from(*ours) - sum).abs() <= 1e-6 * size);
                }
                let each: Vec<f32> = x
                    .chunks(inner)
                    .flat_map(|x| on(1, Matrix::new(x, [1, inner], [inner, 1]), matrix).unwrap())
                    .collect();
                for (threads, count) in [(2, 1), (3, 2), (16, 3), (2, FEW)] {
                    let ours = on(threads, vectors(count), matrix).unwrap();
                    assert!(ours == each[..count * columns], "{count} vectors");
                }
            }
        }
    }

    #[test]
    fn several_matrices_in_one_go_are_each_by_itself() {
        let (x, weights) = (numbers(2 * 600), numbers(3_000_000));
        let x = Matrix::new(&x, [2, 600], [600, 1]);
        let large = Matrix::new(&weights, [600, 3000], [3000, 1]);
        let columns = Matrix::new(&weights[7..], [600, 2000], [1, 600]);
        let small = Matrix::new(&weights[9..], [600, 5], [5, 1]);
        let [a, b, c] = products(x, [large, small, columns]).unwrap();
        assert_eq!(products(x, [large]).unwrap(), [a]);
        assert_eq!(products(x, [columns]).unwrap(), [c]);
        // By itself it is left to Burn.
        assert!(products(x, [small]).is_none());
        for (index, ours) in b.iter().enumerate() {
            let (vector, column) = (index / 5, index % 5);
            let of = |row: usize| x.numbers()[vector * 600 + row] * weights[9 + row * 5 + column];
            let sum: f32 = (0..600).map(of).sum();
            assert!((ours - sum).abs() < 1e-4);
        }
    }

    #[test]
    fn small_matrices_many_vectors_and_gaps_are_left_to_burn() {
        let (x, weights) = (numbers(20_000), numbers(2_000_000));
        let vectors = |rows, strides| Matrix::new(&x, [rows, 1000], strides);
        let matrix = |strides| Matrix::new(&weights, [1000, 1000], strides);
        for rows in [1, FEW] {
            assert!(on(2, vectors(rows, [1000, 1]), matrix([1000, 1])).is_some());
            assert!(on(2, vectors(rows, [1000, 2]), matrix([1000, 1])).is_none());
            assert!(on(2, vectors(rows, [1000, 1]), matrix([1001, 1])).is_none());
        }
        assert!(on(2, vectors(2, [1001, 1]), matrix([1000, 1])).is_none());
        assert!(on(2, vectors(0, [1000, 1]), matrix([1000, 1])).is_none());
        assert!(on(2, vectors(FEW + 1, [1000, 1]), matrix([1000, 1])).is_none());
        let small = Matrix::new(&weights, [1000, 100], [100, 1]);
        assert!(on(2, vectors(1, [1000, 1]), small).is_none());
        for inner in [500, 1500] {
            let of_another_length = Matrix::new(&x, [2, inner], [inner, 1]);
            assert!(on(2, of_another_length, matrix([1000, 1])).is_none());
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let mut x = numbers(1000);
        x[999] = f32::NAN;
        let weights = numbers(1_000_000);
        let vector = Matrix::new(&x, [1, 1000], [1000, 1]);
        for strides in [[1000, 1], [1, 1000]] {
            let matrix = Matrix::new(&weights, [1000, 1000], strides);
            let [product] = products(vector, [matrix]).unwrap();
            assert!(product.iter().all(|x| x.is_nan()));
        }
    }
}

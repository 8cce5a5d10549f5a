//! [`HalfMatrix`]: the weights of one matrix in 16 bits.

use rayon::prelude::*;

use super::kernel;
use super::matrix::ROWS_AT_ONCE;

/// Which 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    F16,
    Bf16,
}

/// A matrix whose rows are the checkpoint's: one for each number of the output.
#[derive(Clone)]
pub(crate) struct HalfMatrix {
    half: Half,
    rows: usize,
    columns: usize,
    /// Row by row.
    numbers: Vec<u16>,
}

impl std::fmt::Debug for HalfMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, {} x {}", self.half, self.rows, self.columns)
    }
}

impl HalfMatrix {
    /// A matrix of `columns` without rows yet, with room for `rows`.
    pub(crate) fn with_capacity(half: Half, rows: usize, columns: usize) -> Self {
        Self {
            half,
            rows: 0,
            columns,
            numbers: Vec::with_capacity(rows * columns),
        }
    }

    /// Appends rows, given one after the other.
    pub(crate) fn push_rows(&mut self, numbers: &[f32]) {
        let rows = numbers.len() / self.columns.max(1);
        let numbers = &numbers[..rows * self.columns];
        match self.half {
            Half::F16 => {
                let halves = numbers.par_iter().map(|x| half::f16::from_f32(*x));
                self.numbers.par_extend(halves.map(half::f16::to_bits));
            }
            Half::Bf16 => {
                let halves = numbers.par_iter().map(|x| half::bf16::from_f32(*x));
                self.numbers.par_extend(halves.map(half::bf16::to_bits));
            }
        }
        self.rows += rows;
    }

    pub(crate) fn half(&self) -> Half {
        self.half
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Rows from `first` on.
    fn rows_from(&self, first: usize) -> &[u16] {
        self.numbers.get(first * self.columns..).unwrap_or_default()
    }

    /// The numbers of rows from `first` on, as many as `out` takes. What lies behind the last row is left as it
    /// is, and so is what lies between rows.
    ///
    /// - stride: numbers from a row to the next, at least [`columns`](Self::columns)
    pub(super) fn write_out(&self, first: usize, stride: usize, out: &mut [f32]) {
        let rows = self.rows_from(first).par_chunks(self.columns.max(1));
        out.par_chunks_mut(stride.max(1))
            .with_min_len(ROWS_AT_ONCE)
            .zip(rows)
            .for_each(|(out, numbers)| kernel::halves::widen(self.half, numbers, out));
    }

    /// Products of rows from `first` on with vectors of `columns` numbers.
    ///
    /// - out: for each row one number for each vector
    pub(super) fn multiply(&self, first: usize, vectors: &[f32], out: &mut [f32]) {
        let columns = self.columns.max(1);
        let count = (vectors.len() / columns).max(1);
        // Rows that are still in the cache when the next vector comes.
        let rows = self.rows_from(first).chunks(ROWS_AT_ONCE * columns);
        for (rows, out) in rows.zip(out.chunks_mut(ROWS_AT_ONCE * count)) {
            for (index, vector) in vectors.chunks_exact(columns).enumerate() {
                let out = out.get_mut(index..).unwrap_or_default();
                kernel::halves::multiply(self.half, rows, vector, out, count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantized::kernel::LANES;

    #[test]
    fn products_with_halves_are_those_of_their_numbers_also_where_some_are_not_finite() {
        let every: Vec<u16> = (0..=u16::MAX).collect();
        // Rows of one number and zeros: each product shows its own, whether it is multiplied beside others or
        // behind them.
        for (columns, place) in [(1, 0), (LANES, 7), (LANES + 1, 2), (LANES + 1, LANES)] {
            let value = |bits: &u16| half::f16::from_bits(*bits).to_f32();
            let numbers: Vec<f32> = every.iter().map(value).collect();
            let mut rows = vec![0.0; every.len() * columns];
            for (row, number) in rows.chunks_exact_mut(columns).zip(&numbers) {
                row[place] = *number;
            }
            let mut matrix = HalfMatrix::with_capacity(Half::F16, every.len(), columns);
            matrix.push_rows(&rows);
            let mut out = vec![0.0; every.len()];
            matrix.multiply(0, &vec![0.5; columns], &mut out);
            for (number, found) in numbers.iter().zip(&out) {
                assert!(*found == number * 0.5 || number.is_nan() && found.is_nan());
            }
        }
    }

    #[test]
    fn rows_come_back_as_they_were_pushed_however_wide_they_are() {
        for (rows, columns) in [(3, 5), (600, 70), (5, 2049), (300, 4100)] {
            let numbers: Vec<f32> = (0..rows * columns).map(|at| at as f32 / 7.0).collect();
            let mut matrix = HalfMatrix::with_capacity(Half::Bf16, rows, columns);
            matrix.push_rows(&numbers);
            assert_eq!((matrix.rows(), matrix.columns()), (rows, columns));
            for first in [0, 1, rows - 1, rows] {
                let mut out = vec![0.0; (rows - first) * columns];
                matrix.write_out(first, columns, &mut out);
                let expected = numbers[first * columns..].iter();
                let expected = expected.map(|x| half::bf16::from_f32(*x).to_f32());
                assert!(
                    out.into_iter().eq(expected),
                    "{rows} x {columns} from {first}"
                );
            }
        }
    }

    #[test]
    fn every_half_becomes_its_number() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let mut ours = vec![0.0; all.len()];
        kernel::halves::widen(Half::F16, &all, &mut ours);
        for (bits, ours) in all.iter().zip(&ours) {
            let expected = half::f16::from_bits(*bits).to_f32();
            assert!(
                ours.to_bits() == expected.to_bits() || ours.is_nan() && expected.is_nan(),
                "{bits:#x}: {ours} for {expected}"
            );
        }
        kernel::halves::widen(Half::Bf16, &all, &mut ours);
        for (bits, ours) in all.iter().zip(&ours) {
            let expected = half::bf16::from_bits(*bits).to_f32();
            assert!(ours.to_bits() == expected.to_bits() || ours.is_nan() && expected.is_nan());
        }
    }
}

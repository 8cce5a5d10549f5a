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

/// Columns of a panel at most. Their part of the vector stays in the fastest cache beside the weights that
/// stream past it; with one twice as long, weights come from memory at half the rate (docs/hardware.md).
const PANEL: usize = 2048;

/// A matrix whose rows are the checkpoint's: one for each number of the output.
///
/// It is kept in panels of columns, each with its part of every row one after the other, as they are
/// multiplied.
#[derive(Clone)]
pub(crate) struct HalfMatrix {
    half: Half,
    rows: usize,
    columns: usize,
    /// Columns of each panel but the last.
    width: usize,
    panels: Vec<Vec<u16>>,
    /// Whether all of them are finite; of bf16, where it makes no difference, not looked at.
    finite: bool,
}

impl std::fmt::Debug for HalfMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, {} x {}", self.half, self.rows, self.columns)
    }
}

impl HalfMatrix {
    /// A matrix of `columns` without rows yet, with room for `rows`.
    pub(crate) fn with_capacity(half: Half, rows: usize, columns: usize) -> Self {
        let count = columns.div_ceil(PANEL).max(1);
        let width = columns.div_ceil(count).max(1);
        let width = width.next_multiple_of(kernel::LANES);
        let widths = (0..columns).step_by(width);
        let widths = widths.map(|first| width.min(columns - first));
        Self {
            half,
            rows: 0,
            columns,
            width,
            panels: widths
                .map(|width| Vec::with_capacity(rows * width))
                .collect(),
            finite: true,
        }
    }

    /// Appends rows, given one after the other.
    pub(crate) fn push_rows(&mut self, numbers: &[f32]) {
        for row in numbers.chunks_exact(self.columns.max(1)) {
            for (panel, numbers) in self.panels.iter_mut().zip(row.chunks(self.width)) {
                match self.half {
                    Half::F16 => {
                        let halves = numbers.iter().map(|x| half::f16::from_f32(*x));
                        self.finite &= halves.clone().all(half::f16::is_finite);
                        panel.extend(halves.map(half::f16::to_bits));
                    }
                    Half::Bf16 => {
                        let halves = numbers.iter().map(|x| half::bf16::from_f32(*x).to_bits());
                        panel.extend(halves);
                    }
                }
            }
            self.rows += 1;
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Each panel's rows from `first` on, and how many columns it has.
    fn panels(&self, first: usize) -> impl Iterator<Item = (&[u16], usize)> {
        let columns = (0..self.columns).step_by(self.width);
        self.panels.iter().zip(columns).map(move |(panel, begin)| {
            let width = self.width.min(self.columns - begin);
            (panel.get(first * width..).unwrap_or_default(), width)
        })
    }

    /// The numbers of rows from `first` on, as many as `out` takes; what lies behind the last row is left
    /// as it is.
    pub(super) fn write_out(&self, first: usize, out: &mut [f32]) {
        let piece = ROWS_AT_ONCE * self.columns.max(1);
        let pieces = out.par_chunks_mut(piece).enumerate();
        pieces.for_each(|(index, out)| {
            let mut begin = 0;
            for (panel, width) in self.panels(first + index * ROWS_AT_ONCE) {
                let rows = out.chunks_mut(self.columns.max(1));
                for (row, numbers) in rows.zip(panel.chunks(width)) {
                    let row = row.get_mut(begin..).unwrap_or_default();
                    kernel::widen(self.half, numbers, row);
                }
                begin += width;
            }
        });
    }

    /// Adds products of rows from `first` on with vectors of `columns` numbers.
    ///
    /// - out: for each row one number for each vector
    pub(super) fn multiply(&self, first: usize, vectors: &[f32], out: &mut [f32]) {
        let columns = self.columns.max(1);
        let count = (vectors.len() / columns).max(1);
        let mut begin = 0;
        for (panel, width) in self.panels(first) {
            // Rows that are still in the cache when the next vector comes.
            let rows = panel.chunks(ROWS_AT_ONCE * width);
            for (rows, out) in rows.zip(out.chunks_mut(ROWS_AT_ONCE * count)) {
                for (index, vector) in vectors.chunks_exact(columns).enumerate() {
                    let vector = vector.get(begin..begin + width).unwrap_or_default();
                    let out = out.get_mut(index..).unwrap_or_default();
                    kernel::multiply_halves(self.half, self.finite, rows, vector, out, count);
                }
            }
            begin += width;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_with_halves_are_those_of_their_numbers_also_where_some_are_not_finite() {
        let finite = |bits: &u16| bits & 0x7c00 != 0x7c00;
        let every: Vec<u16> = (0..=u16::MAX).collect();
        let every_finite: Vec<u16> = every.iter().copied().filter(finite).collect();
        // Rows of one number: each product shows its own.
        for all in [every, every_finite] {
            let numbers: Vec<f32> = all
                .iter()
                .map(|bits| half::f16::from_bits(*bits).to_f32())
                .collect();
            let mut matrix = HalfMatrix::with_capacity(Half::F16, all.len(), 1);
            matrix.push_rows(&numbers);
            assert_eq!(matrix.finite, all.iter().all(finite));
            let mut out = vec![0.0; all.len()];
            matrix.multiply(0, &[0.5], &mut out);
            for (number, found) in numbers.iter().zip(&out) {
                assert!(*found == number * 0.5 || number.is_nan() && found.is_nan());
            }
        }
    }

    #[test]
    fn rows_come_back_as_they_were_pushed_however_wide_they_are() {
        for (rows, columns) in [(3, 5), (600, 70), (5, PANEL + 1), (300, 2 * PANEL + 4)] {
            let numbers: Vec<f32> = (0..rows * columns).map(|at| at as f32 / 7.0).collect();
            let mut matrix = HalfMatrix::with_capacity(Half::Bf16, rows, columns);
            matrix.push_rows(&numbers);
            assert_eq!((matrix.rows(), matrix.columns()), (rows, columns));
            for first in [0, 1, rows - 1, rows] {
                let mut out = vec![0.0; (rows - first) * columns];
                matrix.write_out(first, &mut out);
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
        kernel::widen(Half::F16, &all, &mut ours);
        for (bits, ours) in all.iter().zip(&ours) {
            let expected = half::f16::from_bits(*bits).to_f32();
            assert!(
                ours.to_bits() == expected.to_bits() || ours.is_nan() && expected.is_nan(),
                "{bits:#x}: {ours} for {expected}"
            );
        }
        kernel::widen(Half::Bf16, &all, &mut ours);
        for (bits, ours) in all.iter().zip(&ours) {
            let expected = half::bf16::from_bits(*bits).to_f32();
            assert!(ours.to_bits() == expected.to_bits() || ours.is_nan() && expected.is_nan());
        }
    }
}

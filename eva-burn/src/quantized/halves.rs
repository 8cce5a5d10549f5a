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
    columns: usize,
    /// Rows of `columns` numbers.
    numbers: Vec<u16>,
    /// Whether all of them are finite; of bf16, where it makes no difference, not looked at.
    finite: bool,
}

impl std::fmt::Debug for HalfMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, {} x {}", self.half, self.rows(), self.columns)
    }
}

impl HalfMatrix {
    /// A matrix of `columns` without rows yet, with room for `rows`.
    pub(crate) fn with_capacity(half: Half, rows: usize, columns: usize) -> Self {
        Self {
            half,
            columns,
            numbers: Vec::with_capacity(rows * columns),
            finite: true,
        }
    }

    /// Appends rows, given one after the other.
    pub(crate) fn push_rows(&mut self, numbers: &[f32]) {
        match self.half {
            Half::F16 => {
                let halves = numbers.iter().map(|x| half::f16::from_f32(*x));
                self.finite &= halves.clone().all(half::f16::is_finite);
                self.numbers.extend(halves.map(half::f16::to_bits));
            }
            Half::Bf16 => {
                let halves = numbers.iter().map(|x| half::bf16::from_f32(*x).to_bits());
                self.numbers.extend(halves);
            }
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.numbers.len() / self.columns.max(1)
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The numbers of rows from `first` on, as many as `out` takes; what lies behind the last row is left
    /// as it is.
    pub(super) fn write_out(&self, first: usize, out: &mut [f32]) {
        let piece = ROWS_AT_ONCE * self.columns.max(1);
        let numbers = self.numbers.get(first * self.columns..).unwrap_or_default();
        out.par_chunks_mut(piece)
            .zip(numbers.par_chunks(piece))
            .for_each(|(out, numbers)| kernel::widen(self.half, numbers, out));
    }

    /// Products of rows from `first` on with vectors of `columns` numbers.
    ///
    /// - out: for each row one number for each vector
    pub(super) fn multiply(&self, first: usize, vectors: &[f32], out: &mut [f32]) {
        let columns = self.columns.max(1);
        let count = vectors.len() / columns;
        let numbers = self.numbers.get(first * columns..).unwrap_or_default();
        for (index, vector) in vectors.chunks_exact(columns).enumerate() {
            let out = out.get_mut(index..).unwrap_or_default();
            kernel::multiply_halves(self.half, self.finite, numbers, vector, out, count);
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

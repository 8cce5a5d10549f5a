//! [`Activations`]: the vectors that a quantized matrix multiplies.

use super::{BLOCK, PAIR};

/// Blocks whose scales are multiplied at a time.
pub(super) const GROUP: usize = 8;

/// Vectors in 16-bit steps, with a scale for each block: 15 bits and a sign are far finer than the
/// weights, so that the error of a product is the weights' alone.
pub(super) struct Activations {
    /// Pairs of blocks of a vector, the last one padded with zeros.
    pairs: usize,
    /// Groups of blocks of a vector, the last one padded with zeros.
    groups: usize,
    steps: Vec<[i16; PAIR]>,
    units: Vec<[f32; GROUP]>,
    eights: Vec<[f32; GROUP]>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vector<'a> {
    /// Its numbers, as multiples of their block's unit.
    pub(super) steps: &'a [[i16; PAIR]],
    /// The unit of each block.
    pub(super) units: &'a [[f32; GROUP]],
    /// Eight times the sum of each block's steps, a whole number: what a product has too much when each
    /// weight is 8 more than it should be.
    pub(super) eights: &'a [[f32; GROUP]],
}

impl Activations {
    /// Rounds `numbers`: vectors of `columns`, one after the other.
    pub(super) fn new(numbers: &[f32], columns: usize) -> Self {
        let pairs = columns.div_ceil(PAIR);
        let groups = (pairs * PAIR / BLOCK).div_ceil(GROUP);
        let vectors = numbers.len() / columns.max(1);
        let mut this = Self {
            pairs,
            groups,
            steps: vec![[0; PAIR]; vectors * pairs],
            units: vec![[0.0; GROUP]; vectors * groups],
            eights: vec![[0.0; GROUP]; vectors * groups],
        };
        let steps = this.steps.chunks_exact_mut(pairs.max(1));
        let units = this.units.chunks_exact_mut(groups.max(1));
        let eights = this.eights.chunks_exact_mut(groups.max(1));
        let rounded = steps.zip(units).zip(eights);
        for (vector, ((steps, units), eights)) in numbers.chunks_exact(columns.max(1)).zip(rounded)
        {
            round(
                vector,
                steps.as_flattened_mut(),
                units.as_flattened_mut(),
                eights.as_flattened_mut(),
            );
        }
        this
    }

    /// How many vectors there are.
    pub(super) fn count(&self) -> usize {
        self.steps.len() / self.pairs.max(1)
    }

    /// Numbers of a vector, padding included.
    pub(super) fn padded(&self) -> usize {
        self.pairs * PAIR
    }

    /// # Panics
    /// If there are no more than `index`.
    pub(super) fn vector(&self, index: usize) -> Vector<'_> {
        Vector {
            steps: &self.steps[index * self.pairs..][..self.pairs],
            units: &self.units[index * self.groups..][..self.groups],
            eights: &self.eights[index * self.groups..][..self.groups],
        }
    }
}

/// Writes a vector's steps, and of each block the unit and eight times the sum.
#[multiversion::multiversion(targets("x86_64+avx2+fma", "x86_64+sse4.2"))]
fn round(vector: &[f32], steps: &mut [i16], units: &mut [f32], eights: &mut [f32]) {
    let limit = f32::from(i16::MAX);
    let steps = steps.as_chunks_mut::<BLOCK>().0;
    let blocks = steps.iter_mut().zip(units).zip(eights);
    for (numbers, ((steps, unit), eight)) in vector.chunks(BLOCK).zip(blocks) {
        let mut block = [0.0; BLOCK];
        for (to, from) in block.iter_mut().zip(numbers) {
            *to = *from;
        }
        // As bits, of which the compiler takes several at a time.
        let most = block.iter().map(|x| x.to_bits() & (u32::MAX >> 1));
        let most = f32::from_bits(most.fold(0, u32::max));
        let per = if most > 0.0 { limit / most } else { 0.0 };
        let mut sum = 0;
        for (step, x) in steps.iter_mut().zip(block) {
            *step = (x * per).round_ties_even() as i16;
            sum += i32::from(*step);
        }
        // A number that is not finite must not vanish: the whole sum becomes NaN, as in f32.
        *unit = if most.is_finite() {
            most / limit
        } else {
            f32::NAN
        };
        // At most 8 x 32 x 32,767, which has fewer bits than an `f32` keeps.
        *eight = (8 * sum) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_vector_is_its_steps_in_the_units_of_their_blocks(
            columns in 1usize..300,
            seed in prop::collection::vec(-1.0f32..1.0, 600),
            size in prop::sample::select(vec![0.0f32, 1e-20, 1.0, 1e30]),
        ) {
            let numbers: Vec<f32> = seed.iter().map(|x| x * size).collect();
            let activations = Activations::new(&numbers, columns);
            prop_assert_eq!(activations.count(), numbers.len() / columns);
            for (index, expected) in numbers.chunks_exact(columns).enumerate() {
                let Vector { steps, units, eights } = activations.vector(index);
                let steps = steps.as_flattened();
                let (units, eights) = (units.as_flattened(), eights.as_flattened());
                prop_assert_eq!(steps.len(), activations.padded());
                prop_assert!(steps[columns..].iter().all(|step| *step == 0));
                for (block, steps) in steps.chunks(BLOCK).enumerate() {
                    let sum: i32 = steps.iter().map(|step| i32::from(*step)).sum();
                    prop_assert_eq!(eights[block], 8.0 * sum as f32);
                    for (step, x) in steps.iter().zip(expected.iter().skip(block * BLOCK)) {
                        let found = f32::from(*step) * units[block];
                        prop_assert!((found - x).abs() <= 0.51 * units[block], "{} for {}", found, x);
                    }
                }
            }
        }
    }

    #[test]
    fn a_block_with_what_is_not_a_number_has_no_unit() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut vector = [1.0; 3 * BLOCK];
            vector[BLOCK + 5] = odd;
            let activations = Activations::new(&vector, vector.len());
            let units = activations.vector(0).units.as_flattened();
            assert!(units[0].is_finite() && units[1].is_nan() && units[2].is_finite());
        }
    }
}

//! [`Activations`]: the vectors that a quantized matrix multiplies.

use super::{BLOCK, PAIR};

/// Vectors in 16-bit steps, with a scale for each block: 15 bits and a sign are far finer than the
/// weights, so that the error of a product is the weights' alone.
pub(super) struct Activations {
    /// Numbers of a vector, padding included.
    pub(super) padded: usize,
    /// Vectors of `padded` steps.
    pub(super) steps: Vec<i16>,
    /// For each block: its step, and the sum of its steps.
    pub(super) blocks: Vec<Block>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Block {
    pub(super) step: f32,
    pub(super) sum: i32,
}

impl Activations {
    /// Rounds `numbers`: vectors of `columns`, one after the other.
    pub(super) fn new(numbers: &[f32], columns: usize) -> Self {
        let padded = columns.next_multiple_of(PAIR);
        let vectors = numbers.len() / columns.max(1);
        let mut this = Self {
            padded,
            steps: Vec::with_capacity(vectors * padded),
            blocks: Vec::with_capacity(vectors * padded / BLOCK),
        };
        let limit = f32::from(i16::MAX);
        for vector in numbers.chunks_exact(columns.max(1)) {
            let start = this.steps.len();
            for block in vector.chunks(BLOCK) {
                let most = block.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                let per = if most > 0.0 { limit / most } else { 0.0 };
                this.steps
                    .extend(block.iter().map(|x| (x * per).round_ties_even() as i16));
                // A number that is not finite must not vanish: the whole sum becomes NaN, as in f32.
                let finite = block.iter().all(|x| x.is_finite());
                this.blocks.push(Block {
                    step: if finite { most / limit } else { f32::NAN },
                    sum: 0,
                });
            }
            this.steps.resize(start + padded, 0);
            this.blocks
                .resize(this.steps.len() / BLOCK, Block::default());
        }
        for (block, steps) in this
            .blocks
            .iter_mut()
            .zip(this.steps.as_chunks::<BLOCK>().0)
        {
            block.sum = steps.iter().map(|step| i32::from(*step)).sum();
        }
        this
    }
}

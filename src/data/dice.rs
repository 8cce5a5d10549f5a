//! Seeded randomness: a stream of its own for every purpose and item.

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// What random numbers are for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Balance = 1,
    Cut = 2,
    Examples = 3,
    Hint = 4,
    Order = 5,
}

/// The stream for `purpose` of item `index`.
pub(super) fn dice(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    let words = [seed, purpose as u64, index];
    for (to, word) in key.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

//! Seeds for training, development and test that can never meet: [`Split`].

/// What a world is used for. Each split has 2^32 seeds of its own.
///
/// | split | seeds | use |
/// |---|---|---|
/// | `Train` | `0 .. 2^32` | fitting weights |
/// | `Dev` | `2^32 .. 2^33` | choosing anything: settings, checkpoints, when to stop |
/// | `Test` | `2^33 .. 3 * 2^32` | reported numbers only |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// Fitting weights.
    Train,
    /// Choosing settings and checkpoints.
    Dev,
    /// Reported numbers only: never used to choose anything.
    Test,
}

impl Split {
    /// The seed of this split's world number `index`.
    ///
    /// ```
    /// use eva::world::Split;
    /// assert_ne!(Split::Train.seed(7), Split::Test.seed(7));
    /// ```
    #[must_use]
    pub const fn seed(self, index: u32) -> u64 {
        let range: u64 = match self {
            Self::Train => 0,
            Self::Dev => 1,
            Self::Test => 2,
        };
        // The index fills the low half, so that no index reaches the next range.
        range << 32 | index as u64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn ranges_do_not_touch() {
        assert_eq!(Split::Train.seed(0), 0);
        assert!(Split::Train.seed(u32::MAX) < Split::Dev.seed(0));
        assert!(Split::Dev.seed(u32::MAX) < Split::Test.seed(0));
    }
}

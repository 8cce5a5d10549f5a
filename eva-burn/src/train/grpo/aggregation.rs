//! How tokens make up the loss of a batch.

/// How tokens make up the loss of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Aggregation {
    /// The mean over all tokens: long completions weigh more (DAPO).
    Dapo,
    /// The sum over a constant: `completions * length` (Dr. GRPO).
    DrGrpo {
        /// The most tokens a completion may have.
        length: usize,
    },
    /// The mean of the completions' means (DeepSeekMath).
    #[default]
    Grpo,
}

impl Aggregation {
    /// The weight of a token of each completion, which is the same for all its tokens.
    ///
    /// - lengths: tokens of each completion of the batch, over all its shards
    /// - counted: `false` for completions that are masked: they weigh nothing, but still count as
    ///   completions, so that masking some does not give the others more weight; their tokens do not
    ///   count as tokens. A missing value is `true`.
    #[must_use]
    pub fn token_weights(self, lengths: &[usize], counted: &[bool]) -> Vec<f64> {
        let completions = lengths.len().max(1) as f64;
        let counted = |index: usize| counted.get(index).copied().unwrap_or(true);
        let total: usize = lengths
            .iter()
            .enumerate()
            .filter(|(index, _)| counted(*index))
            .map(|(_, length)| length)
            .sum();
        lengths
            .iter()
            .enumerate()
            .map(|(index, own)| match self {
                _ if !counted(index) => 0.0,
                Self::Dapo => 1.0 / total.max(1) as f64,
                Self::DrGrpo { length } => 1.0 / (completions * length.max(1) as f64),
                Self::Grpo => 1.0 / (completions * (*own).max(1) as f64),
            })
            .collect()
    }
}

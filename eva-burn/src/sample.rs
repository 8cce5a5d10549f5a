//! Choosing the next token from its scores.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Sampling {
    /// The most likely token (the published setting).
    #[default]
    Greedy,
    /// At random by likelihood.
    Random {
        /// Divides the scores: below 1 sharpens, above 1 flattens.
        temperature: f32,
        /// Only this many of the most likely tokens are drawn from; 0 for all.
        top_k: usize,
        /// Of those, only the most likely whose probabilities sum to this are drawn from.
        top_p: f32,
        /// Makes the draws repeatable.
        seed: u64,
    },
}

/// Chooses tokens one after the other.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    penalty: f32,
    rng: ChaCha8Rng,
    /// A bit for each token that was seen, made anew for each choice.
    marks: Vec<u64>,
}

impl Sampler {
    /// - penalty: the repetition penalty, 1 for none
    #[must_use]
    pub fn new(sampling: Sampling, penalty: f32) -> Self {
        let seed = match sampling {
            Sampling::Greedy => 0,
            Sampling::Random { seed, .. } => seed,
        };
        Self {
            sampling,
            penalty,
            rng: ChaCha8Rng::seed_from_u64(seed),
            marks: Vec::new(),
        }
    }

    /// A sampler of the same kind whose draws are its own. Each call gives another one; the same calls
    /// after the same seed give the same ones.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self {
            sampling: self.sampling,
            penalty: self.penalty,
            rng: ChaCha8Rng::seed_from_u64(self.rng.random()),
            marks: Vec::new(),
        }
    }

    /// The repetition penalty.
    #[must_use]
    pub fn penalty(&self) -> f32 {
        self.penalty
    }

    /// The next token; `seen` are all tokens so far, pictures' too, which the penalty lowers (each
    /// once, as transformers and vLLM do).
    pub fn next(&mut self, logits: &mut [f32], seen: &[u32]) -> u32 {
        if self.penalty != 1.0 {
            self.marks.clear();
            self.marks.resize(logits.len().div_ceil(64), 0);
            for &token in seen {
                let Some(marks) = self.marks.get_mut(token as usize / 64) else {
                    continue;
                };
                let (before, mark) = (*marks, 1 << (token % 64));
                *marks |= mark;
                if before & mark != 0 {
                    continue;
                }
                if let Some(score) = logits.get_mut(token as usize) {
                    *score = if *score > 0.0 {
                        *score / self.penalty
                    } else {
                        *score * self.penalty
                    };
                }
            }
        }
        match self.sampling {
            Sampling::Greedy => argmax(logits),
            Sampling::Random {
                temperature,
                top_k,
                top_p,
                ..
            } => self.draw(logits, temperature, top_k, top_p),
        }
    }

    fn draw(&mut self, logits: &[f32], temperature: f32, top_k: usize, top_p: f32) -> u32 {
        // Also when it is not a number.
        if temperature.is_nan() || temperature <= 0.0 {
            return argmax(logits);
        }
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut tokens: Vec<(u32, f32)> = logits
            .iter()
            .enumerate()
            .map(|(token, score)| (token as u32, ((score - best) / temperature).exp()))
            .collect();
        tokens.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if top_k > 0 {
            tokens.truncate(top_k);
        }
        let total: f32 = tokens.iter().map(|(_, weight)| weight).sum();
        let mut kept = 0.0;
        let mut count = 0;
        for (_, weight) in &tokens {
            kept += weight;
            count += 1;
            if kept >= top_p * total {
                break;
            }
        }
        let mut draw = self.rng.random::<f32>() * kept;
        for (token, weight) in &tokens[..count] {
            draw -= weight;
            if draw <= 0.0 {
                return *token;
            }
        }
        tokens.first().map_or(0, |(token, _)| *token)
    }
}

fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, score) in logits.iter().enumerate() {
        if *score > best.1 {
            best = (token as u32, *score);
        }
    }
    best.0
}

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
        let mut order: Vec<u64> = logits
            .iter()
            .enumerate()
            .map(|(token, score)| ranked(((score - best) / temperature).exp(), token as u32))
            .collect();
        if (1..order.len()).contains(&top_k) {
            order.select_nth_unstable(top_k);
            order.truncate(top_k);
        }
        order.sort_unstable();
        let tokens: Vec<(u32, f32)> = order.into_iter().map(token_and_weight).collect();
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

/// A number that is less the greater the weight, and among equal ones the less the token: whole numbers sort
/// several times faster than pairs, and a vocabulary has 150,000 of them.
fn ranked(weight: f32, token: u32) -> u64 {
    // As `f32::total_cmp` orders them.
    let bits = weight.to_bits();
    let rising = if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    };
    u64::from(!rising) << 32 | u64::from(token)
}

/// What [`ranked`] was made of.
fn token_and_weight(ranked: u64) -> (u32, f32) {
    let rising = !((ranked >> 32) as u32);
    let bits = if rising >> 31 == 1 {
        rising & !(1 << 31)
    } else {
        !rising
    };
    (ranked as u32, f32::from_bits(bits))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn greedy_takes_the_best_and_the_penalty_lowers_what_was_said() {
        let mut greedy = Sampler::new(Sampling::Greedy, 1.0);
        assert_eq!(greedy.next(&mut [0.1, 2.0, 1.9], &[1]), 1);
        let mut penalised = Sampler::new(Sampling::Greedy, 1.1);
        assert_eq!(penalised.next(&mut [0.1, 2.0, 1.9], &[1, 1]), 2);
        let mut scores = [-1.0, 1.0];
        penalised.next(&mut scores, &[0, 1, 99]);
        assert_eq!(scores, [-1.1, 1.0 / 1.1]);
    }

    #[test]
    fn sampling_repeats_with_its_seed_and_stays_within_top_p() {
        let draw_of = |top_k, seed, temperature, top_p| {
            let mut sampler = Sampler::new(
                Sampling::Random {
                    temperature,
                    top_k,
                    top_p,
                    seed,
                },
                1.0,
            );
            (0..200)
                .map(|_| sampler.next(&mut [0.0, 1.0, 2.0, -4.0], &[]))
                .collect::<Vec<u32>>()
        };
        let draw = |seed, temperature, top_p| draw_of(0, seed, temperature, top_p);
        let seen = draw_of(2, 6, 4.0, 1.0);
        assert!(
            seen.contains(&1)
                && seen.contains(&2)
                && seen.iter().all(|token| *token > 0 && *token < 3)
        );
        // Of the two that are left, token 2 alone has over two thirds.
        assert!(draw_of(2, 7, 1.0, 0.7).iter().all(|token| *token == 2));
        assert_eq!(draw(1, 1.0, 1.0), draw(1, 1.0, 1.0));
        assert_ne!(draw(1, 1.0, 1.0), draw(2, 1.0, 1.0));
        assert!(
            draw(3, 1.0, 0.5).iter().all(|token| *token == 2),
            "two thirds of the mass is token 2"
        );
        let seen = draw(4, 1.0, 0.9);
        assert!(seen.contains(&1) && seen.contains(&2) && !seen.contains(&3));
        assert!(
            draw(5, 0.0, 1.0).iter().all(|token| *token == 2),
            "temperature 0 is greedy"
        );
    }

    /// The same by a plain sort of all tokens.
    fn plain(logits: &[f32], temperature: f32, top_k: usize, top_p: f32, seed: u64) -> u32 {
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut tokens: Vec<(u32, f32)> = (0..)
            .zip(logits)
            .map(|(token, score)| (token, ((score - best) / temperature).exp()))
            .collect();
        tokens.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if top_k > 0 {
            tokens.truncate(top_k);
        }
        let total: f32 = tokens.iter().map(|token| token.1).sum();
        let mut kept = 0.0;
        let mut count = 0;
        while count < tokens.len() {
            kept += tokens[count].1;
            count += 1;
            if kept >= top_p * total {
                break;
            }
        }
        let mut draw = ChaCha8Rng::seed_from_u64(seed).random::<f32>() * kept;
        for (token, weight) in &tokens[..count] {
            draw -= weight;
            if draw <= 0.0 {
                return *token;
            }
        }
        tokens.first().map_or(0, |token| token.0)
    }

    proptest! {
        #[test]
        fn draws_are_those_of_a_plain_sort(
            // Many that are equal, and what no score should be.
            logits in prop::collection::vec(
                prop_oneof![
                    20 => (-40i8..40).prop_map(|score| f32::from(score) / 4.0),
                    10 => -30.0f32..30.0,
                    1 => prop::sample::select(vec![
                        f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0,
                    ]),
                ],
                0..300,
            ),
            temperature in 0.05f32..3.0,
            top_k in prop_oneof![Just(0usize), 1usize..400],
            top_p in prop_oneof![Just(1.0f32), 0.0f32..1.0],
            seed: u64,
        ) {
            let sampling = Sampling::Random { temperature, top_k, top_p, seed };
            let drawn = Sampler::new(sampling, 1.0).next(&mut logits.clone(), &[]);
            prop_assert_eq!(drawn, plain(&logits, temperature, top_k, top_p, seed));
        }

        #[test]
        fn rank_and_token_are_found_again(bits: u32, token: u32) {
            let (found, weight) = token_and_weight(ranked(f32::from_bits(bits), token));
            prop_assert_eq!((found, weight.to_bits()), (token, bits));
        }
    }
}

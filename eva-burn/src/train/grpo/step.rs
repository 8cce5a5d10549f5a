//! One step of GRPO.

use crate::train::batch::numbers;
use crate::train::length::{LengthError, check, constant};
use crate::train::{Batch, Effort, Trainer};

use super::{GrpoConfig, clipped, k3};

/// A part of a batch of rollouts, with what is known of each.
#[derive(Debug, Clone)]
pub struct GrpoShard {
    /// The rollouts.
    pub batch: Batch,
    /// One for each of them.
    pub completions: Vec<Completion>,
}

/// What is known of a rollout's completion: the assistant's tokens of all its turns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    /// How much better than its group it did.
    pub advantage: f64,
    /// Each token's log-probability under the policy that sampled it.
    pub sampled: Vec<f64>,
    /// Each token's log-probability under the reference model.
    pub reference: Vec<f64>,
    /// Whether it was cut off at the most tokens or turns.
    pub truncated: bool,
}

/// What a step of GRPO measured, before it changed the weights.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GrpoReport {
    /// The loss.
    pub loss: f64,
    /// The mean `k3` estimate of the KL divergence from the reference, over the tokens that count.
    pub kl: f64,
    /// The part of the tokens that count which the clip holds back.
    pub clipped: f64,
    /// The log-probability of each token of each completion, shard by shard; none for a shard
    /// without targets.
    pub log_probs: Vec<Vec<Vec<f64>>>,
    /// What it cost and how far it went.
    pub effort: Effort,
}

impl GrpoShard {
    fn check(&self) -> Result<(), LengthError> {
        let examples = self.batch.examples();
        check("completions", examples, self.completions.len())?;
        for (example, completion) in self.completions.iter().enumerate() {
            let tokens = self.batch.completion(example).len();
            let Completion {
                sampled, reference, ..
            } = completion;
            check("sampled log-probabilities", tokens, sampled.len())?;
            check("reference log-probabilities", tokens, reference.len())?;
        }
        Ok(())
    }

    /// A value of each completion, repeated for each of its tokens.
    fn per_token(&self, value: impl Fn(usize, &Completion) -> f64) -> Vec<f64> {
        let completions = self.completions.iter().enumerate();
        completions
            .flat_map(|(index, completion)| {
                std::iter::repeat_n(value(index, completion), completion.sampled.len())
            })
            .collect()
    }
}

impl Trainer {
    /// One step of GRPO over the shards of a batch; the gradient is that of the whole batch, whatever
    /// its split. Called again with the same shards it takes another optimisation epoch over the same
    /// rollouts.
    ///
    /// # Errors
    /// [`LengthError`] when there are not as many completions or log-probabilities as the batch needs;
    /// nothing is learnt then.
    pub fn grpo(
        &mut self,
        shards: &[GrpoShard],
        grpo: &GrpoConfig,
    ) -> Result<GrpoReport, LengthError> {
        shards.iter().try_for_each(GrpoShard::check)?;
        let all = || shards.iter().flat_map(|shard| &shard.completions);
        let lengths: Vec<usize> = all().map(|completion| completion.sampled.len()).collect();
        let counted: Vec<bool> = all()
            .map(|completion| !(grpo.mask_truncated && completion.truncated))
            .collect();
        let weights = grpo.aggregation.token_weights(&lengths, &counted);
        // Number of the shard, and of its first completion.
        let mut first = 0;
        let mut taught = Vec::new();
        for (index, shard) in shards.iter().enumerate() {
            // A shard without targets has no gradient.
            if shard.batch.targets() > 0 {
                taught.push((index, first));
            }
            first += shard.completions.len();
        }
        let config = self.config().clone();
        let updated = self.update(taught.len(), |model, eyes, index| {
            let (shard, first) = taught[index];
            let shard = &shards[shard];
            let log_probs = shard.batch.target_log_probs(model, eyes, &config);
            let values = numbers(log_probs.clone().detach());
            let joined = |values: fn(&Completion) -> &Vec<f64>| -> Vec<f64> {
                shard.completions.iter().flat_map(values).copied().collect()
            };
            let losses = clipped(
                log_probs,
                &joined(|completion| &completion.sampled),
                &joined(|completion| &completion.reference),
                &shard.per_token(|_, completion| completion.advantage),
                grpo,
            );
            let weights = shard.per_token(|index, _| weights[first + index]);
            let weights = constant(&weights, &losses);
            ((losses * weights).sum(), values)
        });

        let mut report = GrpoReport {
            loss: updated.loss,
            effort: updated.effort(shards.iter().map(|shard| &shard.batch)),
            log_probs: vec![Vec::new(); shards.len()],
            ..GrpoReport::default()
        };
        let mut tokens = 0usize;
        for ((shard, first), values) in taught.into_iter().zip(updated.measured) {
            let GrpoShard { batch, completions } = &shards[shard];
            for (index, completion) in completions.iter().enumerate() {
                let own = values.get(batch.completion(index)).unwrap_or(&[]);
                report.log_probs[shard].push(own.to_vec());
                if !counted[first + index] {
                    continue;
                }
                tokens += own.len();
                for (at, log_prob) in own.iter().enumerate() {
                    report.kl += k3(*log_prob, completion.reference[at]);
                    let ratio = (log_prob - completion.sampled[at]).exp();
                    if grpo.clips(ratio, completion.advantage) {
                        report.clipped += 1.0;
                    }
                }
            }
        }
        report.kl /= tokens.max(1) as f64;
        report.clipped /= tokens.max(1) as f64;
        Ok(report)
    }
}

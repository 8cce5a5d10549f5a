//! One step of KTO.

use crate::train::batch::numbers;
use crate::train::length::{LengthError, check};
use crate::train::{Batch, Effort, Trainer};

use super::{KtoConfig, reference_point, weighted};

/// A part of a batch, with what was computed once before training.
#[derive(Debug, Clone)]
pub struct KtoShard {
    /// The trajectories.
    pub batch: Batch,
    /// Whether each of them is desirable.
    pub desirable: Vec<bool>,
    /// Each completion's log-probability under the reference model: the sum over its tokens.
    pub reference: Vec<f64>,
    /// [Mismatched](super::mismatched) pairs, rotated within the batch before it was cut into shards.
    pub mismatched: Batch,
    /// The mismatched completions' log-probabilities under the reference model.
    pub mismatched_reference: Vec<f64>,
}

/// What a step of KTO measured, before it changed the weights.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KtoReport {
    /// Mean loss over the examples of the batch.
    pub loss: f64,
    /// The KL reference `z0`.
    pub reference_point: f64,
    /// The log-ratio of policy to reference of each example, shard by shard; none for a shard without
    /// targets.
    pub log_ratios: Vec<Vec<f64>>,
    /// What it cost and how far it went; the mismatched pairs' tokens are not counted.
    pub effort: Effort,
}

impl KtoShard {
    fn check(&self) -> Result<(), LengthError> {
        let (examples, pairs) = (self.batch.examples(), self.mismatched.examples());
        check("labels", examples, self.desirable.len())?;
        check(
            "reference log-probabilities",
            examples,
            self.reference.len(),
        )?;
        let found = self.mismatched_reference.len();
        check("mismatched reference log-probabilities", pairs, found)
    }
}

impl Trainer {
    /// One step of KTO over the shards of a batch. `z0` is that of the whole batch and the gradient that
    /// of the mean over all its examples, whatever their split.
    ///
    /// # Errors
    /// [`LengthError`] when labels or reference log-probabilities do not fit their examples; nothing
    /// is learnt then.
    pub fn kto(&mut self, shards: &[KtoShard], kto: &KtoConfig) -> Result<KtoReport, LengthError> {
        shards.iter().try_for_each(KtoShard::check)?;
        let policy = self.replicas(&self.model());
        let config = self.config().clone();
        let pairs = self.parallel(shards.len(), |index| {
            let (shard, policy) = (&shards[index], policy.of(index));
            let log_probs = shard.mismatched.target_log_probs(policy, policy, &config);
            let sums = numbers(shard.mismatched.completion_sums(log_probs));
            ratios(&sums, &shard.mismatched_reference)
        });
        drop(policy);
        let z0 = reference_point(&pairs.concat());
        let examples: usize = shards.iter().map(|shard| shard.batch.examples()).sum();
        // A shard without targets has no gradient.
        let taught: Vec<usize> = (0..shards.len())
            .filter(|index| shards[*index].batch.targets() > 0)
            .collect();
        let updated = self.update(taught.len(), |model, eyes, index| {
            let KtoShard {
                batch,
                desirable,
                reference,
                ..
            } = &shards[taught[index]];
            let log_probs = batch.target_log_probs(model, eyes, &config);
            let sums = batch.completion_sums(log_probs);
            let measured = ratios(&numbers(sums.clone().detach()), reference);
            let losses = weighted(sums, reference, desirable, z0, kto);
            (losses.sum().div_scalar(examples as f64), measured)
        });
        let effort = updated.effort(shards.iter().map(|shard| &shard.batch));
        let mut log_ratios = vec![Vec::new(); shards.len()];
        for (index, measured) in taught.into_iter().zip(updated.measured) {
            log_ratios[index] = measured;
        }
        Ok(KtoReport {
            loss: updated.loss,
            reference_point: z0,
            log_ratios,
            effort,
        })
    }
}

fn ratios(policy: &[f64], reference: &[f64]) -> Vec<f64> {
    let pairs = policy.iter().zip(reference);
    pairs
        .map(|(policy, reference)| policy - reference)
        .collect()
}

//! Learning from groups of rollouts: [`Grpo`].

use std::cmp::Reverse;

use eva_burn::Qwen25Vl;
use eva_burn::train::advantage::{Scale, advantages};
use eva_burn::train::grpo::{Completion, GrpoConfig, GrpoShard};
use eva_burn::train::{Batch, Example, Trainer};
use eva_core::Pixels;

use super::{Encoder, Measures, TrainError};
use crate::rollout::{Generated, Rollout};

/// How a step of GRPO learns from its rollouts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grpo {
    /// The loss.
    pub loss: GrpoConfig,
    /// What advantages are divided by.
    pub scale: Scale,
    /// Optimisation epochs over the same rollouts.
    pub epochs: usize,
    /// Completions that are computed at once.
    pub shard: usize,
}

impl Default for Grpo {
    /// The paper's: scaled by the group's deviation, one epoch; 8 completions at once.
    fn default() -> Self {
        Self {
            loss: GrpoConfig::default(),
            scale: Scale::Group,
            epochs: 1,
            shard: 8,
        }
    }
}

/// A rollout that teaches something.
struct Lesson {
    example: Example,
    completion: Completion,
    /// Whether its log-probabilities are those of its tokens as they were drawn.
    sampled: bool,
}

impl Grpo {
    /// Takes the optimisation steps over the rollouts of some prompts. Groups whose rewards are all
    /// equal teach nothing and are counted, as are rollouts without a reply.
    ///
    /// - reference: the model that the policy is to stay near
    /// - groups: for each prompt its rollouts, each with its reward
    ///
    /// # Errors
    /// [`TrainError`] when a reward is not finite or a rollout can't be encoded; nothing is learnt
    /// then.
    pub fn learn<P: Pixels>(
        &self,
        trainer: &mut Trainer,
        reference: &Qwen25Vl,
        encoder: &Encoder,
        groups: &[Vec<(Rollout<P>, f64)>],
        measures: &mut Measures,
    ) -> Result<(), TrainError> {
        let rewards: Vec<Vec<f64>> = groups
            .iter()
            .map(|group| group.iter().map(|(_, reward)| *reward).collect())
            .collect();
        for reward in rewards.iter().flatten() {
            measures.add("reward", *reward);
        }
        let relative = advantages(&rewards, self.scale)?;
        measures.add_share("equal", relative.equal, groups.len());
        let closing = encoder.chat.closing_tokens();
        let mut lessons = Vec::new();
        for (group, advantages) in groups.iter().zip(&relative.groups) {
            if advantages.iter().all(|advantage| *advantage == 0.0) {
                continue;
            }
            for ((rollout, _), advantage) in group.iter().zip(advantages) {
                if rollout.replies.is_empty() {
                    continue;
                }
                lessons.push(Lesson {
                    example: encoder.rollout(rollout)?,
                    completion: Completion {
                        advantage: *advantage,
                        sampled: sampled(rollout),
                        reference: Vec::new(),
                        truncated: rollout.is_cut(&closing),
                    },
                    sampled: rollout.replies.iter().all(|reply| reply.tokens().is_some()),
                });
            }
        }
        // Alike in length, so that little is padded.
        lessons.sort_by_key(|lesson| Reverse(lesson.example.tokens.len()));
        let reference = trainer.replicas(reference);
        // The policy as it is now, where it alone can say what the tokens' log-probabilities are.
        let unknown = lessons.iter().any(|lesson| !lesson.sampled);
        let now = unknown.then(|| trainer.replicas(&trainer.model()));
        let parts: Vec<&[Lesson]> = lessons.chunks(self.shard.max(1)).collect();
        let shards = trainer.parallel(parts.len(), |part| {
            let now = now.as_ref().map(|now| now.of(part));
            shard(parts[part], now, reference.of(part), encoder)
        });
        drop((reference, now));
        for _ in 0..self.epochs.max(1) {
            let report = trainer.grpo(&shards, &self.loss)?;
            measures.add("loss", report.loss);
            measures.add("kl", report.kl);
            measures.add("clipped", report.clipped);
            measures.effort(&report.effort);
        }
        Ok(())
    }
}

fn sampled<P>(rollout: &Rollout<P>) -> Vec<f64> {
    let replies = rollout.replies.iter();
    replies
        .flat_map(|reply| match reply {
            Generated::Tokens(sampled) => sampled.log_probs.as_slice(),
            Generated::Text(_) => &[],
        })
        .map(|log_prob| f64::from(*log_prob))
        .collect()
}

/// Puts lessons together, with the log-probabilities that are still to be computed.
///
/// - now: the policy, if some lesson's tokens were not sampled from it here
fn shard(
    lessons: &[Lesson],
    now: Option<&Qwen25Vl>,
    reference: &Qwen25Vl,
    encoder: &Encoder,
) -> GrpoShard {
    let examples = lessons.iter().map(|lesson| lesson.example.clone());
    let batch = Batch::new(&examples.collect::<Vec<_>>(), &encoder.config);
    let computed = |model| batch.log_probs(model, &encoder.config).into_iter();
    let mut completions: Vec<Completion> = (lessons.iter().zip(computed(reference)))
        .map(|(lesson, known)| Completion {
            reference: known.concat(),
            ..lesson.completion.clone()
        })
        .collect();
    if let Some(now) = now.filter(|_| lessons.iter().any(|lesson| !lesson.sampled)) {
        for ((completion, lesson), known) in completions.iter_mut().zip(lessons).zip(computed(now))
        {
            if !lesson.sampled {
                completion.sampled = known.concat();
            }
        }
    }
    GrpoShard { batch, completions }
}

//! Learning from labelled runs: [`Kto`].

use eva_burn::Qwen25Vl;
use eva_burn::train::kto::{KtoConfig, KtoShard, mismatched};
use eva_burn::train::{Batch, Example, Trainer};

use super::{Encoder, Measures, TrainError};

/// How a step of KTO learns from labelled runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kto {
    /// The loss.
    pub loss: KtoConfig,
    /// Runs that are computed at once.
    pub shard: usize,
}

/// A labelled run.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// The run.
    pub example: Example,
    /// Whether it is worth following.
    pub desirable: bool,
    /// The sum of the log-probabilities of its targets under the reference model, which never changes:
    /// what [`Kto::references`] computed and was kept; `None` to have it computed.
    pub reference: Option<f64>,
}

/// A labelled run beside its prompt with the completion of another.
struct Pair {
    own: Labelled,
    mismatched: Example,
}

impl Kto {
    /// The log-probability of each run under the reference model, to be kept where runs are learnt from
    /// more than once.
    #[must_use]
    pub fn references(examples: &[Example], reference: &Qwen25Vl, encoder: &Encoder) -> Vec<f64> {
        sums(&Batch::new(examples, &encoder.config), reference, encoder)
    }

    /// Takes one optimisation step over a batch of labelled runs, neighbours of which are not about
    /// the same prompt.
    ///
    /// # Errors
    /// [`TrainError`] when nothing can be learnt from them; nothing is then.
    pub fn learn(
        &self,
        trainer: &mut Trainer,
        reference: &Qwen25Vl,
        encoder: &Encoder,
        runs: Vec<Labelled>,
        measures: &mut Measures,
    ) -> Result<(), TrainError> {
        let examples: Vec<Example> = runs.iter().map(|run| run.example.clone()).collect();
        let others = mismatched(&examples, &encoder.config);
        let mut pairs: Vec<Pair> = (runs.into_iter().zip(others))
            .map(|(own, mismatched)| Pair { own, mismatched })
            .collect();
        // Alike in length, so that little is padded.
        pairs.sort_by_key(|pair| pair.own.example.tokens.len());
        let parts: Vec<&[Pair]> = pairs.chunks(self.shard.max(1)).collect();
        let reference = trainer.replicas(reference);
        let shards = trainer.parallel(parts.len(), |part| {
            shard(parts[part], reference.of(part), encoder)
        });
        drop(reference);
        let report = trainer.kto(&shards, &self.loss)?;
        measures.effort(&report.effort);
        measures.add("loss", report.loss);
        measures.add("kl", report.reference_point);
        for (shard, ratios) in shards.iter().zip(&report.log_ratios) {
            for (desirable, ratio) in shard.desirable.iter().zip(ratios) {
                let name = if *desirable {
                    "desirable"
                } else {
                    "undesirable"
                };
                measures.add(name, *ratio);
            }
        }
        Ok(())
    }
}

fn shard(pairs: &[Pair], reference: &Qwen25Vl, encoder: &Encoder) -> KtoShard {
    let own: Vec<Example> = pairs.iter().map(|pair| pair.own.example.clone()).collect();
    let others: Vec<Example> = pairs.iter().map(|pair| pair.mismatched.clone()).collect();
    let (batch, mismatched) = (
        Batch::new(&own, &encoder.config),
        Batch::new(&others, &encoder.config),
    );
    let known: Option<Vec<f64>> = pairs.iter().map(|pair| pair.own.reference).collect();
    KtoShard {
        desirable: pairs.iter().map(|pair| pair.own.desirable).collect(),
        reference: known.unwrap_or_else(|| sums(&batch, reference, encoder)),
        mismatched_reference: sums(&mismatched, reference, encoder),
        batch,
        mismatched,
    }
}

/// The log-probability of each completion.
fn sums(batch: &Batch, model: &Qwen25Vl, encoder: &Encoder) -> Vec<f64> {
    let turns = batch.log_probs(model, &encoder.config);
    let sum = |turns: &Vec<Vec<f64>>| turns.iter().flatten().sum();
    turns.iter().map(sum).collect()
}

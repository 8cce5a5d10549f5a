//! First sight: a vision tower that starts from nothing learns to name what each merged patch shows.
//!
//! The name is a token: features are compared with the decoder's own embeddings, so that what the
//! tower learns is what the decoder already reads.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

use crate::input::Patches;

use super::batch::hits;
use super::{Effort, StepReport, Trainer};

/// Pictures, and the token that names each of some merged patches.
#[derive(Debug, Clone, Default)]
pub struct Labelled {
    /// The pictures.
    pub patches: Patches,
    /// Merged patch (counted over all pictures) and the token of what it shows.
    pub labels: Vec<(usize, u32)>,
}

impl Trainer {
    /// One step of first sight over shards. It is the vision tower that learns, whatever
    /// [`Learn`](super::Learn) says; with adapters nothing does.
    pub fn first_sight(&mut self, shards: &[Labelled]) -> StepReport {
        let total: usize = shards.iter().map(|shard| shard.labels.len()).sum();
        let config = self.config().clone();
        // A shard without labels has no gradient.
        let taught: Vec<usize> = (0..shards.len())
            .filter(|index| !shards[*index].labels.is_empty())
            .collect();
        let updated = self.update(taught.len(), |model, _, index| {
            let shard = &shards[taught[index]];
            let device = model.device();
            let indices = |values: Vec<i32>| {
                let count = values.len();
                Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &device)
            };
            let rows = indices(shard.labels.iter().map(|(row, _)| *row as i32).collect());
            let names: Vec<i32> = shard.labels.iter().map(|(_, name)| *name as i32).collect();
            let features = model.see(&shard.patches, &config, &device).select(0, rows);
            let scores = model.embeddings().scores(features);
            let right = hits(&scores, &names);
            let share = shard.labels.len() as f64 / total as f64;
            let names = indices(names).unsqueeze_dim::<2>(1);
            (
                log_softmax(scores, 1)
                    .gather(1, names)
                    .mean()
                    .neg()
                    .mul_scalar(share),
                right,
            )
        });
        let mut right = vec![Vec::new(); shards.len()];
        for (index, measured) in taught.into_iter().zip(updated.measured) {
            right[index] = measured;
        }
        StepReport {
            loss: updated.loss,
            right,
            effort: Effort {
                gradient_norm: updated.gradient_norm,
                rate: updated.rate,
                tokens: total,
            },
        }
    }
}

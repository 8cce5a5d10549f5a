//! [`Batch`]: examples of similar length, padded to one.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

use crate::config::ModelConfig;
use crate::input::Patches;
use crate::model::Qwen25Vl;
use crate::rope::{Position, positions};

use super::Example;

/// Examples padded to the longest, with the place of every target.
#[derive(Debug, Clone)]
pub struct Batch {
    tokens: Vec<Vec<u32>>,
    positions: Vec<Vec<Position>>,
    patches: Patches,
    /// Rows of the flattened hidden states whose next token is a target.
    rows: Vec<i32>,
    /// The targets.
    targets: Vec<i32>,
    /// Targets of each turn of each example, as ranges of `targets`.
    turns: Vec<Vec<std::ops::Range<usize>>>,
}

/// What a model makes of a batch.
#[derive(Debug)]
pub(super) struct Scored {
    /// Mean negative log-likelihood of the targets, `[1]`.
    pub(super) loss: Tensor<1>,
    /// Whether each target was the most likely token.
    pub(super) right: Vec<bool>,
}

impl Batch {
    /// Pads with token 0 behind the end: what follows a sequence is never seen by it.
    #[must_use]
    pub fn new(examples: &[Example], config: &ModelConfig) -> Self {
        let length = examples
            .iter()
            .map(|example| example.tokens.len())
            .max()
            .unwrap_or(0);
        let mut batch = Self {
            tokens: Vec::new(),
            positions: Vec::new(),
            patches: Patches::default(),
            rows: Vec::new(),
            targets: Vec::new(),
            turns: Vec::new(),
        };
        for (index, example) in examples.iter().enumerate() {
            let mut tokens = example.tokens.clone();
            // An image token in the padding would claim another sequence's picture.
            let pad = u32::from(config.image_token_id == 0);
            tokens.resize(length, pad);
            let (places, _) = positions(
                &tokens,
                &example.patches.grids,
                config.image_token_id,
                config.vision.spatial_merge_size,
            );
            let mut turns = Vec::new();
            for turn in &example.turns {
                let first = batch.targets.len();
                for at in turn.clone() {
                    batch.rows.push((index * length + at - 1) as i32);
                    batch.targets.push(tokens[at] as i32);
                }
                turns.push(first..batch.targets.len());
            }
            batch.turns.push(turns);
            batch.patches.append(&example.patches);
            batch.tokens.push(tokens);
            batch.positions.push(places);
        }
        batch
    }

    /// Number of target tokens.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.targets.len()
    }

    /// Number of tokens, padding included.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens.iter().map(Vec::len).sum()
    }

    /// For each example, the ranges of its turns among the targets.
    #[must_use]
    pub fn turns(&self) -> &[Vec<std::ops::Range<usize>>] {
        &self.turns
    }

    /// The mean cross-entropy of the targets. Pictures are seen with `eyes`, whose tower is not
    /// trained: the same weights without gradients.
    pub(super) fn score(&self, model: &Qwen25Vl, eyes: &Qwen25Vl, config: &ModelConfig) -> Scored {
        let device = model.device();
        let features = (!self.patches.grids.is_empty())
            .then(|| eyes.see(&self.patches, config, &eyes.device()))
            .map(|features| {
                if device.is_autodiff() {
                    Tensor::from_inner(features)
                } else {
                    features
                }
            });
        let tokens: Vec<&[u32]> = self.tokens.iter().map(Vec::as_slice).collect();
        let places: Vec<&[Position]> = self.positions.iter().map(Vec::as_slice).collect();
        let hidden = model.decode(
            model.embed(&tokens, features, config),
            &places,
            config,
            None,
        );
        let [batch, length, width] = hidden.dims();
        let indices = |values: &[i32]| {
            Tensor::<1, Int>::from_data(TensorData::new(values.to_vec(), [values.len()]), &device)
        };
        let hidden = hidden
            .reshape([batch * length, width])
            .select(0, indices(&self.rows));
        let logits = model.logits(hidden);
        let best: Vec<i32> = logits
            .clone()
            .detach()
            .argmax(1)
            .try_into_vec_as()
            .unwrap_or_default();
        let right = best
            .iter()
            .zip(&self.targets)
            .map(|(best, target)| best == target)
            .collect();
        let targets = indices(&self.targets).unsqueeze_dim::<2>(1);
        let loss = log_softmax(logits, 1).gather(1, targets).mean().neg();
        Scored { loss, right }
    }
}

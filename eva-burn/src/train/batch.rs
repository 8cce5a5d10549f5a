//! [`Batch`]: examples of similar length, padded to one.

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::config::ModelConfig;
use crate::input::Patches;
use crate::model::Qwen25Vl;
use crate::rope::{Position, positions};
use crate::text::States;

use super::Example;

/// Examples padded to the longest, with the place of every target.
#[derive(Debug, Clone)]
pub struct Batch {
    tokens: Vec<Vec<u32>>,
    /// Number of tokens without the padding.
    unpadded: usize,
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
            unpadded: examples.iter().map(|example| example.tokens.len()).sum(),
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

    /// Number of tokens of the examples themselves.
    #[must_use]
    pub fn tokens_without_padding(&self) -> usize {
        self.unpadded
    }

    /// For each example, the ranges of its turns among the targets.
    #[must_use]
    pub fn turns(&self) -> &[Vec<std::ops::Range<usize>>] {
        &self.turns
    }

    /// The log-probability of every target, per example, turn and token; without gradient.
    #[must_use]
    pub fn log_probs(&self, model: &Qwen25Vl, config: &ModelConfig) -> Vec<Vec<Vec<f64>>> {
        let model = if model.device().is_autodiff() {
            model.valid()
        } else {
            model.clone()
        };
        let values = self.target_log_probs(&model, &model, config);
        let values = numbers(values);
        let turn =
            |range: &std::ops::Range<usize>| values.get(range.clone()).unwrap_or(&[]).to_vec();
        self.turns
            .iter()
            .map(|turns| turns.iter().map(turn).collect())
            .collect()
    }

    /// The log-probability of every target, in the order of [`turns`](Self::turns), with gradient
    /// when the model has one. Pictures are seen with `eyes`: the same weights without gradients, or
    /// the model itself, whose vision tower then has one too.
    ///
    /// # Shapes
    /// - returned: `[targets]`
    #[must_use]
    pub fn target_log_probs(
        &self,
        model: &Qwen25Vl,
        eyes: &Qwen25Vl,
        config: &ModelConfig,
    ) -> Tensor<1> {
        if self.targets.is_empty() {
            return Tensor::zeros([0], &model.device());
        }
        self.gather(self.logits(model, eyes, config))
    }

    /// Sums over the tokens of each example: from log-probabilities of tokens to those of
    /// completions.
    ///
    /// # Shapes
    /// - log_probs: `[targets]`
    /// - returned: `[examples]`
    #[must_use]
    pub fn completion_sums(&self, log_probs: Tensor<1>) -> Tensor<1> {
        let sums = (0..self.turns.len()).map(|example| {
            let range = self.completion(example);
            if range.is_empty() {
                Tensor::zeros([1], (&log_probs.device(), log_probs.dtype()))
            } else {
                log_probs.clone().slice(range).sum()
            }
        });
        let sums: Vec<Tensor<1>> = sums.collect();
        if sums.is_empty() {
            return log_probs.slice(0..0);
        }
        Tensor::cat(sums, 0)
    }

    /// Number of examples.
    #[must_use]
    pub fn examples(&self) -> usize {
        self.turns.len()
    }

    /// All targets of an example, as a range of the batch's; empty for an example that isn't there.
    #[must_use]
    pub fn completion(&self, example: usize) -> std::ops::Range<usize> {
        let turns = self.turns.get(example).map_or(&[][..], Vec::as_slice);
        match (turns.first(), turns.last()) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => 0..0,
        }
    }

    /// The mean cross-entropy of the targets, of which there must be some. Pictures are seen with
    /// `eyes`, as in [`target_log_probs`](Self::target_log_probs).
    pub(super) fn score(&self, model: &Qwen25Vl, eyes: &Qwen25Vl, config: &ModelConfig) -> Scored {
        let logits = self.logits(model, eyes, config);
        let right = hits(&logits, &self.targets);
        let loss = self.gather(logits).mean().neg();
        Scored { loss, right }
    }

    /// Scores of the token at every target's place.
    ///
    /// # Shapes
    /// - returned: `[targets, vocab]`
    fn logits(&self, model: &Qwen25Vl, eyes: &Qwen25Vl, config: &ModelConfig) -> Tensor<2> {
        let device = model.device();
        let features = (!self.patches.grids.is_empty())
            .then(|| eyes.see(&self.patches, config, &eyes.device()))
            .map(|features| with_context(features, &device));
        let tokens: Vec<&[u32]> = self.tokens.iter().map(Vec::as_slice).collect();
        let places: Vec<&[Position]> = self.positions.iter().map(Vec::as_slice).collect();
        let hidden = model.decode(
            model.embed(&tokens, features, config),
            &places,
            config,
            None,
            States::All,
        );
        let [batch, length, width] = hidden.dims();
        let rows = indices(&self.rows, &device);
        model.logits(hidden.reshape([batch * length, width]).select(0, rows))
    }

    /// # Shapes
    /// - logits: `[targets, vocab]`
    /// - returned: `[targets]`
    fn gather(&self, logits: Tensor<2>) -> Tensor<1> {
        let targets = indices(&self.targets, &logits.device()).unsqueeze_dim::<2>(1);
        log_softmax(logits, 1)
            .gather(1, targets)
            .squeeze_dim::<1>(1)
    }
}

/// Constants among the numbers of `device`: with its way of keeping activations, which must be the
/// same for all operands.
fn with_context(features: Tensor<2>, device: &Device) -> Tensor<2> {
    match device.gradient_checkpointing_strategy() {
        Some(strategy) if !features.is_autodiff() => features
            .autodiff()
            .with_gradient_checkpointing_strategy(strategy),
        _ => features,
    }
}

fn indices(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

/// A vector's numbers. Where the device fails they are none: what is computed with them then shows it, as
/// zeros or a shorter list would not.
pub(super) fn numbers(vector: Tensor<1>) -> Vec<f64> {
    let count = vector.dims()[0];
    let values = vector.try_into_vec_as();
    values.unwrap_or_else(|_| vec![f64::NAN; count])
}

/// Whether each row's highest score is that of its target.
///
/// # Shapes
/// - scores: `[targets, classes]`
pub(super) fn hits(scores: &Tensor<2>, targets: &[i32]) -> Vec<bool> {
    let best: Vec<i32> = scores
        .clone()
        .detach()
        .argmax(1)
        .try_into_vec_as()
        .unwrap_or_default();
    best.iter()
        .zip(targets)
        .map(|(best, target)| best == target)
        .collect()
}

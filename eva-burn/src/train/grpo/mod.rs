//! GRPO: learning from groups of rollouts by their group-relative advantages (paper, section on GRPO;
//! DeepSeekMath; DAPO; Dr. GRPO).
//!
//! A token's loss is `-min(rho A, clip(rho, 1 - eps, 1 + eps_high) A) + beta k3` with
//! `rho = exp(lp - lp_sampled)` and `k3 = exp(lp_ref - lp) - (lp_ref - lp) - 1`, an estimate of the
//! KL divergence from the reference that is never negative.

mod aggregation;
mod step;

pub use aggregation::Aggregation;
pub use step::{Completion, GrpoReport, GrpoShard};

use burn::tensor::Tensor;

use super::length::{LengthError, check, constant};

/// How far a step may go, and how tokens make up the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GrpoConfig {
    /// `eps`: below `1 - eps`, a ratio earns a token of negative advantage nothing more.
    pub clip_low: f64,
    /// `eps_high`: above `1 + eps_high`, a ratio earns a token of positive advantage nothing more.
    pub clip_high: f64,
    /// `beta`, the weight of the KL divergence from the reference.
    pub kl: f64,
    /// How tokens make up the loss.
    pub aggregation: Aggregation,
    /// Whether completions that were cut off teach nothing (DAPO's overlong filtering).
    pub mask_truncated: bool,
}

impl Default for GrpoConfig {
    /// DeepSeekMath's: clipped at 0.2 both ways, KL weight 0.04, mean of the sequences' means; cut
    /// completions count.
    fn default() -> Self {
        Self {
            clip_low: 0.2,
            clip_high: 0.2,
            kl: 0.04,
            aggregation: Aggregation::Grpo,
            mask_truncated: false,
        }
    }
}

impl GrpoConfig {
    /// Whether the clip holds a token back: the policy has moved far enough the way its advantage
    /// points.
    #[must_use]
    pub fn clips(&self, ratio: f64, advantage: f64) -> bool {
        (advantage > 0.0 && ratio > 1.0 + self.clip_high)
            || (advantage < 0.0 && ratio < 1.0 - self.clip_low)
    }
}

/// The `k3` estimate of the KL divergence at one token, for reports.
#[must_use]
pub fn k3(log_prob: f64, reference: f64) -> f64 {
    let difference = reference - log_prob;
    difference.exp() - difference - 1.0
}

/// The loss of each token; a batch's is their sum, each times its
/// [weight](Aggregation::token_weights).
///
/// # Shapes
/// - log_probs: of every completion's tokens under the policy, `[tokens]`; the gradient flows into
///   them
/// - sampled: the same under the policy that sampled them, `tokens` values
/// - reference: the same under the reference model
/// - advantages: of the completion that a token is part of, for each token
/// - returned: `[tokens]`
///
/// # Errors
/// [`LengthError`] when there are not as many values as tokens.
pub fn token_losses(
    log_probs: Tensor<1>,
    sampled: &[f64],
    reference: &[f64],
    advantages: &[f64],
    config: &GrpoConfig,
) -> Result<Tensor<1>, LengthError> {
    let [tokens] = log_probs.dims();
    check("sampled log-probabilities", tokens, sampled.len())?;
    check("reference log-probabilities", tokens, reference.len())?;
    check("advantages", tokens, advantages.len())?;
    Ok(clipped(log_probs, sampled, reference, advantages, config))
}

/// As [`token_losses`], of numbers that fit.
fn clipped(
    log_probs: Tensor<1>,
    sampled: &[f64],
    reference: &[f64],
    advantages: &[f64],
    config: &GrpoConfig,
) -> Tensor<1> {
    let advantages = constant(advantages, &log_probs);
    let ratio = (log_probs.clone() - constant(sampled, &log_probs)).exp();
    let clipped = ratio
        .clone()
        .clamp(1.0 - config.clip_low, 1.0 + config.clip_high);
    let gain = (ratio * advantages.clone()).min_pair(clipped * advantages);
    let difference = constant(reference, &log_probs) - log_probs;
    let k3 = difference.clone().exp() - difference.add_scalar(1.0);
    k3.mul_scalar(config.kl) - gain
}

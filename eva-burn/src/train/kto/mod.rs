//! KTO: learning from single trajectories, each labelled desirable or undesirable (paper, section on
//! KTO correction; Ethayarajh et al., 2024).
//!
//! With `r` the log-ratio of policy to reference, both summed over the completion's tokens, an
//! example's loss is `lambda_D (1 - sigmoid(beta (r - z0)))` when it is desirable and
//! `lambda_U (1 - sigmoid(beta (z0 - r)))` when it isn't. `z0` estimates how far the policy is from
//! its reference: the mean `r` of mismatched pairs, not below 0 and without gradient.

mod mismatch;
mod step;

pub use mismatch::mismatched;
pub use step::{KtoReport, KtoShard};

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;

use super::length::{LengthError, check, constant};

/// The largest ratio of the two classes' weights, `lambda_D n_D / (lambda_U n_U)`; the least is 1.
pub const MAX_CLASS_RATIO: f64 = 4.0 / 3.0;

/// How strongly to learn, and from which class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KtoConfig {
    /// How far the policy may move from its reference: smaller is further.
    pub beta: f64,
    /// `lambda_D`, the weight of a desirable example.
    pub desirable: f64,
    /// `lambda_U`, the weight of an undesirable example.
    pub undesirable: f64,
}

impl Default for KtoConfig {
    /// The paper's beta; both weights 1.
    fn default() -> Self {
        Self {
            beta: 0.1,
            desirable: 1.0,
            undesirable: 1.0,
        }
    }
}

impl KtoConfig {
    /// Weights for a data set of so many desirable and undesirable examples: those nearest to 1, at
    /// least 1, for which `lambda_D n_D / (lambda_U n_U)` lies within 1 and [`MAX_CLASS_RATIO`]. A
    /// class without examples leaves them as they are.
    #[must_use]
    pub fn balanced(self, desirable: usize, undesirable: usize) -> Self {
        if desirable == 0 || undesirable == 0 {
            return self;
        }
        let ratio = desirable as f64 / undesirable as f64;
        Self {
            desirable: (1.0 / ratio).max(1.0),
            undesirable: (ratio / MAX_CLASS_RATIO).max(1.0),
            ..self
        }
    }
}

/// The KL reference `z0` from the log-ratios of mismatched pairs: their mean, at least 0.
///
/// A plain number, so that no gradient can flow through it. Without pairs it is 0.
#[must_use]
pub fn reference_point(log_ratios: &[f64]) -> f64 {
    let mean = log_ratios.iter().sum::<f64>() / log_ratios.len().max(1) as f64;
    mean.max(0.0)
}

/// The loss of each example; a batch's is their mean.
///
/// # Shapes
/// - log_probs: sums over each completion's tokens, `[batch]`; the gradient flows into them
/// - reference: the same sums under the reference model, `batch` values, as many as labels
/// - returned: `[batch]`
///
/// # Errors
/// [`LengthError`] when there are not as many references or labels as sums.
pub fn losses(
    log_probs: Tensor<1>,
    reference: &[f64],
    desirable: &[bool],
    z0: f64,
    config: &KtoConfig,
) -> Result<Tensor<1>, LengthError> {
    let [batch] = log_probs.dims();
    check("reference log-probabilities", batch, reference.len())?;
    check("labels", batch, desirable.len())?;
    Ok(weighted(log_probs, reference, desirable, z0, config))
}

/// As [`losses`], of numbers that fit.
fn weighted(
    log_probs: Tensor<1>,
    reference: &[f64],
    desirable: &[bool],
    z0: f64,
    config: &KtoConfig,
) -> Tensor<1> {
    let choose = |yes: f64, no: f64| -> Vec<f64> {
        let labels = desirable.iter();
        labels.map(|label| if *label { yes } else { no }).collect()
    };
    let signs = constant(&choose(-config.beta, config.beta), &log_probs);
    let weights = constant(&choose(config.desirable, config.undesirable), &log_probs);
    let reference = constant(reference, &log_probs);
    // 1 - sigmoid(x) is sigmoid(-x), which keeps its digits where the former is nearly 0.
    let margin = (log_probs - reference).sub_scalar(z0);
    sigmoid(margin * signs) * weights
}

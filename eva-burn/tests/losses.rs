//! KTO's and GRPO's losses against plain numbers, and their gradients against finite differences. In
//! f64, where both agree to 1e-7 of a value near 1.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use burn::tensor::{DType, Tensor, TensorData};
use eva_burn::Device;
use eva_burn::train::LengthError;
use eva_burn::train::grpo::{self, Aggregation, GrpoConfig};
use eva_burn::train::kto::{self, KtoConfig, MAX_CLASS_RATIO};

const TOLERANCE: f64 = 1e-7;

fn tensor(values: &[f64]) -> Tensor<1> {
    let data = TensorData::new(values.to_vec(), [values.len()]);
    Tensor::from_data(data, (&Device::flex().autodiff(), DType::F64))
}

fn values(tensor: Tensor<1>) -> Vec<f64> {
    tensor.try_into_vec_as().unwrap()
}

fn close(actual: &[f64], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len());
    for (a, b) in actual.iter().zip(expected) {
        assert!((a - b).abs() < TOLERANCE, "{actual:?} against {expected:?}");
    }
}

/// Compares the gradient of the sum of `losses` with central differences of the sum of `plain`.
fn same_gradient(
    at: &[f64],
    losses: impl Fn(Tensor<1>) -> Tensor<1>,
    plain: impl Fn(&[f64]) -> Vec<f64>,
) {
    let input = tensor(at).require_grad();
    let gradients = losses(input.clone()).sum().backward();
    let step = 1e-5;
    let moved = |index: usize, by: f64| -> f64 {
        let mut at = at.to_vec();
        at[index] += by;
        plain(&at).iter().sum()
    };
    let differences: Vec<f64> = (0..at.len())
        .map(|index| (moved(index, step) - moved(index, -step)) / (2.0 * step))
        .collect();
    close(&values(input.grad(&gradients).unwrap()), &differences);
}

mod kto_loss {
    use super::*;

    const POLICY: [f64; 4] = [-12.0, -30.5, -8.25, -14.0];
    const REFERENCE: [f64; 4] = [-13.5, -29.0, -20.0, -14.0];
    const DESIRABLE: [bool; 4] = [true, true, false, false];
    const Z0: f64 = 0.75;
    const CONFIG: KtoConfig = KtoConfig {
        beta: 0.1,
        desirable: 1.25,
        undesirable: 1.5,
    };

    fn plain(policy: &[f64]) -> Vec<f64> {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        (0..policy.len())
            .map(|index| {
                let ratio = policy[index] - REFERENCE[index];
                if DESIRABLE[index] {
                    1.25 * (1.0 - sigmoid(0.1 * (ratio - Z0)))
                } else {
                    1.5 * (1.0 - sigmoid(0.1 * (Z0 - ratio)))
                }
            })
            .collect()
    }

    fn losses(policy: Tensor<1>) -> Tensor<1> {
        kto::losses(policy, &REFERENCE, &DESIRABLE, Z0, &CONFIG).unwrap()
    }

    #[test]
    fn equals_plain_numbers() {
        close(&values(losses(tensor(&POLICY))), &plain(&POLICY));
    }

    #[test]
    fn has_the_gradient_of_finite_differences() {
        same_gradient(&POLICY, losses, plain);
    }

    #[test]
    fn the_reference_point_is_the_mean_ratio_but_never_negative() {
        assert_eq!(kto::reference_point(&[1.0, -2.0, 4.0]), 1.0);
        assert_eq!(kto::reference_point(&[-1.0, -2.0]), 0.0);
        assert_eq!(kto::reference_point(&[]), 0.0);
    }

    #[test]
    fn balanced_weights_bring_the_classes_within_the_papers_range() {
        for (desirable, undesirable) in [(63, 37), (37, 63), (1, 1), (4, 3), (5, 4), (1, 999)] {
            let weights = KtoConfig::default().balanced(desirable, undesirable);
            let ratio = weights.desirable * f64::from(desirable as u32)
                / (weights.undesirable * f64::from(undesirable as u32));
            let range = 1.0 - 1e-12..=MAX_CLASS_RATIO + 1e-12;
            assert!(
                range.contains(&ratio),
                "{desirable} to {undesirable}: {ratio}"
            );
            assert!(weights.desirable == 1.0 || weights.undesirable == 1.0);
            assert!(weights.desirable >= 1.0 && weights.undesirable >= 1.0);
        }
        let default = KtoConfig::default();
        assert_eq!(default.balanced(0, 5), default);
        assert_eq!(default.balanced(5, 0), default);
        assert_eq!(default.balanced(5, 4), default, "already within the range");
    }

    #[test]
    fn numbers_that_do_not_fit_are_an_error() {
        let short = kto::losses(tensor(&POLICY), &[0.0], &DESIRABLE, 0.0, &CONFIG).unwrap_err();
        let what = "reference log-probabilities";
        assert_eq!(
            short,
            LengthError {
                what,
                expected: 4,
                found: 1
            }
        );
        let error = kto::losses(tensor(&POLICY), &REFERENCE, &[], 0.0, &CONFIG).unwrap_err();
        assert_eq!(error.to_string(), "0 labels for 4");
    }
}

mod grpo_loss {
    use super::*;

    /// Ratios 1, 1.5 and 0.5, each with both signs of the advantage: two of the six are clipped.
    const SAMPLED: [f64; 6] = [-1.0, -1.0, -2.0, -2.0, -0.5, -0.5];
    const REFERENCE: [f64; 6] = [-1.5, -0.5, -2.0, -1.0, -0.75, -0.25];
    const ADVANTAGES: [f64; 6] = [1.25, -1.25, 0.5, -0.5, 2.0, -2.0];
    const CONFIG: GrpoConfig = GrpoConfig {
        clip_low: 0.2,
        clip_high: 0.28,
        kl: 0.04,
        aggregation: Aggregation::Grpo,
        mask_truncated: false,
    };

    fn policy() -> Vec<f64> {
        let ratios = [1.0f64, 1.0, 1.5, 1.5, 0.5, 0.5];
        let pairs = SAMPLED.iter().zip(ratios);
        pairs.map(|(sampled, ratio)| sampled + ratio.ln()).collect()
    }

    fn plain(policy: &[f64]) -> Vec<f64> {
        (0..policy.len())
            .map(|index| {
                let ratio = (policy[index] - SAMPLED[index]).exp();
                let clipped = ratio.clamp(0.8, 1.28);
                let advantage = ADVANTAGES[index];
                let gain = f64::min(ratio * advantage, clipped * advantage);
                let difference = REFERENCE[index] - policy[index];
                -gain + 0.04 * (difference.exp() - difference - 1.0)
            })
            .collect()
    }

    fn losses(policy: Tensor<1>) -> Tensor<1> {
        grpo::token_losses(policy, &SAMPLED, &REFERENCE, &ADVANTAGES, &CONFIG).unwrap()
    }

    #[test]
    fn equals_plain_numbers() {
        let policy = policy();
        close(&values(losses(tensor(&policy))), &plain(&policy));
    }

    #[test]
    fn has_the_gradient_of_finite_differences() {
        same_gradient(&policy(), losses, plain);
    }

    #[test]
    fn a_clipped_token_keeps_only_the_pull_of_the_reference() {
        let input = tensor(&policy()).require_grad();
        let gradients = losses(input.clone()).sum().backward();
        let gradient = values(input.grad(&gradients).unwrap());
        let policy = policy();
        for (index, advantage) in ADVANTAGES.iter().enumerate() {
            let ratio = (policy[index] - SAMPLED[index]).exp();
            let pull = 0.04 * (1.0 - (REFERENCE[index] - policy[index]).exp());
            let held = (gradient[index] - pull).abs() < TOLERANCE;
            assert_eq!(held, [2, 5].contains(&index), "token {index}");
            assert_eq!(held, CONFIG.clips(ratio, *advantage), "token {index}");
        }
    }

    #[test]
    fn the_kl_estimate_is_0_at_the_reference_and_positive_elsewhere() {
        assert_eq!(grpo::k3(-1.0, -1.0), 0.0);
        assert!(grpo::k3(-1.0, -2.0) > 0.0 && grpo::k3(-2.0, -1.0) > 0.0);
    }

    #[test]
    fn numbers_that_do_not_fit_are_an_error() {
        let (all, none) = (&SAMPLED[..], &[][..]);
        for (sampled, reference, advantages) in
            [(none, all, all), (all, none, all), (all, all, none)]
        {
            let result =
                grpo::token_losses(tensor(&SAMPLED), sampled, reference, advantages, &CONFIG);
            let error = result.unwrap_err();
            assert_eq!((error.expected, error.found), (6, 0));
        }
    }

    #[test]
    fn each_aggregation_weighs_tokens_as_its_paper_says() {
        let lengths = [2, 8, 0, 10];
        let weights = |aggregation: Aggregation| aggregation.token_weights(&lengths, &[]);
        close(
            &weights(Aggregation::Grpo),
            &[1.0 / 8.0, 1.0 / 32.0, 0.25, 1.0 / 40.0],
        );
        close(&weights(Aggregation::Dapo), &[0.05; 4]);
        close(
            &weights(Aggregation::DrGrpo { length: 16 }),
            &[1.0 / 64.0; 4],
        );
        assert_eq!(Aggregation::Dapo.token_weights(&[], &[]), Vec::<f64>::new());
        close(
            &Aggregation::DrGrpo { length: 0 }.token_weights(&[3], &[]),
            &[1.0],
        );
    }

    #[test]
    fn masked_completions_weigh_nothing_and_do_not_raise_the_others_sequence_weights() {
        let masked = [true, false, true];
        let weights = |aggregation: Aggregation| aggregation.token_weights(&[2, 4, 6], &masked);
        close(&weights(Aggregation::Grpo), &[1.0 / 6.0, 0.0, 1.0 / 18.0]);
        close(&weights(Aggregation::Dapo), &[1.0 / 8.0, 0.0, 1.0 / 8.0]);
        close(
            &weights(Aggregation::DrGrpo { length: 6 }),
            &[1.0 / 18.0, 0.0, 1.0 / 18.0],
        );
    }
}

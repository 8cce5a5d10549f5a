//! Group-relative advantages against numbers worked out by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use eva_burn::train::advantage::{Advantages, NotFinite, Scale, advantages};
use proptest::prelude::*;

fn close(actual: &[Vec<f64>], expected: &[Vec<f64>]) {
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        assert_eq!(actual.len(), expected.len());
        for (a, b) in actual.iter().zip(expected) {
            assert!((a - b).abs() < 1e-12, "{a} against {b}");
        }
    }
}

/// Means 0.5 and 2; deviations 1/sqrt(3) and sqrt(2).
fn groups() -> Vec<Vec<f64>> {
    vec![vec![1.0, 0.0, 0.0, 1.0], vec![1.0, 3.0]]
}

#[test]
fn a_group_is_scaled_by_its_own_deviation() {
    let result = advantages(&groups(), Scale::Group).unwrap();
    let (a, b) = (0.5 / (1.0 / 3f64.sqrt() + 1e-4), 1.0 / (2f64.sqrt() + 1e-4));
    close(&result.groups, &[vec![a, -a, -a, a], vec![-b, b]]);
    assert_eq!(result.equal, 0);
}

#[test]
fn a_batch_is_scaled_by_the_deviation_of_all_rewards() {
    // Rewards 1 0 0 1 1 3: mean 1, squares 0 1 1 0 0 4, so the variance is 6 / 5.
    let result = advantages(&groups(), Scale::Batch).unwrap();
    let by = 1.2f64.sqrt() + 1e-4;
    let (a, b) = (0.5 / by, 1.0 / by);
    close(&result.groups, &[vec![a, -a, -a, a], vec![-b, b]]);
}

#[test]
fn without_a_scale_only_the_mean_is_taken_off() {
    let result = advantages(&groups(), Scale::None).unwrap();
    close(
        &result.groups,
        &[vec![0.5, -0.5, -0.5, 0.5], vec![-1.0, 1.0]],
    );
}

#[test]
fn groups_of_equal_reward_contribute_nothing_and_are_counted() {
    // The mean of three times 0.1 is not 0.1 in floating point.
    let groups = [vec![0.1; 3], vec![], vec![7.0], vec![0.0, 1.0]];
    for scale in [Scale::Batch, Scale::Group, Scale::None] {
        let result = advantages(&groups, scale).unwrap();
        assert_eq!(result.equal, 3);
        assert_eq!(result.groups[..3], [vec![0.0; 3], vec![], vec![0.0]]);
        assert!(result.groups[3][1] > 0.0 && result.groups[3][0] < 0.0);
    }
    let none = Advantages {
        groups: Vec::new(),
        equal: 0,
    };
    assert_eq!(advantages(&[], Scale::Batch).unwrap(), none);
}

#[test]
fn a_reward_that_is_not_finite_is_named() {
    let error = advantages(&[vec![0.0], vec![1.0, f64::INFINITY]], Scale::Group).unwrap_err();
    let expected = NotFinite {
        group: 1,
        index: 1,
        value: f64::INFINITY,
    };
    assert_eq!(error, expected);
    assert!(
        error.to_string().contains("reward 1 of group 1 is inf"),
        "{error}"
    );
    assert!(advantages(&[vec![f64::NAN]], Scale::None).is_err());
}

proptest! {
    #[test]
    fn advantages_of_a_group_sum_to_0_and_keep_the_order(
        group in prop::collection::vec(0.0..1.0f64, 0..12)
    ) {
        for scale in [Scale::Batch, Scale::Group, Scale::None] {
            let result = advantages(std::slice::from_ref(&group), scale).unwrap();
            let values = &result.groups[0];
            prop_assert!(values.iter().sum::<f64>().abs() < 1e-9);
            for (a, x) in values.iter().zip(&group) {
                for (b, y) in values.iter().zip(&group) {
                    prop_assert!(x > y || a <= b);
                }
            }
        }
    }
}

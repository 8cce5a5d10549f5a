//! What counts as correct, and how sure a number is: [`is_correct`], [`wilson`], [`mcnemar`].

use eva_core::prompt::trim_question;
use serde::Serialize;

/// Whether an answer is the ground truth: both trimmed and in upper case, as the published scorer
/// compares them. An empty answer never is.
#[must_use]
pub fn is_correct(answer: &str, ground_truth: &str) -> bool {
    // Python trims more than Rust: the four ASCII separators too.
    let plain = |text: &str| trim_question(text).to_uppercase();
    let answer = plain(answer);
    !answer.is_empty() && answer == plain(ground_truth)
}

/// The bounds between which a share lies with 95% confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Lower bound, 0 to 1.
    pub low: f64,
    /// Upper bound, 0 to 1.
    pub high: f64,
}

/// Wilson's score interval at 95% for `correct` out of `all`. Without any, nothing is known: 0 to 1.
#[must_use]
pub fn wilson(correct: u64, all: u64) -> Interval {
    /// Standard deviations on either side that hold 95% of a normal distribution.
    const Z: f64 = 1.959_963_984_540_054;
    if all == 0 {
        return Interval {
            low: 0.0,
            high: 1.0,
        };
    }
    let n = all as f64;
    let share = (correct as f64 / n).min(1.0);
    let middle = share + Z * Z / (2.0 * n);
    let reach = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    Interval {
        low: ((middle - reach) / scale).clamp(0.0, share),
        high: ((middle + reach) / scale).clamp(share, 1.0),
    }
}

/// McNemar's exact test, two-sided: how likely it is that two equally good policies differ as much
/// as these, where `only_a` and `only_b` items are right in one run alone.
#[must_use]
pub fn mcnemar(only_a: u64, only_b: u64) -> f64 {
    let n = only_a.saturating_add(only_b);
    let fewer = only_a.min(only_b);
    // Under equality each of the n items is a coin's toss. The tail is summed in logarithms, since
    // 0.5^n is below every float for n beyond a thousand.
    let half = n as f64 * 0.5_f64.ln();
    let mut term = half;
    let mut tail = term.exp();
    for k in 0..fewer {
        term += ((n - k) as f64 / (k + 1) as f64).ln();
        tail += term.exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn near(a: f64, b: f64, tolerance: f64) -> bool {
        (a - b).abs() <= tolerance
    }

    #[test]
    fn case_and_white_space_at_the_ends_do_not_matter() {
        assert!(is_correct(" c\n", "C"));
        assert!(is_correct("None", "none "));
        assert!(is_correct("\u{1c}c\u{a0}\u{3000}", "C"));
        assert!(is_correct("straße", "STRASSE"));
        assert!(!is_correct("C.", "C"));
        assert!(!is_correct("", ""));
        assert!(!is_correct(" ", "@"));
    }

    #[test]
    fn wilsons_interval_has_the_known_values() {
        // From R: prop.test(x, n, correct = FALSE)$conf.int
        for (correct, all, low, high) in [
            (8, 10, 0.490_162_471_536_64, 0.943_317_848_545_625),
            (0, 10, 0.0, 0.277_532_799_862_889),
            (50, 100, 0.403_831_530_365_996, 0.596_168_469_634_004),
        ] {
            let interval = wilson(correct, all);
            assert!(near(interval.low, low, 1e-9), "{interval:?}");
            assert!(near(interval.high, high, 1e-9), "{interval:?}");
        }
        let nothing = wilson(0, 0);
        assert_eq!((nothing.low, nothing.high), (0.0, 1.0));
    }

    #[test]
    fn mcnemars_test_has_the_known_values() {
        // Twice the tail of a binomial distribution, which can be counted by hand.
        assert!(near(mcnemar(0, 5), 2.0 / 32.0, 1e-12));
        assert!(near(mcnemar(1, 5), 2.0 * 7.0 / 64.0, 1e-12));
        assert!(near(mcnemar(8, 2), 2.0 * 56.0 / 1024.0, 1e-12));
        assert_eq!(mcnemar(0, 0), 1.0);
        assert_eq!(mcnemar(7, 7), 1.0);
        // Where 0.5^n is below every float. The normal approximation has 0.0253 here.
        let p = mcnemar(2450, 2550) / mcnemar(2421, 2579);
        assert!(p > 1.0, "{p}");
        assert!(
            near(mcnemar(2421, 2579), 0.0264, 0.001),
            "{}",
            mcnemar(2421, 2579)
        );
    }

    proptest! {
        #[test]
        fn the_interval_holds_the_share_and_more_items_narrow_it(correct in 0u64..500, wrong in 0u64..500) {
            let all = correct + wrong;
            let interval = wilson(correct, all);
            if all > 0 {
                let share = correct as f64 / all as f64;
                prop_assert!((interval.low..=interval.high).contains(&share));
            }
            let more = wilson(correct * 10, all * 10);
            prop_assert!(more.high - more.low <= interval.high - interval.low);
        }

        #[test]
        fn a_p_value_is_a_probability_and_has_no_side(a in 0u64..3000, b in 0u64..3000) {
            let p = mcnemar(a, b);
            prop_assert!((0.0..=1.0).contains(&p));
            prop_assert_eq!(p, mcnemar(b, a));
        }
    }
}

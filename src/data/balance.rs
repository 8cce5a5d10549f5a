//! As many desirable runs as are asked for: [`balance`].

use rand::seq::index;

use super::Label;
use super::dice::{Purpose, dice};

/// Which of some labelled runs are kept, so that they have the asked share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// Their places, in order.
    pub kept: Vec<usize>,
    /// Desirable ones among them.
    pub desirable: usize,
    /// Undesirable ones among them.
    pub undesirable: usize,
    /// Whether the share can be had: not with runs of one label alone, of which all are kept.
    pub possible: bool,
}

/// The share is not one.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is no share of desirable runs: write a number between 0 and 1, such as 0.63")]
pub struct ShareError(pub f64);

/// Keeps as many runs as possible of which `share` (between 0 and 1, both excluded) are desirable,
/// to within one run. Which of the others go is drawn with `seed`.
///
/// # Errors
/// [`ShareError`] for another share.
pub fn balance(labels: &[Label], share: f64, seed: u64) -> Result<Balance, ShareError> {
    if !(share > 0.0 && share < 1.0) {
        return Err(ShareError(share));
    }
    let places = |wanted: Label| -> Vec<usize> {
        let all = labels.iter().enumerate();
        all.filter(|(_, label)| **label == wanted)
            .map(|(place, _)| place)
            .collect()
    };
    let (yes, no) = (places(Label::Desirable), places(Label::Undesirable));
    let possible = !yes.is_empty() && !no.is_empty();
    let (mut desirable, mut undesirable) = (yes.len(), no.len());
    if possible {
        let odds = share / (1.0 - share);
        let wanted = (no.len() as f64 * odds).round() as usize;
        if wanted <= yes.len() {
            desirable = wanted.max(1);
        } else {
            undesirable = ((yes.len() as f64 / odds).round() as usize).clamp(1, no.len());
        }
    }
    let mut rng = dice(seed, Purpose::Balance, 0);
    let mut kept = Vec::with_capacity(desirable + undesirable);
    for (places, count) in [(&yes, desirable), (&no, undesirable)] {
        let chosen = index::sample(&mut rng, places.len(), count);
        kept.extend(chosen.into_iter().filter_map(|at| places.get(at)));
    }
    kept.sort_unstable();
    Ok(Balance {
        kept,
        desirable,
        undesirable,
        possible,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn labels(desirable: usize, undesirable: usize) -> Vec<Label> {
        let mut labels = vec![Label::Desirable; desirable];
        labels.extend(vec![Label::Undesirable; undesirable]);
        labels
    }

    #[test]
    fn the_published_share_of_enough_runs() {
        let balanced = balance(&labels(900, 370), 0.63, 1).unwrap();
        assert_eq!((balanced.desirable, balanced.undesirable), (630, 370));
        let balanced = balance(&labels(63, 400), 0.63, 1).unwrap();
        assert_eq!((balanced.desirable, balanced.undesirable), (63, 37));
    }

    #[test]
    fn runs_of_one_label_are_all_kept_and_it_is_said() {
        let balanced = balance(&labels(5, 0), 0.63, 1).unwrap();
        assert!(!balanced.possible);
        assert_eq!(balanced.kept, [0, 1, 2, 3, 4]);
        assert!(!balance(&[], 0.63, 1).unwrap().possible);
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for share in [0.0, 1.0, -0.1, 63.0, f64::NAN] {
            let error = balance(&labels(1, 1), share, 1).unwrap_err();
            assert!(error.to_string().contains("0.63"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn the_share_is_met_to_within_a_run_and_one_label_is_kept_whole(
            mut labels in proptest::collection::vec(
                prop_oneof![Just(Label::Desirable), Just(Label::Undesirable)], 0..200),
            share in 0.05f64..0.95, seed: u64
        ) {
            labels.extend([Label::Desirable, Label::Undesirable]);
            let balanced = balance(&labels, share, seed).unwrap();
            prop_assert!(balanced.possible);
            prop_assert_eq!(balanced.kept.len(), balanced.desirable + balanced.undesirable);
            prop_assert!(balanced.kept.windows(2).all(|pair| pair[0] < pair[1]));
            let count = |label| balanced.kept.iter().filter(|at| labels[**at] == label).count();
            prop_assert_eq!(count(Label::Desirable), balanced.desirable);
            prop_assert_eq!(count(Label::Undesirable), balanced.undesirable);
            let all = |label| labels.iter().filter(|one| **one == label).count();
            let whole = balanced.desirable == all(Label::Desirable)
                || balanced.undesirable == all(Label::Undesirable);
            prop_assert!(whole);
            // Within half a run, but that one of each label stays.
            let wanted = balanced.undesirable as f64 * share / (1.0 - share);
            let fewer = balanced.desirable as f64 * (1.0 - share) / share;
            let off = (balanced.desirable as f64 - wanted).abs()
                .min((balanced.undesirable as f64 - fewer).abs());
            prop_assert!(off <= 1.0, "{off}");
            prop_assert_eq!(balance(&labels, share, seed).unwrap(), balanced);
        }
    }
}

//! Texts as they are compared: words in lower case.

use std::collections::BTreeSet;

/// The words of a text: runs of letters and digits, in lower case.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// The same words in the same order, whatever stands between them.
pub(super) fn is_same(a: &str, b: &str) -> bool {
    let a = words(a);
    !a.is_empty() && a == words(b)
}

/// The share of the words of both that both have (Jaccard), 0 to 1.
pub(super) fn overlap(a: &str, b: &str) -> f64 {
    let [a, b]: [BTreeSet<String>; 2] = [a, b].map(|text| words(text).into_iter().collect());
    let all = a.union(&b).count();
    if all == 0 {
        return 0.0;
    }
    a.intersection(&b).count() as f64 / all as f64
}

/// The first `most` characters, with a mark where more was.
pub(super) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{} ...", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn case_punctuation_and_space_do_not_matter() {
        assert!(is_same("  A red-card. ", "a RED card"));
        assert!(!is_same("a red card", "a card red"));
        assert!(!is_same("?", "!"));
    }

    #[test]
    fn overlap_is_the_share_of_common_words() {
        assert_eq!(overlap("a b c", "b c d"), 0.5);
        assert_eq!(overlap("Who wins?", "who WINS"), 1.0);
        assert_eq!(overlap("", "a"), 0.0);
    }

    proptest! {
        #[test]
        fn overlap_has_no_side_and_is_a_share(a in ".{0,40}", b in ".{0,40}", most in 0usize..50) {
            let share = overlap(&a, &b);
            prop_assert!((0.0..=1.0).contains(&share));
            prop_assert_eq!(share, overlap(&b, &a));
            prop_assert!(shortened(&a, most).chars().count() <= most.max(a.chars().count()) + 4);
        }
    }
}

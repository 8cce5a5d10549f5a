//! Two runs on the same items: [`compare`].

use std::collections::HashMap;

use serde::Serialize;

use super::score::mcnemar;
use super::{Record, Score};

/// Two runs, on the items that both have.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Comparison {
    /// The first run on the common items.
    pub a: Score,
    /// The second run on them.
    pub b: Score,
    /// Items that the first run alone has right.
    pub only_a: u64,
    /// Items that the second run alone has right.
    pub only_b: u64,
    /// How likely such a difference is between equally good policies (McNemar, exact).
    pub p: f64,
    /// Items that one run alone has. They are left out.
    pub unpaired: u64,
    /// Items with the same index and another ground truth, hence of another benchmark. They are
    /// left out.
    pub different: u64,
}

/// Compares two runs item by item. Neither may have an index twice.
pub fn compare<'a>(
    a: impl IntoIterator<Item = &'a Record>,
    b: impl IntoIterator<Item = &'a Record>,
) -> Comparison {
    let a = a.into_iter();
    let mut waiting: HashMap<u64, (bool, &str)> = a
        .map(|record| (record.index, (record.is_correct(), record.gt.as_str())))
        .collect();
    let (mut both, mut neither, mut only_a, mut only_b) = (0, 0, 0, 0);
    let (mut unpaired, mut different) = (0, 0);
    for record in b {
        match waiting.remove(&record.index) {
            None => unpaired += 1,
            Some((_, gt)) if gt != record.gt => different += 1,
            Some((right, _)) => {
                *match (right, record.is_correct()) {
                    (true, true) => &mut both,
                    (true, false) => &mut only_a,
                    (false, true) => &mut only_b,
                    (false, false) => &mut neither,
                } += 1;
            }
        }
    }
    let common = both + neither + only_a + only_b;
    Comparison {
        a: Score::new(both + only_a, common),
        b: Score::new(both + only_b, common),
        only_a,
        only_b,
        p: mcnemar(only_a, only_b),
        unpaired: unpaired + waiting.len() as u64,
        different,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn run(answers: &[(u64, &str)]) -> Vec<Record> {
        let records = answers.iter().map(|(index, answer)| Record {
            index: *index,
            gt: "A".to_owned(),
            answer: Some((*answer).to_owned()),
            ..Record::default()
        });
        records.collect()
    }

    #[test]
    fn only_items_that_both_have_are_compared() {
        let a = run(&[(0, "A"), (1, "A"), (2, "B"), (3, "A"), (9, "A"), (5, "A")]);
        let mut b = run(&[(3, "B"), (2, "A"), (1, "B"), (0, "A"), (7, "A"), (5, "A")]);
        b[5].gt = "D".to_owned();
        let compared = compare(&a, &b);
        assert_eq!((compared.a.items, compared.b.items), (4, 4));
        assert_eq!((compared.a.correct, compared.b.correct), (3, 2));
        assert_eq!((compared.only_a, compared.only_b), (2, 1));
        assert_eq!((compared.unpaired, compared.different), (2, 1));
        assert_eq!(compared.p, 1.0);
    }

    #[test]
    fn a_run_does_not_differ_from_itself_nor_from_nothing() {
        let a = run(&[(0, "A"), (1, "B")]);
        assert_eq!(compare(&a, &a).p, 1.0);
        let nothing = compare(&a, &[]);
        assert_eq!((nothing.a.items, nothing.unpaired, nothing.p), (0, 2, 1.0));
    }
}

//! Numbers of items: [`Indices`].

use std::collections::BTreeMap;

/// A set of item numbers that takes no more room for many than for few, as long as they lie side by
/// side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indices {
    /// First and last number of each stretch. Between two stretches there is a gap.
    stretches: BTreeMap<u64, u64>,
    len: u64,
}

impl Indices {
    /// Whether `index` is one of them.
    #[must_use]
    pub fn contains(&self, index: u64) -> bool {
        let before = self.stretches.range(..=index).next_back();
        before.is_some_and(|(_, last)| *last >= index)
    }

    /// Takes `index` in, and says whether it is new.
    pub fn insert(&mut self, index: u64) -> bool {
        if self.contains(index) {
            return false;
        }
        self.len += 1;
        let next = index.checked_add(1);
        let last = next.and_then(|next| self.stretches.remove(&next));
        let last = last.unwrap_or(index);
        match self.stretches.range_mut(..index).next_back() {
            Some((_, end)) if end.checked_add(1) == Some(index) => *end = last,
            _ => _ = self.stretches.insert(index, last),
        }
        true
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl FromIterator<u64> for Indices {
    fn from_iter<I: IntoIterator<Item = u64>>(indices: I) -> Self {
        let mut set = Self::default();
        indices.into_iter().for_each(|index| _ = set.insert(index));
        set
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_side_by_side_are_one_stretch_in_whatever_order_they_come() {
        let set: Indices = [4, 2, 3, 0, 1, 2].into_iter().collect();
        assert_eq!((set.len(), set.stretches.len()), (5, 1));
        let ends: Indices = [u64::MAX, 0, u64::MAX - 1, u64::MAX].into_iter().collect();
        assert_eq!((ends.len(), ends.stretches.len()), (3, 2));
        assert!(ends.contains(u64::MAX) && !ends.contains(1) && !ends.is_empty());
    }

    proptest! {
        #[test]
        fn it_holds_what_a_plain_set_holds(indices in proptest::collection::vec(0u64..60, 0..80)) {
            let (mut set, mut plain) = (Indices::default(), BTreeSet::new());
            for index in indices {
                prop_assert_eq!(set.insert(index), plain.insert(index));
            }
            prop_assert_eq!(set.len(), plain.len() as u64);
            for index in 0..62 {
                prop_assert_eq!(set.contains(index), plain.contains(&index));
            }
            let gaps = plain.iter().filter(|index| !plain.contains(&(**index + 1))).count();
            prop_assert_eq!(set.stretches.len(), gaps);
        }
    }
}

//! An order at random in which neighbours differ: [`spread`].

use std::collections::HashMap;

use rand::seq::SliceRandom as _;

use super::dice::{Purpose, dice};

/// An order of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The places of all runs, in their new order.
    pub order: Vec<usize>,
    /// How many runs follow one of the same prompt: 0 unless one prompt has more than half of all.
    pub touching: usize,
}

/// Shuffles runs with `seed` so that neighbours are not of the same prompt, if that is possible at
/// all; else so that few are. `prompts` names the prompt of each.
#[must_use]
pub fn spread(prompts: &[u64], seed: u64) -> Order {
    let mut waiting: Vec<usize> = (0..prompts.len()).collect();
    waiting.shuffle(&mut dice(seed, Purpose::Order, 0));
    let prompt = |place: usize| prompts.get(place).copied();
    let mut left: HashMap<u64, usize> = HashMap::new();
    for one in prompts {
        *left.entry(*one).or_default() += 1;
    }
    let mut order = Vec::with_capacity(prompts.len());
    let mut last = None;
    let mut touching = 0;
    while !waiting.is_empty() {
        // A prompt with more than half of what is left has to come now, or some of it will touch.
        let urgent = left
            .iter()
            .filter(|(one, count)| 2 * **count > waiting.len() && Some(**one) != last)
            .map(|(one, _)| *one)
            .next();
        let fits = |place: &usize| match urgent {
            Some(urgent) => prompt(*place) == Some(urgent),
            None => prompt(*place) != last,
        };
        let next = waiting.iter().position(fits);
        touching += usize::from(next.is_none());
        let place = waiting.remove(next.unwrap_or(0));
        last = prompt(place);
        if let Some(count) = last.and_then(|one| left.get_mut(&one)) {
            *count -= 1;
        }
        order.push(place);
    }
    Order { order, touching }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn touching(prompts: &[u64], order: &[usize]) -> usize {
        let pairs = order.windows(2);
        pairs
            .filter(|pair| prompts[pair[0]] == prompts[pair[1]])
            .count()
    }

    #[test]
    fn a_prompt_with_more_than_half_touches_itself_as_little_as_can_be() {
        let prompts = [7, 7, 7, 7, 7, 1, 2];
        let spread = spread(&prompts, 1);
        assert_eq!(spread.touching, touching(&prompts, &spread.order));
        assert_eq!(spread.touching, 2);
    }

    proptest! {
        #[test]
        fn neighbours_differ_wherever_that_is_possible(
            prompts in proptest::collection::vec(0u64..6, 0..60), seed: u64
        ) {
            let Order { order, touching: said } = spread(&prompts, seed);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..prompts.len()).collect::<Vec<_>>());
            let most = (0..6).map(|one| prompts.iter().filter(|p| **p == one).count()).max().unwrap();
            // Each of the most frequent prompt needs one of another between it and the next.
            let least = (2 * most).saturating_sub(prompts.len() + 1);
            prop_assert_eq!(touching(&prompts, &order), least);
            prop_assert_eq!(said, least);
            prop_assert_eq!(spread(&prompts, seed).order, order);
        }
    }

    #[test]
    fn another_seed_gives_another_order() {
        let prompts: Vec<u64> = (0..50).map(|place| place / 2).collect();
        assert_ne!(spread(&prompts, 1), spread(&prompts, 2));
    }
}

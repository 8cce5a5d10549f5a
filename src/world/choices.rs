//! Multiple choice: any question with four options, [`Question::choices`].

use super::draws::{Draws, purpose};
use super::{Colour, Pattern, Question, Subject};

/// What the options are called, in order.
pub(super) const LETTERS: [&str; 4] = ["A", "B", "C", "D"];
/// A pattern that no world shows.
const NO_PATTERN: &str = "rings";
/// The largest count among the options.
const MOST: u32 = 6;

impl Question {
    /// The question with four options, of which `seed` chooses the wrong ones and the order. The
    /// answer is then the letter of the right one, which is at each place equally often.
    ///
    /// Options are values that the kind could have: digits and `none`, the two colours and others, all
    /// backgrounds, counts from 0 to 6. A question that has options stays as it is.
    ///
    /// ```
    /// use eva::world::{Kind, World};
    ///
    /// let question = World::new(1).question(Kind::Order, 0).choices(7);
    /// let [a, b, c, d] = question.options.as_ref().unwrap();
    /// let options = format!(" A: {a}, B: {b}, C: {c}, D: {d}. Answer with the letter.");
    /// assert!(question.text.ends_with(&options));
    /// assert!(["A", "B", "C", "D"].contains(&question.answer.as_str()));
    /// ```
    #[must_use]
    pub fn choices(self, seed: u64) -> Self {
        if self.options.is_some() {
            return self;
        }
        // Two kinds with the same seed are not to have the right option at the same place.
        let stream = purpose::choices(self.kind as u64);
        let mut draws = Draws::new(seed, stream);
        let digits = || (0..10).map(|digit| digit.to_string()).collect();
        let (always, mut others): (Vec<String>, Vec<String>) = match self.subject {
            // `none` is always there, so that it says nothing.
            Subject::Moment(_) | Subject::Colour(_) => (vec!["none".to_owned()], digits()),
            Subject::Background(_) => {
                let patterns = Pattern::ALL.iter().map(Pattern::to_string);
                (patterns.collect(), vec![NO_PATTERN.to_owned()])
            }
            Subject::Order(pair) => {
                let all = Colour::ALL.iter().map(Colour::to_string);
                (pair.map(|colour| colour.to_string()).into(), all.collect())
            }
            Subject::Darkness { .. } => (
                Vec::new(),
                (0..=MOST).map(|count| count.to_string()).collect(),
            ),
        };
        draws.shuffle(&mut others);
        let mut options = vec![self.answer.clone()];
        for value in always.into_iter().chain(others) {
            if options.len() < LETTERS.len() && !options.contains(&value) {
                options.push(value);
            }
        }
        draws.shuffle(&mut options);
        let place = options.iter().position(|option| *option == self.answer);
        let letter = place.and_then(|place| LETTERS.get(place));
        let (Some(letter), Ok(options)) = (letter, <[String; 4]>::try_from(options)) else {
            // Every subject has more than four values, and the right one is among the options.
            return self;
        };
        let [a, b, c, d] = &options;
        Self {
            text: format!(
                "{} A: {a}, B: {b}, C: {c}, D: {d}. Answer with the letter.",
                self.text
            ),
            answer: (*letter).to_owned(),
            options: Some(options),
            ..self
        }
    }

    /// The right value, whether it is the answer itself or behind a letter.
    ///
    /// ```
    /// use eva::world::{Kind, World};
    ///
    /// let open = World::new(1).question(Kind::Find, 0);
    /// assert_eq!(open.truth(), open.answer);
    /// assert_eq!(open.clone().choices(7).truth(), open.answer);
    /// ```
    #[must_use]
    pub fn truth(&self) -> &str {
        let mut named = LETTERS.iter().zip(self.options.iter().flatten());
        let right = named.find(|(letter, _)| **letter == self.answer);
        right.map_or(&self.answer, |(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::world::{Kind, World};
    use std::collections::BTreeSet;

    #[test]
    fn options_are_four_values_with_the_right_one_at_an_even_place() {
        for &kind in Kind::ALL {
            let mut places = [0; 4];
            for seed in 0..800 {
                let open = World::new(seed).question(kind, seed);
                let question = open.clone().choices(seed);
                assert_eq!(question, open.clone().choices(seed));
                assert_eq!(question, question.clone().choices(seed + 1));
                let options = question.options.as_ref().unwrap();
                let place = options
                    .iter()
                    .position(|value| *value == open.answer)
                    .unwrap();
                assert_eq!(question.answer, LETTERS[place]);
                assert_eq!(question.truth(), open.answer);
                assert_eq!((question.kind, question.subject), (kind, open.subject));
                assert_eq!(options.iter().collect::<BTreeSet<_>>().len(), 4);
                places[place] += 1;
            }
            assert!(
                places.iter().all(|n| (150..250).contains(n)),
                "{kind:?}: {places:?}"
            );
        }
    }

    #[test]
    fn options_are_of_the_questions_kind() {
        for seed in 0..300 {
            let world = World::new(seed);
            let options = |kind| world.question(kind, seed).choices(seed).options.unwrap();
            let digit = |value: &String| value.len() == 1 && value.as_bytes()[0].is_ascii_digit();
            for kind in [Kind::At, Kind::Find, Kind::Absent] {
                let options = options(kind);
                assert_eq!(options.iter().filter(|value| digit(value)).count(), 3);
                assert!(options.contains(&"none".to_owned()));
            }
            let mut patterns = options(Kind::Background);
            patterns.sort();
            assert_eq!(patterns, ["dots", "plain", "rings", "stripes"]);
            let Subject::Order(pair) = world.question(Kind::Order, seed).subject else {
                panic!("no order")
            };
            let colours = options(Kind::Order);
            assert!(
                pair.iter()
                    .all(|colour| colours.contains(&colour.to_string()))
            );
            let counts = options(Kind::Count);
            assert!(
                counts
                    .iter()
                    .all(|value| digit(value) && value.as_str() <= "6")
            );
        }
    }

    #[test]
    fn two_kinds_with_one_seed_have_the_right_option_at_places_of_their_own() {
        let same = (0..400).filter(|&seed| {
            let world = World::new(seed);
            let place = |kind| world.question(kind, seed).choices(seed).answer;
            place(Kind::Background) == place(Kind::Count)
        });
        let same = same.count();
        assert!((70..130).contains(&same), "{same} of 400");
    }
}

//! Questions about a world, with their answers: [`World::question`].
//!
//! A new kind takes a variant of [`Kind`], a function here that makes its question, and for its
//! [`Subject`] a course of action in the script and a line in what counts as evidence.

use super::draws::{Draws, purpose};
use super::{BLINK_SECONDS, Blinks, Card, Colour, Kind, Pattern, Subject, World, clock};

/// A question about a world and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Question {
    /// Its kind.
    pub kind: Kind,
    /// What it names.
    pub subject: Subject,
    /// The question as asked, with its options.
    pub text: String,
    /// The right answer: the value itself ([`Question::truth`]), or the letter of its option.
    pub answer: String,
    /// The values that A, B, C and D stand for; `None` when the question is open-ended.
    pub options: Option<[String; 4]>,
}

impl Question {
    /// An open-ended question.
    pub(super) fn open(kind: Kind, subject: Subject, text: String, answer: String) -> Self {
        Self {
            kind,
            subject,
            text,
            answer,
            options: None,
        }
    }
}

impl World {
    /// An open-ended question of `kind`; `seed` chooses among those that the world offers.
    ///
    /// Every world offers every kind. What is asked for is spread evenly over the world's cards, and
    /// over the three backgrounds.
    #[must_use]
    pub fn question(&self, kind: Kind, seed: u64) -> Question {
        let mut draws = Draws::new(seed ^ self.seed.rotate_left(32), purpose::QUESTION);
        match (kind, draws.pick(&self.cards)) {
            (Kind::At, Some(card)) => at(card, &mut draws),
            (Kind::Find, Some(card)) => find(card),
            (Kind::Background, _) => self.background(&mut draws),
            (Kind::Order, Some(card)) => self.order(card, &mut draws),
            (Kind::Count, _) => self.count(),
            // Every world has cards; were there one without, no colour would be in it.
            (Kind::Absent, _) | (Kind::At | Kind::Find | Kind::Order, None) => {
                absent(&self.cards, &mut draws)
            }
        }
    }

    fn background(&self, draws: &mut Draws) -> Question {
        let mut patterns = Pattern::ALL;
        draws.shuffle(&mut patterns);
        // There is a moment for the first one, unless the world lacks a pattern.
        let second = patterns.into_iter().find_map(|pattern| {
            let holds = |&second: &u32| self.holds(pattern, second);
            let moments: Vec<u32> = (1..self.length.saturating_sub(3)).filter(holds).collect();
            draws.pick(&moments).copied()
        });
        let second = second.unwrap_or(0);
        Question::open(
            Kind::Background,
            Subject::Background(second),
            format!("What is the background at {}?", clock(second)),
            self.pattern_at(f64::from(second)).to_string(),
        )
    }

    /// Whether nothing but `pattern` is to be seen from a second before `second` to two after it, so
    /// that neither the answer nor the zoom hangs on a frame.
    fn holds(&self, pattern: Pattern, second: u32) -> bool {
        // Everything lasts longer than the second between two of these times, but for the dark phases.
        [-1.0, 0.0, 1.0, 2.0].into_iter().all(|later| {
            let time = f64::from(second) + later;
            let blinking = |blinks: &Blinks| {
                (f64::from(blinks.start)..f64::from(blinks.end())).contains(&time)
            };
            self.pattern_at(time) == pattern
                && self.card_at(time).is_none()
                && !self.blinks().is_some_and(blinking)
        })
    }

    fn order(&self, card: &Card, draws: &mut Draws) -> Question {
        let others: Vec<&Card> = self.cards.iter().filter(|other| *other != card).collect();
        // Every world has at least two cards; were there one alone, it would come first.
        let other = draws.pick(&others).copied().unwrap_or(card);
        let (a, b) = (card.colour, other.colour);
        let first = if card.start <= other.start { a } else { b };
        Question::open(
            Kind::Order,
            Subject::Order([a, b]),
            format!("Which card comes first, the {a} or the {b} one?"),
            first.to_string(),
        )
    }

    fn count(&self) -> Question {
        // In a video that never goes dark, its beginning does as well as any other time.
        let start = self.blinks().map_or(0, |blinks| blinks.start);
        let end = start + BLINK_SECONDS;
        Question::open(
            Kind::Count,
            Subject::Darkness { start, end },
            format!(
                "How often does the screen go dark from {} to {}?",
                clock(start),
                clock(end)
            ),
            self.blinks()
                .map_or(0, |blinks| blinks.dark.len())
                .to_string(),
        )
    }
}

fn at(card: &Card, draws: &mut Draws) -> Question {
    // Well inside the card's time, so that neither the answer nor the zoom hangs on a frame.
    let (first, last) = (
        (card.start + 2.5).ceil() as i32,
        (card.end - 2.5).floor() as i32,
    );
    let second = if first <= last {
        draws.whole(first, last)
    } else {
        ((card.start + card.end) / 2.0) as i32
    } as u32;
    Question::open(
        Kind::At,
        Subject::Moment(second),
        format!("What digit is on the card at {}?", clock(second)),
        card.digit.to_string(),
    )
}

fn find(card: &Card) -> Question {
    let digit = card.digit.to_string();
    of_colour(Kind::Find, card.colour, digit)
}

fn absent(cards: &[Card], draws: &mut Draws) -> Question {
    let shown = |colour: &Colour| cards.iter().any(|card| card.colour == *colour);
    let others: Vec<Colour> = Colour::ALL
        .into_iter()
        .filter(|colour| !shown(colour))
        .collect();
    // Six colours and at most four cards: there is always another.
    let colour = draws.pick(&others).copied().unwrap_or(Colour::White);
    of_colour(Kind::Absent, colour, "none".to_owned())
}

fn of_colour(kind: Kind, colour: Colour, answer: String) -> Question {
    let text = format!("What digit is on the {colour} card?");
    Question::open(kind, Subject::Colour(colour), text, answer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn card_of(world: &World, colour: Colour) -> Option<&Card> {
        world.cards().iter().find(|card| card.colour == colour)
    }

    #[test]
    fn questions_of_a_moment_name_one_well_inside_a_card() {
        for seed in 0..500 {
            let world = World::new(seed);
            let question = world.question(Kind::At, seed);
            let Subject::Moment(second) = question.subject else {
                panic!("{:?}", question.subject)
            };
            let time = f64::from(second);
            let card = world.card_at(time).unwrap();
            assert!(time >= card.start + 2.5 && time <= card.end - 2.5);
            assert_eq!(question.answer, card.digit.to_string());
            let expected = format!("{:02}:{:02}?", second / 60, second % 60);
            assert_eq!(
                question.text,
                format!("What digit is on the card at {expected}")
            );
        }
    }

    #[test]
    fn questions_of_a_colour_have_that_cards_digit_or_none() {
        for seed in 0..500 {
            let world = World::new(seed);
            for kind in [Kind::Find, Kind::Absent] {
                let question = world.question(kind, seed);
                let Subject::Colour(colour) = question.subject else {
                    panic!("{:?}", question.subject)
                };
                assert_eq!(question.kind, kind);
                assert_eq!(
                    question.text,
                    format!("What digit is on the {colour} card?")
                );
                let card = card_of(&world, colour);
                assert_eq!(card.is_some(), kind == Kind::Find);
                let digit = card.map_or("none".to_owned(), |card| card.digit.to_string());
                assert_eq!(question.answer, digit);
            }
        }
    }

    #[test]
    fn the_seed_chooses_the_question_and_every_card_is_asked_for() {
        let world = World::new(8);
        assert_eq!(world.question(Kind::At, 3), world.question(Kind::At, 3));
        for card in world.cards() {
            let asked = |seed| world.question(Kind::Find, seed).subject;
            assert!((0..50).any(|seed| asked(seed) == Subject::Colour(card.colour)));
        }
    }

    #[test]
    fn questions_of_the_background_name_a_moment_well_inside_and_are_even() {
        let mut counts = [0; 3];
        for seed in 0..1500 {
            let world = World::new(seed);
            let question = world.question(Kind::Background, seed);
            let Subject::Background(second) = question.subject else {
                panic!("{:?}", question.subject)
            };
            let text = format!("What is the background at {}?", clock(second));
            assert_eq!(question.text, text);
            for later in -8..=16 {
                let time = f64::from(second) + f64::from(later) / 8.0;
                assert_eq!(world.pattern_at(time).to_string(), question.answer);
                assert!(world.card_at(time).is_none() && !world.dark_at(time));
            }
            counts[world.pattern_at(f64::from(second)) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (430..570).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn questions_of_order_name_two_cards_and_either_comes_first() {
        let mut first_named = 0;
        for seed in 0..1000 {
            let world = World::new(seed);
            let question = world.question(Kind::Order, seed);
            let Subject::Order([a, b]) = question.subject else {
                panic!("{:?}", question.subject)
            };
            assert_eq!(
                question.text,
                format!("Which card comes first, the {a} or the {b} one?")
            );
            let start = |colour| card_of(&world, colour).unwrap().start;
            let first = if start(a) < start(b) { a } else { b };
            assert!(a != b && question.answer == first.to_string());
            first_named += usize::from(first == a);
        }
        assert!((440..560).contains(&first_named), "{first_named}");
    }

    #[test]
    fn questions_of_a_count_name_the_window_and_are_even() {
        let mut counts = [0; 4];
        for seed in 0..1000 {
            let world = World::new(seed);
            let question = world.question(Kind::Count, seed);
            let blinks = world.blinks().unwrap();
            let (start, end) = (blinks.start, blinks.end());
            assert_eq!(question.subject, Subject::Darkness { start, end });
            let (from, to) = (clock(start), clock(end));
            let text = format!("How often does the screen go dark from {from} to {to}?");
            assert_eq!(question.text, text);
            assert_eq!(question.answer, blinks.dark.len().to_string());
            counts[blinks.dark.len() - 1] += 1;
        }
        assert!(
            counts.iter().all(|count| (200..300).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn a_world_without_something_still_offers_every_kind() {
        let mut world = World::new(4);
        world.changes.blinks = None;
        world.changes.patterns.clear();
        let count = world.question(Kind::Count, 0);
        assert_eq!(
            (
                count.answer.as_str(),
                count.text.ends_with("00:00 to 00:08?")
            ),
            ("0", true)
        );
        assert_eq!(world.question(Kind::Background, 0).answer, "plain");
        world.cards.truncate(1);
        assert_eq!(
            world.question(Kind::Order, 0).answer,
            world.cards[0].colour.to_string()
        );
        world.cards.clear();
        for &kind in Kind::ALL {
            assert!(!world.question(kind, 1).text.is_empty());
        }
    }
}

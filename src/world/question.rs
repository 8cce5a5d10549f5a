//! Questions about a world, with their answers: [`World::question`].
//!
//! A new kind takes a variant of [`Kind`], a function here that makes its question, and a course
//! of action in the expert for its [`Subject`].

use super::draws::Draws;
use super::{Card, Colour, World, clock};

/// What a question is about, which decides how it is best answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The digit on the card at a given time: one sharp frame, no scan.
    At,
    /// The digit on the card of a given colour: a cheap scan for when, then a sharp frame.
    Find,
    /// As [`Find`](Self::Find), but no card has the colour; the answer is `none`.
    Absent,
}

impl Kind {
    /// All kinds.
    pub const ALL: &[Self] = &[Self::At, Self::Find, Self::Absent];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::At => "at",
            Self::Find => "find",
            Self::Absent => "absent",
        }
    }
}

/// What the question names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// A moment, in whole seconds.
    Moment(u32),
    /// A colour of card.
    Colour(Colour),
}

/// A question about a world and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Question {
    /// Its kind.
    pub kind: Kind,
    /// What it names.
    pub subject: Subject,
    /// The question as asked.
    pub text: String,
    /// The right answer: a digit, or `none`.
    pub answer: String,
}

impl World {
    /// A question of `kind`; `seed` chooses among those that the world offers.
    #[must_use]
    pub fn question(&self, kind: Kind, seed: u64) -> Question {
        let mut draws = Draws::new(seed ^ self.seed.rotate_left(32), 2);
        match (kind, draws.pick(&self.cards)) {
            (Kind::At, Some(card)) => at(card, &mut draws),
            (Kind::Find, Some(card)) => find(card),
            // Every world has cards; were there one without, no colour would be in it.
            (Kind::Absent, _) | (Kind::At | Kind::Find, None) => absent(&self.cards, &mut draws),
        }
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
    Question {
        kind: Kind::At,
        subject: Subject::Moment(second),
        text: format!("What digit is on the card at {}?", clock(second)),
        answer: card.digit.to_string(),
    }
}

fn find(card: &Card) -> Question {
    Question {
        kind: Kind::Find,
        subject: Subject::Colour(card.colour),
        text: of_colour(card.colour),
        answer: card.digit.to_string(),
    }
}

fn absent(cards: &[Card], draws: &mut Draws) -> Question {
    let shown = |colour: &Colour| cards.iter().any(|card| card.colour == *colour);
    let others: Vec<Colour> = Colour::ALL
        .into_iter()
        .filter(|colour| !shown(colour))
        .collect();
    // Six colours and at most four cards: there is always another.
    let colour = draws.pick(&others).copied().unwrap_or(Colour::White);
    Question {
        kind: Kind::Absent,
        subject: Subject::Colour(colour),
        text: of_colour(colour),
        answer: "none".to_owned(),
    }
}

fn of_colour(colour: Colour) -> String {
    format!("What digit is on the {colour} card?")
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
}

//! Synthetic videos with ground truth, the same for a seed on every machine: [`World`].
//!
//! A world is 2 to 15 minutes of grey background with muted shapes that drift about. Now and then
//! a coloured card with a digit is shown for a while; in between the background has a pattern for
//! some time ([`PatternSpan`]), and once the screen goes dark a few times ([`Blinks`]).
//! Each kind of question ([`Question`]) needs other looks, which a scripted [`Expert`] shows. A
//! [`Teacher`] has the bad habits that training is to get rid of.
//!
//! Any frame can be drawn at once, without decoding anything, which is what training does;
//! with the feature `gst`, `World::encode` writes the same video as a real MP4.
//!
//! ```
//! use eva::world::{Kind, Split, World};
//!
//! let world = World::new(Split::Train.seed(1));
//! let question = world.question(Kind::Find, 0);
//! println!("{} ({})", question.text, question.answer);
//! # assert!(question.text.starts_with("What digit is on the "));
//! ```

mod card;
mod changes;
mod choices;
mod colour;
mod draws;
#[cfg(feature = "gst")]
mod encode;
mod evidence;
mod expert;
mod font;
mod kind;
mod look;
mod pattern;
mod question;
mod render;
mod report;
mod script;
mod source;
mod split;
mod teacher;

pub use card::Card;
use changes::Changes;
pub use changes::{BLINK_SECONDS, Blinks, MOST_BLINKS, Pattern, PatternSpan};
pub use colour::Colour;
use draws::{Draws, purpose};
#[cfg(feature = "gst")]
pub use encode::EncodeError;
pub use evidence::seen;
pub use expert::Expert;
pub use kind::{Kind, Subject};
pub use look::{SCAN_FRAMES, ZOOM_SECONDS, clock, stated_length};
pub use question::Question;
use render::Scenery;
pub use report::{conclusion, count_report, order_report, report};
pub use source::{WorldSource, WorldSourceError};
pub use split::Split;
pub use teacher::{Flaw, Habit, Habits, Teacher};

/// Width of every world in pixels: 8 patches of 28.
pub const WIDTH: u32 = 224;
/// Height of every world in pixels: 6 patches of 28.
pub const HEIGHT: u32 = 168;
/// Frames a second.
pub const FPS: u32 = 8;
/// Side of a card in pixels: 3 patches of 28.
pub const CARD_SIZE: u32 = 84;

/// Side of the grid that cards are placed on: the pixels that become one visual token.
const PATCH: u32 = 28;
/// Layouts tried until every card can be read by the expert; the first few nearly always do.
const LAYOUTS: u64 = 100;

/// A synthetic video: what it shows at any time, and the truth about it.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    seed: u64,
    length: u32,
    cards: Vec<Card>,
    changes: Changes,
    scenery: Scenery,
}

impl World {
    /// The world of a seed; see [`Split`] for which seeds to use for what.
    ///
    /// Its length is 120 to 900 whole seconds. It has 2 to 4 cards of different colours, one on
    /// screen at a time with at least 3 s between them, none in the first second or the last two,
    /// each shown for 1.2 to 1.9 times the spacing of a 16-frame scan (but 90 s at most): the scan
    /// meets every card once or twice. Patterns and dark screens keep 1.5 s away from cards, and 2 s
    /// from each other.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let length = Draws::new(seed, purpose::LENGTH).whole(120, 900);
        let duration = f64::from(length);
        let mut cards = Vec::new();
        for attempt in 1..=LAYOUTS {
            cards = card::lay_out(length, &mut Draws::new(seed, purpose::cards(attempt)));
            // A card can leave in the second after the first scan frame that shows it; such a layout
            // would have no right course of action, so it is drawn anew.
            let readable =
                |card| look::sight(duration, card).is_some_and(|sighting| sighting.readable);
            if cards.iter().all(readable) {
                break;
            }
        }
        Self {
            seed,
            length: length as u32,
            changes: Changes::new(seed, length, &cards),
            cards,
            scenery: Scenery::new(&mut Draws::new(seed, purpose::SCENERY)),
        }
    }

    /// The seed it was made of.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Length in seconds, a whole number.
    #[must_use]
    pub fn duration(&self) -> f64 {
        f64::from(self.length)
    }

    /// Number of frames.
    #[must_use]
    pub const fn frame_count(&self) -> u32 {
        self.length * FPS
    }

    /// Number of the frame on display at `time` (seconds); times beyond an end give that end.
    #[must_use]
    pub fn frame_at(&self, time: f64) -> u32 {
        // The cast sends negative times and NaN to 0.
        ((time * f64::from(FPS)) as u32).min(self.frame_count().saturating_sub(1))
    }

    /// The cards in order of time.
    #[must_use]
    pub fn cards(&self) -> &[Card] {
        &self.cards
    }

    /// The card that the frame on display at `time` (seconds) shows.
    #[must_use]
    pub fn card_at(&self, time: f64) -> Option<&Card> {
        let time = f64::from(self.frame_at(time)) / f64::from(FPS);
        self.cards.iter().find(|card| card.shows_at(time))
    }

    /// The times at which the background has a pattern, in order. Every world of the published
    /// splits has stripes and dots at least once, for 10 to 60 s; short ones full of cards make do
    /// with 5 s.
    #[must_use]
    pub fn patterns(&self) -> &[PatternSpan] {
        &self.changes.patterns
    }

    /// The background of the frame on display at `time` (seconds).
    #[must_use]
    pub fn pattern_at(&self, time: f64) -> Pattern {
        let mut spans = self.changes.patterns.iter();
        let time = f64::from(self.frame_at(time)) / f64::from(FPS);
        let span = spans.find(|span| span.shows_at(time));
        span.map_or(Pattern::Plain, |span| span.pattern)
    }

    /// When the screen goes dark, if it does.
    #[must_use]
    pub const fn blinks(&self) -> Option<&Blinks> {
        self.changes.blinks.as_ref()
    }

    /// Whether the frame on display at `time` (seconds) is dark.
    #[must_use]
    pub fn dark_at(&self, time: f64) -> bool {
        let time = f64::from(self.frame_at(time)) / f64::from(FPS);
        self.blinks().is_some_and(|blinks| blinks.dark_at(time))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn worlds() -> impl Iterator<Item = World> {
        (0..2000).map(|index| World::new(Split::Dev.seed(index)))
    }

    #[test]
    fn a_seed_gives_the_same_world_and_another_seed_another() {
        assert_eq!(World::new(5), World::new(5));
        assert_ne!(World::new(5), World::new(6));
    }

    #[test]
    fn lengths_fill_two_to_fifteen_minutes() {
        let lengths: Vec<f64> = worlds().map(|world| world.duration()).collect();
        assert!(
            lengths
                .iter()
                .all(|length| (120.0..=900.0).contains(length))
        );
        assert!(lengths.iter().any(|&length| length < 130.0));
        assert!(lengths.iter().any(|&length| length > 890.0));
    }

    #[test]
    fn cards_are_apart_in_time_inside_the_video_and_of_different_colours() {
        for world in worlds() {
            let cards = world.cards();
            assert!((2..=4).contains(&cards.len()));
            for pair in cards.windows(2) {
                assert!(pair[0].end + 3.0 <= pair[1].start, "seed {}", world.seed());
            }
            for (index, card) in cards.iter().enumerate() {
                assert!(card.start >= 1.0 && card.end <= world.duration() - 2.0);
                let (lasts, slot) = (card.end - card.start, world.duration() / 15.0);
                assert!((4.0..=90.0).contains(&lasts));
                assert!(lasts >= (1.2 * slot).min(90.0) && lasts <= 1.9 * slot);
                assert!(card.digit <= 9);
                assert!(card.x + CARD_SIZE <= WIDTH && card.y + CARD_SIZE <= HEIGHT);
                for edge in [card.x, card.y] {
                    assert!(edge % PATCH <= 2 || edge % PATCH >= PATCH - 2);
                }
                let same = |other: &&Card| other.colour == card.colour;
                assert_eq!(cards.iter().filter(same).count(), 1, "card {index}");
            }
        }
    }

    #[test]
    fn every_card_is_met_by_the_scan_once_or_twice_and_can_then_be_read() {
        for world in worlds() {
            let scan = look::scan(world.duration(), SCAN_FRAMES);
            for card in world.cards() {
                let times = scan.times().filter(|&time| card.shows_at(time)).count();
                assert!((1..=2).contains(&times), "seed {}", world.seed());
                assert!(look::sight(world.duration(), card).unwrap().readable);
            }
        }
    }

    #[test]
    fn a_card_is_on_screen_from_its_start_to_just_before_its_end() {
        let world = World::new(1);
        let card = &world.cards()[0];
        assert_eq!(world.card_at(card.start), Some(card));
        assert_eq!(world.card_at(card.end - 0.001), Some(card));
        assert_eq!(world.card_at(card.end), None);
        assert_eq!(world.card_at(card.start - 0.001), None);
        assert_eq!(world.card_at(0.0), None);
    }

    #[test]
    fn times_beyond_the_ends_give_the_frame_at_that_end() {
        let world = World::new(1);
        let last = world.frame_count() - 1;
        assert_eq!(world.frame_at(-3.0), 0);
        assert_eq!(world.frame_at(f64::NAN), 0);
        assert_eq!(world.frame_at(0.1249), 0);
        assert_eq!(world.frame_at(0.125), 1);
        assert_eq!(world.frame_at(1e12), last);
        assert_eq!(world.frame_at(world.duration()), last);
    }
}

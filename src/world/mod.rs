//! Synthetic videos with ground truth, the same for a seed on every machine: [`World`].
//!
//! A world is 2 to 15 minutes of grey background with muted shapes that drift about. Now and then
//! a coloured card with a digit is shown for a while. Questions about the cards ([`Question`])
//! need a sharp look at the right moment, which a scripted [`Expert`] shows how to find.
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

mod draws;
#[cfg(feature = "gst")]
mod encode;
mod expert;
mod font;
mod look;
mod question;
mod render;
mod source;
mod split;

use core::fmt;

use draws::Draws;
#[cfg(feature = "gst")]
pub use encode::EncodeError;
pub use expert::{Expert, report};
pub use look::{SCAN_FRAMES, ZOOM_SECONDS, clock, stated_length};
pub use question::{Kind, Question, Subject};
use render::Scenery;
pub use source::{WorldSource, WorldSourceError};
pub use split::Split;

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
/// Frames between two cards, at least.
const GAP: i32 = 3 * FPS as i32;
/// Layouts tried until every card can be read by the expert; the first few nearly always do.
const LAYOUTS: u64 = 100;

/// Colour of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Colour {
    /// Red.
    Red,
    /// Green.
    Green,
    /// Blue.
    Blue,
    /// Yellow.
    Yellow,
    /// Purple.
    Purple,
    /// White.
    White,
}

impl Colour {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Red,
        Self::Green,
        Self::Blue,
        Self::Yellow,
        Self::Purple,
        Self::White,
    ];

    /// Red, green and blue of the card before the video's noise.
    #[must_use]
    pub const fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [222, 40, 40],
            Self::Green => [40, 185, 70],
            Self::Blue => [45, 95, 235],
            Self::Yellow => [238, 215, 45],
            Self::Purple => [175, 50, 205],
            Self::White => [245, 245, 245],
        }
    }
}

/// The name as questions spell it: lower case.
impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Red => "red",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Yellow => "yellow",
            Self::Purple => "purple",
            Self::White => "white",
        })
    }
}

/// A card and when it is on screen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Card {
    /// Its colour, which no other card of the video has.
    pub colour: Colour,
    /// The digit on it, 0 to 9.
    pub digit: u8,
    /// Time of the first frame that shows it, in seconds.
    pub start: f64,
    /// Time of the first frame that no longer shows it, in seconds.
    pub end: f64,
    /// Left edge in pixels.
    pub x: u32,
    /// Top edge in pixels.
    pub y: u32,
}

impl Card {
    /// Whether the frame on display at `time` (seconds) shows the card.
    #[must_use]
    pub fn shows_at(&self, time: f64) -> bool {
        // Cards come and go on frame boundaries, so the time need not be rounded down to one.
        (self.start..self.end).contains(&time)
    }
}

/// A synthetic video: what it shows at any time, and the truth about it.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    seed: u64,
    length: u32,
    cards: Vec<Card>,
    scenery: Scenery,
}

impl World {
    /// The world of a seed; see [`Split`] for which seeds to use for what.
    ///
    /// Its length is 120 to 900 whole seconds. It has 2 to 4 cards of different colours, one on
    /// screen at a time with at least 3 s between them, none in the first second or the last two,
    /// each shown for 1.2 to 1.9 times the spacing of a 16-frame scan (but 90 s at most): the scan
    /// meets every card once or twice.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let length = Draws::new(seed, 0).whole(120, 900);
        let duration = f64::from(length);
        let mut cards = Vec::new();
        for attempt in 1..=LAYOUTS {
            cards = lay_out(length, &mut Draws::new(seed, attempt << 8));
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
            cards,
            scenery: Scenery::new(&mut Draws::new(seed, 1)),
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
}

/// Draws the cards of a video of `length` seconds.
fn lay_out(length: i32, draws: &mut Draws) -> Vec<Card> {
    let fps = FPS as i32;
    let count = draws.whole(2, 4);
    let mut colours = Colour::ALL.to_vec();
    // In frames: 1.2 and 1.9 times a 15th of the video.
    let (shortest, longest) = (length * fps * 12 / 150 + 1, length * fps * 19 / 150);
    let lasting: Vec<i32> = (0..count)
        .map(|_| draws.whole(shortest, longest).clamp(4 * fps, 90 * fps))
        .collect();
    // The time left over is shared out at random before, between and after the cards.
    let room = (length - 3) * fps - lasting.iter().sum::<i32>() - GAP * (count - 1);
    let mut waits: Vec<i32> = (0..count).map(|_| draws.whole(0, room)).collect();
    waits.sort_unstable();

    let mut taken = fps;
    let mut cards = Vec::new();
    for (lasts, wait) in lasting.into_iter().zip(waits) {
        let start = taken + wait;
        taken += lasts + GAP;
        let index = draws.whole(0, colours.len() as i32 - 1) as usize;
        cards.push(Card {
            colour: colours.swap_remove(index),
            digit: draws.whole(0, 9) as u8,
            start: f64::from(start) / f64::from(fps),
            end: f64::from(start + lasts) / f64::from(fps),
            x: place(draws, WIDTH),
            y: place(draws, HEIGHT),
        });
    }
    cards
}

/// Left or top edge of a card in a frame that is `side` pixels long: on the grid, give or take 2.
fn place(draws: &mut Draws, side: u32) -> u32 {
    let last = (side - CARD_SIZE) as i32;
    let patch = PATCH as i32;
    let edge = draws.whole(0, last / patch) * patch + draws.whole(-2, 2);
    edge.clamp(0, last) as u32
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
            let scan = look::scan(world.duration());
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

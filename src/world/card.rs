//! Cards and when they are on screen: [`Card`].

use super::draws::Draws;
use super::{CARD_SIZE, Colour, FPS, HEIGHT, PATCH, WIDTH};

/// Frames between two cards, at least.
const GAP: i32 = 3 * FPS as i32;

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

/// Draws the cards of a video of `length` seconds.
pub(super) fn lay_out(length: i32, draws: &mut Draws) -> Vec<Card> {
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

//! Where the agent's tool looks for given arguments, as arithmetic: the scan, its labels, the zoom.

use eva_core::Selection;

use super::{Card, HEIGHT, WIDTH};

/// Frames of the expert's scan of a whole video.
pub const SCAN_FRAMES: u32 = 16;

/// Length of the window the expert zooms into, in seconds. Its one frame is the window's middle.
pub const ZOOM_SECONDS: u32 = 2;

/// The video length that the protocol's prompt states, in seconds.
#[must_use]
pub fn stated_length(duration: f64) -> u32 {
    (duration - 0.5).max(1.0) as u32
}

/// `mm:ss`, minutes unbounded, as the protocol labels frames.
#[must_use]
pub fn clock(seconds: u32) -> String {
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

/// What the tool watches for a window a model asked for, at full size.
pub(super) fn watched(duration: f64, start: u32, end: u32, nframes: u32) -> Selection {
    let end = f64::from(end).min(duration);
    Selection::uniform(f64::from(start), end, nframes, WIDTH, HEIGHT)
}

/// A scan of a whole video.
pub(super) fn scan(duration: f64, nframes: u32) -> Selection {
    watched(duration, 0, stated_length(duration), nframes)
}

/// The time of the one frame that a zoom at `start` fetches.
pub(super) fn zoom_time(duration: f64, start: u32) -> f64 {
    watched(duration, start, start + ZOOM_SECONDS, 1).time(0)
}

/// The scan frame in which a card is first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sighting {
    /// The frame's label, in seconds.
    pub(super) label: u32,
    /// Whether the zoom at that label shows the card too.
    pub(super) readable: bool,
}

/// The first scan frame that shows `card`; `None` when the whole scan misses it.
pub(super) fn sight(duration: f64, card: &Card) -> Option<Sighting> {
    let scan = scan(duration, SCAN_FRAMES);
    let index = scan.times().position(|time| card.shows_at(time))?;
    let label = scan.label_seconds(index as u32) as u32;
    Some(Sighting {
        label,
        readable: card.shows_at(zoom_time(duration, label)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::world::Colour;

    #[test]
    fn states_the_length_as_the_published_prompt_does() {
        assert_eq!(stated_length(600.0), 599);
        assert_eq!(stated_length(0.2), 1);
        assert_eq!(stated_length(10.6), 10);
    }

    #[test]
    fn clock_minutes_are_unbounded() {
        assert_eq!(clock(195), "03:15");
        assert_eq!(clock(4503), "75:03");
    }

    #[test]
    fn a_card_is_seen_in_the_first_scan_frame_that_shows_it() {
        let card = |start: f64, end: f64| Card {
            colour: Colour::Red,
            digit: 7,
            start,
            end,
            x: 0,
            y: 0,
        };
        // Scan frames of a 600 s video come every 39.93 s, labelled 0, 39, 79, 119, ...
        let both = sight(600.0, &card(30.0, 85.0)).unwrap();
        assert_eq!((both.label, both.readable), (39, true));
        let gone = sight(600.0, &card(35.0, 40.0)).unwrap();
        assert_eq!((gone.label, gone.readable), (39, false));
        assert_eq!(sight(600.0, &card(41.0, 60.0)), None);
    }
}

//! Rules on single looks: is a call worth its frames? [`Limits`] finds its [`Fault`]s.

use eva_core::{Selection, VideoInfo};
use serde::{Deserialize, Serialize};

use super::text::words;

/// Where a look is too much or too little. Times are seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Frames that are never too many.
    pub few: u32,
    /// Frames a second above which more than [`few`](Self::few) are too many.
    pub max_rate: f64,
    /// From this length on, a window is a scan.
    pub long: f64,
    /// Longest time between two frames of a scan.
    pub max_gap: f64,
    /// Up to this length, a window is a look at details.
    pub short: f64,
    /// Least share of the video's sides that a look at details has.
    pub min_side: f64,
    /// The same when the question asks to read something.
    pub min_side_reading: f64,
    /// Shorter side in pixels that is always enough.
    pub enough_side: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            few: 8,
            max_rate: 2.0,
            long: 120.0,
            max_gap: 60.0,
            short: 30.0,
            min_side: 0.25,
            min_side_reading: 0.5,
            enough_side: 448,
        }
    }
}

/// What is wrong with a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The window was watched before, as sharply and as densely at least.
    Rewatched,
    /// More frames than the window can show anything new in.
    TooDense,
    /// Frames too small for what a look at details is for: the budget is too small for the question.
    TooSmall,
    /// Frames so far apart that a scan passes over whole events.
    TooSparse,
}

/// Words of questions that ask to read something.
const READING: [&str; 20] = [
    "caption", "digit", "digits", "label", "letter", "letters", "number", "numbers", "price",
    "read", "reads", "say", "says", "score", "sign", "text", "title", "word", "words", "written",
];

/// By how many seconds a window may lie outside one that was watched.
const SLACK: f64 = 0.5;

impl Limits {
    /// What is wrong with `look`, planned for `question` after the looks of `before`.
    #[must_use]
    pub fn faults(
        &self,
        question: &str,
        info: &VideoInfo,
        before: &[Selection],
        look: &Selection,
    ) -> Vec<Fault> {
        let length = length(look);
        let frames = f64::from(look.nframes);
        let mut faults = Vec::new();
        if before.iter().any(|earlier| covers(earlier, look)) {
            faults.push(Fault::Rewatched);
        }
        if look.nframes > self.few && frames > self.max_rate * length {
            faults.push(Fault::TooDense);
        }
        if length <= self.short && self.is_too_small(question, info, look) {
            faults.push(Fault::TooSmall);
        }
        if length >= self.long && length / frames > self.max_gap {
            faults.push(Fault::TooSparse);
        }
        faults
    }

    fn is_too_small(&self, question: &str, info: &VideoInfo, look: &Selection) -> bool {
        let side = look.width.min(look.height);
        let reads = words(question)
            .iter()
            .any(|word| READING.contains(&word.as_str()));
        let share = if reads {
            self.min_side_reading
        } else {
            self.min_side
        };
        // Sides are rounded to whole patches, which can take half a patch from them.
        let least =
            share * f64::from(info.shorter_side()) - f64::from(eva_core::selection::PATCH) / 2.0;
        side < self.enough_side && f64::from(side) < least
    }
}

impl Fault {
    /// What a thinker says of it.
    #[must_use]
    pub const fn objection(self) -> &'static str {
        match self {
            Self::Rewatched => {
                "This window was already watched at least as sharply and as densely: nothing new can \
                 be seen there."
            }
            Self::TooDense => {
                "These are more frames than so short a window can show anything new in: ask for \
                 fewer."
            }
            Self::TooSmall => {
                "At this size the details that the question is about can't be seen: look more \
                 sharply, at fewer frames if need be."
            }
            Self::TooSparse => {
                "With so few frames for so long a window whole events are passed over: ask for more \
                 frames, small ones if need be, or for a shorter window."
            }
        }
    }
}

fn length(look: &Selection) -> f64 {
    (look.end - look.start).max(0.0)
}

/// Whether `earlier` shows all that `look` would.
fn covers(earlier: &Selection, look: &Selection) -> bool {
    let spacing = |of: &Selection| length(of) / f64::from(of.nframes.max(1));
    earlier.start <= look.start + SLACK
        && earlier.end >= look.end - SLACK
        && earlier.width >= look.width
        && earlier.height >= look.height
        && spacing(earlier) <= spacing(look) + SLACK
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const INFO: VideoInfo = VideoInfo {
        duration: 1000.0,
        width: 1280,
        height: 720,
        fps: 25.0,
    };

    fn look(start: f64, end: f64, nframes: u32, resize: f64) -> Selection {
        let side = |pixels: f64| ((pixels * resize / 28.0).round() as u32).max(1) * 28;
        Selection::uniform(start, end, nframes, side(1280.0), side(720.0))
    }

    fn faults(question: &str, before: &[Selection], look: Selection) -> Vec<Fault> {
        Limits::default().faults(question, &INFO, before, &look)
    }

    #[test]
    fn a_scan_and_a_sharp_look_are_fine() {
        let scan = look(0.0, 1000.0, 32, 0.1);
        assert_eq!(faults("Who wins?", &[], scan), []);
        let sharp = look(500.0, 510.0, 8, 1.0);
        assert_eq!(faults("What number is on the shirt?", &[scan], sharp), []);
        // Twice as dense as what was seen.
        assert_eq!(faults("Who?", &[scan], look(0.0, 1000.0, 64, 0.1)), []);
    }

    #[test]
    fn many_frames_in_a_short_window_are_too_dense() {
        assert_eq!(
            faults("Who?", &[], look(10.0, 14.0, 9, 1.0)),
            [Fault::TooDense]
        );
        assert_eq!(faults("Who?", &[], look(10.0, 14.0, 8, 1.0)), []);
        assert_eq!(faults("Who?", &[], look(10.0, 20.0, 20, 1.0)), []);
    }

    #[test]
    fn few_frames_in_a_long_window_are_too_sparse() {
        assert_eq!(
            faults("Who?", &[], look(0.0, 1000.0, 16, 0.1)),
            [Fault::TooSparse]
        );
        assert_eq!(faults("Who?", &[], look(0.0, 119.0, 1, 0.1)), []);
    }

    #[test]
    fn small_frames_are_too_small_for_details_and_more_so_for_reading() {
        assert_eq!(
            faults("Who?", &[], look(0.0, 20.0, 4, 0.1)),
            [Fault::TooSmall]
        );
        let middle = look(0.0, 20.0, 4, 0.3);
        assert_eq!(faults("Who?", &[], middle), []);
        assert_eq!(
            faults("What does the sign say?", &[], middle),
            [Fault::TooSmall]
        );
        assert_eq!(
            faults("What does the sign say?", &[], look(0.0, 20.0, 4, 0.5)),
            []
        );
    }

    #[test]
    fn the_same_window_again_is_rewatched_unless_it_is_sharper_or_denser() {
        let before = [look(100.0, 110.0, 4, 0.5)];
        assert_eq!(faults("Who?", &before, before[0]), [Fault::Rewatched]);
        assert_eq!(
            faults("Who?", &before, look(100.0, 110.0, 2, 0.5)),
            [Fault::Rewatched]
        );
        assert_eq!(faults("Who?", &before, look(100.0, 110.0, 4, 1.0)), []);
        assert_eq!(faults("Who?", &before, look(100.0, 110.0, 8, 0.5)), []);
        assert_eq!(faults("Who?", &before, look(90.0, 110.0, 4, 0.5)), []);
    }

    proptest! {
        #[test]
        fn a_look_repeated_is_always_rewatched(
            start in 0.0f64..1000.0, length in 0.0f64..1000.0, nframes in 1u32..2000, resize in 0.01f64..1.0
        ) {
            let one = look(start, start + length, nframes, resize);
            prop_assert!(faults("?", &[one], one).contains(&Fault::Rewatched));
            // Too dense and too sparse exclude each other.
            let both = faults("?", &[], one);
            prop_assert!(!(both.contains(&Fault::TooDense) && both.contains(&Fault::TooSparse)));
        }
    }
}

//! Whether frames suffice to know an answer: [`Question::seen_by`].

use eva_core::Trajectory;
use eva_core::trajectory::{ImageRecord, PartRecord};

use super::{Card, Question, SCAN_FRAMES, Subject, World};

/// Height in pixels from which a digit can be read.
const LEGIBLE_HEIGHT: u32 = 100;
/// Width in pixels from which stripes can be told from dots.
const PATTERN_WIDTH: u32 = 112;

/// The frames that a run was shown.
#[must_use]
pub fn seen(trajectory: &Trajectory) -> Vec<ImageRecord> {
    let parts = trajectory
        .messages
        .iter()
        .flat_map(|message| &message.parts);
    let images = parts.filter_map(|part| match part {
        PartRecord::Image(image) => Some(*image),
        PartRecord::Text(_) => None,
    });
    images.collect()
}

impl Question {
    /// Whether `frames` of `world`, shown in any order, suffice to know the answer.
    ///
    /// - A digit is read from a frame that shows the card and is at least 100 pixels high.
    /// - That a card is not there takes frames of the whole video, no further apart than the shortest
    ///   card lasts.
    /// - The background is told from a frame at least 112 pixels wide, of a time from which on it has
    ///   not changed.
    /// - Which card comes first takes a frame of it, and either one of the other, or frames before it
    ///   that cannot have missed the other.
    /// - How often it goes dark takes frames within the window among which it does so as often.
    #[must_use]
    pub fn seen_by(&self, world: &World, frames: &[ImageRecord]) -> bool {
        let of_colour = |wanted| world.cards().iter().find(|card| card.colour == wanted);
        let times = |card: &Card| {
            let times = frames.iter().map(|frame| frame.time);
            times
                .filter(|&time| card.shows_at(time))
                .fold(f64::INFINITY, f64::min)
        };
        match self.subject {
            Subject::Moment(second) => read(world, world.card_at(f64::from(second)), frames),
            Subject::Colour(colour) => read(world, of_colour(colour), frames),
            Subject::Background(second) => frames.iter().any(|frame| {
                frame.width >= PATTERN_WIDTH
                    && !world.dark_at(frame.time)
                    && unchanged(world, f64::from(second), frame.time)
            }),
            Subject::Order(pair) => match pair.map(of_colour) {
                [Some(a), Some(b)] => {
                    let (first, second) = if a.start <= b.start { (a, b) } else { (b, a) };
                    let met = times(first);
                    met.is_finite() && (times(second).is_finite() || dense(world, frames, met))
                }
                _ => dense(world, frames, world.duration()),
            },
            Subject::Darkness { start, end } => {
                let window = f64::from(start)..=f64::from(end);
                let mut times: Vec<f64> = frames.iter().map(|frame| frame.time).collect();
                times.retain(|time| window.contains(time));
                times.sort_by(f64::total_cmp);
                let dark: Vec<bool> = times.iter().map(|&time| world.dark_at(time)).collect();
                let first = usize::from(dark.first() == Some(&true));
                let begun = |pair: &&[bool]| matches!(pair, [false, true]);
                let counted = first + dark.windows(2).filter(begun).count();
                !dark.is_empty() && counted.to_string() == self.truth()
            }
        }
    }
}

/// Whether the digit of `card` was read; without a card, whether it is known that there is none.
fn read(world: &World, card: Option<&Card>, frames: &[ImageRecord]) -> bool {
    match card {
        Some(card) => frames
            .iter()
            .any(|frame| frame.height >= LEGIBLE_HEIGHT && card.shows_at(frame.time)),
        None => dense(world, frames, world.duration()),
    }
}

/// Whether no card can be missed by `frames` from the beginning to `end` seconds.
fn dense(world: &World, frames: &[ImageRecord], end: f64) -> bool {
    // Every card lasts 1.2 times the spacing of the expert's scan, or longer.
    let shortest = 1.2 * world.duration() / f64::from(SCAN_FRAMES - 1);
    let mut times: Vec<f64> = frames.iter().map(|frame| frame.time).collect();
    times.retain(|time| *time <= end);
    let some = !times.is_empty();
    times.extend([0.0, end]);
    times.sort_by(f64::total_cmp);
    some && times
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if b - a <= shortest))
}

/// Whether the background is the same from one time to another, in either order.
fn unchanged(world: &World, a: f64, b: f64) -> bool {
    let (from, to) = (a.min(b), a.max(b));
    let mut edges = world
        .patterns()
        .iter()
        .flat_map(|span| [span.start, span.end]);
    !edges.any(|edge| from < edge && edge <= to)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::world::{Kind, look};

    fn frame(time: f64, width: u32, height: u32) -> ImageRecord {
        ImageRecord {
            time,
            width,
            height,
        }
    }

    fn small(times: impl Iterator<Item = f64>) -> Vec<ImageRecord> {
        times.map(|time| frame(time, 28, 28)).collect()
    }

    #[test]
    fn a_digit_takes_a_legible_frame_of_the_card() {
        for seed in 0..200 {
            let world = World::new(seed);
            for kind in [Kind::At, Kind::Find] {
                let question = world.question(kind, seed);
                let seen = |frames: &[ImageRecord]| question.seen_by(&world, frames);
                let mut cards = world.cards().iter();
                let right = match question.subject {
                    Subject::Colour(colour) => cards.find(|card| card.colour == colour),
                    _ => cards.find(|card| card.digit.to_string() == question.answer),
                };
                let Some(card) = right else { panic!("no card") };
                let inside = match question.subject {
                    Subject::Moment(second) => f64::from(second),
                    _ => card.start,
                };
                assert!(seen(&[frame(inside, 224, 168)]));
                assert!(!seen(&[frame(inside, 112, 84), frame(0.0, 224, 168)]));
                assert!(!seen(&small(look::scan(world.duration(), 16).times())));
                assert!(!seen(&[]));
            }
        }
    }

    #[test]
    fn that_there_is_no_card_takes_a_scan_without_gaps() {
        for seed in 0..200 {
            let world = World::new(seed);
            let question = world.question(Kind::Absent, seed);
            let seen = |frames: &[ImageRecord]| question.seen_by(&world, frames);
            let scan = small(look::scan(world.duration(), 16).times());
            assert!(seen(&scan));
            assert!(!seen(&[&scan[..5], &scan[7..]].concat()));
            assert!(!seen(&small(look::scan(world.duration(), 8).times())));
            assert!(!seen(&[]));
        }
    }

    #[test]
    fn a_background_takes_a_frame_of_its_time_that_is_large_enough() {
        for seed in 0..300 {
            let world = World::new(seed);
            let question = world.question(Kind::Background, seed);
            let Subject::Background(second) = question.subject else {
                panic!("no background")
            };
            let time = f64::from(second);
            let seen = |time, width| question.seen_by(&world, &[frame(time, width, width * 3 / 4)]);
            assert!(seen(time, 112) && seen(time + 1.0, 224) && !seen(time, 84));
            let mut spans = world.patterns().iter();
            if let Some(span) = spans.find(|span| span.shows_at(time)) {
                assert!(seen(span.start, 112) && seen(span.end - 0.125, 112));
                assert!(!seen(span.start - 0.125, 112) && !seen(span.end, 112));
            }
        }
    }

    #[test]
    fn an_order_takes_both_cards_or_nothing_missed_before_the_first() {
        for seed in 0..200 {
            let world = World::new(seed);
            let question = world.question(Kind::Order, seed);
            let Subject::Order(pair) = question.subject else {
                panic!("no order")
            };
            let of = |colour| {
                world
                    .cards()
                    .iter()
                    .find(|card| card.colour == colour)
                    .unwrap()
            };
            let (a, b) = (of(pair[0]), of(pair[1]));
            let (first, second) = if a.start < b.start { (a, b) } else { (b, a) };
            let seen = |times: &[f64]| question.seen_by(&world, &small(times.iter().copied()));
            assert!(seen(&[second.start, first.start]));
            assert!(!seen(&[second.start]) && !seen(&[]));
            let scan: Vec<f64> = look::scan(world.duration(), 16).times().collect();
            let met = scan.iter().position(|time| first.shows_at(*time)).unwrap();
            assert!(seen(&scan[..=met]));
            assert!(met < 3 || !seen(&scan[met..=met]));
        }
    }

    #[test]
    fn a_count_takes_frames_that_show_as_many() {
        for seed in 0..300 {
            let world = World::new(seed);
            let question = world.question(Kind::Count, seed).choices(seed);
            let blinks = world.blinks().unwrap();
            let watch = |nframes| {
                let look = look::watched(world.duration(), blinks.start, blinks.end(), nframes);
                small(look.times())
            };
            let seen = |frames: &[ImageRecord]| question.seen_by(&world, frames);
            assert!(seen(&watch(16)) && !seen(&[]));
            // Six frames show three dark phases at most.
            assert!(blinks.dark.len() < 4 || !seen(&watch(6)));
            let scan = look::scan(world.duration(), 16);
            let outside = scan.times().filter(|time| *time < f64::from(blinks.start));
            assert!(!seen(&small(outside)));
        }
    }
}

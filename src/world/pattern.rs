//! How the patterns of the background are drawn: brighter than the background by an even step, so
//! that they have no colour of their own.

use super::render::{disc, fill};
use super::{HEIGHT, Pattern, WIDTH};

/// How much brighter a stripe or dot is. The brightest background with it stays below what a shape
/// or a card can be taken for.
const STEP: u8 = 28;
/// From one stripe to the next in pixels: a patch of the vision tower. Half of it is the stripe.
const STRIPES: i32 = 14;
/// From one dot's centre to the next in pixels, and a dot's radius.
const DOTS: i32 = 20;
const RADIUS: i32 = 6;

/// Draws `pattern` over a frame of one colour.
pub(super) fn draw(pattern: Pattern, background: [u8; 3], rgb: &mut [u8]) {
    let bright = background.map(|value| value.saturating_add(STEP));
    let (width, height) = (WIDTH as i32, HEIGHT as i32);
    match pattern {
        Pattern::Plain => {}
        Pattern::Stripes => {
            for x in (0..width).step_by(STRIPES as usize) {
                fill(rgb, 0, x, x + STRIPES / 2, bright);
            }
            // All rows are alike.
            let row = WIDTH as usize * 3;
            if let Some((first, others)) = rgb.split_at_mut_checked(row) {
                for other in others.chunks_exact_mut(row) {
                    other.copy_from_slice(first);
                }
            }
        }
        Pattern::Dots => {
            for y in (DOTS / 2..height + RADIUS).step_by(DOTS as usize) {
                for x in (DOTS / 2..width + RADIUS).step_by(DOTS as usize) {
                    disc(rgb, x, y, RADIUS, bright);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::world::{Colour, World, WorldSource};
    use eva_core::{FrameSource, Pixels, RgbImage, Selection};
    use std::sync::Arc;

    fn frame(world: &World, time: f64, width: u32, height: u32) -> RgbImage {
        let mut source = WorldSource::new(Arc::new(world.clone()));
        let mut out = None;
        let selection = Selection::uniform(time, time, 1, width, height);
        source
            .frames(&selection, &mut |frame| out = Some(frame.pixels))
            .unwrap();
        out.unwrap()
    }

    /// How much brighter a small frame is where `pattern` is bright, on average.
    fn match_with(pattern: Pattern, image: &RgbImage) -> f64 {
        let mut plan = vec![0; (WIDTH * HEIGHT * 3) as usize];
        draw(pattern, [0; 3], &mut plan);
        let (mut sums, mut counts) = ([0.0; 2], [0.0; 2]);
        let scale = WIDTH / image.width();
        for y in 0..image.height() {
            for x in 0..image.width() {
                let here = ((y * scale * WIDTH + x * scale) * 3) as usize;
                let bright = usize::from(plan[here] > 0);
                sums[bright] += f64::from(image.rgb()[((y * image.width() + x) * 3) as usize]);
                counts[bright] += 1.0;
            }
        }
        sums[1] / counts[1] - sums[0] / counts[0]
    }

    #[test]
    fn patterns_are_told_apart_at_half_the_size() {
        for seed in 0..60 {
            let world = World::new(seed);
            for span in world.patterns() {
                let image = frame(&world, (span.start + span.end) / 2.0, 112, 84);
                for pattern in [Pattern::Stripes, Pattern::Dots] {
                    let found = match_with(pattern, &image);
                    let there = pattern == span.pattern;
                    assert_eq!(found > 12.0, there, "{found} for {pattern}, seed {seed}");
                    assert!(
                        there || found.abs() < 7.0,
                        "{found} for {pattern}, seed {seed}"
                    );
                }
            }
            let image = frame(&world, 0.0, 112, 84);
            for pattern in [Pattern::Stripes, Pattern::Dots] {
                assert!(match_with(pattern, &image).abs() < 7.0, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_pattern_is_no_card_in_a_scan() {
        for seed in 0..200 {
            let world = World::new(seed);
            for span in world.patterns() {
                let image = frame(&world, span.start + 1.0, 28, 28);
                for pixel in image.rgb().chunks_exact(3) {
                    for colour in Colour::ALL {
                        let pairs = colour.rgb().into_iter().zip(pixel);
                        let distance = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                        assert!(distance > 30, "{pixel:?} is {colour}, seed {seed}");
                    }
                    let (low, high) = (pixel.iter().min(), pixel.iter().max());
                    assert!(high.unwrap() - low.unwrap() <= 34, "{pixel:?}, seed {seed}");
                }
            }
        }
    }
}

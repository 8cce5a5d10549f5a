//! Drawing a frame: background, drifting shapes, the card, noise. Speed matters here: training
//! draws hundreds of thousands of frames.

use eva_core::RgbImage;

use super::draws::{Draws, mix};
use super::{CARD_SIZE, Card, FPS, HEIGHT, PATCH, WIDTH, World, font, pattern};

/// Bytes of a frame.
const BYTES: usize = WIDTH as usize * HEIGHT as usize * 3;
/// Width of a card's dark edge in pixels.
const BORDER: i32 = 2;
/// Pixels a side of a digit's dot.
const DOT: i32 = 4;
const BORDER_RGB: [u8; 3] = [28, 28, 28];
const DIGIT_RGB: [u8; 3] = [16, 16, 16];
/// What the screen shows when it goes dark.
const DARK_RGB: [u8; 3] = [12, 12, 12];

/// Everything but the cards.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scenery {
    brightness: Swing,
    tint: [Swing; 3],
    shapes: Vec<Shape>,
}

/// A value that goes up and down in a straight line: a triangle wave. (A sine would not come out
/// the same to the last bit on every machine.)
#[derive(Debug, Clone, PartialEq)]
struct Swing {
    low: f64,
    high: f64,
    /// Where it is at time 0, from `low` on.
    offset: f64,
    /// Change in a second.
    speed: f64,
}

#[derive(Debug, Clone, PartialEq)]
struct Shape {
    disc: bool,
    rgb: [u8; 3],
    half_width: i32,
    half_height: i32,
    x: Swing,
    y: Swing,
}

impl Scenery {
    pub(super) fn new(draws: &mut Draws) -> Self {
        let base = draws.real(70.0, 110.0);
        // Once there and back takes 40 s or more.
        let brightness = Swing::new(draws, base - 12.0, base + 12.0, 0.4, 1.2);
        let tint = [(); 3].map(|()| Swing::new(draws, -8.0, 8.0, 0.2, 0.8));
        let count = draws.whole(3, 5);
        let shapes = (0..count).map(|_| Shape::new(draws)).collect();
        Self {
            brightness,
            tint,
            shapes,
        }
    }

    fn background(&self, time: f64) -> [u8; 3] {
        let brightness = self.brightness.at(time);
        self.tint
            .each_ref()
            .map(|tint| (brightness + tint.at(time)) as u8)
    }
}

impl Swing {
    /// Swings between `low` and `high` at a speed between `slow` and `fast` a second.
    fn new(draws: &mut Draws, low: f64, high: f64, slow: f64, fast: f64) -> Self {
        Self {
            low,
            high,
            offset: draws.real(0.0, 2.0 * (high - low)),
            speed: draws.real(slow, fast),
        }
    }

    fn at(&self, time: f64) -> f64 {
        let span = self.high - self.low;
        let way = (self.offset + self.speed * time).rem_euclid(2.0 * span);
        self.low + if way > span { 2.0 * span - way } else { way }
    }
}

impl Shape {
    fn new(draws: &mut Draws) -> Self {
        let disc = draws.whole(0, 1) == 1;
        let grey = draws.whole(50, 140);
        let rgb = [(); 3].map(|()| (grey + draws.whole(-12, 12)) as u8);
        let half_width = draws.whole(8, 26);
        let half_height = if disc { half_width } else { draws.whole(8, 26) };
        // Centres stay in the frame; edges may leave it.
        let x = Swing::new(draws, 0.0, f64::from(WIDTH), 3.0, 18.0);
        let y = Swing::new(draws, 0.0, f64::from(HEIGHT), 3.0, 18.0);
        Self {
            disc,
            rgb,
            half_width,
            half_height,
            x,
            y,
        }
    }

    fn draw(&self, time: f64, rgb: &mut [u8]) {
        let (x, y) = (self.x.at(time) as i32, self.y.at(time) as i32);
        if self.disc {
            disc(rgb, x, y, self.half_width, self.rgb);
            return;
        }
        for row in -self.half_height..=self.half_height {
            let (from, to) = (x - self.half_width, x + self.half_width + 1);
            fill(rgb, y + row, from, to, self.rgb);
        }
    }
}

impl World {
    /// The frame on display at `time` (seconds), 224 x 168 pixels.
    #[must_use]
    pub fn render(&self, time: f64) -> RgbImage {
        let mut rgb = Vec::new();
        self.render_into(self.frame_at(time), &mut rgb);
        match RgbImage::new(WIDTH, HEIGHT, rgb) {
            Ok(image) => image,
            Err(wrong) => unreachable!("render_into gives exactly one frame: {wrong}"),
        }
    }

    /// Draws frame number `frame` (from 0, `FPS` a second) into `rgb`, which becomes its
    /// 224 * 168 * 3 bytes whatever it was before: a buffer to be used again.
    pub fn render_into(&self, frame: u32, rgb: &mut Vec<u8>) {
        let time = f64::from(frame) / f64::from(FPS);
        let dark = self.dark_at(time);
        let background = if dark {
            DARK_RGB
        } else {
            self.scenery.background(time)
        };
        rgb.resize(BYTES, 0);
        for pixel in rgb.chunks_exact_mut(3) {
            pixel.copy_from_slice(&background);
        }
        if !dark {
            pattern::draw(self.pattern_at(time), background, rgb);
            for shape in &self.scenery.shapes {
                shape.draw(time, rgb);
            }
            if let Some(card) = self.cards.iter().find(|card| card.shows_at(time)) {
                draw_card(card, rgb);
            }
        }
        add_noise(mix(self.seed).wrapping_add(u64::from(frame)), rgb);
    }
}

fn draw_card(card: &Card, rgb: &mut [u8]) {
    let (left, top, size) = (card.x as i32, card.y as i32, CARD_SIZE as i32);
    for row in 0..size {
        let (y, right) = (top + row, left + size);
        fill(rgb, y, left, right, BORDER_RGB);
        if (BORDER..size - BORDER).contains(&row) {
            let plain = card.colour.rgb();
            fill(rgb, y, left + BORDER, right - BORDER, plain);
        }
    }
    // The digit is as high as the card's middle cell, and centred across it.
    let (cell, columns) = (PATCH as i32, font::COLUMNS as i32);
    let digit_left = left + cell + (cell - columns * DOT) / 2;
    for row in 0..cell {
        for column in (0..font::COLUMNS).filter(|&at| font::dot(card.digit, at, (row / DOT) as u32))
        {
            let x = digit_left + column as i32 * DOT;
            fill(rgb, top + cell + row, x, x + DOT, DIGIT_RGB);
        }
    }
}

/// Paints a disc around `x`, `y`, as far as it is in the frame.
pub(super) fn disc(rgb: &mut [u8], x: i32, y: i32, radius: i32, colour: [u8; 3]) {
    for row in -radius..=radius {
        let half = (radius.pow(2) - row.pow(2)).isqrt();
        fill(rgb, y + row, x - half, x + half + 1, colour);
    }
}

/// Paints the pixels `from..to` of row `y`, as far as they are in the frame.
pub(super) fn fill(rgb: &mut [u8], y: i32, from: i32, to: i32, colour: [u8; 3]) {
    let width = WIDTH as i32;
    if !(0..HEIGHT as i32).contains(&y) {
        return;
    }
    let [start, end] = [from, to].map(|x| (y * width + x.clamp(0, width)) as usize * 3);
    for pixel in rgb
        .get_mut(start..end)
        .into_iter()
        .flat_map(|row| row.chunks_exact_mut(3))
    {
        pixel.copy_from_slice(&colour);
    }
}

/// Adds -6 to 6 to each pixel's brightness: one scramble of 64 bits serves eight pixels.
fn add_noise(key: u64, rgb: &mut [u8]) {
    let key = mix(key);
    for (pixels, index) in rgb.chunks_exact_mut(8 * 3).zip(0_u64..) {
        let bits = mix(key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        for (pixel, byte) in pixels.chunks_exact_mut(3).zip(bits.to_le_bytes()) {
            let change = ((u16::from(byte) * 13) >> 8) as i8 - 6;
            for value in pixel {
                *value = value.saturating_add_signed(change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::world::Colour;
    use eva_core::Pixels;

    fn pixel(image: &RgbImage, x: u32, y: u32) -> [u8; 3] {
        let start = (y * WIDTH + x) as usize * 3;
        image.rgb()[start..start + 3].try_into().unwrap()
    }

    /// The card colour that a pixel is nearest to, and how near in its worst channel.
    fn nearest(pixel: [u8; 3]) -> (Colour, u8) {
        let distance = |colour: Colour| {
            let pairs = colour.rgb().into_iter().zip(pixel);
            pairs.map(|(a, b)| a.abs_diff(b)).max().unwrap()
        };
        let colour = Colour::ALL
            .into_iter()
            .min_by_key(|&colour| distance(colour))
            .unwrap();
        (colour, distance(colour))
    }

    #[test]
    fn frames_never_change() {
        // FNV-1a over three frames. A new value here means that models, scores and golden
        // trajectories made from these worlds no longer match: change it only on purpose.
        let world = World::new(42);
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for time in [0.0, world.cards()[0].start, world.duration() / 2.0] {
            for &byte in world.render(time).rgb() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        assert_eq!(hash, 0x3dcb_39e1_5551_4479, "{hash:#x}");
    }

    #[test]
    fn a_card_is_seen_in_its_colour_and_digit_exactly_while_it_is_on_screen() {
        for seed in 0..40 {
            let world = World::new(seed);
            for card in world.cards() {
                for time in [card.start, card.end - 0.125] {
                    let image = world.render(time);
                    let (x, y) = (card.x + 10, card.y + 70);
                    let (colour, distance) = nearest(pixel(&image, x, y));
                    assert_eq!(colour, card.colour, "seed {seed} at {time}");
                    assert!(distance <= 6);
                    assert_eq!(
                        read(&image, card),
                        Some(card.digit),
                        "seed {seed} at {time}"
                    );
                }
                for time in [card.start - 0.125, card.end] {
                    let image = world.render(time);
                    let (_, distance) = nearest(pixel(&image, card.x + 10, card.y + 70));
                    assert!(distance > 30, "seed {seed} at {time}");
                }
            }
        }
    }

    /// The digit whose dots are dark on the card, and no others.
    fn read(image: &RgbImage, card: &Card) -> Option<u8> {
        (0..10).find(|&digit| {
            (0..font::ROWS).all(|row| {
                (0..font::COLUMNS).all(|column| {
                    let x = card.x + 28 + 4 + column * 4 + 1;
                    let dark = pixel(image, x, card.y + 28 + row * 4 + 1) <= [23; 3];
                    dark == font::dot(digit, column, row)
                })
            })
        })
    }

    #[test]
    fn what_is_not_a_card_looks_like_none() {
        for seed in 0..30 {
            let world = World::new(seed);
            for second in (0..world.length).step_by(20) {
                let time = f64::from(second);
                if world.card_at(time).is_some() || world.dark_at(time) {
                    continue;
                }
                for pixel in world.render(time).rgb().chunks_exact(3) {
                    let pixel: [u8; 3] = pixel.try_into().unwrap();
                    assert!(nearest(pixel).1 > 40, "{pixel:?}, seed {seed} at {time}");
                    assert!(pixel.iter().all(|value| (30..=165).contains(value)));
                }
            }
        }
    }

    #[test]
    fn the_background_stays_between_50_and_130_and_moves_slowly() {
        for seed in 0..100 {
            let world = World::new(seed);
            for second in 0..world.length {
                let [now, next] =
                    [0.0, 1.0].map(|later| world.scenery.background(f64::from(second) + later));
                for (a, b) in now.into_iter().zip(next) {
                    assert!((50..=130).contains(&a) && a.abs_diff(b) <= 3);
                }
            }
        }
    }

    #[test]
    fn a_used_buffer_gives_the_same_frame() {
        let world = World::new(3);
        let mut rgb = vec![255; 7];
        world.render_into(80, &mut rgb);
        world.render_into(81, &mut rgb);
        assert_eq!(rgb, world.render(81.0 / 8.0).into_rgb());
        assert_ne!(rgb, world.render(10.0).into_rgb());
    }
}

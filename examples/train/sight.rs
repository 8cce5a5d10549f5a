//! Labelled pictures of training worlds for first sight.

use eva::core::{FrameSource, RgbImage, Selection};
use eva::world::{CARD_SIZE, HEIGHT, Split, WIDTH, World, WorldSource};
use eva_burn::train::vision::Labelled;

use crate::{Failure, Run};

/// Side of a merged patch in pixels.
const PATCH: u32 = 28;
/// Sharp pictures a shard.
const SHARP: u32 = 6;
/// Scan pictures (one merged patch) a shard.
const SCAN: u32 = 32;

/// The name of a label's field, for the metrics.
pub(crate) fn field(run: &Run, name: u32) -> String {
    let text = run.chat.decode(&[name]).unwrap_or_default();
    match text.as_str() {
        "none" => "background".to_owned(),
        digit if digit.chars().all(|c| c.is_ascii_digit()) => "digit".to_owned(),
        _ => "colour".to_owned(),
    }
}

/// One shard: sharp pictures with their card's digit, colour and some background, and scan pictures,
/// half of them without a card.
pub(crate) fn pictures(run: &Run, shard: u32) -> Result<Labelled, Failure> {
    let mut labelled = Labelled::default();
    let mut patches = 0;
    for item in 0..SHARP + SCAN {
        let number = shard * (SHARP + SCAN) + item;
        let world = std::sync::Arc::new(World::new(Split::Train.seed(u32::MAX - number)));
        let card = world.cards()[number as usize % world.cards().len()];
        // A fraction of the card's time that differs from picture to picture.
        let share = f64::from(number.wrapping_mul(2_654_435_761) >> 8) / f64::from(1u32 << 24);
        let on_card = card.start + share * (card.end - card.start - 0.2);
        let sharp = item < SHARP;
        let time = if sharp || item % 2 == 0 {
            on_card
        } else {
            share * world.duration()
        };
        let (width, height) = if sharp {
            (WIDTH, HEIGHT)
        } else {
            (PATCH, PATCH)
        };
        let shown = world.card_at(time).copied();
        let frame = frame(world, time, width, height)?;
        labelled
            .patches
            .push(&frame, &run.images, &run.config.vision)?;
        let mut label = |patch: u32, name: &str| -> Result<(), Failure> {
            let [token] = run.chat.tokens(name)?[..] else {
                return Err(format!("`{name}` is not one token").into());
            };
            labelled.labels.push(((patches + patch) as usize, token));
            Ok(())
        };
        match (sharp, shown) {
            (true, Some(card)) => {
                let columns = WIDTH / PATCH;
                let cell = |pixel: u32| (pixel + PATCH / 2) / PATCH;
                let (left, top) = (cell(card.x), cell(card.y));
                let side = CARD_SIZE / PATCH;
                let centre = (top + side / 2) * columns + left + side / 2;
                label(centre, &card.digit.to_string())?;
                // The cells around the digit, and as many of the background.
                for turn in 0..2 {
                    let around = (number + turn * 4) % 8;
                    let around = if around < 4 { around } else { around + 1 };
                    label(
                        (top + around / side) * columns + left + around % side,
                        &card.colour.to_string(),
                    )?;
                    let outside = (0..columns * (HEIGHT / PATCH))
                        .cycle()
                        .skip(((number * 13 + turn * 17) % 48) as usize)
                        .find(|patch| {
                            let (row, column) = (patch / columns, patch % columns);
                            !(top..top + side).contains(&row)
                                || !(left..left + side).contains(&column)
                        });
                    label(outside.unwrap_or(0), "none")?;
                }
            }
            (false, Some(card)) => label(0, &card.colour.to_string())?,
            (_, None) => label(0, "none")?,
        }
        patches += (width / PATCH) * (height / PATCH);
    }
    Ok(labelled)
}

fn frame(
    world: std::sync::Arc<World>,
    time: f64,
    width: u32,
    height: u32,
) -> Result<RgbImage, Failure> {
    let mut source = WorldSource::new(world);
    let selection = Selection::uniform(time, time, 1, width, height);
    let mut out = None;
    source.frames(&selection, &mut |frame| out = Some(frame.pixels))?;
    out.ok_or_else(|| "the world gave no frame".into())
}

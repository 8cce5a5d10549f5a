//! Labelled pictures of training worlds for first sight.

use std::sync::Arc;

use eva::core::{FrameSource, RgbImage, Selection};
use eva::train::{Encoder, Ended};
use eva::world::{
    CARD_SIZE, Card, HEIGHT, Kind, Pattern, Split, Subject, WIDTH, World, WorldSource,
};
use eva_burn::Qwen25Vl;
use eva_burn::train::Schedule;
use eva_burn::train::vision::Labelled;

use super::Run;
use super::sft::parallel;
use crate::{Failure, Stage};

/// Side of a merged patch in pixels.
const PATCH: u32 = 28;
/// Sharp pictures of cards a shard.
const SHARP: u32 = 6;
/// Pictures of backgrounds at half the size a shard.
const HALF: u32 = 3;
/// Scan pictures (one merged patch) a shard.
const SCAN: u32 = 32;

/// The name of a label's field, for the metrics.
pub(crate) fn field(encoder: &Encoder, name: u32) -> &'static str {
    let text = encoder.chat.decode(&[name]).unwrap_or_default();
    match text.as_str() {
        "none" => "background",
        "dark" => "dark",
        "stripes" | "dots" => "pattern",
        digit if digit.chars().all(|c| c.is_ascii_digit()) => "digit",
        _ => "colour",
    }
}

/// Pictures that are made one by one.
struct Shard<'a> {
    encoder: &'a Encoder,
    labelled: Labelled,
    /// Merged patches of the pictures so far.
    patches: u32,
}

/// Shard number `shard`: sharp pictures with their card's digit, colour and some background, pictures
/// of the background at half the size, and scan pictures, half of them without a card.
pub(crate) fn pictures(encoder: &Encoder, shard: u32) -> Result<Labelled, Failure> {
    let mut made = Shard {
        encoder,
        labelled: Labelled::default(),
        patches: 0,
    };
    for item in 0..SHARP + HALF + SCAN {
        let number = shard * (SHARP + HALF + SCAN) + item;
        let world = Arc::new(World::new(Split::Train.seed(u32::MAX - number)));
        match item {
            sharp if sharp < SHARP => made.sharp(&world, number)?,
            half if half < SHARP + HALF => made.half(&world, number)?,
            _ => made.scan(&world, number)?,
        }
    }
    Ok(made.labelled)
}

impl Shard<'_> {
    /// A card at full size: the digit, the cells around it, and as many of the background.
    fn sharp(&mut self, world: &Arc<World>, number: u32) -> Result<(), Failure> {
        let card = card(world, number);
        self.show(world, on(&card, number), WIDTH, HEIGHT)?;
        let columns = WIDTH / PATCH;
        let cell = |pixel: u32| (pixel + PATCH / 2) / PATCH;
        let (left, top) = (cell(card.x), cell(card.y));
        let side = CARD_SIZE / PATCH;
        let centre = (top + side / 2) * columns + left + side / 2;
        self.label(centre, &card.digit.to_string())?;
        for turn in 0..2 {
            let around = (number + turn * 4) % 8;
            let around = if around < 4 { around } else { around + 1 };
            let place = (top + around / side) * columns + left + around % side;
            self.label(place, &card.colour.to_string())?;
            let outside = (0..columns * (HEIGHT / PATCH))
                .cycle()
                .skip(((number * 13 + turn * 17) % 48) as usize)
                .find(|patch| {
                    let (row, column) = (patch / columns, patch % columns);
                    !(top..top + side).contains(&row) || !(left..left + side).contains(&column)
                });
            self.label(outside.unwrap_or(0), "none")?;
        }
        self.patches += columns * (HEIGHT / PATCH);
        Ok(())
    }

    /// A background at half the size. The plain one is nothing to be seen.
    fn half(&mut self, world: &Arc<World>, number: u32) -> Result<(), Failure> {
        let question = world.question(Kind::Background, u64::from(number));
        let Subject::Background(second) = question.subject else {
            return Err(format!("{question:?} names no moment").into());
        };
        let time = f64::from(second) + share(number);
        self.show(world, time, WIDTH / 2, HEIGHT / 2)?;
        let patches = (WIDTH / 2 / PATCH) * (HEIGHT / 2 / PATCH);
        let name = match world.pattern_at(time) {
            Pattern::Plain => "none".to_owned(),
            pattern => pattern.to_string(),
        };
        for patch in (0..patches).skip(number as usize % 3).step_by(3) {
            self.label(patch, &name)?;
        }
        self.patches += patches;
        Ok(())
    }

    /// A whole frame in one merged patch.
    fn scan(&mut self, world: &Arc<World>, number: u32) -> Result<(), Failure> {
        let time = match number % 4 {
            0 | 2 => on(&card(world, number), number),
            1 => share(number) * world.duration(),
            _ => match world.question(Kind::Count, 0).subject {
                Subject::Darkness { start, end } => {
                    f64::from(start) + share(number) * f64::from(end - start)
                }
                subject => return Err(format!("{subject:?} names no window").into()),
            },
        };
        self.show(world, time, PATCH, PATCH)?;
        let name = match world.card_at(time) {
            Some(card) => card.colour.to_string(),
            None if world.dark_at(time) => "dark".to_owned(),
            None => "none".to_owned(),
        };
        self.label(0, &name)?;
        self.patches += 1;
        Ok(())
    }

    fn show(&mut self, world: &Arc<World>, time: f64, w: u32, h: u32) -> Result<(), Failure> {
        let frame = frame(world.clone(), time, w, h)?;
        let Encoder { images, config, .. } = self.encoder;
        let patches = &mut self.labelled.patches;
        Ok(patches.push(&frame, images, &config.vision)?)
    }

    fn label(&mut self, patch: u32, name: &str) -> Result<(), Failure> {
        let [token] = self.encoder.chat.tokens(name)?[..] else {
            return Err(format!("`{name}` is not one token").into());
        };
        let labels = &mut self.labelled.labels;
        labels.push(((self.patches + patch) as usize, token));
        Ok(())
    }
}

/// One of the world's cards.
fn card(world: &World, number: u32) -> Card {
    world.cards()[number as usize % world.cards().len()]
}

/// A moment of a card's time.
fn on(card: &Card, number: u32) -> f64 {
    card.start + share(number) * (card.end - card.start - 0.2)
}

/// A fraction that differs from picture to picture.
fn share(number: u32) -> f64 {
    f64::from(number.wrapping_mul(2_654_435_761) >> 8) / f64::from(1u32 << 24)
}

fn frame(world: Arc<World>, time: f64, width: u32, height: u32) -> Result<RgbImage, Failure> {
    let mut source = WorldSource::new(world);
    let selection = Selection::uniform(time, time, 1, width, height);
    let mut out = None;
    source.frames(&selection, &mut |frame| out = Some(frame.pixels))?;
    out.ok_or_else(|| "the world gave no frame".into())
}

pub(super) fn learn(run: &Run<'_>) -> Result<Ended, Failure> {
    let arguments = run.arguments;
    let device = run.device.clone().autodiff();
    let model = Qwen25Vl::random(&run.encoder.config, arguments.seed, &device)
        .ok_or("the configuration cannot be built")?;
    let steps = arguments.sight_steps;
    let schedule = Schedule::new(3e-3, 50.min(steps), steps);
    run.learn(
        Stage::Sight,
        model,
        schedule.into(),
        50,
        |trainer, step, measures| {
            let shards = parallel(arguments.threads, |thread| {
                let index = (step * arguments.threads + thread) as u32;
                pictures(&run.encoder, index)
            })?;
            let report = trainer.first_sight(&shards);
            measures.add("loss", report.loss);
            for (shard, right) in shards.iter().zip(&report.right) {
                for ((_, name), right) in shard.labels.iter().zip(right) {
                    measures.add_share(field(&run.encoder, *name), usize::from(*right), 1);
                }
            }
            Ok(())
        },
    )
}

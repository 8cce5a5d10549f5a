//! The expert's conversations about training worlds.

use std::sync::Arc;

use eva::core::conversation::{OwnedPart, ToolMessage};
use eva::core::{Conversation, FrameSource, OwnedMessage, RgbImage, Role, Selection, Session};
use eva::world::{Expert, Kind, Split, Subject, World, WorldSource, report, stated_length};
use eva_burn::train::Example;

use crate::{Failure, Run};

/// How the expert answers a question about a training world.
fn conversation(kind: Kind, index: u64, seed: u64) -> Result<Conversation<RgbImage>, Failure> {
    // Every index of a run is a world of its own; runs of another seed see them in another order.
    let world = Arc::new(World::new(Split::Train.seed((index ^ (seed << 24)) as u32)));
    let question = world.question(kind, index);
    let expert = Expert::new(world.clone(), question.clone());
    let report = Session::new(WorldSource::new(world), expert).ask(&question.text)?;
    if report.answer() != Some(question.answer.as_str()) {
        return Err(format!("the expert answers {:?} to {question:?}", report.answer()).into());
    }
    Ok(report.conversation)
}

/// What a shard holds: all its examples are alike, so that they are about equally long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lesson {
    /// Whole conversations.
    Whole(Kind),
    /// Only the look-up in a scan, over this many frames: which of them shows the colour.
    LookUp(u32),
}

/// The lesson of a shard. Whole conversations are learnt quickly but for one thing, the look-up in
/// the scan, which has to be found among few frames before it works among many.
fn lesson(index: u64, progress: f64) -> Lesson {
    let turn = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let (drills, most) = match progress {
        early if early < 0.35 => (6, 5),
        middle if middle < 0.7 => (4, 16),
        _ => (1, 16),
    };
    if turn % 10 < drills {
        return Lesson::LookUp(2 + (turn / 10 % (most - 1)) as u32);
    }
    Lesson::Whole(match turn / 10 % 10 {
        0..=3 => Kind::At,
        4 => Kind::Absent,
        _ => Kind::Find,
    })
}

/// Examples of one lesson, with the name of its field in the metrics.
pub(crate) fn shard(
    run: &Run,
    index: u64,
    progress: f64,
) -> Result<(String, Vec<Example>), Failure> {
    let lesson = lesson(index, progress);
    let (name, count) = match lesson {
        Lesson::Whole(Kind::At) => ("at".to_owned(), 2 * run.arguments.batch),
        Lesson::Whole(kind) => (kind.name().to_owned(), run.arguments.batch),
        Lesson::LookUp(frames) => {
            let several = if frames > 5 {
                "look-up-many"
            } else {
                "look-up"
            };
            (
                several.to_owned(),
                run.arguments.batch * 20 / (4 + frames as usize),
            )
        }
    };
    let examples = (0..count as u64)
        .map(|item| {
            let number = index * 64 + item;
            let conversation = match lesson {
                Lesson::Whole(kind) => conversation(kind, number, run.arguments.seed)?,
                Lesson::LookUp(frames) => look_up(number, run.arguments.seed, frames)?,
            };
            let example = conversation.with_messages(|messages| {
                Example::new(messages, &run.chat, &run.config, &run.images)
            })?;
            Ok(example)
        })
        .collect::<Result<_, Failure>>()?;
    Ok((name, examples))
}

/// A question of a colour, a scan of a part of the video, and what the expert says to it.
fn look_up(number: u64, seed: u64, frames: u32) -> Result<Conversation<RgbImage>, Failure> {
    let world = Arc::new(World::new(
        Split::Train.seed((number ^ (seed << 24)) as u32),
    ));
    let mut draw = draws(number ^ seed.rotate_left(40));
    // One in eight colours is of no card, and a window can miss the card.
    let kind = if draw(8) == 0 {
        Kind::Absent
    } else {
        Kind::Find
    };
    let question = world.question(kind, number);
    let Subject::Colour(colour) = question.subject else {
        return Err(format!("{question:?} names no colour").into());
    };
    let length = stated_length(world.duration());
    let cards = world.cards();
    let asked = cards.iter().find(|card| card.colour == colour);
    let around = asked.map_or(f64::from(draw(length)), |card| card.start);
    // From little more than the card's own time to the whole video.
    let span = (length * (draw(90) + 10) / 100).max(frames * 2);
    let start = (around as u32)
        .saturating_sub(draw(span))
        .min(length.saturating_sub(10));
    let end = (start + span).min(length);
    let mut source = WorldSource::new(world.clone());
    let selection = Selection::uniform(f64::from(start), f64::from(end), frames, 28, 28);
    let mut shown = Vec::new();
    source.frames(&selection, &mut |frame| shown.push(frame))?;
    let reply = report(
        colour,
        (0..).zip(&shown).map(|(index, frame)| {
            let card = world.card_at(frame.time);
            let label = selection.label_seconds(index) as u32;
            (label, card.map(|card| card.colour))
        }),
    );
    let mut conversation = Conversation::open(&source.info(), &[(Role::User, &question.text)])?;
    let mut response = ToolMessage::new();
    response.frames(&selection, shown);
    conversation.push(response.close(&question.text));
    conversation.push(OwnedMessage::text(Role::Assistant, reply));
    Ok(conversation)
}

/// Small numbers from a seed: `draw(n)` is below `n`.
fn draws(mut state: u64) -> impl FnMut(u32) -> u32 {
    move |below| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed >> 33) % u64::from(below.max(1))) as u32
    }
}

/// All texts of some conversations, for the tokenizer. A world outside the training order is used
/// for none of this: texts hold no pictures.
pub(crate) fn texts(count: u64) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    for index in 0..count {
        let conversation = conversation(Kind::ALL[index as usize % Kind::ALL.len()], index, 0)?;
        for message in conversation.into_messages() {
            texts.extend(message.parts.into_iter().filter_map(|part| match part {
                OwnedPart::Text(text) => Some(text),
                OwnedPart::Image(_) => None,
            }));
        }
    }
    texts.extend(
        ["system\n", "user\n", "assistant\n", "tool\n"]
            .map(str::to_owned)
            .into_iter()
            .cycle()
            .take(400),
    );
    Ok(texts)
}

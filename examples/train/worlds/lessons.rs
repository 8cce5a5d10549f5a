//! What supervised fine-tuning learns from: a teacher's conversations, and drills.

use std::sync::Arc;

use eva::core::conversation::ToolMessage;
use eva::core::{Conversation, FrameSource, OwnedMessage, RgbImage, Role, Selection, Session};
use eva::train::Encoder;
use eva::world::{
    Expert, Habits, Kind, Question, Split, Subject, Teacher, World, WorldSource, order_report,
    report, stated_length,
};
use eva_burn::train::Example;

use super::questions::Quiz;
use crate::Failure;

/// Conversations of one kind, which are about equally long.
pub(crate) struct Lesson {
    /// The name of its field in the metrics.
    pub(crate) field: String,
    pub(crate) examples: Vec<Example>,
}

/// What a lesson is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subjects {
    /// Whole conversations, multiple choice or not.
    Whole(Kind, bool),
    /// Only the look-up in a scan, over this many frames: which of them shows the colour.
    LookUp(u32),
    /// Only the way from a value to the letter of its option, in text.
    Options,
}

/// Words of a drill in text take little time: so many more examples of it.
const TEXTS: usize = 3;

/// The kinds of questions in drills of options, by turns: more of the one that takes longest.
const OPTIONS: [Kind; 8] = [
    Kind::Order,
    Kind::At,
    Kind::Find,
    Kind::Order,
    Kind::Absent,
    Kind::Background,
    Kind::Order,
    Kind::Count,
];

/// What lesson number `index` is about. Whole conversations are learnt quickly but for the look-up in
/// the scan, which has to be found among few frames before it works among many.
fn subject(index: u64, progress: f64) -> Subjects {
    let turn = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let (drills, most) = match progress {
        early if early < 0.3 => (5, 5),
        middle if middle < 0.6 => (3, 16),
        _ => (1, 16),
    };
    match turn % 10 {
        drill if drill < drills => Subjects::LookUp(2 + (turn / 10 % (most - 1)) as u32),
        9 => Subjects::Options,
        _ => {
            let kind = match turn / 10 % 12 {
                0 => Kind::Absent,
                1 | 2 => Kind::At,
                3 | 4 => Kind::Background,
                5 | 6 => Kind::Order,
                7 | 8 => Kind::Count,
                _ => Kind::Find,
            };
            let choices = match kind {
                // Both colours stand in the question: which of them to stop at is learnt last.
                Kind::Order => !(turn / 120).is_multiple_of(3),
                _ => turn / 120 % 2 == 1,
            };
            Subjects::Whole(kind, choices)
        }
    }
}

/// Lesson number `index` of a run: the same whenever it is asked for.
///
/// - progress: how far the run is, from 0 to 1
/// - size: examples of the longest kind of lesson; of shorter ones there are more
pub(crate) fn lesson(
    encoder: &Encoder,
    seed: u64,
    index: u64,
    progress: f64,
    size: usize,
) -> Result<Lesson, Failure> {
    let subject = subject(index, progress);
    let (field, count) = match subject {
        Subjects::Whole(kind, choices) => {
            let form = if choices { "-choice" } else { "" };
            let more = match kind {
                Kind::At | Kind::Background => 2,
                _ => 1,
            };
            (format!("{}{form}", kind.name()), more * size)
        }
        Subjects::LookUp(frames) => {
            let several = if frames > 5 {
                "look-up-many"
            } else {
                "look-up"
            };
            (several.to_owned(), size * 20 / (4 + frames as usize))
        }
        Subjects::Options => ("options".to_owned(), TEXTS * size),
    };
    let examples = (0..count as u64)
        .map(|item| {
            // Every number of a run is a world of its own; runs of another seed see them in another
            // order.
            let number = (index * 64 + item) ^ (seed << 24);
            let conversation = match subject {
                Subjects::Whole(kind, choices) => {
                    let quiz = Quiz::of_kind(Split::Train, number as u32, kind, choices);
                    taught(&quiz, number)?
                }
                Subjects::LookUp(frames) => look_up(number, frames)?,
                Subjects::Options => options(number)?,
            };
            Ok(encoder.example(&conversation)?)
        })
        .collect::<Result<_, Failure>>()?;
    Ok(Lesson { field, examples })
}

/// The teacher of a question; its habits show by `seed`.
pub(crate) fn teacher(quiz: &Quiz, seed: u64) -> Teacher {
    let Quiz {
        world, question, ..
    } = quiz.clone();
    Teacher::new(world, question, &Habits::default(), seed)
}

/// How the teacher answers.
pub(crate) fn taught(quiz: &Quiz, seed: u64) -> Result<Conversation<RgbImage>, Failure> {
    let source = WorldSource::new(quiz.world.clone());
    let report = Session::new(source, teacher(quiz, seed)).ask(&quiz.question.text)?;
    if report.answer().is_none() {
        return Err(format!("the teacher has no answer to {:?}", quiz.question).into());
    }
    Ok(report.conversation)
}

/// A question of a colour or of an order, a scan of a part of the video, and what the expert says to
/// it.
fn look_up(number: u64, frames: u32) -> Result<Conversation<RgbImage>, Failure> {
    let world = Arc::new(World::new(Split::Train.seed(number as u32)));
    let mut draw = draws(number);
    // One in eight colours is of no card, and a window can miss the card.
    let kind = match draw(8) {
        0 => Kind::Absent,
        1 | 2 => Kind::Order,
        _ => Kind::Find,
    };
    let question = world.question(kind, number);
    let length = stated_length(world.duration());
    let sought = |colour| world.cards().iter().find(|card| card.colour == colour);
    let around = match question.subject {
        Subject::Colour(colour) => sought(colour),
        Subject::Order([first, _]) => sought(first),
        _ => None,
    };
    let around = around.map_or(f64::from(draw(length)), |card| card.start);
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
    let scanned = (0..).zip(&shown).map(|(index, frame)| {
        let card = world.card_at(frame.time);
        let label = selection.label_seconds(index) as u32;
        (label, card.map(|card| card.colour))
    });
    let reply = match question.subject {
        Subject::Colour(colour) => report(colour, scanned),
        Subject::Order(colours) => order_report(colours, scanned),
        _ => return Err(format!("{question:?} names no colour").into()),
    };
    let mut conversation = Conversation::open(&source.info(), &[(Role::User, &question.text)])?;
    let mut response = ToolMessage::new();
    response.frames(&selection, shown);
    conversation.push(response.close(&question.text));
    conversation.push(OwnedMessage::text(Role::Assistant, reply));
    Ok(conversation)
}

/// A question with options to which is told what a look has shown, and how to get to the letter. What is
/// written is the end of an expert's conversation, so that the way is the same there.
fn options(number: u64) -> Result<Conversation<RgbImage>, Failure> {
    let world = Arc::new(World::new(Split::Train.seed(number as u32)));
    let kind = OPTIONS[number as usize % OPTIONS.len()];
    let question: Question = world.question(kind, number).choices(number);
    let info = WorldSource::new(world.clone()).info();
    let last = Expert::new(world, question.clone()).reply(usize::MAX);
    let parts = last.split_once("\nReflection");
    let (summary, rest) = parts.ok_or_else(|| format!("no reflection in {last:?}"))?;
    // Of a scan the last frames; else the one line.
    let (told, reply) = match summary.strip_prefix("Summary:\n") {
        Some(scan) => {
            let lines: Vec<&str> = scan.lines().collect();
            let some = 1 + draws(number)(4) as usize;
            let some = &lines[lines.len().saturating_sub(some)..];
            let reply = format!("Summary:\n{}\nReflection{rest}", some.join("\n"));
            (some.join(" "), reply)
        }
        None => (summary.replacen("Summary: ", "", 1), last.clone()),
    };
    let asked = format!("{} {told}", question.text);
    let mut conversation = Conversation::open(&info, &[(Role::User, &asked)])?;
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

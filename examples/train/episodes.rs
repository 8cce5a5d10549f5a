//! The expert's conversations about training worlds.

use std::sync::Arc;

use eva::core::conversation::OwnedPart;
use eva::core::{Conversation, RgbImage, Session};
use eva::world::{Expert, Kind, Split, World, WorldSource};
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

/// Of ten shards: four about a moment, five about a colour, one about a colour that is not there.
fn kind(index: u64) -> Kind {
    match (index * 7) % 10 {
        0 | 2 | 4 | 6 => Kind::At,
        1 => Kind::Absent,
        _ => Kind::Find,
    }
}

/// The examples of one shard, all of one kind so that they are about equally long.
pub(crate) fn shard(run: &Run, index: u64) -> Result<(Kind, Vec<Example>), Failure> {
    let kind = kind(index);
    // Questions about a moment are a third as long.
    let count = if kind == Kind::At {
        2 * run.arguments.batch
    } else {
        run.arguments.batch
    } as u64;
    let examples = (0..count)
        .map(|item| {
            let number = index * 2 * run.arguments.batch as u64 + item;
            let conversation = conversation(kind, number, run.arguments.seed)?;
            Ok(conversation.with_messages(|messages| {
                Example::new(messages, &run.chat, &run.config, &run.images)
            })?)
        })
        .collect::<Result<_, Failure>>()?;
    Ok((kind, examples))
}

/// All texts of some conversations, for the tokenizer. A world outside the training order is used
/// for none of this: texts hold no pictures.
pub(crate) fn texts(count: u64) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    for index in 0..count {
        let conversation = conversation(kind(index), index, 0)?;
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

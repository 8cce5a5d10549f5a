//! Accuracy on held-out worlds, through the same path as any video.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use eva::core::{FrameSource, Pixels, Rules, Session};
use eva::world::{Kind, Split, World, WorldSource};
use eva_burn::{BurnPolicy, Device};

use crate::Failure;

#[derive(Default)]
struct Score {
    right: u32,
    asked: u32,
    rounds: u32,
    frames: u32,
    tokens: u64,
}

/// Asks `questions` of each kind, one world each, and prints accuracy, rounds, frames and visual
/// tokens by kind.
pub(crate) fn run(model: &Path, split: Split, questions: u32, mp4: bool) -> Result<(), Failure> {
    let mut policy = BurnPolicy::load(model, &Device::flex())?;
    let mut scores: BTreeMap<&str, Score> = BTreeMap::new();
    for index in 0..questions {
        for (offset, kind) in Kind::ALL.iter().enumerate() {
            let number = index * Kind::ALL.len() as u32 + offset as u32;
            let world = Arc::new(World::new(split.seed(number)));
            let question = world.question(*kind, u64::from(number));
            let answer = if mp4 {
                ask_file(&world, &mut policy, &question.text)?
            } else {
                ask(WorldSource::new(world), &mut policy, &question.text)?
            };
            let score = scores.entry(kind.name()).or_default();
            score.asked += 1;
            score.right += u32::from(answer.text.as_deref() == Some(question.answer.as_str()));
            score.rounds += answer.rounds;
            score.frames += answer.frames;
            score.tokens += answer.tokens;
            if std::env::var_os("EVA_VERBOSE").is_some()
                && answer.text.as_deref() != Some(question.answer.as_str())
            {
                eprintln!("{number} {question:?}\n{}", answer.log);
            }
        }
    }
    for (kind, score) in &scores {
        let mean = |sum: f64| sum / f64::from(score.asked);
        println!(
            "{kind}: {}/{} right ({:.1}%), {:.2} rounds, {:.1} frames, {:.0} visual tokens",
            score.right,
            score.asked,
            100.0 * mean(f64::from(score.right)),
            mean(f64::from(score.rounds)),
            mean(f64::from(score.frames)),
            mean(score.tokens as f64),
        );
    }
    Ok(())
}

struct Answer {
    text: Option<String>,
    rounds: u32,
    frames: u32,
    tokens: u64,
    log: String,
}

fn ask<S>(source: S, policy: &mut BurnPolicy, question: &str) -> Result<Answer, Failure>
where
    S: FrameSource<Error: 'static>,
    S::Pixels: Pixels + 'static,
{
    let mut session = Session::new(source, policy).with_rules(Rules::published());
    let report = session.ask(question)?;
    let outcome = &report.trajectory.outcome;
    Ok(Answer {
        text: report.answer().map(str::to_owned),
        rounds: outcome.tally.num_rounds,
        frames: outcome.tally.frames as u32,
        tokens: outcome.tally.estimated_visual_tokens,
        log: format!("{:#?}", report.trajectory.messages),
    })
}

#[cfg(feature = "gst")]
fn ask_file(world: &World, policy: &mut BurnPolicy, question: &str) -> Result<Answer, Failure> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("world.mp4");
    world.encode(&path)?;
    ask(eva::gst::GstSource::open(&path)?, policy, question)
}

#[cfg(not(feature = "gst"))]
fn ask_file(_: &World, _: &mut BurnPolicy, _: &str) -> Result<Answer, Failure> {
    Err("reading MP4 files is not compiled in; build with `--features gst`".into())
}

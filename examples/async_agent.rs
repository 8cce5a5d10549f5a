//! 32 videos at once from tokio: one thread runs all agents, others their models and decoders.
//!
//!     cargo run --release --example async_agent

use std::sync::Arc;
use std::time::{Duration, Instant};

use eva::core::conversation::ToolMessage;
use eva::core::{Conversation, OwnedMessage, ToolFailure};
use eva::world::{Expert, Kind, World, WorldSource};
use eva::{Agent, FrameSource, Input, Policy, Role, Rules, Step};
use tokio::task::{JoinSet, spawn_blocking};
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One video: what came of it, whether the answer is right, and the time spent in the agent.
async fn run(seed: u64) -> Result<(String, bool, Duration), Failure> {
    let world = Arc::new(World::new(seed));
    let asked = world.question(Kind::ALL[seed as usize % Kind::ALL.len()], seed);
    let mut policy = Expert::new(world.clone(), asked.clone());
    let mut source = WorldSource::new(world);
    let mut agent = Agent::new(Rules::published(), source.info());
    let mut talk = Conversation::open(agent.info(), &[(Role::User, &asked.text)])?;
    let (mut reply, mut response, mut own) = (String::new(), ToolMessage::new(), Duration::ZERO);
    let (mut usage, mut frames);
    let outcome = loop {
        let input = match agent.step().clone() {
            Step::Generate => {
                reply.clear();
                (policy, talk, reply, usage) = spawn_blocking(move || {
                    let usage = talk.with_messages(|read| policy.generate(read, &mut reply));
                    (policy, talk, reply, usage)
                })
                .await?;
                talk.push(OwnedMessage::text(Role::Assistant, reply.clone()));
                let (reply, usage) = (reply.as_str(), usage?);
                Input::Generated { reply, usage }
            }
            Step::SelectFrames(selection) => {
                (source, frames) = spawn_blocking(move || {
                    let mut frames = Vec::new();
                    let result = source.frames(&selection, &mut |frame| frames.push(frame));
                    (source, result.map(|()| frames))
                })
                .await?;
                response.frames(&selection, frames?);
                Input::Selected(Ok(selection.nframes))
            }
            Step::CallTool(_) => Input::Returned(Err(ToolFailure::Unknown)),
            Step::Done(outcome) => break outcome,
        };
        let (looked, started) = (!matches!(input, Input::Generated { .. }), Instant::now());
        let next = agent.handle(input)?;
        own += started.elapsed();
        if looked && *next == Step::Generate {
            talk.push(std::mem::take(&mut response).close(&asked.text));
        }
    };
    let answer = outcome.answer.and_then(|span| span.of(&reply));
    let line = format!("{} {}", asked.text, answer.unwrap_or("?"));
    Ok((line, answer == Some(&asked.answer), own))
}

fn main() -> Result<(), Failure> {
    let threads = tokio::runtime::Builder::new_current_thread().build()?;
    threads.block_on(async {
        let mut runs: JoinSet<_> = (0..32).map(run).collect();
        let (mut right, mut own) = (0, Duration::ZERO);
        while let Some(done) = runs.join_next().await {
            let (line, is_right, time) = done??;
            println!("{line}");
            (right, own) = (right + u32::from(is_right), own + time);
        }
        println!(
            "{right} of 32 are right, {:?} spent in each agent",
            own / 32
        );
        Ok(())
    })
}

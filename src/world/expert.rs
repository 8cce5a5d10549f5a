//! The best course of action, scripted: [`Expert`].

use core::fmt;
use std::sync::Arc;

use eva_core::{Message, Policy, Role, Usage};

use super::script::Script;
use super::{Flaw, Question, World};

/// A policy that knows the world: it plans, looks and answers as a perfect model would.
///
/// It looks at no picture, so it works with any picture type. Which turn it is, it sees from the
/// number of replies in the conversation; reports are those of the frames that its own calls
/// fetch at those times.
///
/// | question | course |
/// |---|---|
/// | digit at a moment | one sharp frame |
/// | digit of a colour | a scan of the whole video at a tenth of its size, then one sharp frame, or none if the scan does not show the colour |
/// | background at a moment | one frame at half the size |
/// | which of two comes first | the scan alone |
/// | how often it goes dark | as many small frames as a scan has, of the window alone |
///
/// With options it goes through them in order at the end, until one is what it found.
#[derive(Debug, Clone)]
pub struct Expert {
    world: Arc<World>,
    question: Question,
    /// None in an expert: they make it a [`Teacher`](super::Teacher).
    pub(super) flaws: Vec<Flaw>,
    /// What it guesses, if it does.
    pub(super) guess: String,
}

impl Expert {
    /// The expert for one question about one world.
    #[must_use]
    pub const fn new(world: Arc<World>, question: Question) -> Self {
        Self {
            world,
            question,
            flaws: Vec::new(),
            guess: String::new(),
        }
    }

    /// What it writes in turn number `turn`, counted from 0. After its answer it repeats it.
    #[must_use]
    pub fn reply(&self, turn: usize) -> String {
        let mut course = self.script().course();
        course.truncate(turn.saturating_add(1));
        course.pop().unwrap_or_default()
    }

    pub(super) fn script(&self) -> Script<'_> {
        Script {
            world: &self.world,
            question: &self.question,
            flaws: &self.flaws,
            guess: &self.guess,
        }
    }
}

impl<P> Policy<P> for Expert {
    /// Only the host's own writer can fail.
    type Error = fmt::Error;

    fn generate(
        &mut self,
        conversation: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, fmt::Error> {
        let own = |message: &&Message<'_, P>| message.role == Role::Assistant;
        let turn = conversation.iter().filter(own).count();
        reply.write_str(&self.reply(turn))?;
        Ok(Usage::default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::world::{Kind, WorldSource, seen};
    use eva_core::{FrameSource, Rules, Session};

    fn ask(world: &Arc<World>, question: &Question) -> eva_core::Trajectory {
        let source = WorldSource::new(world.clone());
        assert_eq!(source.info().duration, world.duration());
        let expert = Expert::new(world.clone(), question.clone());
        let mut session = Session::new(source, expert).with_rules(Rules::published());
        session.ask(&question.text).unwrap().trajectory
    }

    #[test]
    fn it_is_always_right_and_has_seen_why() {
        for seed in 0..50 {
            let world = Arc::new(World::new(seed));
            for &kind in Kind::ALL {
                let open = world.question(kind, seed);
                for question in [open.clone(), open.choices(seed)] {
                    let run = ask(&world, &question);
                    let about = format!("seed {seed}: {}", question.text);
                    assert_eq!(run.outcome.answer, Some(question.answer.clone()), "{about}");
                    let frames = seen(&run);
                    assert!(question.seen_by(&world, &frames), "{about}");
                    let (rounds, images) = match kind {
                        Kind::At | Kind::Background => (2, 1),
                        Kind::Find => (3, 17),
                        Kind::Absent | Kind::Order | Kind::Count => (2, 16),
                    };
                    assert_eq!(run.turns.len(), rounds, "{about}");
                    assert_eq!(frames.len(), images, "{about}");
                }
            }
        }
    }

    /// Without drawing a frame, so that many worlds are soon through.
    #[test]
    fn it_is_right_in_many_worlds() {
        for seed in 0..1500 {
            let world = Arc::new(World::new(seed));
            for &kind in Kind::ALL {
                let question = world.question(kind, seed).choices(seed);
                let right = format!("<answer>{}</answer>", question.answer);
                let expert = Expert::new(world.clone(), question);
                let reply = expert.reply(5);
                assert!(reply.ends_with(&right), "seed {seed}, {kind:?}: {reply}");
                assert_eq!(reply, expert.reply(usize::MAX));
            }
        }
    }
}

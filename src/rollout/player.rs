//! One of many runs: [`Player`].

use std::fmt;

use eva_core::{FrameSource, Message, NoQuestion, Policy, Role, Rules, Run, Session, Step, Usage};

use super::{Engine, Generated, Rollout, Task, replies};

/// A run under way, with its video.
pub(super) struct Player<S: FrameSource> {
    source: S,
    rules: Rules,
    run: Run<S::Pixels>,
    replies: Vec<Generated>,
    error: Option<String>,
}

impl<S: FrameSource> Player<S> {
    pub(super) fn new(task: Task<S>, rules: Rules) -> Result<Self, NoQuestion> {
        let Task { mut source, prompt } = task;
        let messages = prompt.iter().map(|(role, text)| (*role, text.as_str()));
        let prompt: Vec<(Role, &str)> = messages.collect();
        let run = session(&mut source, Ready::default(), rules).begin(&prompt)?;
        Ok(Self {
            source,
            rules,
            run,
            replies: Vec::new(),
            error: None,
        })
    }

    pub(super) fn waits_for_reply(&self) -> bool {
        *self.run.step() == Step::Generate
    }

    pub(super) fn waits_for_frames(&self) -> bool {
        !self.waits_for_reply() && !self.run.is_done()
    }

    /// Carries out all calls of the last reply.
    pub(super) fn look(&mut self) {
        let mut session = session(&mut self.source, Ready::default(), self.rules);
        while !matches!(self.run.step(), Step::Generate | Step::Done(_)) {
            session.advance(&mut self.run);
        }
    }

    /// Goes on with a reply.
    fn reply(&mut self, text: String, ended: Result<Generated, String>) {
        let ready = match ended {
            Ok(generated) => {
                let usage = generated.usage();
                self.replies.push(generated);
                Ready::Reply(text, usage)
            }
            Err(error) => {
                self.error = Some(error);
                Ready::Failed(text)
            }
        };
        session(&mut self.source, ready, self.rules).advance(&mut self.run);
    }

    pub(super) fn finish(self) -> Rollout<S::Pixels> {
        Rollout {
            report: self.run.into_report(),
            replies: self.replies,
            error: self.error,
        }
    }
}

/// Continues all of `players` by one reply each.
pub(super) fn generate<S, E>(engine: &mut E, players: &mut [&mut Player<S>])
where
    S: FrameSource,
    E: Engine<S::Pixels>,
{
    let conversations = players.iter().map(|player| player.run.conversation());
    let replies = replies(engine, &conversations.collect::<Vec<_>>());
    for (player, (text, ended)) in players.iter_mut().zip(replies) {
        player.reply(text, ended);
    }
}

fn session<S: FrameSource>(source: &mut S, ready: Ready, rules: Rules) -> Session<&mut S, Ready> {
    Session::new(source, ready).with_rules(rules)
}

/// A reply that is there already, as a policy: so that runs in lock-step go by the same code as one
/// alone.
#[derive(Default)]
enum Ready {
    #[default]
    Nothing,
    /// The text that came before the failure.
    Failed(String),
    Reply(String, Usage),
}

/// There is no reply; why, the player knows.
#[derive(Debug, thiserror::Error)]
#[error("the engine gave no reply")]
struct NoReply;

impl From<fmt::Error> for NoReply {
    fn from(_: fmt::Error) -> Self {
        Self
    }
}

impl<P> Policy<P> for Ready {
    type Error = NoReply;

    fn generate(
        &mut self,
        _: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, NoReply> {
        match self {
            Self::Nothing => Err(NoReply),
            Self::Failed(text) => {
                reply.write_str(text)?;
                Err(NoReply)
            }
            Self::Reply(text, usage) => {
                reply.write_str(text)?;
                Ok(*usage)
            }
        }
    }
}

//! Was there enough evidence for an answer? A [`Judge`] says.

use std::fmt;

use eva_core::conversation::{Conversation, OwnedPart};
use eva_core::trajectory::ImageRecord;
use eva_core::{Message, Part, Policy, Role, Trajectory};

use super::Pair;
use super::text::shortened;
use crate::benchmark::WorldTask;
use crate::world::World;

/// Times that a judge is asked at most.
const TRIES: usize = 3;
/// Longest part of a malformed reply that is kept, in characters.
const LONGEST: usize = 200;

/// What a judge says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// What was seen supports the answer.
    Enough,
    /// The answer is a guess.
    Guessed,
}

/// A run that is to be judged. Its answer is right.
#[derive(Debug)]
pub struct Case<'a, P> {
    /// What was asked.
    pub pair: &'a Pair,
    /// The run.
    pub trajectory: &'a Trajectory,
    /// The run with its pictures.
    pub conversation: &'a Conversation<P>,
}

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JudgeError {
    /// The judge failed.
    #[error("the judge failed: {0}")]
    Failed(String),
    /// It said neither word, however often it was asked.
    #[error("the judge says neither ENOUGH nor GUESSED: {}", .0.join(" | "))]
    Malformed(Vec<String>),
}

/// Tells evidence from guesses.
pub trait Judge<P> {
    /// Whether what was seen in a run supports its answer.
    ///
    /// # Errors
    /// [`JudgeError`]: the run is kept aside then.
    fn judge(&mut self, case: &Case<'_, P>) -> Result<Verdict, JudgeError>;
}

impl<P, J: Judge<P> + ?Sized> Judge<P> for Box<J> {
    fn judge(&mut self, case: &Case<'_, P>) -> Result<Verdict, JudgeError> {
        (**self).judge(case)
    }
}

/// No judge: the rules alone decide.
impl<P> Judge<P> for () {
    fn judge(&mut self, _: &Case<'_, P>) -> Result<Verdict, JudgeError> {
        Ok(Verdict::Enough)
    }
}

/// A model as judge. It reads the whole run, frames included, and says one word; what is not that
/// word is answered by a reminder, twice at most.
#[derive(Debug)]
pub struct PolicyJudge<M> {
    policy: M,
}

const TASK: &str = "You judge how a model answered a question about a video. It saw nothing of the \
                    video but the frames below, which it chose itself. Its answer is known to be \
                    right; what counts is whether the frames show it. Say ENOUGH if they do, and \
                    GUESSED if the answer can't be told from them.";
const ONE_WORD: &str = "Reply with one word and nothing else: ENOUGH or GUESSED.";

impl<M> PolicyJudge<M> {
    /// The judge that `policy` is.
    pub const fn new(policy: M) -> Self {
        Self { policy }
    }
}

impl<P, M: Policy<P>> Judge<P> for PolicyJudge<M> {
    fn judge(&mut self, case: &Case<'_, P>) -> Result<Verdict, JudgeError> {
        let mut said: Vec<String> = Vec::new();
        while said.len() < TRIES {
            let mut reply = String::new();
            asked(case, &said, |messages| {
                self.policy.generate(messages, &mut reply)
            })
            .map_err(|error| JudgeError::Failed(error.to_string()))?;
            match verdict(&reply) {
                Some(verdict) => return Ok(verdict),
                None => said.push(shortened(&reply, LONGEST)),
            }
        }
        Err(JudgeError::Malformed(said))
    }
}

/// The verdict that a reply is. Case and a full stop don't matter; a word more is too much.
fn verdict(reply: &str) -> Option<Verdict> {
    let word = reply.trim();
    match word.strip_suffix('.').unwrap_or(word) {
        word if word.eq_ignore_ascii_case("ENOUGH") => Some(Verdict::Enough),
        word if word.eq_ignore_ascii_case("GUESSED") => Some(Verdict::Guessed),
        _ => None,
    }
}

/// The run as one message, and what was said to it so far.
fn asked<P, R>(
    case: &Case<'_, P>,
    said: &[String],
    read: impl FnOnce(&[Message<'_, P>]) -> R,
) -> R {
    let answer = case.trajectory.outcome.answer.as_deref();
    let begin = format!("Question: {}\n\nThe run:", case.pair.prompt());
    let end = format!("\n\nIts answer: {}\n\n{ONE_WORD}", answer.unwrap_or("none"));
    let heads = case.conversation.messages().iter().map(|message| {
        let name = match message.role {
            Role::System | Role::User => return None,
            Role::Assistant => "the model",
            Role::Tool => "the frames",
        };
        Some(format!("\n\n[{name}]\n"))
    });
    let heads: Vec<Option<String>> = heads.collect();
    let mut parts = vec![Part::Text(&begin)];
    for (head, message) in heads.iter().zip(case.conversation.messages()) {
        let Some(head) = head else { continue };
        parts.push(Part::Text(head));
        parts.extend(message.parts.iter().map(|part| match part {
            OwnedPart::Text(text) => Part::Text(text.as_str()),
            OwnedPart::Image(picture) => Part::Image(&picture.frame.pixels),
        }));
    }
    parts.push(Part::Text(&end));
    let task = [Part::Text(TASK)];
    let remind = [Part::Text(ONE_WORD)];
    let replies: Vec<[Part<'_, P>; 1]> = said.iter().map(|reply| [Part::Text(reply)]).collect();
    let mut messages = vec![
        Message {
            role: Role::System,
            parts: &task,
        },
        Message {
            role: Role::User,
            parts: &parts,
        },
    ];
    for reply in &replies {
        messages.push(Message {
            role: Role::Assistant,
            parts: reply,
        });
        messages.push(Message {
            role: Role::User,
            parts: &remind,
        });
    }
    read(&messages)
}

/// The judge of synthetic worlds, who knows when each card is on screen.
///
/// What counts as evidence, [`Question::seen_by`](crate::world::Question::seen_by) says.
#[derive(Debug, Clone, Copy, Default)]
pub struct WorldJudge;

impl<P> Judge<P> for WorldJudge {
    fn judge(&mut self, case: &Case<'_, P>) -> Result<Verdict, JudgeError> {
        let task = WorldTask::of(&case.pair.item(0));
        let task = task.ok_or_else(|| {
            JudgeError::Failed(format!("{} is no synthetic world", case.pair.video))
        })?;
        let world = World::new(task.seed);
        let seen = case.conversation.pictures().map(|picture| ImageRecord {
            time: picture.frame.time,
            width: picture.width,
            height: picture.height,
        });
        let enough = task.question.seen_by(&world, &seen.collect::<Vec<_>>());
        Ok(if enough {
            Verdict::Enough
        } else {
            Verdict::Guessed
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enough => "ENOUGH",
            Self::Guessed => "GUESSED",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::benchmark::WorldItems;
    use crate::world::{Expert, Kind, WorldSource};
    use eva_core::mock::ScriptedPolicy;
    use eva_core::{FrameSource as _, Report, RgbImage, Session};
    use std::sync::Arc;

    fn pairs(count: u32) -> Vec<Pair> {
        let items: WorldItems = format!("world:1:{count}").parse().unwrap();
        items.items().map(|item| Pair::of_item(&item)).collect()
    }

    fn run(pair: &Pair, policy: impl Policy<RgbImage, Error: std::fmt::Debug>) -> Report<RgbImage> {
        let task = WorldTask::of(&pair.item(0)).unwrap();
        let source = WorldSource::new(Arc::new(World::new(task.seed)));
        assert!(source.info().duration > 0.0);
        Session::new(source, policy).ask(&pair.prompt()).unwrap()
    }

    fn judged<J: Judge<RgbImage>>(
        judge: &mut J,
        pair: &Pair,
        report: &Report<RgbImage>,
    ) -> Result<Verdict, JudgeError> {
        judge.judge(&Case {
            pair,
            trajectory: &report.trajectory,
            conversation: &report.conversation,
        })
    }

    #[test]
    fn the_worlds_judge_takes_the_experts_evidence_and_no_guess() {
        let of_kinds = Kind::ALL.iter().flat_map(|kind| {
            let items: WorldItems = format!("world:1:10:{}", kind.name()).parse().unwrap();
            items.items().map(|item| Pair::of_item(&item))
        });
        for pair in of_kinds {
            let task = WorldTask::of(&pair.item(0)).unwrap();
            let expert = Expert::new(Arc::new(World::new(task.seed)), task.question);
            let report = run(&pair, expert);
            assert_eq!(judged(&mut WorldJudge, &pair, &report), Ok(Verdict::Enough));
            // The same answer after one tiny frame of the beginning.
            let guess = ScriptedPolicy::new([
                "<tool_call>{\"tool\": \"frame_select\", \"arguments\": {\"start_time\": 0, \
                 \"end_time\": 1, \"nframes\": 1, \"resize\": 0.1}}</tool_call>"
                    .to_owned(),
                format!("<answer>{}</answer>", pair.answer),
            ]);
            let report = run(&pair, guess);
            assert_eq!(
                judged(&mut WorldJudge, &pair, &report),
                Ok(Verdict::Guessed)
            );
        }
    }

    #[test]
    fn a_model_as_judge_is_asked_again_until_it_says_one_word() {
        let pair = &pairs(1)[0];
        let report = run(pair, ScriptedPolicy::new(["<answer>1</answer>"]));
        let judge = |replies: &[&str]| {
            let policy = ScriptedPolicy::new(replies.iter().copied());
            judged(&mut PolicyJudge::new(policy), pair, &report)
        };
        assert_eq!(judge(&["ENOUGH"]), Ok(Verdict::Enough));
        assert_eq!(
            judge(&["Well, ENOUGH", " guessed.\n"]),
            Ok(Verdict::Guessed)
        );
        assert_eq!(
            judge(&["yes", "", "ENOUGH or GUESSED", "ENOUGH"]),
            Err(JudgeError::Malformed(vec![
                "yes".to_owned(),
                String::new(),
                "ENOUGH or GUESSED".to_owned()
            ]))
        );
        assert!(matches!(judge(&["yes"]), Err(JudgeError::Failed(_))));
    }

    #[test]
    fn the_judge_sees_every_frame_and_what_it_said_itself() {
        struct Eyes;
        impl Policy<RgbImage> for Eyes {
            type Error = fmt::Error;
            fn generate(
                &mut self,
                messages: &[Message<'_, RgbImage>],
                reply: &mut dyn fmt::Write,
            ) -> Result<eva_core::Usage, fmt::Error> {
                let parts = messages.iter().flat_map(|message| message.parts);
                let images = parts.filter(|part| matches!(part, Part::Image(_))).count();
                // The first try is malformed; the second hears it.
                reply.write_str(match (images, messages.len()) {
                    (16, 4) => "GUESSED",
                    _ => "hm",
                })?;
                Ok(eva_core::Usage::default())
            }
        }
        let pair = &pairs(3)[2];
        let task = WorldTask::of(&pair.item(0)).unwrap();
        let expert = Expert::new(Arc::new(World::new(task.seed)), task.question);
        let report = run(pair, expert);
        let judged = judged(&mut PolicyJudge::new(Eyes), pair, &report);
        assert_eq!(judged, Ok(Verdict::Guessed));
    }
}

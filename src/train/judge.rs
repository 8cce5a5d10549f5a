//! Who verifies an answer by the last look alone: [`Judge`], and a model as one, [`LastRound`].

use eva_core::{Conversation, NoQuestion, OwnedMessage, OwnedPart, Pixels, Role, reply};

use super::Asked;
use crate::rollout::{Engine, Rollout, replies};

/// Answers questions from what a run saw in its last round, and nothing else (the paper's
/// completeness self-verification).
pub trait Judge<P> {
    /// The answer to each question, from the frames of the run's last round; `None` where there is
    /// none.
    fn answers(&mut self, runs: &[(&Asked, &Rollout<P>)]) -> Vec<Option<String>>;
}

/// A model as judge: it is shown the question, the call of the last round that brought frames, without
/// the words around it, and those frames; what it replies is read as any reply is.
#[derive(Debug, Clone)]
pub struct LastRound<E>(pub E);

impl<P: Pixels + Clone, E: Engine<P>> Judge<P> for LastRound<E> {
    fn answers(&mut self, runs: &[(&Asked, &Rollout<P>)]) -> Vec<Option<String>> {
        let shown: Vec<Option<Conversation<P>>> = runs
            .iter()
            .map(|(asked, run)| last_round(asked, run).ok().flatten())
            .collect();
        let some: Vec<&Conversation<P>> = shown.iter().flatten().collect();
        let mut said = replies(&mut self.0, &some).into_iter();
        shown
            .iter()
            .map(|shown| {
                let (text, _) = shown.as_ref().and_then(|_| said.next())?;
                reply::answer(&text)?.of(&text).map(str::to_owned)
            })
            .collect()
    }
}

/// The question and the last round that brought frames, as a conversation of their own.
fn last_round<P: Clone>(
    asked: &Asked,
    run: &Rollout<P>,
) -> Result<Option<Conversation<P>>, NoQuestion> {
    let info = &run.report.trajectory.video;
    let mut conversation = Conversation::open(info, &[(Role::User, &asked.question)])?;
    let messages = run.report.conversation.messages();
    let brought = |message: &OwnedMessage<P>| {
        let mut parts = message.parts.iter();
        message.role == Role::Tool && parts.any(|part| matches!(part, OwnedPart::Image(_)))
    };
    let Some(at) = messages.iter().rposition(brought) else {
        return Ok(None);
    };
    if let Some(call) = at.checked_sub(1).and_then(|before| messages.get(before)) {
        conversation.push(OwnedMessage::text(call.role, call_of(call)));
    }
    conversation.push(messages[at].clone());
    Ok(Some(conversation))
}

/// The first tool call of a message, tags included: what it says around it could give the answer
/// away.
fn call_of<P>(message: &OwnedMessage<P>) -> &str {
    const OPEN: &str = "<tool_call>";
    const CLOSE: &str = "</tool_call>";
    let texts = message.parts.iter().filter_map(|part| match part {
        OwnedPart::Text(text) => Some(text.as_str()),
        OwnedPart::Image(_) => None,
    });
    let mut calls = texts.filter_map(|text| {
        let start = text.find(OPEN)?;
        let end = start + text[start..].find(CLOSE)? + CLOSE.len();
        text.get(start..end)
    });
    calls.next().unwrap_or_default()
}

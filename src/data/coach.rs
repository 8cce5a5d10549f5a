//! A policy that is told more than the record will hold: [`Coached`] adds a hint to the question and
//! has calls audited by a thinker.

use std::fmt;

use eva_core::reply::{self, FrameSelect};
use eva_core::{Message, Part, Policy, Role, Rules, Selection, Usage, VideoInfo};

use super::{Fault, Limits, Objection};

/// Times that a reply is asked for again at most.
const REVISIONS: usize = 2;

/// A policy with a hint and a thinker. The session around it sees the clean conversation and, of each
/// turn, the reply that was let through.
pub(super) struct Coached<'a, M> {
    policy: &'a mut M,
    hint: &'a str,
    thinker: Thinker<'a>,
    /// What the thinker said.
    pub(super) objections: Vec<Objection>,
}

/// Audits the calls of a reply by rule.
pub(super) struct Thinker<'a> {
    pub(super) limits: &'a Limits,
    pub(super) rules: &'a Rules,
    pub(super) info: VideoInfo,
    pub(super) question: &'a str,
    /// The looks of the turns before.
    watched: Vec<Selection>,
}

impl<'a> Thinker<'a> {
    pub(super) fn new(
        limits: &'a Limits,
        rules: &'a Rules,
        info: VideoInfo,
        question: &'a str,
    ) -> Self {
        Self {
            limits,
            rules,
            info,
            question,
            watched: Vec::new(),
        }
    }

    /// The looks that `reply` asks for. An answer ends the run: what is called beside it isn't run.
    fn looks(&self, reply: &str) -> Vec<Selection> {
        if reply::answer(reply).is_some() {
            return Vec::new();
        }
        let calls = reply::tool_calls(reply).into_iter().flatten();
        calls
            .filter_map(|call| {
                let call = FrameSelect::parse(call.arguments.of(reply)?).ok()?;
                Selection::plan(&call, &self.info, self.rules).ok()
            })
            .collect()
    }

    /// What is wrong with the looks that `reply` asks for, each fault once.
    fn audit(&self, reply: &str) -> Vec<Fault> {
        let mut before = self.watched.clone();
        let mut faults = Vec::new();
        for look in self.looks(reply) {
            faults.extend(
                self.limits
                    .faults(self.question, &self.info, &before, &look),
            );
            before.push(look);
        }
        faults.sort_unstable();
        faults.dedup();
        faults
    }
}

impl<'a, M> Coached<'a, M> {
    pub(super) fn new(policy: &'a mut M, hint: &'a str, thinker: Thinker<'a>) -> Self {
        Self {
            policy,
            hint,
            thinker,
            objections: Vec::new(),
        }
    }
}

impl<P, M: Policy<P>> Policy<P> for Coached<'_, M> {
    type Error = M::Error;

    fn generate(
        &mut self,
        conversation: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, M::Error> {
        let own = |message: &&Message<'_, P>| message.role == Role::Assistant;
        let turn = conversation.iter().filter(own).count() as u32;
        let mut said: Vec<(Role, String)> = Vec::new();
        let mut usage = Usage::default();
        let draft = loop {
            let mut draft = String::new();
            let used = hinted(conversation, self.hint, &said, |messages| {
                self.policy.generate(messages, &mut draft)
            });
            usage.completion += used.as_ref().map_or(0, |used| used.completion);
            match used {
                Ok(used) => (usage.prompt, usage.cached) = (used.prompt, used.cached),
                Err(error) => {
                    // What there is of it belongs to the record of the failure.
                    _ = reply.write_str(&draft);
                    return Err(error);
                }
            }
            let faults = self.thinker.audit(&draft);
            if let Some(last) = self.objections.last_mut().filter(|_| !said.is_empty()) {
                last.resolved = faults.is_empty();
            }
            if faults.is_empty() || said.len() / 2 == REVISIONS {
                break draft;
            }
            let objection = objection(&faults);
            self.objections.push(Objection {
                turn,
                faults,
                resolved: false,
            });
            said.push((Role::Assistant, draft));
            said.push((Role::User, objection));
        };
        let looks = self.thinker.looks(&draft);
        self.thinker.watched.extend(looks);
        // Only a session that was called off refuses text, and it knows.
        _ = reply.write_str(&draft);
        Ok(usage)
    }
}

fn objection(faults: &[Fault]) -> String {
    let said: Vec<&str> = faults.iter().map(|fault| fault.objection()).collect();
    format!(
        "Before this call is carried out, consider: {} Write this turn again, with a better call or, \
         if the evidence is enough, with the answer. Don't mention this remark.",
        said.join(" ")
    )
}

/// Lends the conversation with `hint` behind its first question and `said` at its end.
fn hinted<P, R>(
    conversation: &[Message<'_, P>],
    hint: &str,
    said: &[(Role, String)],
    read: impl FnOnce(&[Message<'_, P>]) -> R,
) -> R {
    let hint = format!("\n\n{hint}");
    let asked = conversation
        .iter()
        .position(|message| message.role == Role::User);
    let mut question: Vec<Part<'_, P>> = Vec::new();
    if let Some(message) = asked.and_then(|place| conversation.get(place)) {
        question.extend_from_slice(message.parts);
        question.push(Part::Text(&hint));
    }
    let texts: Vec<[Part<'_, P>; 1]> = said.iter().map(|(_, text)| [Part::Text(text)]).collect();
    let mut messages: Vec<Message<'_, P>> = Vec::with_capacity(conversation.len() + said.len());
    for (place, message) in conversation.iter().enumerate() {
        messages.push(Message {
            role: message.role,
            parts: if Some(place) == asked {
                &question
            } else {
                message.parts
            },
        });
    }
    for ((role, _), parts) in said.iter().zip(&texts) {
        messages.push(Message { role: *role, parts });
    }
    read(&messages)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use eva_core::Session;
    use eva_core::mock::SolidSource;
    use eva_core::trajectory::PartRecord;

    const INFO: VideoInfo = VideoInfo {
        duration: 600.0,
        width: 1280,
        height: 720,
        fps: 25.0,
    };

    /// Says its replies and keeps what it was shown.
    struct Listener {
        replies: Vec<String>,
        heard: Vec<Vec<(Role, String)>>,
    }

    impl<P> Policy<P> for Listener {
        type Error = fmt::Error;

        fn generate(
            &mut self,
            conversation: &[Message<'_, P>],
            reply: &mut dyn fmt::Write,
        ) -> Result<Usage, fmt::Error> {
            let text = |message: &Message<'_, P>| {
                let texts = message.parts.iter().filter_map(|part| match part {
                    Part::Text(text) => Some(*text),
                    Part::Image(_) => None,
                });
                (message.role, texts.collect::<String>())
            };
            self.heard.push(conversation.iter().map(text).collect());
            let said = self.replies.get(self.heard.len() - 1).ok_or(fmt::Error)?;
            reply.write_str(said)?;
            Ok(Usage {
                prompt: 10,
                cached: 0,
                completion: 5,
            })
        }
    }

    fn call(start: u32, end: u32, nframes: u32, resize: f64) -> String {
        format!(
            "<tool_call>{{\"tool\": \"frame_select\", \"arguments\": {{\"start_time\": {start}, \
             \"end_time\": {end}, \"nframes\": {nframes}, \"resize\": {resize}}}}}</tool_call>"
        )
    }

    fn play(replies: &[String]) -> (Listener, Vec<Objection>, eva_core::Trajectory) {
        let mut policy = Listener {
            replies: replies.to_vec(),
            heard: Vec::new(),
        };
        let (limits, rules) = (Limits::default(), Rules::published());
        let thinker = Thinker::new(&limits, &rules, INFO, "Who?");
        let mut coached = Coached::new(&mut policy, "Mind the gap.", thinker);
        let report = Session::new(SolidSource::new(INFO), &mut coached)
            .ask("Who?")
            .unwrap();
        let objections = coached.objections;
        (policy, objections, report.trajectory)
    }

    #[test]
    fn the_policy_hears_hint_and_objection_and_the_record_holds_neither() {
        let dense = call(0, 4, 100, 0.5);
        let better = call(0, 600, 32, 0.1);
        let answer = "<answer>B</answer>".to_owned();
        let (policy, objections, trajectory) = play(&[dense.clone(), better.clone(), answer]);
        assert!(policy.heard[0][1].1.ends_with("Who?\n\nMind the gap."));
        assert_eq!(policy.heard[1][2], (Role::Assistant, dense));
        assert!(policy.heard[1][3].1.contains("ask for fewer"));
        // The next turn goes on from the revised call alone.
        assert_eq!(policy.heard[2][2], (Role::Assistant, better.clone()));
        assert_eq!(policy.heard[2].len(), 4);
        assert_eq!(
            objections,
            [Objection {
                turn: 0,
                faults: vec![Fault::TooDense],
                resolved: true
            }]
        );
        let texts = trajectory
            .messages
            .iter()
            .flat_map(|message| &message.parts);
        let texts: String = texts
            .filter_map(|part| match part {
                PartRecord::Text(text) => Some(text.as_str()),
                PartRecord::Image(_) => None,
            })
            .collect();
        assert!(texts.contains(&better), "{texts}");
        assert!(!texts.contains("Mind the gap") && !texts.contains("consider"));
        assert_eq!(trajectory.outcome.tally.num_rounds, 2);
        assert_eq!(trajectory.turns[0].usage.completion, 10);
    }

    #[test]
    fn revisions_are_bounded_and_the_last_one_passes() {
        let dense = call(0, 4, 100, 0.3);
        let replies = [
            dense.clone(),
            dense.clone(),
            dense,
            "<answer>B</answer>".to_owned(),
        ];
        let (policy, objections, trajectory) = play(&replies);
        assert_eq!(policy.heard.len(), 4);
        assert_eq!(objections.len(), REVISIONS);
        assert!(objections.iter().all(|objection| !objection.resolved));
        assert_eq!(trajectory.outcome.tally.frames, 100);
    }

    #[test]
    fn a_window_that_was_watched_before_is_objected_to() {
        let scan = call(0, 600, 32, 0.1);
        let replies = [scan.clone(), scan, "<answer>B</answer>".to_owned()];
        let (_, objections, trajectory) = play(&replies);
        assert_eq!(objections[0].turn, 1);
        assert_eq!(objections[0].faults, [Fault::Rewatched]);
        assert!(objections[0].resolved);
        assert_eq!(trajectory.outcome.tally.num_rounds, 2);
    }
}

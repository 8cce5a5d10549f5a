//! New questions about unseen videos: a [`Teacher`] writes them, given what the policy failed at.

use std::collections::BTreeSet;

use eva_core::prompt::Label;
use eva_core::{Frame, Message, Part, Policy, Role, Selection, VideoInfo};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::text::shortened;
use super::{Made, Pair, Reason};
use crate::benchmark::WorldTask;
use crate::world::{Kind, World};

/// Times that a teacher is asked at most.
const TRIES: usize = 3;
/// Longest part of a malformed reply that is kept, in characters.
const LONGEST: usize = 500;

/// A pair that the policy got wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Number of the pair in the input.
    pub item: u64,
    /// The pair.
    pub pair: Pair,
    /// What was answered, if anything.
    pub answer: Option<String>,
}

/// What a teacher writes questions from.
#[derive(Debug)]
pub struct Lesson<'a, P> {
    /// What the policy failed at, on other videos.
    pub failures: &'a [Failure],
    /// The video, as it will be written.
    pub video: &'a str,
    /// Its length and size.
    pub info: VideoInfo,
    /// The look behind `frames`.
    pub look: Selection,
    /// Frames of the whole video; empty for a teacher that needs none.
    pub frames: &'a [Frame<P>],
    /// How many questions are wanted.
    pub count: usize,
}

/// A question as a teacher wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The question.
    pub question: String,
    /// Its answer.
    pub answer: String,
    /// What else there is to say of it.
    pub extras: Map<String, Value>,
}

/// Why there are no questions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TeacherError {
    /// The teacher failed.
    #[error("the teacher failed: {0}")]
    Failed(String),
    /// Its replies hold no questions, however often it was asked.
    #[error("the teacher writes no questions: {}", .0.join(" | "))]
    Malformed(Vec<String>),
}

/// Part of a teacher's reply that is no question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {text}")]
pub struct Malformed {
    /// What is wrong with it.
    pub reason: &'static str,
    /// The part.
    pub text: String,
}

/// Writes questions with their answers.
pub trait Teacher<P> {
    /// Whether it has to see frames.
    fn needs_frames(&self) -> bool {
        true
    }

    /// Writes questions about a video, and what of its reply is none.
    ///
    /// # Errors
    /// [`TeacherError`]: the video is passed over.
    fn write(
        &mut self,
        lesson: &Lesson<'_, P>,
    ) -> Result<(Vec<Draft>, Vec<Malformed>), TeacherError>;
}

impl<P, T: Teacher<P> + ?Sized> Teacher<P> for Box<T> {
    fn needs_frames(&self) -> bool {
        (**self).needs_frames()
    }

    fn write(
        &mut self,
        lesson: &Lesson<'_, P>,
    ) -> Result<(Vec<Draft>, Vec<Malformed>), TeacherError> {
        (**self).write(lesson)
    }
}

impl Failure {
    /// The failures among finished runs: a wrong answer, or none.
    pub fn of(made: &Made) -> impl Iterator<Item = Self> {
        let failed = |reason: &Reason| matches!(reason, Reason::NoAnswer | Reason::WrongAnswer);
        let samples = made.samples.iter();
        samples
            .filter(move |sample| sample.reasons.iter().any(failed))
            .map(|sample| Self {
                item: sample.item,
                pair: sample.pair.clone(),
                answer: sample.trajectory.outcome.answer.clone(),
            })
    }
}

/// A model as teacher. It sees frames of the video and the failures as examples, and replies with a
/// JSON array; what holds none is answered by a reminder, twice at most.
#[derive(Debug)]
pub struct PolicyTeacher<M> {
    policy: M,
}

const FORM: &str = "Reply with a JSON array and nothing else: \
                    [{\"question\": \"...\", \"answer\": \"...\"}, ...]";

impl<M> PolicyTeacher<M> {
    /// The teacher that `policy` is.
    pub const fn new(policy: M) -> Self {
        Self { policy }
    }
}

impl<P, M: Policy<P>> Teacher<P> for PolicyTeacher<M> {
    fn write(
        &mut self,
        lesson: &Lesson<'_, P>,
    ) -> Result<(Vec<Draft>, Vec<Malformed>), TeacherError> {
        let mut said: Vec<String> = Vec::new();
        while said.len() < TRIES {
            let mut reply = String::new();
            asked(lesson, &said, |messages| {
                self.policy.generate(messages, &mut reply)
            })
            .map_err(|error| TeacherError::Failed(error.to_string()))?;
            let (mut written, bad) = drafts(&reply);
            if !written.is_empty() {
                written.truncate(lesson.count);
                return Ok((written, bad));
            }
            said.push(shortened(&reply, LONGEST));
        }
        Err(TeacherError::Malformed(said))
    }
}

/// The questions in a teacher's reply, and what of it is none: the JSON array in it, whatever stands
/// around that.
#[must_use]
pub fn drafts(reply: &str) -> (Vec<Draft>, Vec<Malformed>) {
    let bad = |reason, text: &str| Malformed {
        reason,
        text: shortened(text, LONGEST),
    };
    let span = reply
        .find('[')
        .zip(reply.rfind(']'))
        .filter(|(start, end)| start < end)
        .and_then(|(start, end)| reply.get(start..=end));
    let Some(span) = span else {
        return (Vec::new(), vec![bad("no JSON array", reply)]);
    };
    let Ok(entries) = serde_json::from_str::<Vec<Value>>(span) else {
        return (Vec::new(), vec![bad("not valid JSON", span)]);
    };
    let (mut good, mut rest) = (Vec::new(), Vec::new());
    for entry in entries {
        let text = |key: &str| {
            let text = entry.get(key)?.as_str()?.trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        match (text("question"), text("answer")) {
            (Some(question), Some(answer)) => good.push(Draft {
                question,
                answer,
                extras: Map::new(),
            }),
            (None, _) => rest.push(bad("no question", &entry.to_string())),
            (_, None) => rest.push(bad("no answer", &entry.to_string())),
        }
    }
    (good, rest)
}

fn asked<P, R>(
    lesson: &Lesson<'_, P>,
    said: &[String],
    read: impl FnOnce(&[Message<'_, P>]) -> R,
) -> R {
    let mut begin = "A model that answers questions about videos failed at these, about other \
                     videos:"
        .to_owned();
    for failure in lesson.failures {
        begin += &format!(
            "\n\nQuestion: {}\nRight answer: {}\nIts answer: {}",
            failure.pair.prompt(),
            failure.pair.answer,
            failure.answer.as_deref().unwrap_or("none")
        );
    }
    begin += &format!(
        "\n\nBelow are {} frames of a new video of {:.0} seconds.",
        lesson.frames.len(),
        lesson.info.usable_duration()
    );
    let end = format!(
        "\n\nWrite {} questions about the new video that ask for the same skills. Each is answered by \
         a word or a short phrase, has one right answer that can be seen in the video, and can't be \
         answered without it. {FORM}",
        lesson.count
    );
    let labels = (0..)
        .zip(lesson.frames)
        .map(|(index, _)| format!("\nFrame at [{}]: ", Label(lesson.look.label_seconds(index))));
    let labels: Vec<String> = labels.collect();
    let mut parts = vec![Part::Text(&begin)];
    for (label, frame) in labels.iter().zip(lesson.frames) {
        parts.push(Part::Text(label));
        parts.push(Part::Image(&frame.pixels));
    }
    parts.push(Part::Text(&end));
    let remind = [Part::Text(FORM)];
    let replies: Vec<[Part<'_, P>; 1]> = said.iter().map(|reply| [Part::Text(reply)]).collect();
    let mut messages = vec![Message {
        role: Role::User,
        parts: &parts,
    }];
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

/// The teacher of synthetic worlds, who knows what is on the cards. It asks each kind of question
/// that the policy failed at.
#[derive(Debug, Clone, Copy, Default)]
pub struct WorldTeacher;

impl<P> Teacher<P> for WorldTeacher {
    fn needs_frames(&self) -> bool {
        false
    }

    fn write(
        &mut self,
        lesson: &Lesson<'_, P>,
    ) -> Result<(Vec<Draft>, Vec<Malformed>), TeacherError> {
        let seed = WorldTask::seed(lesson.video);
        let seed = seed.ok_or_else(|| {
            TeacherError::Failed(format!("{} is no synthetic world", lesson.video))
        })?;
        let world = World::new(seed);
        let failed: BTreeSet<&str> = lesson
            .failures
            .iter()
            .filter_map(|failure| failure.pair.extras.get("question_type")?.as_str())
            .collect();
        let kinds = Kind::ALL.iter().filter(|kind| failed.contains(kind.name()));
        let written = kinds.take(lesson.count).map(|kind| {
            let question = world.question(*kind, seed & u64::from(u32::MAX));
            let mut extras = Map::new();
            extras.insert("question_type".to_owned(), kind.name().into());
            Draft {
                question: question.text,
                answer: question.answer,
                extras,
            }
        });
        Ok((written.collect(), Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use eva_core::mock::ScriptedPolicy;
    use proptest::prelude::*;

    fn lesson<'a>(failures: &'a [Failure], video: &'a str) -> Lesson<'a, ()> {
        Lesson {
            failures,
            video,
            info: VideoInfo {
                duration: 90.0,
                width: 640,
                height: 360,
                fps: 25.0,
            },
            look: Selection::uniform(0.0, 90.0, 1, 28, 28),
            frames: &[],
            count: 2,
        }
    }

    fn failure(kind: Kind) -> Failure {
        let line = format!(
            "{{\"video\": \"x\", \"question\": \"?\", \"answer\": \"1\", \"kind\": \"open_ended\", \
             \"question_type\": \"{}\"}}",
            kind.name()
        );
        Failure {
            item: 0,
            pair: Pair::parse(line.as_bytes()).unwrap(),
            answer: None,
        }
    }

    #[test]
    fn questions_are_read_from_json_whatever_stands_around_it() {
        let reply = "Here:\n```json\n[{\"question\": \" Who? \", \"answer\": \"a dog\"}, \
                     {\"question\": \"\", \"answer\": \"b\"}, {\"question\": \"Why?\"}, 3]\n```";
        let (good, bad) = drafts(reply);
        assert_eq!(good.len(), 1);
        assert_eq!(
            (good[0].question.as_str(), good[0].answer.as_str()),
            ("Who?", "a dog")
        );
        let reasons: Vec<&str> = bad.iter().map(|bad| bad.reason).collect();
        assert_eq!(reasons, ["no question", "no answer", "no question"]);
        for (reply, reason) in [
            ("", "no JSON array"),
            ("][", "no JSON array"),
            ("[{]", "not valid JSON"),
        ] {
            assert_eq!(drafts(reply).1[0].reason, reason);
        }
    }

    #[test]
    fn a_model_is_asked_again_until_it_writes_questions() {
        let failures = [failure(Kind::Find)];
        let lesson = lesson(&failures, "x.mp4");
        let write = |replies: &[&str]| {
            PolicyTeacher::new(ScriptedPolicy::new(replies.iter().copied())).write(&lesson)
        };
        let good = "[{\"question\": \"Who?\", \"answer\": \"a\"}]";
        assert_eq!(write(&["no", good]).unwrap().0.len(), 1);
        let many = format!(
            "[{}]",
            ["{\"question\": \"Who?\", \"answer\": \"a\"}"; 9].join(",")
        );
        assert_eq!(write(&[&many]).unwrap().0.len(), 2);
        assert_eq!(
            write(&["no", "[]", "{}"]),
            Err(TeacherError::Malformed(vec![
                "no".into(),
                "[]".into(),
                "{}".into()
            ]))
        );
        assert!(matches!(write(&["no"]), Err(TeacherError::Failed(_))));
    }

    #[test]
    fn the_worlds_teacher_asks_the_kinds_that_failed() {
        let failures = [failure(Kind::Find), failure(Kind::Find)];
        let (written, bad) = WorldTeacher
            .write(&lesson(&failures, "world-7.mp4"))
            .unwrap();
        assert_eq!((written.len(), bad.len()), (1, 0));
        let asked = World::new(7).question(Kind::Find, 7);
        assert_eq!(
            (&written[0].question, &written[0].answer),
            (&asked.text, &asked.answer)
        );
        let error = WorldTeacher.write(&lesson(&failures, "x.mp4"));
        assert!(matches!(error, Err(TeacherError::Failed(_))));
    }

    proptest! {
        #[test]
        fn no_reply_of_a_teacher_breaks_the_reading(reply in ".{0,200}") {
            let (good, _) = drafts(&reply);
            prop_assert!(good.iter().all(|one| !one.question.trim().is_empty()));
        }

        #[test]
        fn every_entry_of_an_array_is_a_question_or_named(
            entries in proptest::collection::vec(prop_oneof![
                Just("{\"question\": \"Who?\", \"answer\": \"a\"}"),
                Just("{\"question\": 3, \"answer\": \"a\"}"),
                Just("{\"question\": \"Who?\", \"answer\": []}"),
                Just("null"), Just("[1, 2]"), Just("\"]\""),
            ], 0..8),
            before in "[a-z {}:`\n]{0,20}", after in "[a-z {}:`\n]{0,20}"
        ) {
            let reply = format!("{before}[{}]{after}", entries.join(", "));
            let (good, bad) = drafts(&reply);
            prop_assert_eq!(good.len() + bad.len(), entries.len());
        }

        #[test]
        fn a_reply_cut_anywhere_is_no_panic(cut in 0usize..100) {
            let reply = "[{\"question\": \"Wär?\", \"answer\": \"ä\"}, {\"question\": \"b\", \"answer\": \"c\"}]";
            let text: String = reply.chars().take(cut).collect();
            let (good, bad) = drafts(&text);
            prop_assert!(good.len() + bad.len() <= 2);
        }
    }
}

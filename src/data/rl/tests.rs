#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::data::PolicyTeacher;
use crate::journal::Folder;
use eva_core::mock::{ScriptedPolicy, SolidSource};
use eva_core::{Message, Policy, RgbImage, Role, Usage, VideoInfo};
use std::convert::Infallible;
use std::fmt;

/// A gray video, and a model that looks at it and sees that it is gray. Asked which shade, it says
/// something else each time; asked to guess, it doesn't look.
struct Gray;

struct Eye(u64);

impl Policy<RgbImage> for Eye {
    type Error = fmt::Error;

    fn generate(
        &mut self,
        conversation: &[Message<'_, RgbImage>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, fmt::Error> {
        let asked = format!("{:?}", conversation[1].parts);
        let looked = conversation
            .iter()
            .any(|message| message.role == Role::Tool);
        reply.write_str(if !looked && !asked.contains("Guess") {
            "<tool_call>{\"tool\": \"frame_select\", \"arguments\": {\"start_time\": 0, \
             \"end_time\": 90, \"nframes\": 4, \"resize\": 0.5}}</tool_call>"
        } else if asked.contains("shade") && self.0 % 2 == 1 {
            "<answer>dark</answer>"
        } else if asked.contains("shade") {
            "<answer>light</answer>"
        } else {
            "<answer>gray</answer>"
        })?;
        Ok(Usage::default())
    }
}

impl Setup for Gray {
    type Source = SolidSource;
    type Policy = Eye;
    type Error = Infallible;

    fn policy(&self) -> Result<Eye, Infallible> {
        Ok(Eye(0))
    }

    fn source(&self, _: &Item) -> Result<SolidSource, Infallible> {
        Ok(SolidSource::new(VideoInfo {
            duration: 90.0,
            width: 640,
            height: 360,
            fps: 25.0,
        }))
    }

    fn prepare(&self, policy: &mut Eye, item: &Item) -> Result<(), Infallible> {
        policy.0 = item.index;
        Ok(())
    }
}

#[test]
fn questions_stay_that_are_new_and_answered_twice_from_frames() {
    let reply = serde_json::json!([
        {"question": "What colour is it?", "answer": "gray"},
        {"question": "what colour is it", "answer": "gray"},
        {"question": "Which shade is it?", "answer": "light"},
        {"question": "What fruit is it?", "answer": "a pear"},
        {"question": "Guess: what is it?", "answer": "gray"},
    ]);
    let reply = reply.to_string();
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path(), &serde_json::Map::new()).unwrap();
    let mut journal = Journal::open(&folder, false).unwrap();
    let pair = br#"{"video": "y", "question": "?", "answer": "a", "kind": "open_ended"}"#;
    let failures = [Failure {
        item: 4,
        pair: Pair::parse(pair).unwrap(),
        answer: Some("b".to_owned()),
    }];
    let teacher = || Ok(PolicyTeacher::new(ScriptedPolicy::new([reply.clone()])));
    let videos = ["x.mp4".to_owned()];
    let rl = Rl::new(Stage::new("tiny").with_seed(5), "large").with_questions(9);
    let ended = rl
        .run(
            &Gray,
            &teacher,
            &failures,
            &videos,
            &mut journal,
            &mut |_| (),
        )
        .unwrap();
    assert_eq!(ended.finished, 1);
    let written: Vec<Written> = journal.entries().unwrap().map(Result::unwrap).collect();
    let [written] = written.as_slice() else {
        panic!("{written:?}")
    };
    assert_eq!(written.pairs.len(), 1, "{written:?}");
    let pair = &written.pairs[0];
    assert_eq!(
        (pair.video.as_str(), pair.answer.as_str()),
        ("x.mp4", "gray")
    );
    let provenance = &pair.extras["provenance"];
    assert_eq!(provenance["failures"], serde_json::json!([4]));
    assert_eq!(
        (&provenance["teacher"], &provenance["seed"]),
        (&"large".into(), &5.into())
    );
    let reasons: Vec<Reason> = written.rejected.iter().map(|one| one.reason).collect();
    let unanswerable = Reason::Unanswerable;
    assert_eq!(
        reasons,
        [Reason::Duplicate, unanswerable, unanswerable, unanswerable]
    );
    let details: Vec<&str> = written
        .rejected
        .iter()
        .map(|one| one.detail.as_str())
        .collect();
    assert_eq!(
        details[1..],
        ["answered dark", "answered gray", "answered without a look"]
    );
}

#[test]
fn without_failures_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(dir.path(), &serde_json::Map::new()).unwrap();
    let mut journal = Journal::open(&folder, false).unwrap();
    let teacher = || Ok(PolicyTeacher::new(ScriptedPolicy::new([""; 0])));
    let videos = ["x.mp4".to_owned()];
    let rl = Rl::new(Stage::new("tiny"), "large");
    let ended = rl.run(&Gray, &teacher, &[], &videos, &mut journal, &mut |_| ());
    assert_eq!(ended.unwrap().finished, 0);
}

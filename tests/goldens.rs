//! Whole episodes and whole result files as the published evaluation has them: see `goldens/make.py`,
//! a second implementation in Python.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt;

use eva::core::conversation::OwnedPart;
use eva::core::{
    Abort, Conversation, Frame, FrameSource, Message, Policy, Role, Rules, Selection, Session,
    SessionError, Usage, VideoInfo,
};
use eva::evaluate::{RecordReader, Scorer};
use serde_json::{Value, json};

/// What a golden file keeps of a text: all, or its beginning and a hash when it is long.
fn brief(text: &str) -> String {
    const LONG: usize = 72;
    if text.chars().count() <= LONG {
        return text.to_owned();
    }
    // FNV-1a, 64 bits.
    let hash = text.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    let start: String = text.chars().take(48).collect();
    format!("{start}...#{hash:016x}")
}

/// A video of a constant frame rate whose frames are their own indices, found by the arithmetic of
/// [`FrameRule::Published`](https://docs.rs/eva-gst). Notes what it is asked for.
struct Numbered {
    info: VideoInfo,
    count: u64,
    /// Which requests fail, by their number.
    fails: Vec<u64>,
    requests: Vec<Value>,
}

#[derive(Debug, thiserror::Error)]
#[error("the script says so")]
struct Scripted {
    bad_request: bool,
}

impl FrameSource for Numbered {
    type Pixels = u64;
    type Error = Scripted;

    fn info(&self) -> VideoInfo {
        self.info
    }

    fn frames(
        &mut self,
        selection: &Selection,
        sink: &mut dyn FnMut(Frame<u64>),
    ) -> Result<(), Scripted> {
        if self.fails.contains(&(self.requests.len() as u64)) {
            self.requests.push(json!("fails"));
            return Err(Scripted { bad_request: false });
        }
        let last = (self.count - 1) as f64;
        let index = |time: f64| (time * self.info.fps).round_ties_even().clamp(0.0, last);
        let indices: Vec<u64> = selection.times().map(|time| index(time) as u64).collect();
        for &index in &indices {
            sink(Frame {
                time: index as f64 / self.info.fps,
                pixels: index,
            });
        }
        let written: Vec<String> = indices.iter().map(u64::to_string).collect();
        self.requests.push(json!([
            format!("{}x{}", selection.width, selection.height),
            indices.len(),
            brief(&written.join(" ")),
        ]));
        Ok(())
    }
}

/// Gives the replies of a script, each at the price that the script's generator knows too.
struct Script {
    replies: Vec<Value>,
    turn: u32,
}

impl Policy<u64> for Script {
    type Error = Scripted;

    fn generate(
        &mut self,
        _: &[Message<'_, u64>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, Scripted> {
        let turn = self.turn;
        self.turn += 1;
        match &self.replies[turn as usize] {
            Value::String(text) => reply.write_str(text).unwrap(),
            failure => {
                let bad_request = failure["fails"] == "openai_bad_request";
                return Err(Scripted { bad_request });
            }
        }
        Ok(Usage {
            prompt: 100 + 37 * turn,
            cached: 0,
            completion: 20 + turn,
        })
    }
}

/// The messages that are not the model's own, a picture written as the golden file has it.
fn messages(conversation: &Conversation<u64>) -> Value {
    let messages = conversation.messages().iter();
    let others = messages.filter(|message| message.role != Role::Assistant);
    others
        .map(|message| {
            let parts = message.parts.iter().map(|part| match part {
                OwnedPart::Text(text) => text.clone(),
                OwnedPart::Image(picture) => format!(
                    "<{}@{}x{}>",
                    picture.frame.pixels, picture.width, picture.height
                ),
            });
            json!([message.role, brief(&parts.collect::<String>())])
        })
        .collect()
}

/// Plays an episode, and says of it what the golden file says.
fn play(episode: &Value, videos: &Value) -> Value {
    let video = &videos[episode["video"].as_str().unwrap()];
    let number = |at: usize| video[at].as_f64().unwrap();
    let source = Numbered {
        info: VideoInfo {
            duration: number(0),
            fps: number(1),
            width: number(3) as u32,
            height: number(4) as u32,
        },
        count: number(2) as u64,
        fails: serde_json::from_value(episode["fails"].clone()).unwrap_or_default(),
        requests: Vec::new(),
    };
    let policy = Script {
        replies: episode["replies"].as_array().unwrap().clone(),
        turn: 0,
    };
    // The published code has no limit on the frames of a call.
    let mut rules = Rules::published().with_max_frames(u32::MAX);
    let limit = |name: &str| episode[name].as_u64().map(|limit| limit as u32);
    if let Some(turns) = limit("turns") {
        rules = rules.with_max_turns(turns);
    }
    if let Some(budget) = limit("budget") {
        rules = rules.with_max_visual_tokens(budget);
    }
    let mut session =
        Session::new(source, policy)
            .with_rules(rules)
            .with_abort(|error| match error.bad_request {
                true => Abort::BadRequest,
                false => Abort::Exception,
            });
    let mut prompt = vec![(Role::User, episode["question"].as_str().unwrap())];
    if let Some(system) = episode["system"].as_str() {
        prompt.insert(0, (Role::System, system));
    }
    let report = match session.ask_prompt(&prompt) {
        Ok(report) => report,
        Err(SessionError::Policy { report, .. } | SessionError::Source { report, .. }) => *report,
        Err(error) => panic!("{error}"),
    };
    // What the model said is in the conversation as it was said.
    let said = report.conversation.messages().iter();
    let said = said.filter(|message| message.role == Role::Assistant);
    for (message, reply) in said.zip(episode["replies"].as_array().unwrap()) {
        assert_eq!(
            message.parts,
            [OwnedPart::Text(reply.as_str().unwrap().to_owned())]
        );
    }
    let tally = report.trajectory.outcome.tally;
    json!({
        "stop": report.stop_reason().to_string(),
        "answer": report.answer().unwrap_or_default(),
        "rounds": tally.num_rounds,
        "total": tally.total_tokens,
        "estimated": tally.estimated_visual_tokens,
        "messages": messages(&report.conversation),
        "requests": session.source().requests,
    })
}

#[test]
fn scripted_episodes_run_as_the_published_evaluation_runs_them() {
    let golden: Value = serde_json::from_str(include_str!("goldens/episodes.json")).unwrap();
    let episodes = golden["episodes"].as_array().unwrap();
    assert!(episodes.len() >= 200);
    let mut different = Vec::new();
    for episode in episodes {
        let (ours, theirs) = (play(episode, &golden["videos"]), &episode["expect"]);
        for (key, theirs) in theirs.as_object().unwrap() {
            if ours[key] != *theirs {
                let name = &episode["name"];
                different.push(format!("{name}, {key}:\n  {}\n  {theirs}", ours[key]));
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn result_files_score_as_the_published_scorer_scores_them() {
    let golden: Value = serde_json::from_str(include_str!("goldens/scores.json")).unwrap();
    let (theirs, records) = (&golden["expect"], golden["records"].as_array().unwrap());
    assert!(records.len() >= 2500);
    let mut lines = String::new();
    for (index, record) in records.iter().enumerate() {
        let mut line = json!({
            "index": index,
            "videos": ["x.mp4"],
            "gt": record[0],
            "answer": record[1],
            "num_rounds": record[3],
            "total_tokens": record[4],
        });
        if let Some(reason) = golden["stops"][record[2].as_u64().unwrap() as usize].as_str() {
            line["stop_reason"] = reason.into();
        }
        lines += &format!("{line}\n");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("result.jsonl");
    std::fs::write(&path, lines).unwrap();

    let reader = RecordReader::open(&path).unwrap();
    assert_eq!(reader.broken(), 0);
    let mut scorer = Scorer::new();
    for record in reader {
        scorer.add(&record.unwrap());
    }
    let summary = scorer.summary();
    assert_eq!(theirs["items"], summary.score.items);
    assert_eq!(theirs["correct"], summary.score.correct);
    assert_eq!(theirs["accuracy"], summary.score.accuracy);
    assert_eq!(theirs["unanswered"], summary.unanswered);
    assert_eq!(theirs["rounds"], summary.means.rounds);
    assert_eq!(theirs["total_tokens"], summary.means.total_tokens);
    assert_eq!(theirs["stop_reasons"], json!(summary.stop_reasons));
}

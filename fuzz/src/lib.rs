//! What is fuzzed in eva-core: each function takes any bytes, and what it asserts must hold for them.

use core::convert::Infallible;

use eva_core::agent::{CallState, MAX_CALLS};
use eva_core::json::{self, Value};
use eva_core::mock::ScriptedPolicy;
use eva_core::prompt::{Label, ToolResponse};
use eva_core::reply::{self, Argument, FrameSelect};
use eva_core::{
    Abort, Agent, FailedCalls, Frame, FrameLabels, FrameSource, Input, Outcome, OutsideWindow,
    Rules, Run, SelectFailed, Selection, Session, Step, StopReason, ToolFailure, Trajectory, Usage,
    VideoInfo,
};

/// Reads values off the bytes; zeros when they are used up.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Any `f64`, or, for every other first byte, a small whole number: those pass more checks.
    fn f64(&mut self) -> f64 {
        if self.byte().is_multiple_of(2) {
            f64::from_le_bytes(self.array())
        } else {
            f64::from(self.byte())
        }
    }

    fn argument(&mut self) -> Argument {
        match self.byte() % 4 {
            0 => Argument::NotANumber,
            1 => Argument::whole(self.u32()),
            2 => Argument::whole(u32::from(self.byte())),
            _ => Argument::float(self.f64()),
        }
    }

    fn rules(&mut self) -> Rules {
        let mut rules = Rules::published();
        if self.byte().is_multiple_of(2) {
            return rules;
        }
        rules.max_turns = self.u32() % 9;
        rules.max_visual_tokens = self.u32();
        rules.reduced_side = self.u32();
        rules.max_frames = self.u32();
        rules.max_run_visual_tokens = self.u64();
        let choices = self.byte();
        if choices.is_multiple_of(2) {
            rules.failed_calls = FailedCalls::TellModel;
        }
        if (choices >> 1).is_multiple_of(2) {
            rules.labels = FrameLabels::FrameTimes;
        }
        rules.outside_window = match (choices >> 2) % 3 {
            0 => OutsideWindow::WholeVideo,
            1 => OutsideWindow::Clamp,
            _ => OutsideWindow::Refuse,
        };
        rules
    }

    fn video(&mut self) -> VideoInfo {
        VideoInfo {
            duration: self.f64(),
            width: self.u32(),
            height: self.u32(),
            fps: self.f64(),
        }
    }
}

/// The reading of answers and calls: whatever they point at is there.
pub fn reply(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(answer) = reply::answer(&text) {
        assert!(
            answer
                .of(&text)
                .is_some_and(|answer| !answer.trim().is_empty())
        );
    }
    let Some(calls) = reply::tool_calls(&text) else {
        return;
    };
    for call in calls.clone() {
        assert_eq!(call.name.of(&text), Some(reply::FRAME_SELECT));
    }
    let mut end = 0;
    for call in calls.with_other_tools() {
        assert!(call.name.of(&text).is_some());
        assert!(call.name.start >= end && call.arguments.start > call.name.end);
        end = call.arguments.end;
        let arguments = call
            .arguments
            .of(&text)
            .expect("arguments lie in the reply");
        assert!(arguments.starts_with('{') && arguments.ends_with('}'));
        _ = FrameSelect::parse(arguments);
    }
}

/// The reading of arguments: whatever serde_json takes for an object, ours does too.
pub fn arguments(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut members = 0;
    let ours = json::read_object(&text, |key, value| {
        members += 1;
        _ = key.is("start_time");
        if let Value::Other(other) = value {
            assert!(text.contains(other));
        }
    });
    if let Err(error) = ours {
        assert!(error.at <= text.len());
    }
    let theirs = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
    if let Ok(theirs) = theirs {
        assert!(ours.is_ok(), "{ours:?}");
        assert!(theirs.len() <= members);
    }
    _ = FrameSelect::parse(&text);
}

/// The arithmetic of selections on any numbers: times within the video, sizes of whole patches.
pub fn selection(data: &[u8]) {
    let mut bytes = Bytes(data);
    let (video, rules) = (bytes.video(), bytes.rules());
    let call = FrameSelect {
        start_time: bytes.argument(),
        end_time: bytes.argument(),
        nframes: bytes.argument(),
        resize: bytes.argument(),
    };
    if let Ok(selection) = Selection::plan(&call, &video, &rules) {
        assert!(selection.nframes >= 1 && selection.nframes <= rules.max_frames.max(1));
        assert!(selection.width >= 28 && selection.width.is_multiple_of(28));
        assert!(selection.height >= 28 && selection.height.is_multiple_of(28));
        let within = 0.0..=video.usable_duration();
        for index in [0, selection.nframes / 2, selection.nframes - 1] {
            assert!(within.contains(&selection.time(index)));
        }
    }
    let (start, end) = (bytes.f64(), bytes.f64());
    let any = Selection::uniform(start, end, bytes.u32(), bytes.u32(), bytes.u32());
    let index = bytes.u32();
    _ = (any.time(index), any.visual_tokens());
    let mut text = String::new();
    let time = bytes.f64();
    for labels in [FrameLabels::RequestedWindow, FrameLabels::FrameTimes] {
        text.clear();
        ToolResponse::new()
            .frame_labelled(&mut text, labels, &any, index, time)
            .expect("a String takes all");
        let label = Label(labels.seconds(&any, index, time)).to_string();
        assert!(text.contains(&label));
    }
}

/// The whole agent under any inputs in any order: it refuses what does not fit and stays as it was,
/// keeps to its limits, and whatever it points at is there.
pub fn agent(data: &[u8]) {
    let mut bytes = Bytes(data);
    let (rules, video) = (bytes.rules(), bytes.video());
    let mut agent = Agent::new(rules, video);
    if bytes.byte().is_multiple_of(2) {
        agent = agent.with_other_tools();
    }
    let mut last = String::new();
    while !bytes.0.is_empty() {
        let before = agent.clone();
        let kind = bytes.byte() % 8;
        let text;
        let input = match kind {
            0..3 => {
                let length = usize::from(bytes.byte()) * 4;
                text = String::from_utf8_lossy(bytes.take(length));
                let usage = Usage {
                    prompt: bytes.u32(),
                    cached: 0,
                    completion: bytes.u32(),
                };
                Input::Generated {
                    reply: &text,
                    usage,
                }
            }
            3 => Input::Selected(Ok(bytes.u32())),
            4 => Input::Selected(Err(SelectFailed)),
            5 => Input::Returned(match bytes.byte() % 3 {
                0 => Ok(()),
                1 => Err(ToolFailure::Failed),
                _ => Err(ToolFailure::Unknown),
            }),
            6 => Input::ReturnedImages {
                images: bytes.u32(),
                visual_tokens: bytes.u64(),
            },
            _ => Input::Abort(match bytes.byte() % 4 {
                0 => Abort::BadRequest,
                1 => Abort::Cancelled,
                2 => Abort::DeadlineExceeded,
                _ => Abort::Exception,
            }),
        };
        if agent.handle(input).is_err() {
            // A video's length may be `NaN`, which is not equal to itself.
            assert!(agent == before || format!("{agent:?}") == format!("{before:?}"));
        } else if let Input::Generated { reply, .. } = input {
            last = reply.to_string();
        }
        sound(&agent, &last);
    }
}

fn sound(agent: &Agent, reply: &str) {
    let (rules, tally) = (agent.rules(), agent.tally());
    assert!(tally.num_rounds <= rules.max_turns);
    assert!(tally.estimated_visual_tokens <= rules.max_run_visual_tokens);
    assert!(agent.calls().len() <= MAX_CALLS);
    let waits = agent.calls().any(|call| call.state == CallState::Waiting);
    match agent.step() {
        Step::Generate => assert!(!waits),
        Step::SelectFrames(selection) => assert!(waits && selection.nframes > 0),
        Step::CallTool(call) => {
            assert!(waits && call.name.of(reply).is_some());
            assert!(call.arguments.of(reply).is_some());
        }
        Step::Done(Outcome {
            answer,
            stop_reason,
            ..
        }) => {
            assert_eq!(answer.is_some(), *stop_reason == StopReason::AnswerFound);
            assert!(answer.is_none_or(|span| span.of(reply).is_some()));
            assert_eq!(stop_reason.to_string().parse(), Ok(stop_reason.clone()));
        }
    }
}

/// Records and stored runs: what is read is written and read again unchanged, and a stored run, even
/// one that somebody made up, is carried on to an end.
pub fn records(data: &[u8]) {
    if let Ok(record) = serde_json::from_slice::<Trajectory>(data) {
        let written = serde_json::to_string(&record).expect("a record can be written");
        assert_eq!(
            serde_json::from_str::<Trajectory>(&written).ok(),
            Some(record)
        );
    }
    if let Ok(run) = serde_json::from_slice::<Run<u8>>(data) {
        let written = serde_json::to_string(&run).expect("a run can be written");
        assert_eq!(
            serde_json::from_str::<Run<u8>>(&written).ok().as_ref(),
            Some(&run)
        );
        carry_on(run);
    }
}

/// Delivers nothing, however much is asked for.
struct Dark;

impl FrameSource for Dark {
    type Pixels = u8;
    type Error = Infallible;

    fn info(&self) -> VideoInfo {
        VideoInfo {
            duration: 1.0,
            width: 1,
            height: 1,
            fps: 1.0,
        }
    }

    fn frames(&mut self, _: &Selection, _: &mut dyn FnMut(Frame<u8>)) -> Result<(), Infallible> {
        Ok(())
    }
}

fn carry_on(mut run: Run<u8>) {
    let mut session = Session::new(Dark, ScriptedPolicy::new(["<tool_call>{}</tool_call>"]));
    // A turn has at most so many calls, and then come the reply and the end.
    for _ in 0..=MAX_CALLS + 2 {
        if !session.advance(&mut run) {
            break;
        }
    }
    assert!(run.is_done(), "{run:?}");
    _ = session.finish(run);
}

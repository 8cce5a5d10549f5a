//! Sessions: whole runs with scripted models and made-up sources, and what they leave.
#![cfg(feature = "alloc")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core::convert::Infallible;
use core::fmt::{self, Write};
use std::sync::{Arc, Mutex};

use eva_core::mock::{ScriptEnded, ScriptedPolicy, SolidSource};
use eva_core::prompt::{self, ToolResponse};
use eva_core::{
    Abort, CallError, Conversation, Frame, FrameSource, Message, OwnedPart, Part, Pixels, Policy,
    RgbImage, Role, Rules, Selection, Session, SessionError, Step, StopReason, Tool, Usage,
    VideoInfo, Watch,
};

const VIDEO: VideoInfo = VideoInfo {
    duration: 5000.0,
    width: 640,
    height: 360,
    fps: 25.0,
};
const SCAN: &str = r#"Plan: scan. <tool_call>
{"tool": "frame_select", "arguments": {"start_time": 0, "end_time": 5000, "nframes": 2, "resize": 0.1}}
</tool_call>"#;
const TWO_LOOKS: &str = r#"Plan: look twice. <tool_call>
{"tool": "frame_select", "arguments": {"start_time": 60, "end_time": 120, "nframes": 2, "resize": 0.1}}
{"tool": "frame_select", "arguments": {"start_time": 4503, "end_time": 9000, "nframes": 1, "resize": 0.2}}
</tool_call>"#;
const ANSWER: &str = "Reflection: enough. <answer>B</answer>";

/// A source whose pictures are only their times, and which fails on demand.
struct Clock {
    /// Fails each selection that starts at or after this time.
    fails_from: f64,
}

#[derive(Debug, thiserror::Error)]
#[error("the film broke at {0} s")]
struct Broken(f64);

impl FrameSource for Clock {
    type Pixels = String;
    type Error = Broken;

    fn info(&self) -> VideoInfo {
        VIDEO
    }

    fn frames(
        &mut self,
        selection: &Selection,
        sink: &mut dyn FnMut(Frame<String>),
    ) -> Result<(), Broken> {
        for time in selection.times() {
            sink(Frame {
                time,
                pixels: format!("picture of {time:.3}"),
            });
            if selection.start >= self.fails_from {
                return Err(Broken(selection.start));
            }
        }
        Ok(())
    }
}

const SOUND: Clock = Clock {
    fails_from: f64::INFINITY,
};

/// What a model reads: all messages as one text.
fn read<P: fmt::Display>(messages: &[Message<'_, P>]) -> String {
    let mut text = String::new();
    for message in messages {
        write!(text, "[{:?}]", message.role).unwrap();
        for part in message.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Image(image) => write!(text, "({image})").unwrap(),
            }
        }
        text.push('\n');
    }
    text
}

#[test]
fn a_run_reads_like_the_published_protocol() {
    let mut session = Session::new(SOUND, ScriptedPolicy::new([SCAN, TWO_LOOKS, ANSWER]));
    let report = session.ask("\n Who wins? ").unwrap();
    let text = report.conversation.with_messages(read);
    let expected = format!(
        "[System]Use Frame Select Tool to Anlysis the video and generate an answer to the \
         question.\n\
         [User]Video Length: 4999 seconds. Original video resolution: 360p. Who wins?\n\
         [Assistant]{SCAN}\n\
         [Tool]<tool_response>Frame 0 at [00:00]: (picture of 0.000)\n\
         Frame 1 at [83:20]: (picture of 4999.999)\n\
         If more information is needed, call the frame selection tool again.\n\n\
         Question: Who wins?</tool_response>\n\
         [Assistant]{TWO_LOOKS}\n\
         [Tool]<tool_response>Frame 0 at [01:00]: (picture of 60.000)\n\
         Frame 1 at [02:00]: (picture of 119.999)\n\
         Frame 2 at [75:03]: (picture of 4751.500)\n\
         If more information is needed, call the frame selection tool again.\n\n\
         Question: Who wins?</tool_response>\n\
         [Assistant]{ANSWER}\n"
    );
    assert_eq!(text, expected);
    assert_eq!(report.answer(), Some("B"));
    assert_eq!(report.stop_reason(), &StopReason::AnswerFound);
}

#[test]
fn the_record_holds_times_and_costs() {
    let mut session = Session::new(SOUND, ScriptedPolicy::new([SCAN, TWO_LOOKS, ANSWER]));
    let report = session.ask("Who wins?").unwrap();
    let record = &report.trajectory;
    assert_eq!(record.question, "Who wins?");
    assert_eq!(record.video, VIDEO);
    let times: Vec<f64> = record.frame_times().collect();
    assert_eq!(times, [0.0, 4999.999, 60.0, 119.999, 4751.5]);
    let asked: Vec<f64> = record.selections().map(|s| s.requested_end).collect();
    assert_eq!(asked, [5000.0, 120.0, 9000.0]);
    let sizes: Vec<(u32, u32)> = report
        .conversation
        .pictures()
        .map(|p| (p.width, p.height))
        .collect();
    assert_eq!(sizes, [(56, 28), (56, 28), (56, 28), (56, 28), (140, 84)]);

    let calls: Vec<usize> = record.turns.iter().map(|turn| turn.calls.len()).collect();
    assert_eq!(calls, [1, 2, 0]);
    assert_eq!(record.turns[1].calls[1].tool, "frame_select");
    assert_eq!(record.turns[1].calls[1].frames, 1);
    let tally = record.outcome.tally;
    assert_eq!((tally.num_rounds, tally.frames), (3, 5));
    assert_eq!(tally.estimated_visual_tokens, 4 * 2 + 5 * 3);
    let last = record.turns[2].usage;
    assert_eq!(tally.total_tokens, u64::from(last.prompt + last.completion));
    // The mock counts a token a byte: the prompt holds everything but the last reply.
    let read = report.conversation.with_messages(|messages| {
        let parts = messages.iter().flat_map(|message| message.parts);
        parts
            .map(|part| {
                if let Part::Text(text) = part {
                    text.len()
                } else {
                    1
                }
            })
            .sum::<usize>()
    });
    assert_eq!(tally.total_tokens, read as u64);
}

#[cfg(feature = "serde")]
#[test]
fn the_record_survives_json_without_pixels() {
    let source = SolidSource::new(VIDEO);
    let mut session = Session::new(source, ScriptedPolicy::new([SCAN, TWO_LOOKS, ANSWER]));
    let record = session.ask("Wer gewinnt, \"é\"?").unwrap().trajectory;
    let json = serde_json::to_string(&record).unwrap();
    assert!(json.len() < 5000, "{json}");
    assert_eq!(
        serde_json::from_str::<eva_core::Trajectory>(&json).unwrap(),
        record
    );

    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let outcome = &value["outcome"];
    assert_eq!(outcome["answer"], "B");
    assert_eq!(outcome["stop_reason"], "answer_found");
    assert_eq!(outcome["num_rounds"], 3);
    assert_eq!(outcome["frames"], 5);
    assert_eq!(outcome["estimated_visual_tokens"], 23);
    assert_eq!(value["messages"][3]["role"], "tool");
    assert_eq!(value["messages"][3]["parts"][1]["image"]["width"], 56);
    assert_eq!(
        value["turns"][0]["calls"][0]["selection"]["requested_end"],
        5000.0
    );
}

#[test]
fn a_question_can_be_asked_again() {
    let policy = ScriptedPolicy::new([SCAN, ANSWER, ANSWER]);
    let mut session = Session::new(SolidSource::new(VIDEO).with_color([1, 2, 3]), policy);
    let first = session.ask("one").unwrap();
    let picture = first.conversation.pictures().next().unwrap();
    assert_eq!(picture.frame.pixels.rgb()[..3], [1, 2, 3]);
    let second = session.ask("two").unwrap();
    assert_eq!(second.trajectory.outcome.tally.num_rounds, 1);
    assert_eq!(second.conversation.messages().len(), 3);
}

#[test]
fn runs_that_end_by_the_rules_are_no_errors() {
    let mut session = Session::new(SOUND, ScriptedPolicy::new(["I give up."]));
    let report = session.ask("?").unwrap();
    assert_eq!(report.stop_reason(), &StopReason::NoAnswerNoToolCall);
    assert_eq!(report.answer(), None);

    let mut session = Session::new(SOUND, ScriptedPolicy::new([SCAN, SCAN, SCAN]))
        .with_rules(Rules::published().with_max_turns(2));
    let report = session.ask("?").unwrap();
    assert_eq!(report.stop_reason(), &StopReason::MaxTurnsExceeded);
    let last = report.conversation.messages().last().unwrap();
    assert_eq!(
        last.role,
        Role::Tool,
        "the last frames are fetched all the same"
    );
}

#[test]
fn arguments_that_can_not_be_carried_out_are_explained() {
    let call = |nframes: &str| {
        format!(
            r#"<tool_call>{{"tool": "frame_select", "arguments":
            {{"start_time": 0, "end_time": 9, "nframes": {nframes}}}}}</tool_call>"#
        )
    };
    let mut session = Session::new(SOUND, ScriptedPolicy::new([call("0"), call("\"8\"")]));
    let report = session.ask("?").unwrap();
    let record = &report.trajectory.turns[0].calls[0];
    assert_eq!(record.error, Some(CallError::FrameSelectFailed));
    assert!(record.message.as_ref().unwrap().contains("nframes is 0"));
    assert_eq!(report.stop_reason().to_string(), "call_frame_select_failed");

    let report = session.ask("?").unwrap();
    let record = &report.trajectory.turns[0].calls[0];
    assert!(
        record
            .message
            .as_ref()
            .unwrap()
            .contains("not a usable number")
    );
    assert_eq!(report.stop_reason(), &StopReason::Exception);
}

#[test]
fn a_failing_policy_keeps_the_run_so_far() {
    let mut session = Session::new(SOUND, ScriptedPolicy::new([SCAN]));
    let error = session.ask("?").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the policy failed in turn 2: the script has no more replies: give it one for each turn"
    );
    assert!(matches!(
        error,
        SessionError::Policy {
            error: ScriptEnded,
            ..
        }
    ));
    let report = error.into_report().unwrap();
    assert_eq!(report.stop_reason(), &StopReason::Exception);
    assert_eq!(report.conversation.pictures().count(), 2);
    assert_eq!(report.trajectory.messages.len(), 4);
    assert_eq!(report.trajectory.outcome.tally.num_rounds, 1);
}

/// Writes half a reply and fails.
struct Stumbling;

impl<P> Policy<P> for Stumbling {
    type Error = fmt::Error;
    fn generate(
        &mut self,
        _: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, fmt::Error> {
        reply.write_str("<answer>B")?;
        Err(fmt::Error)
    }
}

#[test]
fn half_a_reply_is_kept_and_a_refusal_named() {
    let mut session = Session::new(SOUND, Stumbling).with_abort(|_| Abort::BadRequest);
    let error = session.ask("?").unwrap_err();
    let report = error.report().unwrap();
    assert_eq!(report.stop_reason(), &StopReason::OpenaiBadRequest);
    let last = report.conversation.messages().last().unwrap();
    assert_eq!(last.role, Role::Assistant);
    assert!(matches!(&last.parts[..], [OwnedPart::Text(text)] if text == "<answer>B"));
}

#[test]
fn a_failing_source_keeps_the_run_so_far() {
    let source = Clock { fails_from: 0.0 };
    let mut session = Session::new(source, ScriptedPolicy::new([SCAN, ANSWER]));
    let error = session.ask("?").unwrap_err();
    let text = "the frame source failed in turn 1: the film broke at 0 s";
    assert_eq!(error.to_string(), text);
    let report = error.report().unwrap();
    assert_eq!(report.stop_reason().to_string(), "call_frame_select_failed");
    let call = &report.trajectory.turns[0].calls[0];
    assert_eq!(call.message.as_deref(), Some("the film broke at 0 s"));
    assert_eq!(
        report.conversation.pictures().count(),
        0,
        "half a selection is not shown"
    );
}

#[test]
fn a_failure_beside_a_success_is_noted_and_the_run_goes_on() {
    let source = Clock { fails_from: 4000.0 };
    let mut session = Session::new(source, ScriptedPolicy::new([TWO_LOOKS, ANSWER]));
    let report = session.ask("?").unwrap();
    assert_eq!(report.answer(), Some("B"));
    let calls = &report.trajectory.turns[0].calls;
    assert_eq!((calls[0].frames, calls[0].error), (2, None));
    assert_eq!(
        (calls[1].frames, calls[1].error),
        (0, Some(CallError::FrameSelectFailed))
    );
    assert_eq!(
        calls[1].message.as_deref(),
        Some("the film broke at 4503 s")
    );
}

/// Delivers without end, or nothing at all.
struct Careless {
    frames: u32,
}

impl FrameSource for Careless {
    type Pixels = ();
    type Error = Infallible;
    fn info(&self) -> VideoInfo {
        VIDEO
    }
    fn frames(&mut self, _: &Selection, sink: &mut dyn FnMut(Frame<()>)) -> Result<(), Infallible> {
        for _ in 0..self.frames {
            sink(Frame {
                time: 0.0,
                pixels: (),
            });
        }
        Ok(())
    }
}

#[test]
fn no_more_frames_are_taken_than_were_asked_for() {
    let mut session = Session::new(Careless { frames: 99 }, ScriptedPolicy::new([SCAN, ANSWER]));
    assert_eq!(session.ask("?").unwrap().conversation.pictures().count(), 2);
    let mut session = Session::new(Careless { frames: 0 }, ScriptedPolicy::new([SCAN, ANSWER]));
    let report = session.ask("?").unwrap();
    assert_eq!(report.stop_reason().to_string(), "call_frame_select_failed");
}

/// Remembers what it is told.
struct Notes(Arc<Mutex<Vec<String>>>);

impl Tool for Notes {
    type Error = Broken;
    fn name(&self) -> &str {
        "note"
    }
    fn description(&self) -> &str {
        "Keeps a note."
    }
    fn call(&mut self, arguments: &str, out: &mut dyn fmt::Write) -> Result<(), Broken> {
        let mut notes = self.0.lock().unwrap();
        if arguments.contains("forget") {
            return Err(Broken(0.0));
        }
        notes.push(arguments.to_string());
        write!(out, "{} noted", notes.len()).map_err(|_| Broken(1.0))
    }
}

fn with_notes(replies: &[&str]) -> (Session<Clock, ScriptedPolicy>, Arc<Mutex<Vec<String>>>) {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let session = Session::new(SOUND, ScriptedPolicy::new(replies.iter().copied()))
        .with_tool(Notes(notes.clone()));
    (session, notes)
}

#[test]
fn tools_of_the_host_answer_beside_frames() {
    let call = r#"<tool_call>
        {"tool": "note", "arguments": {"text": "a dog"}}
        {"tool": "frame_select", "arguments": {"start_time": 0, "end_time": 10, "nframes": 1}}
        {"tool": "unheard", "arguments": {}}
        </tool_call>"#;
    let (mut session, notes) = with_notes(&[call, ANSWER]);
    let report = session.ask("Q").unwrap();
    assert_eq!(*notes.lock().unwrap(), [r#"{"text": "a dog"}"#]);
    let text = report.conversation.with_messages(read);
    assert!(
        text.contains(
            "[Tool]<tool_response>1 noted\nFrame 0 at [00:00]: (picture of 5.000)\n\
             If more information is needed"
        ),
        "{text}"
    );
    let tools: Vec<&str> = report.trajectory.turns[0]
        .calls
        .iter()
        .map(|call| call.tool.as_str())
        .collect();
    assert_eq!(tools, ["note", "frame_select", "unheard"]);
}

#[test]
fn a_failing_tool_is_recorded() {
    let call = r#"<tool_call>{"tool": "note", "arguments": {"forget": 1}}</tool_call>"#;
    let (mut session, _) = with_notes(&[call]);
    let report = session.ask("Q").unwrap();
    assert_eq!(report.stop_reason().to_string(), "call_tool_failed");
    let record = &report.trajectory.turns[0].calls[0];
    assert_eq!(record.message.as_deref(), Some("the film broke at 0 s"));
    assert_eq!(record.arguments, r#"{"forget": 1}"#);
}

/// Writes down all it sees.
#[derive(Default)]
struct Log(Vec<String>);

impl<P> Watch<P> for Log {
    fn on_step(&mut self, step: &Step) {
        self.0.push(format!("step {:?}", step.kind()));
    }
    fn on_text(&mut self, piece: &str) {
        self.0.push(format!("text {}", piece.len()));
    }
    fn on_reply(&mut self, reply: &str, usage: &Usage) {
        self.0
            .push(format!("reply {} {}", reply.len(), usage.completion));
    }
    fn on_frames(&mut self, selection: &Selection, frames: &[Frame<P>]) {
        self.0
            .push(format!("frames {} {}", selection.nframes, frames.len()));
    }
}

#[test]
fn an_observer_sees_everything_in_order() {
    let mut log = Log::default();
    let policy = ScriptedPolicy::new([SCAN, ANSWER]);
    let mut session = Session::new(SOUND, policy).with_watch(&mut log);
    session.ask("?").unwrap();
    let (scan, answer) = (SCAN.len(), ANSWER.len());
    let expected = [
        "step Generate".to_string(),
        format!("text {scan}"),
        format!("reply {scan} {scan}"),
        "step SelectFrames".to_string(),
        "frames 2 2".to_string(),
        "step Generate".to_string(),
        format!("text {answer}"),
        format!("reply {answer} {answer}"),
        "step Done".to_string(),
    ];
    assert_eq!(log.0, expected);
}

#[test]
fn a_prompt_can_bring_its_own_system_message() {
    let open = |prompt: &[(Role, &str)]| {
        Conversation::<String>::open(&VIDEO, prompt).map(|c| c.with_messages(read))
    };
    let user = "[User]Video Length: 4999 seconds. Original video resolution: 360p.";
    assert_eq!(
        open(&[
            (Role::System, "Be brief."),
            (Role::User, " Q\n"),
            (Role::User, " more ")
        ]),
        Ok(format!("[System]Be brief.\n{user} Q\n[User] more \n"))
    );
    let led = open(&[(Role::Assistant, "Hello"), (Role::User, "Q")]).unwrap();
    assert_eq!(
        led,
        format!("[System]{}\n[Assistant]Hello\n{user} Q\n", prompt::SYSTEM)
    );
    assert!(open(&[(Role::System, "Be brief.")]).is_err());
    assert!(open(&[]).is_err());

    let mut session = Session::new(SOUND, ScriptedPolicy::new([ANSWER]));
    let error = session
        .ask_prompt(&[(Role::System, "Be brief.")])
        .unwrap_err();
    assert!(error.report().is_none());
    assert!(error.to_string().contains("no user message"), "{error}");
    let report = session
        .ask_prompt(&[(Role::System, "S"), (Role::User, " Q ")])
        .unwrap();
    assert_eq!(report.trajectory.question, "Q");
}

#[test]
fn the_length_is_told_in_whole_seconds_and_at_least_one() {
    let told = |duration, width, height| {
        let mut text = String::new();
        let info = VideoInfo {
            duration,
            width,
            height,
            fps: 0.0,
        };
        prompt::write_question(&mut text, &info, "Q").unwrap();
        text
    };
    let text = |seconds, side| {
        format!("Video Length: {seconds} seconds. Original video resolution: {side}p. Q")
    };
    assert_eq!(told(90.0, 1280, 720), text(89, 720));
    assert_eq!(told(90.5, 720, 1280), text(90, 720));
    assert_eq!(told(1.4, 10, 10), text(1, 10));
    assert_eq!(told(0.0, 0, 0), text(1, 0));
    assert_eq!(told(f64::NAN, 1, 1), text(1, 1));
}

#[test]
fn a_response_without_frames_is_still_complete() {
    let mut text = String::new();
    ToolResponse::new().close(&mut text, "Q").unwrap();
    assert_eq!(
        text,
        "<tool_response>\nIf more information is needed, call the frame selection tool again.\n\n\
         Question: Q</tool_response>"
    );
}

#[test]
fn a_session_of_borrowed_parts_works_with_erased_types() {
    let mut source = SolidSource::new(VIDEO);
    let mut policy = ScriptedPolicy::new([ANSWER]);
    let source: &mut dyn FrameSource<Pixels = RgbImage, Error = Infallible> = &mut source;
    let policy: &mut dyn Policy<RgbImage, Error = ScriptEnded> = &mut policy;
    let mut session = Session::new(source, policy);
    let error_is_usable = |session: &mut Session<_, _>| -> Result<(), Box<dyn core::error::Error>> {
        assert_eq!(session.ask("?")?.answer(), Some("B"));
        session.ask("again?")?;
        Ok(())
    };
    assert!(error_is_usable(&mut session).is_err());
}

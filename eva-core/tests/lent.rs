//! Parts that are lent do what they do when they are given, and nothing prints pixels.
#![cfg(feature = "alloc")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core::convert::Infallible;
use core::fmt;

use eva_core::conversation::ToolMessage;
use eva_core::mock::{ScriptedPolicy, SolidSource};
use eva_core::{
    CallError, Continuation, Conversation, FailedCalls, Frame, FrameLabels, ImageTool, Message,
    OwnedMessage, Part, Picture, Pixels, Policy, RgbImage, Role, Rules, Selection, Session, Step,
    Tool, Usage, VideoInfo, Watch,
};

const VIDEO: VideoInfo = VideoInfo {
    duration: 90.0,
    width: 640,
    height: 360,
    fps: 25.0,
};
const SCAN: &str = r#"<tool_call>{"tool": "frame_select", "arguments": {"start_time": 0, "end_time": 9, "nframes": 1, "resize": 0.1}}</tool_call>"#;
const ANSWER: &str = "<answer>B</answer>";

struct Clock;

impl Tool for Clock {
    type Error = fmt::Error;
    fn name(&self) -> &str {
        "clock"
    }
    fn description(&self) -> &str {
        "Says the time."
    }
    fn call(&mut self, _: &str, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str("noon")
    }
}

/// Shows a picture of 6 visual tokens.
struct Map;

impl ImageTool<RgbImage> for Map {
    type Error = Infallible;
    fn name(&self) -> &str {
        "map"
    }
    fn description(&self) -> &str {
        "Shows a map."
    }
    fn call(
        &mut self,
        _: &str,
        _: &mut dyn fmt::Write,
        images: &mut dyn FnMut(Picture<RgbImage>),
    ) -> Result<(), Infallible> {
        images(Picture {
            frame: Frame {
                time: 7.0,
                pixels: RgbImage::new(1, 1, vec![1, 2, 3]).unwrap(),
            },
            width: 84,
            height: 56,
        });
        Ok(())
    }
}

fn session(replies: &[&str]) -> Session<SolidSource, ScriptedPolicy> {
    Session::new(
        SolidSource::new(VIDEO),
        ScriptedPolicy::new(replies.iter().copied()),
    )
}

/// The kinds of events in order.
#[derive(Default)]
struct Kinds(Vec<String>);

impl<P> Watch<P> for Kinds {
    fn on_step(&mut self, _: &Step) {
        self.0.push("step".into());
    }
    fn on_text(&mut self, _: &str) {
        self.0.push("text".into());
    }
    fn on_reply(&mut self, _: &str, _: &Usage) {
        self.0.push("reply".into());
    }
    fn on_frames(&mut self, _: &Selection, frames: &[Frame<P>]) {
        self.0.push(format!("{} frames", frames.len()));
    }
    fn on_tool_images(&mut self, name: &str, images: &[Picture<P>]) {
        self.0.push(format!("{} of {name}", images.len()));
    }
    fn on_tool(&mut self, name: &str, _: &str, returned: &str) {
        self.0.push(format!("{name}: {returned}"));
    }
}

#[test]
fn a_lent_picture_is_the_same_picture() {
    fn read(pixels: impl Pixels) -> (u32, u32, Vec<u8>) {
        (pixels.width(), pixels.height(), pixels.rgb().to_vec())
    }
    let image = RgbImage::new(2, 3, (0..18).collect()).unwrap();
    assert_eq!(read(&image), (2, 3, (0..18).collect()));
}

#[test]
fn a_lent_observer_is_told_of_everything() {
    let calls = r#"<tool_call>{"tool": "clock", "arguments": {}}
        {"tool": "map", "arguments": {}}</tool_call>"#;
    let mut kinds = Kinds::default();
    session(&[calls, SCAN, ANSWER])
        .with_tool(Clock)
        .with_image_tool(Map)
        .with_watch(&mut kinds)
        .ask("?")
        .unwrap();
    let turn = ["step", "text", "reply"];
    let tools = ["step", "clock: noon", "step", "map: ", "1 of map"];
    let scan = ["step", "1 frames"];
    let all = [&turn[..], &tools, &turn, &scan, &turn, &["step"]].concat();
    assert_eq!(kinds.0, all);
}

#[test]
fn pictures_that_cost_all_that_is_left_are_shown() {
    let map = r#"<tool_call>{"tool": "map", "arguments": {}}</tool_call>"#;
    let run = |budget| {
        let rules = Rules::published()
            .with_max_run_visual_tokens(budget)
            .with_failed_calls(FailedCalls::TellModel);
        let mut session = session(&[map, ANSWER])
            .with_image_tool(Map)
            .with_rules(rules);
        session.ask("?").unwrap()
    };
    let shown = run(6);
    assert_eq!(shown.conversation.pictures().count(), 1);
    assert_eq!(shown.trajectory.outcome.tally.estimated_visual_tokens, 6);
    assert_eq!(shown.trajectory.turns[0].calls[0].error, None);
    assert_eq!(shown.trajectory.turns[0].calls[0].message, None);
    let refused = run(5);
    assert_eq!(refused.conversation.pictures().count(), 0);
    let error = refused.trajectory.turns[0].calls[0].error;
    assert_eq!(error, Some(CallError::VisualBudgetSpent));
    let message = refused.trajectory.turns[0].calls[0].message.as_deref();
    assert_eq!(message, Some(CallError::VisualBudgetSpent.advice()));
}

#[test]
fn without_tools_of_the_host_other_calls_are_not_recorded() {
    let both = SCAN.replace(
        "<tool_call>",
        r#"<tool_call>{"tool": "clock", "arguments": {}}"#,
    );
    let report = session(&[&both, ANSWER]).ask("?").unwrap();
    let calls = &report.trajectory.turns[0].calls;
    assert_eq!(calls.len(), 1);
    assert_eq!(
        (calls[0].tool.as_str(), calls[0].frames),
        ("frame_select", 1)
    );
}

#[test]
fn nothing_prints_pixels() {
    let image = RgbImage::new(2, 1, vec![7; 6]).unwrap();
    assert_eq!(format!("{image:?}"), "RgbImage(2 x 1)");

    let mut session = session(&[SCAN, ANSWER]);
    let mut run = session.begin(&[(Role::User, "Who wins?")]).unwrap();
    while session.advance(&mut run) {}
    let printed = format!("{run:?}");
    assert!(printed.starts_with("Run { agent: Agent {"), "{printed}");
    assert!(printed.contains("Who wins?") && !printed.contains("128, 128"));

    let report = session.finish(run).unwrap();
    let printed = format!("{report:?}");
    assert!(
        printed.starts_with("Report { trajectory: Trajectory {"),
        "{printed}"
    );
    assert!(!printed.contains("128, 128"));

    let error = session.ask("?").unwrap_err(); // the script is at its end
    assert_eq!(format!("{error:?}"), "Policy(ScriptEnded)");
    let error = session.ask_prompt(&[]).unwrap_err();
    assert_eq!(format!("{error:?}"), "NoQuestion(NoQuestion)");
    assert!(error.report().is_none() && error.into_report().is_none());
}

#[cfg(feature = "serde")]
#[test]
fn what_is_not_a_stop_reason_says_what_is_expected() {
    let error = serde_json::from_str::<eva_core::StopReason>("7").unwrap_err();
    let expected = "expected the name of a stop reason or call failure";
    assert!(error.to_string().contains(expected), "{error}");
    let error = serde_json::from_str::<CallError>(r#""tired""#).unwrap_err();
    assert!(error.to_string().contains("not a stop reason"), "{error}");
}

#[test]
fn a_policy_continues_several_conversations_also_when_it_is_lent() {
    fn said<M: Policy<()>>(mut policy: M) -> (Vec<String>, Vec<(usize, bool)>) {
        let mut replies = vec![String::new(); 3];
        let mut turns: Vec<Continuation<'_, ()>> = (replies.iter_mut())
            .map(|reply| Continuation {
                conversation: &[],
                reply,
            })
            .collect();
        let mut ended = Vec::new();
        policy.generate_batch(&mut turns, &mut |place, result| {
            ended.push((place, result.is_ok()));
        });
        (replies, ended)
    }
    let policy = || ScriptedPolicy::new(["one", "two"]);
    // The script has no third reply, which concerns the third turn alone.
    let expected = (
        vec!["one".to_owned(), "two".to_owned(), String::new()],
        vec![(0, true), (1, true), (2, false)],
    );
    assert_eq!(said(policy()), expected);
    assert_eq!(said(&mut policy()), expected);
}

#[test]
fn a_turn_of_a_batch_shows_how_long_its_conversation_is() {
    let mut reply = String::new();
    let parts = [Part::<()>::Text("Who wins?")];
    let asked = [Message {
        role: Role::User,
        parts: &parts,
    }];
    let turn = Continuation {
        conversation: &asked,
        reply: &mut reply,
    };
    assert_eq!(format!("{turn:?}"), "Continuation { messages: 1, .. }");
}

#[test]
fn frames_are_labelled_by_the_window_that_was_asked_for() {
    let selection = Selection::uniform(60.0, 90.0, 2, 28, 28);
    let frames = || [61.0, 71.0].map(|time| Frame { time, pixels: () });
    let mut plain = ToolMessage::new();
    plain.frames(&selection, frames());
    let mut labelled = ToolMessage::new();
    labelled.frames_labelled(FrameLabels::RequestedWindow, &selection, frames());
    let message = plain.close("Who wins?");
    assert_eq!(message.parts.len(), 5);
    assert_eq!(message, labelled.close("Who wins?"));
}

#[test]
fn conversations_are_lent_together_as_they_are_alone() {
    let mut first = Conversation::<()>::open(&VIDEO, &[(Role::User, "Who wins?")]).unwrap();
    first.push(OwnedMessage::text(Role::Assistant, "Red."));
    let second = Conversation::open(&VIDEO, &[(Role::User, "Who loses?")]).unwrap();
    let text = |messages: &[Message<'_, ()>]| format!("{messages:?}");
    let alone = [first.with_messages(text), second.with_messages(text)];
    let both = Conversation::with_all_messages(&[&first, &second], |all| {
        all.iter()
            .map(|messages| text(messages))
            .collect::<Vec<_>>()
    });
    assert_eq!(both, alone);
}

#[test]
fn a_tool_takes_no_arguments_unless_it_says_which() {
    assert_eq!(Clock.parameters(), eva_core::tool::NO_PARAMETERS);
    assert!(
        Clock.parameters().contains("\"properties\": {}"),
        "{}",
        Clock.parameters()
    );
}

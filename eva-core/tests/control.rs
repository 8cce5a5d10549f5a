//! Sessions that a host controls: its tools, its wish to stop, its pauses.
#![cfg(feature = "alloc")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core::convert::Infallible;
use core::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use eva_core::mock::ScriptedPolicy;
use eva_core::prompt::{self, FRAME_SELECT_SPEC};
use eva_core::{
    CallError, FailedCalls, Frame, FrameSource, ImageTool, Message, Part, Picture, Policy, Role,
    Rules, Selection, Session, StopReason, Tool, ToolSpec, Usage, VideoInfo, Watch,
};

const VIDEO: VideoInfo = VideoInfo {
    duration: 600.0,
    width: 640,
    height: 360,
    fps: 25.0,
};
const SCAN: &str = r#"<tool_call>{"tool": "frame_select", "arguments": {"start_time": 0, "end_time": 600, "nframes": 2, "resize": 0.1}}</tool_call>"#;
const ANSWER: &str = "<answer>B</answer>";

/// Pictures that are only their times, in whole seconds so that JSON keeps them exactly. Fails for
/// windows that begin at 13 s.
#[derive(Clone)]
struct Seconds;

#[derive(Debug, thiserror::Error)]
#[error("the film broke")]
struct Broken;

impl FrameSource for Seconds {
    type Pixels = u32;
    type Error = Broken;

    fn info(&self) -> VideoInfo {
        VIDEO
    }

    fn frames(
        &mut self,
        selection: &Selection,
        sink: &mut dyn FnMut(Frame<u32>),
    ) -> Result<(), Broken> {
        if selection.start == 13.0 {
            return Err(Broken);
        }
        for time in selection.times() {
            sink(Frame {
                time: time.floor(),
                pixels: time as u32,
            });
        }
        Ok(())
    }
}

/// Says its arguments back.
struct Echo;

impl Tool for Echo {
    type Error = Broken;
    fn name(&self) -> &str {
        "echo"
    }
    fn description(&self) -> &str {
        "Says \"it\" again."
    }
    fn parameters(&self) -> &str {
        r#"{"type": "object", "properties": {"it": {"type": "string"}}}"#
    }
    fn call(&mut self, arguments: &str, out: &mut dyn fmt::Write) -> Result<(), Broken> {
        if arguments.contains("fail") {
            return Err(Broken);
        }
        out.write_str(arguments).map_err(|_| Broken)
    }
}

/// Shows two pictures of 4 visual tokens each; what it is called with is its text.
struct Crop;

impl ImageTool<u32> for Crop {
    type Error = Infallible;
    fn name(&self) -> &str {
        "crop"
    }
    fn description(&self) -> &str {
        "Shows a part of a frame."
    }
    fn call(
        &mut self,
        arguments: &str,
        out: &mut dyn fmt::Write,
        images: &mut dyn FnMut(Picture<u32>),
    ) -> Result<(), Infallible> {
        _ = out.write_str(arguments.trim_matches(['{', '}']));
        for time in [61, 62] {
            images(Picture {
                frame: Frame {
                    time: f64::from(time),
                    pixels: time,
                },
                width: 56,
                height: 56,
            });
        }
        Ok(())
    }
}

fn session(replies: &[&str]) -> Session<Seconds, ScriptedPolicy> {
    Session::new(Seconds, ScriptedPolicy::new(replies.iter().copied()))
        .with_tool(Echo)
        .with_image_tool(Crop)
}

fn read<P: fmt::Display>(messages: &[Message<'_, P>]) -> Vec<String> {
    let texts = messages.iter().map(|message| {
        let mut text = String::new();
        for part in message.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Image(image) => write!(text, "({image})").unwrap(),
            }
        }
        text
    });
    texts.collect()
}

#[test]
fn the_system_message_names_the_hosts_tools_in_qwens_format() {
    let report = session(&[ANSWER]).ask("?").unwrap();
    let messages = report.conversation.with_messages(read);
    let expected = format!(
        "{}\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
         You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n\
         {{\"type\": \"function\", \"function\": {{\"name\": \"frame_select\", \"description\": \
         \"{}\", \"parameters\": {}}}}}\n\
         {{\"type\": \"function\", \"function\": {{\"name\": \"echo\", \"description\": \
         \"Says \\\"it\\\" again.\", \"parameters\": \
         {{\"type\": \"object\", \"properties\": {{\"it\": {{\"type\": \"string\"}}}}}}}}}}\n\
         {{\"type\": \"function\", \"function\": {{\"name\": \"crop\", \"description\": \
         \"Shows a part of a frame.\", \"parameters\": \
         {{\"type\": \"object\", \"properties\": {{}}}}}}}}\n\
         </tools>\n\nFor each function call, return a json object with function name and \
         arguments. Put all calls of a reply within one pair of <tool_call></tool_call> XML tags:\n\
         <tool_call>\n{{\"tool\": <function-name>, \"arguments\": <args-json-object>}}\n</tool_call>",
        prompt::SYSTEM,
        FRAME_SELECT_SPEC.description,
        FRAME_SELECT_SPEC.parameters,
    );
    assert_eq!(messages[0], expected);

    // A prompt's own system message is kept, and led by nothing.
    let prompt = [(Role::System, "Be brief."), (Role::User, "?")];
    let report = session(&[ANSWER]).ask_prompt(&prompt).unwrap();
    let messages = report.conversation.with_messages(read);
    assert!(
        messages[0].starts_with("Be brief.\n\n# Tools\n"),
        "{}",
        messages[0]
    );
    assert_eq!(messages.len(), 3);
}

#[test]
fn every_tool_is_told_as_json() {
    let odd = ToolSpec {
        name: "a\"b",
        description: "tab\t, line\n, return\r, bell\u{7}, back\\slash, é",
        parameters: "{}",
    };
    let mut text = String::new();
    prompt::write_system(&mut text, "", &[odd]).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .filter(|line| line.starts_with("{\"type\""))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["function"]["name"], "frame_select");
    assert_eq!(lines[0]["function"]["parameters"]["required"][2], "nframes");
    assert_eq!(lines[1]["function"]["name"], odd.name);
    assert_eq!(lines[1]["function"]["description"], odd.description);
}

#[test]
fn without_tools_the_system_message_is_the_published_one() {
    let mut session = Session::new(Seconds, ScriptedPolicy::new([ANSWER]));
    let messages = session.ask("?").unwrap().conversation.with_messages(read);
    assert_eq!(messages[0], prompt::SYSTEM);
}

#[test]
fn calls_of_several_tools_answer_in_order_with_text_and_pictures() {
    let calls = r#"<tool_call>
        {"tool": "echo", "arguments": {"it": 1}}
        {"tool": "crop", "arguments": {a nose}}
        {"tool": "frame_select", "arguments": {"start_time": 8, "end_time": 12, "nframes": 1, "resize": 0.1}}
        {"tool": "crop", "arguments": {}}
        </tool_call>"#;
    #[derive(Default)]
    struct Seen(Vec<String>);
    impl Watch<u32> for Seen {
        fn on_tool(&mut self, name: &str, _: &str, returned: &str) {
            self.0.push(format!("{name}: {returned}"));
        }
        fn on_tool_images(&mut self, name: &str, images: &[Picture<u32>]) {
            self.0.push(format!("{name}: {} pictures", images.len()));
        }
    }
    let mut seen = Seen::default();
    let report = session(&[calls, ANSWER])
        .with_watch(&mut seen)
        .ask("Q")
        .unwrap();
    let messages = report.conversation.with_messages(read);
    assert_eq!(
        messages[3],
        "<tool_response>{\"it\": 1}\na nose\nFrame 0 at [01:01]: (61)\nFrame 1 at [01:02]: (62)\n\
         Frame 2 at [00:08]: (10)\nFrame 3 at [01:01]: (61)\nFrame 4 at [01:02]: (62)\n\
         If more information is needed, call the frame selection tool again.\n\n\
         Question: Q</tool_response>"
    );
    let told = [
        "echo: {\"it\": 1}",
        "crop: a nose",
        "crop: 2 pictures",
        "crop: ",
        "crop: 2 pictures",
    ];
    assert_eq!(seen.0, told);
    let tally = report.trajectory.outcome.tally;
    assert_eq!(
        (tally.frames, tally.estimated_visual_tokens),
        (5, 8 + 2 + 8)
    );
    let frames: Vec<u32> = report.trajectory.turns[0]
        .calls
        .iter()
        .map(|call| call.frames)
        .collect();
    assert_eq!(frames, [0, 2, 1, 2]);
}

#[test]
fn failures_are_told_to_the_model_where_the_rules_want_it() {
    let calls = r#"<tool_call>
        {"tool": "frame_select", "arguments": {"start_time": 0}}
        {"tool": "echo", "arguments": {"it": 1}}
        {"tool": "echo", "arguments": {"fail": 1}}
        {"tool": "unheard", "arguments": {}}
        {"tool": "frame_select", "arguments": {"start_time": 13, "end_time": 20, "nframes": 1}}
        {"tool": "frame_select", "arguments": {"start_time": 1, "end_time": 20, "nframes": 0}}
        {"tool": "frame_select", "arguments": {"start_time": 1, "end_time": 20, "nframes": null}}
        </tool_call>"#;
    let failing = r#"<tool_call>{"tool": "echo", "arguments": {"fail": 1}}</tool_call>"#;
    let rules = Rules::published().with_failed_calls(FailedCalls::TellModel);
    let report = session(&[calls, failing, ANSWER])
        .with_rules(rules)
        .ask("Q")
        .unwrap();
    assert_eq!(report.answer(), Some("B"));
    let messages = report.conversation.with_messages(read);
    assert_eq!(
        messages[3],
        "<tool_response>Error in frame_select: start_time or end_time is missing: give both in \
         seconds\n{\"it\": 1}\nError in echo: the film broke\n\
         Error in unheard: there is no tool of this name\n\
         Error in frame_select: the film broke\n\
         Error in frame_select: nframes is 0: ask for a whole number of frames, at least 1\n\
         Error in frame_select: nframes is not a usable number: write it as a whole number\n\
         If more information is needed, call the frame selection tool again.\n\n\
         Question: Q</tool_response>"
    );
    assert!(messages[5].starts_with("<tool_response>Error in echo: the film broke\nIf more"));

    // By default the same reply ends the run, as in the published code.
    let report = session(&[failing, ANSWER]).ask("Q").unwrap();
    assert_eq!(report.stop_reason().to_string(), "call_tool_failed");
}

#[test]
fn the_budget_of_a_run_covers_pictures_of_tools() {
    let crop = r#"<tool_call>{"tool": "crop", "arguments": {}}</tool_call>"#;
    let rules = Rules::published()
        .with_max_run_visual_tokens(10)
        .with_failed_calls(FailedCalls::TellModel);
    let report = session(&[crop, crop, SCAN, ANSWER])
        .with_rules(rules)
        .ask("Q")
        .unwrap();
    let tally = report.trajectory.outcome.tally;
    assert_eq!((tally.frames, tally.estimated_visual_tokens), (3, 10));
    assert_eq!(report.conversation.pictures().count(), 3);
    let turns = &report.trajectory.turns;
    assert_eq!(turns[1].calls[0].error, Some(CallError::VisualBudgetSpent));
    // Two frames of two tokens do not fit into the two that are left: one of them does.
    assert_eq!(turns[2].calls[0].selection.unwrap().nframes, 1);
    let messages = report.conversation.with_messages(read);
    let told = "<tool_response>Error in crop: too few visual tokens are left";
    assert!(messages[5].starts_with(told), "{}", messages[5]);
}

/// Writes its reply letter by letter, and does or does not mind a refusal.
struct Letters {
    minds: bool,
}

impl<P> Policy<P> for Letters {
    type Error = fmt::Error;
    fn generate(
        &mut self,
        _: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, fmt::Error> {
        for letter in SCAN.chars() {
            let written = reply.write_char(letter);
            if self.minds {
                written?;
            }
        }
        Ok(Usage::default())
    }
}

#[test]
fn a_run_is_called_off_while_the_policy_writes() {
    for minds in [true, false] {
        let asked = Arc::new(AtomicU32::new(0));
        let counter = asked.clone();
        // The first question is before the step, then one a letter.
        let mut session = Session::new(Seconds, Letters { minds })
            .with_cancel(move || counter.fetch_add(1, Ordering::Relaxed) >= 5);
        let report = session.ask("?").unwrap();
        assert_eq!(report.stop_reason(), &StopReason::Cancelled);
        let messages = report.conversation.with_messages(read);
        assert_eq!(messages.last().unwrap(), &SCAN[..5]);
        assert_eq!(asked.load(Ordering::Relaxed), 6);
    }
}

#[test]
fn a_deadline_ends_the_run_between_steps() {
    let steps = Arc::new(AtomicU32::new(0));
    struct Count(Arc<AtomicU32>);
    impl<P> Watch<P> for Count {
        fn on_frames(&mut self, _: &Selection, _: &[Frame<P>]) {
            self.0.store(1, Ordering::Relaxed);
        }
    }
    let clock = steps.clone();
    let policy = ScriptedPolicy::new([SCAN, ANSWER]);
    let mut session = Session::new(Seconds, policy)
        .with_cancel(|| false)
        .with_deadline(move || clock.load(Ordering::Relaxed) > 0)
        .with_watch(Count(steps));
    let report = session.ask("?").unwrap();
    assert_eq!(report.stop_reason().to_string(), "deadline_exceeded");
    assert!(!report.stop_reason().is_settled());
    assert_eq!(report.conversation.pictures().count(), 2);
}

#[test]
fn a_run_that_is_not_carried_on_is_called_off() {
    let mut session = session(&[SCAN, ANSWER]);
    let mut run = session.begin(&[(Role::User, "?")]).unwrap();
    assert!(session.advance(&mut run) && session.advance(&mut run));
    assert!(!run.is_done());
    let report = session.finish(run).unwrap();
    assert_eq!(report.stop_reason(), &StopReason::Cancelled);
    assert_eq!(report.conversation.pictures().count(), 2);
    assert!(session.begin(&[(Role::System, "?")]).is_err());
}

#[cfg(feature = "serde")]
mod paused {
    use super::*;
    use std::sync::Mutex;

    use eva_core::{FrameLabels, OutsideWindow, Report, RgbImage, Run, Step};
    use proptest::prelude::*;

    fn reply() -> impl Strategy<Value = String> {
        let call = prop_oneof![
            (0u32..30, 1u32..4).prop_map(|(start, nframes)| format!(
                r#"{{"tool": "frame_select", "arguments": {{"start_time": {start}, "end_time": 40, "nframes": {nframes}, "resize": 0.1}}}}"#
            )),
            Just(r#"{"tool": "frame_select", "arguments": {"start_time": 13, "end_time": 20, "nframes": 1}}"#.into()),
            Just(r#"{"tool": "frame_select", "arguments": {x}}"#.into()),
            Just(r#"{"tool": "frame_select", "arguments": {"start_time": 700, "end_time": 800, "nframes": 2, "resize": 0.1}}"#.into()),
            Just(r#"{"tool": "echo", "arguments": {"it": "é"}}"#.into()),
            Just(r#"{"tool": "echo", "arguments": {"fail": 1}}"#.into()),
            Just(r#"{"tool": "crop", "arguments": {}}"#.into()),
            Just(r#"{"tool": "unheard", "arguments": {}}"#.into()),
        ];
        prop_oneof![
            9 => prop::collection::vec(call, 0..5)
                .prop_map(|calls| format!("<tool_call>{}</tool_call>", calls.concat())),
            1 => Just(ANSWER.to_string()),
            1 => any::<String>(),
        ]
    }

    fn choices() -> impl Strategy<Value = (FailedCalls, FrameLabels, OutsideWindow)> {
        (
            prop_oneof![Just(FailedCalls::EndRun), Just(FailedCalls::TellModel)],
            prop_oneof![
                Just(FrameLabels::RequestedWindow),
                Just(FrameLabels::FrameTimes)
            ],
            prop_oneof![
                Just(OutsideWindow::WholeVideo),
                Just(OutsideWindow::Clamp),
                Just(OutsideWindow::Refuse)
            ],
        )
    }

    /// All events, in words; clones write to the same list.
    #[derive(Clone, Default)]
    struct Events(Arc<Mutex<Vec<String>>>);

    impl Events {
        fn note(&self, event: String) {
            self.0.lock().unwrap().push(event);
        }
    }

    impl Watch<u32> for Events {
        fn on_step(&mut self, step: &Step) {
            self.note(format!("{step:?}"));
        }
        fn on_text(&mut self, piece: &str) {
            self.note(format!("text {piece}"));
        }
        fn on_reply(&mut self, reply: &str, usage: &Usage) {
            self.note(format!("reply {reply} {usage:?}"));
        }
        fn on_frames(&mut self, selection: &Selection, frames: &[Frame<u32>]) {
            self.note(format!("{selection:?} {frames:?}"));
        }
        fn on_tool(&mut self, name: &str, arguments: &str, returned: &str) {
            self.note(format!("{name} {arguments} {returned}"));
        }
        fn on_tool_images(&mut self, name: &str, images: &[Picture<u32>]) {
            self.note(format!("{name} {images:?}"));
        }
    }

    fn open(
        replies: &[String],
        rules: Rules,
        events: &Events,
    ) -> Session<Seconds, ScriptedPolicy, Events> {
        Session::new(Seconds, ScriptedPolicy::new(replies.iter().cloned()))
            .with_tool(Echo)
            .with_image_tool(Crop)
            .with_rules(rules)
            .with_watch(events.clone())
    }

    proptest! {
        #[test]
        fn a_run_stored_between_steps_comes_to_the_same_end(
            replies in prop::collection::vec(reply(), 0..7),
            pauses in prop::collection::vec(any::<bool>(), 40),
            choices in choices(),
            budget in prop_oneof![Just(Rules::UNLIMITED), 0..40u64],
        ) {
            let (failed_calls, labels, outside_window) = choices;
            let rules = Rules::published()
                .with_failed_calls(failed_calls)
                .with_labels(labels)
                .with_outside_window(outside_window)
                .with_max_run_visual_tokens(budget);
            let (seen, seen_paused) = (Events::default(), Events::default());
            let whole: Report<u32> = match open(&replies, rules, &seen).ask("Q") {
                Ok(report) => report,
                Err(error) => error.into_report().unwrap(),
            };

            let mut session = open(&replies, rules, &seen_paused);
            let mut run = session.begin(&[(Role::User, "Q")]).unwrap();
            let mut pauses = pauses.into_iter().cycle();
            while session.advance(&mut run) {
                if pauses.next().unwrap() {
                    let stored = serde_json::to_string(&run).unwrap();
                    let rounds = run.agent().tally().num_rounds as usize;
                    drop(run);
                    run = serde_json::from_str::<Run<u32>>(&stored).unwrap();
                    let left = replies.get(rounds..).unwrap_or_default();
                    session = open(left, rules, &seen_paused);
                }
            }
            let paused = match session.finish(run) {
                Ok(report) => report,
                Err(error) => error.into_report().unwrap(),
            };
            prop_assert_eq!(&paused.trajectory, &whole.trajectory);
            prop_assert_eq!(paused.conversation, whole.conversation);
            let (seen, seen_paused) = (seen.0.lock().unwrap(), seen_paused.0.lock().unwrap());
            prop_assert_eq!(&*seen_paused, &*seen);
        }
    }

    #[test]
    fn a_stored_picture_must_have_all_its_bytes() {
        let image = RgbImage::new(1, 1, vec![1, 2, 3]).unwrap();
        let stored = serde_json::to_string(&image).unwrap();
        assert_eq!(serde_json::from_str::<RgbImage>(&stored).unwrap(), image);
        let short = stored.replace("1,2,3", "1,2");
        let error = serde_json::from_str::<RgbImage>(&short).unwrap_err();
        assert!(error.to_string().contains("1 x 1"), "{error}");
    }
}

#[test]
fn a_lent_source_delivers_what_the_source_itself_does() {
    fn times(mut source: impl FrameSource<Error = Broken>) -> Result<Vec<f64>, Broken> {
        let mut times = Vec::new();
        source.frames(&Selection::uniform(2.0, 6.0, 3, 28, 28), &mut |frame| {
            times.push(frame.time)
        })?;
        Ok(times)
    }
    let mut source = Seconds;
    assert_eq!(times(&mut source).unwrap(), [2.0, 3.0, 5.0]);
    assert_eq!(times(source).unwrap(), [2.0, 3.0, 5.0]);
}

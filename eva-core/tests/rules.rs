//! The choices of `Rules`: what the published code does, and what an application wants.
#![cfg(feature = "alloc")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use core::convert::Infallible;
use core::fmt::Write;

use eva_core::mock::ScriptedPolicy;
use eva_core::prompt::ToolResponse;
use eva_core::reply::FrameSelect;
use eva_core::{
    Agent, CallError, FailedCalls, Frame, FrameLabels, FrameSource, Input, OutsideWindow, Part,
    Report, Rules, Selection, SelectionError, Session, Step, Usage, VideoInfo,
};

const VIDEO: VideoInfo = VideoInfo {
    duration: 90.0,
    width: 640,
    height: 360,
    fps: 2.0,
};

/// Two frames a second: the one on display began up to half a second before the asked time.
struct Halves;

impl FrameSource for Halves {
    type Pixels = f64;
    type Error = Infallible;

    fn info(&self) -> VideoInfo {
        VIDEO
    }

    fn frames(
        &mut self,
        selection: &Selection,
        sink: &mut dyn FnMut(Frame<f64>),
    ) -> Result<(), Infallible> {
        for time in selection.times() {
            sink(Frame {
                time: (time * 2.0).floor() / 2.0,
                pixels: time,
            });
        }
        Ok(())
    }
}

fn look(start: &str, end: &str, nframes: u32) -> String {
    format!(
        "<tool_call>{{\"tool\": \"frame_select\", \"arguments\": {{\"start_time\": {start}, \
         \"end_time\": {end}, \"nframes\": {nframes}, \"resize\": 0.1}}}}</tool_call>"
    )
}

/// The report of a run of one look and an answer, and what the model read of the look.
fn run(rules: Option<Rules>, look: String) -> (Report<f64>, String) {
    let policy = ScriptedPolicy::new([look, "<answer>B</answer>".to_string()]);
    let mut session = Session::new(Halves, policy);
    if let Some(rules) = rules {
        session = session.with_rules(rules);
    }
    let report = session.ask("Q").unwrap();
    let told = report.conversation.with_messages(|messages| {
        let mut text = String::new();
        for part in messages.get(3).map_or(&[][..], |message| message.parts) {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Image(time) => write!(text, "({time})").unwrap(),
            }
        }
        text
    });
    (report, told)
}

fn labels(told: &str) -> Vec<&str> {
    let after = told.split(" at [").skip(1);
    after.map(|rest| &rest[..rest.find(']').unwrap()]).collect()
}

fn plan(start: f64, end: f64, rules: &Rules) -> Result<Selection, SelectionError> {
    let text = format!(r#"{{"start_time": {start:?}, "end_time": {end:?}, "nframes": 4}}"#);
    Selection::plan(&FrameSelect::parse(&text).unwrap(), &VIDEO, rules)
}

#[test]
fn published_labels_spread_over_the_requested_window() {
    for rules in [None, Some(Rules::published())] {
        let (_, told) = run(rules, look("80", "100", 3));
        assert_eq!(labels(&told), ["01:20", "01:30", "01:40"]);
        let (_, told) = run(rules, look("0", "60", 1));
        assert_eq!(labels(&told), ["00:00"]);
    }
}

#[test]
fn true_labels_are_the_times_that_the_source_says_cut_to_seconds() {
    let rules = Rules::published().with_labels(FrameLabels::FrameTimes);
    let (_, told) = run(Some(rules), look("80", "100", 3));
    // Frames from 80.0, 84.5 (on display at 84.9995) and 89.5 s on.
    assert_eq!(labels(&told), ["01:20", "01:24", "01:29"]);
    let (_, told) = run(Some(rules), look("0", "60", 1));
    assert_eq!(labels(&told), ["00:30"]);
    assert_eq!(Rules::default().labels, FrameLabels::FrameTimes);
}

#[test]
fn a_true_label_of_an_absurd_time_is_still_a_label() {
    let selection = Selection::uniform(0.0, 1.0, 1, 28, 28);
    let seconds = |time| FrameLabels::FrameTimes.seconds(&selection, 0, time);
    assert_eq!(seconds(59.999), 59);
    assert_eq!(seconds(-0.5), 0);
    assert_eq!(seconds(f64::NAN), 0);
    assert_eq!(seconds(f64::INFINITY), i64::MAX);
}

#[test]
fn a_response_labels_frames_as_published_unless_told_otherwise() {
    let selection = Selection::uniform(60.0, 120.0, 1, 28, 28);
    let (mut plain, mut timed) = (String::new(), String::new());
    ToolResponse::new()
        .frame(&mut plain, &selection, 0)
        .unwrap();
    ToolResponse::new()
        .frame_labelled(&mut timed, FrameLabels::FrameTimes, &selection, 0, 90.5)
        .unwrap();
    assert_eq!(plain, "<tool_response>Frame 0 at [01:00]: ");
    assert_eq!(timed, "<tool_response>Frame 0 at [01:30]: ");
}

#[test]
fn a_window_partly_within_the_video_is_cut_whatever_the_rule() {
    for choice in [
        OutsideWindow::WholeVideo,
        OutsideWindow::Clamp,
        OutsideWindow::Refuse,
    ] {
        let rules = Rules::published().with_outside_window(choice);
        let window = |start, end| {
            let s = plan(start, end, &rules).unwrap();
            (s.start, s.end, s.nframes)
        };
        assert_eq!(window(80.0, 100.0), (80.0, 90.0, 4));
        assert_eq!(window(-10.0, 5.0), (0.0, 5.0, 4));
        assert_eq!(window(-10.0, 100.0), (0.0, 90.0, 4));
        assert_eq!(window(20.0, 30.0), (20.0, 30.0, 4));
    }
}

#[test]
fn a_window_outside_is_the_whole_video_as_published() {
    for (start, end) in [
        (90.0, 100.0),
        (200.0, 300.0),
        (-9.0, 0.0),
        (50.0, 40.0),
        (5.0, 5.0),
    ] {
        let s = plan(start, end, &Rules::published()).unwrap();
        assert_eq!((s.start, s.end, s.nframes), (0.0, 90.0, 4));
        assert_eq!((s.requested_start, s.requested_end), (start, end));
    }
}

#[test]
fn a_window_outside_is_clamped_to_one_frame_of_the_nearest_moment() {
    let rules = Rules::published().with_outside_window(OutsideWindow::Clamp);
    for (start, end, moment) in [
        (90.0, 100.0, 90.0),
        (200.0, 300.0, 90.0),
        (-9.0, 0.0, 0.0),
        (-9.0, -20.0, 0.0),
        (50.0, 40.0, 50.0),
        (5.0, 5.0, 5.0),
    ] {
        let s = plan(start, end, &rules).unwrap();
        assert_eq!((s.start, s.end, s.nframes), (moment, moment, 1));
        assert_eq!(s.times().collect::<Vec<_>>(), [moment]);
    }
    // The run fetches what was planned.
    let (report, told) = run(
        Some(rules.with_labels(FrameLabels::FrameTimes)),
        look("200", "300", 8),
    );
    assert_eq!(report.trajectory.outcome.tally.frames, 1);
    assert_eq!(labels(&told), ["01:30"]);
}

#[test]
fn a_window_outside_is_refused_and_the_model_told_how_long_the_video_is() {
    let refuses = Rules::published().with_outside_window(OutsideWindow::Refuse);
    for (start, end) in [(90.0, 100.0), (-9.0, 0.0), (50.0, 40.0), (5.0, 5.0)] {
        let error = plan(start, end, &refuses).unwrap_err();
        let duration = 90.0;
        assert_eq!(
            error,
            SelectionError::Window {
                start,
                end,
                duration
            }
        );
        assert!(!error.ends_the_run());
    }

    let (report, told) = run(Some(Rules::default()), look("200", "300.5", 8));
    assert_eq!(report.answer(), Some("B"));
    assert_eq!(
        told,
        "<tool_response>Error in frame_select: nothing of the video is from 200 s to 300.5 s: ask \
         for a start_time before the end_time, both in seconds; the video ends at 90 s\n\
         If more information is needed, call the frame selection tool again.\n\n\
         Question: Q</tool_response>"
    );
    let call = &report.trajectory.turns[0].calls[0];
    assert_eq!(call.error, Some(CallError::WindowOutsideVideo));
    assert_eq!(call.selection, None);
    assert_eq!(report.trajectory.outcome.tally.estimated_visual_tokens, 0);

    let ends = refuses.with_failed_calls(FailedCalls::EndRun);
    let (report, _) = run(Some(ends), look("200", "300", 8));
    assert_eq!(report.stop_reason().to_string(), "window_outside_video");
}

#[test]
fn in_a_video_without_length_any_window_is_the_whole() {
    let info = VideoInfo {
        duration: 0.0,
        ..VIDEO
    };
    let call = FrameSelect::parse(r#"{"start_time": 3, "end_time": 9, "nframes": 4}"#).unwrap();
    for choice in [
        OutsideWindow::WholeVideo,
        OutsideWindow::Clamp,
        OutsideWindow::Refuse,
    ] {
        let rules = Rules::published().with_outside_window(choice);
        let s = Selection::plan(&call, &info, &rules).unwrap();
        assert_eq!((s.start, s.end, s.nframes), (0.0, 0.0, 4));
    }
}

#[test]
fn the_default_rules_differ_from_the_published_in_three_choices() {
    let rules = Rules {
        labels: FrameLabels::RequestedWindow,
        outside_window: OutsideWindow::WholeVideo,
        failed_calls: FailedCalls::EndRun,
        ..Rules::default()
    };
    assert_eq!(rules, Rules::published());
    assert_ne!(Rules::default(), Rules::published());
}

#[test]
fn the_agent_alone_says_that_the_window_is_outside() {
    let mut agent = Agent::new(Rules::default(), VIDEO);
    let reply = look("200", "300", 8);
    let usage = Usage::default();
    let input = Input::Generated {
        reply: &reply,
        usage,
    };
    assert_eq!(agent.handle(input), Ok(&Step::Generate));
    let states: Vec<_> = agent.calls().map(|call| call.state).collect();
    let failed = eva_core::agent::CallState::Failed(CallError::WindowOutsideVideo);
    assert_eq!(states, [failed]);
    let advice = CallError::WindowOutsideVideo.advice();
    assert!(advice.contains("start_time"), "{advice}");
}

#[cfg(feature = "serde")]
mod stored {
    use super::*;

    #[test]
    fn rules_are_stored_by_name_and_a_missing_choice_is_the_published_one() {
        let stored = serde_json::to_value(Rules::default()).unwrap();
        assert_eq!(stored["labels"], "frame_times");
        assert_eq!(stored["outside_window"], "refuse");
        assert_eq!(stored["failed_calls"], "tell_model");
        assert_eq!(
            serde_json::from_value::<Rules>(stored).unwrap(),
            Rules::default()
        );
        let old = r#"{"max_turns": 4, "failed_calls": "tell_model"}"#;
        let rules = Rules::published()
            .with_max_turns(4)
            .with_failed_calls(FailedCalls::TellModel);
        assert_eq!(serde_json::from_str::<Rules>(old).unwrap(), rules);
    }
}

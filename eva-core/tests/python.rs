//! Replies and calls as Python itself reads and reckons them: see `python/make.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use eva_core::prompt::Label;
use eva_core::reply::{self, FrameSelect};
use eva_core::{CallError, Rules, Selection, VideoInfo};
use serde_json::Value;

fn cases(kind: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("python/cases.json")).unwrap();
    all[kind].as_array().unwrap().clone()
}

#[test]
fn answers_are_those_that_pythons_patterns_find() {
    for case in cases("replies") {
        let text = case["reply"].as_str().unwrap();
        let ours = reply::answer(text).map(|span| span.of(text).unwrap());
        assert_eq!(ours, case["answer"].as_str(), "{text:?}");
    }
}

#[test]
fn calls_are_those_that_pythons_patterns_find() {
    for case in cases("replies") {
        let text = case["reply"].as_str().unwrap();
        let ours: Option<Vec<&str>> = reply::tool_calls(text)
            .map(|calls| calls.map(|call| call.arguments.of(text).unwrap()).collect());
        let theirs = case["calls"].as_array();
        let theirs = theirs.map(|calls| calls.iter().map(|call| call.as_str().unwrap()).collect());
        assert_eq!(ours, theirs, "{text:?}");
    }
}

#[test]
fn plans_are_those_that_python_reckons() {
    for case in cases("plans") {
        let info = VideoInfo {
            duration: case["duration"].as_f64().unwrap(),
            width: case["width"].as_u64().unwrap() as u32,
            height: case["height"].as_u64().unwrap() as u32,
            fps: 25.0,
        };
        let theirs = &case["result"];
        let arguments = case["arguments"].as_str().unwrap();
        let planned = FrameSelect::parse(arguments).map_err(|error| error.as_str());
        let planned = planned.and_then(|call| {
            Selection::plan(&call, &info, &Rules::published()).map_err(|error| {
                if error.ends_the_run() {
                    "exception"
                } else {
                    CallError::FrameSelectFailed.as_str()
                }
            })
        });
        match planned {
            Err(name) => assert_eq!(Some(name), theirs.as_str(), "{case}"),
            Ok(ours) => {
                let number = |name: &str| theirs[name].as_f64();
                assert_eq!(Some(f64::from(ours.nframes)), number("nframes"), "{case}");
                assert_eq!(Some(f64::from(ours.width)), number("width"), "{case}");
                assert_eq!(Some(f64::from(ours.height)), number("height"), "{case}");
                assert_eq!(
                    Some(ours.visual_tokens() as f64),
                    number("tokens"),
                    "{case}"
                );
                let exact = |name: &str| theirs[name].as_str().unwrap().parse::<f64>();
                assert_eq!(Ok(ours.start), exact("start"), "{case}");
                assert_eq!(Ok(ours.end), exact("end"), "{case}");
                // Beyond an `i64` our labels stop, while Python's count on.
                if ours.requested_start.abs().max(ours.requested_end.abs()) < 1e18 {
                    let labels = [0, ours.nframes / 2, ours.nframes - 1]
                        .map(|index| Label(ours.label_seconds(index)).to_string());
                    assert_eq!(serde_json::json!(labels), theirs["labels"], "{case}");
                }
            }
        }
    }
}

//! An application's own tool: it finds where the picture changes, for no visual token, and the model
//! looks there. A call that fails is told to the model, which tries again.
//!
//!     cargo run --release --example custom_tool

use std::fmt;
use std::sync::Arc;

use eva::core::mock::ScriptedPolicy;
use eva::tools::Shared;
use eva::world::{World, WorldSource, WorldSourceError};
use eva::{FailedCalls, FrameSource, Rules, Selection, Session, Tool};

/// Compares a small frame of each second with the one before.
struct Changes(Shared<WorldSource>);

#[derive(serde::Deserialize)]
struct Window {
    start_time: f64,
    end_time: f64,
}

#[derive(Debug, thiserror::Error)]
enum ChangesError {
    #[error("{0}: give start_time and end_time in seconds")]
    Arguments(#[from] serde_json::Error),
    #[error("no frames: {0}")]
    Source(#[from] WorldSourceError),
    #[error(transparent)]
    Write(#[from] fmt::Error),
}

impl Tool for Changes {
    type Error = ChangesError;
    fn name(&self) -> &str {
        "changes"
    }
    fn description(&self) -> &str {
        "Lists the seconds from start_time to end_time at which much of the picture changes."
    }
    fn parameters(&self) -> &str {
        r#"{"type": "object", "properties": {"start_time": {"type": "number"}, "end_time": {"type": "number"}}, "required": ["start_time", "end_time"]}"#
    }
    fn call(&mut self, arguments: &str, out: &mut dyn fmt::Write) -> Result<(), ChangesError> {
        let window: Window = serde_json::from_str(arguments)?;
        let (start, end) = (window.start_time, window.end_time);
        let selection = Selection::uniform(start, end, (end - start).min(3600.0) as u32, 28, 21);
        let (mut last, mut changes) = (Vec::new(), String::new());
        self.0.frames(&selection, &mut |frame| {
            let rgb = frame.pixels.into_rgb();
            let pairs = rgb.chunks_exact(3).zip(last.chunks_exact(3));
            let far = |(a, b): &(&[u8], &[u8])| a.iter().zip(*b).any(|(a, b)| a.abs_diff(*b) > 60);
            if pairs.filter(far).count() * 24 > rgb.len() {
                changes += &format!(" {:.0}", frame.time);
            }
            last = rgb;
        })?;
        write!(out, "The picture changes at (seconds):{changes}")?;
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let video = Shared::new(WorldSource::new(Arc::new(World::new(7))));
    let script = [
        r#"<tool_call>{"tool": "changes", "arguments": {"start_time": "0"}}</tool_call>"#,
        r#"<tool_call>{"tool": "changes", "arguments": {"start_time": 0, "end_time": 833}}</tool_call>"#,
        r#"<tool_call>{"tool": "frame_select", "arguments": {"start_time": 92, "end_time": 176, "nframes": 1}}</tool_call>"#,
        "<answer>8</answer>",
    ];
    let mut session = Session::new(video.clone(), ScriptedPolicy::new(script))
        .with_rules(Rules::published().with_failed_calls(FailedCalls::TellModel))
        .with_tool(Changes(video));
    let report = session.ask("What digit is on the first card?")?;
    for message in &report.trajectory.messages[1..] {
        println!("{}", serde_json::to_string(message)?);
    }
    Ok(())
}

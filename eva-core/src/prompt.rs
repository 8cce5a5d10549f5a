//! The protocol's wording: what stands around the question and the frames.
//!
//! Everything is written to a [`fmt::Write`], so that a host can write into a `String`, a
//! `heapless::String`, a socket, or straight into a tokenizer. Pictures are the host's: it puts one
//! behind each frame's label.

use core::fmt;

use crate::json::Quoted;
use crate::reply::FRAME_SELECT;
use crate::word::is_space;
use crate::{FrameLabels, Selection, ToolSpec, VideoInfo};

/// The system message, for conversations that don't bring their own. The weights were trained with
/// this typo.
///
/// ```
/// assert!(eva_core::prompt::SYSTEM.starts_with("Use Frame Select Tool to Anlysis the video"));
/// ```
pub const SYSTEM: &str =
    "Use Frame Select Tool to Anlysis the video and generate an answer to the question.";

/// The tool that every host has, as the model is told of it beside others. Alone it is not named: the
/// published weights know it.
///
/// ```
/// use eva_core::prompt::FRAME_SELECT_SPEC;
///
/// assert_eq!(FRAME_SELECT_SPEC.name, "frame_select");
/// assert!(FRAME_SELECT_SPEC.parameters.contains("nframes"));
/// ```
pub const FRAME_SELECT_SPEC: ToolSpec<'static> = ToolSpec {
    name: FRAME_SELECT,
    description: "Shows frames of the video: nframes of them, evenly spaced from start_time to \
                  end_time in seconds, their sides scaled by resize.",
    parameters: r#"{"type": "object", "properties": {"start_time": {"type": "number"}, "end_time": {"type": "number"}, "nframes": {"type": "integer", "minimum": 1}, "resize": {"type": "number", "minimum": 0, "maximum": 1}}, "required": ["start_time", "end_time", "nframes"]}"#,
};

/// Writes the system message: `system`, and behind it the host's `tools` in the format that Qwen's
/// chat template has for them, led by [`FRAME_SELECT_SPEC`]. Without tools it is `system` alone, as
/// the published weights expect it.
///
/// A call is to be written as this protocol reads it, with `"tool"` for Qwen's `"name"`.
///
/// ```
/// use eva_core::{ToolSpec, prompt};
///
/// let note = ToolSpec { name: "note", description: "Keeps a note.", parameters: "{}" };
/// let mut text = String::new();
/// prompt::write_system(&mut text, prompt::SYSTEM, &[note])?;
/// let line = r#"{"type": "function", "function": {"name": "note", "description": "Keeps a note.", "parameters": {}}}"#;
/// assert!(text.starts_with(prompt::SYSTEM) && text.contains(line));
/// # Ok::<(), core::fmt::Error>(())
/// ```
///
/// # Errors
/// When `out` refuses the text.
pub fn write_system(out: &mut dyn fmt::Write, system: &str, tools: &[ToolSpec<'_>]) -> fmt::Result {
    out.write_str(system)?;
    if tools.is_empty() {
        return Ok(());
    }
    out.write_str(
        "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
         You are provided with function signatures within <tools></tools> XML tags:\n<tools>",
    )?;
    for tool in core::iter::once(&FRAME_SELECT_SPEC).chain(tools) {
        write!(
            out,
            "\n{{\"type\": \"function\", \"function\": {{\"name\": {}, \"description\": {}, \
             \"parameters\": {}}}}}",
            Quoted(tool.name),
            Quoted(tool.description),
            tool.parameters
        )?;
    }
    out.write_str(
        "\n</tools>\n\nFor each function call, return a json object with function name and arguments. \
         Put all calls of a reply within one pair of <tool_call></tool_call> XML tags:\n<tool_call>\n\
         {\"tool\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>",
    )
}

/// Writes the first user message: what is known of the video, then the question (trimmed).
///
/// ```
/// use eva_core::{VideoInfo, prompt};
///
/// let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let mut text = String::new();
/// prompt::write_question(&mut text, &video, " Who wins? ")?;
/// assert_eq!(text, "Video Length: 89 seconds. Original video resolution: 720p. Who wins?");
/// # Ok::<(), core::fmt::Error>(())
/// ```
///
/// # Errors
/// When `out` refuses the text.
pub fn write_question(out: &mut dyn fmt::Write, info: &VideoInfo, question: &str) -> fmt::Result {
    // Truncates like Python's `int`.
    let seconds = (info.usable_duration() - 0.5).max(1.0) as u64;
    write!(
        out,
        "Video Length: {seconds} seconds. Original video resolution: {}p. {}",
        info.shorter_side(),
        trim_question(question)
    )
}

/// The question without white space at its ends, as every message quotes it.
///
/// ```
/// assert_eq!(eva_core::prompt::trim_question("\n Who wins? "), "Who wins?");
/// ```
#[must_use]
pub fn trim_question(question: &str) -> &str {
    question.trim_matches(is_space)
}

/// Writes the message of role `tool` that answers the calls of a turn, piece by piece.
///
/// ```
/// use eva_core::{Selection, prompt::ToolResponse};
///
/// let selection = Selection::uniform(60.0, 62.0, 2, 28, 28);
/// let mut text = String::new();
/// let mut response = ToolResponse::new();
/// for i in 0..selection.nframes {
///     response.frame(&mut text, &selection, i)?;
///     text.push_str("<picture>"); // here the host puts the frame
/// }
/// response.close(&mut text, "What is it?")?;
/// assert_eq!(text, "<tool_response>Frame 0 at [01:00]: <picture>\n\
///     Frame 1 at [01:02]: <picture>\n\
///     If more information is needed, call the frame selection tool again.\n\n\
///     Question: What is it?</tool_response>");
/// # Ok::<(), core::fmt::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ToolResponse {
    open: bool,
    frames: u32,
}

impl ToolResponse {
    /// A response with nothing in it yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            open: false,
            frames: 0,
        }
    }

    /// Writes what stands before frame `index` of `selection`, labelled as the published weights
    /// expect it. Frames are counted on through all calls of the turn. The picture follows.
    ///
    /// # Errors
    /// When `out` refuses the text.
    pub fn frame(
        &mut self,
        out: &mut dyn fmt::Write,
        selection: &Selection,
        index: u32,
    ) -> fmt::Result {
        self.label(out, selection.label_seconds(index))
    }

    /// The same with the label that `labels` chooses; `time` is the frame's own, in seconds.
    ///
    /// # Errors
    /// When `out` refuses the text.
    pub fn frame_labelled(
        &mut self,
        out: &mut dyn fmt::Write,
        labels: FrameLabels,
        selection: &Selection,
        index: u32,
        time: f64,
    ) -> fmt::Result {
        self.label(out, labels.seconds(selection, index, time))
    }

    /// Writes what a tool of the host returned. The published protocol has no such tool; the text
    /// stands where the frames of a call would.
    ///
    /// # Errors
    /// When `out` refuses the text.
    pub fn text(&mut self, out: &mut dyn fmt::Write, returned: &str) -> fmt::Result {
        self.begin(out)?;
        out.write_str(returned)
    }

    /// Writes what stands before a picture that a tool of the host returned, shown at `time` seconds.
    /// It is counted on with the frames. The picture follows.
    ///
    /// # Errors
    /// When `out` refuses the text.
    pub fn image(&mut self, out: &mut dyn fmt::Write, time: f64) -> fmt::Result {
        self.label(out, time as i64)
    }

    /// Writes that a call of `tool` failed, and why, for hosts under
    /// [`FailedCalls::TellModel`](crate::FailedCalls::TellModel).
    ///
    /// # Errors
    /// When `out` refuses the text.
    pub fn failure(&mut self, out: &mut dyn fmt::Write, tool: &str, why: &str) -> fmt::Result {
        self.begin(out)?;
        write!(out, "Error in {tool}: {why}")
    }

    /// Writes the end: the reminder and the question (trimmed). Nothing can follow it.
    ///
    /// # Errors
    /// When `out` refuses the text.
    pub fn close(mut self, out: &mut dyn fmt::Write, question: &str) -> fmt::Result {
        if !self.open {
            self.begin(out)?;
        }
        write!(
            out,
            "\nIf more information is needed, call the frame selection tool again.\n\n\
             Question: {}</tool_response>",
            trim_question(question)
        )
    }

    fn label(&mut self, out: &mut dyn fmt::Write, seconds: i64) -> fmt::Result {
        self.begin(out)?;
        write!(out, "Frame {} at [{}]: ", self.frames, Label(seconds))?;
        self.frames = self.frames.saturating_add(1);
        Ok(())
    }

    /// The opening tag before the first piece, a line break before the others.
    fn begin(&mut self, out: &mut dyn fmt::Write) -> fmt::Result {
        if self.open {
            return out.write_char('\n');
        }
        self.open = true;
        out.write_str("<tool_response>")
    }
}

/// Whole seconds as `mm:ss`, minutes unbounded: `75:03`. Negative seconds as Python's floor division
/// gives them: -5 is `-1:55`.
///
/// ```
/// use eva_core::prompt::Label;
///
/// assert_eq!(Label(61).to_string(), "01:01");
/// assert_eq!(Label(4503).to_string(), "75:03");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(pub i64);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (minutes, seconds) = (self.0.div_euclid(60), self.0.rem_euclid(60));
        write!(f, "{minutes:02}:{seconds:02}")
    }
}

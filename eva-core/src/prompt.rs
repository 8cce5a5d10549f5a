//! The protocol's wording: what stands around the question and the frames.
//!
//! Everything is written to a [`fmt::Write`], so that a host can write into a `String`, a
//! `heapless::String`, a socket, or straight into a tokenizer. Pictures are the host's: it puts one
//! behind each frame's label.

use core::fmt;

use crate::word::is_space;
use crate::{Selection, VideoInfo};

/// The system message, for conversations that don't bring their own. The weights were trained with
/// this typo.
pub const SYSTEM: &str =
    "Use Frame Select Tool to Anlysis the video and generate an answer to the question.";

/// Writes the first user message: what is known of the video, then the question (trimmed).
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

    /// Writes what stands before frame `index` of `selection`. Frames are counted on through all
    /// calls of the turn. The picture follows.
    ///
    /// # Errors
    /// When `out` refuses the text.
    pub fn frame(
        &mut self,
        out: &mut dyn fmt::Write,
        selection: &Selection,
        index: u32,
    ) -> fmt::Result {
        self.begin(out)?;
        let label = Label(selection.label_seconds(index));
        write!(out, "Frame {} at [{label}]: ", self.frames)?;
        self.frames = self.frames.saturating_add(1);
        Ok(())
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(pub i64);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (minutes, seconds) = (self.0.div_euclid(60), self.0.rem_euclid(60));
        write!(f, "{minutes:02}:{seconds:02}")
    }
}

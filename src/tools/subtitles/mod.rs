//! What is said and when, from a subtitle file: [`ReadSubtitles`].

mod cues;

use std::fmt;

use eva_core::Tool;
use eva_core::prompt::Label;

use super::arguments::{Arguments, ArgumentsError};
pub use cues::{Cue, Subtitles, SubtitlesError};

/// A tool that reads the subtitles of a window: `read_subtitles(start_time, end_time)`.
///
/// It answers with the cues on screen in that window, each as a line with the clock at which it comes
/// up, as frames are labelled. A window given backwards is turned round. An answer is bounded
/// ([`ReadSubtitles::with_max_bytes`]): where it is cut, it says from when on to call again.
///
/// ```
/// use eva::Tool;
/// use eva::tools::{ReadSubtitles, Subtitles};
///
/// let file = "1\n00:00:58,500 --> 00:01:02,000\n<i>Who is there?</i>\n";
/// let mut tool = ReadSubtitles::new(Subtitles::parse(file)?);
/// let mut text = String::new();
/// tool.call(r#"{"start_time": 60, "end_time": 70}"#, &mut text)?;
/// assert_eq!(text, "[00:58] Who is there?");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ReadSubtitles {
    subtitles: Subtitles,
    max_bytes: usize,
}

/// A call of [`ReadSubtitles`] failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadSubtitlesError {
    /// The arguments can't be read.
    #[error(transparent)]
    Arguments(#[from] ArgumentsError),
    /// The host takes no text.
    #[error("the subtitles can't be handed back")]
    Write(#[from] fmt::Error),
}

impl ReadSubtitles {
    /// Bytes of an answer at most, if nothing else is said: some thousand tokens.
    pub const MAX_BYTES: usize = 4000;

    /// The tool for these subtitles.
    #[must_use]
    pub const fn new(subtitles: Subtitles) -> Self {
        Self {
            subtitles,
            max_bytes: Self::MAX_BYTES,
        }
    }

    /// The same with another limit of an answer, in bytes. One cue is always shown, the note at the
    /// end is not counted.
    #[must_use]
    pub const fn with_max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }
}

impl Tool for ReadSubtitles {
    type Error = ReadSubtitlesError;

    fn name(&self) -> &str {
        "read_subtitles"
    }

    fn description(&self) -> &str {
        "Reads what is said from start_time to end_time in seconds, each line with the time at which \
         it comes up."
    }

    fn parameters(&self) -> &str {
        r#"{"type": "object", "properties": {"start_time": {"type": "number"}, "end_time": {"type": "number"}}, "required": ["start_time", "end_time"]}"#
    }

    fn call(&mut self, arguments: &str, out: &mut dyn fmt::Write) -> Result<(), Self::Error> {
        let arguments = Arguments::parse(arguments)?;
        let (from, to) = (arguments.time("start_time")?, arguments.time("end_time")?);
        let (start, end) = (from.min(to), from.max(to));
        let mut written = 0;
        for cue in self.subtitles.between(start, end) {
            let line = format!("[{}] {}", Label(cue.start as i64), cue.text);
            if written > 0 && written + 1 + line.len() > self.max_bytes {
                write!(
                    out,
                    "\n(Cut here: for the rest, call again with start_time {}.)",
                    cue.start
                )?;
                return Ok(());
            }
            if written > 0 {
                out.write_char('\n')?;
                written += 1;
            }
            out.write_str(&line)?;
            written += line.len();
        }
        if written == 0 {
            let (start, end) = (Label(start as i64), Label(end as i64));
            write!(out, "Nothing is said from {start} to {end}.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = "1\n00:00:01,000 --> 00:00:02,000\none\n\n\
                        2\n00:00:03,000 --> 00:00:04,000\ntwo\n\n\
                        3\n01:15:03,250 --> 01:15:04,000\nthree\n";

    fn read(arguments: &str, max_bytes: usize) -> Result<String, ReadSubtitlesError> {
        let mut tool =
            ReadSubtitles::new(Subtitles::parse(FILE).unwrap()).with_max_bytes(max_bytes);
        let mut text = String::new();
        tool.call(arguments, &mut text).map(|()| text)
    }

    #[test]
    fn the_cues_of_a_window_are_read_with_their_clocks() {
        let text = |arguments| read(arguments, 4000).unwrap();
        assert_eq!(
            text(r#"{"start_time": 0, "end_time": 9999}"#),
            "[00:01] one\n[00:03] two\n[75:03] three"
        );
        // A cue that ends where the window begins, or begins where it ends, is not in it.
        assert_eq!(text(r#"{"start_time": 2, "end_time": 3.5}"#), "[00:03] two");
        assert_eq!(text(r#"{"start_time": 1.5, "end_time": 3}"#), "[00:01] one");
        assert_eq!(
            text(r#"{"start_time": 3.5, "end_time": 3.5}"#),
            "[00:03] two"
        );
        assert_eq!(
            text(r#"{"start_time": "75:10", "end_time": "75:00"}"#),
            "[75:03] three"
        );
        assert_eq!(
            text(r#"{"start_time": 10, "end_time": "1:00"}"#),
            "Nothing is said from 00:10 to 01:00."
        );
    }

    #[test]
    fn a_long_answer_is_cut_and_says_where_to_go_on() {
        let all = r#"{"start_time": 0, "end_time": 9999}"#;
        assert_eq!(
            read(all, 23).unwrap(),
            "[00:01] one\n[00:03] two\n(Cut here: for the rest, call again with start_time 4503.25.)"
        );
        assert_eq!(
            read(all, 0).unwrap(),
            "[00:01] one\n(Cut here: for the rest, call again with start_time 3.)"
        );
        let rest = r#"{"start_time": 4503.25, "end_time": 9999}"#;
        assert_eq!(read(rest, 23).unwrap(), "[75:03] three");
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = read(r#"{"start_time": 3}"#, 4000).unwrap_err();
        assert_eq!(
            error.to_string(),
            "end_time is missing: give seconds, or a clock such as \"01:30\""
        );
    }

    proptest! {
        #[test]
        fn any_window_is_answered_within_the_limit(
            start in prop::num::f64::ANY, end in prop::num::f64::ANY, max_bytes in 0_usize..100,
        ) {
            let arguments = serde_json::json!({"start_time": start, "end_time": end});
            if let Ok(text) = read(&arguments.to_string(), max_bytes) {
                prop_assert!(text.len() <= max_bytes.max(13) + 80, "{}", text);
            } else {
                prop_assert!(!(start.is_finite() && end.is_finite()));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            _ = read(&text, 4000);
        }
    }
}

//! What the model's reply says: its answer, or its calls, found in place.
//!
//! The rules are those of the published evaluation code, whose searches are Python regular
//! expressions; they are written out by hand here so that no allocator is needed.

use crate::json::{self, Number, Value};
use crate::outcome::CallError;
use crate::span::Span;
use crate::word::{is_space, is_word, places};

/// The name of the tool that every host has.
///
/// ```
/// let reply = r#"<tool_call>{"tool": "frame_select", "arguments": {}}</tool_call>"#;
/// let call = eva_core::reply::tool_calls(reply).and_then(|mut calls| calls.next());
/// assert_eq!(call.and_then(|call| call.name.of(reply)), Some(eva_core::reply::FRAME_SELECT));
/// ```
pub const FRAME_SELECT: &str = "frame_select";

/// Most characters that may follow a fallback answer and its separator.
const FALLBACK_TAIL: usize = 100;

/// The answer in a reply, never empty.
///
/// 1. The first `<answer> ... </answer>`, trimmed; line breaks are allowed in it.
/// 2. If there is none, or it is empty: the leftmost "answer" or "Answer" that is followed by one of
///    `.`, `:` or white space, optional white space and ONE word character, behind which the reply
///    ends, or has a non-word character and at most 100 more. That one character is the answer.
///
/// ```
/// use eva_core::reply::answer;
///
/// let read = |reply: &'static str| answer(reply).and_then(|span| span.of(reply));
/// assert_eq!(read("So <answer> the red one </answer>"), Some("the red one"));
/// assert_eq!(read("The answer: B."), Some("B"));
/// assert_eq!(read("I don't know."), None);
/// ```
#[must_use]
pub fn answer(reply: &str) -> Option<Span> {
    between(reply, "<answer>", "</answer>")
        .and_then(|span| trimmed(reply, span))
        .or_else(|| fallback_answer(reply))
}

fn fallback_answer(reply: &str) -> Option<Span> {
    places(reply, "nswer").find_map(|at| {
        let before = reply.get(..at)?;
        if !before.ends_with(['A', 'a']) {
            return None;
        }
        let rest = reply.get(at + "nswer".len()..)?;
        let separator = rest.chars().next()?;
        if !(matches!(separator, '.' | ':') || is_space(separator)) {
            return None;
        }
        let rest = rest
            .get(separator.len_utf8()..)?
            .trim_start_matches(is_space);
        let letter = rest.chars().next()?;
        let tail = rest.get(letter.len_utf8()..)?;
        if !is_word(letter) || !ends_soon(tail) {
            return None;
        }
        let start = reply.len() - rest.len();
        Some(Span::new(start, start + letter.len_utf8()))
    })
}

/// Whether what follows a fallback answer is short enough: nothing, or a non-word character and at
/// most [`FALLBACK_TAIL`] more, not counting a line break at the very end.
fn ends_soon(tail: &str) -> bool {
    let mut rest = tail.chars();
    match rest.next() {
        None => true,
        Some(separator) if is_word(separator) => false,
        Some(_) => {
            let rest = rest.as_str();
            let rest = rest.strip_suffix('\n').unwrap_or(rest);
            rest.chars().nth(FALLBACK_TAIL).is_none()
        }
    }
}

/// The `frame_select` calls in a reply: those in its first `<tool_call> ... </tool_call>` block.
/// `None` when it has no such block. [`ToolCalls::with_other_tools`] finds calls of any tool.
///
/// ```
/// use eva_core::reply::tool_calls;
///
/// let reply = r#"<tool_call>{"tool": "frame_select", "arguments": {"nframes": 8}}</tool_call>"#;
/// let calls = tool_calls(reply).into_iter().flatten();
/// let arguments: Vec<_> = calls.map(|call| call.arguments.of(reply)).collect();
/// assert_eq!(arguments, [Some(r#"{"nframes": 8}"#)]);
/// assert!(tool_calls("no block").is_none());
/// ```
#[must_use]
pub fn tool_calls(reply: &str) -> Option<ToolCalls<'_>> {
    let block = between(reply, "<tool_call>", "</tool_call>")?;
    let block = trimmed(reply, block).unwrap_or(Span::new(block.start, block.start));
    Some(ToolCalls {
        reply,
        at: block.start,
        end: block.end,
        other_tools: false,
    })
}

/// A call as it is written in a reply.
///
/// ```
/// let reply = r#"<tool_call>{"tool": "note", "arguments": {"text": "red"}}</tool_call>"#;
/// let calls = eva_core::reply::tool_calls(reply).map(|calls| calls.with_other_tools());
/// let call = calls.and_then(|mut calls| calls.next());
/// assert_eq!(call.and_then(|call| call.name.of(reply)), Some("note"));
/// assert_eq!(call.and_then(|call| call.arguments.of(reply)), Some(r#"{"text": "red"}"#));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WrittenCall {
    /// Name of the tool.
    pub name: Span,
    /// What it is called with: text in braces, not yet checked to be JSON.
    pub arguments: Span,
}

/// Iterator over the calls of a reply, in order; made by [`tool_calls`].
///
/// A call is `{"tool": "NAME", "arguments": {...}}`, with `"parameters"` accepted for `"arguments"`
/// and white space only where the published pattern has it: not before a colon. Its arguments end at
/// the first closing brace that is followed by another one.
///
/// ```
/// use eva_core::reply::tool_calls;
///
/// let reply = r#"<tool_call>{"tool": "zoom", "arguments": {}}
///     {"tool": "frame_select", "parameters": {"nframes": 1}}</tool_call>"#;
/// assert_eq!(tool_calls(reply).map(|calls| calls.count()), Some(1));
/// assert_eq!(tool_calls(reply).map(|calls| calls.with_other_tools().count()), Some(2));
/// ```
#[derive(Debug, Clone)]
pub struct ToolCalls<'a> {
    reply: &'a str,
    at: usize,
    end: usize,
    other_tools: bool,
}

impl ToolCalls<'_> {
    /// The same for calls of any name. Without this, what calls another tool is passed over as if
    /// it were plain text, as the published code does.
    #[must_use]
    pub const fn with_other_tools(mut self) -> Self {
        self.other_tools = true;
        self
    }
}

impl Iterator for ToolCalls<'_> {
    type Item = WrittenCall;

    fn next(&mut self) -> Option<WrittenCall> {
        loop {
            let rest = self.reply.get(self.at..self.end)?;
            let open = self.at + rest.find('{')?;
            self.at = open + 1;
            let mut cursor = Cursor {
                text: self.reply.get(..self.end)?,
                at: open,
            };
            if let Some(call) = cursor.call(self.other_tools) {
                self.at = cursor.at;
                return Some(call);
            }
            // Nothing closes the last of the arguments: nothing can close later ones either.
            if cursor.at == self.end {
                self.at = self.end;
            }
        }
    }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn eat(&mut self, word: &str) -> Option<()> {
        self.rest().strip_prefix(word)?;
        self.at += word.len();
        Some(())
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches(is_space).len();
    }

    fn call(&mut self, other_tools: bool) -> Option<WrittenCall> {
        self.eat("{")?;
        self.space();
        self.eat("\"tool\":")?;
        self.space();
        self.eat("\"")?;
        let name = Span::new(self.at, self.at + self.rest().find('"')?);
        if !other_tools && name.of(self.text) != Some(FRAME_SELECT) {
            return None;
        }
        self.at = name.end;
        self.eat("\",")?;
        self.space();
        if self.eat("\"arguments\":").is_none() {
            self.eat("\"parameters\":")?;
        }
        self.space();
        let start = self.at;
        self.eat("{")?;
        loop {
            let Some(brace) = self.rest().find('}') else {
                self.at = self.text.len();
                return None;
            };
            self.at += brace + 1;
            let arguments = Span::new(start, self.at);
            self.space();
            if self.eat("}").is_some() {
                return Some(WrittenCall { name, arguments });
            }
        }
    }
}

/// An argument where a number is expected. `true` and `false` count as 1 and 0, as in Python.
///
/// ```
/// use eva_core::json::Value;
/// use eva_core::reply::Argument;
///
/// assert_eq!(Argument::from(Value::Bool(true)), Argument::whole(1));
/// assert_eq!(Argument::from(Value::Other("\"8\"")), Argument::NotANumber);
/// assert_ne!(Argument::float(8.0), Argument::whole(8)); // Python tells them apart
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Argument {
    /// Null, text, an array or an object. A number written as text is text.
    NotANumber,
    /// A number, possibly not a finite one.
    Number(Number),
}

impl Argument {
    /// The whole number `value`.
    #[must_use]
    pub fn whole(value: u32) -> Self {
        Self::Number(Number {
            value: f64::from(value),
            integer: true,
        })
    }

    /// The number `value`, written with a fraction.
    #[must_use]
    pub const fn float(value: f64) -> Self {
        Self::Number(Number {
            value,
            integer: false,
        })
    }
}

impl From<Value<'_>> for Argument {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Number(number) => Self::Number(number),
            Value::Bool(truth) => Self::whole(u32::from(truth)),
            Value::Null | Value::Other(_) => Self::NotANumber,
        }
    }
}

/// The arguments of a `frame_select` call, present but not yet checked against a video:
/// [`Selection::plan`](crate::Selection::plan) does that.
///
/// ```
/// use eva_core::CallError;
/// use eva_core::reply::{Argument, FrameSelect};
///
/// let call = FrameSelect::parse(r#"{"start_time": 0, "end_time": 9.5, "nframes": 8}"#)?;
/// assert_eq!(call.end_time, Argument::float(9.5));
/// assert_eq!(call.resize, Argument::whole(1));
/// assert_eq!(FrameSelect::parse("{}"), Err(CallError::NoStartOrEndTime));
/// # Ok::<(), CallError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameSelect {
    /// Start of the window in seconds.
    pub start_time: Argument,
    /// End of the window in seconds.
    pub end_time: Argument,
    /// Number of frames.
    pub nframes: Argument,
    /// Ratio of the output's sides to the video's; 1 when missing or null.
    pub resize: Argument,
}

impl FrameSelect {
    /// Reads the arguments of a call. Unknown members are passed over.
    ///
    /// # Errors
    /// [`CallError::ArgumentsNotJson`], [`CallError::NoStartOrEndTime`], [`CallError::NoNframes`].
    pub fn parse(arguments: &str) -> Result<Self, CallError> {
        let (mut start_time, mut end_time, mut nframes) = (None, None, None);
        let mut resize = Argument::whole(1);
        json::read_object(arguments, |key, value| {
            if key.is("start_time") {
                start_time = Some(value.into());
            } else if key.is("end_time") {
                end_time = Some(value.into());
            } else if key.is("nframes") {
                nframes = Some(value.into());
            } else if key.is("resize") {
                resize = match value {
                    Value::Null => Argument::whole(1),
                    value => value.into(),
                };
            }
        })
        .map_err(|_| CallError::ArgumentsNotJson)?;
        let (Some(start_time), Some(end_time)) = (start_time, end_time) else {
            return Err(CallError::NoStartOrEndTime);
        };
        let Some(nframes) = nframes else {
            return Err(CallError::NoNframes);
        };
        Ok(Self {
            start_time,
            end_time,
            nframes,
            resize,
        })
    }
}

/// What lies between the first `open` that has a `close` behind it and the first such `close`.
fn between(text: &str, open: &str, close: &str) -> Option<Span> {
    let start = places(text, open).next()? + open.len();
    let end = start + places(text.get(start..)?, close).next()?;
    Some(Span::new(start, end))
}

/// The span without white space at its ends; `None` if nothing is left.
fn trimmed(text: &str, span: Span) -> Option<Span> {
    let inner = span.of(text)?.trim_end_matches(is_space);
    let start = span.start + (inner.len() - inner.trim_start_matches(is_space).len());
    let span = Span::new(start, span.start + inner.len());
    (!span.is_empty()).then_some(span)
}

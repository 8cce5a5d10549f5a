//! What comes back: a whole reply or a stream of its pieces.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use eva_core::Usage;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::sse::{EventError, Events};
use crate::web::innermost;

/// Where the text of a reply goes: to the caller as it comes, or once all of it is there.
pub(super) struct Output<'a> {
    reply: &'a mut dyn fmt::Write,
    live: bool,
    limit: usize,
    /// The text of this try that was not written yet.
    held: String,
    /// Bytes of this try's text.
    length: usize,
    /// Whether text was written, which can't be taken back.
    wrote: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(reply: &'a mut dyn fmt::Write, live: bool, limit: usize) -> Self {
        Self {
            reply,
            live,
            limit,
            held: String::new(),
            length: 0,
            wrote: false,
        }
    }

    /// Begins a try. What an earlier one left behind is forgotten.
    pub(super) fn begin(&mut self) {
        self.held.clear();
        self.length = 0;
    }

    /// Whether the caller has seen nothing yet, so that another try can begin from the start.
    pub(super) const fn can_begin_again(&self) -> bool {
        !self.wrote
    }

    /// Asks the caller whether it still wants the reply.
    pub(super) fn is_wanted(&mut self) -> fmt::Result {
        self.reply.write_str("")
    }

    fn push(&mut self, text: &str) -> Result<(), Problem> {
        self.length = self.length.saturating_add(text.len());
        if self.length > self.limit {
            return Err(Problem::TooLarge);
        }
        if self.live {
            self.wrote |= !text.is_empty();
            self.reply.write_str(text)?;
        } else {
            self.held.push_str(text);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Problem> {
        self.wrote |= !self.held.is_empty();
        Ok(self.reply.write_str(&std::mem::take(&mut self.held))?)
    }
}

/// Why what came back is no reply.
#[derive(Debug)]
pub(super) enum Problem {
    /// The connection broke, or the body ended too early.
    Lost(String),
    /// It is not of the API: why, and what there is instead.
    Malformed(String, String),
    NoChoice,
    /// The server failed after it had said that all is well: a status, if it names one, and why.
    Server(Option<u16>, String),
    TimedOut,
    ToolCallTaken,
    TooLarge,
    /// The caller refused text.
    Write(fmt::Error),
}

impl From<fmt::Error> for Problem {
    fn from(error: fmt::Error) -> Self {
        Self::Write(error)
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        let inner = error.get_ref();
        let http = inner.and_then(|inner| inner.downcast_ref::<reqwest::Error>());
        match http {
            Some(http) if http.is_timeout() => Self::TimedOut,
            Some(http) => Self::Lost(innermost(http)),
            None => Self::Lost(innermost(&error)),
        }
    }
}

/// A reply, or a piece of one.
#[derive(Deserialize)]
struct Completion {
    choices: Option<Vec<Choice>>,
    usage: Option<Value>,
    error: Option<Value>,
    object: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    message: Option<Text>,
    delta: Option<Text>,
    finish_reason: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Text {
    content: Option<String>,
    tool_calls: Option<Vec<IgnoredAny>>,
}

/// Reads a reply into `output`. Whether it comes whole or as events is seen from its first byte:
/// servers may ignore what they were asked for.
pub(super) fn read(body: impl Read, output: &mut Output<'_>) -> Result<Usage, Problem> {
    let mut body = BufReader::new(body);
    let usage = match first_byte(&mut body)? {
        // `data`, `event`, `id`, `retry`, a comment, or a byte order mark.
        Some(b'd' | b'e' | b'i' | b'r' | b':' | 0xef) => events(body, output),
        _ => whole(body, output),
    }?;
    output.finish()?;
    Ok(usage)
}

/// The first byte that is not white space, left where it is.
fn first_byte(body: &mut impl BufRead) -> Result<Option<u8>, io::Error> {
    loop {
        let buffer = match body.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        if buffer.is_empty() {
            return Ok(None);
        }
        let space = buffer.iter().take_while(|byte| byte.is_ascii_whitespace());
        let space = space.count();
        let first = buffer.get(space).copied();
        body.consume(space);
        if first.is_some() {
            return Ok(first);
        }
    }
}

fn whole(body: impl Read, output: &mut Output<'_>) -> Result<Usage, Problem> {
    let completion: Completion = json(&limited(body, output.limit)?)?;
    if let Some(failure) = completion.failure() {
        return Err(failure);
    }
    let choice = completion.choices.unwrap_or_default().into_iter().next();
    let choice = choice.ok_or(Problem::NoChoice)?;
    output.push(&choice.text()?)?;
    Ok(usage(completion.usage.as_ref()))
}

fn events(body: impl BufRead, output: &mut Output<'_>) -> Result<Usage, Problem> {
    let mut events = Events::new(body, output.limit);
    let mut counted = Usage::default();
    let (mut chosen, mut finished) = (false, false);
    loop {
        let data = match events.next() {
            Ok(Some(data)) => data,
            Ok(None) => break,
            // All that matters was there.
            Err(EventError::Io(_)) if finished => break,
            Err(EventError::Io(error)) => return Err(error.into()),
            Err(EventError::NotUtf8) => {
                let why = "its text is not UTF-8".to_owned();
                return Err(Problem::Malformed(why, String::new()));
            }
            Err(EventError::TooLarge) => return Err(Problem::TooLarge),
        };
        match data.trim() {
            "" => continue,
            "[DONE]" => {
                finished = true;
                break;
            }
            _ => {}
        }
        let piece: Completion = json(data.as_bytes())?;
        if let Some(failure) = piece.failure() {
            return Err(failure);
        }
        if piece.usage.is_some() {
            counted = usage(piece.usage.as_ref());
        }
        if let Some(choice) = piece.choices.unwrap_or_default().into_iter().next() {
            chosen = true;
            finished |= choice.finish_reason.is_some();
            output.push(&choice.text()?)?;
        }
    }
    match (finished, chosen) {
        (true, true) => Ok(counted),
        (true, false) => Err(Problem::NoChoice),
        (false, _) => Err(Problem::Lost(
            "the stream ended before the reply did".into(),
        )),
    }
}

impl Completion {
    /// An error that came instead of a reply.
    fn failure(&self) -> Option<Problem> {
        let is_error = self.object.as_ref().is_some_and(|object| object == "error");
        let error = self.error.as_ref().filter(|error| !error.is_null());
        if error.is_none() && !is_error {
            return None;
        }
        let code = error.and_then(|error| error.get("code")).and_then(|code| {
            let text = code.as_str().and_then(|text| text.parse().ok());
            code.as_u64().or(text)
        });
        let code = code.and_then(|code| u16::try_from(code).ok());
        let message = error.map_or_else(|| "no reason given".to_owned(), reason);
        Some(Problem::Server(code, message))
    }
}

impl Choice {
    fn text(self) -> Result<String, Problem> {
        let Some(text) = self.message.or(self.delta) else {
            return Ok(String::new());
        };
        if text.tool_calls.is_some_and(|calls| !calls.is_empty()) {
            return Err(Problem::ToolCallTaken);
        }
        Ok(text.content.unwrap_or_default())
    }
}

/// Tokens, as far as the server counts them.
fn usage(value: Option<&Value>) -> Usage {
    let count = |path: &str| {
        let count = value.and_then(|value| value.pointer(path)?.as_u64());
        u32::try_from(count.unwrap_or_default()).unwrap_or(u32::MAX)
    };
    Usage {
        prompt: count("/prompt_tokens"),
        cached: count("/prompt_tokens_details/cached_tokens"),
        completion: count("/completion_tokens"),
    }
}

/// The name of the first model of a list of models.
pub(super) fn first_model(body: impl Read, limit: usize) -> Result<Option<String>, Problem> {
    #[derive(Deserialize)]
    struct Models {
        data: Vec<Model>,
    }
    #[derive(Deserialize)]
    struct Model {
        id: String,
    }
    let models: Models = json(&limited(body, limit)?)?;
    Ok(models.data.into_iter().next().map(|model| model.id))
}

/// What the body of a refusal says, in the words of several servers.
pub(super) fn message(body: impl Read) -> String {
    let mut bytes = Vec::new();
    // What there is up to a failure is better than nothing.
    _ = body.take(1 << 16).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match serde_json::from_str::<Value>(&text) {
        Ok(value) => reason(value.get("error").unwrap_or(&value)),
        Err(_) if text.trim().is_empty() => "no reason given".to_owned(),
        Err(_) => text,
    }
}

fn reason(error: &Value) -> String {
    let said = error.get("message").or_else(|| error.get("detail"));
    match said.unwrap_or(error) {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn limited(body: impl Read, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    body.take((limit as u64).saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(Problem::TooLarge);
    }
    Ok(bytes)
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        // Serde's own words would repeat what stands there.
        let place = format!("line {} column {}", error.line(), error.column());
        let why = match error.classify() {
            serde_json::error::Category::Eof => {
                return Problem::Lost(format!("the reply ends in the middle, at {place}"));
            }
            serde_json::error::Category::Data => "it has other fields",
            _ => "it is not JSON",
        };
        let start = bytes.get(..1 << 16).unwrap_or(bytes);
        let found = String::from_utf8_lossy(start).into_owned();
        Problem::Malformed(format!("{why} at {place}"), found)
    })
}

#[cfg(test)]
mod tests;

//! What can go wrong with a server: [`OpenAiError`].

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use eva_core::Abort;

/// Why there is no reply.
///
/// Addresses are those of the requests. Messages of the server are shortened, and the API key is
/// taken out of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenAiError {
    /// [`OpenAiConfig::new`](super::OpenAiConfig::new) was given something else than the address of
    /// a server.
    #[error("{address} {why}: give the server's address, for example http://127.0.0.1:8000/v1")]
    Address {
        /// What was given, unless it may hold a password.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Status 400: the server refused the conversation, often because it is too long for the model.
    #[error(
        "{url} refused the conversation (400): {message}; if it is too long, ask for fewer or smaller \
         frames, or let the server take longer contexts"
    )]
    BadRequest {
        /// Where.
        url: String,
        /// What the server said.
        message: String,
    },
    /// There is no HTTP client.
    #[error("cannot make an HTTP client: {0}; look at the system's certificates and limits")]
    Client(String),
    /// The connection failed, or broke before the reply was complete.
    #[error("no connection to {url} after {tries} tries: {why}; is the server up?")]
    Connection {
        /// Where.
        url: String,
        /// What happened.
        why: String,
        /// How often it was tried.
        tries: u32,
    },
    /// A picture can't be encoded.
    #[error("cannot encode a picture of {width} x {height} pixels: {why}")]
    Image {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// What is wrong with it.
        why: String,
    },
    /// A picture can't be written to the folder of [`Images::Files`](super::Images::Files).
    #[error("cannot write the picture {path}: {error}; name a folder that can be written", path = .path.display())]
    ImageFile {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is no usable key in the environment variable.
    #[error("the environment variable `{variable}` {why}: put the server's API key into it")]
    Key {
        /// The variable's name.
        variable: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The reply is not of the API.
    #[error("{url} sent what is no reply of a chat API: {why}; does the address end in /v1?")]
    Malformed {
        /// Where.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The reply has no choice, hence no text.
    #[error("{url} sent a reply without a choice; look at the server's log")]
    NoChoice {
        /// Where.
        url: String,
    },
    /// The server lists no models.
    #[error("{url} lists no model: name one (`with_model`)")]
    NoModel {
        /// Where.
        url: String,
    },
    /// The server points to another address, which is not followed: it would get the key.
    #[error("{url} redirects to `{location}`: if that is right, give that address")]
    Redirect {
        /// Where.
        url: String,
        /// Where to.
        location: String,
    },
    /// The request can't be written as JSON.
    #[error("cannot write the request: {0}")]
    Request(serde_json::Error),
    /// The server failed while it wrote the reply, after it had begun.
    #[error("{url} broke off its reply: {message}; look at the server's log")]
    Reply {
        /// Where.
        url: String,
        /// What the server said.
        message: String,
    },
    /// Another status than success.
    #[error("{url} answered {status} after {tries} tries: {message}; {}", advice(*.status))]
    Status {
        /// Where.
        url: String,
        /// The status.
        status: u16,
        /// What the server said.
        message: String,
        /// How often it was tried.
        tries: u32,
    },
    /// The temperature is not a number from 0 on.
    #[error("the temperature {0} is not a number from 0 on: 0 is greedy, 1 is the model's own")]
    Temperature(f64),
    /// The reply did not come in time.
    #[error(
        "{url} sent no whole reply in {seconds} s: if it is at work and not stuck, give it more \
         (`with_timeout`)", seconds = .limit.as_secs_f64()
    )]
    TimedOut {
        /// Where.
        url: String,
        /// The limit.
        limit: Duration,
    },
    /// The reply is too long.
    #[error(
        "{url} sent more than {limit} bytes: allow fewer tokens, or more bytes (`with_max_reply`)"
    )]
    TooLarge {
        /// Where.
        url: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// The server took the calls out of the text, where the agent looks for them.
    #[error(
        "{url} took a tool call out of the reply's text: start the server without a tool parser (vLLM: \
         without --enable-auto-tool-choice)"
    )]
    ToolCallTaken {
        /// Where.
        url: String,
    },
    /// Status 401 or 403.
    #[error(
        "{url} does not let us in ({status}): {message}; give its API key (`with_key_from_env`)"
    )]
    Unauthorized {
        /// Where.
        url: String,
        /// The status.
        status: u16,
        /// What the server said.
        message: String,
    },
    /// The sink refused text, for instance because the run was called off.
    #[error("the reply could not be written")]
    Write(#[from] std::fmt::Error),
}

impl OpenAiError {
    /// How a run ends by this error: as `openai_bad_request` by [`OpenAiError::BadRequest`], else as
    /// an `exception`. For [`Session::with_abort`](eva_core::Session::with_abort) and
    /// [`Setup::abort`](crate::evaluate::Setup::abort).
    #[must_use]
    pub const fn abort(&self) -> Abort {
        match self {
            Self::BadRequest { .. } => Abort::BadRequest,
            _ => Abort::Exception,
        }
    }

    /// The same after so many tries.
    pub(super) fn after(mut self, count: u32) -> Self {
        if let Self::Connection { tries, .. } | Self::Status { tries, .. } = &mut self {
            *tries = count;
        }
        self
    }
}

const fn advice(status: u16) -> &'static str {
    match status {
        404 => "does the address end in /v1, and does the server have this model?",
        413 => "send less at once: fewer or smaller frames, or JPEG",
        429 => "ask for less at once, or try longer (`with_retries`)",
        _ => "look at the server's log",
    }
}

//! Requests, and when they are tried again: [`Http`].

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use eva_core::Usage;
use reqwest::blocking::{Client, Request, RequestBuilder, Response};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};

use super::response::{self, Output, Problem};
use super::retry::{Pauses, retry_after};
use super::{OpenAiConfig, OpenAiError};
use crate::web::{self, innermost};

/// Most characters of a server's message in an error.
const LONGEST_MESSAGE: usize = 500;

/// How often a caller is asked during a pause whether it still wants the reply.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// A client for one server.
pub(super) struct Http {
    pub(super) config: OpenAiConfig,
    client: Client,
}

/// Why a try failed, and whether another may help.
struct Failure {
    error: OpenAiError,
    again: Again,
}

enum Again {
    Never,
    /// After a pause, at least as long as the server asks for.
    After(Option<Duration>),
}

impl Failure {
    const fn last(error: OpenAiError) -> Self {
        Self {
            error,
            again: Again::Never,
        }
    }
}

impl Http {
    pub(super) fn new(config: OpenAiConfig) -> Result<Self, OpenAiError> {
        let limit = config.connect_timeout;
        let client = web::client(&config.url, |builder| {
            // Each request has its own limit.
            builder.connect_timeout(limit).timeout(None)
        });
        let client = client.map_err(OpenAiError::Client)?;
        Ok(Self { config, client })
    }

    /// Asks for a reply.
    pub(super) fn chat(
        &self,
        body: Vec<u8>,
        output: &mut Output<'_>,
    ) -> Result<Usage, OpenAiError> {
        let url = self.config.at("chat/completions");
        let request = self.client.post(&url).body(body);
        let request = request.header(CONTENT_TYPE, "application/json");
        self.tried(&url, request, output, response::read)
    }

    /// Asks for the name of the server's first model.
    pub(super) fn first_model(&self) -> Result<String, OpenAiError> {
        let url = self.config.at("models");
        let limit = self.config.max_reply;
        let mut nothing = String::new();
        let mut output = Output::new(&mut nothing, false, limit);
        let request = self.client.get(&url);
        let found = self.tried(&url, request, &mut output, |response, _| {
            response::first_model(response, limit)
        });
        match found {
            Ok(Some(model)) => Ok(model),
            Ok(None) => Err(OpenAiError::NoModel { url }),
            Err(OpenAiError::Status {
                status: 404 | 405, ..
            }) => Err(OpenAiError::NoModel { url }),
            Err(error) => Err(error),
        }
    }

    /// Sends `request` and reads its reply, again and again if need be.
    fn tried<T>(
        &self,
        url: &str,
        request: RequestBuilder,
        output: &mut Output<'_>,
        read: impl Fn(Response, &mut Output<'_>) -> Result<T, Problem>,
    ) -> Result<T, OpenAiError> {
        let request = self.finished(request)?;
        let pauses = Pauses {
            first: self.config.first_pause,
            longest: self.config.longest_pause,
        };
        let mut tries = 0;
        loop {
            tries += 1;
            output.begin();
            let Failure { error, again } = match self.once(url, &request, output, &read) {
                Ok(read) => return Ok(read),
                Err(failure) => failure,
            };
            let error = error.after(tries);
            let Again::After(asked) = again else {
                return Err(error);
            };
            if tries > self.config.retries || !output.can_begin_again() {
                return Err(error);
            }
            let pause = pauses.after(tries, asked, rand::random_range(0..=1000));
            tracing::warn!(%error, ?pause, "the model server is asked again");
            wait(pause, output)?;
        }
    }

    fn finished(&self, mut request: RequestBuilder) -> Result<Request, OpenAiError> {
        if let Some(key) = &self.config.key {
            request = request.header(AUTHORIZATION, key.header());
        }
        let request = request.timeout(self.config.timeout).build();
        request.map_err(|error| OpenAiError::Client(innermost(&error)))
    }

    fn once<T>(
        &self,
        url: &str,
        request: &Request,
        output: &mut Output<'_>,
        read: impl Fn(Response, &mut Output<'_>) -> Result<T, Problem>,
    ) -> Result<T, Failure> {
        let copy = request.try_clone();
        let copy = copy.ok_or_else(|| {
            Failure::last(OpenAiError::Client(
                "the request can't be sent twice".into(),
            ))
        })?;
        let sent = self.client.execute(copy).map_err(|error| {
            // A connection that can't be made in time is tried again, a reply is not.
            match error.is_timeout() && !error.is_connect() {
                true => Problem::TimedOut,
                false => Problem::Lost(innermost(&error)),
            }
        });
        let response = sent.map_err(|problem| self.failure(url, problem))?;
        if !response.status().is_success() {
            return Err(self.refusal(url, response));
        }
        read(response, output).map_err(|problem| self.failure(url, problem))
    }

    /// Another status than success.
    fn refusal(&self, url: &str, response: Response) -> Failure {
        let status = response.status();
        let location = response.headers().get(LOCATION);
        if let Some(location) = location.filter(|_| status.is_redirection()) {
            let location = String::from_utf8_lossy(location.as_bytes());
            return Failure::last(OpenAiError::Redirect {
                url: url.to_owned(),
                location: self.shown(&location),
            });
        }
        let asked = retry_after(response.headers(), SystemTime::now());
        self.status(url, status.as_u16(), &response::message(response), asked)
    }

    fn status(&self, url: &str, status: u16, message: &str, asked: Option<Duration>) -> Failure {
        let (url, message) = (url.to_owned(), self.shown(message));
        match status {
            400 => Failure::last(OpenAiError::BadRequest { url, message }),
            401 | 403 => Failure::last(OpenAiError::Unauthorized {
                url,
                status,
                message,
            }),
            _ => Failure {
                error: OpenAiError::Status {
                    url,
                    status,
                    message,
                    tries: 1,
                },
                again: match status {
                    429 | 500..=599 => Again::After(asked),
                    _ => Again::Never,
                },
            },
        }
    }

    fn failure(&self, url: &str, problem: Problem) -> Failure {
        let limit = self.config.timeout;
        let owned = url.to_owned();
        Failure::last(match problem {
            Problem::Lost(why) => {
                return Failure {
                    error: OpenAiError::Connection {
                        url: owned,
                        why: self.shown(&why),
                        tries: 1,
                    },
                    again: Again::After(None),
                };
            }
            Problem::Server(Some(status), message) if status >= 400 => {
                return self.status(url, status, &message, None);
            }
            Problem::Server(_, message) => OpenAiError::Reply {
                url: owned,
                message: self.shown(&message),
            },
            Problem::Malformed(why, found) => OpenAiError::Malformed {
                url: owned,
                why: match self.shown(&found) {
                    found if found.is_empty() => why,
                    found => format!("{why}: `{found}`"),
                },
            },
            Problem::NoChoice => OpenAiError::NoChoice { url: owned },
            Problem::TimedOut => OpenAiError::TimedOut { url: owned, limit },
            Problem::TooLarge => OpenAiError::TooLarge {
                url: owned,
                limit: self.config.max_reply,
            },
            Problem::ToolCallTaken => OpenAiError::ToolCallTaken { url: owned },
            Problem::Write(error) => OpenAiError::Write(error),
        })
    }

    /// A server's words on one line, without the key, and not too many of them.
    fn shown(&self, text: &str) -> String {
        // The key first: of one that is cut in two, a part would stay.
        let text = self.config.hide_key(text);
        let words: Vec<&str> = text.split_whitespace().collect();
        let text = words.join(" ");
        match text.char_indices().nth(LONGEST_MESSAGE) {
            Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
            None => text,
        }
    }
}

/// Waits, unless the caller does not want the reply any more.
fn wait(pause: Duration, output: &mut Output<'_>) -> Result<(), OpenAiError> {
    let began = Instant::now();
    loop {
        output.is_wanted()?;
        let left = pause.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(ASK_EVERY));
    }
}

//! The hub's two kinds of addresses, and who may see the token: [`Http`].

use std::io::Read as _;
use std::thread;
use std::time::Duration;

use reqwest::blocking::{Client, Response};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, ETAG, RANGE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::files::is_safe;
use super::headers::{next, number, tag};
use super::name::is_commit;
use super::{Hub, HubError, HubModel, refusal};
use crate::web::{self, Secret, innermost};

/// Most redirects of one request.
const HOPS: usize = 10;
/// Most bytes of a list of files.
const LONGEST_LISTING: u64 = 64 << 20;
/// Most characters of a hub's message in an error.
const LONGEST_MESSAGE: usize = 300;
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A client for one hub.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    pub(super) endpoint: Url,
    token: Option<Secret>,
    tries: u32,
    first_pause: Duration,
}

/// What a repository holds at a commit.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) revision: String,
    pub(super) files: Vec<String>,
}

/// What the hub says of a file before it is fetched.
#[derive(Debug)]
pub(super) struct Remote {
    /// The hash of its contents, of whatever kind: SHA-256 for weights.
    pub(super) hash: String,
    /// Bytes.
    pub(super) size: u64,
}

/// Why a try failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another may help.
    Again(String),
    /// No other will.
    Last(HubError),
}

impl Http {
    pub(super) fn new(hub: &Hub) -> Result<Self, HubError> {
        // The limit is that of each read, not of a whole file.
        let limits = |builder: reqwest::blocking::ClientBuilder| {
            builder.connect_timeout(hub.timeout).timeout(hub.timeout)
        };
        Ok(Self {
            client: web::client(&hub.endpoint, limits).map_err(HubError::Client)?,
            endpoint: hub.endpoint.clone(),
            token: hub.token.clone(),
            tries: hub.tries,
            first_pause: hub.first_pause,
        })
    }

    /// The commit that a revision is at, and its files.
    pub(super) fn listing(&self, model: &HubModel) -> Result<Listing, HubError> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let parts = [
            "api",
            "models",
            model.owner(),
            model.name(),
            "revision",
            model.revision(),
        ];
        let url = self.at(&parts);
        let text = self.tried(model, "the list of files", || {
            let response = self.follow(Method::GET, url.clone(), None)?;
            if !response.status().is_success() {
                return Err(refusal::of(self, model, None, response));
            }
            let mut text = Vec::new();
            let read = response.take(LONGEST_LISTING).read_to_end(&mut text);
            read.map_err(|error| Failure::Again(innermost(&error)))?;
            Ok(text)
        })?;
        let malformed = |why: String| HubError::Malformed {
            model: model.to_string(),
            why,
        };
        let answer: Answer =
            serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        if !is_commit(&answer.sha) {
            return Err(malformed("its `sha` is not a commit".to_owned()));
        }
        let names = answer.siblings.into_iter().map(|file| file.rfilename);
        let files: Vec<String> = names.collect();
        match files.iter().find(|name| !is_safe(name)) {
            Some(name) => Err(HubError::UnsafeName {
                model: model.to_string(),
                name: name.clone(),
            }),
            None => Ok(Listing {
                revision: answer.sha.to_ascii_lowercase(),
                files,
            }),
        }
    }

    /// What the hub says of a file.
    pub(super) fn look(
        &self,
        model: &HubModel,
        revision: &str,
        file: &str,
    ) -> Result<Remote, HubError> {
        let first = self.resolved(model, revision, file);
        self.tried(model, file, || {
            let mut url = first.clone();
            let (mut hash, mut size) = (None, None);
            for _ in 0..HOPS {
                let response = self.once(Method::HEAD, &url, None)?;
                // The hub's own word about a file that it keeps elsewhere: it counts for more than
                // what is said there.
                hash = hash.or_else(|| tag(response.headers(), "x-linked-etag"));
                size = size.or_else(|| number(response.headers(), "x-linked-size"));
                if response.status().is_redirection() {
                    if hash.is_some() && size.is_some() {
                        break;
                    }
                    url = next(&url, &response).map_err(Failure::Again)?;
                    continue;
                }
                if !response.status().is_success() {
                    return Err(refusal::of(self, model, Some(file), response));
                }
                hash = hash.or_else(|| tag(response.headers(), ETAG.as_str()));
                size = size.or_else(|| number(response.headers(), CONTENT_LENGTH.as_str()));
                break;
            }
            match (hash, size) {
                (Some(hash), Some(size)) => Ok(Remote { hash, size }),
                _ => Err(Failure::Last(HubError::Malformed {
                    model: model.to_string(),
                    why: format!("{file} has no size or no usable ETag"),
                })),
            }
        })
    }

    /// A file's bytes from a place on: the whole file (200), the rest of it (206), or nothing that
    /// can be used (416).
    pub(super) fn open(
        &self,
        model: &HubModel,
        revision: &str,
        file: &str,
        from: u64,
    ) -> Result<Response, Failure> {
        let url = self.resolved(model, revision, file);
        let response = self.follow(Method::GET, url, Some(from).filter(|from| *from > 0))?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(response)
            }
            _ => Err(refusal::of(self, model, Some(file), response)),
        }
    }

    /// Tries until it helps, or often enough.
    fn tried<T>(
        &self,
        model: &HubModel,
        file: &str,
        mut once: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        let mut tries = 0;
        loop {
            match once() {
                Ok(made) => return Ok(made),
                Err(failure) => self.again(model, file, failure, &mut tries)?,
            }
        }
    }

    /// Counts a failure, and waits if another try may follow.
    pub(super) fn again(
        &self,
        model: &HubModel,
        file: &str,
        failure: Failure,
        tries: &mut u32,
    ) -> Result<(), HubError> {
        let why = match failure {
            Failure::Again(why) => self.shown(&why),
            Failure::Last(error) => return Err(error),
        };
        *tries += 1;
        if *tries >= self.tries {
            return Err(HubError::Interrupted {
                model: model.to_string(),
                file: file.to_owned(),
                why,
                tries: *tries,
            });
        }
        let pause = pause(self.first_pause, *tries);
        tracing::warn!(%model, file, why, ?pause, "the hub is asked again");
        thread::sleep(pause);
        Ok(())
    }

    fn resolved(&self, model: &HubModel, revision: &str, file: &str) -> Url {
        let mut parts = vec![model.owner(), model.name(), "resolve", revision];
        parts.extend(file.split('/'));
        self.at(&parts)
    }

    /// An address below the endpoint's.
    pub(super) fn at(&self, parts: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        // Each part is escaped, a slash in it too.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    /// One request, and those that it leads to.
    fn follow(&self, method: Method, mut url: Url, from: Option<u64>) -> Result<Response, Failure> {
        for _ in 0..HOPS {
            let response = self.once(method.clone(), &url, from)?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            url = next(&url, &response).map_err(Failure::Again)?;
        }
        Err(Failure::Again(format!("more than {HOPS} redirects")))
    }

    /// One request. Redirects are not followed: each of them is another host's request.
    fn once(&self, method: Method, url: &Url, from: Option<u64>) -> Result<Response, Failure> {
        // A packed answer would have another length than the file.
        let request = self.client.request(method, url.clone());
        let mut request = request.header(ACCEPT_ENCODING, "identity");
        if let Some(token) = &self.token
            && self.may_see_token(url)
        {
            request = request.header(AUTHORIZATION, token.header());
        }
        if let Some(from) = from {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let sent = request.send();
        sent.map_err(|error| Failure::Again(innermost(&error)))
    }

    /// Only the hub itself, and not where others can listen.
    fn may_see_token(&self, url: &Url) -> bool {
        let safe = url.scheme() == "https" || web::is_loopback(url.host_str().unwrap_or_default());
        safe && url.origin() == self.endpoint.origin()
    }

    /// A server's words on one line, without the token, and not too many of them.
    pub(super) fn shown(&self, text: &str) -> String {
        let text = match &self.token {
            Some(token) => token.hide(text),
            None => text.to_owned(),
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        words.join(" ").chars().take(LONGEST_MESSAGE).collect()
    }
}

/// The pause after try number `tried` (from 1).
fn pause(first: Duration, tried: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(tried.saturating_sub(1));
    first.saturating_mul(doubled).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn pauses_double_with_each_try_up_to_the_longest_whatever_the_first_is() {
        let half = Duration::from_millis(500);
        let grown: Vec<u128> = (1..=8)
            .map(|tried| pause(half, tried).as_millis())
            .collect();
        assert_eq!(grown, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        for tried in [1, 2, 3, u32::MAX] {
            assert_eq!(pause(Duration::MAX, tried), LONGEST_PAUSE);
            assert_eq!(pause(Duration::ZERO, tried), Duration::ZERO);
        }
    }
}

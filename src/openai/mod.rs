//! A model on another machine, behind the OpenAI-compatible chat API: [`OpenAi`].
//!
//! vLLM, SGLang, llama.cpp's server, `transformers serve` and hosted services speak it. The
//! conversation is sent with exactly the messages that the published client sends: system message
//! and question as plain text, the frames of a call in a message of role `tool` whose content is a
//! list of texts and pictures.
//!
//! ```no_run
//! use eva::openai::OpenAiConfig;
//! use eva::world::{Kind, World, WorldSource};
//! use eva::Session;
//!
//! let world = World::new(1);
//! let question = world.question(Kind::Find, 1).text;
//! let model = OpenAiConfig::new("http://127.0.0.1:8000/v1")?.with_model("eva-7b").open()?;
//! let mut session = Session::new(WorldSource::new(world.into()), model)
//!     .with_abort(|error| error.abort());
//! println!("{:?}", session.ask(&question)?.answer());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is tried again
//!
//! A connection that fails or breaks, and the statuses 429 and 5xx, are tried again after a pause
//! that grows, or that the server asks for (`Retry-After`). What was written to the reply can't be
//! taken back, so the two ways of reading a reply differ:
//!
//! - Whole, the default: the reply is written once it is complete, and a connection that breaks at
//!   any byte is tried again. This is for evaluations.
//! - Streamed ([`OpenAiConfig::with_stream`]): text is written as it comes. Once some was written, a
//!   connection that breaks is an error, and what was written is the partial message. This is for
//!   display, and it lets a session's cancellation and deadline act in the middle of a reply.
//!
//! A request that takes longer than [`OpenAiConfig::with_timeout`] is not tried again: that time is
//! what the caller was ready to wait.
//!
//! # Secrets
//!
//! The key is read from an environment variable and sent to the given address alone: redirects are
//! reported, not followed. It is in no log, no error (also when the server repeats it) and no
//! `Debug` output.
//!
//! # Threads
//!
//! Calls block. Inside an async runtime, call them where blocking is allowed, for instance in
//! `tokio::task::spawn_blocking`; this includes opening and dropping an [`OpenAi`].

mod batch;
mod config;
mod error;
mod http;
mod image;
mod request;
mod response;
mod retry;
mod sse;

use std::fmt;
use std::sync::{Arc, OnceLock};

use eva_core::{Continuation, Message, Pixels, Policy, Usage};

pub use config::{Images, OpenAiConfig, ToolRole, UnknownImages, UnknownToolRole};
pub use error::OpenAiError;
use http::Http;
use image::ImageUrls;
use response::Output;

/// A [`Policy`] whose model runs on a server. Made by [`OpenAiConfig::open`].
///
/// A clone shares the connections and the model's name: give one to each worker.
#[derive(Clone)]
pub struct OpenAi {
    shared: Arc<Shared>,
    /// Pictures of the last conversation, encoded.
    images: ImageUrls,
}

/// What all clones have in common.
struct Shared {
    http: Http,
    /// The first of the server's models, once it was asked for it.
    model: OnceLock<String>,
}

impl OpenAi {
    fn new(config: OpenAiConfig) -> Result<Self, OpenAiError> {
        Ok(Self {
            images: ImageUrls::new(config.images.clone())?,
            shared: Arc::new(Shared {
                http: Http::new(config)?,
                model: OnceLock::new(),
            }),
        })
    }

    /// The model that is asked: the one of [`OpenAiConfig::with_model`], else the first that the
    /// server lists, which is asked for it once.
    ///
    /// # Errors
    /// [`OpenAiError`] when the server can't be asked, or lists none.
    pub fn model(&self) -> Result<&str, OpenAiError> {
        let Shared { http, model } = &*self.shared;
        let known = http.config.model.as_ref().or(model.get());
        if let Some(known) = known {
            return Ok(known);
        }
        let first = http.first_model()?;
        Ok(model.get_or_init(|| first))
    }
}

impl<P: Pixels> Policy<P> for OpenAi {
    type Error = OpenAiError;

    fn generate(
        &mut self,
        conversation: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, OpenAiError> {
        let urls = self.images.of(conversation)?;
        let http = &self.shared.http;
        let config = &http.config;
        let body = request::body(config, self.model()?, conversation, &urls)?;
        let mut output = Output::new(reply, config.stream, config.max_reply);
        http.chat(body, &mut output)
    }

    /// Asks for several replies at the same time ([`OpenAiConfig::with_concurrency`]), so that the server
    /// can batch them. Each is written once it is complete, also where streams are asked for.
    fn generate_batch(
        &mut self,
        turns: &mut [Continuation<'_, P>],
        done: &mut dyn FnMut(usize, Result<Usage, OpenAiError>),
    ) {
        let conversations = turns.iter().map(|turn| turn.conversation);
        let urls = self.images.of_all(conversations);
        let mut bodies = Vec::new();
        for (place, (turn, urls)) in turns.iter().zip(urls).enumerate() {
            let config = &self.shared.http.config;
            let body = urls
                .and_then(|urls| request::body(config, self.model()?, turn.conversation, &urls));
            match body {
                Ok(body) => bodies.push((place, body)),
                Err(error) => done(place, Err(error)),
            }
        }
        batch::ask(&self.shared.http, bodies, &mut |place, text, result| {
            let written = match turns.get_mut(place) {
                Some(turn) => turn.reply.write_str(&text),
                None => Ok(()),
            };
            done(place, result.and_then(|usage| Ok(written.map(|()| usage)?)));
        });
    }
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAi")
            .field("config", &self.shared.http.config)
            .finish_non_exhaustive()
    }
}

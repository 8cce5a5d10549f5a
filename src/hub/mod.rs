//! Models from a hub of the kind of Hugging Face's: [`Hub`].
//!
//! ```no_run
//! use eva::burn::{BurnPolicy, DeviceChoice};
//! use eva::hub::Hub;
//!
//! let name = "OWNER/NAME".parse()?;
//! let model = Hub::from_env()?.fetch(&name, &mut |progress| {
//!     eprintln!("{} of {} bytes", progress.done, progress.size);
//! })?;
//! println!("revision {}", model.revision);
//! let policy = BurnPolicy::load(&model.dir, &DeviceChoice::Cpu.open()?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where files go
//!
//! Into the cache that the Python tools have, in its layout, so that what one of them downloaded is
//! found by the other: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else `~/.cache/huggingface/hub`. Only
//! what a model directory needs is fetched: configurations, tokenizer, template, and the
//! safetensors that belong together. A revision is resolved once, to a commit, and all files are of
//! that commit.
//!
//! A file is complete or not there: it grows as `.incomplete`, its size and (where the hub tells it,
//! as for weights) its SHA-256 are compared, and then it is renamed. A download that breaks goes on
//! at the byte where it broke, in this process or the next. Processes that want the same file wait for
//! each other by a lock, the Python tools' too, unless the one that has it brings nothing any more
//! ([`Hub::with_patience`]).
//!
//! # Environment
//!
//! `HF_ENDPOINT` (another hub), `HF_TOKEN` or the file that `huggingface-cli login` writes
//! (`HF_TOKEN_PATH`), `HF_HUB_DISABLE_IMPLICIT_TOKEN`, and `HF_HUB_OFFLINE`, with which the network is
//! not touched.
//!
//! The token is sent to the endpoint's own host alone, over TLS or to this machine: files are often
//! kept at another host, to which the hub redirects, and that one does not get it. It is in no error,
//! log or `Debug` output.
//!
//! # Why not the crate `hf-hub`
//!
//! It brings 284 crates, most of them for a storage protocol of its own, for what are two requests a
//! file over the HTTP client that [`crate::openai`] has anyway.

mod cache;
mod download;
mod error;
mod files;
mod headers;
mod http;
mod lock;
mod name;
mod partial;
mod refusal;
mod settings;

pub use error::HubError;
pub use name::HubModel;

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;

use crate::web::Secret;
use cache::Repository;
use download::Download;
use http::Http;

/// A hub and the cache of what comes from it.
#[derive(Debug, Clone)]
pub struct Hub {
    endpoint: Url,
    cache: PathBuf,
    token: Option<Secret>,
    offline: bool,
    tries: u32,
    first_pause: Duration,
    timeout: Duration,
    patience: Duration,
}

/// A model's files on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The directory, as any other model directory.
    pub dir: PathBuf,
    /// The commit that it is of.
    pub revision: String,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file at hand.
    pub file: &'a str,
    /// Bytes that are there, of all files that were missing.
    pub done: u64,
    /// Bytes of all files that were missing.
    pub size: u64,
}

impl Hub {
    /// The hub and the cache that the environment names, as the Python tools read it.
    ///
    /// # Errors
    /// [`HubError::Endpoint`], [`HubError::NoCache`] or [`HubError::Token`] when it names something
    /// unusable.
    pub fn from_env() -> Result<Self, HubError> {
        settings::read(&|name| std::env::var_os(name))
    }

    /// A hub at an address, with a folder for what comes from it, and no token.
    ///
    /// # Errors
    /// [`HubError::Endpoint`] when the address is not one of a web server.
    pub fn new(endpoint: &str, cache: impl Into<PathBuf>) -> Result<Self, HubError> {
        Ok(Self {
            endpoint: settings::endpoint(endpoint)?,
            cache: cache.into(),
            token: None,
            offline: false,
            tries: 4,
            first_pause: Duration::from_millis(500),
            timeout: Duration::from_secs(30),
            patience: Duration::from_secs(600),
        })
    }

    /// Shows this token to the hub.
    ///
    /// # Errors
    /// [`HubError::Token`] when no HTTP header can hold it.
    pub fn with_token(mut self, token: &str) -> Result<Self, HubError> {
        self.token = Some(settings::secret(token)?);
        Ok(self)
    }

    /// Uses what is in the cache, and nothing else.
    #[must_use]
    pub fn with_offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// How often a request is made before its failure counts (default 4); one that brought bytes is
    /// not counted. The first pause between them (default half a second) doubles from one to the next.
    #[must_use]
    pub fn with_tries(mut self, tries: u32, first_pause: Duration) -> Self {
        self.tries = tries.max(1);
        self.first_pause = first_pause;
        self
    }

    /// How long the hub may be silent (default 30 seconds).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long another process that fetches the same file may bring nothing of it (default 10
    /// minutes). One that brings bytes is waited for as long as it takes.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// All that a model directory needs, from the cache or from the hub.
    ///
    /// - progress: is told while files come, if any do
    ///
    /// # Errors
    /// [`HubError`] names the model or the file and the remedy.
    pub fn fetch(
        &self,
        model: &HubModel,
        progress: &mut dyn FnMut(&Progress<'_>),
    ) -> Result<Snapshot, HubError> {
        self.bring(model, true, progress)
    }

    /// The configuration files alone, a few kilobytes.
    ///
    /// # Errors
    /// [`HubError`] names the model or the file and the remedy.
    pub fn fetch_config(&self, model: &HubModel) -> Result<Snapshot, HubError> {
        self.bring(model, false, &mut |_| {})
    }

    fn bring(
        &self,
        model: &HubModel,
        weights: bool,
        progress: &mut dyn FnMut(&Progress<'_>),
    ) -> Result<Snapshot, HubError> {
        let repository = Repository::new(&self.cache, model);
        if self.offline {
            return repository.offline(model, weights);
        }
        let http = Http::new(self)?;
        let listing = http.listing(model)?;
        let snapshot = repository.snapshot(&listing.revision);
        let download = Download {
            http: &http,
            model,
            repository: &repository,
            revision: &listing.revision,
            patience: self.patience,
        };
        let small = match weights {
            true => files::small(&listing.files),
            false => files::configurations(&listing.files),
        };
        download.fetch(&small, progress)?;
        if weights {
            let chosen = match files::weights(&listing.files) {
                files::Weights::Files(names) => names,
                files::Weights::Index(index) => {
                    download.fetch(&[index], progress)?;
                    cache::named_by(&snapshot.join(index))?
                }
                files::Weights::None => {
                    return Err(HubError::NoWeights {
                        model: model.to_string(),
                    });
                }
            };
            let chosen: Vec<&str> = chosen.iter().map(String::as_str).collect();
            download.fetch(&chosen, progress)?;
        }
        repository.name(model, &listing.revision)?;
        Ok(Snapshot {
            dir: snapshot,
            revision: listing.revision,
        })
    }

    /// Where files are kept.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
    }
}

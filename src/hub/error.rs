//! What can go wrong with a hub: [`HubError`].

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a model's files are not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// There is no HTTP client.
    #[error("cannot make an HTTP client: {0}; look at the system's certificates and limits")]
    Client(String),
    /// The address of the hub is none.
    #[error(
        "{address} is not the address of a hub: give one such as https://huggingface.co, in HF_ENDPOINT"
    )]
    Endpoint {
        /// What was given, unless it may hold a password.
        address: String,
    },
    /// A file came with other content than the hub says it has.
    #[error(
        "{file} of {model} came damaged: its SHA-256 is {found}, not {expected}; it was removed, fetch it again"
    )]
    Damaged {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// What it should be.
        expected: String,
        /// What came.
        found: String,
    },
    /// The hub keeps the model from those who have not agreed to its terms.
    #[error(
        "{model} is gated ({status}): agree to its terms at {page}, and set HF_TOKEN to a token of the account that did"
    )]
    Gated {
        /// The model.
        model: String,
        /// Its page.
        page: String,
        /// The HTTP status.
        status: u16,
    },
    /// The connection could not be made, or broke again and again.
    #[error(
        "{file} of {model} is not complete after {tries} tries: {why}; what came is kept: fetch it again to go on there, or set HF_HUB_OFFLINE=1 to use what is in the cache"
    )]
    Interrupted {
        /// The model.
        model: String,
        /// What was asked for.
        file: String,
        /// What happened.
        why: String,
        /// How often it was tried.
        tries: u32,
    },
    /// A file or folder of the cache cannot be read or written.
    #[error("cannot access {path}: {source}; name another folder with HF_HOME, or look at its permissions", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process holds a file's lock and brings nothing.
    #[error(
        "another process holds {path} and has brought nothing for {patience:?}: end it (`fuser {path}` tells which it is), or let it end, and fetch again", path = .path.display()
    )]
    Locked {
        /// The lock.
        path: PathBuf,
        /// How long it was waited.
        patience: Duration,
    },
    /// The hub answered with something that is not understood.
    #[error(
        "the hub's answer about {model} is not understood: {why}; is HF_ENDPOINT the address of a hub?"
    )]
    Malformed {
        /// The model.
        model: String,
        /// What is wrong.
        why: String,
    },
    /// A name is not one of a model.
    #[error("`{name}` is not the name of a model: write OWNER/NAME, or OWNER/NAME@REVISION")]
    Name {
        /// What was given.
        name: String,
    },
    /// The environment names no place for files.
    #[error("there is no home directory to keep models in: name a folder with HF_HOME")]
    NoCache,
    /// The disk is full.
    #[error("no space for {path} ({needed} bytes): make room, or name a folder on another disk with HF_HOME; what came is kept", path = .path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// Bytes that it has when it is complete.
        needed: u64,
    },
    /// The repository has no weights that can be loaded.
    #[error(
        "{model} has neither model.safetensors nor model.safetensors.index.json: other forms of weights are not read"
    )]
    NoWeights {
        /// The model.
        model: String,
    },
    /// The cache does not hold all of the model, and the network may not be asked.
    #[error("{model} is not complete in {cache}: {missing} is missing; unset HF_HUB_OFFLINE to fetch it", cache = .cache.display())]
    NotCached {
        /// The model.
        model: String,
        /// The folder of the cache.
        cache: PathBuf,
        /// What is not there.
        missing: String,
    },
    /// The hub knows no such model, revision or file.
    #[error(
        "{what} does not exist on {endpoint} (or is private): check its name, and HF_TOKEN if it is not public"
    )]
    NotFound {
        /// What was asked for.
        what: String,
        /// The hub.
        endpoint: String,
    },
    /// A file has another size than the hub says it has.
    #[error("{file} of {model} has {found} bytes, not {expected}; it was removed, fetch it again")]
    Size {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// What it should be.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// The hub refused, and it will not help to ask again.
    #[error("the hub refused {file} of {model} with status {status}: {message}")]
    Status {
        /// The model.
        model: String,
        /// What was asked for.
        file: String,
        /// The HTTP status.
        status: u16,
        /// What the hub said.
        message: String,
    },
    /// The token cannot be used.
    #[error("the token {0}; set HF_TOKEN anew, or unset it for public models")]
    Token(&'static str),
    /// The hub does not accept the token, or asks for one.
    #[error(
        "{endpoint} asks for another token to show {model} ({status}): set HF_TOKEN to a valid one that may read it, or unset it for public models"
    )]
    Unauthorized {
        /// The model.
        model: String,
        /// The hub.
        endpoint: String,
        /// The HTTP status.
        status: u16,
    },
    /// A name in the repository would lead out of its folder.
    #[error(
        "{model} has a file named {name:?}, which could lead out of its folder: nothing was written"
    )]
    UnsafeName {
        /// The model.
        model: String,
        /// The name.
        name: String,
    },
}

impl HubError {
    /// From a failure to read or write a file.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

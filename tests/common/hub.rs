//! A hub on loopback: it imitates the layout of Hugging Face's, with weights kept at another host,
//! and fails as it is told to.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri, header};
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use sha2::{Digest as _, Sha256};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const MODEL: &str = "some-one/tiny";

/// What can go wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// Answers to GET that break after so many bytes, in turn.
    pub(crate) cuts: Vec<usize>,
    /// The hub gives whole files only.
    pub(crate) no_ranges: bool,
    /// What it says of each file's size is this much off.
    pub(crate) size_off: i64,
    /// The contents that come are others than those that were hashed.
    pub(crate) damaged: bool,
    /// Answers before anything else: status and error code.
    pub(crate) refuse: Vec<(u16, &'static str)>,
    /// Nothing comes after so many bytes.
    pub(crate) stall: Option<usize>,
    /// How long each GET takes to begin.
    pub(crate) slow: Duration,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `hub` or `storage`.
    pub(crate) host: &'static str,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    pub(crate) range: Option<String>,
}

struct Shared {
    host: &'static str,
    /// Where weights are.
    storage: Option<String>,
    files: BTreeMap<String, Vec<u8>>,
    /// Names that are listed besides.
    listed: Vec<String>,
    faults: Arc<Mutex<Faults>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A running hub. It ends when it is dropped.
pub(crate) struct FakeHub {
    port: u16,
    faults: Arc<Mutex<Faults>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    _runtime: tokio::runtime::Runtime,
}

impl FakeHub {
    pub(crate) fn new(files: &[(&str, Vec<u8>)]) -> Self {
        Self::listing(files, &[])
    }

    /// One that lists names that it does not have, too.
    pub(crate) fn listing(files: &[(&str, Vec<u8>)], listed: &[&str]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let files: BTreeMap<String, Vec<u8>> = files
            .iter()
            .map(|(name, content)| ((*name).to_owned(), content.clone()))
            .collect();
        let (faults, asked) = (Arc::default(), Arc::default());
        let serve = |host, storage, listed: Vec<String>| {
            let shared = Shared {
                host,
                storage,
                files: files.clone(),
                listed,
                faults: Arc::clone(&faults),
                asked: Arc::clone(&asked),
            };
            let listener = runtime
                .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
                .expect("a free port");
            let port = listener.local_addr().expect("it is bound").port();
            let app = Router::new().fallback(answer).with_state(Arc::new(shared));
            runtime.spawn(async move { axum::serve(listener, app).await });
            port
        };
        let storage = serve("storage", None, Vec::new());
        let listed = listed.iter().map(|name| (*name).to_owned()).collect();
        let elsewhere = Some(format!("http://127.0.0.1:{storage}"));
        let port = serve("hub", elsewhere, listed);
        Self {
            port,
            faults,
            asked,
            _runtime: runtime,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn fail(&self, faults: Faults) {
        *self.faults.lock().expect("no panic") = faults;
    }

    /// All requests since this was last asked.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }
}

/// A file's hash as the hub names it: weights are kept by their SHA-256.
pub(crate) fn hash(name: &str, content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    match is_large(name) {
        true => hex,
        // Any other hash, of another length.
        false => hex[..40].to_owned(),
    }
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name == "tokenizer.json"
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let text = |name| {
        let value: Option<&header::HeaderValue> = headers.get(name);
        value.map(|value| value.to_str().expect("text").to_owned())
    };
    let path = uri.path().to_owned();
    let range = text(header::RANGE);
    shared.asked.lock().expect("no panic").push(Asked {
        host: shared.host,
        method: method.clone(),
        path: path.clone(),
        token: text(header::AUTHORIZATION),
        range: range.clone(),
    });
    let faults = shared.faults.lock().expect("no panic").clone();
    let respond = |status: u16| Response::builder().status(status);
    if shared.host == "hub" && !faults.refuse.is_empty() {
        let mut faults = shared.faults.lock().expect("no panic");
        let (status, code) = faults.refuse.remove(0);
        let response = respond(status).header("x-error-code", code);
        return response.body(Body::from("no")).expect("a response");
    }
    if path.starts_with("/api/") {
        let names = shared.files.keys().chain(&shared.listed);
        let siblings: Vec<_> = names.map(|name| json!({"rfilename": name})).collect();
        let listing = json!({"id": MODEL, "sha": COMMIT, "siblings": siblings}).to_string();
        return respond(200).body(Body::from(listing)).expect("a response");
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some(content) = shared.files.get(name) else {
        let missing = respond(404).header("x-error-code", "EntryNotFound");
        return missing.body(Body::empty()).expect("a response");
    };
    let size = content.len() as i64 + faults.size_off;
    let tag = format!("\"{}\"", hash(name, content));
    if let Some(storage) = &shared.storage
        && is_large(name)
    {
        return respond(302)
            .header(
                header::LOCATION,
                format!("{storage}/signed/{name}?key=secret"),
            )
            .header("x-linked-etag", tag)
            .header("x-linked-size", size)
            .body(Body::empty())
            .expect("a response");
    }
    if method == Method::HEAD {
        let head = respond(200).header(header::ETAG, tag);
        let head = head.header(header::CONTENT_LENGTH, size);
        return head.body(Body::empty()).expect("a response");
    }
    tokio::time::sleep(faults.slow).await;
    let mut content = content.clone();
    if faults.damaged {
        content.iter_mut().for_each(|byte| *byte ^= 1);
    }
    let from = range
        .filter(|_| !faults.no_ranges)
        .and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        })
        .unwrap_or(0usize);
    let status = if from > 0 { 206 } else { 200 };
    let total = content.len();
    let content = content.split_off(from.min(total));
    let response = respond(status)
        .header(header::CONTENT_LENGTH, content.len())
        .header(
            header::CONTENT_RANGE,
            format!("bytes {from}-{}/{total}", total - 1),
        );
    let cut = {
        let mut faults = shared.faults.lock().expect("no panic");
        match faults.cuts.is_empty() {
            true => None,
            false => Some(faults.cuts.remove(0)),
        }
    };
    let Some(end) = cut.or(faults.stall).filter(|end| *end < content.len()) else {
        return response.body(Body::from(content)).expect("a response");
    };
    let piece = stream::iter([Ok(content[..end].to_vec())]);
    let body = if cut.is_some() {
        // The pause lets the piece out before the connection goes.
        let broken = stream::once(async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            Err(io::Error::other("cut"))
        });
        Body::from_stream(piece.chain(broken))
    } else {
        Body::from_stream(piece.chain(stream::pending::<io::Result<Vec<u8>>>()))
    };
    response.body(body).expect("a response")
}

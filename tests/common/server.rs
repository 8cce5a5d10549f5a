//! A server on loopback that answers as it is told to, and keeps what it was asked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

/// One answer of the script.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A status, headers, and a body.
    Full(u16, Vec<(&'static str, String)>, String),
    /// Events, in pieces that are sent one by one, and then the end of the body.
    Events(Vec<String>),
    /// A body of this type that is cut after these pieces: the connection breaks.
    Cut(&'static str, Vec<String>),
    /// Nothing, ever.
    Hang,
    /// Events, and then nothing, ever: the body has no end.
    Stall(Vec<String>),
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// `Null` when the body is no JSON.
    pub(crate) body: Value,
    pub(crate) at: Instant,
}

type Script = Box<dyn FnMut(&Asked) -> Answer + Send>;

struct Shared {
    script: Mutex<Script>,
    asked: Mutex<Vec<Asked>>,
}

/// A running server. It ends when it is dropped.
pub(crate) struct Server {
    port: u16,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    /// A server that gives `answers` in order, and the last one for ever.
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let mut answers: VecDeque<Answer> = answers.into_iter().collect();
        Self::scripted(move |_| match answers.len() {
            0 => panic!("a script needs an answer"),
            1 => answers[0].clone(),
            _ => answers.pop_front().expect("there are several"),
        })
    }

    /// A server whose answers depend on what it is asked.
    pub(crate) fn scripted(script: impl FnMut(&Asked) -> Answer + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            script: Mutex::new(Box::new(script)),
            asked: Mutex::new(Vec::new()),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let app = Router::new()
            .fallback(answer)
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self {
            port,
            shared,
            _runtime: runtime,
        }
    }

    /// The base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("no panic").clone()
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let asked = Asked {
        method,
        path: uri.path().to_owned(),
        headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
        at: Instant::now(),
    };
    let answer = (shared.script.lock().expect("no panic"))(&asked);
    shared.asked.lock().expect("no panic").push(asked);
    let response = |status: u16| Response::builder().status(status);
    match answer {
        Answer::Full(status, headers, body) => {
            let mut response = response(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body))
        }
        Answer::Events(pieces) => {
            let pieces = stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
            response(200)
                .header(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")
                .body(Body::from_stream(pieces))
        }
        Answer::Cut(kind, pieces) => {
            let pieces = pieces.into_iter().map(Ok);
            let broken = [Err(io::Error::other("cut"))];
            // The pause lets the pieces out before the connection goes.
            let pieces = stream::unfold(pieces.chain(broken), |mut pieces| async {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                pieces.next().map(|piece| (piece, pieces))
            });
            response(200)
                .header(header::CONTENT_TYPE, kind)
                .body(Body::from_stream(pieces))
        }
        Answer::Stall(pieces) => {
            let pieces = stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
            response(200)
                .header(header::CONTENT_TYPE, "text/event-stream")
                .body(Body::from_stream(pieces.chain(stream::pending())))
        }
        Answer::Hang => std::future::pending().await,
    }
    .expect("a response")
}

/// A reply as servers write it, with its count of tokens.
pub(crate) fn reply(text: &str) -> Answer {
    let body = json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 7,
            "total_tokens": 107,
            "prompt_tokens_details": {"cached_tokens": 64},
        },
    });
    with_status(200, &body)
}

/// A JSON body with any status.
pub(crate) fn with_status(status: u16, body: &Value) -> Answer {
    let kind = ("content-type", "application/json".to_owned());
    Answer::Full(status, vec![kind], body.to_string())
}

/// A refusal as servers write it.
pub(crate) fn refusal(status: u16, message: &str) -> Answer {
    let code = StatusCode::from_u16(status).expect("a status");
    let body = json!({"error": {"message": message, "type": code.to_string(), "code": status}});
    with_status(status, &body)
}

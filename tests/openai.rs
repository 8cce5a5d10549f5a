//! The remote policy against a real HTTP server on loopback that the test scripts.
#![cfg(feature = "remote")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/server.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod server;

use std::fmt;
use std::io::Cursor;
use std::net::TcpListener;
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use eva::core::mock::SolidSource;
use eva::core::{Abort, Continuation, Message, Part};
use eva::openai::{Images, OpenAi, OpenAiConfig, OpenAiError, ToolRole};
use eva::{Pixels as _, Policy, RgbImage, Role, Session, StopReason, Usage, VideoInfo};
use serde_json::{Value, json};
use server::{Answer, Server, refusal, reply, with_status};

/// A variable that Cargo sets, whose value stands for a secret. It has slashes, which JSON may
/// escape, and nothing else in a request or a reply is like it.
const KEY: &str = "CARGO_MANIFEST_DIR";

const COUNTED: Usage = Usage {
    prompt: 100,
    cached: 64,
    completion: 7,
};

/// Quick tries, so that no test waits for long.
fn config(server: &Server) -> OpenAiConfig {
    OpenAiConfig::new(&server.url())
        .unwrap()
        .with_model("m")
        .with_retries(3)
        .with_pauses(Duration::from_millis(1), Duration::from_millis(5))
}

fn open(server: &Server) -> OpenAi {
    config(server).open().unwrap()
}

/// Asks for a reply to a question without pictures.
fn ask(policy: &mut OpenAi, reply: &mut dyn fmt::Write) -> Result<Usage, OpenAiError> {
    let message = Message::<RgbImage> {
        role: Role::User,
        parts: &[Part::Text("Who?")],
    };
    policy.generate(&[message], reply)
}

/// The reply to that, which must come.
#[track_caller]
fn answer(policy: &mut OpenAi) -> String {
    let mut text = String::new();
    assert_eq!(ask(policy, &mut text).unwrap(), COUNTED);
    text
}

/// The error of that, which must not write anything.
#[track_caller]
fn failure(policy: &mut OpenAi) -> OpenAiError {
    let mut text = String::new();
    let error = ask(policy, &mut text).unwrap_err();
    assert_eq!(text, "");
    error
}

fn piece(text: &str) -> String {
    let chunk = json!({"choices": [{"index": 0, "delta": {"content": text}}]});
    format!("data: {chunk}\r\n\r\n")
}

fn last_pieces() -> [String; 3] {
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 64}}});
    [
        format!("data: {end}\n\n"),
        format!(": a comment\n\ndata: {usage}\n\n"),
        "data: [DONE]\n\n".to_owned(),
    ]
}

fn json_header() -> Vec<(&'static str, String)> {
    vec![("content-type", "application/json".to_owned())]
}

const VIDEO: VideoInfo = VideoInfo {
    duration: 90.0,
    width: 56,
    height: 28,
    fps: 25.0,
};

const CALL: &str = r#"Scan. <tool_call>{"tool": "frame_select", "arguments": {"start_time": 0, "end_time": 80, "nframes": 2, "resize": 1.0}}</tool_call>"#;

/// A session about a red video, whose first reply is a call.
fn two_turns(policy: OpenAi) -> eva::Report<RgbImage> {
    let source = SolidSource::new(VIDEO).with_color([200, 10, 30]);
    let mut session = Session::new(source, policy).with_abort(OpenAiError::abort);
    session.ask(" Which colour? ").unwrap()
}

/// Takes the addresses of pictures out of a request and leaves their number.
fn take_urls(request: &mut Value) -> Vec<String> {
    let mut urls = Vec::new();
    for message in request["messages"].as_array_mut().unwrap() {
        for part in message["content"].as_array_mut().into_iter().flatten() {
            if part["type"] == "image_url" {
                let number = urls.len().into();
                let url = std::mem::replace(&mut part["image_url"]["url"], number);
                urls.push(url.as_str().unwrap().to_owned());
            }
        }
    }
    urls
}

fn read_png(bytes: &[u8]) -> RgbImage {
    let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut rgb).unwrap();
    RgbImage::new(info.width, info.height, rgb).unwrap()
}

#[track_caller]
fn assert_red(picture: &RgbImage) {
    assert_eq!((picture.width(), picture.height()), (56, 28));
    assert_eq!(picture.rgb(), [200, 10, 30].repeat(56 * 28));
}

#[test]
fn a_conversation_is_sent_exactly_as_the_published_client_sends_it() {
    let server = Server::new([reply(CALL), reply("<answer>red</answer>")]);
    let report = two_turns(open(&server));
    assert_eq!(report.answer(), Some("red"));
    assert_eq!(report.trajectory.turns[1].usage, COUNTED);

    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    for request in &asked {
        assert_eq!(request.path, "/v1/chat/completions");
        assert_eq!(request.headers["content-type"], "application/json");
        assert!(!request.headers.contains_key(AUTHORIZATION));
    }
    let system =
        "Use Frame Select Tool to Anlysis the video and generate an answer to the question.";
    let user = "Video Length: 89 seconds. Original video resolution: 28p. Which colour?";
    assert_eq!(
        asked[0].body,
        json!({
            "model": "m",
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": user},
            ],
            "temperature": 0.0,
            "max_tokens": 2048,
            "stream": false,
        })
    );
    let mut second = asked[1].body.clone();
    let urls = take_urls(&mut second);
    assert_eq!(
        second,
        json!({
            "model": "m",
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": user},
                {"role": "assistant", "content": CALL},
                {"role": "tool", "content": [
                    {"type": "text", "text": "<tool_response>Frame 0 at [00:00]: "},
                    {"type": "image_url", "image_url": {"url": 0}},
                    {"type": "text", "text": "\nFrame 1 at [01:20]: "},
                    {"type": "image_url", "image_url": {"url": 1}},
                    {"type": "text", "text": "\nIf more information is needed, call the frame \
                        selection tool again.\n\nQuestion: Which colour?</tool_response>"},
                ]},
            ],
            "temperature": 0.0,
            "max_tokens": 2048,
            "stream": false,
        })
    );
    for url in urls {
        let base64 = url.strip_prefix("data:image/png;base64,").unwrap();
        assert_red(&read_png(&STANDARD.decode(base64).unwrap()));
    }
}

#[test]
fn what_tools_return_is_sent_as_the_users_on_request() {
    let server = Server::new([reply(CALL), reply("<answer>red</answer>")]);
    let policy = config(&server).with_tool_role(ToolRole::User).open();
    two_turns(policy.unwrap());
    let messages = &server.asked()[1].body["messages"];
    assert_eq!(messages[3]["role"], "user");
    assert!(messages[3]["content"].is_array());
}

#[test]
fn pictures_are_files_that_the_server_reads_or_jpegs_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new([reply(CALL), reply("<answer>red</answer>")]);
    let images = Images::Files(dir.path().join("frames"));
    two_turns(config(&server).with_images(images).open().unwrap());
    let urls = take_urls(&mut server.asked()[1].body.clone());
    assert_eq!(urls.len(), 2);
    for url in urls {
        let path = url.strip_prefix("file://").unwrap();
        assert_red(&read_png(&std::fs::read(path).unwrap()));
    }
    // Both frames are the same picture.
    let files = std::fs::read_dir(dir.path().join("frames")).unwrap();
    assert_eq!(files.count(), 1);

    let server = Server::new([reply(CALL), reply("<answer>red</answer>")]);
    let images = Images::Jpeg { quality: 80 };
    two_turns(config(&server).with_images(images).open().unwrap());
    let urls = take_urls(&mut server.asked()[1].body.clone());
    let base64 = urls[0].strip_prefix("data:image/jpeg;base64,").unwrap();
    assert!(STANDARD.decode(base64).unwrap().starts_with(&[0xff, 0xd8]));
}

#[test]
fn sampling_and_length_are_as_asked_for() {
    let server = Server::new([reply("x")]);
    let policy = config(&server).with_temperature(0.7).with_max_tokens(5);
    answer(&mut policy.open().unwrap());
    let body = &server.asked()[0].body;
    assert_eq!(
        (&body["temperature"], &body["max_tokens"]),
        (&json!(0.7), &json!(5))
    );
}

#[test]
fn a_busy_server_is_asked_again_no_sooner_than_it_wants() {
    let busy = Answer::Full(429, vec![("retry-after", "1".to_owned())], String::new());
    let server = Server::new([busy, reply("Here I am.")]);
    let pauses = (Duration::from_millis(1), Duration::from_secs(30));
    let policy = config(&server).with_pauses(pauses.0, pauses.1).open();
    assert_eq!(answer(&mut policy.unwrap()), "Here I am.");
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].at - asked[0].at >= Duration::from_secs(1));
    assert_eq!(asked[0].body, asked[1].body);
}

#[test]
fn a_server_that_fails_now_and_then_is_asked_again() {
    for status in [429, 500, 502, 503, 504] {
        let server = Server::new([refusal(status, "x"), refusal(status, "x"), reply("B")]);
        assert_eq!(answer(&mut open(&server)), "B");
        assert_eq!(server.asked().len(), 3);
    }
}

#[test]
fn a_server_that_fails_for_ever_is_given_up_and_its_words_are_told() {
    let server = Server::new([refusal(500, "out of\nmemory")]);
    let error = failure(&mut open(&server));
    assert!(matches!(
        error,
        OpenAiError::Status {
            status: 500,
            tries: 4,
            ..
        }
    ));
    let said = error.to_string();
    for part in ["/v1/chat/completions", "500", "4 tries", "out of memory"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(server.asked().len(), 4);
    assert_eq!(error.abort(), Abort::Exception);
    let once = config(&server).with_retries(0).open();
    failure(&mut once.unwrap());
    assert_eq!(server.asked().len(), 5);
}

#[test]
fn a_refused_conversation_is_a_bad_request_and_not_tried_again() {
    let server = Server::new([
        reply(CALL),
        refusal(400, "maximum context length is 8 tokens"),
    ]);
    let source = SolidSource::new(VIDEO);
    let mut session = Session::new(source, open(&server)).with_abort(OpenAiError::abort);
    let error = session.ask("Which colour?").unwrap_err();
    assert!(
        error.to_string().contains("maximum context length"),
        "{error}"
    );
    let report = error.into_report().unwrap();
    assert_eq!(report.stop_reason(), &StopReason::OpenaiBadRequest);
    assert_eq!(report.trajectory.turns.len(), 1);
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn other_refusals_are_told_at_once_with_what_to_do() {
    for (status, advice) in [
        (404, "/v1"),
        (413, "JPEG"),
        (422, "log"),
        (401, "key"),
        (403, "key"),
    ] {
        let server = Server::new([refusal(status, "no such thing")]);
        let said = failure(&mut open(&server)).to_string();
        assert!(
            said.contains("no such thing") && said.contains(advice),
            "{said}"
        );
        assert!(said.contains(&status.to_string()), "{said}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[test]
fn a_connection_that_is_cut_in_the_middle_is_tried_again() {
    let cut = || {
        let half = "{\"choices\": [{\"message\": {\"content\": \"Half".to_owned();
        Answer::Cut("application/json", vec![half])
    };
    let server = Server::new([cut(), reply("Whole.")]);
    assert_eq!(answer(&mut open(&server)), "Whole.");
    assert_eq!(server.asked().len(), 2);

    let server = Server::new([cut()]);
    let error = failure(&mut open(&server));
    assert!(
        matches!(error, OpenAiError::Connection { tries: 4, .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("/v1/chat/completions"),
        "{error}"
    );
    // Cut between two bytes of a body that names no length.
    let short = Answer::Full(200, json_header(), "{\"choices\": [".to_owned());
    let server = Server::new([short, reply("Whole.")]);
    assert_eq!(answer(&mut open(&server)), "Whole.");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}/v1");
    let config = OpenAiConfig::new(&url).unwrap().with_retries(1);
    let config = config.with_pauses(Duration::ZERO, Duration::ZERO);
    let error = failure(&mut config.open().unwrap());
    assert!(
        matches!(error, OpenAiError::Connection { tries: 2, .. }),
        "{error:?}"
    );
    let said = error.to_string();
    assert!(said.contains(&url) && said.contains("refused"), "{said}");
}

#[test]
fn a_server_that_hangs_is_left_after_the_time_limit() {
    let server = Server::new([Answer::Hang]);
    let policy = config(&server)
        .with_timeout(Duration::from_millis(300))
        .open();
    let error = failure(&mut policy.unwrap());
    assert!(matches!(error, OpenAiError::TimedOut { .. }), "{error:?}");
    let said = error.to_string();
    for part in [&server.url()[..], "0.3 s", "with_timeout"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(server.asked().len() <= 1);
}

#[test]
fn a_stream_that_stops_coming_is_left_after_the_time_limit() {
    // Long enough for the piece to arrive on a busy machine.
    let limit = Duration::from_secs(3);
    let run = |stream, expected: &str| {
        let server = Server::new([Answer::Stall(vec![piece("Half")])]);
        let policy = config(&server).with_stream(stream).with_timeout(limit);
        let mut text = String::new();
        let error = ask(&mut policy.open().unwrap(), &mut text).unwrap_err();
        assert!(matches!(error, OpenAiError::TimedOut { .. }), "{error:?}");
        assert_eq!((&text[..], server.asked().len()), (expected, 1));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(true, "Half"));
        scope.spawn(|| run(false, ""));
    });
}

#[test]
fn what_is_no_reply_is_named_and_not_tried_again() {
    let malformed = |body: &str| Answer::Full(200, json_header(), body.to_owned());
    for (answer, expected) in [
        (malformed("{\"choices\": oops}"), "not JSON at line 1"),
        (malformed("<html>Login</html>"), "<html>Login</html>"),
        (malformed("{\"choices\": []}"), "without a choice"),
        (malformed("{\"object\": \"list\"}"), "without a choice"),
        (
            with_status(200, &json!({"error": {"message": "worker died"}})),
            "worker died",
        ),
        (
            with_status(
                200,
                &json!({"choices": [{"message": {"tool_calls": [{}]}}]}),
            ),
            "tool parser",
        ),
    ] {
        let server = Server::new([answer]);
        let said = failure(&mut open(&server)).to_string();
        assert!(said.contains(expected), "{said}");
        assert!(said.contains(&server.url()), "{said}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[test]
fn a_reply_of_two_megabytes_is_read_and_one_beyond_the_limit_refused() {
    let long = "\u{e9}".repeat(1 << 20);
    let server = Server::new([reply(&long)]);
    assert_eq!(answer(&mut open(&server)), long);
    let strict = config(&server).with_max_reply(2 << 20).open();
    let error = failure(&mut strict.unwrap());
    assert!(matches!(error, OpenAiError::TooLarge { .. }), "{error:?}");
    assert!(error.to_string().contains("with_max_reply"), "{error}");
    let mut pieces: Vec<String> = (0..64).map(|_| piece(&long[..1 << 15])).collect();
    pieces.extend(last_pieces());
    let server = Server::new([Answer::Events(pieces)]);
    let streamed = config(&server).with_stream(true).open();
    assert_eq!(answer(&mut streamed.unwrap()), long);
}

/// Keeps what it is given apart.
#[derive(Default)]
struct Pieces(Vec<String>);

impl fmt::Write for Pieces {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !text.is_empty() {
            self.0.push(text.to_owned());
        }
        Ok(())
    }
}

#[test]
fn a_stream_is_shown_as_it_comes_and_counted() {
    let mut events = vec![piece("<answer>"), piece("B"), piece("</answer>")];
    // An event may come in several parts, and a character too.
    let [end, usage, done] = last_pieces();
    let (a, b) = end.split_at(9);
    events.extend([a.to_owned(), b.to_owned(), usage, done]);
    for server in [
        Server::new([Answer::Events(events.clone())]),
        // Without `[DONE]`.
        Server::new([Answer::Events(events[..6].to_vec())]),
    ] {
        let mut policy = config(&server).with_stream(true).open().unwrap();
        let mut pieces = Pieces::default();
        assert_eq!(ask(&mut policy, &mut pieces).unwrap(), COUNTED);
        assert_eq!(pieces.0, ["<answer>", "B", "</answer>"]);
        let body = &server.asked()[0].body;
        assert_eq!(body["stream"], true);
        assert_eq!(body["stream_options"], json!({"include_usage": true}));
    }
}

#[test]
fn a_server_may_stream_or_not_whatever_it_was_asked() {
    let server = Server::new([reply("B")]);
    let streamed = config(&server).with_stream(true).open();
    assert_eq!(answer(&mut streamed.unwrap()), "B");
    let mut events = vec![piece("B")];
    events.extend(last_pieces());
    let server = Server::new([Answer::Events(events)]);
    assert_eq!(answer(&mut open(&server)), "B");
    assert_eq!(server.asked()[0].body["stream"], false);
}

#[test]
fn a_cut_stream_is_an_error_once_text_was_shown_and_tried_again_before() {
    let cut = || Answer::Cut("text/event-stream", vec![piece("Half")]);
    let mut whole = vec![piece("Whole.")];
    whole.extend(last_pieces());
    let server = Server::new([cut(), Answer::Events(whole.clone())]);
    let mut policy = config(&server).with_stream(true).open().unwrap();
    let mut text = String::new();
    let error = ask(&mut policy, &mut text).unwrap_err();
    assert!(
        matches!(error, OpenAiError::Connection { tries: 1, .. }),
        "{error:?}"
    );
    assert_eq!((&text[..], server.asked().len()), ("Half", 1));
    // The partial message of the failed try is not part of the next.
    assert_eq!(answer(&mut policy), "Whole.");

    // Nothing was shown yet.
    let role =
        "data: {\"choices\": [{\"delta\": {\"role\": \"assistant\", \"content\": \"\"}}]}\n\n";
    let early = Answer::Cut("text/event-stream", vec![role.to_owned()]);
    let server = Server::new([early, refusal(503, "x"), Answer::Events(whole.clone())]);
    let mut policy = config(&server).with_stream(true).open().unwrap();
    assert_eq!(answer(&mut policy), "Whole.");

    // Nothing is shown before the end, if the reply is wanted whole.
    let server = Server::new([cut(), cut(), Answer::Events(whole)]);
    assert_eq!(answer(&mut open(&server)), "Whole.");
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn a_stream_that_ends_in_an_error_says_why() {
    let events = vec![
        piece("Half"),
        "data: {\"error\": {\"message\": \"preempted\", \"code\": 500}}\n\n".to_owned(),
    ];
    let server = Server::new([Answer::Events(events)]);
    let mut policy = config(&server).with_stream(true).open().unwrap();
    let mut text = String::new();
    let error = ask(&mut policy, &mut text).unwrap_err();
    assert!(error.to_string().contains("preempted"), "{error}");
    assert_eq!(text, "Half");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_run_that_is_called_off_ends_in_the_middle_of_a_stream_or_a_pause() {
    /// Refuses everything after some text.
    struct Full(usize);
    impl fmt::Write for Full {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
            if self.0 == 0 { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let endless: Vec<String> = (0..1000).map(|_| piece("word ")).collect();
    let server = Server::new([Answer::Events(endless)]);
    let mut policy = config(&server).with_stream(true).open().unwrap();
    let error = ask(&mut policy, &mut Full(20)).unwrap_err();
    assert!(matches!(error, OpenAiError::Write(_)), "{error:?}");

    // A pause of an hour.
    let server = Server::new([refusal(503, "x")]);
    let hour = Duration::from_secs(3600);
    let mut policy = config(&server).with_pauses(hour, hour).open().unwrap();
    let error = ask(&mut policy, &mut Full(0)).unwrap_err();
    assert!(matches!(error, OpenAiError::Write(_)), "{error:?}");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn without_a_name_the_first_model_of_the_server_is_asked() {
    let server = Server::scripted(|asked| match &asked.path[..] {
        "/v1/models" => with_status(200, &json!({"data": [{"id": "org/eva"}, {"id": "b"}]})),
        _ => reply("B"),
    });
    let policy = OpenAiConfig::new(&server.url()).unwrap().open().unwrap();
    let workers: Vec<OpenAi> = (0..4).map(|_| policy.clone()).collect();
    assert_eq!(policy.model().unwrap(), "org/eva");
    std::thread::scope(|scope| {
        for mut policy in workers {
            scope.spawn(move || assert_eq!(answer(&mut policy), "B"));
        }
    });
    let asked = server.asked();
    let (lists, chats): (Vec<_>, Vec<_>) = asked.iter().partition(|one| one.method == "GET");
    assert_eq!((lists.len(), chats.len()), (1, 4));
    assert!(chats.iter().all(|chat| chat.body["model"] == "org/eva"));
}

#[test]
fn a_server_without_a_list_of_models_needs_a_name() {
    for list in [
        refusal(404, "Not Found"),
        with_status(200, &json!({"data": []})),
    ] {
        let server = Server::new([list]);
        let policy = OpenAiConfig::new(&server.url()).unwrap().open().unwrap();
        let error = policy.model().unwrap_err();
        assert!(matches!(error, OpenAiError::NoModel { .. }), "{error:?}");
        let said = error.to_string();
        assert!(
            said.contains("/v1/models") && said.contains("with_model"),
            "{said}"
        );
    }
}

#[test]
fn the_key_is_sent_and_never_shown_even_if_the_server_repeats_it() {
    let secret = std::env::var(KEY).unwrap();
    let echo = |status: u16| {
        move |asked: &server::Asked| {
            let header = asked.headers[AUTHORIZATION].to_str().unwrap();
            let escaped = header.replace('/', "\\/");
            let start = format!("{header} \"{escaped}\" ");
            // The last one stands where a long message is cut.
            let before = 500 - start.len() - header.len() * 3 / 4;
            let body = format!("{start}{}{header} and so on", "x".repeat(before));
            let location = ("location", format!("http://elsewhere/{header}"));
            Answer::Full(status, vec![location], body)
        }
    };
    for status in [200, 302, 400, 401, 404, 500] {
        let server = Server::scripted(echo(status));
        let config = config(&server).with_key_from_env(KEY).unwrap();
        assert!(!format!("{config:?}").contains(&secret));
        let mut policy = config.open().unwrap();
        assert!(!format!("{policy:?}").contains(&secret));
        let error = failure(&mut policy);
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("[key]"), "{shown}");
        // Neither it nor the beginning of it.
        assert!(!shown.contains(&secret[..secret.len() / 2]), "{shown}");
        let sent = &server.asked()[0].headers[AUTHORIZATION];
        assert_eq!(sent, &format!("Bearer {secret}"));
    }
}

#[test]
fn a_key_that_is_not_there_is_missed_by_its_name() {
    let config = OpenAiConfig::new("http://127.0.0.1:1/v1").unwrap();
    let error = config.with_key_from_env("EVA_NO_SUCH_KEY").unwrap_err();
    assert!(error.to_string().contains("EVA_NO_SUCH_KEY"), "{error}");
}

#[test]
fn a_redirect_is_reported_and_not_followed() {
    let other = Server::new([reply("Stolen.")]);
    for status in [301, 302, 303, 307, 308] {
        let location = ("location", format!("{}/chat/completions", other.url()));
        let server = Server::new([Answer::Full(status, vec![location], String::new())]);
        let config = config(&server).with_key_from_env(KEY).unwrap();
        let error = failure(&mut config.open().unwrap());
        assert!(matches!(error, OpenAiError::Redirect { .. }), "{error:?}");
        assert!(error.to_string().contains(&other.url()), "{error}");
        assert_eq!(server.asked().len(), 1);
    }
    assert_eq!(other.asked().len(), 0);
}

#[test]
fn several_conversations_are_continued_at_the_same_time_each_with_its_own_end() {
    let server = Server::scripted(|asked| {
        let question = asked.body["messages"][0]["content"].as_str().unwrap();
        match question {
            "slow" => Answer::Hang,
            "refused" => refusal(400, "no"),
            other => reply(&format!("{other}!")),
        }
    });
    let mut policy = config(&server)
        .with_timeout(Duration::from_millis(500))
        .with_concurrency(2)
        .open()
        .unwrap();
    let questions = ["slow", "one", "refused", "two"];
    let parts = questions.map(|text| [Part::<RgbImage>::Text(text)]);
    let messages = parts.each_ref().map(|parts| {
        [Message {
            role: Role::User,
            parts,
        }]
    });
    let mut replies = vec![String::new(); questions.len()];
    let mut turns: Vec<Continuation<'_, RgbImage>> = (messages.iter().zip(&mut replies))
        .map(|(conversation, reply)| Continuation {
            conversation,
            reply,
        })
        .collect();
    let mut ended = Vec::new();
    policy.generate_batch(&mut turns, &mut |place, result| ended.push((place, result)));
    // While the first one waits, the others go on beside it.
    assert_eq!(ended.last().unwrap().0, 0);
    ended.sort_by_key(|(place, _)| *place);
    assert!(
        matches!(ended[0].1, Err(OpenAiError::TimedOut { .. })),
        "{:?}",
        ended[0]
    );
    assert_eq!(*ended[1].1.as_ref().unwrap(), COUNTED);
    assert!(
        matches!(ended[2].1, Err(OpenAiError::BadRequest { .. })),
        "{:?}",
        ended[2]
    );
    assert!(ended[3].1.is_ok());
    assert_eq!(replies, ["", "one!", "", "two!"]);
}

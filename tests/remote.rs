//! The examples `evaluate` and `ask` with a model on a server, as a person runs them.
#![cfg(all(feature = "gst", feature = "remote"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/server.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod server;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use eva::evaluate::{Record, RecordReader};
use eva::world::{Split, World};
use serde_json::{Value, json};
use server::{Answer, Asked, Server, refusal, reply, with_status};

const SECRET: &str = "sk-not-for-your-eyes/0123456789";

fn evaluate(server: &Server, out: &Path, more: &[&str]) -> Output {
    Command::new(common::example("evaluate"))
        .args(["--items", "world:1:6", "--concurrency", "3"])
        .args(["--policy", &server.url()])
        .arg("--out")
        .arg(out)
        .args(more)
        .env("OPENAI_API_KEY", SECRET)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn records(out: &Path) -> Vec<Record> {
    let mut records: Vec<Record> = RecordReader::open(out)
        .unwrap()
        .map(|record| record.unwrap())
        .collect();
    records.sort_by_key(|record| record.index);
    records
}

/// The files of a run, all in one.
fn written(out: &Path) -> String {
    let files = fs::read_dir(out).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.is_file());
    let bytes = files.flat_map(|path| fs::read(path).unwrap());
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}

fn models() -> Answer {
    with_status(200, &json!({"data": [{"id": "eva-7b"}]}))
}

/// Calls the tool once, and answers when there are frames.
fn two_rounds(asked: &Asked) -> Answer {
    let messages = asked.body["messages"].as_array();
    match (&asked.path[..], messages.map(Vec::len)) {
        ("/v1/models", _) => models(),
        (_, Some(2)) => reply(
            r#"<tool_call>{"tool": "frame_select", "arguments": {"start_time": 0, "end_time": 100,
               "nframes": 3, "resize": 0.2}}</tool_call>"#,
        ),
        _ => reply("<answer>none</answer>"),
    }
}

#[test]
fn items_are_answered_by_a_server_and_its_tokens_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let frames = dir.path().join("frames");
    let images = format!("file:{}", frames.display());
    let more = [
        "--model",
        "mine",
        "--tool-role",
        "user",
        "--images",
        &images,
    ];
    let server = Server::scripted(two_rounds);
    let out = dir.path().join("run");
    let output = evaluate(&server, &out, &more);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("6 answer_found"));

    let records = records(&out);
    assert_eq!(records.len(), 6);
    for record in records {
        assert_eq!((record.num_rounds, record.frames), (2, 3));
        assert_eq!((record.prompt_tokens, record.completion_tokens), (200, 14));
        assert_eq!((record.cached_tokens, record.total_tokens), (128, 107));
        assert_eq!(record.error, None);
    }
    let asked = server.asked();
    assert_eq!(asked.len(), 12);
    for request in asked {
        assert_eq!(request.body["model"], "mine");
        let authorization = &request.headers["authorization"];
        assert_eq!(authorization, &format!("Bearer {SECRET}"));
        if let Some(response) = request.body["messages"].get(3) {
            assert_eq!(response["role"], "user");
            let url = response["content"][1]["image_url"]["url"].as_str();
            assert!(url.unwrap().starts_with("file:///"), "{url:?}");
        }
    }
    assert!(fs::read_dir(frames).unwrap().count() > 0);
    assert!(!written(&out).contains(SECRET));
    let summary: Value =
        serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["settings"]["model"], "mine");
    assert_eq!(summary["settings"]["tool_role"], "user");

    // Another model is another run.
    let other = evaluate(&server, &out, &["--model", "other"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stderr).contains("choose another folder"));
}

#[test]
fn a_refused_conversation_ends_its_item_alone_and_the_key_is_in_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut chats = 0;
    let server = Server::scripted(move |asked| {
        if asked.path == "/v1/models" {
            return models();
        }
        chats += 1;
        match chats {
            1 => refusal(400, &format!("too long, {:?}", asked.headers)),
            2 => {
                let header = asked.headers["authorization"].to_str().unwrap();
                refusal(404, &format!("no {header}"))
            }
            _ => reply("<answer>none</answer>"),
        }
    });
    let output = evaluate(&server, dir.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let records = records(dir.path());
    let ended = |reason: &str| {
        let ended = records.iter().filter(|record| record.stop_reason == reason);
        ended.collect::<Vec<_>>()
    };
    assert_eq!(ended("answer_found").len(), 4);
    let refused = ended("openai_bad_request");
    assert_eq!(refused.len(), 1);
    assert!(refused[0].error.as_ref().unwrap().contains("too long"));
    let failed = ended("exception");
    assert_eq!(failed.len(), 1);
    let said = failed[0].error.as_ref().unwrap();
    assert!(said.contains("404") && said.contains("[key]"), "{said}");
    assert!(!written(dir.path()).contains(SECRET));
    assert!(!text(&output.stderr).contains(SECRET) && !text(&output.stdout).contains(SECRET));
    let asked = server.asked();
    let lists = asked.iter().filter(|one| one.path == "/v1/models").count();
    assert_eq!(lists, 1, "all workers share what one was told");

    // Those two are asked again, and no other.
    let again = evaluate(&server, dir.path(), &["--retry-error"]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    assert_eq!(server.asked().len(), asked.len() + 3);
    assert!(text(&again.stdout).contains("6 answer_found"));
}

#[test]
fn a_server_that_is_not_usable_is_named_before_anything_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new([refusal(404, "Not Found")]);
    let output = evaluate(&server, &dir.path().join("a"), &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("/v1/models lists no model"), "{said}");
    for (more, expected) in [
        (&["--api-key-env", "EVA_NO_SUCH_KEY"][..], "EVA_NO_SUCH_KEY"),
        (&["--images", "gif"], "`gif`"),
        (&["--tool-role", "system"], "`system`"),
        (
            &["--policy", "http://me:pass@127.0.0.1/v1"],
            "with_key_from_env",
        ),
    ] {
        let more = [&["--model", "m"], more].concat();
        let output = Command::new(common::example("evaluate"))
            .args(["--items", "world:1:1", "--out"])
            .arg(dir.path().join("b"))
            .args(&more)
            .args(match more.contains(&"--policy") {
                true => vec![],
                false => vec!["--policy".to_owned(), server.url()],
            })
            .output()
            .unwrap();
        assert_ne!(output.status.code(), Some(0));
        let said = text(&output.stderr);
        assert!(said.contains(expected), "{more:?}: {said}");
    }
}

#[test]
fn a_question_is_answered_by_a_server_and_its_text_shown() {
    let dir = tempfile::tempdir().unwrap();
    let video = dir.path().join("world.mp4");
    let worlds = (20_000..).map(|index| World::new(Split::Test.seed(index)));
    let mut short = worlds.filter(|world| world.duration() < 150.0);
    short.next().unwrap().encode(&video).unwrap();
    let server = Server::scripted(|asked| match two_rounds(asked) {
        Answer::Full(_, _, body) if asked.body["stream"] == true => {
            let whole: Value = serde_json::from_str(&body).unwrap();
            let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
            let (a, b) = text.split_at(9);
            let event = |choices: Value| format!("data: {choices}\n\n");
            Answer::Events(vec![
                event(json!({"choices": [{"delta": {"content": a}}]})),
                event(json!({"choices": [{"delta": {"content": b}, "finish_reason": "stop"}]})),
                event(json!({"choices": [], "usage": whole["usage"]})),
            ])
        }
        other => other,
    });
    let output = Command::new(common::example("ask"))
        .arg(&video)
        .args(["What digit is on the red card?", "--model", &server.url()])
        // A server without TLS needs none.
        .envs(["SSL_CERT_FILE", "SSL_CERT_DIR"].map(|variable| (variable, "/nonexistent")))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    for part in [
        &format!("Model     eva-7b on {}", server.url())[..],
        "\n<tool_call>{",
        "[3 frames of",
        "[100 tokens read, 64 of them kept from before; 7 written]",
        "\n<answer>none</answer>\n",
        "Answer    none",
    ] {
        assert!(printed.contains(part), "no {part:?} in {printed}");
    }
}

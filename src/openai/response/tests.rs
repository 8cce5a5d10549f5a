#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;

fn reply(body: &str, live: bool) -> (String, Result<Usage, Problem>) {
    let mut text = String::new();
    let mut output = Output::new(&mut text, live, 1000);
    let result = read(body.as_bytes(), &mut output);
    (text, result)
}

/// Both ways to write a reply that is read without a problem.
fn fine(body: &str) -> (String, Usage) {
    let (held, usage) = reply(body, false);
    let (live, same) = reply(body, true);
    assert_eq!(held, live);
    assert_eq!(usage.as_ref().unwrap(), same.as_ref().unwrap());
    (held, usage.unwrap())
}

fn problem(body: &str) -> Problem {
    let (held, result) = reply(body, false);
    assert_eq!(held, "", "nothing of a failed try is written");
    result.unwrap_err()
}

const USAGE: &str = r#""usage": {"prompt_tokens": 900, "completion_tokens": 3,
    "total_tokens": 903, "prompt_tokens_details": {"cached_tokens": 640}}"#;
const COUNTED: Usage = Usage {
    prompt: 900,
    cached: 640,
    completion: 3,
};

#[test]
fn a_whole_reply_is_read_with_its_tokens() {
    let body = format!(
        r#" {{"id": "x", "choices": [{{"index": 0, "message": {{"role": "assistant",
        "content": "<answer>B</answer>\n"}}, "finish_reason": "stop"}}], {USAGE}}}"#
    );
    assert_eq!(fine(&body), ("<answer>B</answer>\n".to_owned(), COUNTED));
}

#[test]
fn tokens_that_are_not_counted_are_zero() {
    for usage in [
        "null",
        "{}",
        r#"{"prompt_tokens": null, "prompt_tokens_details": null}"#,
        r#"{"prompt_tokens": -3, "completion_tokens": "many"}"#,
    ] {
        let body =
            format!(r#"{{"choices": [{{"message": {{"content": null}}}}], "usage": {usage}}}"#);
        assert_eq!(fine(&body), (String::new(), Usage::default()));
    }
    let huge = r#"{"choices": [{"message": {}}], "usage": {"prompt_tokens": 5000000000}}"#;
    assert_eq!(fine(huge).1.prompt, u32::MAX);
}

#[test]
fn a_stream_is_joined_and_its_last_count_stands() {
    let body = format!(
        "data: {{\"choices\": [{{\"delta\": {{\"role\": \"assistant\", \"content\": \"\"}}}}]}}\n\n\
         data: {{\"choices\": [{{\"delta\": {{\"content\": \"<answer>\"}}}}], \"usage\": \
         {{\"prompt_tokens\": 1}}}}\n\n: ping\n\n\
         data: {{\"choices\": [{{\"delta\": {{\"content\": \"B\"}}, \"finish_reason\": null}}]}}\n\n\
         data: {{\"choices\": [{{\"delta\": {{}}, \"finish_reason\": \"stop\"}}]}}\n\n\
         data: {{\"choices\": [], {}}}\n\ndata: [DONE]\n\n",
        USAGE.replace('\n', " ")
    );
    assert_eq!(fine(&body), ("<answer>B".to_owned(), COUNTED));
    let without_done = body.replace("data: [DONE]\n\n", "");
    assert_eq!(fine(&without_done), ("<answer>B".to_owned(), COUNTED));
}

#[test]
fn a_stream_that_ends_before_the_reply_is_lost() {
    let body = "data: {\"choices\": [{\"delta\": {\"content\": \"Half a\"}}]}\n\n";
    assert!(matches!(problem(body), Problem::Lost(_)));
    let cut = "data: {\"choices\": [{\"delta\": {\"con";
    assert!(matches!(problem(cut), Problem::Lost(_)));
    assert_eq!(reply(body, true).0, "Half a");
    assert!(matches!(problem(""), Problem::Lost(_)));
    assert!(matches!(
        problem("{\"choices\": [{\"mess"),
        Problem::Lost(_)
    ));
}

#[test]
fn what_is_no_reply_is_named() {
    for (body, expected) in [
        ("<html>Hello</html>", "it is not JSON at line 1"),
        ("\"hi\"", "it has other fields"),
        ("Hello", "it is not JSON"),
        ("{\"choices\": 7}", "it has other fields"),
        ("data: x\n\n", "it is not JSON"),
    ] {
        let Problem::Malformed(why, _) = problem(body) else {
            panic!("{body}")
        };
        assert!(why.contains(expected), "{why}");
    }
    for body in [
        "{}",
        "{\"choices\": []}",
        "{\"choices\": null}",
        "data: {\"choices\": []}\n\ndata: [DONE]\n\n",
    ] {
        assert!(matches!(problem(body), Problem::NoChoice), "{body}");
    }
}

#[test]
fn a_call_that_was_taken_out_of_the_text_is_noticed() {
    for body in [
        r#"{"choices": [{"message": {"content": null, "tool_calls": [{"id": "1"}]}}]}"#,
        "data: {\"choices\": [{\"delta\": {\"tool_calls\": [{\"id\": \"1\"}]}}]}\n\n",
    ] {
        assert!(matches!(problem(body), Problem::ToolCallTaken));
    }
    fine(r#"{"choices": [{"message": {"content": "x", "tool_calls": []}}]}"#);
}

#[test]
fn an_error_that_comes_for_a_reply_is_one() {
    for (body, code, said) in [
        (
            r#"{"error": {"message": "out of memory", "code": 500}}"#,
            Some(500),
            "out of memory",
        ),
        (r#"{"error": "too long"}"#, None, "too long"),
        (
            "data: {\"error\": {\"message\": \"aborted\", \"code\": \"400\"}}\n\n",
            Some(400),
            "aborted",
        ),
        (r#"{"object": "error"}"#, None, "no reason"),
    ] {
        let Problem::Server(found, message) = problem(body) else {
            panic!("{body}")
        };
        assert_eq!(found, code);
        assert!(message.contains(said), "{message}");
    }
    fine(r#"{"error": null, "choices": [{"message": {"content": "x"}}]}"#);
}

#[test]
fn more_than_the_limit_is_refused() {
    let long = "x".repeat(990);
    let body = format!(r#"{{"choices": [{{"message": {{"content": "{long}"}}}}]}}"#);
    assert!(matches!(problem(&body), Problem::TooLarge));
    let piece = format!(
        "data: {{\"choices\": [{{\"delta\": {{\"content\": \"{}\"}}}}]}}\n\n",
        "y".repeat(400)
    );
    assert!(matches!(problem(&piece.repeat(3)), Problem::TooLarge));
}

#[test]
fn reasons_are_found_where_servers_put_them() {
    for (body, expected) in [
        (r#"{"error": {"message": "bad"}}"#, "bad"),
        (r#"{"error": "bad"}"#, "bad"),
        (r#"{"message": "bad"}"#, "bad"),
        (r#"{"detail": "bad"}"#, "bad"),
        (r#"{"detail": [{"loc": 1}]}"#, r#"[{"loc":1}]"#),
        ("bad", "bad"),
        (" \n", "no reason given"),
    ] {
        assert_eq!(message(body.as_bytes()), expected);
    }
}

#[test]
fn the_first_model_is_found() {
    let list = r#"{"object": "list", "data": [{"id": "a/b", "owned_by": "x"}, {"id": "c"}]}"#;
    assert_eq!(first_model(list.as_bytes(), 1000).unwrap().unwrap(), "a/b");
    assert!(first_model(&b"{\"data\": []}"[..], 1000).unwrap().is_none());
    assert!(first_model(&b"{}"[..], 1000).is_err());
}

proptest::proptest! {
    #[test]
    fn whatever_a_server_sends_is_read_or_refused(
        pieces in proptest::collection::vec(piece(), 0..12),
    ) {
        let body = pieces.concat();
        for live in [true, false] {
            let mut text = String::new();
            let result = read(&body[..], &mut Output::new(&mut text, live, 40));
            proptest::prop_assert!(live || result.is_ok() || text.is_empty());
            proptest::prop_assert!(text.len() <= 40);
        }
        _ = message(&body[..]);
        _ = first_model(&body[..], 40);
    }
}

/// What bodies are made of, and any bytes.
fn piece() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;
    let known = [
        "data: ",
        "\n\n",
        "\r",
        "[DONE]",
        ":",
        "{\"choices\": [",
        "{\"delta\": {\"content\": \"some text\"}, \"finish_reason\": \"stop\"}",
        "{\"message\": {\"content\": null}}",
        "]}",
        "{\"error\": {\"code\": 400}}",
        "{\"data\": [{\"id\": \"m\"}]}",
    ];
    prop_oneof![
        3 => proptest::sample::select(known.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..8),
    ]
}

//! What a reply says: answers, fallback answers, calls, and the arguments of `frame_select`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use eva_core::CallError;
use eva_core::reply::{self, Argument, FrameSelect};
use proptest::prelude::*;
use regex::Regex;
use std::sync::LazyLock;

fn answer(text: &str) -> Option<&str> {
    reply::answer(text).map(|span| span.of(text).unwrap())
}

fn arguments(text: &str) -> Option<Vec<&str>> {
    let calls = reply::tool_calls(text)?;
    Some(calls.map(|call| call.arguments.of(text).unwrap()).collect())
}

#[test]
fn the_first_tagged_answer_counts_and_is_trimmed() {
    assert_eq!(answer("<answer>B</answer>"), Some("B"));
    assert_eq!(answer("<answer>\n a\nb \u{3000}</answer>"), Some("a\nb"));
    assert_eq!(answer("x<answer>A</answer><answer>B</answer>"), Some("A"));
    assert_eq!(answer("<answer>A<answer>B</answer>"), Some("A<answer>B"));
    assert_eq!(answer("</answer><answer>é好</answer>"), Some("é好"));
    assert_eq!(answer("<answer>B"), None);
    assert_eq!(answer("<Answer>B</Answer>"), None);
}

#[test]
fn an_empty_tagged_answer_falls_back() {
    assert_eq!(answer("<answer> \n </answer>"), None);
    assert_eq!(answer("<answer></answer> Answer: C"), Some("C"));
    // The first pair of tags decides, even when a later one holds text.
    assert_eq!(answer("<answer></answer><answer>D</answer>"), None);
}

#[test]
fn the_fallback_is_one_word_character_near_the_end() {
    assert_eq!(answer("The answer: B"), Some("B"));
    assert_eq!(answer("Answer. \n\t C."), Some("C"));
    assert_eq!(answer("Answer C) because"), Some("C"));
    assert_eq!(answer("answer:é!"), Some("é"));
    assert_eq!(answer("answer:_"), Some("_"));
    assert_eq!(answer("answer: B\n"), Some("B"));
    for none in [
        "answer B2",
        "ANSWER: B",
        "answers: B",
        "answer:",
        "answer:: B",
        "answer-B",
        "answer: (B)",
        "answer: red",
        "answer is B",
    ] {
        assert_eq!(answer(none), None, "{none}");
    }
}

#[test]
fn the_leftmost_fallback_that_fits_counts() {
    assert_eq!(answer("answer: A, so the answer: B"), Some("A"));
    assert_eq!(answer("answer: red. The answer: B"), Some("B"));
    let far = format!("answer: A {} answer: B", "x".repeat(200));
    assert_eq!(answer(&far), Some("B"));
}

#[test]
fn at_most_100_characters_follow_a_fallback_and_its_separator() {
    let reply = |n: usize, end: &str| format!("Answer: B.{}{end}", "é".repeat(n));
    assert_eq!(answer(&reply(100, "")), Some("B"));
    assert_eq!(answer(&reply(101, "")), None);
    assert_eq!(
        answer(&reply(100, "\n")),
        Some("B"),
        "`$` stands before a last line break"
    );
    assert_eq!(answer(&reply(100, "\n\n")), None);
    assert_eq!(answer(&reply(99, "\n\n")), Some("B"));
}

#[test]
fn calls_come_from_the_first_block_only() {
    let call = r#"{"tool": "frame_select", "arguments": {"nframes": 1}}"#;
    let one = Some(vec![r#"{"nframes": 1}"#]);
    assert_eq!(arguments("no call"), None);
    assert_eq!(arguments(call), None, "a block is needed");
    assert_eq!(
        arguments(&format!("<tool_call>{call}")),
        None,
        "and its end"
    );
    assert_eq!(arguments("<tool_call></tool_call>"), Some(vec![]));
    assert_eq!(
        arguments(&format!("a<tool_call>\n{call}\n</tool_call>b")),
        one
    );
    let two = format!("<tool_call>{call}</tool_call><tool_call>{call}</tool_call>");
    assert_eq!(arguments(&two), one);
    let empty_first = format!("<tool_call></tool_call><tool_call>{call}</tool_call>");
    assert_eq!(arguments(&empty_first), Some(vec![]));
}

#[test]
fn one_block_can_hold_several_calls_in_any_wrapping() {
    let block = r#"<tool_call>[{"tool": "frame_select", "arguments": {"a": 1}},
        text {
          "tool":"frame_select", "parameters": {"b": {"c": 2}, "d": 3} } ]</tool_call>"#;
    assert_eq!(
        arguments(block),
        Some(vec![r#"{"a": 1}"#, r#"{"b": {"c": 2}, "d": 3}"#])
    );
}

#[test]
fn what_is_not_written_as_a_call_is_passed_over() {
    for text in [
        r#"{"tool" : "frame_select", "arguments": {}}"#,
        r#"{"tool": "frame_select", "args": {}}"#,
        r#"{"tool": "frame_select" , "arguments": {}}"#,
        r#"{"tool": "frame_select", "arguments": []}"#,
        r#"{"tool": "frame_select", "arguments": {}"#,
        r#"{"tool": "frame_select", "arguments": {}, "x": 1}"#,
        r#"{"name": "frame_select", "arguments": {}}"#,
        r#"{"tool": "zoom", "arguments": {}}"#,
    ] {
        let block = format!("<tool_call>{text}</tool_call>");
        assert_eq!(arguments(&block), Some(vec![]), "{text}");
    }
}

#[test]
fn calls_of_other_tools_are_found_on_request() {
    let text = r#"<tool_call>{"tool": "zoom", "arguments": {"x": 1}} {"tool": "frame_select",
        "arguments": {}}</tool_call>"#;
    let calls = reply::tool_calls(text).unwrap().with_other_tools();
    let names: Vec<&str> = calls.map(|call| call.name.of(text).unwrap()).collect();
    assert_eq!(names, ["zoom", "frame_select"]);
    assert_eq!(arguments(text), Some(vec!["{}"]));
}

#[test]
fn a_block_of_openings_is_read_quickly() {
    let text = r#"{"tool":"frame_select","arguments":{"#.repeat(30_000);
    let started = std::time::Instant::now();
    assert_eq!(
        arguments(&format!("<tool_call>{text}</tool_call>")),
        Some(vec![])
    );
    let text = "answer ".repeat(150_000);
    assert_eq!(answer(&text), None);
    assert!(started.elapsed().as_secs() < 5);
}

#[test]
fn arguments_name_the_first_thing_that_is_missing() {
    let parse = |text| FrameSelect::parse(text).unwrap_err();
    assert_eq!(parse("{start_time: 1}"), CallError::ArgumentsNotJson);
    assert_eq!(parse("{}"), CallError::NoStartOrEndTime);
    assert_eq!(
        parse(r#"{"start_time": 1, "nframes": 1}"#),
        CallError::NoStartOrEndTime
    );
    assert_eq!(
        parse(r#"{"start_time": 1, "end_time": 1}"#),
        CallError::NoNframes
    );
}

#[test]
fn a_size_that_is_missing_or_null_is_the_whole() {
    let parse = |resize: &str| {
        let text = format!(r#"{{"start_time": 1.5, "end_time": true, "nframes": "8"{resize}}}"#);
        FrameSelect::parse(&text).unwrap()
    };
    assert_eq!(parse("").resize, Argument::whole(1));
    assert_eq!(
        parse(r#", "resize": 0.5, "resize": null"#).resize,
        Argument::whole(1)
    );
    assert_eq!(parse(r#", "resize": 0.5"#).resize, Argument::float(0.5));
    assert_eq!(parse(r#", "resize": []"#).resize, Argument::NotANumber);
    let call = parse("");
    assert_eq!(call.start_time, Argument::float(1.5));
    assert_eq!(call.end_time, Argument::whole(1));
    assert_eq!(call.nframes, Argument::NotANumber);
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

static TAGGED: LazyLock<Regex> = LazyLock::new(|| regex(r"(?s)<answer>(.*?)</answer>"));
// Python's `$` also stands before a last line break; its `\w` and `\s` are spelled out.
static FALLBACK: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?s)[Aa]nswer[.:\s\x1c-\x1f][\s\x1c-\x1f]*([\p{L}\p{N}_])(?:[^\p{L}\p{N}_].{0,100}|)\n?\z",
    )
});
static BLOCK: LazyLock<Regex> = LazyLock::new(|| regex(r"(?s)<tool_call>(.*?)</tool_call>"));
static CALL: LazyLock<Regex> = LazyLock::new(|| {
    regex(r#"(?s)\{\s*"tool":\s*"frame_select",\s*"(?:arguments|parameters)":\s*(\{.*?\})\s*\}"#)
});

/// Pieces that make and break the patterns.
fn text() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        "[Aa]?nswer[.: \n]?",
        "[ \n\t\u{a0}\u{1c}\u{2003}]{1,3}",
        "[BCé好_7²\u{915}\u{93e}\u{301}.,!-]{1,2}",
        Just("x".repeat(98)),
        "</?answer>",
        "</?tool_call>",
        r#"\{ ?"tool": ?"frame_select", ?"(arguments|parameters)": ?\{("a": \{\})?\} ?\}"#,
        r#"[{}" ]{1,3}"#,
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
}

/// So many cases, unless `PROPTEST_CASES` says otherwise.
fn cases(count: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(count),
    }
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn answers_agree_with_regular_expressions(text in text()) {
        let space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
        let found = TAGGED.captures(&text).map(|found| found.get(1).unwrap().as_str());
        let found = found.map(|found| found.trim_matches(space)).filter(|found| !found.is_empty());
        let found = found.or_else(|| {
            FALLBACK.captures(&text).map(|found| found.get(1).unwrap().as_str())
        });
        prop_assert_eq!(answer(&text), found);
    }

    #[test]
    fn calls_agree_with_regular_expressions(text in text()) {
        for text in [format!("<tool_call>{text}</tool_call>"), text] {
            let found = BLOCK.captures(&text).map(|found| {
                let block = found.get(1).unwrap().as_str();
                CALL.captures_iter(block)
                    .map(|found| found.get(1).unwrap().as_str())
                    .collect::<Vec<&str>>()
            });
            prop_assert_eq!(arguments(&text), found);
        }
    }

    #[test]
    fn spans_always_lie_in_the_reply(text: String) {
        for text in [format!("<tool_call>{text}</tool_call>"), text] {
            let _ = answer(&text);
            for call in arguments(&text).into_iter().flatten() {
                let _ = FrameSelect::parse(call);
            }
        }
    }
}

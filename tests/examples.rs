//! The examples of parts that an application brings itself: each runs anywhere, is short enough to
//! read, and does what it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::process::Command;

use eva::world::{Kind, World};

/// Runs an example without arguments, expects success, and gives what it prints.
#[track_caller]
fn run(name: &str, source: &str) -> String {
    let lines = source.lines().count();
    assert!(lines < 80, "{name} has {lines} lines");
    let output = Command::new(common::example(name)).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{name}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_tool_of_the_application_tells_the_model_where_to_look() {
    let out = run("custom_tool", include_str!("../examples/custom_tool.rs"));
    let messages: Vec<serde_json::Value> = (out.lines())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let text = |message: usize| messages[message]["parts"][0]["text"].as_str().unwrap();
    assert!(
        text(2).starts_with("<tool_response>Error in changes: invalid type: string \"0\""),
        "{out}"
    );
    // What changes in this world: cards, the background, the screen that goes dark.
    let world = World::new(7);
    let cards: Vec<f64> = (world.cards().iter())
        .flat_map(|card| [card.start, card.end])
        .collect();
    let patterns = world
        .patterns()
        .iter()
        .flat_map(|span| [span.start, span.end]);
    let dark = world.blinks().into_iter().flat_map(|blinks| &blinks.dark);
    let others = patterns.chain(dark.flat_map(|(from, to)| [*from, *to]));
    let changes: Vec<f64> = cards.iter().copied().chain(others).collect();
    let told = text(4).lines().next().unwrap();
    let (_, told) = told.split_once(':').unwrap();
    let told: Vec<f64> = (told.split_whitespace())
        .map(|second| second.parse().unwrap())
        .collect();
    let among = |second: &f64, all: &[f64]| {
        all.iter()
            .any(|one| (one.floor() - second.floor()).abs() <= 1.0)
    };
    for second in &told {
        assert!(among(second, &changes), "nothing changes at {second}");
    }
    for change in &cards {
        assert!(
            among(change, &told),
            "a card at {change} is not in {told:?}"
        );
    }
    assert_eq!(messages[6]["parts"][1]["image"]["width"], 224);
}

#[test]
fn a_directory_of_images_is_a_video() {
    let source = include_str!("../examples/custom_source.rs");
    let out = run("custom_source", source);
    let question = World::new(11).question(Kind::Find, 0);
    let expected = format!("{} Some({:?}), after [", question.text, question.answer);
    assert!(out.starts_with(&expected), "{out}");
}

#[test]
fn rules_that_read_pixels_are_a_policy_and_can_be_called_off() {
    let source = include_str!("../examples/custom_policy.rs");
    let out = run("custom_policy", source);
    let world = World::new(7);
    let (_, answer) = out.split_once("<answer>").unwrap();
    let (minutes, rest) = answer.split_once(':').unwrap();
    let second: f64 = rest[..2].parse::<f64>().unwrap() + 60.0 * minutes.parse::<f64>().unwrap();
    let start = world.cards()[1].start;
    assert!((second - start).abs() <= 1.0, "{second} is not {start}");
    assert!(out.contains("[16 frames]\n"), "{out}");
    assert!(out.ends_with("Called off: cancelled\n"), "{out}");
}

#[test]
fn thirty_two_videos_are_asked_at_once() {
    let source = include_str!("../examples/async_agent.rs");
    let out = run("async_agent", source);
    assert_eq!(out.lines().count(), 33, "{out}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("32 of 32 are right, "), "{out}");
    let asked = [
        "What digit is on the ",
        "What is the background ",
        "Which card ",
        "How often ",
    ];
    for line in out.lines().take(32) {
        assert!(asked.iter().any(|begin| line.starts_with(begin)), "{line}");
    }
}

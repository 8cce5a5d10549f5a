//! Runs of the agent, step by step: every stop reason, several calls, misuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use eva_core::agent::{CallState, InputKind, MAX_CALLS, StepKind};
use eva_core::{
    Abort, Agent, CallError, FailedCalls, Input, Outcome, Rules, SelectFailed, Selection, Step,
    StopReason, ToolFailure, Unexpected, Usage, VideoInfo,
};
use proptest::prelude::*;

const VIDEO: VideoInfo = VideoInfo {
    duration: 600.0,
    width: 1280,
    height: 720,
    fps: 25.0,
};
/// 8 * 5 * 3 visual tokens.
const SCAN: &str = r#"{"tool": "frame_select", "arguments": {"start_time": 0, "end_time": 600, "nframes": 8, "resize": 0.1}}"#;
/// 2 * 26 * 46 visual tokens.
const ZOOM: &str =
    r#"{"tool": "frame_select", "arguments": {"start_time": 50, "end_time": 100, "nframes": 2}}"#;

fn agent() -> Agent {
    Agent::new(Rules::published(), VIDEO)
}

fn block(calls: &[&str]) -> String {
    format!("Look. <tool_call>{}</tool_call>", calls.join("\n"))
}

fn frame_select(arguments: &str) -> String {
    format!(r#"{{"tool": "frame_select", "arguments": {arguments}}}"#)
}

fn say<'a>(agent: &'a mut Agent, reply: &str) -> &'a Step {
    let usage = Usage {
        prompt: 100,
        cached: 90,
        completion: 10,
    };
    agent.handle(Input::Generated { reply, usage }).unwrap()
}

fn outcome(step: &Step) -> &Outcome {
    match step {
        Step::Done(outcome) => outcome,
        step => panic!("not done: {step:?}"),
    }
}

fn selection(step: &Step) -> Selection {
    match step {
        Step::SelectFrames(selection) => *selection,
        step => panic!("no selection: {step:?}"),
    }
}

/// The stop reason of a run that this reply ends, as text.
fn stop(reply: &str) -> String {
    let mut agent = agent();
    let outcome = outcome(say(&mut agent, reply));
    assert_eq!(outcome.answer, None);
    outcome.stop_reason.to_string()
}

#[test]
fn an_answer_ends_the_run() {
    let mut agent = agent();
    let reply = "I know. <answer>\nB </answer>";
    let outcome = outcome(say(&mut agent, reply));
    assert_eq!(outcome.answer.unwrap().of(reply), Some("B"));
    assert_eq!(outcome.stop_reason, StopReason::AnswerFound);
    assert_eq!(outcome.stop_reason.to_string(), "answer_found");
    assert_eq!(
        (outcome.tally.num_rounds, outcome.tally.total_tokens),
        (1, 110)
    );
}

#[test]
fn an_answer_counts_before_a_call() {
    let mut agent = agent();
    let reply = format!("{}<answer>B</answer>", block(&[SCAN]));
    assert!(outcome(say(&mut agent, &reply)).answer.is_some());
    assert!(agent.calls().len() == 0);
}

#[test]
fn a_call_is_looked_at_and_the_model_asked_again() {
    let mut agent = agent();
    let selected = selection(say(&mut agent, &block(&[SCAN])));
    assert_eq!(
        (selected.nframes, selected.width, selected.height),
        (8, 140, 84)
    );
    assert_eq!(agent.handle(Input::Selected(Ok(8))), Ok(&Step::Generate));
    let tally = *agent.tally();
    assert_eq!((tally.frames, tally.estimated_visual_tokens), (8, 120));
    let tally = outcome(say(&mut agent, "Answer: C")).tally;
    assert_eq!(
        (tally.num_rounds, tally.total_tokens, tally.frames),
        (2, 110, 8)
    );
}

#[test]
fn replies_without_answer_and_call_end_the_run() {
    for reply in ["", "I wonder.", SCAN, "<tool_call>", "<answer> </answer>"] {
        assert_eq!(stop(reply), "no_answer_no_tool_call", "{reply}");
    }
}

#[test]
fn blocks_without_a_call_end_the_run() {
    for call in [
        "",
        "{}",
        "frame_select(0, 9)",
        r#"{"tool": "zoom", "arguments": {}}"#,
    ] {
        assert_eq!(stop(&block(&[call])), "no_valid_tool_call", "{call}");
    }
}

#[test]
fn each_failure_of_a_call_has_its_name() {
    let one = |arguments: &str| stop(&block(&[&frame_select(arguments)]));
    assert_eq!(one("{start}"), "arguments_not_json");
    assert_eq!(
        one(r#"{"end_time": 1, "nframes": 1}"#),
        "no_start_or_end_time"
    );
    assert_eq!(one(r#"{"start_time": 1, "end_time": 2}"#), "no_nframes");
    for nframes in ["0", "-1", "8.0", "false"] {
        let arguments = format!(r#"{{"start_time": 1, "end_time": 2, "nframes": {nframes}}}"#);
        assert_eq!(one(&arguments), "call_frame_select_failed", "{nframes}");
    }
    assert_eq!(
        one(r#"{"start_time": null, "end_time": 2, "nframes": 1}"#),
        "call_frame_select_failed"
    );
}

#[test]
fn arguments_that_can_not_be_reckoned_with_are_an_exception() {
    for arguments in [
        r#"{"start_time": 1, "end_time": 2, "nframes": "8"}"#,
        r#"{"start_time": 1, "end_time": 2, "nframes": null}"#,
        r#"{"start_time": 1, "end_time": 2, "nframes": 8, "resize": "0.5"}"#,
        r#"{"start_time": 1, "end_time": 2, "nframes": 8, "resize": NaN}"#,
        r#"{"start_time": 1, "end_time": Infinity, "nframes": 8}"#,
    ] {
        // It ends the run even beside a call that could be carried out.
        assert_eq!(
            stop(&block(&[SCAN, &frame_select(arguments)])),
            "exception",
            "{arguments}"
        );
    }
}

#[test]
fn a_call_that_raises_stays_among_the_calls() {
    let mut agent = agent();
    let arguments = r#"{"start_time": 1, "end_time": 2, "nframes": []}"#;
    say(&mut agent, &block(&[SCAN, &frame_select(arguments), ZOOM]));
    let states: Vec<CallState> = agent.calls().map(|call| call.state).collect();
    assert_eq!(states, [CallState::Waiting, CallState::Raised]);
}

#[test]
fn failures_of_all_calls_are_joined_in_their_order() {
    let mut agent = agent();
    let reply = block(&[
        &frame_select("{x}"),
        SCAN,
        &frame_select(r#"{"start_time": 0}"#),
        ZOOM,
        &frame_select(r#"{"start_time": 0, "end_time": 9}"#),
    ]);
    selection(say(&mut agent, &reply));
    selection(agent.handle(Input::Selected(Err(SelectFailed))).unwrap());
    // No frames are a failure too.
    let outcome = outcome(agent.handle(Input::Selected(Ok(0))).unwrap());
    let text = "arguments_not_json; call_frame_select_failed; no_start_or_end_time; \
                call_frame_select_failed; no_nframes";
    assert_eq!(outcome.stop_reason.to_string(), text);
    assert_eq!(text.parse(), Ok(outcome.stop_reason.clone()));
}

#[test]
fn one_call_that_succeeds_carries_the_others() {
    let mut agent = agent();
    let reply = block(&[&frame_select("{}"), SCAN, ZOOM]);
    assert_eq!(selection(say(&mut agent, &reply)).nframes, 8);
    let second = selection(agent.handle(Input::Selected(Err(SelectFailed))).unwrap());
    assert_eq!((second.start, second.end, second.nframes), (50.0, 100.0, 2));
    assert_eq!(agent.handle(Input::Selected(Ok(2))), Ok(&Step::Generate));
    let states: Vec<CallState> = agent.calls().map(|call| call.state).collect();
    assert_eq!(
        states,
        [
            CallState::Failed(CallError::NoStartOrEndTime),
            CallState::Failed(CallError::FrameSelectFailed),
            CallState::Done(2),
        ]
    );
    // The estimate is made before the frames are fetched.
    assert_eq!(agent.tally().estimated_visual_tokens, 120 + 2 * 26 * 46);
    assert_eq!(agent.tally().frames, 2);
}

#[test]
fn six_turns_without_an_answer_end_the_run_after_their_last_frames() {
    let mut agent = agent();
    for turn in 1..=6 {
        assert_eq!(agent.step().kind(), StepKind::Generate, "turn {turn}");
        selection(say(&mut agent, &block(&[SCAN])));
        agent.handle(Input::Selected(Ok(8))).unwrap();
    }
    let outcome = outcome(agent.step());
    assert_eq!(outcome.stop_reason.to_string(), "max_turns_exceeded");
    assert_eq!((outcome.tally.num_rounds, outcome.tally.frames), (6, 48));
    assert_eq!(outcome.tally.estimated_visual_tokens, 6 * 120);
}

#[test]
fn calls_that_the_tool_would_fail_on_are_counted_as_the_published_code_counts_them() {
    let mut agent = agent();
    // A fraction of a frame is none; fewer than none are none too.
    let calls = [
        r#"{"start_time": 0, "end_time": 9, "nframes": 8.9, "resize": 0.1}"#,
        r#"{"start_time": null, "end_time": 9, "nframes": 2, "resize": 0.1}"#,
        r#"{"start_time": 0, "end_time": 9, "nframes": -3}"#,
    ]
    .map(frame_select);
    let step = say(&mut agent, &block(&[&calls.join("\n")]));
    let outcome = outcome(step);
    assert_eq!(outcome.tally.estimated_visual_tokens, (8 + 2) * 5 * 3);
    let failed = "call_frame_select_failed";
    let stop = outcome.stop_reason.to_string();
    assert_eq!(stop, [failed; 3].join("; "));
}

#[test]
fn without_turns_a_run_is_over_at_once() {
    let agent = Agent::new(Rules::published().with_max_turns(0), VIDEO);
    assert_eq!(
        outcome(agent.step()).stop_reason,
        StopReason::MaxTurnsExceeded
    );
}

#[test]
fn the_host_can_end_a_run_at_any_step() {
    let ended = |agent: &mut Agent, abort| {
        outcome(agent.handle(Input::Abort(abort)).unwrap())
            .stop_reason
            .to_string()
    };
    assert_eq!(ended(&mut agent(), Abort::BadRequest), "openai_bad_request");
    assert_eq!(ended(&mut agent(), Abort::Exception), "exception");
    let mut looking = agent();
    selection(say(&mut looking, &block(&[SCAN])));
    assert_eq!(ended(&mut looking, Abort::Exception), "exception");
    assert_eq!(looking.tally().num_rounds, 1);
}

#[test]
fn misuse_names_both_sides_and_changes_nothing() {
    let mut run = agent();
    let before = run.clone();
    let error = run.handle(Input::Selected(Ok(1))).unwrap_err();
    assert_eq!(
        error,
        Unexpected {
            expected: StepKind::Generate,
            given: InputKind::Selected
        }
    );
    assert_eq!(
        error.to_string(),
        "the agent expects `Generated` (or `Abort`) but was given `Selected`: carry out what \
         `step()` says"
    );
    assert_eq!(run, before);
    say(&mut run, "<answer>B</answer>");
    let before = run.clone();
    let error = run.handle(Input::Abort(Abort::Exception)).unwrap_err();
    assert!(error.to_string().contains("the run is over"), "{error}");
    assert_eq!(run, before);
}

#[test]
fn calls_beyond_the_limit_are_counted_and_not_run() {
    let mut agent = agent();
    let reply = block(&[SCAN; MAX_CALLS + 3]);
    say(&mut agent, &reply);
    for _ in 0..MAX_CALLS {
        agent.handle(Input::Selected(Ok(8))).unwrap();
    }
    assert_eq!(agent.step(), &Step::Generate);
    assert_eq!(agent.tally().dropped_calls, 3);
    assert_eq!(
        agent.tally().estimated_visual_tokens,
        120 * MAX_CALLS as u64
    );
}

#[test]
fn other_tools_are_called_only_where_the_host_has_them() {
    let zoom = r#"{"tool": "note", "parameters": {"x": 1}}"#;
    let reply = block(&[zoom, SCAN]);
    selection(say(&mut agent(), &reply));

    let mut agent = agent().with_other_tools();
    let Step::CallTool(call) = *say(&mut agent, &reply) else {
        panic!("{:?}", agent.step());
    };
    assert_eq!(call.name.of(&reply), Some("note"));
    assert_eq!(call.arguments.of(&reply), Some(r#"{"x": 1}"#));
    let mut failing = agent.clone();
    selection(agent.handle(Input::Returned(Ok(()))).unwrap());
    // Its success carries the failed look.
    assert_eq!(
        agent.handle(Input::Selected(Err(SelectFailed))),
        Ok(&Step::Generate)
    );

    failing
        .handle(Input::Returned(Err(ToolFailure::Failed)))
        .unwrap();
    let ended = failing.handle(Input::Selected(Err(SelectFailed))).unwrap();
    let text = "call_tool_failed; call_frame_select_failed";
    assert_eq!(outcome(ended).stop_reason.to_string(), text);
}

#[test]
fn a_tool_that_the_host_does_not_know_is_no_call() {
    let note = r#"{"tool": "note", "arguments": {}}"#;
    let mut alone = agent().with_other_tools();
    say(&mut alone, &block(&[note]));
    let ended = alone
        .handle(Input::Returned(Err(ToolFailure::Unknown)))
        .unwrap();
    assert_eq!(outcome(ended).stop_reason, StopReason::NoValidToolCall);

    let mut beside = agent().with_other_tools();
    say(&mut beside, &block(&[note, SCAN]));
    beside
        .handle(Input::Returned(Err(ToolFailure::Unknown)))
        .unwrap();
    let ended = beside.handle(Input::Selected(Err(SelectFailed))).unwrap();
    assert_eq!(
        outcome(ended).stop_reason.to_string(),
        "call_frame_select_failed"
    );
}

#[test]
fn an_agent_is_small() {
    // On a 32-bit core it is smaller still: see tests/no_std.
    assert!(size_of::<Agent>() <= 640, "{}", size_of::<Agent>());
}

#[test]
fn failures_that_the_model_is_told_of_do_not_end_the_run() {
    let rules = Rules::published().with_failed_calls(FailedCalls::TellModel);
    let mut agent = Agent::new(rules, VIDEO).with_other_tools();
    let raises = r#"{"start_time": 1, "end_time": 2, "nframes": null}"#;
    for call in ["{x}", r#"{"start_time": 0}"#, raises] {
        assert_eq!(
            say(&mut agent, &block(&[&frame_select(call)])),
            &Step::Generate
        );
    }
    // Beside one that raises, the others are carried out.
    selection(say(&mut agent, &block(&[&frame_select(raises), SCAN])));
    agent.handle(Input::Selected(Err(SelectFailed))).unwrap();
    say(
        &mut agent,
        &block(&[r#"{"tool": "note", "arguments": {}}"#]),
    );
    let step = agent
        .handle(Input::Returned(Err(ToolFailure::Unknown)))
        .unwrap();
    assert_eq!(step, &Step::Generate);
    // Each costs a turn all the same.
    let end = say(&mut agent, &block(&[&frame_select("{x}")]));
    assert_eq!(outcome(end).stop_reason, StopReason::MaxTurnsExceeded);

    let mut agent = Agent::new(rules, VIDEO);
    assert_eq!(
        outcome(say(&mut agent, &block(&["{}"]))).stop_reason,
        StopReason::NoValidToolCall
    );
}

#[test]
fn a_run_never_spends_more_visual_tokens_than_it_has() {
    // One scan fits; the second is cut to what is left, as over the budget of a call.
    let rules = Rules::published().with_max_run_visual_tokens(200);
    let mut agent = Agent::new(rules, VIDEO);
    assert_eq!(
        selection(say(&mut agent, &block(&[SCAN]))).visual_tokens(),
        120
    );
    agent.handle(Input::Selected(Ok(8))).unwrap();
    assert_eq!(agent.visual_tokens_left(), 80);
    let cut = selection(say(&mut agent, &block(&[SCAN])));
    assert!(cut.nframes < 8 && cut.visual_tokens() <= 80, "{cut:?}");

    let mut agent = Agent::new(rules.with_max_run_visual_tokens(0), VIDEO);
    let end = say(&mut agent, &block(&[SCAN]));
    assert_eq!(outcome(end).stop_reason.to_string(), "visual_budget_spent");
}

#[test]
fn pictures_of_a_tool_count_and_must_fit() {
    let rules = Rules::published().with_max_run_visual_tokens(100);
    let mut agent = Agent::new(rules, VIDEO).with_other_tools();
    let crop = r#"{"tool": "crop", "arguments": {}}"#;
    say(&mut agent, &block(&[crop, crop]));
    let images = Input::ReturnedImages {
        images: 2,
        visual_tokens: 60,
    };
    agent.handle(images).unwrap();
    assert_eq!((agent.tally().frames, agent.visual_tokens_left()), (2, 40));
    assert_eq!(agent.handle(images), Ok(&Step::Generate));
    let states: Vec<CallState> = agent.calls().map(|call| call.state).collect();
    let refused = CallState::Failed(CallError::VisualBudgetSpent);
    assert_eq!(states, [CallState::Done(2), refused]);
    assert_eq!((agent.tally().frames, agent.visual_tokens_left()), (2, 40));
}

#[test]
fn stop_reasons_are_read_back_from_their_names() {
    for name in [
        "answer_found",
        "no_answer_no_tool_call",
        "no_valid_tool_call",
        "max_turns_exceeded",
        "exception",
        "openai_bad_request",
        "cancelled",
        "deadline_exceeded",
        "no_nframes",
        "visual_budget_spent",
        "no_nframes; arguments_not_json",
    ] {
        let reason: StopReason = name.parse().unwrap();
        assert_eq!(reason.to_string(), name);
        let settled = [
            "answer_found",
            "no_answer_no_tool_call",
            "no_valid_tool_call",
            "max_turns_exceeded",
        ];
        assert_eq!(reason.is_settled(), settled.contains(&name), "{name}");
    }
    for name in [
        "",
        "answered",
        "no_nframes;no_nframes",
        "no_nframes; ",
        "; no_nframes",
        "answer_found; exception",
    ] {
        assert!(name.parse::<StopReason>().is_err(), "{name}");
    }
    assert!(
        ["no_nframes"; MAX_CALLS + 1]
            .join("; ")
            .parse::<StopReason>()
            .is_err()
    );
}

#[cfg(feature = "serde")]
#[test]
fn a_run_can_be_stored_and_carried_on() {
    let mut run = agent();
    selection(say(&mut run, &block(&[SCAN, ZOOM])));
    let stored = serde_json::to_string(&run).unwrap();
    let mut restored: Agent = serde_json::from_str(&stored).unwrap();
    assert_eq!(run, restored);
    restored.handle(Input::Selected(Ok(8))).unwrap();
    restored.handle(Input::Selected(Err(SelectFailed))).unwrap();
    let end = outcome(say(&mut restored, "<answer>B</answer>"));
    let end: Outcome = serde_json::from_value(serde_json::to_value(end).unwrap()).unwrap();
    assert_eq!(end.stop_reason, StopReason::AnswerFound);
}

fn reply() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::collection::vec(
            prop_oneof![
                Just(SCAN.to_string()),
                Just(ZOOM.to_string()),
                Just(r#"{"tool": "note", "arguments": {}}"#.to_string()),
                r#"[0-9eE.+-]{1,6}|null|NaN|true|"a"|\[\]"#.prop_map(|n| frame_select(&format!(
                    r#"{{"start_time": {n}, "end_time": 9, "nframes": {n}, "resize": {n}}}"#
                ))),
                any::<String>().prop_map(|text| frame_select(&text)),
            ],
            0..20,
        )
        .prop_map(|calls| format!("<tool_call>{}</tool_call>", calls.concat())),
        1 => any::<String>(),
        1 => any::<String>().prop_map(|text| format!("<answer>{text}</answer>")),
    ]
}

#[derive(Debug, Clone)]
enum Given {
    Reply(String, u32),
    Selected(Result<u32, ()>),
    Returned(Option<bool>),
    Images(u32, u64),
    Abort(Abort),
}

fn given() -> impl Strategy<Value = Given> {
    prop_oneof![
        6 => (reply(), any::<u32>()).prop_map(|(reply, tokens)| Given::Reply(reply, tokens)),
        9 => any::<Result<u32, ()>>().prop_map(Given::Selected),
        6 => any::<Option<bool>>().prop_map(Given::Returned),
        3 => (any::<u32>(), prop_oneof![0..500u64, any::<u64>()])
            .prop_map(|(images, tokens)| Given::Images(images, tokens)),
        1 => prop_oneof![
            Just(Abort::BadRequest),
            Just(Abort::Cancelled),
            Just(Abort::DeadlineExceeded),
            Just(Abort::Exception),
        ]
        .prop_map(Given::Abort),
    ]
}

proptest! {
    #[test]
    fn any_input_in_any_order_leaves_a_sound_agent(
        inputs in prop::collection::vec(given(), 0..60),
        other_tools: bool,
        tells: bool,
        budget in prop_oneof![Just(Rules::UNLIMITED), 0..3000u64],
        max_turns in 0u32..9,
    ) {
        let failed_calls = if tells { FailedCalls::TellModel } else { FailedCalls::EndRun };
        let rules = Rules::published()
            .with_max_turns(max_turns)
            .with_max_run_visual_tokens(budget)
            .with_failed_calls(failed_calls);
        let mut agent = Agent::new(rules, VIDEO);
        if other_tools {
            agent = agent.with_other_tools();
        }
        for given in &inputs {
            let input = match given {
                Given::Reply(reply, tokens) => Input::Generated {
                    reply,
                    usage: Usage { prompt: *tokens, cached: 0, completion: *tokens },
                },
                Given::Selected(result) => Input::Selected(result.map_err(|()| SelectFailed)),
                Given::Returned(Some(true)) => Input::Returned(Ok(())),
                Given::Returned(Some(false)) => Input::Returned(Err(ToolFailure::Failed)),
                Given::Returned(None) => Input::Returned(Err(ToolFailure::Unknown)),
                Given::Images(images, visual_tokens) => Input::ReturnedImages {
                    images: *images,
                    visual_tokens: *visual_tokens,
                },
                Given::Abort(abort) => Input::Abort(*abort),
            };
            let before = agent.clone();
            let fits = matches!(
                (before.step().kind(), input.kind()),
                (StepKind::Generate, InputKind::Generated | InputKind::Abort)
                    | (StepKind::SelectFrames, InputKind::Selected | InputKind::Abort)
                    | (
                        StepKind::CallTool,
                        InputKind::Returned | InputKind::ReturnedImages | InputKind::Abort,
                    )
            );
            let result = agent.handle(input).is_ok();
            prop_assert_eq!(result, fits);
            if !fits {
                prop_assert_eq!(&agent, &before);
            }
            prop_assert!(agent.tally().num_rounds <= max_turns);
            prop_assert!(agent.tally().estimated_visual_tokens <= budget);
            prop_assert!(agent.calls().len() <= MAX_CALLS);
            match agent.step() {
                Step::Done(outcome) => {
                    prop_assert!(!tells || !matches!(outcome.stop_reason, StopReason::CallsFailed(_)));
                    let found = outcome.stop_reason == StopReason::AnswerFound;
                    prop_assert_eq!(outcome.answer.is_some(), found);
                    prop_assert_eq!(&outcome.tally, agent.tally());
                    let name = outcome.stop_reason.to_string();
                    prop_assert_eq!(name.parse(), Ok(outcome.stop_reason.clone()));
                }
                Step::CallTool(_) => prop_assert!(other_tools),
                Step::Generate | Step::SelectFrames(_) => {}
            }
        }
    }
}

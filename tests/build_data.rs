//! The example `build_data` as a person runs it: each stage on synthetic worlds, with scripted
//! policies that misbehave, killed and carried on.
#![cfg(all(feature = "gst", feature = "data"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use eva::data::{Label, Pair, PairFile, Reason, Rejected, Sample};
use serde_json::{Value, json};

/// No run of a test may take longer.
const DEADLINE: Duration = Duration::from_secs(120);

fn program(arguments: &[&str], out: &Path) -> Command {
    let mut command = Command::new(common::example("build_data"));
    command.args(arguments).arg("--out").arg(out);
    command.stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn succeed(arguments: &[&str], out: &Path) -> String {
    let output = program(arguments, out).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

fn lines<T: serde::de::DeserializeOwned>(out: &Path, name: &str) -> Vec<T> {
    let text = fs::read_to_string(out.join(name)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn summary(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap()
}

/// A script with the replies of one run a line, as the argument that names it.
fn script(dir: &Path, runs: &[&[&str]]) -> String {
    let path = dir.join("script.jsonl");
    let lines: Vec<String> = runs.iter().map(|run| json!(run).to_string()).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    format!("script:{}", path.display())
}

fn call(start: u32, end: u32, nframes: u32, resize: f64) -> String {
    format!(
        "<tool_call>{{\"tool\": \"frame_select\", \"arguments\": {{\"start_time\": {start}, \
         \"end_time\": {end}, \"nframes\": {nframes}, \"resize\": {resize}}}}}</tool_call>"
    )
}

const EXPERT: [&str; 3] = ["sft", "--policy", "expert"];

fn sft<'a>(items: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = EXPERT.to_vec();
    arguments.extend(["--items", items, "--seed", "7"]);
    arguments.extend(more);
    arguments
}

#[test]
fn sft_keeps_right_runs_and_cut_ones_and_says_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sft");
    let printed = succeed(&sft("world:1:12", &["--concurrency", "2"]), &out);
    for part in [
        "Made       20 (20 open_ended)",
        "8 with evidence cut",
        "Rejected   0",
    ] {
        assert!(printed.contains(part), "no {part:?} in {printed}");
    }
    let samples: Vec<Sample> = lines(&out, "data.jsonl");
    assert_eq!(samples.len(), 20);
    assert!(
        samples
            .windows(2)
            .all(|pair| pair[0].index <= pair[1].index)
    );
    let summary = summary(&out);
    assert_eq!(
        (&summary["made"], &summary["complete"]),
        (&json!(20), &json!(true))
    );
    assert_eq!(summary["settings"]["seed"], 7);
    assert_eq!(lines::<Rejected>(&out, "rejected.jsonl"), []);
}

#[test]
fn killed_at_any_moment_it_ends_with_the_same_data() {
    let dir = tempfile::tempdir().unwrap();
    let (killed, whole) = (dir.path().join("killed"), dir.path().join("whole"));
    let arguments = sft("world:1:300", &["--concurrency", "2"]);
    succeed(&arguments, &whole);
    let done = || {
        let bytes = fs::read(killed.join("runs.jsonl")).unwrap_or_default();
        bytes.iter().filter(|byte| **byte == b'\n').count()
    };
    let mut kills = 0;
    for round in 0..10 {
        let before = done();
        let mut child = program(&arguments, &killed)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while done() <= before + round && child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < DEADLINE, "nothing happens");
        }
        child.kill().unwrap();
        kills += u32::from(!child.wait().unwrap().success());
        assert!(done() >= before);
    }
    assert!(kills > 3, "{kills}");
    succeed(&arguments, &killed);
    for name in ["data.jsonl", "rejected.jsonl", "summary.json"] {
        let read = |out: &Path| fs::read(out.join(name)).unwrap();
        assert!(read(&killed) == read(&whole), "{name} differs");
    }
}

#[test]
fn an_interrupt_finishes_what_runs_writes_the_data_and_exits_with_130() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sft");
    let child = program(&sft("world:1:20000", &[]), &out)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let done = || {
        let bytes = fs::read(out.join("runs.jsonl")).unwrap_or_default();
        bytes.iter().filter(|byte| **byte == b'\n').count()
    };
    let began = Instant::now();
    while done() < 4 {
        assert!(began.elapsed() < DEADLINE, "nothing happens");
    }
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("start the same command again"));
    assert_eq!(summary(&out)["complete"], false);
    let samples: Vec<Sample> = lines(&out, "data.jsonl");
    let whole = |sample: &&Sample| sample.provenance.cut_turn.is_none();
    assert_eq!(samples.iter().filter(whole).count(), done());
}

#[test]
fn kto_labels_by_rule_and_judge_balances_and_spreads() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("kto");
    let sharp = call(60, 62, 1, 1.0);
    let dense = call(60, 64, 100, 1.0);
    // None of them is right but by luck, so that most labels are known.
    let policy = script(
        dir.path(),
        &[
            &["<answer>eleven</answer>"],
            &[&sharp, "<answer>eleven</answer>"],
            &[&dense, "nothing"],
        ],
    );
    let arguments = [
        "kto",
        "--items",
        "world:1:6:absent",
        "--rollouts",
        "3",
        "--policy",
        &policy,
    ];
    let printed = succeed(&arguments, &out);
    assert!(printed.contains("18 undesirable"), "{printed}");
    assert!(
        printed.contains("all runs have the same label"),
        "{printed}"
    );
    let samples: Vec<Sample> = lines(&out, "data.jsonl");
    assert!(samples.windows(2).all(|pair| pair[0].item != pair[1].item));
    for sample in &samples {
        let expected: &[Reason] = match sample.provenance.rollout {
            0 => &[Reason::NoFrames, Reason::WrongAnswer],
            1 => &[Reason::WrongAnswer],
            _ => &[Reason::NoAnswer, Reason::TooDense],
        };
        assert_eq!(sample.reasons, expected);
        assert_eq!(sample.label, Some(Label::Undesirable));
    }
}

#[test]
fn kto_meets_the_share_when_both_labels_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("kto");
    // "none" is right for colours that are not there, and a guess after one frame; the scan is
    // evidence.
    let scan = call(0, 900, 48, 0.1);
    let sharp = call(0, 4, 1, 1.0);
    let policy = script(
        dir.path(),
        &[
            &[&scan, "<answer>none</answer>"],
            &[&sharp, "<answer>none</answer>"],
            &[&scan, "<answer>none</answer>"],
            &[&scan, "<answer>none</answer>"],
        ],
    );
    let arguments = [
        "kto",
        "--items",
        "world:1:20:absent",
        "--rollouts",
        "4",
        "--policy",
        &policy,
        "--share",
        "0.5",
    ];
    succeed(&arguments, &out);
    let summary = summary(&out);
    assert_eq!(summary["labelled"], 80);
    assert_eq!(
        summary["labels"],
        json!({"desirable": 20, "undesirable": 20})
    );
    assert_eq!(summary["undesirable_by_reason"], json!({"guessed": 20}));
    assert_eq!(summary["neighbours_of_one_question"], 0);
    let samples: Vec<Sample> = lines(&out, "data.jsonl");
    assert!(samples.windows(2).all(|pair| pair[0].item != pair[1].item));
}

#[test]
fn a_judge_that_talks_is_kept_aside_with_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("kto");
    let judge = script(
        dir.path(),
        &[&["I think so"], &["GUESSED"], &["maybe"], &["?"], &["!"]],
    );
    let arguments = [
        "kto",
        "--items",
        "world:1:2",
        "--policy",
        "expert",
        "--judge",
        &judge,
    ];
    succeed(&arguments, &out);
    let samples: Vec<Sample> = lines(&out, "data.jsonl");
    assert_eq!(samples.len(), 1);
    assert_eq!(samples[0].reasons, [Reason::Guessed]);
    let rejected: Vec<Rejected> = lines(&out, "rejected.jsonl");
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].reason, Reason::JudgeMalformed);
    assert!(
        rejected[0].detail.contains("maybe | ? | !"),
        "{}",
        rejected[0].detail
    );
    assert!(rejected[0].trajectory.is_some());
}

#[test]
fn rl_writes_checked_questions_about_unseen_worlds_from_what_failed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("rl");
    // Right only where the answer is that there is no such card.
    let scan = call(0, 900, 48, 0.1);
    let policy = script(dir.path(), &[&[&scan, "<answer>none</answer>"]]);
    let arguments = [
        "rl",
        "--items",
        "world:1:6",
        "--policy",
        &policy,
        "--unseen",
        "5",
        "--concurrency",
        "2",
    ];
    let printed = succeed(&arguments, &out);
    assert!(printed.contains("failures 5"), "{printed}");
    let pairs: Vec<Pair> = lines(&out, "data.jsonl");
    assert!((5..=15).contains(&pairs.len()), "{}", pairs.len());
    // What is written can be asked.
    let asked = PairFile::read(out.join("data.jsonl")).unwrap();
    assert_eq!((asked.pairs.len(), asked.bad), (pairs.len(), 0));
    for pair in &pairs {
        assert_ne!(pair.extras["question_type"], "absent");
        assert_eq!(pair.extras["provenance"]["teacher"], "expert");
        let seed: u64 = pair.video["world-".len()..pair.video.len() - 4]
            .parse()
            .unwrap();
        assert!((2..7).contains(&seed), "{seed}");
    }
    let again = dir.path().join("again");
    succeed(&arguments, &again);
    assert_eq!(lines::<Pair>(&again, "data.jsonl"), pairs);
}

#[test]
fn a_teacher_that_writes_no_json_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("rl");
    let good = json!([
        {"question": "What is it?", "answer": "a card"},
        {"question": "what is it", "answer": "a card"},
        {"question": "Who is it?", "answer": 3},
    ]);
    let good = good.to_string();
    let replies = script(
        dir.path(),
        &[
            &["Sure!"],
            &["[{]"],
            &["[]"],
            &[&good],
            &["<answer>a fish</answer>"],
        ],
    );
    let arguments = [
        "rl",
        "--items",
        "world:1:1:find",
        "--policy",
        &replies,
        "--teacher",
        &replies,
        "--unseen",
        "2",
    ];
    let printed = succeed(&arguments, &out);
    assert!(printed.contains("failures 1"), "{printed}");
    assert_eq!(lines::<Pair>(&out, "data.jsonl"), []);
    let rejected: Vec<Rejected> = lines(&out, "rejected.jsonl");
    let count = |reason| rejected.iter().filter(|one| one.reason == reason).count();
    // Three replies without questions; then one with two questions that it can't answer itself.
    assert_eq!(count(Reason::TeacherMalformed), 2, "{rejected:?}");
    assert_eq!(
        count(Reason::Unanswerable) + count(Reason::Duplicate),
        2,
        "{rejected:?}"
    );
    assert_eq!(summary(&out)["complete"], true);
}

#[test]
fn questions_of_a_file_are_asked_about_the_videos_in_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let items = dir.path().join("pairs.jsonl");
    let line = json!({
        "video": "/else/gone.mp4", "question": "Who?", "options": ["a dog", "a cat"],
        "answer": "a dog", "kind": "multiple_choice",
    });
    fs::write(&items, format!("{line}\nnonsense\n")).unwrap();
    let policy = script(dir.path(), &[&["<answer>A</answer>"]]);
    let (items, videos) = (items.to_str().unwrap(), dir.path().to_str().unwrap());
    let out = dir.path().join("out");
    let arguments = [
        "kto", "--items", items, "--videos", videos, "--policy", &policy,
    ];
    let output = program(&arguments, &out).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("line 2: not a question"));
    // A missing video fails its item alone, and is named.
    let rejected: Vec<Rejected> = lines(&out, "rejected.jsonl");
    assert_eq!(rejected[0].reason, Reason::Failed);
    assert!(
        rejected[0].detail.contains("gone.mp4"),
        "{}",
        rejected[0].detail
    );
}

#[test]
fn of_billions_of_questions_only_those_that_are_chosen_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("rl");
    let policy = script(dir.path(), &[&["<answer>eleven</answer>"]]);
    let arguments = [
        "rl",
        "--items",
        "world:1:4294967295:at",
        "--limit",
        "2",
        "--policy",
        &policy,
    ];
    let mut child = program(&arguments, &out)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() && began.elapsed() < DEADLINE / 2 {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Before it takes all memory.
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // All worlds but one have questions: it alone is unseen.
    let summary = summary(&out);
    assert_eq!(
        (&summary["played"], &summary["unseen_videos"]),
        (&json!(2), &json!(1))
    );
    for pair in lines::<Pair>(&out, "data.jsonl") {
        assert_eq!(pair.video, "world-0.mp4");
    }
}

#[test]
fn a_run_that_nobody_listens_to_is_still_done() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sft");
    let limited = ["--limit", "2", "--concurrency", "2"];
    succeed(&sft("world:1:40", &limited), &out);
    let (reader, nobody) = std::io::pipe().unwrap();
    drop(reader);
    // That it goes on is the first thing that it says.
    let status = program(&sft("world:1:40", &["--concurrency", "2"]), &out)
        .stdout(Stdio::null())
        .stderr(nobody)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(summary(&out)["complete"], true);
    let samples: Vec<Sample> = lines(&out, "data.jsonl");
    assert_eq!(samples.last().unwrap().index, 39);
}

#[test]
fn bad_usage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for (arguments, code, message) in [
        (&["sft"][..], 2, "--items"),
        (
            &["sft", "--items", "world:1:3", "--policy", "magic"],
            2,
            "script:",
        ),
        (&["kto", "--items", "world:1:3", "--share", "63"], 2, "0.63"),
        (&["sft", "--items", "world:one:3"], 1, "world:1:60"),
        (
            &["sft", "--items", "world:1:3", "--temperature", "-1"],
            2,
            "--temperature",
        ),
        (
            &["sft", "--items", "world:1:3", "--temperature", "nan"],
            2,
            "from 0 on",
        ),
        (
            &["sft", "--items", "world:1:3", "--temperature=inf"],
            2,
            "from 0 on",
        ),
        (
            &["sft", "--items", "/no/such.jsonl", "--videos", "."],
            1,
            "/no/such.jsonl",
        ),
        (
            &[
                "sft",
                "--items",
                "world:1:3",
                "--policy",
                "script:/no/script",
            ],
            1,
            "/no/script",
        ),
    ] {
        let output = program(arguments, &out).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(message), "{arguments:?}: {said}");
    }
    succeed(&sft("world:1:3", &[]), &out);
    let other = program(&sft("world:2:3", &[]), &out).output().unwrap();
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stderr).contains("choose another folder"));
}

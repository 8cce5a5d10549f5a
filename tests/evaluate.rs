//! The example `evaluate` as a person runs it, killed at random, interrupted, resumed.
#![cfg(feature = "gst")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[cfg(feature = "hub")]
#[path = "common/hub.rs"]
#[allow(dead_code)]
mod hub;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use eva::evaluate::{Record, RecordReader};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// No run of a test may take longer.
const DEADLINE: Duration = Duration::from_secs(120);

fn program() -> Command {
    let mut command = Command::new(common::example("evaluate"));
    command.stdin(Stdio::null());
    command
}

fn evaluate(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs the expert on synthetic worlds and expects success.
#[track_caller]
fn expert(items: &str, out: &Path, more: &[&str]) -> String {
    let out = out.to_str().unwrap();
    let mut arguments = vec!["--policy", "expert", "--items", items, "--out", out];
    arguments.extend(more);
    let output = evaluate(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// The records without the times, each of which must be there once.
fn records(out: &Path) -> BTreeMap<u64, Record> {
    let lines = fs::read_to_string(out.join("results.jsonl")).unwrap();
    let reader = RecordReader::open(out).unwrap();
    assert_eq!(reader.broken(), 0);
    let records: BTreeMap<u64, Record> = reader
        .map(|record| {
            let record = Record {
                seconds_model: 0.0,
                seconds_decoder: 0.0,
                ..record.unwrap()
            };
            (record.index, record)
        })
        .collect();
    assert_eq!(
        lines.lines().count(),
        records.len(),
        "a record is there twice"
    );
    records
}

#[test]
fn killed_at_fifty_random_moments_it_loses_nothing_and_doubles_nothing() {
    /// Far more than are done before the last kill, since each takes many frames.
    const BASELINE: &str = "uniform:32";
    const ITEMS: &str = "world:1:1000:absent";
    let dir = tempfile::tempdir().unwrap();
    let (killed, whole) = (dir.path().join("killed"), dir.path().join("whole"));
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut before = 0;
    let mut grown = 0;
    for kill in 0..50 {
        let mut child = program()
            .args([
                "--policy",
                "expert",
                "--concurrency",
                "2",
                "--items",
                ITEMS,
                "--out",
            ])
            .arg(&killed)
            .args(["--baseline", BASELINE])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Now and then while it opens the results, else while it adds to them.
        if kill % 5 > 0 {
            wait_for(|| lines(&killed) > before || child.try_wait().unwrap().is_some());
        }
        std::thread::sleep(Duration::from_micros(rng.random_range(0..5_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = lines(&killed);
        assert!(now >= before, "{now} records are left of {before}");
        grown += u32::from(now > before);
        before = now;
    }
    // Else the kills came before there was anything to lose.
    assert!(grown >= 40 && before < 1000, "{grown} {before}");
    let rest = ["--baseline", BASELINE];
    expert(ITEMS, &killed, &rest);
    expert(ITEMS, &whole, &rest);
    assert_eq!(records(&killed).len(), 1000);
    assert_eq!(records(&killed), records(&whole));
}

fn lines(out: &Path) -> usize {
    let bytes = fs::read(out.join("results.jsonl")).unwrap_or_default();
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fn wait_for(mut ready: impl FnMut() -> bool) {
    let began = Instant::now();
    while !ready() {
        assert!(began.elapsed() < DEADLINE, "nothing happens");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_interrupt_finishes_what_runs_writes_the_summary_and_exits_with_130() {
    let dir = tempfile::tempdir().unwrap();
    let child = program()
        .args([
            "--policy",
            "expert",
            "--items",
            "world:1:100000",
            "--limit",
            "5000",
            "--out",
        ])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(|| lines(dir.path()) > 3);
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("start the same command again"));
    assert!(text(&output.stdout).contains("Accuracy"));
    let summary = fs::read(dir.path().join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    assert_eq!(summary["complete"], false);
    assert_eq!(summary["items"], records(dir.path()).len());
}

#[test]
fn the_summary_names_accuracy_interval_categories_ends_and_costs() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a");
    let printed = expert(
        "world:1:30",
        &out,
        &["--save-trajectories", "--concurrency", "3"],
    );
    for part in [
        "Accuracy   100.0% (30 of 30), 88.6 to 100.0%",
        "visual tokens",
        "by question_type",
        "  absent      100.0% (5 of 5)",
        "by duration",
        "30 answer_found",
    ] {
        assert!(printed.contains(part), "no {part:?} in {printed}");
    }
    assert_eq!(fs::read_dir(out.join("trajectories")).unwrap().count(), 30);
    let chart = fs::read_to_string(out.join("chart.svg")).unwrap();
    assert!(chart.starts_with("<svg") && chart.contains("expert (30 items)"));
    let summary = fs::read(out.join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    assert_eq!(summary["categories"]["question_type"]["at"]["correct"], 5);
    assert_eq!(summary["complete"], true);
}

#[test]
fn another_process_and_another_run_are_refused_in_the_same_folder() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    expert("world:1:3", dir.path(), &[]);
    let other = evaluate(&["--policy", "expert", "--items", "world:2:3", "--out", out]);
    assert_eq!(other.status.code(), Some(1));
    assert!(
        text(&other.stderr).contains("choose another folder"),
        "{}",
        text(&other.stderr)
    );
    let lock = fs::File::open(dir.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let second = evaluate(&["--policy", "expert", "--items", "world:1:3", "--out", out]);
    assert_eq!(second.status.code(), Some(1));
    assert!(
        text(&second.stderr).contains("another process"),
        "{}",
        text(&second.stderr)
    );
}

#[test]
fn two_runs_are_compared_on_the_items_both_have() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    expert("world:1:12", &a, &[]);
    // The expert's first reply is a call, or none; the baseline has no tool.
    expert(
        "world:1:12",
        &b,
        &["--baseline", "uniform:2:0.2", "--limit", "9"],
    );
    let output = evaluate(&["--compare", a.to_str().unwrap(), b.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert!(
        printed.contains("on the 9 items that both have"),
        "{printed}"
    );
    assert!(
        printed.contains("right in A alone: 9, in B alone: 0; p = 0.0039"),
        "{printed}"
    );
}

fn write_items(dir: &Path) -> PathBuf {
    let line = |video: &str, truth: &str| {
        serde_json::json!({
            "videos": [format!("/somewhere/else/{video}")],
            "prompt": [{"role": "user", "content": "Who?"}],
            "reward_model": {"ground_truth": truth},
        })
        .to_string()
    };
    let path = dir.join("my_lsdbench_items.jsonl");
    let lines = [
        line("x.mp4", "A"),
        line("gone.mp4", "@"),
        "{\"half".to_owned(),
    ];
    fs::write(&path, lines.join("\n")).unwrap();
    fs::write(dir.join("x.mp4"), "not a video").unwrap();
    path
}

#[test]
fn a_check_names_missing_videos_odd_answers_and_bad_lines() {
    let dir = tempfile::tempdir().unwrap();
    let items = write_items(dir.path());
    let videos = dir.path().to_str().unwrap();
    let output = evaluate(&[
        "--check",
        "--items",
        items.to_str().unwrap(),
        "--videos",
        videos,
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    for part in [
        "LSDBench, 1304 items",
        "Items      2",
        "Unmatched  1 ",
        "Missing    1 videos",
        "/somewhere/else/gone.mp4",
        "Bad lines  1",
        "line 3: not a JSON object",
    ] {
        assert!(printed.contains(part), "no {part:?} in {printed}");
    }
    let fine = evaluate(&["--check", "--items", "world:1:5"]);
    assert_eq!(fine.status.code(), Some(0));
}

#[test]
fn real_files_are_made_of_worlds_and_give_the_same_answers() {
    let dir = tempfile::tempdir().unwrap();
    let printed = expert("world:3:1:at", dir.path(), &["--encode"]);
    assert!(printed.contains("100.0% (1 of 1)"), "{printed}");
    let videos: Vec<_> = fs::read_dir(dir.path().join("videos")).unwrap().collect();
    assert_eq!(videos.len(), 1);
    assert_eq!(records(dir.path())[&0].frames, 1);
}

#[test]
fn items_of_a_file_find_their_videos_and_are_tried_again_when_they_failed() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made");
    expert("world:3:2:at", &made, &["--encode"]);
    let mut files = fs::read_dir(made.join("videos")).unwrap();
    let mut video = || files.next().unwrap().unwrap().path();
    let (there, later) = (video(), video());

    let videos = dir.path().join("videos");
    fs::create_dir_all(videos.join("part")).unwrap();
    fs::rename(there, videos.join("part/x.mp4")).unwrap();
    let lines = ["/data/all/part/x.mp4", "/data/all/y.mp4"].map(|video| {
        serde_json::json!({
            "videos": [video],
            "prompt": [{"role": "user", "content": "Who?\\n(A) Ann"}],
            "reward_model": {"style": "rule", "ground_truth": "A", "reward_fn": "video_crop"},
            "question_type": "['person']",
        })
        .to_string()
    });
    let items = dir.path().join("items.jsonl");
    fs::write(&items, lines.join("\n")).unwrap();
    let out = dir.path().join("out");
    let run = |more: &[&str]| {
        let mut command = program();
        command
            .arg("--items")
            .arg(&items)
            .arg("--videos")
            .arg(&videos);
        command
            .arg("--out")
            .arg(&out)
            .args(["--frame-rule", "published"]);
        let output = command
            .args(["--baseline", "uniform:2:0.1"])
            .args(more)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        (
            text(&output.stdout).to_owned(),
            text(&output.stderr).to_owned(),
        )
    };

    let (printed, lines) = run(&[]);
    assert!(lines.contains("\n2/2 items, "), "{lines}");
    assert!(printed.contains("--retry-error"), "{printed}");
    let before = records(&out);
    assert_eq!((before[&0].frames, before[&1].frames), (2, 0));
    assert!(before[&0].video_seconds > 60.0 && before[&0].is_settled());
    assert!(
        before[&1]
            .error
            .as_ref()
            .unwrap()
            .contains("/data/all/y.mp4")
    );

    fs::rename(later, videos.join("y.mp4")).unwrap();
    run(&[]);
    assert_eq!(records(&out), before);
    let (_, lines) = run(&["--retry-error"]);
    assert!(
        lines.contains("1 ended by an error and are tried again"),
        "{lines}"
    );
    let after = records(&out);
    assert_eq!((after[&1].frames, &after[&0]), (2, &before[&0]));
    assert!(after[&1].is_settled());
}

#[test]
fn of_billions_of_items_only_those_that_are_chosen_are_made() {
    for more in [&[][..], &["--seed", "5"]] {
        let mut child = program()
            .args(["--items", "world:1:4294967295", "--check", "--limit", "3"])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() && began.elapsed() < DEADLINE / 6 {
            std::thread::sleep(Duration::from_millis(10));
        }
        // Before it takes all memory.
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let printed = text(&output.stdout);
        assert!(printed.contains("3 of 4294967295"), "{more:?}: {printed:?}");
    }
}

#[test]
fn a_limit_with_a_seed_chooses_the_same_items_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let chosen = |name: &str, seed: &str| -> Vec<u64> {
        let out = dir.path().join(name);
        expert("world:1:60", &out, &["--limit", "5", "--seed", seed]);
        records(&out).into_keys().collect()
    };
    let first = chosen("first", "3");
    assert_eq!(first.len(), 5);
    assert_ne!(first, [0, 1, 2, 3, 4]);
    assert_eq!(chosen("again", "3"), first);
    assert_ne!(chosen("other", "4"), first);
}

#[test]
fn a_run_that_nobody_listens_to_is_still_done() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, nobody) = std::io::pipe().unwrap();
    drop(reader);
    let status = program()
        .args(["--policy", "expert", "--items", "world:1:3", "--out"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(nobody)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(records(dir.path()).len(), 3);
}

#[test]
fn bad_usage_is_named() {
    for (arguments, code, message) in [
        (&["--items", "world:1:5"][..], 2, "--out"),
        (&["--out", "x"], 2, "--items"),
        (
            &["--items", "world:1:5", "--out", "x", "--policy", "magic"],
            2,
            "burn:",
        ),
        (
            &["--items", "world:1:5", "--out", "x", "--baseline", "all"],
            2,
            "uniform:32",
        ),
        (
            &["--items", "world:1:5", "--out", "x", "--seed", "3"],
            2,
            "--limit",
        ),
        (&["--items", "world:one:5", "--check"], 1, "world:1:60"),
        (
            &["--items", "/no/such.jsonl", "--check"],
            1,
            "/no/such.jsonl",
        ),
        (&["--compare", "/no/a", "/no/b"], 1, "/no/a"),
    ] {
        let output = evaluate(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(message), "{arguments:?}: {said}");
    }
}

#[cfg(feature = "hub")]
#[test]
fn a_policy_from_a_hub_is_recorded_by_its_commit() {
    let model = tempfile::tempdir().unwrap();
    eva::burn::bundled::unpack(model.path()).unwrap();
    let files: Vec<(String, Vec<u8>)> = fs::read_dir(model.path())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    let files: Vec<(&str, Vec<u8>)> = files
        .iter()
        .map(|(name, content)| (name.as_str(), content.clone()))
        .collect();
    let server = hub::FakeHub::new(&files);
    let dir = tempfile::tempdir().unwrap();
    let (cache, out) = (dir.path().join("cache"), dir.path().join("out"));
    let run = || {
        program()
            .args(["--items", "world:1:2", "--policy"])
            .arg(format!("hf:{}", hub::MODEL))
            .arg("--out")
            .arg(&out)
            .env("HF_ENDPOINT", server.url())
            .env("HF_HOME", &cache)
            .output()
            .unwrap()
    };
    let output = run();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let summary = fs::read_to_string(out.join("summary.json")).unwrap();
    let pinned = format!("hf:{}@{}", hub::MODEL, hub::COMMIT);
    assert!(summary.contains(&pinned), "{summary}");
    assert_eq!(records(&out).len(), 2);
    // It goes on as the same run.
    let output = run();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

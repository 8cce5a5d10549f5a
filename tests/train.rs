//! The example `train`, in miniature.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/train.rs"]
mod program;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use eva::world::Kind;
use program::{finished, lines};
use serde_json::Value;

fn command(stage: &str, dir: &Path, seed: &str) -> Command {
    let mut command = Command::new(common::example("train"));
    command
        .args([stage, "--sight-steps", "2", "--batch", "2"])
        .args(["--seed", seed, "--out"])
        .arg(dir);
    command
}

/// Runs a stage of a few steps in `dir` and gives what it printed.
fn stage(stage: &str, dir: &Path, seed: &str) -> String {
    let mut command = command(stage, dir, seed);
    finished(command.args(["--sft-steps", "2"]).output().unwrap())
}

fn weights(dir: &Path, stage: &str) -> Vec<u8> {
    fs::read(dir.join(stage).join("model.safetensors")).unwrap()
}

/// Two steps of GRPO, the second with questions made from failures.
const FEW: [&str; 8] = [
    "--grpo-steps",
    "2",
    "--prompts",
    "3",
    "--rollouts",
    "3",
    "--enhance-every",
    "1",
];

/// The weights that training from nothing gives.
fn trained(dir: &Path, seed: &str) -> Vec<u8> {
    for name in ["base", "sight", "sft"] {
        stage(name, dir, seed);
    }
    weights(dir, "sft")
}

/// The folder of a run whose stage `stage` has the bundled model.
fn bundled(dir: &Path, stage: &str) {
    for name in ["base", stage] {
        let folder = dir.join(name);
        fs::create_dir_all(&folder).unwrap();
        eva::burn::bundled::unpack(&folder).unwrap();
    }
}

#[test]
fn a_seed_gives_the_same_weights_and_another_seed_others() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, seed| trained(&dir.path().join(name), seed);
    let first = run("first", "1");
    assert!(first == run("again", "1"), "a run is not reproducible");
    assert!(first != run("other", "2"), "the seed changes nothing");
    let metrics = lines(&dir.path().join("first/metrics.jsonl"));
    let stages: Vec<&str> = metrics
        .iter()
        .map(|line| line["stage"].as_str().unwrap())
        .collect();
    assert_eq!(stages, ["sight", "sft"]);
    assert!(
        metrics
            .iter()
            .all(|line| line["loss"].as_f64().unwrap() > 0.0)
    );
    // A chart for each stage, with its writing and the colour of its first line.
    let curves = fs::File::open(dir.path().join("first/curves.png")).unwrap();
    let curves = png::Decoder::new(std::io::BufReader::new(curves));
    let mut curves = curves.read_info().unwrap();
    let mut pixels = vec![0; curves.output_buffer_size().unwrap()];
    let info = curves.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height), (960, 600));
    for chart in pixels.chunks(pixels.len() / 2) {
        let colours: HashSet<&[u8]> = chart.chunks(3).collect();
        assert!(colours.len() > 20, "{} colours", colours.len());
        assert!(colours.contains(&[230, 25, 75][..]));
    }
}

#[test]
fn a_killed_stage_goes_on_to_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    stage("base", &whole, "1");
    stage("sight", &whole, "1");
    let killed = dir.path().join("killed");
    for name in ["base", "sight"] {
        fs::create_dir_all(killed.join(name)).unwrap();
        for file in fs::read_dir(whole.join(name)).unwrap() {
            let file = file.unwrap();
            if file.path().is_file() {
                fs::copy(file.path(), killed.join(name).join(file.file_name())).unwrap();
            }
        }
    }
    let sft = |dir: &Path| {
        let mut command = command("sft", dir, "1");
        command.args(["--sft-steps", "8", "--save-every", "2"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(sft(&whole).status().unwrap().success());
    let mut child = sft(&killed).spawn().unwrap();
    let checkpoints = killed.join("sft/checkpoint");
    let given_up = Instant::now() + Duration::from_secs(120);
    while fs::read_dir(&checkpoints).map_or(0, Iterator::count) == 0 {
        assert!(Instant::now() < given_up, "no checkpoint after two minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        !killed.join("sft/model.safetensors").exists(),
        "it was killed too late"
    );
    assert!(sft(&killed).status().unwrap().success());
    assert!(weights(&killed, "sft") == weights(&whole, "sft"));
    let steps = |dir: &Path| -> Vec<u64> {
        let all = lines(&dir.join("metrics.jsonl"));
        let own = all.iter().filter(|line| line["stage"] == "sft");
        own.map(|line| line["step"].as_u64().unwrap()).collect()
    };
    assert_eq!(steps(&killed), steps(&whole));
}

#[test]
fn kto_learns_from_labels_and_grpo_from_its_own_runs() {
    let dir = tempfile::tempdir().unwrap();
    bundled(dir.path(), "sft");
    finished(
        command("kto", dir.path(), "1")
            .args(["--kto-steps", "1"])
            .output()
            .unwrap(),
    );
    assert!(weights(dir.path(), "kto") != weights(dir.path(), "sft"));
    finished(command("grpo", dir.path(), "1").args(FEW).output().unwrap());
    assert!(dir.path().join("grpo/model.safetensors").exists());
    let metrics = lines(&dir.path().join("metrics.jsonl"));
    let of = |stage: &str| metrics.iter().find(|line| line["stage"] == stage).unwrap();
    for field in ["loss", "kl", "desirable", "undesirable"] {
        assert!(of("kto")[field].is_number(), "{field} in {}", of("kto"));
    }
    for field in [
        "reward",
        "equal",
        "right",
        "frames",
        "visual_tokens",
        "entropy",
    ] {
        assert!(of("grpo")[field].is_number(), "{field} in {}", of("grpo"));
    }
    let prompts = lines(&dir.path().join("grpo/prompts.jsonl"));
    assert_eq!(prompts.len(), 6);
}

#[test]
fn grpo_asks_more_of_what_failed() {
    let dir = tempfile::tempdir().unwrap();
    // After two steps of fine-tuning no run is right.
    trained(dir.path(), "1");
    fs::rename(dir.path().join("sft"), dir.path().join("kto")).unwrap();
    finished(command("grpo", dir.path(), "1").args(FEW).output().unwrap());
    let prompts = lines(&dir.path().join("grpo/prompts.jsonl"));
    let (first, second) = prompts.split_at(3);
    assert!(first.iter().all(|line| line["failed"] == 3), "{prompts:?}");
    // Of the second step's questions one is of a kind that failed, about another world.
    let made = &second[1];
    let same = |line: &&Value| line["kind"] == made["kind"] && line["choices"] == made["choices"];
    let failed = first.iter().find(same).unwrap();
    assert_ne!(failed["number"], made["number"]);
}

#[test]
fn evaluation_reports_every_kind_and_keeps_every_answer() {
    let dir = tempfile::tempdir().unwrap();
    bundled(dir.path(), "grpo");
    let mut command = command("eval", dir.path(), "1");
    let printed = finished(command.args(["--questions", "12"]).output().unwrap());
    let kinds = Kind::ALL.iter().map(|kind| kind.name());
    let kinds = kinds.flat_map(|kind| [format!("{kind} "), format!("{kind}-choice ")]);
    for kind in kinds.chain(["all ".to_owned()]) {
        assert!(
            printed.lines().any(|line| line.starts_with(&kind)),
            "{printed}"
        );
    }
    let kept = lines(&dir.path().join("grpo/eval-dev-rendered-0.jsonl"));
    assert_eq!(kept.len(), 12);
    for answer in kept {
        // The one sort that the bundled model gets wrong at times.
        let hard = answer["kind"] == "order-choice";
        assert!(hard || answer["right"] == true, "{answer}");
        assert_eq!(answer["evidence"], true, "{answer}");
        serde_json::from_value::<eva::Trajectory>(answer["trajectory"].clone()).unwrap();
    }
}

#[test]
fn settings_that_make_no_sense_are_refused_before_anything_is_done() {
    let dir = tempfile::tempdir().unwrap();
    for (option, value) in [
        ("--threads", "0"),
        ("--rollouts", "0"),
        ("--prompts", "0"),
        ("--token-cost", "2"),
        ("--token-cost", "NaN"),
        ("--temperature", "11"),
    ] {
        let mut command = command("base", dir.path(), "1");
        let run = command.args([option, value]).output().unwrap();
        assert!(!dir.path().join("base").exists(), "{option} {value}");
        assert!(!run.status.success());
        let error = String::from_utf8_lossy(&run.stderr);
        assert!(error.contains(option), "{error}");
    }
}

#[test]
fn a_stage_without_the_one_before_says_which_to_run() {
    let dir = tempfile::tempdir().unwrap();
    stage("base", dir.path(), "1");
    let run = command("kto", dir.path(), "1").output().unwrap();
    assert!(!run.status.success());
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(error.contains("run `train sft` first"), "{error}");
}

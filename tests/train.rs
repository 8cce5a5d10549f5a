//! The example `train`, in miniature.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;
use std::process::Command;

/// Runs a stage of a few steps in `dir` and gives what it printed.
fn stage(stage: &str, dir: &Path, seed: &str) -> String {
    let run = Command::new(common::example("train"))
        .args([stage, "--sight-steps", "2", "--sft-steps", "2"])
        .args(["--batch", "2", "--worlds", "1", "--seed", seed, "--out"])
        .arg(dir)
        .output()
        .unwrap();
    let printed = String::from_utf8(run.stdout).unwrap();
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{stage}: {printed}{errors}");
    printed
}

/// The weights that training from nothing gives.
fn weights(dir: &Path, seed: &str) -> Vec<u8> {
    for name in ["base", "sight", "sft"] {
        stage(name, dir, seed);
    }
    std::fs::read(dir.join("model.safetensors")).unwrap()
}

#[test]
fn a_seed_gives_the_same_weights_and_another_seed_others() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, seed| weights(&dir.path().join(name), seed);
    let first = run("first", "1");
    assert!(first == run("again", "1"), "a run is not reproducible");
    assert!(first != run("other", "2"), "the seed changes nothing");
}

#[test]
fn evaluation_reports_every_kind_and_keeps_every_answer() {
    let dir = tempfile::tempdir().unwrap();
    eva::burn::bundled::unpack(dir.path()).unwrap();
    let printed = stage("eval", dir.path(), "1");
    for kind in ["at: ", "find: ", "absent: "] {
        assert!(printed.contains(kind), "{printed}");
    }
    let kept = std::fs::read_to_string(dir.path().join("eval-dev-rendered-0.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), 3);
    for line in kept.lines() {
        let answer: serde_json::Value = serde_json::from_str(line).unwrap();
        let trajectory = answer["trajectory"].clone();
        serde_json::from_value::<eva::Trajectory>(trajectory).unwrap();
    }
}

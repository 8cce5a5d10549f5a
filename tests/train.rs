//! The example `train`, in miniature.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/train.rs"]
mod program;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use eva::world::Kind;
use program::{finished, interrupted, lines, wait_for};
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
    wait_for(|| fs::read_dir(&checkpoints).map_or(0, Iterator::count) > 0);
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
        ("--batch", "2000000000000000000"),
        ("--threads", "1000000"),
        // There are not so many numbers after it as there are questions.
        ("--first", "4294967295"),
    ] {
        let mut command = Command::new(common::example("train"));
        let command = command.args(["base", option, value, "--out"]);
        let run = command.arg(dir.path()).output().unwrap();
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

#[test]
fn an_interrupted_evaluation_keeps_its_answers_and_asks_only_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    bundled(dir.path(), "grpo");
    let log = dir.path().join("grpo/eval-dev-rendered-0.jsonl");
    let eval = |questions: &str| {
        let mut command = command("eval", dir.path(), "1");
        command.args(["--questions", questions]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let answers = || fs::read_to_string(&log).unwrap_or_default();
    let all = |printed: &str| {
        let line = printed.lines().find(|line| line.starts_with("all "));
        line.unwrap().to_owned()
    };
    let child = eval("130").spawn().unwrap();
    wait_for(|| answers().lines().count() >= 64);
    let printed = interrupted(child);
    let first = answers();
    let asked = first.lines().count();
    assert!(asked < 130, "it was interrupted too late");
    assert!(all(&printed).contains(&format!("/{asked} ")), "{printed}");
    let printed = finished(eval("130").output().unwrap());
    assert!(all(&printed).contains("/130 "), "{printed}");
    let whole = answers();
    assert!(whole.starts_with(&first));
    assert_eq!(whole.lines().count(), 130);
    // As if it had not been interrupted.
    fs::remove_file(&log).unwrap();
    assert_eq!(finished(eval("130").output().unwrap()), printed);
    assert!(answers() == whole, "other answers than in one piece");
    // A last line that was cut short is asked again with those that it was asked with.
    fs::write(&log, &whole[..whole.len() - 9]).unwrap();
    finished(eval("130").output().unwrap());
    assert!(answers() == whole);
    // Another exam neither takes these answers for its own nor loses them.
    finished(eval("3").output().unwrap());
    assert_eq!(answers().lines().count(), 3);
    let aside = dir.path().join("grpo/eval-dev-rendered-0.1.jsonl");
    assert!(fs::read_to_string(aside).unwrap() == whole);
}

#[test]
fn another_model_is_asked_anew() {
    let dir = tempfile::tempdir().unwrap();
    bundled(dir.path(), "grpo");
    let model = dir.path().join("grpo");
    let eval = || {
        let mut command = command("eval", dir.path(), "1");
        command.args(["--questions", "2", "--model"]).arg(&model);
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        finished(output);
        errors
    };
    eval();
    assert!(eval().contains("eval 2/2 are in "), "the same exam");
    let weights = model.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    assert!(eval().contains("is of another exam"));
}

#[test]
fn training_goes_on_when_nobody_reads_what_it_prints() {
    let dir = tempfile::tempdir().unwrap();
    bundled(dir.path(), "sight");
    let mut command = command("sft", dir.path(), "1");
    command.args(["--sft-steps", "2"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(lines(&dir.path().join("metrics.jsonl")).len(), 1);
    weights(dir.path(), "sft");
}

#[test]
fn any_number_of_steps_of_kto_can_be_begun_and_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    bundled(dir.path(), "sft");
    let mut command = command("kto", dir.path(), "1");
    command.args(["--kto-steps", "1000000000000000000", "--save-every", "1"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let checkpoints = dir.path().join("kto/checkpoint");
    wait_for(|| {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?}");
        fs::read_dir(&checkpoints).map_or(0, Iterator::count) > 0
    });
    interrupted(child);
}

#[test]
fn prompts_that_cannot_be_read_are_named_and_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    bundled(dir.path(), "kto");
    let prompts = dir.path().join("grpo/prompts.jsonl");
    fs::create_dir_all(dir.path().join("grpo")).unwrap();
    let good = r#"{"step":0,"number":1,"kind":"find","choices":false,"failed":1,"runs":3}"#;
    for (text, named) in [
        (
            format!("{good}\nno line\n{good}\n").into_bytes(),
            "prompts.jsonl, line 2",
        ),
        (b"\xff\xfe\n".to_vec(), "prompts.jsonl: stream"),
    ] {
        fs::write(&prompts, &text).unwrap();
        let run = command("grpo", dir.path(), "1").args(FEW).output().unwrap();
        assert!(!run.status.success());
        let error = String::from_utf8_lossy(&run.stderr);
        assert!(error.contains(named), "{error}");
        assert!(fs::read(&prompts).unwrap() == text);
    }
}

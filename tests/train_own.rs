//! The example `train` on data of one's own, in miniature.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(all(feature = "data", feature = "gst"))]

mod common;
#[path = "common/train.rs"]
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use eva::Session;
use eva::benchmark::WorldItems;
use eva::burn::weights::{Precision, save};
use eva::burn::{Device, ModelConfig, Qwen25Vl};
use eva::data::{Label, Pair, Provenance, Sample};
use eva::world::{Expert, Kind, World, WorldSource};
use program::{finished, interrupted, lines, wait_for};
use serde_json::Value;

/// A model directory of random weights in Hugging Face's layout, data files, and an empty run.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("start");
    fs::create_dir_all(&model).unwrap();
    eva::burn::bundled::unpack(&model).unwrap();
    let config = ModelConfig::load(&model).unwrap();
    let random = Qwen25Vl::random(&config, 5, &Device::flex()).unwrap();
    save(&random, &config, &model, Precision::F32).unwrap();
    let items: WorldItems = "world:0:4".parse().unwrap();
    let pairs: Vec<Pair> = items.items().map(|item| Pair::of_item(&item)).collect();
    let samples: Vec<String> = (0..)
        .zip(&pairs)
        .map(|(index, pair)| line(index, pair))
        .collect();
    fs::write(dir.path().join("samples.jsonl"), samples.join("\n")).unwrap();
    let pairs: Vec<String> = pairs
        .iter()
        .map(|pair| serde_json::to_string(pair).unwrap())
        .collect();
    fs::write(dir.path().join("pairs.jsonl"), pairs.join("\n")).unwrap();
    dir
}

/// A run of the expert as a line of a data file.
fn line(index: u64, pair: &Pair) -> String {
    let seed = eva::benchmark::WorldTask::seed(&pair.video).unwrap();
    let world = Arc::new(World::new(seed));
    let kinds = Kind::ALL.iter();
    let questions = kinds.map(|kind| world.question(*kind, seed & u64::from(u32::MAX)));
    let question = questions
        .clone()
        .find(|one| one.text == pair.question)
        .unwrap();
    let expert = Expert::new(world.clone(), question);
    let report = Session::new(WorldSource::new(world), expert)
        .ask(&pair.question)
        .unwrap();
    let label = if index.is_multiple_of(2) {
        Label::Desirable
    } else {
        Label::Undesirable
    };
    let sample = Sample {
        index,
        item: index,
        pair: pair.clone(),
        label: Some(label),
        reasons: Vec::new(),
        trajectory: report.trajectory,
        provenance: Provenance::default(),
    };
    serde_json::to_string(&sample).unwrap()
}

fn settings(dir: &Path, out: &str, more: &str) -> PathBuf {
    let data = if more.contains("[grpo]") {
        "pairs.jsonl"
    } else {
        "samples.jsonl"
    };
    let file = dir.join(format!("{out}.toml"));
    let text = format!(
        "model = \"start\"\nout = \"{out}\"\ndata = \"{data}\"\nbatch = 2\nshard = 2\n\
         report_every = 1\nsave_every = 1\n{more}\n"
    );
    fs::write(&file, text).unwrap();
    file
}

fn command(stage: &str, file: &Path) -> Command {
    let mut command = Command::new(common::example("train"));
    command.args([stage, "--config"]).arg(file);
    command
}

fn train(stage: &str, file: &Path) -> Output {
    command(stage, file).output().unwrap()
}

#[test]
fn references_are_kept_for_the_same_model_and_computed_anew_for_another() {
    let dir = folder();
    // As if they had been computed before, with a value that no model gives.
    let marked = |out: &str, text: &str| {
        let mut kept: Value = serde_json::from_str(text).unwrap();
        kept["values"][0] = 12345.0.into();
        fs::create_dir_all(dir.path().join(out)).unwrap();
        fs::write(
            dir.path().join(out).join("reference.json"),
            kept.to_string(),
        )
        .unwrap();
    };
    let learnt = |out: &str| -> String {
        finished(train("kto", &settings(dir.path(), out, STEPS)));
        fs::read_to_string(dir.path().join(out).join("reference.json")).unwrap()
    };
    let first = learnt("first");
    marked("same", &first);
    assert!(learnt("same").contains("12345"));
    let model = dir.path().join("start");
    let config = ModelConfig::load(&model).unwrap();
    let other = Qwen25Vl::random(&config, 6, &Device::flex()).unwrap();
    save(&other, &config, &model, Precision::F32).unwrap();
    marked("other", &first);
    let anew = learnt("other");
    assert!(!anew.contains("12345") && anew != first);
}

const STEPS: &str = "[optimisation.schedule]\npeak = 1e-3\nsteps = 2\n";

#[test]
fn each_stage_trains_a_model_directory_that_loads() {
    let dir = folder();
    let before = fs::read(dir.path().join("start/model.safetensors")).unwrap();
    let lora = format!("[optimisation]\nlearn = {{ lora = {{ rank = 2, alpha = 4.0 }} }}\n{STEPS}");
    let grpo = format!("{STEPS}[grpo]\nrollouts = 2\nmax_new_tokens = 12\n");
    for (stage, out, more) in [
        ("sft", "whole", STEPS),
        ("sft", "adapters", lora.as_str()),
        ("kto", "labelled", STEPS),
        ("grpo", "own-runs", grpo.as_str()),
    ] {
        let printed = finished(train(stage, &settings(dir.path(), out, more)));
        assert!(printed.contains("the model is in"), "{printed}");
        let out = dir.path().join(out);
        let metrics = lines(&out.join("metrics.jsonl"));
        assert_eq!(metrics.last().unwrap()["step"], 2);
        let config = ModelConfig::load(&out.join("model")).unwrap();
        Qwen25Vl::load(&config, &out.join("model"), &Device::flex()).unwrap();
        let after = fs::read(out.join("model/model.safetensors")).unwrap();
        // Random text earns nothing, so there is nothing to learn from it.
        assert_eq!(after != before, stage != "grpo", "{stage}");
    }
}

#[test]
fn what_is_wrong_with_the_settings_or_the_data_is_named() {
    let dir = folder();
    let error = |file: &Path, stage: &str| {
        let output = train(stage, file);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let unknown = settings(dir.path(), "a", &format!("speed = 3\n{STEPS}"));
    assert!(error(&unknown, "sft").contains("speed"));
    let steps = STEPS.replace("steps = 2", "steps = 0");
    let file = settings(dir.path(), "b", &steps);
    assert!(error(&file, "sft").contains("steps"));
    fs::write(dir.path().join("samples.jsonl"), "{\"index\": 0}\n").unwrap();
    let file = settings(dir.path(), "c", STEPS);
    assert!(error(&file, "kto").contains("samples.jsonl, line 1"));
    let file = settings(dir.path(), "d", STEPS);
    assert!(error(&file, "eval").contains("synthetic worlds"));
    fs::write(
        dir.path().join("pairs.jsonl"),
        r#"{"video": "world-1.mp4", "question": "", "answer": "3", "kind": "open_ended"}"#,
    )
    .unwrap();
    let file = settings(dir.path(), "e", &format!("{STEPS}[grpo]\nrollouts = 2\n"));
    let said = error(&file, "grpo");
    assert!(
        said.contains("pairs.jsonl, line 1") && said.contains("`question`"),
        "{said}"
    );
    for (table, key, values) in [
        ("", "batch", &["0", "2000000000000000000"][..]),
        ("", "shard", &["0"][..]),
        ("kto", "beta", &["0.0", "-0.1", "nan", "inf"][..]),
        ("grpo", "rollouts", &["0", "2000000000000000000"][..]),
        ("grpo", "epochs", &["0"][..]),
        ("grpo", "max_new_tokens", &["0"][..]),
        ("grpo", "temperature", &["0.0", "-1.0", "nan", "inf"][..]),
        ("grpo", "kl", &["-0.1", "nan", "inf"][..]),
        ("grpo", "clip_low", &["-0.1", "nan"][..]),
        ("grpo", "clip_high", &["-0.1", "nan"][..]),
        ("grpo", "token_cost", &["1.0", "nan"][..]),
    ] {
        for value in values {
            let text = match table {
                "" => STEPS.to_owned(),
                table => format!("{STEPS}[{table}]\n{key} = {value}\n"),
            };
            let file = settings(dir.path(), "f", &text);
            if table.is_empty() {
                let text = fs::read_to_string(&file).unwrap();
                let text = text.replace(&format!("{key} = 2"), &format!("{key} = {value}"));
                fs::write(&file, text).unwrap();
            }
            let key = [table, key].join(".");
            let said = error(&file, "sft");
            let named = format!("`{}` = ", key.trim_start_matches('.'));
            assert!(said.contains(&named), "{key} = {value}: {said}");
        }
    }
    let gone = dir.path().join("gone.toml");
    assert!(error(&gone, "sft").contains("gone.toml"));
}

#[test]
fn the_model_that_a_stage_begins_with_is_not_overwritten() {
    let dir = folder();
    finished(train("sft", &settings(dir.path(), "mine", STEPS)));
    let model = dir.path().join("mine/model");
    let files = || -> Vec<(PathBuf, Vec<u8>)> {
        let entries = fs::read_dir(&model).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    };
    let before = files();
    // Into the folder that it lies in, by another name for it; and over the judge.
    let file = settings(dir.path(), "mine", STEPS);
    let again = fs::read_to_string(&file).unwrap();
    let again = again.replace("\"start\"", "\"mine/../mine/model\"");
    fs::write(&file, again).unwrap();
    let judge = format!("{STEPS}[grpo]\njudge = \"mine/model\"\n");
    let refused = |stage: &str, file: &Path| {
        let run = train(stage, file);
        assert!(!run.status.success());
        let error = String::from_utf8(run.stderr).unwrap();
        assert!(error.contains("choose another `out`"), "{error}");
    };
    refused("kto", &file);
    refused("grpo", &settings(dir.path(), "mine", &judge));
    assert!(files() == before);
}

#[test]
fn an_interrupt_keeps_the_references_so_far_and_the_same_command_computes_the_rest() {
    let dir = folder();
    let samples = dir.path().join("samples.jsonl");
    let few = fs::read_to_string(&samples).unwrap();
    fs::write(&samples, vec![few.as_str(); 100].join("\n")).unwrap();
    let file = settings(dir.path(), "labelled", STEPS);
    let kept = dir.path().join("labelled/reference.json");
    let values = || -> Vec<Value> {
        let text = fs::read(&kept).unwrap_or_default();
        let kept: Value = serde_json::from_slice(&text).unwrap_or_default();
        kept["values"].as_array().cloned().unwrap_or_default()
    };
    let mut command = command("kto", &file);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for(|| !values().is_empty());
    interrupted(child);
    let known = values();
    assert!((64..400).contains(&known.len()), "{} values", known.len());
    // With a value that no model gives: it is taken as it is.
    let text = fs::read_to_string(&kept).unwrap();
    let mut marked: Value = serde_json::from_str(&text).unwrap();
    marked["values"][0] = 12345.0.into();
    fs::write(&kept, marked.to_string()).unwrap();
    finished(train("kto", &file));
    let all = values();
    assert_eq!(all.len(), 400);
    assert_eq!(all[0], 12345.0);
    assert_eq!(all[1..known.len()], known[1..]);
}

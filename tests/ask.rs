//! The example `ask` as a person runs it: what it prints, how it ends, what it says to bad input.
#![cfg(feature = "gst")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[cfg(feature = "hub")]
#[path = "common/hub.rs"]
#[allow(dead_code)]
mod hub;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use eva::world::{Kind, Question, Split, World};
use gstreamer::prelude::*;

/// No input may keep it busy for longer.
const DEADLINE: Duration = Duration::from_secs(10);

struct Run {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs it, and stops it at the deadline: the status is `None` then.
fn ask(arguments: &[&str]) -> Run {
    ask_in(arguments, &[])
}

/// The same with these environment variables.
fn ask_in(arguments: &[&str], environment: &[(&str, &str)]) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let mut child = Command::new(common::example("ask"))
        .args(arguments)
        .envs(environment.iter().copied())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if started.elapsed() > DEADLINE {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Run {
        status,
        stdout: fs::read_to_string(out).unwrap(),
        stderr: fs::read_to_string(err).unwrap(),
    }
}

/// Asks and expects failure with a message that names `thing` and holds `remedy`.
#[track_caller]
fn fails(arguments: &[&str], thing: &str, remedy: &str) {
    let run = ask(arguments);
    assert_eq!(run.status, Some(1), "{}", run.stderr);
    let message = run.stderr.lines().last().unwrap_or_default();
    assert!(message.starts_with("error: "), "{}", run.stderr);
    assert!(message.contains(thing), "{message}");
    assert!(message.contains(remedy), "{message}");
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
}

/// A short world that none of the bundled model's training videos is.
static WORLD: LazyLock<World> = LazyLock::new(|| {
    (20_000..)
        .map(|index| World::new(Split::Test.seed(index)))
        .find(|world| world.duration() < 150.0)
        .unwrap()
});

/// That world as a file, made once.
fn video() -> &'static Path {
    static VIDEO: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("world.mp4");
        WORLD.encode(&path).unwrap();
        (dir, path)
    });
    &VIDEO.1
}

fn question() -> Question {
    WORLD.question(Kind::Find, 0)
}

/// The bundled model's directory with one file changed.
fn model_with(name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    eva::burn::bundled::unpack(dir.path()).unwrap();
    let path = dir.path().join(name);
    let content = change(fs::read(&path).unwrap());
    fs::write(path, content).unwrap();
    dir
}

/// The same bytes with one text replaced by another of the same length.
fn replaced(mut bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes
        .windows(from.len())
        .position(|part| part == from.as_bytes());
    let at = at.unwrap_or_else(|| panic!("no {from} in the file"));
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    bytes
}

#[test]
fn it_answers_and_shows_each_turn_with_its_frames_and_the_totals() {
    let Question { text, answer, .. } = question();
    let run = ask(&[video().to_str().unwrap(), &text]);
    assert_eq!(run.status, Some(0), "{}{}", run.stdout, run.stderr);
    for part in [
        "--- turn 3 ---",
        "[16 frames of 28 x 28 pixels, 16 visual tokens, on display at 0.00, ",
        "[1 frame of 224 x 168 pixels, 48 visual tokens, on display at ",
        "Totals    3 rounds, 17 frames (",
        "64 visual tokens",
        " s in the decoder",
        &format!("Answer    {answer}\n"),
    ] {
        assert!(run.stdout.contains(part), "no {part:?} in {}", run.stdout);
    }
}

#[test]
fn json_and_trace_hold_the_whole_run() {
    let Question { text, answer, .. } = question();
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace.json");
    let (path, trace_path) = (video().to_str().unwrap(), trace.to_str().unwrap());
    let run = ask(&[path, &text, "--json", "--trace", trace_path]);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let printed: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(printed["answer"], answer.as_str());
    assert_eq!(printed["stop_reason"], "answer_found");
    let traced = fs::read_to_string(trace).unwrap();
    let traced: eva::Trajectory = serde_json::from_str(&traced).unwrap();
    let from_json = printed["trajectory"].clone();
    assert_eq!(serde_json::to_value(traced).unwrap(), from_json);
}

#[test]
fn a_trace_that_cannot_be_written_costs_no_answer() {
    let Question { text, answer, .. } = question();
    let path = video().to_str().unwrap();
    let run = ask(&[path, &text, "--json", "--trace", "/no/such/trace.json"]);
    assert_eq!(run.status, Some(1));
    assert!(run.stderr.contains("/no/such/trace.json"), "{}", run.stderr);
    let printed: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(printed["answer"], answer.as_str());
}

#[test]
fn options_become_lines_below_the_question() {
    let run = ask(&[
        video().to_str().unwrap(),
        "Which?",
        "--option",
        "A=a red one",
        "--option",
        "B=a blue one",
        "--json",
    ]);
    let printed: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        printed["question"],
        "Which?\nA. a red one\nB. a blue one\nAnswer with the option's letter."
    );
}

#[test]
fn a_question_without_an_answer_ends_within_the_turns_and_says_why() {
    let run = ask(&[
        video().to_str().unwrap(),
        "What digit is on the red card?",
        "--max-turns",
        "1",
    ]);
    assert_eq!(run.status, Some(1));
    assert!(run.stderr.contains("max_turns_exceeded"), "{}", run.stderr);
    assert!(run.stderr.contains("--max-turns"), "{}", run.stderr);
    // A card that is not in the video, and a question the model was never taught.
    let absent = WORLD.question(Kind::Absent, 0).text;
    for question in [&absent, "Who is the mayor of Paris?"] {
        let run = ask(&[video().to_str().unwrap(), question]);
        assert!(run.status.is_some(), "no end within {DEADLINE:?}");
        assert!(run.stdout.contains("Totals"), "{}", run.stderr);
    }
}

#[test]
fn bad_usage_has_status_2_and_help_is_complete() {
    let path = video().to_str().unwrap();
    for arguments in [
        &[][..],
        &[path],
        &["--demo", path, "What?"],
        &[path, "What?", "--option", "no letter"],
        &[path, "What?", "--device", "abacus"],
        &[path, "What?", "--max-turns", "0"],
        &[path, "What?", "--no-such-flag"],
    ] {
        let run = ask(arguments);
        assert_eq!(run.status, Some(2), "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains("--help"), "{}", run.stderr);
    }
    let help = ask(&["--help"]);
    assert_eq!(help.status, Some(0));
    for flag in [
        "VIDEO",
        "QUESTION",
        "--demo",
        "--option",
        "--model",
        "--dry-run",
        "--budget",
        "--context",
        "--device",
        "--max-turns",
        "--max-visual-tokens",
        "--json",
        "--trace",
        "Exit status",
    ] {
        assert!(help.stdout.contains(flag), "no {flag} in {}", help.stdout);
    }
}

#[test]
fn a_missing_file_is_named() {
    fails(&["/no/such.mp4", "What?"], "/no/such.mp4", "check the path");
}

#[test]
fn a_directory_is_not_a_video() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    fails(&[path, "What?"], path, "name a video file");
}

#[test]
fn files_that_are_no_videos_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let text = file("text.mp4", &b"This is a text.\n".repeat(1000));
    fails(&[&text, "What?"], &text, "name a file with a video stream");
    let empty = file("empty.mp4", b"");
    fails(&[&empty, "What?"], &empty, "it is empty");
    let whole = fs::read(video()).unwrap();
    let half = file("half.mp4", &whole[..whole.len() / 2]);
    fails(&[&half, "What?"], &half, "error: ");
}

#[test]
fn sound_alone_is_not_a_video() {
    gstreamer::init().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sound.ogg");
    let path = path.to_str().unwrap();
    let pipeline = gstreamer::parse::launch(&format!(
        "audiotestsrc num-buffers=50 ! vorbisenc ! oggmux ! filesink location={path}"
    ))
    .unwrap();
    pipeline.set_state(gstreamer::State::Playing).unwrap();
    let ended = pipeline.bus().unwrap().timed_pop_filtered(
        gstreamer::ClockTime::from_seconds(10),
        &[gstreamer::MessageType::Eos, gstreamer::MessageType::Error],
    );
    pipeline.set_state(gstreamer::State::Null).unwrap();
    assert_eq!(ended.unwrap().type_(), gstreamer::MessageType::Eos);
    fails(&[path, "What?"], path, "name a file with a video stream");
}

#[test]
fn a_question_of_100_kb_is_too_long_for_the_model() {
    let question = "Who is it? ".repeat(9_100);
    let path = video().to_str().unwrap();
    fails(&[path, &question], "tokens", "ask a shorter question");
}

#[test]
fn damaged_model_directories_name_the_file_and_the_tensor() {
    let path = video().to_str().unwrap();
    let ask_with = |dir: &tempfile::TempDir, thing: &str, remedy: &str| {
        let model = dir.path().to_str().unwrap();
        fails(&[path, "What?", "--model", model], thing, remedy);
    };
    fails(
        &[path, "What?", "--model", "/no/model"],
        "/no/model",
        "config.json, tokenizer.json",
    );
    ask_with(
        &tempfile::tempdir().unwrap(),
        "config.json",
        "a model directory holds",
    );
    let norm = "model.layers.0.input_layernorm.weight";
    let missing = model_with("model.safetensors", |bytes| {
        replaced(bytes, norm, &norm.replace("input", "other"))
    });
    ask_with(&missing, norm, "do not belong together");
    let wider = model_with("config.json", |bytes| {
        replaced(
            bytes,
            "\"intermediate_size\": 384",
            "\"intermediate_size\": 392",
        )
    });
    ask_with(&wider, "mlp.gate_proj.weight", "config.json asks for");
    for name in ["config.json", "tokenizer.json", "preprocessor_config.json"] {
        let invalid = model_with(name, |bytes| bytes[..bytes.len() / 2].to_vec());
        ask_with(&invalid, name, "");
    }
    let cut = model_with("model.safetensors", |bytes| {
        bytes[..bytes.len() / 2].to_vec()
    });
    ask_with(&cut, "model.safetensors", "download it again");
}

#[test]
fn a_device_that_is_not_compiled_in_names_its_feature() {
    fails(
        &[video().to_str().unwrap(), "What?", "--device", "cuda"],
        "`cuda`",
        "--features cuda",
    );
}

/// Without a driver, Burn panics in the depths: that has to become a message.
#[cfg(feature = "wgpu")]
#[test]
fn a_device_without_a_driver_is_named() {
    let no_driver = [
        ("VK_DRIVER_FILES", "/none"),
        ("VK_ICD_FILENAMES", "/none"),
        ("__EGL_VENDOR_LIBRARY_FILENAMES", "/none"),
    ];
    let arguments = [video().to_str().unwrap(), "What?", "--device", "wgpu"];
    let run = ask_in(&arguments, &no_driver);
    assert_eq!(run.status, Some(1), "{}", run.stderr);
    assert!(
        run.stderr
            .starts_with("error: device `wgpu` cannot be used"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("run on `cpu`"), "{}", run.stderr);
}

#[test]
fn a_dry_run_says_what_a_model_takes_and_whether_it_fits() {
    let tiny = tempfile::tempdir().unwrap();
    eva::burn::bundled::unpack(tiny.path()).unwrap();
    // Nothing but the configuration is needed.
    fs::remove_file(tiny.path().join("model.safetensors")).unwrap();
    let dir = tiny.path().to_str().unwrap();
    let run = ask(&["--dry-run", "--model", dir]);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    for part in [
        "billion parameters",
        "| f32 ",
        "| int4 ",
        "| 24 GB |",
        " fits ",
    ] {
        assert!(run.stdout.contains(part), "no {part:?} in {}", run.stdout);
    }
    let fits = ask(&[
        "--dry-run",
        "--model",
        dir,
        "--budget",
        "4GB",
        "--context",
        "500",
    ]);
    assert_eq!(fits.status, Some(0), "{}", fits.stderr);
    assert!(fits.stdout.contains("f32 fits: "), "{}", fits.stdout);
    let over = ask(&["--dry-run", "--model", dir, "--budget", "5MB"]);
    assert_eq!(over.status, Some(1), "{}", over.stdout);
    assert!(
        over.stderr.contains("the budget is 5 MB"),
        "{}",
        over.stderr
    );
    assert!(over.stderr.contains("--precision"), "{}", over.stderr);
    for arguments in [
        &["--dry-run"][..],
        &["--dry-run", "--model", dir, "--budget", "much"],
        &["--dry-run", "--model", dir, "VIDEO", "What?"],
        &["--demo", "--budget", "8GB"],
    ] {
        let run = ask(arguments);
        assert_eq!(run.status, Some(2), "{arguments:?}: {}", run.stderr);
    }
    fails(
        &["--dry-run", "--model", "/no/model"],
        "/no/model",
        "config.json",
    );
    let odd = model_with("config.json", |bytes| {
        replaced(bytes, "\"torch_dtype\"", "\"unheard_oft\"")
    });
    let run = ask(&["--dry-run", "--model", odd.path().to_str().unwrap()]);
    assert!(
        run.stdout.contains("`unheard_oft` is not known"),
        "{}",
        run.stdout
    );
}

#[test]
fn what_the_libraries_warn_of_is_shown_and_nobody_needs_to_read_it() {
    let odd = model_with("config.json", |bytes| {
        replaced(bytes, "\"torch_dtype\"", "\"unheard_oft\"")
    });
    let arguments = ["--dry-run", "--model", odd.path().to_str().unwrap()];
    let run = ask(&arguments);
    let warning = run.stderr.lines().next().unwrap_or_default();
    assert!(
        warning.starts_with("warning: unknown key ignored dir="),
        "{}",
        run.stderr
    );
    assert!(warning.contains("unheard_oft"), "{warning}");
    // Colours and moves of the cursor are for terminals.
    assert!(!run.stderr.contains('\x1b'), "{:?}", run.stderr);
    let (reader, nobody) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(common::example("ask"))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(nobody)
        .status();
    assert_eq!(status.unwrap().code(), Some(0));
}

#[cfg(feature = "hub")]
#[test]
fn a_model_comes_from_a_hub_by_its_name() {
    use std::collections::BTreeMap;

    let dir = tempfile::tempdir().unwrap();
    eva::burn::bundled::unpack(dir.path()).unwrap();
    let files: BTreeMap<String, Vec<u8>> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    let files: Vec<(&str, Vec<u8>)> = files
        .iter()
        .map(|(name, content)| (name.as_str(), content.clone()))
        .collect();
    let server = hub::FakeHub::new(&files);
    let cache = tempfile::tempdir().unwrap();
    let url = server.url();
    let environment = [
        ("HF_ENDPOINT", url.as_str()),
        ("HF_HOME", cache.path().to_str().unwrap()),
        ("HF_TOKEN", "hf_secret"),
    ];
    let Question { text, answer, .. } = question();
    let model = format!("hf:{}", hub::MODEL);
    let arguments = [video().to_str().unwrap(), &text, "--model", &model];
    let run = ask_in(&arguments, &environment);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let label = format!("hf:{}@{}", hub::MODEL, hub::COMMIT);
    assert!(run.stdout.contains(&label), "{}", run.stdout);
    assert!(run.stdout.contains(&format!("Answer    {answer}\n")));
    assert!(!run.stdout.contains("hf_secret") && !run.stderr.contains("hf_secret"));
    drop(server);
    let mut offline = environment.to_vec();
    offline.push(("HF_HUB_OFFLINE", "1"));
    let run = ask_in(&arguments, &offline);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let run = ask_in(&["--dry-run", "--model", &model], &offline);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let run = ask_in(&arguments, &environment);
    assert_eq!(run.status, Some(1));
    assert!(run.stderr.contains("HF_HUB_OFFLINE=1"), "{}", run.stderr);
    let wrong = ask(&[video().to_str().unwrap(), "What?", "--model", "hf:../x"]);
    assert!(wrong.stderr.contains("OWNER/NAME"), "{}", wrong.stderr);
}

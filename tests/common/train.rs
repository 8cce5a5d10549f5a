//! What the tests of the example `train` share.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) fn finished(output: Output) -> String {
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{errors}");
    printed
}

pub(crate) fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Waits for what a program does in the background.
#[track_caller]
pub(crate) fn wait_for(mut ready: impl FnMut() -> bool) {
    let given_up = Instant::now() + Duration::from_secs(120);
    while !ready() {
        assert!(Instant::now() < given_up, "nothing happens");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ctrl-C, and what the program said and did about it.
pub(crate) fn interrupted(child: Child) -> String {
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{printed}{errors}");
    assert!(printed.contains("the same command goes on"), "{printed}");
    printed
}

//! Calls can be stopped from outside, and a source outlives whatever ends them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::mpsc::channel;
use std::time::Duration;

use common::{Clip, fetch, h264, number, steady, within};
use eva_gst::{CancelHandle, GstError, GstOptions, GstSource};

const LIMIT: Duration = Duration::from_secs(20);

fn clip(dir: &tempfile::TempDir) -> std::path::PathBuf {
    Clip {
        times: steady(400, 25),
        encode: &format!("{} ! mp4mux", h264(50, 2)),
        caps: "",
    }
    .file(dir, "a.mp4")
}

/// All 400 frames.
fn all() -> Vec<f64> {
    (0..400).map(|i| f64::from(i) / 25.0).collect()
}

#[test]
fn another_thread_stops_a_call_and_the_source_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(&dir);
    within(LIMIT, "cancel", move || {
        let mut source = GstSource::open(path).unwrap();
        let handle = source.cancel_handle();
        let (first_frame, wait) = channel();
        let (cancelled, go_on) = channel();
        let canceller = std::thread::spawn(move || {
            wait.recv().unwrap();
            cancelled.send(handle.cancel()).unwrap();
        });
        let mut frames = 0;
        let outcome = source.frames_at(&all(), 16, 8, &mut |_| {
            if frames == 0 {
                first_frame.send(()).unwrap();
                assert!(go_on.recv().unwrap(), "a call was running");
            }
            frames += 1;
        });
        canceller.join().unwrap();
        assert!(
            matches!(outcome, Err(GstError::Cancelled { .. })),
            "{outcome:?}"
        );
        assert!((1..200).contains(&frames), "{frames} came after all");
        let seen: Vec<u32> = fetch(&mut source, &[0, 3_010_000_000, 1_010_000_000])
            .iter()
            .map(|frame| number(&frame.pixels))
            .collect();
        assert_eq!(seen, [0, 75, 25]);
    });
}

#[test]
fn what_is_cancelled_while_nothing_runs_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let handle = CancelHandle::new();
    handle.cancel();
    let options = GstOptions::new().with_cancel(&handle);
    let mut source = GstSource::open_with(clip(&dir), &options).unwrap();
    assert!(source.cancel_handle() == handle);
    assert!(!handle.cancel());
    assert_eq!(number(&fetch(&mut source, &[410_000_000])[0].pixels), 10);
}

#[test]
fn the_default_patience_is_30_seconds() {
    assert_eq!(GstOptions::default().timeout, Duration::from_secs(30));
}

//! Opening and dropping leaves nothing behind. Alone in its process, so that nothing else counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};

use common::{Clip, h264, steady};
use eva_gst::{GstError, GstOptions, GstSource};

/// Open files, threads, and bytes of memory of this process.
fn held() -> (usize, usize, u64) {
    let count = |dir: &str| std::fs::read_dir(dir).unwrap().count();
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split_whitespace().nth(1).unwrap().parse().unwrap();
    (
        count("/proc/self/fd"),
        count("/proc/self/task"),
        pages * 4096,
    )
}

fn open_and_drop(good: &[PathBuf], bad: &[PathBuf], times: u32) {
    for i in 0..times {
        let path = &good[i as usize % good.len()];
        let options = GstOptions::new().with_threads(1 + i as usize % 3);
        let mut source = GstSource::open_with(path, &options).unwrap();
        if i % 3 > 0 {
            let seconds = [0.1, 1.5, 3.0];
            source.frames_at(&seconds, 16, 8, &mut |_| {}).unwrap();
        }
        if i.is_multiple_of(5) {
            // Dropped in the middle of a call that was stopped.
            let handle = source.cancel_handle();
            let outcome = source.frames_at(&[0.5, 1.0, 3.5], 16, 8, &mut |_| {
                handle.cancel();
            });
            // It may have been done all the same.
            assert!(matches!(outcome, Ok(()) | Err(GstError::Cancelled { .. })));
        }
        let path = &bad[i as usize % bad.len()];
        assert!(GstSource::open(path).is_err(), "{}", path.display());
    }
}

fn clip(dir: &Path, name: &str, mux: &str) -> PathBuf {
    let path = dir.join(name);
    Clip {
        times: steady(100, 25),
        encode: &format!("{} ! {mux}", h264(25, 2)),
        caps: "",
    }
    .write(&path);
    path
}

#[test]
fn files_threads_and_memory_are_as_before_after_many_opens() {
    let dir = tempfile::tempdir().unwrap();
    let good = [
        clip(dir.path(), "a.mp4", "mp4mux"),
        clip(dir.path(), "a.mkv", "matroskamux"),
        clip(dir.path(), "a.ts", "mpegtsmux"),
    ];
    let cut = dir.path().join("cut.mp4");
    let bytes = std::fs::read(&good[0]).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let text = dir.path().join("text.mp4");
    std::fs::write(&text, "no video at all\n".repeat(100)).unwrap();
    let bad = [cut, text, dir.path().join("missing.mp4")];

    // More with, for example, EVA_OPENS=1000.
    let opens = std::env::var("EVA_OPENS").map_or(200, |opens| opens.parse().unwrap());
    open_and_drop(&good, &bad, 50);
    let (files, threads, memory) = held();
    open_and_drop(&good, &bad, opens);
    let after = held();
    println!(
        "before {:?}, after {opens} opens {after:?}",
        (files, threads, memory)
    );
    assert!(after.0 <= files + 2, "{files} then {} open files", after.0);
    assert!(after.1 <= threads + 4, "{threads} then {} threads", after.1);
    let grown = after.2.saturating_sub(memory) >> 20;
    assert!(grown < 24, "{grown} MiB more than before");
}

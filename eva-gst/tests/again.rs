//! What was decoded is kept, within its limit, and decoding side by side changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Clip, assert_exact_with, h264, number, steady, uneven};
use eva_core::{Frame, RgbImage};
use eva_gst::{GstError, GstOptions, GstSource, Stats};

fn clip(dir: &tempfile::TempDir, name: &str, mux: &str) -> std::path::PathBuf {
    Clip {
        times: steady(400, 25),
        encode: &format!("{} ! {mux}", h264(50, 2)),
        caps: "",
    }
    .file(dir, name)
}

/// The frames on display at `times`, and the work that took.
fn ask(source: &mut GstSource, times: &[f64], size: (u32, u32)) -> (Vec<Frame<RgbImage>>, Stats) {
    let before = source.stats();
    let mut frames = Vec::new();
    source
        .frames_at(times, size.0, size.1, &mut |frame| frames.push(frame))
        .unwrap();
    let after = source.stats();
    let mut work = after;
    work.packets_read -= before.packets_read;
    work.packets_decoded -= before.packets_decoded;
    work.seeks -= before.seeks;
    work.frames -= before.frames;
    work.cache_hits -= before.cache_hits;
    assert_eq!(work.frames, times.len() as u64);
    (frames, work)
}

#[test]
fn the_same_question_again_reads_and_decodes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (name, mux) in [("a.mp4", "mp4mux"), ("a.mkv", "matroskamux")] {
        let mut source = GstSource::open(clip(&dir, name, mux)).unwrap();
        let times = [0.0, 7.51, 3.3, 15.9, 3.3, 3.31, 99.0];
        for size in [(16, 8), (160, 96)] {
            let (first, work) = ask(&mut source, &times, size);
            assert_eq!(work.packets_decoded > 0, size == (16, 8), "{work:?}");
            let (second, work) = ask(&mut source, &times, size);
            assert_eq!(first, second);
            let counts = (work.packets_read, work.packets_decoded, work.seeks);
            assert_eq!(counts, (0, 0, 0), "{name}: {work:?}");
            assert_eq!(work.cache_hits, 7);
        }
        // Any time at which the same frame is on display.
        let (frames, work) = ask(&mut source, &[7.49, 3.285, 3.319], (16, 8));
        let numbers: Vec<u32> = frames.iter().map(|frame| number(&frame.pixels)).collect();
        assert_eq!(numbers, [187, 82, 82], "{name}");
        assert_eq!(work.packets_decoded, 0, "{name}: {work:?}");
    }
}

#[test]
fn a_window_that_overlaps_an_earlier_one_decodes_only_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = GstSource::open(clip(&dir, "a.mp4", "mp4mux")).unwrap();
    let every_half_second = |from: u32| -> Vec<f64> {
        (from..from + 16)
            .map(|i| f64::from(i) / 2.0 + 0.01)
            .collect()
    };
    let (_, first) = ask(&mut source, &every_half_second(0), (160, 96));
    let (frames, second) = ask(&mut source, &every_half_second(8), (160, 96));
    assert_eq!((first.cache_hits, second.cache_hits), (0, 8));
    assert!(
        second.packets_decoded * 10 <= first.packets_decoded * 6,
        "{first:?} then {second:?}"
    );
    for (i, frame) in frames.iter().enumerate() {
        let time = (i + 8) as f64 / 2.0 + 0.01;
        assert_eq!(number(&frame.pixels), (time * 25.0) as u32);
    }
}

#[test]
fn no_more_is_kept_than_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(&dir, "a.mp4", "mp4mux");
    let times: Vec<f64> = (0..60).map(|i| f64::from(i) / 4.0).collect();
    for limit in [0, 100_000, 1_000_000] {
        let options = GstOptions::new().with_cache_bytes(limit);
        let mut source = GstSource::open_with(&path, &options).unwrap();
        for size in [(160, 96), (28, 28), (16, 8), (28, 28)] {
            let (_, work) = ask(&mut source, &times, size);
            assert!(work.cached_bytes <= limit as u64, "{limit}: {work:?}");
            if limit == 0 {
                assert_eq!((work.cache_hits, work.cached_bytes), (0, 0));
            }
        }
        assert!(limit == 0 || source.stats().cached_bytes > 0);
    }
}

#[test]
fn decoding_side_by_side_gives_the_same_frames() {
    let dir = tempfile::tempdir().unwrap();
    let open_gop = "x264enc key-int-max=30 bframes=2 speed-preset=veryfast option-string=scenecut=0:open-gop=1 ! h264parse ! matroskamux";
    for (name, encode, times) in [
        (
            "a.mp4",
            format!("{} ! mp4mux", h264(30, 2)),
            steady(300, 25),
        ),
        (
            "b.mkv",
            format!("{} ! matroskamux", h264(20, 3)),
            uneven(150),
        ),
        ("c.mkv", open_gop.to_owned(), steady(300, 25)),
        ("d.avi", "jpegenc ! avimux".to_owned(), steady(100, 25)),
    ] {
        let clip = Clip {
            times,
            encode: &encode,
            caps: "",
        };
        let path = clip.file(&dir, name);
        for threads in [1, 2, 5] {
            let options = GstOptions::new().with_threads(threads).with_cache_bytes(0);
            assert_exact_with(&path, &clip, 1_000_000, &options);
        }
        let seconds: Vec<f64> = (0..40).map(|i| f64::from(i * 7 % 40) / 10.0).collect();
        let [serial, parallel] = [1, 4].map(|threads| {
            let options = GstOptions::new().with_threads(threads).with_cache_bytes(0);
            let mut source = GstSource::open_with(&path, &options).unwrap();
            ask(&mut source, &seconds, (100, 60)).0
        });
        assert!(serial == parallel, "{name}: pixels differ");
    }
}

/// Overwrites the pictures of a GOP that begins somewhere in the middle.
fn damage(path: &std::path::Path, from: f64, until: f64) {
    let mut bytes = std::fs::read(path).unwrap();
    let (from, until) = (bytes.len() as f64 * from, bytes.len() as f64 * until);
    bytes[from as usize..until as usize].fill(0x5a);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn damage_costs_only_the_frames_it_hits_side_by_side_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(&dir, "a.mp4", "mp4mux");
    damage(&path, 0.4, 0.5);
    let times: Vec<f64> = (0..32).map(|i| f64::from(i) / 2.0 + 0.02).collect();
    for threads in [1, 3] {
        let options = GstOptions::new().with_threads(threads);
        let mut source = GstSource::open_with(&path, &options).unwrap();
        let (frames, _) = ask(&mut source, &times, (160, 96));
        let wrong = frames
            .iter()
            .zip(&times)
            .filter(|(frame, time)| number(&frame.pixels) != (**time * 25.0) as u32)
            .count();
        assert!(
            (1..=10).contains(&wrong),
            "{threads} threads: {wrong} of 32 wrong"
        );
    }
}

#[test]
fn a_call_that_decodes_side_by_side_is_cancelled_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(&dir, "a.mp4", "mp4mux");
    let options = GstOptions::new().with_threads(3);
    let mut source = GstSource::open_with(path, &options).unwrap();
    let handle = source.cancel_handle();
    let times: Vec<f64> = (0..200).map(|i| f64::from(i) / 13.0).collect();
    let mut frames = 0;
    let outcome = source.frames_at(&times, 16, 8, &mut |_| {
        handle.cancel();
        frames += 1;
    });
    let cancelled = matches!(outcome, Err(GstError::Cancelled { .. }));
    assert!(cancelled && frames < 150, "{outcome:?} after {frames}");
    let (frames, _) = ask(&mut source, &times, (16, 8));
    for (frame, time) in frames.iter().zip(&times) {
        assert_eq!(number(&frame.pixels), (time * 25.0 + 1e-6) as u32);
    }
}

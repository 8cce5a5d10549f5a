//! What opening found out is kept on disk where that is asked for, and never believed wrongly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};

use common::{Clip, assert_exact_source, h264, steady, uneven};
use eva_core::FrameSource;
use eva_gst::{FrameRule, GstOptions, GstSource};

/// The files in a directory.
fn kept(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_source_is_the_same_with_and_without_its_index() {
    let dir = tempfile::tempdir().unwrap();
    for (name, mux, times) in [
        ("a.mp4", "mp4mux", steady(200, 25)),
        ("b.mp4", "mp4mux fragment-duration=1000", steady(200, 25)),
        ("c.mkv", "matroskamux", uneven(150)),
        ("d.ts", "mpegtsmux", steady(100, 25)),
    ] {
        let clip = Clip {
            times,
            encode: &format!("{} ! {mux}", h264(30, 2)),
            caps: "",
        };
        let path = clip.file(&dir, name);
        let directory = dir.path().join("index").join(name);
        let plain = GstSource::open(&path).unwrap().info();
        let options = GstOptions::new().with_index_dir(&directory);
        let mut contents = Vec::new();
        for round in ["kept", "found", "replaced", "found again"] {
            let mut source = GstSource::open_with(&path, &options).unwrap();
            assert_eq!(source.info(), plain, "{name}, {round}");
            let slack = if name == "d.ts" { 20_000 } else { 1_000_000 };
            assert_exact_source(&mut source, &clip, slack, &format!("{name}, {round}"));
            let files = kept(&directory);
            assert_eq!(files.len(), 1, "{name}, {round}");
            let bytes = std::fs::read(&files[0]).unwrap();
            contents.push(bytes.clone());
            if round == "found" {
                let half = &bytes[..bytes.len() / 2];
                std::fs::write(&files[0], half).unwrap();
            }
        }
        assert!(contents.iter().all(|bytes| *bytes == contents[0]), "{name}");
    }
}

#[test]
fn the_published_rule_and_a_replaced_video_have_an_index_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("index");
    let write = |times: Vec<u64>| {
        Clip {
            times,
            encode: &format!("{} ! mp4mux", h264(30, 2)),
            caps: "",
        }
        .file(&dir, "a.mp4")
    };
    let options = GstOptions::new().with_index_dir(&directory);
    let published = options.clone().with_rule(FrameRule::Published);
    let shown = |options: &GstOptions, path: &Path| {
        let mut source = GstSource::open_with(path, options).unwrap();
        let mut shown = Vec::new();
        let times = [0.0, 1.3, 2.011, 3.9, 99.0];
        source
            .frames_at(&times, 16, 8, &mut |frame| shown.push(frame))
            .unwrap();
        (source.info(), shown)
    };
    let mut seen = Vec::new();
    for times in [uneven(120), steady(60, 25)] {
        let path = write(times);
        for rule in [FrameRule::Displayed, FrameRule::Published] {
            let plain = shown(&GstOptions::new().with_rule(rule), &path);
            let options = options.clone().with_rule(rule);
            assert_eq!(shown(&options, &path), plain);
            assert_eq!(shown(&options, &path), plain);
            seen.push(plain);
        }
        assert_eq!(kept(&directory).len(), 2);
    }
    assert!(seen[0] != seen[1] && seen[1] != seen[3]);
    // A directory that cannot be made is no failure.
    let path = dir.path().join("a.mp4");
    let nowhere = published.with_index_dir(path.join("no directory"));
    assert_eq!(shown(&nowhere, &path), seen[3]);
}

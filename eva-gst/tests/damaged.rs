//! Files that are no videos, or broken ones, end soon: in frames, or in an error that says what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Clip, Dice, h264, number, steady, within};
use eva_core::{FrameSource, Selection};
use eva_gst::{GstError, GstSource};

const LIMIT: Duration = Duration::from_secs(5);

/// Opens `path` and asks for eight frames over all of it.
fn try_frames(path: &Path) -> Result<Vec<(f64, u32)>, GstError> {
    let path = path.to_owned();
    let name = path.display().to_string();
    within(LIMIT, &name, move || {
        let mut source = GstSource::open(path)?;
        let info = source.info();
        let selection = Selection::uniform(0.0, info.duration, 8, 160, 96);
        let mut frames = Vec::new();
        source.frames(&selection, &mut |frame| {
            frames.push((frame.time, number(&frame.pixels)));
        })?;
        Ok(frames)
    })
}

fn refused(path: &Path) -> GstError {
    let error = try_frames(path).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(text.contains(';'), "no remedy: {text}");
    error
}

fn good(dir: &tempfile::TempDir, name: &str, mux: &str) -> PathBuf {
    Clip {
        times: steady(200, 25),
        encode: &format!("{} ! {mux}", h264(30, 2)),
        caps: "",
    }
    .file(dir, name)
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = refused(&dir.path().join("missing.mp4"));
    assert!(matches!(missing, GstError::NotFound { .. }), "{missing}");
    let directory = refused(dir.path());
    assert!(
        matches!(directory, GstError::IsDirectory { .. }),
        "{directory}"
    );
    let pipe = dir.path().join("pipe.mp4");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());
    let pipe = refused(&pipe);
    assert!(matches!(pipe, GstError::NotAFile { .. }), "{pipe}");
    let device = refused(Path::new("/dev/zero"));
    assert!(matches!(device, GstError::NotAFile { .. }), "{device}");
}

#[test]
fn what_is_no_video_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    for content in [
        &b""[..],
        b"x",
        b"This is a text that somebody named a video.\n",
        &[0; 100_000],
        b"<html><body>404 not found</body></html>",
        b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41",
    ] {
        std::fs::write(&path, content).unwrap();
        let error = refused(&path);
        let expected = matches!(error, GstError::NotVideo { .. } | GstError::Damaged { .. });
        assert!(expected, "{error}");
    }
    std::fs::write(&path, "text\n".repeat(10_000)).unwrap();
    let text = refused(&path);
    assert!(matches!(text, GstError::NotVideo { .. }), "{text}");
}

#[test]
fn a_file_with_sound_alone_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (name, encode) in [
        ("a.mp4", "avenc_aac ! mp4mux"),
        ("a.mkv", "avenc_aac ! matroskamux"),
        ("a.wav", "wavenc"),
        ("a.ts", "avenc_aac ! mpegtsmux"),
    ] {
        let path = dir.path().join(name);
        common::write_sound(&path, encode);
        let error = refused(&path);
        assert!(
            matches!(error, GstError::NotVideo { .. }),
            "{name}: {error}"
        );
    }
}

#[test]
fn sound_beside_the_video_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    for (name, mux) in [
        ("a.mp4", "mp4mux"),
        ("a.mkv", "matroskamux"),
        ("a.ts", "mpegtsmux"),
    ] {
        let encode = format!(
            "{} ! {mux} name=mux audiotestsrc num-buffers=340 ! audioconvert ! avenc_aac ! mux. mux.",
            h264(30, 2)
        );
        let clip = Clip {
            times: steady(200, 25),
            encode: &encode,
            caps: "",
        };
        let path = clip.file(&dir, name);
        common::assert_exact(&path, &clip, 1_000_000);
    }
}

#[test]
fn a_truncated_file_gives_what_is_left_or_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let whole = [
        good(&dir, "last.mp4", "mp4mux"),
        good(&dir, "first.mp4", "mp4mux faststart=true"),
        good(&dir, "fragments.mp4", "mp4mux fragment-duration=1000"),
        good(&dir, "a.mkv", "matroskamux"),
        good(&dir, "a.ts", "mpegtsmux"),
    ];
    for path in whole {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        for percent in [1, 10, 35, 60, 90, 99] {
            let cut = dir.path().join(format!("{percent} of {name}"));
            std::fs::write(&cut, &bytes[..bytes.len() * percent / 100]).unwrap();
            match try_frames(&cut) {
                Ok(frames) => {
                    // What is delivered is right.
                    assert_eq!(frames.len(), 8, "{cut:?}");
                    for (time, number) in frames {
                        let shown = f64::from(number) / 25.0;
                        assert!((time - shown).abs() < 0.002, "{cut:?}: {number} at {time}");
                    }
                    assert_ne!(name, "last.mp4", "an index that is cut off cannot be read");
                }
                Err(error) => {
                    assert!(name == "last.mp4" || percent <= 10, "{cut:?}: {error}");
                }
            }
        }
    }
}

#[test]
fn bit_rot_ends_in_frames_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let whole = [
        good(&dir, "a.mp4", "mp4mux"),
        good(&dir, "fragments.mp4", "mp4mux fragment-duration=1000"),
        good(&dir, "a.mkv", "matroskamux"),
        good(&dir, "a.ts", "mpegtsmux"),
    ];
    let mut outcomes = [0, 0];
    for path in whole {
        let bytes = std::fs::read(&path).unwrap();
        for seed in 0..20 {
            let mut dice = Dice(seed * 977 + 5);
            let mut rotten = bytes.clone();
            for _ in 0..1 + dice.below(60) {
                let at = dice.below(rotten.len() as u64) as usize;
                rotten[at] = dice.below(256) as u8;
            }
            let name = path.file_name().unwrap().to_str().unwrap();
            let file = dir.path().join(format!("{seed} of {name}"));
            std::fs::write(&file, rotten).unwrap();
            match try_frames(&file) {
                Ok(frames) => {
                    assert_eq!(frames.len(), 8);
                    outcomes[0] += 1;
                }
                Err(error) => {
                    assert!(!matches!(error, GstError::Timeout { .. }), "{error}");
                    outcomes[1] += 1;
                }
            }
        }
    }
    println!("{} gave frames, {} an error", outcomes[0], outcomes[1]);
    assert!(outcomes[0] > 20, "{outcomes:?}");
}

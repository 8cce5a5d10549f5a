//! Over 200 videos damaged in every way a seeded mutator knows: each ends soon, in frames or in an
//! error that says what to do, and none takes the machine's memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Clip, Dice, busyness, h264, steady, within};
use eva_core::{FrameSource, Selection};
use eva_gst::{GstError, GstSource};

const LIMIT: Duration = Duration::from_secs(5);

/// Bytes of memory that this process has used at most, all of it.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap();
    kilobytes.parse::<u64>().unwrap() * 1024
}

/// Opens `path` and asks for six frames over all of it, twice.
fn look(path: &Path, what: &str) -> Result<usize, GstError> {
    let path = path.to_owned();
    within(LIMIT.mul_f64(busyness()), what, move || {
        let mut source = GstSource::open(path)?;
        let info = source.info();
        let mut frames = 0;
        for size in [32, 48] {
            let selection = Selection::uniform(0.0, info.duration, 6, size, size);
            source.frames(&selection, &mut |_| frames += 1)?;
        }
        assert_eq!(frames, 12);
        Ok(frames)
    })
}

fn check(path: &Path, what: &str, outcomes: &mut [u32; 2]) {
    let begin = Instant::now();
    let outcome = look(path, what);
    if begin.elapsed() > Duration::from_millis(1500) {
        println!("{:.1?} for {what}", begin.elapsed());
    }
    match outcome {
        Ok(_) => outcomes[0] += 1,
        Err(error) => {
            let text = error.to_string();
            assert!(!matches!(error, GstError::Timeout { .. }), "{what}: {text}");
            let told = text.contains(&path.display().to_string()) && text.contains(';');
            assert!(told, "{what}: {text}");
            outcomes[1] += 1;
        }
    }
}

/// A box of an MP4 file: where it begins and ends, where its content begins, and its kind.
#[derive(Clone, Copy, Debug)]
struct Mp4Box {
    begin: usize,
    content: usize,
    end: usize,
    kind: [u8; 4],
}

/// All boxes of `bytes` between two places, those in others included.
fn boxes(bytes: &[u8], begin: usize, end: usize, all: &mut Vec<Mp4Box>) {
    let mut at = begin;
    while at + 8 <= end {
        let size = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let kind: [u8; 4] = bytes[at + 4..at + 8].try_into().unwrap();
        if size < 8 || at + size > end {
            return;
        }
        all.push(Mp4Box {
            begin: at,
            content: at + 8,
            end: at + size,
            kind,
        });
        let holds_others = [
            b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"moof", b"traf",
        ];
        if holds_others.contains(&&kind) {
            boxes(bytes, at + 8, at + size, all);
        }
        at += size;
    }
}

/// One damaged copy of `whole`, and what was done to it.
fn mutate(whole: &[u8], boxes: &[Mp4Box], turn: usize, dice: &mut Dice) -> (Vec<u8>, String) {
    let mut bytes = whole.to_vec();
    let length = bytes.len();
    let mut place = |limit: usize| dice.below(limit as u64) as usize;
    let what = match turn % 8 {
        0 => {
            let count = 1 + place(200);
            for _ in 0..count {
                bytes[place(length)] = place(256) as u8;
            }
            format!("{count} bytes of rot")
        }
        1 => {
            bytes.truncate(place(length));
            format!("cut at {}", bytes.len())
        }
        2 => {
            let head = 1 + place(256);
            bytes[..head].fill(0);
            format!("{head} zeros at the beginning")
        }
        3 => {
            let (from, count) = (place(length), 1 + place(length / 3));
            let to = (from + count).min(length);
            bytes[from..to].fill(0xff);
            format!("{from} to {to} overwritten")
        }
        4 => {
            let (from, count) = (place(length), 1 + place(length / 3));
            bytes.drain(from..(from + count).min(length));
            format!("{count} bytes gone from {from}")
        }
        5 => {
            let third = length / 3;
            let (a, b) = (place(third), third + place(third));
            let count = 1 + place(third);
            for i in 0..count {
                bytes.swap(a + i, (b + i).min(length - 1));
            }
            format!("{count} bytes at {a} and {b} swapped")
        }
        6 => {
            let at = place(length);
            let text = b"<html>502 Bad Gateway</html>\n".repeat(1 + place(50));
            bytes.splice(at..at, text);
            format!("text inserted at {at}")
        }
        // A number somewhere near the beginning, where headers are, becomes an extreme one.
        _ => {
            let at = place(length.min(2000) - 8);
            let extreme = [0, 1, 7, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff_u32][place(6)];
            bytes[at..at + 4].copy_from_slice(&extreme.to_be_bytes());
            format!("{extreme:#x} at {at}")
        }
    };
    if boxes.is_empty() || turn.is_multiple_of(2) {
        return (bytes, what);
    }
    // MP4: something that is wrong with one of its boxes instead.
    let mut bytes = whole.to_vec();
    let of = boxes[turn / 2 % boxes.len()];
    let name = String::from_utf8_lossy(&of.kind).into_owned();
    let what = match place(7) {
        0 => {
            bytes.truncate(of.begin + place(8));
            "cut in the head of"
        }
        1 => {
            bytes.truncate(of.content + place(of.end - of.content + 1));
            "cut in the middle of"
        }
        2 => {
            bytes[of.begin..of.content].fill(0);
            "no head for"
        }
        3 => {
            let wrong = [0, 1, 7, 9, 0x7fff_ffff, 0xffff_ffff_u32][place(6)];
            bytes[of.begin..of.begin + 4].copy_from_slice(&wrong.to_be_bytes());
            "wrong size of"
        }
        4 => {
            bytes[of.content..of.end].fill(0);
            "zeros in"
        }
        5 => {
            let copy = bytes[of.begin..of.end].to_vec();
            bytes.splice(of.end..of.end, copy);
            "twice the"
        }
        _ => {
            let moved: Vec<u8> = bytes.drain(of.begin..of.end).collect();
            let at = place(bytes.len() + 1);
            bytes.splice(at..at, moved);
            "elsewhere the"
        }
    };
    (bytes, format!("{what} {name}"))
}

#[test]
fn damaged_videos_end_soon_in_frames_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged");
    let h264 = h264(15, 2);
    let mut outcomes = [0, 0];
    for (i, (name, encode, copies)) in [
        ("mp4", format!("{h264} ! mp4mux"), 80),
        ("mp4", format!("{h264} ! mp4mux faststart=true"), 40),
        ("mp4", format!("{h264} ! mp4mux fragment-duration=500"), 40),
        ("mkv", format!("{h264} ! matroskamux"), 24),
        ("ts", format!("{h264} ! mpegtsmux"), 16),
        ("avi", "avenc_mpeg4 gop-size=15 ! avimux".to_owned(), 16),
        (
            "webm",
            "vp8enc deadline=1 cpu-used=8 ! webmmux".to_owned(),
            16,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let clip = Clip {
            times: steady(45, 25),
            encode: &encode,
            caps: "",
        };
        let whole = std::fs::read(clip.file(&dir, &format!("whole.{name}"))).unwrap();
        let mut all = Vec::new();
        if name == "mp4" {
            boxes(&whole, 0, whole.len(), &mut all);
            assert!(all.iter().any(|of| &of.kind == b"stbl"), "{all:?}");
        }
        let mut dice = Dice(i as u64 * 7919 + 1);
        for turn in 0..copies {
            let (bytes, what) = mutate(&whole, &all, turn, &mut dice);
            std::fs::write(&path, bytes).unwrap();
            check(&path, &format!("{i} {name} {turn}: {what}"), &mut outcomes);
        }
    }
    println!("{} gave frames, {} an error", outcomes[0], outcomes[1]);
    assert!(
        outcomes[0] + outcomes[1] > 200 && outcomes[0] > 50,
        "{outcomes:?}"
    );
    let peak = peak_memory() >> 20;
    assert!(peak < 500, "{peak} MiB");
}

#[test]
fn a_sparse_file_of_4_gigabytes_ends_soon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse");
    let h264 = h264(15, 2);
    let mut outcomes = [0, 0];
    for encode in [
        None,
        Some(format!("{h264} ! mp4mux")),
        Some(format!("{h264} ! mp4mux faststart=true")),
        Some(format!("{h264} ! mp4mux fragment-duration=500")),
        Some(format!("{h264} ! matroskamux")),
        Some(format!("{h264} ! mpegtsmux")),
    ] {
        match &encode {
            None => drop(File::create(&path).unwrap()),
            Some(encode) => Clip {
                times: steady(45, 25),
                encode,
                caps: "",
            }
            .write(&path),
        }
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(4 << 30).unwrap();
        check(&path, &format!("4 GB after {encode:?}"), &mut outcomes);
    }
    let peak = peak_memory() >> 20;
    assert!(peak < 500, "{peak} MiB");
}

//! Decoding begins at recovery points, the keyframes of open GOPs, and its frames are those of
//! decoding from the beginning.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use common::{Dice, HEIGHT, WIDTH, steady, write};
use eva_core::{Pixels, RgbImage};
use eva_gst::{DecoderChoice, GstOptions, GstSource};

const FRAMES: u64 = 300;

/// A pattern that moves, on noise: a picture made from a wrong one before it looks different.
fn moving(number: u32) -> Vec<u8> {
    let (width, height) = (WIDTH as usize, HEIGHT as usize);
    let mut dice = Dice(u64::from(number));
    let mut picture = vec![128; width * height * 3 / 2];
    for (i, value) in picture.iter_mut().take(width * height).enumerate() {
        let (x, y) = (i % width + number as usize * 3, i / width + number as usize);
        *value = (((x / 9) ^ (y / 7)) * 23 % 200) as u8 + dice.below(40) as u8;
    }
    picture
}

/// Writes an H.264 video with open GOPs of 20 to 30 pictures.
fn open_gops(path: &Path, mux: &str) {
    let encode = format!(
        "x264enc key-int-max=30 bframes=3 b-adapt=false ref=4 threads=1 speed-preset=fast \
         option-string=open-gop=1:b-pyramid=normal:weightp=2 ! h264parse ! {mux}"
    );
    let caps = format!("video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate=25/1");
    write(path, &steady(FRAMES, 25), &caps, &encode, &moving);
}

fn open(path: &Path, decoder: DecoderChoice) -> GstSource {
    let options = GstOptions::default()
        .with_cache_bytes(0)
        .with_decoder(decoder);
    GstSource::open_with(path, &options).unwrap()
}

fn frames(source: &mut GstSource, numbers: &[u64]) -> Vec<RgbImage> {
    let times: Vec<f64> = numbers
        .iter()
        .map(|number| *number as f64 / 25.0 + 0.01)
        .collect();
    let mut frames = Vec::new();
    source
        .frames_at(&times, WIDTH, HEIGHT, &mut |frame| {
            frames.push(frame.pixels)
        })
        .unwrap();
    frames
}

/// All frames of the video, decoded from the beginning: of a copy whose recovery points are said to
/// be approximate, so that nothing is begun there.
fn from_the_beginning(path: &Path) -> Vec<RgbImage> {
    let mut bytes = std::fs::read(path).unwrap();
    let mut marks = 0;
    for at in 0..bytes.len() - 4 {
        if bytes[at..at + 4] == [6, 6, 1, 0xc4] {
            bytes[at + 3] = 0x84;
            marks += 1;
        }
    }
    assert!(marks >= 9, "{marks}");
    let name = path.file_name().unwrap().to_str().unwrap();
    let plain = path.with_file_name(format!("plain-{name}"));
    std::fs::write(&plain, bytes).unwrap();
    let mut source = open(&plain, DecoderChoice::Auto);
    let before = source.stats().packets_decoded;
    let all: Vec<u64> = (0..FRAMES).collect();
    let frames = frames(&mut source, &all);
    assert_eq!(source.stats().packets_decoded - before, FRAMES, "one run");
    frames
}

#[test]
fn frames_from_recovery_points_are_those_of_decoding_from_the_beginning() {
    let dir = tempfile::tempdir().unwrap();
    for (name, mux) in [
        ("a.mp4", "mp4mux"),
        ("a.mkv", "matroskamux"),
        ("a.ts", "mpegtsmux"),
    ] {
        let path = dir.path().join(name);
        open_gops(&path, mux);
        let expected = from_the_beginning(&path);
        let pipelined = DecoderChoice::Pipelined("avdec_h264".to_owned());
        for decoder in [DecoderChoice::Auto, pipelined] {
            let what = format!("{name}, {decoder:?}");
            let mut source = open(&path, decoder);
            let mut dice = Dice(3);
            let mut most = 0;
            for _ in 0..60 {
                let number = dice.below(FRAMES);
                let before = source.stats().packets_decoded;
                let found = frames(&mut source, &[number]);
                let same = found[0].rgb() == expected[number as usize].rgb();
                assert!(same, "{what}: frame {number} is another picture");
                most = most.max(source.stats().packets_decoded - before);
            }
            assert!(most <= 40, "{what}: {most} packets for one frame");
            // Several runs, side by side where the decoder may.
            let spread: Vec<u64> = (0..FRAMES).step_by(11).collect();
            for (number, found) in spread.iter().zip(frames(&mut source, &spread)) {
                let same = found.rgb() == expected[*number as usize].rgb();
                assert!(
                    same,
                    "{what}: of several, frame {number} is another picture"
                );
            }
        }
    }
}

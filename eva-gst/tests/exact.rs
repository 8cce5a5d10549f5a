//! For each time asked, exactly the frame on display: on real files of many kinds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Clip, assert_exact, h264, steady, uneven};

const MILLISECOND: u64 = 1_000_000;

fn exact(name: &str, encode: &str, times: Vec<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let clip = Clip {
        times,
        encode,
        caps: "",
    };
    let path = clip.file(&dir, name);
    let source = assert_exact(&path, &clip, MILLISECOND);
    let info = eva_core::FrameSource::info(&source);
    let last = *clip.times.last().unwrap() as f64 / 1e9;
    assert!(
        info.duration > last && info.duration < last + 0.25,
        "{name}: {info:?}, the last frame is at {last}"
    );
    assert_eq!((info.width, info.height), (common::WIDTH, common::HEIGHT));
}

#[test]
fn h264_gop_30_in_mp4() {
    exact(
        "a.mp4",
        &format!("{} ! mp4mux", h264(30, 2)),
        steady(300, 30),
    );
}

#[test]
fn h264_gop_250_in_mp4() {
    exact(
        "a.mp4",
        &format!("{} ! mp4mux faststart=true", h264(250, 3)),
        steady(600, 25),
    );
}

#[test]
fn h264_in_matroska() {
    exact(
        "a.mkv",
        &format!("{} ! matroskamux", h264(30, 2)),
        steady(300, 30),
    );
}

#[test]
fn h264_in_mpegts() {
    exact(
        "a.ts",
        &format!("{} ! mpegtsmux", h264(30, 2)),
        steady(300, 25),
    );
}

#[test]
fn h264_open_gop_in_mp4() {
    let encode = "x264enc key-int-max=30 bframes=2 speed-preset=veryfast option-string=scenecut=0:open-gop=1 ! h264parse ! mp4mux";
    exact("a.mp4", encode, steady(600, 25));
}

#[test]
fn h264_open_gop_in_matroska() {
    let encode = "x264enc key-int-max=30 bframes=2 speed-preset=veryfast option-string=scenecut=0:open-gop=1 ! h264parse ! matroskamux";
    exact("a.mkv", encode, steady(600, 25));
}

#[test]
fn h264_of_variable_rate_with_gaps_in_mp4_whose_edit_list_leaves_out_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut clip = Clip {
        times: uneven(150),
        encode: &format!("{} ! mp4mux", h264(30, 2)),
        caps: "",
    };
    let path = clip.file(&dir, "a.mp4");
    // The muxer adds up 25 frames a second and so ends the edit list before the last two frames.
    clip.times.truncate(148);
    assert_exact(&path, &clip, MILLISECOND);
}

#[test]
fn h264_of_variable_rate_with_gaps_in_matroska() {
    exact(
        "a.mkv",
        &format!("{} ! matroskamux", h264(30, 2)),
        uneven(150),
    );
}

#[test]
fn h264_in_fragmented_mp4() {
    exact(
        "a.mp4",
        &format!("{} ! mp4mux fragment-duration=1000", h264(30, 2)),
        steady(300, 25),
    );
}

#[test]
fn vp8_in_webm() {
    exact(
        "a.webm",
        "vp8enc keyframe-max-dist=60 deadline=1 cpu-used=8 ! webmmux",
        steady(200, 25),
    );
}

#[test]
fn vp9_in_webm() {
    exact(
        "a.webm",
        "vp9enc keyframe-max-dist=100 deadline=1 cpu-used=8 ! webmmux",
        steady(200, 25),
    );
}

#[test]
fn mpeg4_in_avi() {
    exact(
        "a.avi",
        "avenc_mpeg4 gop-size=40 bitrate=800000 ! avimux",
        steady(200, 25),
    );
}

#[test]
fn mjpeg_in_avi() {
    exact("a.avi", "jpegenc ! avimux", steady(100, 25));
}

#[test]
fn mpeg4_with_b_pictures_in_avi_which_lacks_their_times() {
    exact(
        "a.avi",
        "avenc_mpeg4 gop-size=40 bitrate=800000 max-bframes=2 ! avimux",
        steady(200, 25),
    );
}

#[test]
fn h264_open_gop_in_mpegts() {
    let encode = "x264enc key-int-max=30 bframes=2 speed-preset=veryfast option-string=scenecut=0:open-gop=1 ! h264parse ! mpegtsmux";
    exact("a.ts", encode, steady(600, 25));
}

#[test]
fn h265_in_mp4() {
    exact(
        "a.mp4",
        "x265enc key-int-max=50 speed-preset=ultrafast option-string=bframes=3 ! h265parse ! mp4mux",
        steady(150, 25),
    );
}

#[test]
fn h265_of_10_bits_in_mp4_and_matroska() {
    for (name, mux) in [("a.mp4", "mp4mux"), ("a.mkv", "matroskamux")] {
        let encode = format!(
            "videoconvert ! video/x-raw,format=I420_10LE ! x265enc key-int-max=50 speed-preset=ultrafast option-string=bframes=2 ! h265parse ! {mux}"
        );
        exact(name, &encode, steady(100, 25));
    }
}

#[test]
fn h264_of_10_bits_in_mp4() {
    let encode = format!(
        "videoconvert ! video/x-raw,format=I420_10LE ! {} ! mp4mux",
        h264(50, 2)
    );
    exact("a.mp4", &encode, steady(150, 25));
}

#[test]
fn av1_in_mp4_and_webm() {
    let av1 = "av1enc cpu-used=8 usage-profile=realtime keyframe-max-dist=40 threads=1 ! av1parse";
    for (name, mux) in [("a.mp4", "mp4mux"), ("a.webm", "webmmux")] {
        exact(name, &format!("{av1} ! {mux}"), steady(100, 25));
    }
}

#[test]
fn webm_and_matroska_without_cues() {
    exact(
        "a.webm",
        "vp8enc keyframe-max-dist=40 deadline=1 cpu-used=8 ! webmmux streamable=true",
        steady(150, 25),
    );
    exact(
        "a.mkv",
        &format!("{} ! matroskamux streamable=true", h264(30, 2)),
        steady(150, 25),
    );
}

#[test]
fn interlaced_h264_in_mp4_and_mpegts() {
    let dir = tempfile::tempdir().unwrap();
    for (name, mux) in [("a.mp4", "mp4mux"), ("a.ts", "mpegtsmux")] {
        let clip = Clip {
            times: steady(150, 25),
            encode: &format!(
                "x264enc interlaced=true key-int-max=30 bframes=2 speed-preset=veryfast ! h264parse ! {mux}"
            ),
            caps: "framerate=25/1,interlace-mode=interleaved,field-order=top-field-first",
        };
        assert_exact(&clip.file(&dir, name), &clip, MILLISECOND);
    }
}

#[test]
fn a_stream_that_starts_late_counts_from_its_first_frame() {
    let dir = tempfile::tempdir().unwrap();
    for (name, mux) in [
        ("a.mkv", "matroskamux offset-to-zero=false"),
        ("a.ts", "mpegtsmux"),
        // An edit list that begins with nothing.
        ("a.mp4", "mp4mux"),
    ] {
        let mut clip = Clip {
            times: steady(150, 25)
                .iter()
                .map(|time| time + 5_000_000_000)
                .collect(),
            encode: &format!("{} ! {mux}", h264(30, 2)),
            caps: "",
        };
        let path = clip.file(&dir, name);
        clip.times = steady(150, 25);
        assert_exact(&path, &clip, MILLISECOND);
    }
}

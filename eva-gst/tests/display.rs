//! What is delivered is upright, has square pixels, the asked size and order, and true colours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Clip, HEIGHT, WIDTH, h264, number, steady};
use eva_core::{Frame, FrameSource, Pixels, RgbImage, Selection};
use eva_gst::{FrameRule, GstError, GstOptions, GstSource};

fn select(
    source: &mut GstSource,
    (start, end, nframes): (f64, f64, u32),
    (width, height): (u32, u32),
) -> Result<Vec<Frame<RgbImage>>, GstError> {
    // Not `uniform`, which takes at least one frame: a source must bear any selection.
    let selection = Selection {
        nframes,
        ..Selection::uniform(start, end, nframes, width, height)
    };
    let mut frames = Vec::new();
    source.frames(&selection, &mut |frame| frames.push(frame))?;
    Ok(frames)
}

fn numbers(frames: &[Frame<RgbImage>]) -> Vec<u32> {
    frames.iter().map(|frame| number(&frame.pixels)).collect()
}

fn mp4(dir: &tempfile::TempDir, name: &str, caps: &str, mux: &str) -> std::path::PathBuf {
    Clip {
        times: steady(100, 25),
        encode: &format!("{} ! {mux}", h264(30, 2)),
        caps,
    }
    .file(dir, name)
}

#[test]
fn a_selection_gets_its_frames_in_order_at_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = GstSource::open(mp4(&dir, "a.mp4", "", "mp4mux")).unwrap();
    let info = source.info();
    assert!((info.duration - 4.0).abs() < 0.01, "{info:?}");
    assert!((info.fps - 25.0).abs() < 0.01, "{info:?}");

    let frames = select(&mut source, (0.0, 4.0, 5), (84, 56)).unwrap();
    assert_eq!(numbers(&frames), [0, 24, 49, 74, 99]);
    for frame in &frames {
        assert_eq!((frame.pixels.width(), frame.pixels.height()), (84, 56));
        assert_eq!(frame.pixels.rgb().len(), 84 * 56 * 3);
    }
    assert!((frames[4].time - 3.96).abs() < 1e-3);
    // One frame: the middle. A window of no length: its start, repeated. A short one: one frame.
    assert_eq!(
        numbers(&select(&mut source, (1.0, 3.0, 1), (160, 96)).unwrap()),
        [50]
    );
    assert_eq!(
        numbers(&select(&mut source, (2.0, 2.0, 3), (160, 96)).unwrap()),
        [50; 3]
    );
    assert_eq!(
        numbers(&select(&mut source, (2.01, 2.03, 4), (160, 96)).unwrap()),
        [50; 4]
    );
    // Backwards.
    assert_eq!(
        numbers(&select(&mut source, (3.0, 1.0, 2), (160, 96)).unwrap()),
        [75, 75]
    );
    // The end of the video, beyond it, and time 0.
    assert_eq!(
        numbers(&select(&mut source, (3.9, info.duration, 2), (160, 96)).unwrap()),
        [97, 99]
    );
    assert_eq!(
        numbers(&select(&mut source, (90.0, 95.0, 2), (160, 96)).unwrap()),
        [99, 99]
    );
    assert_eq!(
        numbers(&select(&mut source, (-5.0, 0.0, 2), (160, 96)).unwrap()),
        [0, 0]
    );
    // A larger size than the video's.
    assert_eq!(
        numbers(&select(&mut source, (1.0, 3.0, 1), (320, 190)).unwrap()),
        [50]
    );
    assert!(
        select(&mut source, (0.0, 4.0, 0), (160, 96))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_frames_own_time_asks_for_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = mp4(&dir, "a.mp4", "framerate=30000/1001", "mp4mux");
    let mut source = GstSource::open(path).unwrap();
    let frames = select(&mut source, (0.0, 4.0, 40), (80, 48)).unwrap();
    let times: Vec<f64> = frames.iter().map(|frame| frame.time).collect();
    let mut again = Vec::new();
    source
        .frames_at(&times, 80, 48, &mut |frame| again.push(frame))
        .unwrap();
    assert_eq!(frames, again);
}

#[test]
fn impossible_selections_are_refused_and_the_source_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = GstSource::open(mp4(&dir, "a.mp4", "", "mp4mux")).unwrap();
    for (window, size) in [
        ((0.0, 4.0, 2), (0, 96)),
        ((0.0, 4.0, 2), (160, u32::MAX)),
        ((0.0, 4.0, u32::MAX), (160, 96)),
        ((f64::NAN, 4.0, 2), (160, 96)),
    ] {
        let error = select(&mut source, window, size).unwrap_err();
        assert!(matches!(error, GstError::Selection { .. }), "{error}");
    }
    let wide = select(
        &mut source,
        (f64::NEG_INFINITY, f64::INFINITY, 1),
        (160, 96),
    );
    assert!(matches!(wide, Err(GstError::Selection { .. })));
    assert_eq!(
        numbers(&select(&mut source, (-1e300, 1e300, 3), (160, 96)).unwrap()),
        [0, 0, 99]
    );
}

#[test]
fn a_turned_video_is_delivered_upright() {
    let dir = tempfile::tempdir().unwrap();
    for (tag, turns) in [("rotate-90", 1), ("rotate-180", 2), ("rotate-270", 3)] {
        let clip = Clip {
            times: steady(60, 25),
            encode: &format!("{} ! mp4mux", h264(30, 2)),
            caps: "",
        };
        let path = clip.file(&dir, &format!("{tag}.mp4"));
        turn_mp4(&path, turns);
        let mut source = GstSource::open(path).unwrap();
        let info = source.info();
        let (width, height) = if turns == 2 {
            (WIDTH, HEIGHT)
        } else {
            (HEIGHT, WIDTH)
        };
        assert_eq!((info.width, info.height), (width, height), "{tag}");
        let frames = select(&mut source, (0.0, 2.0, 1), (width, height)).unwrap();
        let upright = &frames[0].pixels;
        // Turn it back, anticlockwise, to read its number.
        let mut back = upright.clone();
        for _ in 0..turns {
            back = anticlockwise(&back);
        }
        assert_eq!(number(&back), 25, "{tag}");
    }
}

/// Writes a display matrix of quarter turns clockwise into the file's only track header.
fn turn_mp4(path: &std::path::Path, turns: u32) {
    let mut bytes = std::fs::read(path).unwrap();
    let header = bytes.windows(4).position(|four| four == b"tkhd").unwrap();
    assert_eq!(bytes[header + 4], 0, "version");
    let matrix = header + 4 + 40;
    let (one, minus) = (0x1_0000_u32, 0xffff_0000);
    let [a, b, c, d] = match turns {
        1 => [0, one, minus, 0],
        2 => [minus, 0, 0, minus],
        _ => [0, minus, one, 0],
    };
    for (place, value) in [(0, a), (4, b), (12, c), (16, d)] {
        bytes[matrix + place..][..4].copy_from_slice(&value.to_be_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

fn anticlockwise(image: &RgbImage) -> RgbImage {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let mut rgb = Vec::new();
    for y in 0..width {
        for x in 0..height {
            let at = (x * width + (width - 1 - y)) * 3;
            rgb.extend_from_slice(&image.rgb()[at..at + 3]);
        }
    }
    RgbImage::new(image.height(), image.width(), rgb).unwrap()
}

#[test]
fn pixels_that_are_not_square_widen_the_picture() {
    let dir = tempfile::tempdir().unwrap();
    let caps = "framerate=25/1,pixel-aspect-ratio=4/3";
    for (name, mux) in [
        ("a.mp4", "mp4mux"),
        ("a.mkv", "matroskamux"),
        ("a.ts", "mpegtsmux"),
    ] {
        let mut source = GstSource::open(mp4(&dir, name, caps, mux)).unwrap();
        let info = source.info();
        assert_eq!((info.width, info.height), (213, 96), "{name}");
        let frames = select(&mut source, (0.0, 4.0, 2), (213, 96)).unwrap();
        assert_eq!(numbers(&frames), [0, 99]);
    }
}

#[test]
fn the_published_rule_takes_the_nearest_frame_by_index() {
    let dir = tempfile::tempdir().unwrap();
    let path = mp4(&dir, "a.mp4", "", "mp4mux");
    let options = GstOptions::new().with_rule(FrameRule::Published);
    let mut published = GstSource::open_with(&path, &options).unwrap();
    let mut displayed = GstSource::open(&path).unwrap();
    let times = [0.0, 0.019, 0.021, 1.0, 1.03, 3.99, 50.0];
    let mut seen = [Vec::new(), Vec::new()];
    for (source, seen) in [&mut published, &mut displayed].into_iter().zip(&mut seen) {
        source
            .frames_at(&times, 160, 96, &mut |frame| {
                seen.push(number(&frame.pixels))
            })
            .unwrap();
    }
    assert_eq!(seen[0], [0, 0, 1, 25, 26, 99, 99]);
    assert_eq!(seen[1], [0, 0, 0, 25, 25, 99, 99]);
}

#[test]
fn a_file_uri_and_odd_file_names_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = mp4(&dir, "a.mp4", "", "mp4mux");
    for name in [
        "with space.mp4",
        "100%23#a.mp4",
        "größe 視頻.mp4",
        "no extension",
    ] {
        let copy = dir.path().join(name);
        std::fs::copy(&path, &copy).unwrap();
        let mut source = GstSource::open(&copy).unwrap();
        assert_eq!(
            numbers(&select(&mut source, (2.0, 2.0, 1), (160, 96)).unwrap()),
            [50]
        );
        let uri = gstreamer::glib::filename_to_uri(&copy, None).unwrap();
        assert!(GstSource::open_uri(&uri).is_ok(), "{uri}");
    }
}

#[test]
fn colours_follow_the_tagged_matrix_and_range_and_are_601_without_a_tag() {
    let dir = tempfile::tempdir().unwrap();
    // A flat picture of one YUV colour, encoded without loss.
    let (y, u, v) = (120_u8, 90_u8, 180_u8);
    let expected = |kr: f64, kb: f64, full: bool| {
        let (luma, chroma) = if full {
            (f64::from(y), 1.0)
        } else {
            ((f64::from(y) - 16.0) * 255.0 / 219.0, 255.0 / 224.0)
        };
        let (cb, cr) = (
            (f64::from(u) - 128.0) * chroma,
            (f64::from(v) - 128.0) * chroma,
        );
        let kg = 1.0 - kr - kb;
        let r = luma + 2.0 * (1.0 - kr) * cr;
        let b = luma + 2.0 * (1.0 - kb) * cb;
        let g = luma - (2.0 * kb * (1.0 - kb) * cb + 2.0 * kr * (1.0 - kr) * cr) / kg;
        [r, g, b]
    };
    let bt601 = (0.299, 0.114);
    let bt709 = (0.2126, 0.0722);
    let x264 = "x264enc qp-min=1 qp-max=4 ! h264parse !";
    let mpeg4 = "avenc_mpeg4 bitrate=8000000 ! avimux";
    let h264_ts = "openh264enc bitrate=8000000 ! h264parse ! mpegtsmux";
    let muxers = [
        ("mp4", format!("{x264} mp4mux")),
        ("mkv", format!("{x264} matroskamux")),
        ("ts", format!("{x264} mpegtsmux")),
    ];
    let unnamed = [("avi", mpeg4.to_owned()), ("ts", h264_ts.to_owned())];
    let jpeg = [("avi", "jpegenc quality=100 ! avimux".to_owned())];
    // Range, matrix, transfer and primaries, as GStreamer numbers them; 0: not named.
    for (colours, (kr, kb), full, encoders) in [
        ("2:3:5:1", bt709, false, &muxers[..]),
        ("1:3:5:1", bt709, true, &muxers),
        ("2:4:16:4", bt601, false, &muxers),
        ("1:4:16:4", bt601, true, &muxers),
        ("2:0:0:0", bt601, false, &unnamed),
        ("1:4:0:0", bt601, true, &jpeg),
    ] {
        for (extension, encode) in encoders {
            let path = dir.path().join(format!("{colours}.{extension}"));
            common::write_flat(&path, [y, u, v], colours, encode);
            let mut source = GstSource::open(&path).unwrap();
            let frames = select(&mut source, (0.0, 1.0, 1), (64, 64)).unwrap();
            let centre = (32 * 64 + 32) * 3;
            let seen = &frames[0].pixels.rgb()[centre..centre + 3];
            let worst = expected(kr, kb, full)
                .iter()
                .zip(seen)
                .map(|(a, b)| (a.clamp(0.0, 255.0) - f64::from(*b)).abs())
                .fold(0.0, f64::max);
            assert!(
                worst <= 2.5,
                "{colours} in {extension}: {seen:?}, not {:?}",
                expected(kr, kb, full)
            );
        }
    }
}

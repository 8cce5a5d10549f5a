//! Test videos whose frames say their own number.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eva_core::{Frame, Pixels, RgbImage};
use eva_gst::{GstOptions, GstSource};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

/// Size of the test videos: 8 x 2 blocks of 20 x 48 pixels, one bit of the number each.
pub(crate) const WIDTH: u32 = 160;
pub(crate) const HEIGHT: u32 = 96;

/// A video to be written: frame `i` is shown at `times[i]` ns.
pub(crate) struct Clip<'a> {
    pub(crate) times: Vec<u64>,
    /// Everything between raw video and file, in `gst-launch` syntax.
    pub(crate) encode: &'a str,
    /// More fields of the raw video's caps.
    pub(crate) caps: &'a str,
}

/// `frames` frame times at a constant rate.
pub(crate) fn steady(frames: u64, fps: u64) -> Vec<u64> {
    (0..frames).map(|i| i * 1_000_000_000 / fps).collect()
}

/// Irregular times with two gaps of seconds.
pub(crate) fn uneven(frames: u64) -> Vec<u64> {
    let mut time = 0;
    (0..frames)
        .map(|i| {
            let shown = time;
            let step = [20, 35, 40, 100, 15, 60][(i % 6) as usize];
            let gap = if i == 40 || i == 95 { 3_000 } else { 0 };
            time += (step + gap) * 1_000_000;
            shown
        })
        .collect()
}

pub(crate) fn h264(gop: u32, bframes: u32) -> String {
    format!(
        "x264enc key-int-max={gop} bframes={bframes} threads=2 speed-preset=veryfast option-string=scenecut=0 ! h264parse"
    )
}

impl Clip<'_> {
    pub(crate) fn write(&self, path: &Path) {
        let caps = format!(
            "video/x-raw,format=I420,width={WIDTH},height={HEIGHT},{}",
            if self.caps.is_empty() {
                "framerate=25/1"
            } else {
                self.caps
            }
        );
        write(path, &self.times, &caps, self.encode, &number_picture);
    }

    /// Writes it once into a directory that lives as long as the test.
    pub(crate) fn file(&self, dir: &tempfile::TempDir, name: &str) -> PathBuf {
        let path = dir.path().join(name);
        self.write(&path);
        path
    }

    /// The number of the frame on display at `time` ns.
    pub(crate) fn shown(&self, time: u64) -> u32 {
        self.times.partition_point(|shown| *shown <= time).max(1) as u32 - 1
    }
}

/// Encodes `picture(i)`, raw video of `caps`, shown at `times[i]` ns.
pub(crate) fn write(
    path: &Path,
    times: &[u64],
    caps: &str,
    encode: &str,
    picture: &dyn Fn(u32) -> Vec<u8>,
) {
    gst::init().unwrap();
    let line = format!("appsrc name=in format=time max-bytes=0 ! {encode} ! filesink name=out");
    let pipeline = gst::parse::launch(&line)
        .unwrap_or_else(|error| panic!("{line}: {error}"))
        .downcast::<gst::Pipeline>()
        .unwrap();
    let source = pipeline.by_name("in").unwrap();
    let source = source.downcast::<gst_app::AppSrc>().unwrap();
    source.set_caps(Some(&caps.parse().unwrap()));
    let file = pipeline.by_name("out").unwrap();
    file.set_property("location", path);
    pipeline.set_state(gst::State::Playing).unwrap();
    let last_step = match times {
        [.., a, b] => b - a,
        _ => 40_000_000,
    };
    for (i, time) in times.iter().enumerate() {
        let mut buffer = gst::Buffer::from_mut_slice(picture(i as u32));
        let next = times.get(i + 1).copied().unwrap_or(time + last_step);
        let buffer_ref = buffer.get_mut().unwrap();
        buffer_ref.set_pts(gst::ClockTime::from_nseconds(*time));
        buffer_ref.set_duration(gst::ClockTime::from_nseconds(next - time));
        source.push_buffer(buffer).unwrap();
    }
    source.end_of_stream().unwrap();
    let message = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(
            gst::ClockTime::from_seconds(60),
            &[gst::MessageType::Eos, gst::MessageType::Error],
        )
        .expect("the encoder ends");
    pipeline.set_state(gst::State::Null).unwrap();
    if let gst::MessageView::Error(error) = message.view() {
        panic!("{line}: {} {:?}", error.error(), error.debug());
    }
}

/// I420 with the number in blocks, dark 0 and light 1, most significant first.
fn number_picture(number: u32) -> Vec<u8> {
    let (width, height) = (WIDTH as usize, HEIGHT as usize);
    let mut picture = vec![128; width * height * 3 / 2];
    for y in 0..height {
        for x in 0..width {
            let bit = 15 - (x * 8 / width + 8 * (y * 2 / height));
            picture[y * width + x] = if number >> bit & 1 == 1 { 215 } else { 35 };
        }
    }
    picture
}

/// The number in a frame of any size.
pub(crate) fn number(image: &RgbImage) -> u32 {
    let (width, height) = (image.width() as usize, image.height() as usize);
    (0..16).fold(0, |number, block| {
        let x = (block % 8 * 2 + 1) * width / 16;
        let y = (block / 8 * 2 + 1) * height / 4;
        let light = image.rgb()[(y * width + x) * 3 + 1];
        number << 1 | u32::from(light > 128)
    })
}

/// Frames at times in ns, delivered small.
pub(crate) fn fetch(source: &mut GstSource, times: &[u64]) -> Vec<Frame<RgbImage>> {
    let seconds: Vec<f64> = times.iter().map(|time| *time as f64 / 1e9).collect();
    let mut frames = Vec::new();
    source
        .frames_at(&seconds, 16, 8, &mut |frame| frames.push(frame))
        .unwrap();
    assert_eq!(frames.len(), times.len());
    frames
}

/// Checks the frames at `times` (ns) against the clip; `slack` (ns) is the container's rounding of
/// times. Returns what is wrong.
pub(crate) fn wrong(
    source: &mut GstSource,
    clip: &Clip<'_>,
    times: &[u64],
    slack: u64,
) -> Vec<String> {
    fetch(source, times)
        .iter()
        .zip(times)
        .filter_map(|(frame, time)| {
            let expected = clip.shown(*time);
            let seen = number(&frame.pixels);
            let shown = clip.times[expected as usize] as f64 / 1e9;
            let late = (frame.time - shown).abs() > slack as f64 / 1e9;
            (seen != expected || late).then(|| {
                format!(
                    "at {:.4}: frame {seen} of time {:.4}, not {expected} of {shown:.4}",
                    *time as f64 / 1e9,
                    frame.time
                )
            })
        })
        .collect()
}

/// A small deterministic generator.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

/// The times of all kinds of question: first, last, middle of frames, at their very beginning and
/// end, dense, sparse, unsorted, repeated.
pub(crate) fn questions(clip: &Clip<'_>, slack: u64) -> Vec<Vec<u64>> {
    let count = clip.times.len() as u64;
    let mut dice = Dice(7);
    let mut within = |i: u64| {
        let begin = clip.times[i as usize];
        let next = clip
            .times
            .get(i as usize + 1)
            .copied()
            .unwrap_or(begin + 30_000_000);
        begin + slack + 1 + dice.below(next - begin - 2 * slack - 2)
    };
    let single = vec![within(count / 3)];
    let dense: Vec<u64> = (count / 4..count / 4 + 60.min(count / 2))
        .map(&mut within)
        .collect();
    let sparse: Vec<u64> = (0..12).map(|i| within(i * (count - 1) / 11)).collect();
    let all: Vec<u64> = (0..count).map(&mut within).collect();
    let borders: Vec<u64> = (1..count)
        .step_by(7)
        .flat_map(|i| {
            let begin = clip.times[i as usize];
            [begin - slack - 1, begin + slack]
        })
        .collect();
    let mut unsorted: Vec<u64> = (0..30).map(|i| within(i * 37 % count)).collect();
    unsorted.extend_from_within(..8);
    let ends = vec![
        0,
        clip.times[count as usize - 1] + slack,
        u64::from(u32::MAX) * 1_000_000_000,
        0,
        single[0],
        single[0],
    ];
    vec![single, dense, sparse, ends, unsorted, borders, all]
}

/// Asks all [`questions`] of one open source and fails with whatever is wrong.
pub(crate) fn assert_exact(path: &Path, clip: &Clip<'_>, slack: u64) -> GstSource {
    // Once decoding each question anew, once with what the questions before it left.
    assert_exact_with(path, clip, slack, &GstOptions::new().with_cache_bytes(0));
    assert_exact_with(path, clip, slack, &GstOptions::new())
}

/// [`assert_exact`] on a source with options.
pub(crate) fn assert_exact_with(
    path: &Path,
    clip: &Clip<'_>,
    slack: u64,
    options: &GstOptions,
) -> GstSource {
    let mut source = GstSource::open_with(path, options).unwrap();
    assert_exact_source(&mut source, clip, slack, &path.display().to_string());
    source
}

/// [`assert_exact`] on an open source.
pub(crate) fn assert_exact_source(source: &mut GstSource, clip: &Clip<'_>, slack: u64, name: &str) {
    let mut errors = Vec::new();
    for (i, times) in questions(clip, slack).iter().enumerate() {
        for error in wrong(source, clip, times, slack) {
            errors.push(format!("question {i}: {error}"));
        }
    }
    let shown = errors
        .iter()
        .take(8)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        errors.is_empty(),
        "{name}: {} wrong:\n{shown}",
        errors.len()
    );
}

/// Runs `work` and fails when it takes longer than `limit`.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, wait) = std::sync::mpsc::channel();
    let begin = Instant::now();
    std::thread::spawn(move || done.send(work()));
    match wait.recv_timeout(limit) {
        Ok(result) => result,
        Err(error) => panic!("{name}: {error} after {:?}", begin.elapsed()),
    }
}

/// How many times longer than its own work a thread takes on this machine now: 1 where it is alone.
///
/// Deadlines are for a machine that has time; multiplied by this they still mean the same on a busy
/// one.
pub(crate) fn busyness() -> f64 {
    let on_processor = || -> f64 {
        let read = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let nanoseconds = read.split_whitespace().next().map(str::parse::<f64>);
        nanoseconds.and_then(Result::ok).unwrap_or(0.0) / 1e9
    };
    let (begin, worked) = (Instant::now(), on_processor());
    let mut sum = 0_u64;
    for _ in 0..10_000_000 {
        sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
    }
    let worked = on_processor() - worked;
    if worked < 1e-4 {
        // No such file: take the machine for a free one.
        return 1.0;
    }
    (begin.elapsed().as_secs_f64() / worked).clamp(1.0, 40.0)
}

/// Writes ten pictures of one YUV colour, 1280 x 720: GStreamer guesses BT.709 for such sizes.
pub(crate) fn write_flat(path: &Path, [y, u, v]: [u8; 3], colours: &str, encode: &str) {
    let luma = 1280 * 720;
    let mut picture = vec![y; luma];
    picture.resize(luma + luma / 4, u);
    picture.resize(luma + luma / 2, v);
    write(
        path,
        &steady(10, 25),
        &format!(
            "video/x-raw,format=I420,width=1280,height=720,framerate=25/1,colorimetry=(string){colours}"
        ),
        encode,
        &|_| picture.clone(),
    );
}

/// Writes two seconds of sound.
pub(crate) fn write_sound(path: &Path, encode: &str) {
    gst::init().unwrap();
    let line = format!("audiotestsrc num-buffers=90 ! audioconvert ! {encode} ! filesink name=out");
    let pipeline = gst::parse::launch(&line).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let file = pipeline.by_name("out").unwrap();
    file.set_property("location", path);
    pipeline.set_state(gst::State::Playing).unwrap();
    let message = pipeline.bus().unwrap().timed_pop_filtered(
        gst::ClockTime::from_seconds(60),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(
        matches!(message.unwrap().view(), gst::MessageView::Eos(_)),
        "{line}"
    );
}

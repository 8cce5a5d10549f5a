//! make bench-frames VIDEO=FILE
//!
//! This crate's part of the comparison that `scripts/bench_frames.py` makes: one JSON object on
//! standard output with what opening a video and fetching frames of it cost. By hand:
//!
//! ```sh
//! cargo bench -p eva-gst --bench frames -- VIDEO --times 1.5,2.5 --resize 0.5 --threads 1
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use cpu_time::ProcessTime;
use eva_core::{FrameSource, Pixels};
use eva_gst::{FrameRule, GstOptions, GstSource};

/// What fetching frames costs.
#[derive(Parser)]
struct Arguments {
    /// A video file. Without one there is nothing to measure.
    video: Option<String>,
    /// Rounds of times in seconds, separated by commas; each round is measured apart.
    #[arg(long = "times", value_delimiter = ',', num_args = 1.., action = clap::ArgAction::Append)]
    times: Vec<f64>,
    /// How many of the times make the first round; all by default.
    #[arg(long)]
    first: Option<usize>,
    /// Size of the frames relative to the video.
    #[arg(long, default_value_t = 1.0)]
    resize: f64,
    /// Decoder threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Choose frames as the published evaluation code does, which takes reading the whole file.
    #[arg(long)]
    published: bool,
    /// A directory for what opening found out; the video is opened twice, so it is found there.
    #[arg(long)]
    index_dir: Option<std::path::PathBuf>,
    /// Bytes of pictures kept for later rounds.
    #[arg(long)]
    cache_bytes: Option<usize>,
    /// `cargo bench` says this.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(video) = &arguments.video else {
        println!("nothing to measure: name a video, or run `make bench-frames`");
        return ExitCode::SUCCESS;
    };
    match run(video, &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("frames: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Processor and wall time of `work` in milliseconds.
fn cost<T>(work: impl FnOnce() -> T) -> (T, [f64; 2]) {
    let (processor, wall) = (ProcessTime::now(), Instant::now());
    let result = work();
    let spent = [processor.elapsed(), wall.elapsed()].map(|time| time.as_secs_f64() * 1e3);
    (result, spent)
}

fn run(video: &str, arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut options = GstOptions::new().with_threads(arguments.threads);
    options.index_dir.clone_from(&arguments.index_dir);
    if arguments.published {
        options.rule = FrameRule::Published;
    }
    if let Some(bytes) = arguments.cache_bytes {
        options.cache_bytes = bytes;
    }
    let (first, first_open) = cost(|| GstSource::open_with(video, &options));
    // What only the first frame in a process costs is not meant.
    first?.frames_at(&[0.0], 64, 64, &mut |_| {})?;
    let (source, open) = cost(|| GstSource::open_with(video, &options));
    let mut source = source?;
    let info = source.info();
    let side = |pixels: u32| ((f64::from(pixels) * arguments.resize).round() as u32).max(1);
    let (width, height) = (side(info.width), side(info.height));

    let first = arguments.first.unwrap_or(arguments.times.len());
    let (first, rest) = arguments.times.split_at(first.min(arguments.times.len()));
    let mut rounds = Vec::new();
    for times in [first, rest] {
        if times.is_empty() {
            continue;
        }
        let mut shown = Vec::new();
        let mut bytes = 0;
        let before = source.stats();
        let (outcome, [processor, wall]) = cost(|| {
            source.frames_at(times, width, height, &mut |frame| {
                shown.push(frame.time);
                bytes += frame.pixels.rgb().len();
            })
        });
        outcome?;
        let after = source.stats();
        rounds.push(serde_json::json!({
            "cpu_ms": processor,
            "wall_ms": wall,
            "frames": shown.len(),
            "bytes": bytes,
            "shown": shown,
            "packets_read": after.packets_read - before.packets_read,
            "packets_decoded": after.packets_decoded - before.packets_decoded,
            "seeks": after.seeks - before.seeks,
        }));
    }
    let line = serde_json::json!({
        "duration": info.duration,
        "fps": info.fps,
        "width": width,
        "height": height,
        "first_open_cpu_ms": first_open[0],
        "open_cpu_ms": open[0],
        "open_wall_ms": open[1],
        "rounds": rounds,
    });
    println!("{line}");
    Ok(())
}

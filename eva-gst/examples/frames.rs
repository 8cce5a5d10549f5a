//! cargo run --release -p eva-gst --example frames -- VIDEO --start 10 --end 20 --nframes 4 --out DIR
//!
//! Prints, for evenly spaced times of a window, the frame on display: its true time, its size and a
//! hash of its pixels (64-bit FNV-1a of the RGB rows), and writes the frames as PNG files.

#[path = "../../examples/shared/tell.rs"]
mod tell;
#[path = "../../examples/shared/warnings.rs"]
mod warnings;

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use eva_core::selection::PATCH;
use eva_core::{Frame, FrameSource, Pixels, RgbImage, Selection};
use eva_gst::{DecoderChoice, FrameRule, GstOptions, GstSource};
use tell::tell;

/// The frames of a video on display at evenly spaced times.
#[derive(Parser)]
struct Arguments {
    /// A video file, or an address such as http://localhost/a.mp4.
    video: String,
    /// Start of the window in seconds from the first frame.
    #[arg(long, default_value_t = 0.0, value_parser = seconds, allow_negative_numbers = true)]
    start: f64,
    /// End of the window in seconds; the end of the video by default.
    #[arg(long, value_parser = seconds, allow_negative_numbers = true)]
    end: Option<f64>,
    /// Number of frames; a single one is taken from the middle.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    nframes: u32,
    /// Size of the frames relative to the video; sides are rounded to multiples of 28 pixels, as
    /// the agent's are. Without it, frames keep the video's size.
    #[arg(long, value_parser = ratio)]
    resize: Option<f64>,
    /// Which frame answers a time.
    #[arg(long, value_enum, default_value_t = Rule::Displayed)]
    rule: Rule,
    /// Which decoder decodes: auto, software, or the name of a GStreamer element.
    #[arg(long, default_value = "auto")]
    decoder: String,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Write each frame as a PNG file into this directory, which is made if need be.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Rule {
    /// The one on display at that time.
    Displayed,
    /// The one whose index is the time multiplied by the average frame rate, rounded.
    Published,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() => Ok(seconds),
        _ => Err("write seconds from the first frame, such as 12.5".to_owned()),
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if ratio > 0.0 && ratio.is_finite() => Ok(ratio),
        _ => Err("write a number above 0, such as 0.25".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    warnings::show();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough.
        Err(error) if is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("frames: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let options = GstOptions::new().with_rule(match arguments.rule {
        Rule::Displayed => FrameRule::Displayed,
        Rule::Published => FrameRule::Published,
    });
    let options = options.with_decoder(match arguments.decoder.as_str() {
        "auto" => DecoderChoice::Auto,
        "software" => DecoderChoice::Software,
        name => DecoderChoice::Named(name.to_owned()),
    });
    let mut video = if arguments.video.contains("://") {
        GstSource::open_uri_with(&arguments.video, &options)?
    } else {
        GstSource::open_with(&arguments.video, &options)?
    };
    if let Some(dir) = &arguments.out {
        std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    let info = video.info();
    let side = |pixels: u32| match arguments.resize {
        None => pixels,
        Some(ratio) => {
            let patches = (f64::from(pixels) * ratio / f64::from(PATCH)).round_ties_even();
            // Saturates; the source refuses what is too large.
            (patches.max(1.0) as u32).saturating_mul(PATCH)
        }
    };
    let selection = Selection::uniform(
        arguments.start,
        arguments.end.unwrap_or(info.duration),
        arguments.nframes,
        side(info.width),
        side(info.height),
    );

    let mut out = io::stdout().lock();
    if arguments.json {
        let line = serde_json::json!({
            "video": arguments.video,
            "duration": info.duration,
            "width": info.width,
            "height": info.height,
            "fps": info.fps,
            "decoder": video.decoder(),
        });
        writeln!(out, "{line}")?;
    } else {
        writeln!(
            out,
            "{}: {:.3} s, {} x {}, {:.3} frames per second",
            arguments.video, info.duration, info.width, info.height, info.fps
        )?;
        writeln!(out, "frame       asked        time  size         pixels")?;
    }
    // The first failure ends the output, but not the decoding: a sink has no say in that.
    let mut outcome = Ok(());
    let mut asked = selection.times();
    let mut index = 0;
    video.frames(&selection, &mut |frame| {
        let time = asked.next().unwrap_or(frame.time);
        if outcome.is_ok() {
            outcome = show(&mut out, arguments, index, time, &frame);
        }
        index += 1;
    })?;
    outcome
}

/// Prints a line about one frame, and writes its file.
fn show(
    out: &mut impl Write,
    arguments: &Arguments,
    index: u32,
    asked: f64,
    frame: &Frame<RgbImage>,
) -> Result<(), Box<dyn std::error::Error>> {
    let image = &frame.pixels;
    let file = arguments
        .out
        .as_ref()
        .map(|dir| dir.join(format!("{index:05}.png")));
    if let Some(file) = &file {
        write_png(file, image).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let (width, height, hash) = (image.width(), image.height(), fnv1a(image.rgb()));
    if arguments.json {
        let line = serde_json::json!({
            "index": index,
            "asked": asked,
            "time": frame.time,
            "width": width,
            "height": height,
            "fnv1a": format!("{hash:016x}"),
            "file": file.as_ref().map(|file| file.to_string_lossy()),
        });
        writeln!(out, "{line}")?;
    } else {
        let size = format!("{width} x {height}");
        writeln!(
            out,
            "{index:5} {asked:11.3} {:11.6}  {size:11}  {hash:016x}",
            frame.time
        )?;
    }
    Ok(())
}

fn write_png(path: &Path, image: &RgbImage) -> Result<(), Box<dyn std::error::Error>> {
    let file = BufWriter::new(File::create(path)?);
    let mut encoder = png::Encoder::new(file, image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image.rgb())?;
    writer.finish()?;
    Ok(())
}

/// A hash that is easily computed elsewhere: 64-bit FNV-1a.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

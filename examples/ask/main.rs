//! Asks a question about a video, and shows how it is answered:
//!
//! ```text
//! cargo run --release --example ask --features gst -- --demo
//! cargo run --release --example ask --features gst -- VIDEO "QUESTION"
//! cargo run --release --example ask --features gst,remote -- VIDEO "QUESTION" --model http://127.0.0.1:8000/v1
//! cargo run --release --example ask --features gst,hub -- VIDEO "QUESTION" --model hf:OWNER/NAME
//! cargo run --release --example ask --features gst -- --dry-run --model DIR --budget 8GB
//! ```
//!
//! The exit status is 0 with an answer, 2 for bad usage, and 1 for everything else.

#[path = "../shared/allocator.rs"]
mod allocator;
mod arguments;
mod display;
mod dry;
#[cfg(feature = "hub")]
#[path = "../shared/hub.rs"]
mod hub;
#[cfg(feature = "remote")]
#[path = "../shared/remote.rs"]
mod remote;
#[path = "../shared/tell.rs"]
mod tell;
#[path = "../shared/warnings.rs"]
mod warnings;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arguments::Arguments;
use clap::Parser as _;
use display::{Display, Seconds};
use eva::burn::BurnPolicy;
use eva::gst::GstSource;
use eva::world::{Kind, Split, World};
use eva::{FrameSource as _, Policy, Report, RgbImage, Rules, Session, Trajectory, VideoInfo};
use indicatif::{ProgressBar, ProgressStyle};
use tell::tell;

/// What ends the program, with a message that names the thing and the remedy.
type Failure = Box<dyn std::error::Error>;

/// The demo's world: five minutes, and its question needs a scan and a sharp look. It is one of the
/// development worlds, which training never sees.
const DEMO: u32 = 8;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    warnings::show();
    match run(&arguments) {
        Ok(code) => code,
        Err(failure) => match failure.downcast_ref::<io::Error>() {
            // Whoever read the output has had enough.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            _ => {
                tell(format_args!("error: {failure}"));
                ExitCode::FAILURE
            }
        },
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if let (true, Some(model)) = (arguments.dry_run, &arguments.model) {
        return match arguments.hub_name() {
            Some(name) => dry::run(arguments, &configuration(name)?),
            None => dry::run(arguments, model),
        };
    }
    let (path, question) = match (&arguments.video, &arguments.question) {
        (Some(video), Some(question)) => (video.clone(), arguments.question_with_options(question)),
        _ => demo()?,
    };
    // The video first: a wrong path is found before a large model is read.
    let source = open(&path)?;
    #[cfg(feature = "remote")]
    if let Some(url) = arguments.server() {
        let config = arguments
            .remote
            .config(url, arguments.model_name.as_deref())?;
        // Shown as it comes.
        let model = remote::connect(config.with_stream(true))?;
        let label = format!("{} on {url}", model.model()?);
        return answer(arguments, source, &path, &question, model, &label);
    }
    #[cfg(not(feature = "remote"))]
    if let Some(url) = arguments.server() {
        return Err(
            format!("{url} needs the feature `remote`: build with --features gst,remote").into(),
        );
    }
    let device = arguments.device.open()?;
    let (model, name) = match &arguments.model {
        Some(dir) => {
            let (dir, name) = match arguments.hub_name() {
                Some(name) => fetched(name)?,
                None => (dir.clone(), dir.display().to_string()),
            };
            let model = BurnPolicy::load_as(dir, &device, arguments.precision)?;
            (model, name)
        }
        None => (BurnPolicy::tiny(&device)?, "eva-tiny, bundled".to_owned()),
    };
    let label = format!("{name} on {}", arguments.device);
    answer(arguments, source, &path, &question, model, &label)
}

/// A model from a hub: its folder, and its name with the commit.
#[cfg(feature = "hub")]
fn fetched(name: &str) -> Result<(PathBuf, String), Failure> {
    let model: eva::hub::HubModel = name.parse()?;
    let snapshot = hub::fetch(&model)?;
    let name = model.at(&snapshot.revision)?;
    Ok((snapshot.dir, format!("hf:{name}")))
}

#[cfg(not(feature = "hub"))]
fn fetched(name: &str) -> Result<(PathBuf, String), Failure> {
    Err(format!("hf:{name} needs the feature `hub`: build with --features gst,hub").into())
}

/// The folder of a model's configuration, from a hub.
#[cfg(feature = "hub")]
fn configuration(name: &str) -> Result<PathBuf, Failure> {
    let snapshot = eva::hub::Hub::from_env()?.fetch_config(&name.parse()?)?;
    Ok(snapshot.dir)
}

#[cfg(not(feature = "hub"))]
fn configuration(name: &str) -> Result<PathBuf, Failure> {
    fetched(name).map(|(dir, _)| dir)
}

/// Lets `model` answer and shows how.
fn answer(
    arguments: &Arguments,
    source: GstSource,
    path: &Path,
    question: &str,
    model: impl Policy<RgbImage>,
    label: &str,
) -> Result<ExitCode, Failure> {
    let info = source.info();
    if !arguments.json {
        let mut out = io::stdout().lock();
        writeln!(out, "Video     {} ({})", path.display(), about(&info))?;
        writeln!(out, "Model     {label}")?;
        writeln!(out, "Question  {}", question.replace('\n', "\n          "))?;
    }
    let rules = Rules::published()
        .with_max_turns(arguments.max_turns)
        .with_max_visual_tokens(arguments.max_visual_tokens);
    let mut display = Display::new(arguments.json);
    let result = Session::new(source, model)
        .with_rules(rules)
        .with_watch(&mut display)
        .ask(question);
    let (report, failure) = match result {
        Ok(report) => (Some(report), None),
        Err(error) => {
            let message = error.to_string();
            (error.into_report(), Some(message))
        }
    };
    // What a failed run did say is kept too, and a trace that can't be written costs no answer.
    let traced = match (&report, &arguments.trace) {
        (Some(report), Some(file)) => trace(file, &report.trajectory),
        _ => Ok(()),
    };
    let (seconds, written) = display.finish();
    if let Some(message) = failure {
        return Err(message.into());
    }
    let Some(report) = report else {
        return Err("the run ended without a report".into());
    };
    written?;
    if arguments.json {
        print_json(path, question, &info, &report, seconds)?;
    } else {
        print_totals(&info, &report, seconds)?;
    }
    traced?;
    if report.answer().is_none() {
        tell(format_args!(
            "error: no answer: the run ended with `{}`{}",
            report.stop_reason(),
            advice(&report)
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// A path, or an address such as `https://...`.
fn open(path: &Path) -> Result<GstSource, Failure> {
    let uri = path.to_str().filter(|text| text.contains("://"));
    Ok(match uri {
        Some(uri) => GstSource::open_uri(uri)?,
        None => GstSource::open(path)?,
    })
}

/// Where the demo video is written, like all that the examples make.
const DEMO_PATH: &str = "runs/demo.mp4";

/// Writes the demo video and gives its path and question.
fn demo() -> Result<(PathBuf, String), Failure> {
    let world = World::new(Split::Dev.seed(DEMO));
    let path = PathBuf::from(DEMO_PATH);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?;
    }
    let bar = if io::stderr().is_terminal() {
        ProgressBar::new(u64::from(world.frame_count()))
    } else {
        ProgressBar::hidden()
    };
    bar.set_style(ProgressStyle::with_template(
        "writing the demo video {bar:30} {pos}/{len} frames",
    )?);
    world.encode_with(&path, |frame, _| bar.set_position(u64::from(frame)))?;
    bar.finish_and_clear();
    Ok((path, world.question(Kind::Find, u64::from(DEMO)).text))
}

fn about(info: &VideoInfo) -> String {
    format!(
        "{}, {} x {}, {:.2} frames/s",
        display::clock(info.duration),
        info.width,
        info.height,
        info.fps
    )
}

fn print_totals(
    info: &VideoInfo,
    report: &Report<RgbImage>,
    seconds: Seconds,
) -> Result<(), io::Error> {
    let tally = &report.trajectory.outcome.tally;
    let share = 100.0 * display::share_watched(&report.trajectory, info);
    let mut out = io::stdout().lock();
    writeln!(out)?;
    if let Some(answer) = report.answer() {
        writeln!(out, "Answer    {answer}")?;
    }
    writeln!(
        out,
        "Totals    {} rounds, {} frames ({share:.2}% of the video), {} visual tokens, {} tokens in all",
        tally.num_rounds, tally.frames, tally.estimated_visual_tokens, tally.total_tokens
    )?;
    writeln!(
        out,
        "Time      {:.2} s in the model, {:.2} s in the decoder",
        seconds.model, seconds.decoder
    )
}

fn print_json(
    path: &Path,
    question: &str,
    info: &VideoInfo,
    report: &Report<RgbImage>,
    seconds: Seconds,
) -> Result<(), Failure> {
    let line = serde_json::json!({
        "video": path,
        "question": question,
        "answer": report.answer(),
        "stop_reason": report.stop_reason().to_string(),
        "share_watched": display::share_watched(&report.trajectory, info),
        "seconds_model": seconds.model,
        "seconds_decoder": seconds.decoder,
        "trajectory": report.trajectory,
    });
    writeln!(io::stdout().lock(), "{line}")?;
    Ok(())
}

/// Writes the record of the run: one JSON object.
fn trace(file: &Path, trajectory: &Trajectory) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(trajectory)?;
    text.push('\n');
    std::fs::write(file, text)
        .map_err(|error| format!("cannot write the trace to {}: {error}", file.display()).into())
}

/// What can be done about a run without an answer.
fn advice(report: &Report<RgbImage>) -> &'static str {
    match report.stop_reason() {
        eva::StopReason::MaxTurnsExceeded => "; allow more with --max-turns",
        _ => "; the model's last reply is above, or in the file of --trace",
    }
}

//! Turns on the terminal as they happen, and the time each part takes.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::time::Instant;

use eva::core::{Frame, Usage};
use eva::{RgbImage, Selection, Step, Trajectory, VideoInfo, Watch};

/// Time spent, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seconds {
    pub(crate) model: f64,
    pub(crate) decoder: f64,
}

/// Prints turns, unless it is silent.
pub(crate) struct Display {
    silent: bool,
    turn: u32,
    /// When the current step began.
    since: Instant,
    seconds: Seconds,
    /// The first failure to write; nothing is printed after it.
    written: io::Result<()>,
}

impl Display {
    pub(crate) fn new(silent: bool) -> Self {
        Self {
            silent,
            turn: 0,
            since: Instant::now(),
            seconds: Seconds::default(),
            written: Ok(()),
        }
    }

    /// The time spent, and whether all could be printed.
    pub(crate) fn finish(self) -> (Seconds, io::Result<()>) {
        (self.seconds, self.written)
    }

    fn print(&mut self, text: &str) {
        if self.silent || self.written.is_err() {
            return;
        }
        let mut out = io::stdout().lock();
        self.written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

impl Watch<RgbImage> for Display {
    fn on_step(&mut self, step: &Step) {
        self.since = Instant::now();
        if matches!(step, Step::Generate) {
            self.turn += 1;
            self.print(&format!("\n--- turn {} ---\n", self.turn));
        }
    }

    fn on_text(&mut self, piece: &str) {
        self.print(piece);
    }

    fn on_reply(&mut self, _: &str, usage: &Usage) {
        self.seconds.model += self.since.elapsed().as_secs_f64();
        self.print(&format!(
            "\n[{} tokens read, {} of them kept from before; {} written]\n",
            usage.prompt, usage.cached, usage.completion
        ));
    }

    fn on_frames(&mut self, selection: &Selection, frames: &[Frame<RgbImage>]) {
        self.seconds.decoder += self.since.elapsed().as_secs_f64();
        let times: Vec<String> = frames
            .iter()
            .map(|frame| format!("{:.2}", frame.time))
            .collect();
        self.print(&format!(
            "[{} of {} x {} pixels, {} visual tokens, on display at {} s]\n",
            match frames.len() {
                1 => "1 frame".to_owned(),
                count => format!("{count} frames"),
            },
            selection.width,
            selection.height,
            selection.visual_tokens(),
            times.join(", ")
        ));
    }
}

/// Share of the video's frames that were looked at, 0 to 1.
pub(crate) fn share_watched(trajectory: &Trajectory, info: &VideoInfo) -> f64 {
    // A frame that was fetched twice counts once.
    let seen: BTreeSet<u64> = trajectory.frame_times().map(f64::to_bits).collect();
    let all = (info.duration * info.fps).max(seen.len() as f64).max(1.0);
    seen.len() as f64 / all
}

/// `9:05` for 545.3 seconds.
pub(crate) fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    format!("{}:{:02}", whole / 60, whole % 60)
}

//! How far a stage is: a bar on a terminal, else a line now and then.

use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;
use crate::tell::tell;

/// Time between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

pub(crate) struct Progress<'a> {
    bar: Option<ProgressBar>,
    what: &'static str,
    stop: &'a AtomicBool,
    told: bool,
    all: u64,
    done: u64,
    made: u64,
    rejected: u64,
    line: Instant,
}

impl<'a> Progress<'a> {
    /// `what` names the things of which `done` of `all` are done already.
    pub(crate) fn new(
        what: &'static str,
        done: u64,
        all: u64,
        stop: &'a AtomicBool,
    ) -> Result<Self, Failure> {
        let bar = io::stderr().is_terminal().then(|| ProgressBar::new(all));
        if let Some(bar) = &bar {
            let template = "{bar:24} {pos}/{len}  {msg}  {per_sec}  {eta} left";
            bar.set_style(ProgressStyle::with_template(template)?);
            bar.set_position(done);
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_millis(500));
        } else if done > 0 {
            tell(format_args!("going on: {done} of {all} {what} are done"));
        }
        Ok(Self {
            bar,
            what,
            stop,
            told: false,
            all,
            done,
            made: 0,
            rejected: 0,
            line: Instant::now(),
        })
    }

    pub(crate) fn on_done(&mut self, made: usize, rejected: usize) {
        self.done += 1;
        self.made += made as u64;
        self.rejected += rejected as u64;
        if self.stop.load(Ordering::Relaxed) && !self.told {
            self.told = true;
            self.say("stopping: what runs is finished first; Ctrl-C again ends it at once");
        }
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} made, {} rejected", self.made, self.rejected));
            bar.set_position(self.done);
        } else if self.line.elapsed() >= PAUSE {
            self.line = Instant::now();
            self.say(&self.so_far());
        }
    }

    pub(crate) fn finish(self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None => self.say(&self.so_far()),
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => tell(text),
        }
    }

    fn so_far(&self) -> String {
        let Self {
            done,
            all,
            what,
            made,
            rejected,
            ..
        } = self;
        format!("{done}/{all} {what}, {made} made now, {rejected} rejected")
    }
}

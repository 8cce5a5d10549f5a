//! How far the run is: a bar on a terminal, else a line now and then.

use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eva::evaluate::{Record, Results, Scorer};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::Failure;
use crate::items::Items;
use crate::tell::tell;

/// Time between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

pub(crate) struct Progress<'a> {
    bar: Option<ProgressBar>,
    scorer: Scorer,
    stop: &'a AtomicBool,
    told: bool,
    all: u64,
    done: u64,
    before: u64,
    began: Instant,
    line: Instant,
    /// How many were done in the last line, if there was one.
    told_of: Option<u64>,
}

impl<'a> Progress<'a> {
    /// `scorer` has counted what is done already.
    pub(crate) fn new(
        items: &Items,
        results: &Results,
        scorer: Scorer,
        stop: &'a AtomicBool,
    ) -> Result<Self, Failure> {
        let all = items.chosen.len() as u64;
        let is_done = |item: &&eva::benchmark::Item| results.done().contains(item.index);
        let before = items.chosen.iter().filter(is_done).count() as u64;
        let bar = io::stderr().is_terminal().then(|| ProgressBar::new(all));
        if let Some(bar) = &bar {
            bar.set_style(ProgressStyle::with_template(
                "{bar:24} {pos}/{len}  {msg}  {per_sec}  {eta} left",
            )?);
            bar.set_position(before);
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        let now = Instant::now();
        Ok(Self {
            bar,
            scorer,
            stop,
            told: false,
            all,
            done: before,
            before,
            began: now,
            line: now,
            told_of: None,
        })
    }

    pub(crate) fn on_record(&mut self, record: &Record) {
        self.scorer.add(record);
        self.done += 1;
        if self.stop.load(Ordering::Relaxed) && !self.told {
            self.told = true;
            self.say("stopping: what runs is finished first; Ctrl-C again ends it at once");
        }
        if let Some(bar) = &self.bar {
            bar.set_message(self.so_far());
            bar.set_position(self.done);
        } else if self.line.elapsed() >= PAUSE {
            self.line = Instant::now();
            self.told_of = Some(self.done);
            self.say(&self.line());
        }
    }

    /// Takes the bar away and gives back the count.
    pub(crate) fn finish(self) -> Scorer {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None if self.told_of == Some(self.done) => {}
            None => self.say(&self.line()),
        }
        self.scorer
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => tell(text),
        }
    }

    fn so_far(&self) -> String {
        let means = self.scorer.means();
        format!(
            "{:.1}% right, {:.2} rounds, {:.1} frames, {:.0} visual tokens",
            100.0 * self.scorer.score().accuracy,
            means.rounds,
            means.frames,
            means.visual_tokens
        )
    }

    fn line(&self) -> String {
        let finished = self.done - self.before;
        let seconds = self.began.elapsed().as_secs_f64();
        let rate = finished as f64 / seconds.max(1e-3);
        let mut line = format!(
            "{}/{} items, {}, {rate:.1} items/s",
            self.done,
            self.all,
            self.so_far()
        );
        let left = self.all.saturating_sub(self.done) as f64 / rate;
        // Nothing is known of it before the first item.
        if let Ok(left) = Duration::try_from_secs_f64(left)
            && self.done < self.all
        {
            line += &format!(", {} left", HumanDuration(left));
        }
        line
    }
}

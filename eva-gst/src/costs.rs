//! When reading on is cheaper than seeking: [`Costs`], and how they are measured: [`Meter`].

use core::time::Duration;

use crate::graph::AHEAD;

/// What reading this stream costs, as far as was measured. Plain numbers, so that what is planned
/// with them depends on nothing else.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Costs {
    /// Reading one packet (ns).
    pub(crate) read: f64,
    /// A seek, up to the first packet behind it (ns).
    pub(crate) seek: f64,
    /// From one packet to the next in the video (ns of stream time).
    pub(crate) frame: f64,
    /// From one place to start decoding to the next in the video (ns of stream time).
    pub(crate) gop: f64,
}

impl Default for Costs {
    /// What was measured on one machine, and usual numbers for a video.
    fn default() -> Self {
        Self {
            read: 20e3,
            seek: 300e3,
            frame: 40e6,
            gop: 5e9,
        }
    }
}

/// Other GOPs are never read through farther than this (ns of stream time). Where other work of the
/// machine makes seeks look dear, that keeps the mistake small.
const FARTHEST: f64 = 5e9;

impl Costs {
    /// Whether a reader that stands at `at`, having begun at a place to start at `start`, better
    /// reads on to `target` than seeks there. All are ns of stream time. `held`: the packets from
    /// `start` on are still there.
    ///
    /// What lies in the target's own GOP is read either way. Reading on costs what lies before that
    /// GOP; a seek that lands in the GOP at hand costs what was read of it already.
    pub(crate) fn reads_on(&self, start: i64, at: i64, target: i64, held: bool) -> bool {
        let read_so_far = at.saturating_sub(start).max(0) as f64;
        // A GOP is at least as long as was read of it.
        let gop = self.gop.max(read_so_far).max(1.0);
        let ahead = target.saturating_sub(start).max(0) as f64;
        let expected = (ahead / gop).floor() * gop;
        let packets = |time: f64| time.max(0.0) / self.frame.max(1.0);
        // It throws away what was read ahead.
        let seek = self.seek + f64::from(AHEAD) * self.read;
        let (reading, seeking) = if expected <= read_so_far {
            if !held {
                // Its beginning must be read again.
                return false;
            }
            (0.0, seek + packets(read_so_far) * self.read)
        } else if expected - read_so_far > FARTHEST {
            return false;
        } else {
            (packets(expected - read_so_far) * self.read, seek)
        };
        reading <= seeking
    }
}

/// How many measurements of a kind count.
const KEPT: usize = 9;

/// Packets that are read in a row before their time counts as one measurement.
const BATCH: u32 = 8;

/// Measures while a stream is read.
///
/// Times are those of a clock on the wall: a seek over a network costs waiting, not computing. The
/// lower quartile of the latest few counts: other work of the machine only ever adds to them.
#[derive(Debug)]
pub(crate) struct Meter {
    reads: Latest,
    seeks: Latest,
    batch: Duration,
    in_batch: u32,
    /// Packets still to come that were read ahead while nobody asked for any: they cost more than
    /// waiting for them takes now.
    ready: u32,
    /// Stream time read, the packets in it and the places to start among them.
    exposed: i64,
    packets: u64,
    starts: u64,
    /// The latest time since the last seek.
    latest: Option<i64>,
}

impl Default for Meter {
    fn default() -> Self {
        let mut seeks = Latest::default();
        // Were the first one slow for a reason of its own, there would not be a second.
        seeks.add(Costs::default().seek);
        Self {
            reads: Latest::default(),
            seeks,
            batch: Duration::ZERO,
            in_batch: 0,
            ready: 0,
            exposed: 0,
            packets: 0,
            starts: 0,
            latest: None,
        }
    }
}

impl Meter {
    /// Nobody asked for packets for a while; up to `ahead` were read meanwhile.
    pub(crate) fn pause(&mut self, ahead: u32) {
        (self.batch, self.in_batch, self.ready) = (Duration::ZERO, 0, ahead);
    }

    /// A packet was read in this time.
    pub(crate) fn read(&mut self, took: Duration) {
        if self.ready > 0 {
            self.ready -= 1;
        } else {
            self.batch += took;
            self.in_batch += 1;
        }
        if self.in_batch == BATCH {
            self.reads
                .add(self.batch.as_nanos() as f64 / f64::from(BATCH));
            (self.batch, self.in_batch) = (Duration::ZERO, 0);
        }
    }

    /// Looking for a place to start took this time, all seeks and packets of the search together.
    pub(crate) fn seek(&mut self, took: Duration) {
        self.seeks.add(took.as_nanos() as f64);
    }

    /// What follows is read from another place.
    pub(crate) fn jump(&mut self) {
        self.pause(0);
        self.latest = None;
    }

    /// The next packet is shown at `shown`; `key`: decoding can start there.
    pub(crate) fn see(&mut self, shown: i64, key: bool) {
        if let Some(latest) = self.latest {
            self.packets += 1;
            self.starts += u64::from(key);
            self.exposed = self
                .exposed
                .saturating_add(shown.saturating_sub(latest).max(0));
        }
        self.latest = self.latest.max(Some(shown));
    }

    /// What was measured; what was not is as usual.
    pub(crate) fn costs(&self) -> Costs {
        let usual = Costs::default();
        // One usual GOP is thought to have been read before, so that little is not made much of. A
        // GOP of which only a part was read counts with that part: the time read for each start.
        let exposed = self.exposed as f64 + usual.gop;
        Costs {
            read: self.reads.low().unwrap_or(usual.read),
            seek: self.seeks.low().unwrap_or(usual.seek),
            frame: exposed / (self.packets as f64 + usual.gop / usual.frame),
            gop: exposed / (self.starts as f64 + 1.0),
        }
    }
}

/// The latest few of some numbers.
#[derive(Debug, Default)]
struct Latest {
    kept: Vec<f64>,
    next: usize,
}

impl Latest {
    fn add(&mut self, number: f64) {
        if self.kept.len() < KEPT {
            self.kept.push(number);
        } else if let Some(oldest) = self.kept.get_mut(self.next) {
            *oldest = number;
        }
        self.next = (self.next + 1) % KEPT;
    }

    fn low(&self) -> Option<f64> {
        let mut sorted = self.kept.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.get(sorted.len() / 4).copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn within_a_gop_reading_on_wins_and_far_beyond_it_seeking() {
        let costs = Costs::default();
        // GOPs of 5 s, 25 packets a second, a seek as dear as 15 packets and the 16 read ahead.
        assert!(costs.reads_on(0, SECOND, 4 * SECOND, true));
        assert!(costs.reads_on(0, 49 * SECOND / 10, 6 * SECOND, true));
        assert!(!costs.reads_on(0, 3 * SECOND, 6 * SECOND, true));
        assert!(costs.reads_on(0, 4 * SECOND, 6 * SECOND, true));
        // It is longer than expected: what follows is expected to belong to it too.
        assert!(costs.reads_on(0, 20 * SECOND, 30 * SECOND, true));
        assert!(!costs.reads_on(0, 20 * SECOND, 45 * SECOND, true));
        // What was dropped must be read again, unless another place to start is expected.
        assert!(!costs.reads_on(0, SECOND, 4 * SECOND, false));
        assert!(costs.reads_on(0, 49 * SECOND / 10, 6 * SECOND, false));
    }

    #[test]
    fn what_was_measured_decides() {
        let all_keys = Costs {
            gop: 40e6,
            ..Costs::default()
        };
        assert!(all_keys.reads_on(0, 0, SECOND, true));
        assert!(!all_keys.reads_on(0, 0, 2 * SECOND, true));
        let far_server = Costs {
            seek: 50e6,
            ..all_keys
        };
        assert!(far_server.reads_on(0, 0, 5 * SECOND, true));
        assert!(!far_server.reads_on(0, 0, 6 * SECOND, true));
    }

    #[test]
    fn strange_times_are_borne() {
        for at in [i64::MIN, -1, 0, 1, i64::MAX] {
            for target in [i64::MIN, -1, 0, 1, i64::MAX] {
                let _ = Costs::default().reads_on(at, 0, target, true);
                let _ = Costs::default().reads_on(0, at, target, true);
            }
        }
    }

    #[test]
    fn a_meter_learns_costs_and_gops_and_forgives_a_hiccup() {
        let mut meter = Meter::default();
        assert_eq!(meter.costs(), Costs::default());
        let micros = Duration::from_micros;
        for _ in 0..KEPT {
            meter.seek(micros(900));
        }
        meter.jump();
        meter.see(0, true);
        for i in 1..=1000_i64 {
            let hiccup = if i == 500 { 100_000 } else { 10 };
            meter.read(micros(hiccup));
            meter.see(i * SECOND / 50, i % 25 == 0);
        }
        let costs = meter.costs();
        assert!((costs.read - 10e3).abs() < 1.0, "{costs:?}");
        assert!((costs.seek - 900e3).abs() < 1.0, "{costs:?}");
        // 20 s in 40 GOPs, with the usual one before.
        assert!((costs.gop - 25e9 / 41.0).abs() < 1e6, "{costs:?}");
        assert!((costs.frame - 25e9 / 1125.0).abs() < 1e6, "{costs:?}");
    }

    #[test]
    fn packets_that_lay_ready_are_not_measured() {
        let mut meter = Meter::default();
        for _ in 0..10 {
            meter.pause(16);
            for i in 0..24 {
                meter.read(Duration::from_micros(if i < 16 { 1 } else { 30 }));
            }
        }
        assert!((meter.costs().read - 30e3).abs() < 1.0);
    }

    #[test]
    fn gops_that_are_never_read_to_their_end_are_taken_for_long() {
        let mut meter = Meter::default();
        for i in 0..20 {
            let begin = i * 100 * SECOND;
            meter.jump();
            for j in 0..50 {
                meter.see(begin + j * SECOND / 10, j == 0);
            }
        }
        assert!(meter.costs().gop > 90e9);
    }
}

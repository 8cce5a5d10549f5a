//! Which packets to decode for which times: [`Planner`].
//!
//! Times are answered in ascending order, one *run* at a time: the packets from one place where
//! decoding can start up to the last target that shares it. The displayed picture is known from the
//! packets' times alone, so nothing is decoded that no target needs, and no part of the video twice.

use std::collections::VecDeque;

use crate::GstError;
use crate::packet::Packet;

/// A target this much further on (ns) is sought instead of read up to.
const READ_ON: i64 = 5_000_000_000;

/// H.264 allows 16 pictures to be reordered: after 17 that are shown later, no earlier one follows.
const REORDER: usize = 17;

/// A stream that marks keyframes without a clean break (open GOP) is entered this long before the
/// target (ns), so that a keyframe lies between and what was lost at the entry is repaired.
const OPEN_GOP: i64 = 10_000_000_000;

/// Compressed bytes that are held back while the last target of a run is being looked for.
#[cfg(not(test))]
const HELD_BYTES: usize = 256 << 20;
#[cfg(test)]
const HELD_BYTES: usize = 1000;

/// Packets in decode order from any keyframe.
pub(crate) trait Packets {
    /// The next packet in decode order; `None` at the end.
    fn next(&mut self) -> Result<Option<Packet>, GstError>;
    /// Goes to a keyframe at or before `time`, or near it.
    fn seek(&mut self, time: i64) -> Result<(), GstError>;
    /// Goes to the very beginning.
    fn restart(&mut self) -> Result<(), GstError>;
    /// Whether `seek` can be used.
    fn seekable(&self) -> bool;
}

/// Packets to decode together.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// In decode order. The first can be decoded without any before it, unless `resumed`.
    pub(crate) packets: Vec<Packet>,
    /// Times of the pictures on display at the targets, ascending.
    pub(crate) wanted: Vec<i64>,
    /// For each of the targets this run answers, from when until when its picture is known to be on
    /// display.
    pub(crate) shown: Vec<Option<(i64, i64)>>,
    /// How many of the targets this run answers.
    pub(crate) covered: usize,
    /// It goes on where the last run ended, in the same GOP.
    pub(crate) resumed: bool,
    /// The next run goes on where this one ends: nothing may be left out, nor the decoder drained.
    pub(crate) unfinished: bool,
}

impl Run {
    /// The packets that must be decoded. The others are leading pictures of the first, which refer
    /// to pictures before it, and those that nothing refers to and nobody asked for.
    pub(crate) fn needed(&self) -> impl Iterator<Item = &Packet> {
        let begin = self.packets.first().filter(|_| !self.resumed);
        let begin = begin.map_or(i64::MIN, |packet| packet.time);
        let skip = !self.unfinished;
        self.packets.iter().filter(move |packet| {
            let wanted = self.wanted.binary_search(&packet.time).is_ok();
            packet.time >= begin && (packet.reference || wanted || !skip)
        })
    }
}

/// What a place to start decoding means while reading on to a target at or after it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Starts {
    /// What comes before it is not needed.
    Cut,
    /// Nothing: the run begins earlier on purpose.
    Keep,
    /// The target belongs to another run.
    Split,
}

/// How a step towards a target ended.
enum Reached {
    /// All packets that could be shown at the target were read.
    Settled,
    /// A place to start decoding was found at or before the target: it belongs to another run.
    Elsewhere,
    /// Too much had to be held.
    Full,
}

/// Reads ahead of the decoder and cuts runs.
#[derive(Default)]
pub(crate) struct Planner {
    /// Packets read and not yet handed out. Empty, or the first is a place to start.
    window: VecDeque<Packet>,
    bytes: usize,
    /// The latest time read since the last seek.
    position: Option<i64>,
    /// The latest decode time read since the last seek.
    decode_position: Option<i64>,
    /// Nothing follows.
    ended: bool,
    /// The first packet of the window continues an unfinished run.
    resumed: bool,
    /// The next run must start before this time.
    before: Option<i64>,
}

impl Planner {
    /// The run that answers the first of `targets` (ascending, not before the first displayed
    /// frame) and as many of those after it as share it.
    ///
    /// An empty run with nothing covered means that there is nothing to decode at that time.
    pub(crate) fn gather(
        &mut self,
        reader: &mut impl Packets,
        targets: &[i64],
    ) -> Result<Run, GstError> {
        let mut run = Run {
            resumed: self.resumed,
            ..Run::default()
        };
        let Some(&first) = targets.first() else {
            return Ok(run);
        };
        let before = self.before.take();
        if let Some(before) = before {
            self.window = self.find_start(reader, before)?.into();
            self.count_bytes();
        } else if !run.resumed {
            self.enter(reader, first)?;
        }
        if self.window.is_empty() && !run.resumed {
            return Ok(run);
        }
        let mut end = 0;
        let mut elsewhere = None;
        for &target in targets {
            let far = self.position.is_none_or(|at| target - at > READ_ON);
            if run.covered > 0 && far && !self.ended && reader.seekable() {
                let fresh = self.find_start(reader, target)?;
                if !self.rejoin(reader, &fresh)? {
                    elsewhere = Some(fresh);
                    break;
                }
            }
            let starts = match (before, run.covered) {
                (Some(_), _) => Starts::Keep,
                (None, 0) if !run.resumed => Starts::Cut,
                _ => Starts::Split,
            };
            match self.reach(reader, target, starts)? {
                Reached::Settled => {}
                Reached::Elsewhere if run.covered == 0 => {
                    // What an unfinished run began with was not needed after all.
                    self.resumed = false;
                    return self.gather(reader, targets);
                }
                Reached::Elsewhere => break,
                Reached::Full => {
                    run.unfinished = true;
                    end = self.window.len();
                    break;
                }
            }
            let displayed = self.displayed(target);
            if let Some((index, time)) = displayed {
                end = end.max(index + 1);
                if run.wanted.last() != Some(&time) {
                    run.wanted.push(time);
                }
            }
            run.shown
                .push(displayed.map(|(_, time)| (time, self.known_until(target))));
            run.covered += 1;
        }
        run.wanted.sort_unstable();
        run.packets = self.window.drain(..end.min(self.window.len())).collect();
        self.resumed = run.unfinished;
        if let Some(fresh) = elsewhere {
            self.window = fresh.into();
        } else if !run.unfinished {
            // What is left of this GOP is of no use without what was handed out.
            while self.window.front().is_some_and(|packet| !packet.key) {
                self.window.pop_front();
            }
        }
        self.count_bytes();
        Ok(run)
    }

    /// Forgets what was read, as after an error.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Makes the next run start earlier than one that began with a packet of this time and brought
    /// nothing out, because its beginning is damaged.
    pub(crate) fn retry_before(&mut self, time: i64) {
        self.reset();
        self.before = Some(time.saturating_sub(1));
    }

    /// Makes the window begin where decoding for `target` can start.
    fn enter(&mut self, reader: &mut impl Packets, target: i64) -> Result<(), GstError> {
        self.trim(target);
        let held = self
            .window
            .front()
            .is_some_and(|start| start.time <= target);
        let seekable = reader.seekable();
        let near = self
            .position
            .is_some_and(|at| at <= target && (!seekable || target - at <= READ_ON));
        if held && (near || self.ended || self.position.is_some_and(|at| at > target)) {
            return Ok(());
        }
        if near && !self.ended {
            self.window.clear();
            while !self.passed(target, 0) {
                let Some(packet) = self.read(reader)? else {
                    break;
                };
                if packet.key && packet.time <= target {
                    self.window = VecDeque::from([packet]);
                    return Ok(());
                }
            }
        }
        let fresh = self.find_start(reader, target)?;
        self.window = fresh.into();
        self.count_bytes();
        Ok(())
    }

    /// Reads until nothing that is still to come can be on display at `target`.
    fn reach(
        &mut self,
        reader: &mut impl Packets,
        target: i64,
        starts: Starts,
    ) -> Result<Reached, GstError> {
        match (self.latest_start(target), starts) {
            (Some(_), Starts::Split) => return Ok(Reached::Elsewhere),
            (Some(start), Starts::Cut) => {
                self.window.drain(..start);
                self.count_bytes();
            }
            _ => {}
        }
        let mut later = self.window.iter().filter(|p| p.time > target).count();
        while !self.passed(target, later) {
            if self.bytes > HELD_BYTES {
                return Ok(Reached::Full);
            }
            let Some(packet) = self.read(reader)? else {
                break;
            };
            let start = packet.key && packet.time <= target;
            if start && starts == Starts::Cut {
                self.window.clear();
                self.bytes = 0;
                later = 0;
            }
            later += usize::from(packet.time > target);
            self.bytes += packet.buffer.size();
            self.window.push_back(packet);
            if start && starts == Starts::Split {
                return Ok(Reached::Elsewhere);
            }
        }
        Ok(Reached::Settled)
    }

    /// Seeks to a place from which the picture on display at `target` can be decoded, stepping back
    /// as far as needed. Returns the packets from there that were read to find out.
    fn find_start(
        &mut self,
        reader: &mut impl Packets,
        target: i64,
    ) -> Result<Vec<Packet>, GstError> {
        let mut at = target.max(0);
        let mut step = 1_000_000_000;
        loop {
            let from_beginning = at == 0 || !reader.seekable();
            if reader.seekable() {
                reader.seek(at)?;
            } else {
                reader.restart()?;
            }
            self.position = None;
            self.decode_position = None;
            self.ended = false;
            let deep = target - at >= OPEN_GOP;
            let mut fresh: Vec<Packet> = Vec::new();
            let mut later = 0;
            while !self.passed(target, later) {
                let Some(packet) = self.read(reader)? else {
                    break;
                };
                later += usize::from(packet.time > target);
                if packet.key && packet.time <= target {
                    return Ok(vec![packet]);
                }
                let entry = packet.sync && packet.time <= target;
                // The second keyframe after a deep entry: from here on all is repaired.
                let repaired = deep && entry && !fresh.is_empty();
                if from_beginning || !fresh.is_empty() || (deep && entry) {
                    fresh.push(packet);
                }
                if repaired {
                    return Ok(fresh);
                }
            }
            if from_beginning {
                // Nothing lies before: start at the first keyframe of any kind, else at the first
                // packet.
                let start = fresh.iter().position(|packet| packet.sync).unwrap_or(0);
                fresh.drain(..start);
                return Ok(fresh);
            }
            at = (at - step).max(0);
            step *= 2;
        }
    }

    /// After a seek: when it landed within what was already read, reads up to where that ended.
    /// Returns false when `fresh` lies beyond it.
    fn rejoin(&mut self, reader: &mut impl Packets, fresh: &[Packet]) -> Result<bool, GstError> {
        let Some(last) = self.window.back().map(|p| (p.time, p.dts)) else {
            return Ok(false);
        };
        let read_to = self.window.iter().map(|packet| packet.time).max();
        let (Some(start), Some(read_to)) = (fresh.first(), read_to) else {
            return Ok(false);
        };
        if start.time > read_to {
            return Ok(false);
        }
        if let Some(index) = fresh.iter().position(|p| (p.time, p.dts) == last) {
            self.window.extend(fresh.iter().skip(index + 1).cloned());
            return Ok(true);
        }
        while let Some(packet) = self.read(reader)? {
            if (packet.time, packet.dts) == last {
                return Ok(true);
            }
        }
        Ok(true)
    }

    fn read(&mut self, reader: &mut impl Packets) -> Result<Option<Packet>, GstError> {
        let Some(packet) = reader.next()? else {
            self.ended = true;
            return Ok(None);
        };
        self.position = self.position.max(Some(packet.time));
        self.decode_position = self.decode_position.max(packet.dts);
        Ok(Some(packet))
    }

    /// Whether all that is shown at or before `target` was read; `later` packets shown after it were.
    fn passed(&self, target: i64, later: usize) -> bool {
        self.ended || self.decode_position.is_some_and(|at| at > target) || later >= REORDER
    }

    /// The last place in the window, other than its beginning, to start at for `target`.
    fn latest_start(&self, target: i64) -> Option<usize> {
        self.window
            .iter()
            .rposition(|packet| packet.key && packet.time <= target)
            .filter(|index| *index > 0)
    }

    fn trim(&mut self, target: i64) {
        if let Some(start) = self.latest_start(target) {
            self.window.drain(..start);
        }
    }

    /// Which packet of the window is on display at `target`: its place and its time.
    fn displayed(&self, target: i64) -> Option<(usize, i64)> {
        let shown = |packet: &&Packet| packet.time <= target;
        let time = self.window.iter().filter(shown).map(|p| p.time).max()?;
        // Two packets of one time (fields, hidden pictures): up to the later one.
        let index = self.window.iter().rposition(|packet| packet.time == time)?;
        Some((index, time))
    }

    /// Until when the picture on display at `target` is known to stay, once all that is shown at
    /// `target` was read.
    fn known_until(&self, target: i64) -> i64 {
        let mut later: Vec<i64> = self.window.iter().map(|packet| packet.time).collect();
        later.retain(|time| *time > target);
        let next = later.iter().min().map_or(i64::MAX, |time| time - 1);
        // All that is shown before this time was read. Where reading ended, damage may be why.
        let by_decoding = self.decode_position.map(|at| at - 1);
        later.sort_unstable_by(|a, b| b.cmp(a));
        let by_order = later.get(REORDER - 1).map(|time| time - 1);
        let read = by_decoding.max(by_order).unwrap_or(target).max(target);
        if self.ended && next < i64::MAX {
            next
        } else {
            next.min(read)
        }
    }

    fn count_bytes(&mut self) {
        self.bytes = self.window.iter().map(|p| p.buffer.size()).sum();
    }
}

#[cfg(test)]
mod tests;

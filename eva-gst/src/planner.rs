//! Reads ahead of the decoder as far as [`plan`](crate::plan) asks for, and cuts runs: [`Planner`].
//!
//! Times are answered in ascending order, one *run* at a time: the packets from one place where
//! decoding can start up to the last target that shares it. What belongs to a run is decided by the
//! pure function; here is what it costs to know that: reading, seeking and holding packets.

use std::collections::VecDeque;

use crate::GstError;
use crate::costs::Costs;
use crate::packet::Packet;
use crate::plan::{Known, Next, Part, Unit, passed, plan};

/// Targets this close behind one (ns) are read up to with it, before it is planned anew.
const TOGETHER: i64 = 1_000_000_000;

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
    /// Says that the place that was sought, in one seek or several, is reached.
    fn arrived(&mut self);
    /// What reading and seeking cost so far.
    fn costs(&self) -> Costs;
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
    /// The time of the picture on display at one of its targets.
    pub(crate) fn displayed(&self, target: usize) -> Option<i64> {
        let (time, _) = self.shown.get(target).copied().flatten()?;
        Some(time)
    }

    /// Whether it may have begun at a recovery point.
    pub(crate) fn may_recover(&self) -> bool {
        let first = self.packets.first();
        self.resumed || first.is_some_and(|packet| packet.key && packet.recovery.is_some())
    }

    /// The packets that must be decoded; all where the next run goes on from this one, because what
    /// it asks for is not known yet.
    pub(crate) fn needed(&self) -> impl Iterator<Item = &Packet> {
        let begin = self.packets.first().filter(|_| !self.resumed);
        let begin = begin.map_or(i64::MIN, |packet| packet.time);
        self.packets.iter().filter(move |packet| {
            let all = self.unfinished && packet.time >= begin;
            all || packet.unit().is_needed(begin, &self.wanted)
        })
    }
}

/// How a step towards a target ended.
enum Reached {
    /// Something more was read.
    Further,
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
    /// The last place to start decoding read since the last seek.
    start: Option<i64>,
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
        let Some(&first) = targets.first() else {
            return Ok(Run::default());
        };
        let before = self.before.take();
        if let Some(before) = before {
            self.window = self.find_start(reader, before)?.into();
            self.count_bytes();
        } else if !self.resumed {
            self.enter(reader, first)?;
        }
        if self.window.is_empty() && !self.resumed {
            return Ok(Run::default());
        }
        let early = before.is_some();
        loop {
            let units: Vec<Unit> = self.window.iter().map(Packet::unit).collect();
            let known = self.known(&units, early, reader.seekable());
            let planned = plan(&known, targets, &reader.costs());
            let complete = planned.parts.len() > 1;
            let part = planned.parts.into_iter().next();
            let target = match planned.next {
                _ if complete => return Ok(self.cut(part, None, false)),
                Next::Done | Next::Split => return Ok(self.cut(part, None, false)),
                Next::Read(target) => target,
                Next::Seek(target) => {
                    let fresh = self.find_start(reader, target)?;
                    if !self.rejoin(reader, &fresh)? {
                        return Ok(self.cut(part, Some(fresh), false));
                    }
                    target
                }
            };
            // Without anything planned, what lies before a later place to start is not needed.
            let drop = part.is_none() && !early;
            let close = target.saturating_add(TOGETHER);
            let until = targets.iter().rfind(|other| **other <= close);
            let until = until.copied().unwrap_or(target).max(target);
            if let Reached::Full = self.reach(reader, target, until, drop)? {
                let mut run = self.cut(part, None, true);
                run.unfinished = true;
                return Ok(run);
            }
        }
    }

    /// Takes the packets of `part` out of the window as a run; of an unfinished one all there are.
    /// `elsewhere`: those read from another place, which the next run begins with.
    fn cut(&mut self, part: Option<Part>, elsewhere: Option<Vec<Packet>>, unfinished: bool) -> Run {
        let part = part.unwrap_or_default();
        let all = self.window.len();
        let end = if unfinished { all } else { part.end.min(all) };
        let begin = part.begin.min(end);
        let packets = self.window.drain(..end).skip(begin).collect();
        let run = Run {
            packets,
            wanted: part.wanted,
            covered: part.shown.len(),
            shown: part.shown,
            // Where it starts at a place of its own, what was begun was not needed after all.
            resumed: self.resumed && begin == 0,
            unfinished,
        };
        self.resumed = unfinished;
        if let Some(fresh) = elsewhere {
            self.window = fresh.into();
        }
        // What is left of this GOP is of no use without what was handed out.
        while !unfinished && self.window.front().is_some_and(|packet| !packet.key) {
            self.window.pop_front();
        }
        self.count_bytes();
        run
    }

    fn known<'a>(&self, units: &'a [Unit], early: bool, seekable: bool) -> Known<'a> {
        Known {
            units,
            position: self.position,
            decode_position: self.decode_position,
            ended: self.ended,
            early,
            seekable,
        }
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
        let near = self.position.is_some_and(|at| {
            let start = self.start.unwrap_or(at);
            let reads_on = || reader.costs().reads_on(start, at, target, held);
            at <= target && (!reader.seekable() || reads_on())
        });
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

    /// Reads until nothing that is still to come can be on display at `until`, or to the next place
    /// to start before that. `drop`: what lies before the last such place up to `target` goes.
    fn reach(
        &mut self,
        reader: &mut impl Packets,
        target: i64,
        until: i64,
        drop: bool,
    ) -> Result<Reached, GstError> {
        if drop && self.trim(target) {
            self.resumed = false;
        }
        let mut later = self.window.iter().filter(|p| p.time > until).count();
        while !self.passed(until, later) {
            if self.bytes > HELD_BYTES {
                return Ok(Reached::Full);
            }
            let Some(packet) = self.read(reader)? else {
                break;
            };
            let (start, time) = (packet.key && packet.time <= until, packet.time);
            if start && drop && time <= target {
                self.window.clear();
                (self.bytes, later, self.resumed) = (0, 0, false);
            }
            later += usize::from(time > until);
            self.bytes += packet.buffer.size();
            self.window.push_back(packet);
            if start && !(drop && time <= target) {
                break;
            }
        }
        Ok(Reached::Further)
    }

    /// Seeks to a place from which the picture on display at `target` can be decoded. Returns the
    /// packets from there that were read to find out.
    fn find_start(
        &mut self,
        reader: &mut impl Packets,
        target: i64,
    ) -> Result<Vec<Packet>, GstError> {
        let found = self.step_back(reader, target);
        reader.arrived();
        found
    }

    /// Seeks, stepping back as far as needed.
    fn step_back(
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
            self.start = None;
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
        if packet.key {
            self.start = Some(packet.time);
        }
        Ok(Some(packet))
    }

    /// Whether all that is shown at or before `target` was read; `later` packets shown after it were.
    fn passed(&self, target: i64, later: usize) -> bool {
        passed(self.ended, self.decode_position, target, later)
    }

    /// The last place in the window, other than its beginning, to start at for `target`.
    fn latest_start(&self, target: i64) -> Option<usize> {
        self.window
            .iter()
            .rposition(|packet| packet.key && packet.time <= target)
            .filter(|index| *index > 0)
    }

    /// Drops what lies before the last place to start for `target`. Returns whether there was any.
    fn trim(&mut self, target: i64) -> bool {
        let Some(start) = self.latest_start(target) else {
            return false;
        };
        self.window.drain(..start);
        self.count_bytes();
        true
    }

    fn count_bytes(&mut self) {
        self.bytes = self.window.iter().map(|p| p.buffer.size()).sum();
    }
}

#[cfg(test)]
mod tests;

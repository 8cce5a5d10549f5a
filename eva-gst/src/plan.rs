//! Which packets answer which times: [`plan`], a pure function.
//!
//! What is on display at a time is known from the packets' times alone. So it is decided before
//! anything is decoded which packets must be, and nothing is decoded that no time needs.

use crate::costs::Costs;

/// H.264 allows 16 pictures to be reordered: after 17 that are shown later, no earlier one follows.
const REORDER: usize = 17;

/// A packet without its bytes. Times are ns of stream time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit {
    /// When it is shown.
    pub(crate) time: i64,
    /// Decoding can start here.
    pub(crate) key: bool,
    /// Whether other pictures may refer to this one.
    pub(crate) reference: bool,
}

impl Unit {
    /// Whether it must be decoded in a run that starts with a picture shown at `begin` and is asked
    /// for the pictures of the times `wanted` (ascending). The others are leading pictures of the
    /// first, which refer to pictures before it, and those that nothing refers to and nobody asked
    /// for.
    pub(crate) fn is_needed(self, begin: i64, wanted: &[i64]) -> bool {
        let asked = wanted.binary_search(&self.time).is_ok();
        self.time >= begin && (self.reference || asked)
    }
}

/// What is known of a stream: consecutive packets, and how far it was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    /// In decode order. Decoding can start with the first, or it goes on there.
    pub(crate) units: &'a [Unit],
    /// The latest time and the latest decode time that were read.
    pub(crate) position: Option<i64>,
    pub(crate) decode_position: Option<i64>,
    /// Nothing follows.
    pub(crate) ended: bool,
    /// The units begin earlier than they would have to, on purpose.
    pub(crate) early: bool,
    /// The stream can be sought in.
    pub(crate) seekable: bool,
}

/// A run: the units to decode from one place to start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// The first unit and the one after the last.
    pub(crate) begin: usize,
    pub(crate) end: usize,
    /// Times of the pictures on display at the targets, ascending, each once.
    pub(crate) wanted: Vec<i64>,
    /// For each of its targets, from when until when its picture is known to be on display.
    pub(crate) shown: Vec<Option<(i64, i64)>>,
}

/// What to do for the targets that no part of a plan answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// There are none.
    Done,
    /// Read on until all that is shown at this target was read.
    Read(i64),
    /// This target is far away: seek.
    Seek(i64),
    /// The next target starts at a place that was read, behind the last part: that one is complete.
    Split,
}

/// What answers the targets, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In the order of the stream. None shares a unit with another.
    pub(crate) parts: Vec<Part>,
    pub(crate) next: Next,
}

/// Plans which units to decode for `targets` (ns of stream time, in any order).
///
/// The same arguments give the same plan. Each target is in the part that starts at the last place
/// to start before it.
pub(crate) fn plan(known: &Known<'_>, targets: &[i64], costs: &Costs) -> Plan {
    let mut ascending = targets.to_vec();
    ascending.sort_unstable();
    let times = Times::new(known);
    let mut parts: Vec<Part> = Vec::new();
    let mut next = Next::Done;
    for target in ascending {
        let start = known.start(target);
        // Whether it begins a part of its own.
        let apart = parts.last().is_some_and(|part| start > part.begin);
        if !known.has_passed(target, times.after(target)) {
            next = if apart {
                Next::Split
            } else if !parts.is_empty() && known.is_far(start, target, costs) {
                Next::Seek(target)
            } else {
                Next::Read(target)
            };
            break;
        }
        if apart || parts.is_empty() {
            parts.push(Part {
                begin: start,
                end: start,
                ..Part::default()
            });
        }
        let Some(part) = parts.last_mut() else {
            break;
        };
        let displayed = times.displayed(part.begin, target);
        if let Some((index, time)) = displayed {
            part.end = part.end.max(index + 1);
            if part.wanted.last() != Some(&time) {
                part.wanted.push(time);
            }
        }
        let until = times.known_until(known, target);
        part.shown.push(displayed.map(|(_, time)| (time, until)));
    }
    Plan { parts, next }
}

impl Known<'_> {
    /// The unit that a run for `target` starts with.
    fn start(&self, target: i64) -> usize {
        if self.early {
            return 0;
        }
        let start = |unit: &Unit| unit.key && unit.time <= target;
        self.units.iter().rposition(start).unwrap_or(0)
    }

    fn has_passed(&self, target: i64, later: usize) -> bool {
        passed(self.ended, self.decode_position, target, later)
    }

    fn is_far(&self, start: usize, target: i64, costs: &Costs) -> bool {
        let Some(at) = self.position.filter(|_| self.seekable && !self.ended) else {
            return false;
        };
        let start = self.units.get(start).map_or(at, |unit| unit.time);
        target > at && !costs.reads_on(start, at, target, true)
    }
}

/// Whether all that is shown at or before `target` was read, given the latest decode time that was
/// and how many packets are shown `later` than it.
pub(crate) fn passed(ended: bool, decode_position: Option<i64>, target: i64, later: usize) -> bool {
    ended || decode_position.is_some_and(|at| at > target) || later >= REORDER
}

/// The times of the known units, ascending, with their places.
struct Times {
    sorted: Vec<(i64, usize)>,
}

impl Times {
    fn new(known: &Known<'_>) -> Self {
        let units = known.units.iter().enumerate();
        let mut sorted: Vec<_> = units.map(|(index, unit)| (unit.time, index)).collect();
        sorted.sort_unstable();
        Self { sorted }
    }

    /// How many are not after `target`.
    fn until(&self, target: i64) -> usize {
        self.sorted.partition_point(|(time, _)| *time <= target)
    }

    /// How many are after `target`.
    fn after(&self, target: i64) -> usize {
        self.sorted.len() - self.until(target)
    }

    /// Which unit from `begin` on is on display at `target`: its place and its time. Of two units
    /// of one time (fields, hidden pictures) it is the later one.
    fn displayed(&self, begin: usize, target: i64) -> Option<(usize, i64)> {
        let shown = self.sorted.get(..self.until(target))?.iter().rev();
        let (time, index) = shown.copied().find(|(_, index)| *index >= begin)?;
        Some((index, time))
    }

    /// Until when the picture on display at `target` is known to stay, once all that is shown at
    /// `target` was read.
    fn known_until(&self, known: &Known<'_>, target: i64) -> i64 {
        let next = self.sorted.get(self.until(target));
        let next = next.map_or(i64::MAX, |(time, _)| time.saturating_sub(1));
        if known.ended && next < i64::MAX {
            return next;
        }
        // All that is shown before this time was read. Where reading ended, damage may be why.
        let by_decoding = known.decode_position.map(|at| at.saturating_sub(1));
        let last = self.sorted.len().checked_sub(REORDER);
        let by_order = last
            .and_then(|last| self.sorted.get(last))
            .map(|(time, _)| time.saturating_sub(1))
            .filter(|time| *time >= target);
        next.min(by_decoding.max(by_order).unwrap_or(target).max(target))
    }
}

#[cfg(test)]
mod tests;

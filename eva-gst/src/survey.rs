//! What must be known of a file before its frames can be asked for: [`survey`].

use crate::GstError;
use crate::container::Container;
use crate::packet::Packet;
use crate::pipeline::Demux;

/// Packets read at most to find the first displayed frame.
const HEAD: usize = 64;

/// A file's extent and pace. Times are ns of stream time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Survey {
    /// When the first displayed frame is shown.
    pub(crate) first: i64,
    /// When the last displayed frame is shown.
    pub(crate) last: i64,
    /// When it ends.
    pub(crate) end: i64,
    /// Average frames per second; 0 when unknown.
    pub(crate) fps: f64,
    /// The times of all frames, ascending; empty when they were not all read.
    pub(crate) times: Vec<i64>,
}

/// Reads the beginning and the end of a video, or all of it where `whole` says so.
///
/// `head` is the first packet, `demux` stands behind it.
pub(crate) fn survey(
    demux: &mut Demux,
    head: Packet,
    file: &str,
    container: Container,
    whole: bool,
) -> Result<Survey, GstError> {
    let mut pace = pace(&head);
    let mut start = vec![head];
    while !first_is_known(&start) && start.len() < HEAD {
        match demux.next()? {
            Some(packet) => start.push(packet),
            None => break,
        }
    }
    let first = first_displayed(&start).ok_or_else(|| GstError::NotVideo {
        file: file.to_owned(),
        reason: "its video stream is empty".to_owned(),
    })?;
    let limit = match (container, start.first().and_then(|packet| packet.stop)) {
        // Without an edit list the end is counted from the first frame, not from zero.
        (Container::Mp4, Some(stop)) => stop.saturating_add(first),
        _ => i64::MAX,
    };
    let mut span = Span::new(limit);
    let mut times: Vec<i64> = Vec::new();
    let claimed = demux.claimed_duration().filter(|_| !whole);
    if let Some(claimed) = claimed.filter(|_| demux.seekable()) {
        span = read_tail(demux, claimed, first, limit)?;
        if span.last.is_none() {
            // Nothing can be read by seeking: read in order.
            demux.restart()?;
            start.clear();
        }
    }
    if span.last.is_none() {
        let mut read = start.into_iter();
        while let Some(packet) = match read.next() {
            Some(packet) => Some(packet),
            None => match demux.next() {
                // Damage ends a video that must be read in order; what lies before it is good.
                Err(error) if !error.is_final() && !times.is_empty() => None,
                next => next?,
            },
        } {
            span.add(&packet);
            times.push(packet.time);
        }
        times.retain(|time| *time >= first && *time < limit);
        times.sort_unstable();
        times.dedup();
    }
    let last = span.last.unwrap_or(first).max(first);
    let end = span.end.unwrap_or(last).max(last);
    if let [only_first, .., only_last] = times.as_slice() {
        let seconds = (only_last - only_first) as f64 / 1e9;
        if seconds > 0.0 {
            pace = (times.len() - 1) as f64 / seconds;
        }
    }
    // A container that does not say how long its last frame is shown: as long as the others.
    let end = if end > last || pace <= 0.0 {
        end
    } else {
        last + (1e9 / pace) as i64
    };
    Ok(Survey {
        first,
        last,
        end,
        fps: pace,
        times,
    })
}

/// What was seen of a video's end.
struct Span {
    last: Option<i64>,
    end: Option<i64>,
    /// An MP4's edit list may end before its packets do: those from here on are not shown.
    limit: i64,
}

impl Span {
    fn new(limit: i64) -> Self {
        Self {
            last: None,
            end: None,
            limit,
        }
    }

    fn add(&mut self, packet: &Packet) {
        if packet.time >= self.limit {
            return;
        }
        let end = packet.time.saturating_add(packet.duration.unwrap_or(0));
        self.last = self.last.max(Some(packet.time));
        self.end = self.end.max(Some(end.min(self.limit)));
    }
}

/// Reads from near the claimed end to the real one; steps back where a truncated file has nothing.
fn read_tail(demux: &mut Demux, claimed: i64, first: i64, limit: i64) -> Result<Span, GstError> {
    let mut at = claimed;
    let mut step = 1_000_000_000;
    loop {
        let mut span = Span::new(limit);
        // In a damaged file either may fail far behind the last good packet.
        match demux.seek(at) {
            Ok(()) => loop {
                match demux.next() {
                    Ok(Some(packet)) => span.add(&packet),
                    Err(error) if error.is_final() => return Err(error),
                    Ok(None) | Err(_) => break,
                }
            },
            Err(error) if error.is_final() => return Err(error),
            Err(_) => {}
        }
        if span.last.is_none() && at <= first && demux.is_remote() {
            // Not even the first picture came again: a connection that broke must not pass for a
            // video that ends there.
            return Err(demux.broken_off());
        }
        if span.last.is_some() || at <= first {
            return Ok(span);
        }
        at = (at - step).max(first);
        step *= 2;
    }
}

/// Whether no packet still to come can be shown before those read.
fn first_is_known(packets: &[Packet]) -> bool {
    let Some(first) = first_displayed(packets) else {
        return false;
    };
    let later = packets.iter().filter(|packet| packet.time > first).count();
    packets
        .iter()
        .any(|packet| packet.dts.is_some_and(|dts| dts >= first))
        || later >= 17
}

/// The first frame that can be decoded and is not before the video's beginning (an edit list may
/// begin behind a keyframe).
fn first_displayed(packets: &[Packet]) -> Option<i64> {
    let start = packets.iter().position(|packet| packet.sync).unwrap_or(0);
    let usable = packets.get(start..)?;
    let key = usable.first()?.time;
    usable
        .iter()
        .map(|packet| packet.time)
        .filter(|time| *time >= key.max(0))
        .min()
}

/// The container's word on the average frame rate; 0 when it has none.
fn pace(packet: &Packet) -> f64 {
    packet
        .caps
        .structure(0)
        .and_then(|structure| structure.get::<gstreamer::Fraction>("framerate").ok())
        .filter(|rate| rate.numer() > 0 && rate.denom() > 0)
        .map_or(0.0, |rate| {
            f64::from(rate.numer()) / f64::from(rate.denom())
        })
}

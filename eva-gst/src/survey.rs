//! What must be known of a file before its frames can be asked for: [`survey`].

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::GstError;
use crate::options::FrameRule;
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
    whole: bool,
) -> Result<Survey, GstError> {
    let mut pace = pace(&head);
    let claimed = demux.claimed_duration().filter(|_| !whole);
    let mut start = vec![head];
    let mut ended = false;
    while !first_is_known(&start) && start.len() < HEAD {
        match demux.next()? {
            Some(packet) => start.push(packet),
            None => {
                ended = true;
                break;
            }
        }
    }
    let first = first_displayed(&start).ok_or_else(|| GstError::NotVideo {
        file: file.to_owned(),
        reason: "its video stream is empty".to_owned(),
    })?;
    let mut span = Span::default();
    let mut times: Vec<i64> = Vec::new();
    let tail = if ended {
        false
    } else {
        claimed.is_some() && demux.seekable()
    };
    if tail {
        span = read_tail(demux, claimed.unwrap_or(0), first)?;
    }
    if span.last.is_none() {
        if tail {
            // Not even from its beginning could the end be read by seeking.
            demux.restart()?;
        } else {
            for packet in &start {
                span.add(packet);
                times.push(packet.time);
            }
        }
        while !ended {
            let Some(packet) = demux.next()? else {
                break;
            };
            span.add(&packet);
            times.push(packet.time);
        }
        times.retain(|time| *time >= first);
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

/// Whether the file must be read in order from its beginning to be exact: a fragmented MP4, after a
/// seek in which GStreamer's times are some frames off.
pub(crate) fn must_read_in_order(path: &Path) -> bool {
    is_fragmented(path).unwrap_or(false)
}

/// Whether a survey must read the whole file.
pub(crate) fn must_read_all(rule: FrameRule, in_order: bool) -> bool {
    in_order || rule == FrameRule::Published
}

/// What was seen of a video's end.
#[derive(Default)]
struct Span {
    last: Option<i64>,
    end: Option<i64>,
}

impl Span {
    fn add(&mut self, packet: &Packet) {
        self.last = self.last.max(Some(packet.time));
        self.end = self
            .end
            .max(Some(packet.time + packet.duration.unwrap_or(0)));
    }
}

/// Reads from near the claimed end to the real one; steps back where a truncated file has nothing.
fn read_tail(demux: &mut Demux, claimed: i64, first: i64) -> Result<Span, GstError> {
    let mut at = claimed;
    let mut step = 1_000_000_000;
    loop {
        let mut span = Span::default();
        // In a damaged file either may fail far behind the last good packet.
        if demux.seek(at).is_ok() {
            loop {
                match demux.next() {
                    Ok(Some(packet)) => span.add(&packet),
                    Err(error @ GstError::Timeout { .. }) => return Err(error),
                    Ok(None) | Err(_) => break,
                }
            }
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

/// Looks for the box `mvex` in `moov`, which announces fragments.
fn is_fragmented(path: &Path) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut end = length;
    let mut at = 0_u64;
    // A box holds at least 8 bytes, so this ends; the count keeps a hostile file short.
    for _ in 0..4096 {
        if at.saturating_add(8) > end {
            break;
        }
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0_u8; 16];
        let read = file.read(&mut head)?;
        let [a, b, c, d, kind @ .., _, _, _, _, _, _, _, _] = head;
        let mut size = u64::from(u32::from_be_bytes([a, b, c, d]));
        let mut header = 8;
        if size == 1 && read == 16 {
            let [_, _, _, _, _, _, _, _, long @ ..] = head;
            size = u64::from_be_bytes(long);
            header = 16;
        }
        match (&kind, size) {
            (b"mvex" | b"moof", _) => return Ok(true),
            // Its children stand in it, one after another.
            (b"moov", 8..) => {
                end = length.min(at.saturating_add(size));
                at += header;
            }
            (_, 8..) => at = at.saturating_add(size),
            _ => break,
        }
    }
    Ok(false)
}

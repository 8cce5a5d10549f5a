//! Presentation times for streams that only have decode times: [`Reorder`].
//!
//! AVI and MPEG program streams give MPEG-1, 2 and 4 pictures no presentation time, or only some.
//! In these codecs a B picture is shown when it is decoded, and a picture that others refer to when
//! the next such picture is decoded.

use std::collections::VecDeque;

use crate::packet::Packet;

/// Holds packets back until their times are known.
#[derive(Default)]
pub(crate) struct Reorder {
    held: VecDeque<Packet>,
    /// A picture without a presentation time was seen: the times of the others are not to be
    /// trusted either (AVI gives keyframes their decode time).
    untimed: bool,
}

impl Reorder {
    /// Takes the next packet in decode order; `timed` when the container gave it its time.
    pub(crate) fn push(&mut self, packet: Packet, timed: bool) {
        self.untimed |= !timed;
        self.held.push_back(packet);
    }

    /// The next packet in decode order, if its time is known. `ended`: no more will be pushed.
    pub(crate) fn pop(&mut self, ended: bool) -> Option<Packet> {
        let next = self.held.iter().skip(1).find(|packet| packet.reference);
        if next.is_none() && !ended && self.held.front().is_some_and(|first| first.reference) {
            return None;
        }
        // The last one is shown when all others have been.
        let end = |packet: &Packet| Some(packet.dts?.saturating_add(packet.duration.unwrap_or(0)));
        let shown = match next {
            Some(next) => next.dts,
            None => self.held.back().and_then(end),
        };
        let mut packet = self.held.pop_front()?;
        if self.untimed {
            let shown = if packet.reference { shown } else { packet.dts };
            packet.time = shown.unwrap_or(packet.time);
        }
        Some(packet)
    }

    /// Forgets what is held, as at a seek.
    pub(crate) fn clear(&mut self) {
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use gstreamer as gst;

    /// Pictures by type, decoded at 0, 40, 80, ...: their times after reordering.
    fn times(types: &str, timed: &[bool]) -> Vec<i64> {
        gst::init().unwrap();
        let mut reorder = Reorder::default();
        let mut out = Vec::new();
        for (i, kind) in types.chars().enumerate() {
            let packet = Packet {
                time: i as i64 * 40,
                dts: Some(i as i64 * 40),
                duration: Some(40),
                stop: None,
                key: kind == 'I',
                recovery: None,
                sync: kind == 'I',
                reference: kind != 'B',
                buffer: gst::Buffer::new(),
                caps: gst::Caps::new_any(),
            };
            reorder.push(packet, timed.get(i).copied().unwrap_or(false));
            out.extend(std::iter::from_fn(|| reorder.pop(false)));
        }
        out.extend(std::iter::from_fn(|| reorder.pop(true)));
        out.iter().map(|packet| packet.time).collect()
    }

    #[test]
    fn references_are_shown_when_the_next_one_is_decoded() {
        // Shown as I B B P B P.
        assert_eq!(times("IPBBPB", &[true]), [40, 160, 80, 120, 240, 200]);
        assert_eq!(times("IPPP", &[true]), [40, 80, 120, 160]);
    }

    #[test]
    fn given_times_are_kept() {
        assert_eq!(times("IPBBP", &[true; 5]), [0, 40, 80, 120, 160]);
    }
}

//! The packets of an open file, as the planner sees them: [`Reader`].

use core::time::Duration;
use std::time::Instant;

use crate::GstError;
use crate::costs::{Costs, Meter};
use crate::graph::AHEAD;
use crate::packet::Packet;
use crate::pipeline::Demux;
use crate::planner::Packets;

/// When no packet was asked for this long, some lie ready.
const PAUSE: Duration = Duration::from_micros(500);

/// The demuxer, whether it may be sought in, and what was asked of it.
pub(crate) struct Reader {
    demux: Demux,
    seekable: bool,
    /// Decoding may start at recovery points, too.
    recovery_points: bool,
    packets: u64,
    seeks: u64,
    /// Packets since the beginning of the file; `None` after a seek, which can land anywhere.
    position: Option<u64>,
    /// Packets from the beginning up to damage. Waiting for a damaged demuxer to give up takes long,
    /// and a file that is read in order would meet the same damage for each target.
    sound: Option<u64>,
    meter: Meter,
    /// How long the search for a place to start has taken that is not over yet.
    search: Option<Duration>,
    /// When a packet was last asked for.
    asked: Option<Instant>,
}

impl Reader {
    pub(crate) fn new(demux: Demux, seekable: bool) -> Self {
        Self {
            demux,
            seekable,
            recovery_points: false,
            packets: 0,
            seeks: 0,
            position: None,
            sound: None,
            meter: Meter::default(),
            search: None,
            asked: None,
        }
    }

    /// Says whether decoding may start at recovery points, too.
    pub(crate) fn start_at_recovery_points(&mut self, may: bool) {
        self.recovery_points = may;
    }

    /// Whether decoding may start at recovery points.
    pub(crate) fn starts_at_recovery_points(&self) -> bool {
        self.recovery_points
    }

    /// Packets read so far.
    pub(crate) fn packets(&self) -> u64 {
        self.packets
    }

    /// How often it was sought in or begun again.
    pub(crate) fn seeks(&self) -> u64 {
        self.seeks
    }

    /// What follows is read from elsewhere, since a seek that began at `begin`.
    fn jumped(&mut self, begin: Instant) {
        *self.search.get_or_insert_default() += begin.elapsed();
        self.meter.jump();
    }
}

impl Packets for Reader {
    fn next(&mut self) -> Result<Option<Packet>, GstError> {
        if self.position.is_some() && self.position == self.sound {
            return Ok(None);
        }
        let begin = Instant::now();
        if self.asked.is_some_and(|last| begin - last > PAUSE) {
            self.meter.pause(AHEAD);
        }
        let mut next = self.demux.next();
        self.asked = Some(Instant::now());
        if let Ok(Some(packet)) = &mut next {
            packet.key |= self.recovery_points && packet.recovery.is_some();
            self.packets += 1;
            self.position = self.position.map(|position| position + 1);
            let took = begin.elapsed();
            match &mut self.search {
                Some(search) => *search += took,
                None => self.meter.read(took),
            }
            self.meter.see(packet.time, packet.key);
        }
        match next {
            // Damage ends the stream where it stands; what was read before it is good. The next
            // seek starts over with a new pipeline.
            Err(
                GstError::Damaged { reason, .. }
                | GstError::Bus {
                    message: reason, ..
                },
            ) => {
                tracing::warn!(%reason, "the file is damaged");
                self.sound = self.position;
                Ok(None)
            }
            other => other,
        }
    }

    fn seek(&mut self, time: i64) -> Result<(), GstError> {
        self.seeks += 1;
        self.position = None;
        let begin = Instant::now();
        let outcome = self.demux.seek(time);
        self.jumped(begin);
        outcome
    }

    fn restart(&mut self) -> Result<(), GstError> {
        self.seeks += 1;
        self.position = Some(0);
        let begin = Instant::now();
        let outcome = self.demux.restart();
        self.jumped(begin);
        outcome
    }

    fn seekable(&self) -> bool {
        self.seekable
    }
    fn arrived(&mut self) {
        if let Some(search) = self.search.take() {
            self.meter.seek(search);
        }
    }

    fn costs(&self) -> Costs {
        self.meter.costs()
    }
}

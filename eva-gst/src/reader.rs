//! The packets of an open file, as the planner sees them: [`Reader`].

use crate::GstError;
use crate::packet::Packet;
use crate::pipeline::Demux;
use crate::planner::Packets;

/// The demuxer, whether it may be sought in, and what was asked of it.
pub(crate) struct Reader {
    demux: Demux,
    seekable: bool,
    packets: u64,
    seeks: u64,
    /// Packets since the beginning of the file; `None` after a seek, which can land anywhere.
    position: Option<u64>,
    /// Packets from the beginning up to damage. Waiting for a damaged demuxer to give up takes long,
    /// and a file that is read in order would meet the same damage for each target.
    sound: Option<u64>,
}

impl Reader {
    pub(crate) fn new(demux: Demux, seekable: bool) -> Self {
        Self {
            demux,
            seekable,
            packets: 0,
            seeks: 0,
            position: None,
            sound: None,
        }
    }

    /// Packets read so far.
    pub(crate) fn packets(&self) -> u64 {
        self.packets
    }

    /// How often it was sought in or begun again.
    pub(crate) fn seeks(&self) -> u64 {
        self.seeks
    }
}

impl Packets for Reader {
    fn next(&mut self) -> Result<Option<Packet>, GstError> {
        if self.position.is_some() && self.position == self.sound {
            return Ok(None);
        }
        let next = self.demux.next();
        if matches!(next, Ok(Some(_))) {
            self.packets += 1;
            self.position = self.position.map(|position| position + 1);
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
        self.demux.seek(time)
    }

    fn restart(&mut self) -> Result<(), GstError> {
        self.seeks += 1;
        self.position = Some(0);
        self.demux.restart()
    }

    fn seekable(&self) -> bool {
        self.seekable
    }
}

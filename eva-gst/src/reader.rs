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
}

impl Reader {
    pub(crate) fn new(demux: Demux, seekable: bool) -> Self {
        Self {
            demux,
            seekable,
            packets: 0,
            seeks: 0,
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
        let next = self.demux.next();
        self.packets += u64::from(matches!(next, Ok(Some(_))));
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
                Ok(None)
            }
            other => other,
        }
    }

    fn seek(&mut self, time: i64) -> Result<(), GstError> {
        self.seeks += 1;
        self.demux.seek(time)
    }

    fn restart(&mut self) -> Result<(), GstError> {
        self.seeks += 1;
        self.demux.restart()
    }

    fn seekable(&self) -> bool {
        self.seekable
    }
}

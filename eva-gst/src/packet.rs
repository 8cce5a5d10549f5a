//! One access unit between demuxer and decoder: [`Packet`], and what its first bytes tell.

use gstreamer as gst;

use crate::plan::Unit;
use crate::recovery::{Numbering, Recovery, is_recovery_point};
use crate::units::units;

/// A compressed picture with its place in the video. Times are nanoseconds of stream time, which
/// seeking does not change.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    /// When it is shown.
    pub(crate) time: i64,
    /// When it is decoded; absent in containers that do not say (Matroska).
    pub(crate) dts: Option<i64>,
    /// How long it is shown, when the container says so.
    pub(crate) duration: Option<i64>,
    /// Where the container says that the stream ends.
    pub(crate) stop: Option<i64>,
    /// Decoding can start here: no picture that is shown later refers to one before it.
    pub(crate) key: bool,
    /// It is a recovery point, where decoding can start too, if the decoder allows it.
    pub(crate) recovery: Option<Recovery>,
    /// The container or the parser calls it a keyframe. Not every one is a place to start.
    pub(crate) sync: bool,
    /// Whether other pictures may refer to this one.
    pub(crate) reference: bool,
    /// The bytes.
    pub(crate) buffer: gst::Buffer,
    /// Their format.
    pub(crate) caps: gst::Caps,
}

impl Packet {
    /// What is planned with.
    pub(crate) fn unit(&self) -> Unit {
        Unit {
            time: self.time,
            key: self.key,
            reference: self.reference,
        }
    }
}

/// What the slices of a picture say about how others depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dependence {
    pub(crate) key: bool,
    pub(crate) recovery: Option<Recovery>,
    pub(crate) reference: bool,
}

impl Dependence {
    fn new(key: bool, reference: bool) -> Self {
        Self {
            key,
            recovery: None,
            reference,
        }
    }
}

/// How a codec marks its pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// H.264 with this many bytes of length before each NAL unit, 0 for start codes, and how the
    /// stream's header says that its pictures are numbered.
    H264(usize, Option<Numbering>),
    /// H.265, likewise, and whether the stream is known to have a single temporal layer: only then
    /// does a picture's type alone say that nothing refers to it.
    H265(usize, bool),
    /// MPEG-1 and 2 video.
    Mpeg2,
    /// MPEG-4 part 2.
    Mpeg4,
    /// Any other: the container's flags decide.
    Other,
}

impl Codec {
    pub(crate) fn of(caps: &gst::CapsRef) -> Self {
        let Some(structure) = caps.structure(0) else {
            return Self::Other;
        };
        // The length size stands at a fixed place of the decoder configuration record.
        let (h265, place) = match structure.name().as_str() {
            "video/x-h264" => (false, 4),
            "video/x-h265" => (true, 21),
            "video/x-divx" | "video/x-xvid" => return Self::Mpeg4,
            "video/mpeg" => {
                return match structure.get::<i32>("mpegversion") {
                    Ok(1 | 2) => Self::Mpeg2,
                    Ok(4) => Self::Mpeg4,
                    _ => Self::Other,
                };
            }
            _ => return Self::Other,
        };
        let start_codes = structure.get::<&str>("stream-format") == Ok("byte-stream");
        let header = structure.get::<gst::Buffer>("codec_data").ok();
        let header = header
            .as_ref()
            .and_then(|header| header.map_readable().ok());
        let byte = header
            .as_ref()
            .and_then(|header| header.get(place).copied());
        match (start_codes, h265, byte) {
            (true, false, _) => Self::H264(0, None),
            (true, true, _) => Self::H265(0, false),
            (false, false, Some(byte)) => Self::H264(
                usize::from(byte & 3) + 1,
                header.and_then(|header| Numbering::in_header(&header)),
            ),
            // The same byte holds the number of temporal layers.
            (false, true, Some(byte)) => {
                Self::H265(usize::from(byte & 3) + 1, (byte >> 3) & 7 == 1)
            }
            (false, _, None) => Self::Other,
        }
    }

    /// Reads the first slice of `data`; `sync` is the container's word, which stands when the data
    /// does not tell.
    pub(crate) fn dependence(self, data: &[u8], sync: bool) -> Dependence {
        let told = match self {
            Self::H264(length, numbering) => h264(data, length, numbering),
            Self::H265(length, single_layer) => units(data, length).find_map(|unit| {
                match (*data.get(unit)?.first()? >> 1) & 0x3f {
                    // Even numbers are not referred to within their temporal layer.
                    kind @ 0..=15 => Some(Dependence::new(false, kind % 2 == 1 || !single_layer)),
                    16..=23 => Some(Dependence::new(true, true)),
                    _ => None,
                }
            }),
            // The picture type: 3 is B in MPEG-2, 2 in MPEG-4.
            Self::Mpeg2 => units(data, 0).find_map(|unit| match data.get(unit)? {
                [0, _, kind, ..] => Some(Dependence::new(sync, (kind >> 3) & 7 != 3)),
                _ => None,
            }),
            Self::Mpeg4 => units(data, 0).find_map(|unit| match data.get(unit)? {
                [0xb6, kind, ..] => Some(Dependence::new(sync, kind >> 6 != 2)),
                _ => None,
            }),
            Self::Other => None,
        };
        told.unwrap_or(Dependence::new(sync, true))
    }

    /// Whether some containers leave it to the reader to tell when its pictures are shown.
    pub(crate) fn may_lack_times(self) -> bool {
        matches!(self, Self::Mpeg2 | Self::Mpeg4)
    }
}

/// What the first slice says, and the messages before it.
fn h264(data: &[u8], length: usize, mut numbering: Option<Numbering>) -> Option<Dependence> {
    let (mut recovers, mut renamed) = (false, false);
    for unit in units(data, length) {
        let unit = data.get(unit)?;
        let Some(head) = unit.first() else {
            continue;
        };
        match head & 0x1f {
            1 | 2 => {
                let recovery = numbering.filter(|_| recovers);
                let recovery = recovery.and_then(|numbering| Recovery::at(unit, length, numbering));
                return Some(Dependence {
                    recovery,
                    ..Dependence::new(false, head & 0x60 != 0)
                });
            }
            5 => return Some(Dependence::new(true, true)),
            6 => recovers |= is_recovery_point(unit),
            7 => {
                let found = Numbering::of(unit);
                // Of several that differ it is not known which one counts.
                numbering = found.filter(|_| !renamed || found == numbering);
                renamed = true;
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_an_idr_slice_is_a_place_to_start_without_conditions_in_h264() {
        let idr = [0, 0, 0, 2, 0x67, 1, 0, 0, 0, 2, 0x65, 9];
        let other = [0, 0, 0, 2, 0x06, 1, 0, 0, 0, 2, 0x41, 9];
        assert!(Codec::H264(4, None).dependence(&idr, true).key);
        assert!(!Codec::H264(4, None).dependence(&other, true).key);
        let start_codes = [0, 0, 0, 1, 0x09, 0xf0, 0, 0, 1, 0x65, 9];
        assert!(Codec::H264(0, None).dependence(&start_codes, false).key);
    }

    #[test]
    fn a_slice_with_no_reference_mark_may_be_left_out() {
        let disposable = [0, 0, 0, 2, 0x01, 9];
        assert!(
            !Codec::H264(4, None)
                .dependence(&disposable, false)
                .reference
        );
        let h265 = [0, 0, 0, 3, 0x00, 0x01, 9];
        assert!(!Codec::H265(4, true).dependence(&h265, false).reference);
        assert!(Codec::H265(4, false).dependence(&h265, false).reference);
    }

    #[test]
    fn rubbish_leaves_the_containers_word() {
        for codec in [
            Codec::H264(0, None),
            Codec::H264(4, None),
            Codec::H265(2, true),
            Codec::Other,
        ] {
            for data in [&[][..], &[0xff; 7][..], &[0, 0, 1][..], &[0; 9][..]] {
                for sync in [false, true] {
                    let _ = codec.dependence(data, sync);
                }
            }
        }
        assert!(Codec::H264(4, None).dependence(&[0xff; 3], true).key);
    }
}

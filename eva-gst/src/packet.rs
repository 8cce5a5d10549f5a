//! One access unit between demuxer and decoder: [`Packet`], and what its first bytes tell.

use gstreamer as gst;

use crate::plan::Unit;

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
    /// Decoding can start here: no later picture refers to an earlier one.
    pub(crate) key: bool,
    /// The container or the parser calls it a keyframe. In open-GOP H.264 such a picture may be
    /// followed by ones that refer back across it.
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
    pub(crate) reference: bool,
}

/// How a codec marks its pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// H.264 with this many bytes of length before each NAL unit; 0: start codes.
    H264(usize),
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
        let byte = structure
            .get::<gst::Buffer>("codec_data")
            .ok()
            .and_then(|data| data.map_readable().ok()?.get(place).copied());
        match (start_codes, h265, byte) {
            (true, false, _) => Self::H264(0),
            (true, true, _) => Self::H265(0, false),
            (false, false, Some(byte)) => Self::H264(usize::from(byte & 3) + 1),
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
        let unknown = Dependence {
            key: sync,
            reference: true,
        };
        match self {
            Self::H264(length) => first_unit(data, length, |unit| {
                let head = *unit.first()?;
                match head & 0x1f {
                    5 => Some(Dependence {
                        key: true,
                        reference: true,
                    }),
                    1 | 2 => Some(Dependence {
                        key: false,
                        reference: head & 0x60 != 0,
                    }),
                    _ => None,
                }
            })
            .unwrap_or(unknown),
            Self::H265(length, single_layer) => first_unit(data, length, |unit| {
                match (*unit.first()? >> 1) & 0x3f {
                    // Even numbers are not referred to within their temporal layer.
                    kind @ 0..=15 => Some(Dependence {
                        key: false,
                        reference: kind % 2 == 1 || !single_layer,
                    }),
                    16..=23 => Some(Dependence {
                        key: true,
                        reference: true,
                    }),
                    _ => None,
                }
            })
            .unwrap_or(unknown),
            // The picture type: 3 is B in MPEG-2, 2 in MPEG-4.
            Self::Mpeg2 => first_unit(data, 0, |unit| match unit {
                [0, _, kind, ..] => Some(Dependence {
                    key: sync,
                    reference: (kind >> 3) & 7 != 3,
                }),
                _ => None,
            })
            .unwrap_or(unknown),
            Self::Mpeg4 => first_unit(data, 0, |unit| match unit {
                [0xb6, kind, ..] => Some(Dependence {
                    key: sync,
                    reference: kind >> 6 != 2,
                }),
                _ => None,
            })
            .unwrap_or(unknown),
            Self::Other => unknown,
        }
    }

    /// Whether some containers leave it to the reader to tell when its pictures are shown.
    pub(crate) fn may_lack_times(self) -> bool {
        matches!(self, Self::Mpeg2 | Self::Mpeg4)
    }
}

/// What `read` makes of the first NAL unit it recognises.
fn first_unit<T>(data: &[u8], length: usize, read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let mut rest = data;
    if length == 0 {
        // Start codes: 00 00 01. Only the unit's first bytes are looked at, so its end is not needed.
        while let Some(at) = rest.windows(3).position(|three| three == [0, 0, 1]) {
            rest = rest.get(at + 3..)?;
            if let Some(found) = read(rest) {
                return Some(found);
            }
        }
        return None;
    }
    while rest.len() > length {
        let (size, unit) = rest.split_at(length);
        if let Some(found) = read(unit) {
            return Some(found);
        }
        let size = size
            .iter()
            .fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
        rest = unit.get(size..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_an_idr_slice_is_a_place_to_start_in_h264() {
        let idr = [0, 0, 0, 2, 0x67, 1, 0, 0, 0, 2, 0x65, 9];
        let recovery = [0, 0, 0, 2, 0x06, 1, 0, 0, 0, 2, 0x41, 9];
        assert!(Codec::H264(4).dependence(&idr, true).key);
        assert!(!Codec::H264(4).dependence(&recovery, true).key);
        let start_codes = [0, 0, 0, 1, 0x09, 0xf0, 0, 0, 1, 0x65, 9];
        assert!(Codec::H264(0).dependence(&start_codes, false).key);
    }

    #[test]
    fn a_slice_with_no_reference_mark_may_be_left_out() {
        let disposable = [0, 0, 0, 2, 0x01, 9];
        assert!(!Codec::H264(4).dependence(&disposable, false).reference);
        let h265 = [0, 0, 0, 3, 0x00, 0x01, 9];
        assert!(!Codec::H265(4, true).dependence(&h265, false).reference);
        assert!(Codec::H265(4, false).dependence(&h265, false).reference);
    }

    #[test]
    fn rubbish_leaves_the_containers_word() {
        for codec in [
            Codec::H264(0),
            Codec::H264(4),
            Codec::H265(2, true),
            Codec::Other,
        ] {
            for data in [&[][..], &[0xff; 7][..], &[0, 0, 1][..], &[0; 9][..]] {
                for sync in [false, true] {
                    let _ = codec.dependence(data, sync);
                }
            }
        }
        assert!(Codec::H264(4).dependence(&[0xff; 3], true).key);
    }
}

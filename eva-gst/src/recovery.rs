//! Recovery points of H.264, the keyframes of open GOPs: [`Recovery`].
//!
//! Pictures that are shown after one do not refer back across it, so decoding may start there. But the
//! numbers of its references do not begin with 0 as behind an IDR picture. libav makes up the
//! pictures that seem to be missing, and GStreamer's element, which knows a picture by the packet it
//! came in, loses the real one with the first made-up one that is dropped: all that follows is
//! then predicted from grey. So the pictures of a run from a recovery point on are numbered from 0.
//! References go by differences of numbers, which stay. One made-up picture does no harm; where more
//! would be, since pictures shown before the recovery point are left out or numbers begin anew,
//! decoding cannot start there.

use std::io::Write;

use gstreamer as gst;
use h264_reader::avcc::AvcDecoderConfigurationRecord;
use h264_reader::nal::sei::recovery_point::RecoveryPoint;
use h264_reader::nal::sei::{HeaderType, SeiReader};
use h264_reader::nal::sps::{PicOrderCntType, SeqParameterSet};
use h264_reader::rbsp::{BitRead, BitReader, ByteReader, ByteWriter};

use crate::units::{bounded, units};

/// Whether an SEI unit says that this picture, and all that are shown after it, come out exactly when
/// decoding starts here (ITU-T H.264, D.2.8).
pub(crate) fn is_recovery_point(unit: &[u8]) -> bool {
    let mut scratch = Vec::new();
    let bytes = ByteReader::skipping_h264_header(bounded(unit));
    let mut messages = SeiReader::from_rbsp_bytes(bytes, &mut scratch);
    while let Ok(Some(message)) = messages.next() {
        if message.payload_type == HeaderType::RecoveryPoint {
            let point = RecoveryPoint::read(&message);
            return point
                .is_ok_and(|point| point.recovery_frame_cnt == 0 && point.exact_match_flag);
        }
    }
    false
}

/// Where slices carry the number of their picture (`frame_num`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbering {
    /// Of the number.
    bits: u32,
    /// Slices say first which colour they are of.
    colour_planes: bool,
}

impl Numbering {
    /// As a sequence parameter set has it; `None` where the numbers themselves, and not their differences
    /// alone, tell when pictures are shown, and for what cannot be read.
    pub(crate) fn of(unit: &[u8]) -> Option<Self> {
        let bits = BitReader::new(ByteReader::skipping_h264_header(bounded(unit)));
        let set = SeqParameterSet::from_bits(bits).ok()?;
        let order_by_number = matches!(set.pic_order_cnt, PicOrderCntType::TypeOne { .. });
        (!order_by_number).then(|| Self {
            bits: set.log2_max_frame_num().into(),
            colour_planes: set.chroma_info.separate_colour_plane_flag,
        })
    }

    /// As the header of a stream has it (`avcC`), if that is one for all its pictures.
    pub(crate) fn in_header(header: &[u8]) -> Option<Self> {
        let record = AvcDecoderConfigurationRecord::try_from(header).ok()?;
        let mut all = record
            .sequence_parameter_sets()
            .map(|set| Self::of(set.ok()?));
        let first = all.next()??;
        all.all(|other| other == Some(first)).then_some(first)
    }

    /// `rbsp`: a slice without its unit's first byte.
    fn read(self, rbsp: &[u8]) -> Option<SliceHead> {
        let mut bits = BitReader::new(rbsp);
        let mut place = 0;
        let mut values = [0; 3];
        let names = ["first_mb_in_slice", "slice_type", "pic_parameter_set_id"];
        for (value, name) in values.iter_mut().zip(names) {
            *value = bits.read_ue(name).ok()?;
            place += 2 * value.checked_add(1)?.ilog2() as usize + 1;
        }
        if self.colour_planes {
            bits.skip(2, "colour_plane_id").ok()?;
            place += 2;
        }
        Some(SliceHead {
            number: bits.read_var(self.bits, "frame_num").ok()?,
            place,
            // I and SI.
            intra: matches!(values[1] % 5, 2 | 4),
        })
    }
}

/// What a slice says first.
struct SliceHead {
    /// The number of its picture.
    number: u32,
    /// The number's first bit.
    place: usize,
    /// It refers to no other picture.
    intra: bool,
}

/// A recovery point, and the numbering of the pictures from there on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// Bytes of length before each NAL unit; 0: start codes.
    length: usize,
    numbering: Numbering,
    /// The number of its picture.
    first: u32,
    /// The number of the last picture since that others may refer to.
    last: u32,
}

/// Numbers that a picture may be ahead of the last one that others may refer to: the next, and one
/// that is left out between.
const AHEAD: u32 = 2;

impl Recovery {
    /// `slice`: its first.
    pub(crate) fn at(slice: &[u8], length: usize, numbering: Numbering) -> Option<Self> {
        let head = numbering.read(Head::of(slice).rbsp.get(1..)?)?;
        head.intra.then_some(Self {
            length,
            numbering,
            first: head.number,
            last: head.number,
        })
    }

    /// The next packet of the run that starts here, with its picture numbered from this one on; `None`
    /// where it cannot be read or does not follow on the last.
    pub(crate) fn renumbered(&mut self, packet: &gst::BufferRef) -> Option<gst::Buffer> {
        let data = self.renumber(&packet.map_readable().ok()?)?;
        let mut buffer = gst::Buffer::from_mut_slice(data);
        let copied = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS;
        packet.copy_into(buffer.get_mut()?, copied, ..).ok()?;
        Some(buffer)
    }

    fn renumber(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(data.len() + 16);
        let mut copied = 0;
        for unit in units(data, self.length) {
            let slice = data.get(unit.clone())?;
            // Slices of other than IDR pictures, whole or the first part of three.
            let kind = slice.first().filter(|kind| matches!(**kind & 0x1f, 1 | 2));
            let Some(kind) = kind else {
                continue;
            };
            let mut head = Head::of(slice);
            let SliceHead { number, place, .. } = self.numbering.read(head.rbsp.get(1..)?)?;
            let mask = u32::MAX >> (u32::BITS - self.numbering.bits);
            if number.wrapping_sub(self.last) & mask > AHEAD {
                return None;
            }
            if kind & 0x60 != 0 {
                self.last = number;
            }
            head.write(
                number.wrapping_sub(self.first),
                8 + place,
                self.numbering.bits,
            )?;
            let escaped = head.escaped()?;
            out.extend_from_slice(data.get(copied..unit.start - self.length)?);
            let size = slice.len() - head.taken + escaped.len();
            let size = u64::try_from(size).ok()?.to_be_bytes();
            let (over, size) = size.split_at_checked(size.len().checked_sub(self.length)?)?;
            if self.length > 0 && over.iter().any(|byte| *byte != 0) {
                return None;
            }
            out.extend_from_slice(size);
            out.extend_from_slice(&escaped);
            copied = unit.start + head.taken;
        }
        out.extend_from_slice(data.get(copied..)?);
        Some(out)
    }
}

/// The beginning of a unit.
struct Head {
    /// Without the bytes that keep start codes out of it.
    rbsp: Vec<u8>,
    /// How many bytes of the unit it is.
    taken: usize,
}

impl Head {
    /// The three numbers before a picture's, and that, take ten bytes at most.
    const BYTES: usize = 12;

    /// It ends with a byte other than 0, so that what follows is written the same whatever is changed
    /// in it.
    fn of(unit: &[u8]) -> Self {
        let mut rbsp = Vec::with_capacity(2 * Self::BYTES);
        let (mut zeros, mut taken) = (0, 0);
        for byte in unit {
            if rbsp.len() >= Self::BYTES && rbsp.last() != Some(&0) {
                break;
            }
            if zeros == 2 && *byte <= 2 {
                // A start code: the unit ended before its zeros.
                rbsp.truncate(rbsp.len() - zeros);
                taken -= zeros;
                break;
            }
            taken += 1;
            if zeros == 2 && *byte == 3 {
                zeros = 0;
                continue;
            }
            zeros = if *byte == 0 { zeros + 1 } else { 0 };
            rbsp.push(*byte);
        }
        Self { rbsp, taken }
    }

    /// Replaces `count` bits from `place` on by the last ones of `value`.
    fn write(&mut self, value: u32, place: usize, count: u32) -> Option<()> {
        for (place, shift) in (place..).zip((0..count).rev()) {
            let byte = self.rbsp.get_mut(place / 8)?;
            let mask = 0x80 >> (place % 8);
            if (value >> shift) & 1 == 1 {
                *byte |= mask;
            } else {
                *byte &= !mask;
            }
        }
        Some(())
    }

    fn escaped(&self) -> Option<Vec<u8>> {
        let mut writer = ByteWriter::new(Vec::with_capacity(self.rbsp.len() + 4));
        writer.write_all(&self.rbsp).ok()?;
        Some(writer.into_writer())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use h264_reader::rbsp::{BitWrite, BitWriter};
    use proptest::prelude::*;

    use super::*;

    const NUMBERING: Numbering = Numbering {
        bits: 5,
        colour_planes: false,
    };

    /// A slice as a unit, of random bytes behind what is read of it.
    fn slice(kind: u8, macroblock: u32, number: u32, rest: &[u8]) -> Vec<u8> {
        let mut bits = BitWriter::new(Vec::new());
        bits.write::<8, u8>(0x40 | kind).unwrap();
        for value in [macroblock, 7, 0] {
            bits.write_ue(value).unwrap();
        }
        bits.write_var(NUMBERING.bits, number).unwrap();
        bits.write_rbsp_trailing_bits().unwrap();
        let mut rbsp = bits.into_writer();
        rbsp.extend_from_slice(rest);
        rbsp.push(0x80);
        let mut unit = ByteWriter::new(Vec::new());
        unit.write_all(&rbsp).unwrap();
        unit.into_writer()
    }

    /// Units one after the other, as a packet.
    fn packet(length: usize, all: &[Vec<u8>]) -> Vec<u8> {
        let mut data = Vec::new();
        for unit in all {
            if length == 0 {
                data.extend_from_slice(&[0, 0, 0, 1]);
            } else {
                let size = u32::try_from(unit.len()).unwrap().to_be_bytes();
                data.extend_from_slice(&size[4 - length..]);
            }
            data.extend_from_slice(unit);
        }
        data
    }

    #[test]
    fn an_exact_recovery_point_is_told_from_other_messages() {
        // Messages before it, of which one has an escaped byte, and one a size from 255 on.
        let timing = [1, 4, 0, 0, 3, 1, 9];
        let long = [&[5, 0xff, 1][..], &[7; 256]].concat();
        for (messages, expected) in [
            (&[6, 1, 0xc4, 0x80][..], true),
            (&[&timing[..], &[6, 1, 0xc4, 0x80]].concat(), true),
            (&[&long[..], &[6, 1, 0xc4, 0x80]].concat(), true),
            (&[6, 1, 0xc4, 0x80, 0, 0, 1, 0x41], true),
            // Approximate; exact three pictures later; another message; cut short.
            (&[6, 1, 0x84, 0x80], false),
            (&[6, 1, 0x26, 0x80], false),
            (&[7, 1, 0xc4, 0x80], false),
            (&[6, 1], false),
            (&[6], false),
            (&[5, 0xff, 0xff, 6, 1, 0xc4], false),
            (&[], false),
        ] {
            let unit = [&[6][..], messages].concat();
            assert_eq!(is_recovery_point(&unit), expected, "{unit:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn numbers_begin_with_0_and_nothing_else_is_changed(
            length in prop::sample::select(vec![0_usize, 2, 4]),
            first in 0..32_u32,
            slices in prop::collection::vec(
                (0..9000_u32, 0..3_u32, prop::collection::vec(0..4_u8, 0..40)),
                1..4,
            ),
        ) {
            let units_of = |shift: u32| -> Vec<Vec<u8>> {
                let mut all = vec![vec![9, 0xf0], vec![6, 6, 1, 0xc4, 0x80]];
                let mut number = first;
                for (macroblock, step, rest) in &slices {
                    number += step;
                    all.push(slice(1, *macroblock, number.wrapping_sub(shift) & 31, rest));
                }
                all
            };
            let begin = slice(1, 0, first, &[]);
            let mut recovery = Recovery::at(&begin, length, NUMBERING).unwrap();
            let found = recovery.renumber(&packet(length, &units_of(0)));
            prop_assert_eq!(found, Some(packet(length, &units_of(first))));
        }

        #[test]
        fn numbers_that_begin_anew_or_leave_out_several_are_refused(
            first in 0..32_u32,
            ahead in 0..32_u32,
        ) {
            let begin = slice(1, 0, first, &[]);
            let mut recovery = Recovery::at(&begin, 4, NUMBERING).unwrap();
            let next = packet(4, &[slice(1, 0, (first + ahead) & 31, &[])]);
            prop_assert_eq!(recovery.renumber(&next).is_some(), ahead <= 2);
        }

        #[test]
        fn rubbish_is_no_panic(
            data in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..80),
            length in 0..5_usize,
            bits in 4..17_u32,
            colour_planes in any::<bool>(),
        ) {
            let numbering = Numbering { bits, colour_planes };
            let mut recovery = Recovery { length, numbering, first: 3, last: 3 };
            let _ = recovery.renumber(&data);
            let _ = Recovery::at(&data, length, numbering);
            let _ = is_recovery_point(&data);
            let _ = Numbering::of(&data);
            let _ = Numbering::in_header(&data);
        }
    }
}

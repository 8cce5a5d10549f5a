//! Pictures of 10 bits a sample: [`Deep`].

use core::ops::Range;

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::VideoFormat;
use gstreamer_video::prelude::*;
use yuv::{YuvPlanarImage, YuvRange, YuvStandardMatrix};

/// Planes of 16-bit numbers, kept between pictures.
///
/// The decoder's planes are bytes at any address, so they are copied; that is little beside
/// decoding them.
#[derive(Default)]
pub(crate) struct Deep {
    y: Vec<u16>,
    u: Vec<u16>,
    v: Vec<u16>,
}

impl Deep {
    /// Whether pictures of this format are read here.
    pub(crate) fn reads(format: VideoFormat) -> bool {
        matches!(
            format,
            VideoFormat::I42010le | VideoFormat::I42210le | VideoFormat::P01010le
        )
    }

    /// Writes `rows` of `frame`, of which the first is an even one, into `rgb`.
    pub(crate) fn write_rgb(
        &mut self,
        frame: &gst_video::VideoFrameRef<&gst::BufferRef>,
        rows: Range<u32>,
        rgb: &mut [u8],
        range: YuvRange,
        matrix: YuvStandardMatrix,
    ) -> Result<(), String> {
        let (width, height) = (frame.width(), rows.end - rows.start);
        let half = width.div_ceil(2);
        let format = frame.format();
        let (first, size) = (rows.start as usize, (width as usize, height as usize));
        let (chroma_first, chroma_height) = match format {
            VideoFormat::I42210le => (first, size.1),
            _ => (first / 2, size.1.div_ceil(2)),
        };
        let rows = |plane: u32, first: usize| {
            let stride = frame.plane_stride().get(plane as usize).copied();
            let stride = stride.and_then(|stride| usize::try_from(stride).ok());
            let data = frame.plane_data(plane).map_err(|error| error.to_string())?;
            let stride = stride.filter(|stride| *stride > 0).ok_or("odd rows")?;
            Ok::<_, String>(data.chunks(stride).skip(first))
        };
        let chroma_size = (half as usize, chroma_height);
        if format == VideoFormat::P01010le {
            // The 10 bits stand at the top of 16, and U and V take turns.
            fill(&mut self.y, rows(0, first)?, size, 6);
            let both = (2 * half as usize, chroma_height);
            fill(&mut self.u, rows(1, chroma_first)?, both, 6);
            self.v.clear();
            self.v.extend(self.u.iter().skip(1).step_by(2));
            let mut even = 0_usize;
            self.u.retain(|_| {
                even += 1;
                even % 2 == 1
            });
        } else {
            fill(&mut self.y, rows(0, first)?, size, 0);
            fill(&mut self.u, rows(1, chroma_first)?, chroma_size, 0);
            fill(&mut self.v, rows(2, chroma_first)?, chroma_size, 0);
        }
        let planes = YuvPlanarImage {
            y_plane: &self.y[..],
            y_stride: width,
            u_plane: &self.u[..],
            u_stride: half,
            v_plane: &self.v[..],
            v_stride: half,
            width,
            height,
        };
        match format {
            VideoFormat::I42210le => yuv::i210_to_rgb(&planes, rgb, width * 3, range, matrix),
            _ => yuv::i010_to_rgb(&planes, rgb, width * 3, range, matrix),
        }
        .map_err(|error| error.to_string())
    }
}

/// Fills `samples` with `width` x `height` little-endian ones, shifted down by `shift` bits.
fn fill<'a>(
    samples: &mut Vec<u16>,
    rows: impl Iterator<Item = &'a [u8]>,
    (width, height): (usize, usize),
    shift: u32,
) {
    samples.clear();
    samples.reserve(width * height);
    for row in rows.take(height) {
        samples.extend(row.chunks_exact(2).take(width).map(|bytes| match bytes {
            [low, high] => u16::from_le_bytes([*low, *high]) >> shift,
            _ => 0,
        }));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// A flat picture of 10-bit values as RGB: its first and its last pixel.
    fn flat(format: VideoFormat, [y, u, v]: [u16; 3]) -> [[u8; 3]; 2] {
        gst::init().unwrap();
        // An odd size: the chroma planes round up.
        let info = gst_video::VideoInfo::builder(format, 37, 21)
            .build()
            .unwrap();
        let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
        {
            let buffer = buffer.get_mut().unwrap();
            let mut frame =
                gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, &info).unwrap();
            let packed = format == VideoFormat::P01010le;
            for plane in 0..frame.n_planes() {
                let values = match plane {
                    0 => [y, y],
                    1 if packed => [u, v],
                    1 => [u, u],
                    _ => [v, v],
                };
                let data = frame.plane_data_mut(plane).unwrap();
                for (i, sample) in data.chunks_exact_mut(2).enumerate() {
                    let value = values[i % 2] << if packed { 6 } else { 0 };
                    sample.copy_from_slice(&value.to_le_bytes());
                }
            }
        }
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, &info).unwrap();
        let mut rgb = vec![0; 37 * 21 * 3];
        let (range, matrix) = (YuvRange::Limited, YuvStandardMatrix::Bt601);
        Deep::default()
            .write_rgb(&frame, 0..21, &mut rgb, range, matrix)
            .unwrap();
        [
            rgb[..3].try_into().unwrap(),
            rgb[rgb.len() - 3..].try_into().unwrap(),
        ]
    }

    #[test]
    fn ten_bits_of_each_layout_come_out_as_the_same_colour() {
        // 120, 90, 180 in 8 bits: BT.601 limited gives 204, 91, 45 or so.
        let values = [480, 360, 720];
        for format in [
            VideoFormat::I42010le,
            VideoFormat::I42210le,
            VideoFormat::P01010le,
        ] {
            for pixel in flat(format, values) {
                for (seen, expected) in pixel.iter().zip([204, 93, 45]) {
                    let off = i32::from(*seen) - expected;
                    assert!(off.abs() <= 2, "{format}: {pixel:?}");
                }
            }
        }
    }
}

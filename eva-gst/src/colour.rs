//! The rows of a decoded picture as RGB: [`Rgb`].

use core::ops::Range;

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use gstreamer_video::{VideoColorMatrix, VideoColorRange, VideoFormat};
use yuv::{YuvRange, YuvStandardMatrix};

use crate::deep::Deep;
use crate::output::Picture;

/// A picture that can be had as RGB, some rows at a time.
pub(crate) struct Rgb<'a> {
    frame: gst_video::VideoFrameRef<&'a gst::BufferRef>,
    range: YuvRange,
    matrix: YuvStandardMatrix,
    /// All of it, where its layout is one of the rarer ones.
    converted: Option<Vec<u8>>,
}

impl<'a> Rgb<'a> {
    pub(crate) fn of(picture: &'a Picture) -> Result<Self, String> {
        let info = &picture.info;
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&picture.buffer, info)
            .map_err(|_| "a decoded picture cannot be read".to_owned())?;
        if frame.width().checked_mul(3).is_none() {
            return Err("a decoded picture is too wide".to_owned());
        }
        let range = match info.colorimetry().range() {
            VideoColorRange::Range0_255 => YuvRange::Full,
            _ => YuvRange::Limited,
        };
        let converted = match frame.format() {
            VideoFormat::I420
            | VideoFormat::Yv12
            | VideoFormat::Y42b
            | VideoFormat::Y444
            | VideoFormat::Nv12
            | VideoFormat::Gray8 => None,
            format if Deep::reads(format) => None,
            _ => Some(by_gstreamer(picture)?),
        };
        Ok(Self {
            frame,
            range,
            matrix: matrix(picture),
            converted,
        })
    }

    /// Width and height as stored.
    pub(crate) fn size(&self) -> (u32, u32) {
        (self.frame.width(), self.frame.height())
    }

    /// Writes `rows` of the picture, of which the first is an even one, into `rgb`.
    pub(crate) fn write(
        &self,
        rows: Range<u32>,
        deep: &mut Deep,
        rgb: &mut [u8],
    ) -> Result<(), String> {
        let (range, matrix) = (self.range, self.matrix);
        let (width, height) = (self.frame.width(), rows.end - rows.start);
        let row = width * 3;
        if let Some(converted) = &self.converted {
            let begin = rows.start as usize * row as usize;
            let part = converted.get(begin..begin + rgb.len()).ok_or("too small")?;
            rgb.copy_from_slice(part);
            return Ok(());
        }
        let converted = match self.frame.format() {
            format @ (VideoFormat::I420
            | VideoFormat::Yv12
            | VideoFormat::Y42b
            | VideoFormat::Y444) => {
                // YV12 stores V before U.
                let (u, v) = if format == VideoFormat::Yv12 {
                    (2, 1)
                } else {
                    (1, 2)
                };
                let chroma = match format {
                    VideoFormat::Y42b | VideoFormat::Y444 => rows.start,
                    _ => rows.start / 2,
                };
                let planes = yuv::YuvPlanarImage {
                    y_plane: self.plane(0, rows.start)?,
                    y_stride: self.stride(0)?,
                    u_plane: self.plane(u, chroma)?,
                    u_stride: self.stride(u)?,
                    v_plane: self.plane(v, chroma)?,
                    v_stride: self.stride(v)?,
                    width,
                    height,
                };
                match format {
                    VideoFormat::Y42b => yuv::yuv422_to_rgb(&planes, rgb, row, range, matrix),
                    VideoFormat::Y444 => yuv::yuv444_to_rgb(&planes, rgb, row, range, matrix),
                    _ => yuv::yuv420_to_rgb(&planes, rgb, row, range, matrix),
                }
            }
            VideoFormat::Nv12 => {
                let planes = yuv::YuvBiPlanarImage {
                    y_plane: self.plane(0, rows.start)?,
                    y_stride: self.stride(0)?,
                    uv_plane: self.plane(1, rows.start / 2)?,
                    uv_stride: self.stride(1)?,
                    width,
                    height,
                };
                let mode = yuv::YuvConversionMode::Balanced;
                yuv::yuv_nv12_to_rgb(&planes, rgb, row, range, matrix, mode)
            }
            VideoFormat::Gray8 => {
                let plane = yuv::YuvGrayImage {
                    y_plane: self.plane(0, rows.start)?,
                    y_stride: self.stride(0)?,
                    width,
                    height,
                };
                yuv::yuv400_to_rgb(&plane, rgb, row, range, matrix)
            }
            _ => return deep.write_rgb(&self.frame, rows, rgb, range, matrix),
        };
        converted.map_err(|error| error.to_string())
    }

    /// A plane from `row` on.
    fn plane(&self, plane: u32, row: u32) -> Result<&[u8], String> {
        let begin = row as usize * self.stride(plane)? as usize;
        let data = self
            .frame
            .plane_data(plane)
            .map_err(|error| error.to_string())?;
        data.get(begin..)
            .ok_or_else(|| "a decoded picture is cut short".to_owned())
    }

    fn stride(&self, plane: u32) -> Result<u32, String> {
        let stride = self.frame.plane_stride().get(plane as usize).copied();
        stride
            .and_then(|stride| u32::try_from(stride).ok())
            .ok_or_else(|| "odd rows".to_owned())
    }
}

/// BT.601 unless the stream names another, as the published code's decoder has it.
fn matrix(picture: &Picture) -> YuvStandardMatrix {
    match picture.colour.as_ref().map(|colour| colour.matrix()) {
        Some(VideoColorMatrix::Bt709) => YuvStandardMatrix::Bt709,
        Some(VideoColorMatrix::Bt2020) => YuvStandardMatrix::Bt2020,
        Some(VideoColorMatrix::Smpte240m) => YuvStandardMatrix::Smpte240,
        Some(VideoColorMatrix::Fcc) => YuvStandardMatrix::Fcc,
        _ => YuvStandardMatrix::Bt601,
    }
}

/// Rarer layouts (12 bits and more, packed, RGB) take GStreamer's own converter.
fn by_gstreamer(picture: &Picture) -> Result<Vec<u8>, String> {
    let refused = || {
        format!(
            "pictures of format {} cannot be read",
            picture.info.format()
        )
    };
    let (width, height) = (picture.info.width(), picture.info.height());
    let mut from = gst_video::VideoInfo::builder(picture.info.format(), width, height);
    let guessed = picture.info.colorimetry();
    let named = gst_video::VideoColorimetry::new(
        guessed.range(),
        match picture.colour.as_ref().map(|colour| colour.matrix()) {
            None | Some(VideoColorMatrix::Unknown) if picture.info.is_yuv() => {
                VideoColorMatrix::Bt601
            }
            None | Some(VideoColorMatrix::Unknown) => guessed.matrix(),
            Some(matrix) => matrix,
        },
        guessed.transfer(),
        guessed.primaries(),
    );
    from = from
        .colorimetry(&named)
        .interlace_mode(picture.info.interlace_mode());
    let from = from.build().map_err(|_| refused())?;
    let to = gst_video::VideoInfo::builder(VideoFormat::Rgb, width, height)
        .build()
        .map_err(|_| refused())?;
    let input = gst_video::VideoFrame::from_buffer_readable(picture.buffer.clone(), &from)
        .map_err(|_| refused())?;
    let buffer = gstreamer::Buffer::with_size(to.size()).map_err(|_| refused())?;
    let mut output =
        gst_video::VideoFrame::from_buffer_writable(buffer, &to).map_err(|_| refused())?;
    gst_video::VideoConverter::new(&from, &to, None)
        .map_err(|_| refused())?
        .frame(&input, &mut output);
    let stride = output.plane_stride().first().copied().unwrap_or(0);
    let stride = usize::try_from(stride).map_err(|_| refused())?.max(1);
    let rows = output.plane_data(0).map_err(|_| refused())?;
    let row = width as usize * 3;
    Ok(rows
        .chunks(stride)
        .take(height as usize)
        .flat_map(|line| line.iter().take(row).copied())
        .collect())
}

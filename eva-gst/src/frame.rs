//! From a decoded picture to the RGB that was asked for: [`Converter`].

use eva_core::RgbImage;
use fast_image_resize as fir;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use gstreamer_video::{VideoColorMatrix, VideoColorRange, VideoFormat};
use yuv::{YuvRange, YuvStandardMatrix};

use crate::deep::Deep;
use crate::output::Picture;

/// How a stored picture must be turned to be seen upright.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Orientation {
    /// Mirrored left to right, before turning.
    flip: bool,
    /// Quarter turns clockwise.
    turns: u8,
}

impl Orientation {
    /// Reads an `image-orientation` tag, such as `rotate-90` or `flip-rotate-180`.
    pub(crate) fn from_tag(tag: &str) -> Self {
        let (flip, rest) = match tag.strip_prefix("flip-") {
            Some(rest) => (true, rest),
            None => (false, tag),
        };
        let turns = match rest {
            "rotate-90" => 1,
            "rotate-180" => 2,
            "rotate-270" => 3,
            _ => 0,
        };
        Self { flip, turns }
    }

    /// Whether width and height change places.
    pub(crate) fn is_sideways(self) -> bool {
        self.turns % 2 == 1
    }

    /// Turns `width` x `height` RGB pixels.
    fn apply(self, rgb: Vec<u8>, width: usize, height: usize) -> Vec<u8> {
        if self == Self::default() {
            return rgb;
        }
        let (out_width, out_height) = if self.is_sideways() {
            (height, width)
        } else {
            (width, height)
        };
        let mut out = Vec::with_capacity(rgb.len());
        for y in 0..out_height {
            for x in 0..out_width {
                let (from_x, from_y) = match self.turns {
                    1 => (y, height - 1 - x),
                    2 => (width - 1 - x, height - 1 - y),
                    3 => (width - 1 - y, x),
                    _ => (x, y),
                };
                let from_x = if self.flip {
                    width - 1 - from_x
                } else {
                    from_x
                };
                let at = (from_y * width + from_x) * 3;
                out.extend_from_slice(rgb.get(at..at + 3).unwrap_or(&[0; 3]));
            }
        }
        out
    }
}

/// Converts and resizes pictures, with buffers that are kept between them.
#[derive(Default)]
pub(crate) struct Converter {
    rgb: Vec<u8>,
    deep: Deep,
    resizer: fir::Resizer,
}

impl Converter {
    /// `picture` as upright RGB of `width` x `height`.
    ///
    /// The scaling is the one of the published code: bicubic with a = -0.75 over four pixels,
    /// without antialiasing.
    pub(crate) fn convert(
        &mut self,
        picture: &Picture,
        orientation: Orientation,
        width: u32,
        height: u32,
    ) -> Result<RgbImage, String> {
        let (from_width, from_height) = self.fill_rgb(picture)?;
        // Resizing first leaves fewer pixels to turn, and comes to the same.
        let (flat_width, flat_height) = if orientation.is_sideways() {
            (height, width)
        } else {
            (width, height)
        };
        let pixels = if (from_width, from_height) == (flat_width, flat_height) {
            self.rgb.clone()
        } else {
            let from = fir::images::ImageRef::new(
                from_width,
                from_height,
                &self.rgb,
                fir::PixelType::U8x3,
            )
            .map_err(|error| error.to_string())?;
            let mut to = fir::images::Image::new(flat_width, flat_height, fir::PixelType::U8x3);
            let cubic =
                fir::Filter::new("bicubic -0.75", cubic, 2.0).map_err(|error| error.to_string())?;
            let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Interpolation(
                fir::FilterType::Custom(cubic),
            ));
            self.resizer
                .resize(&from, &mut to, &options)
                .map_err(|error| error.to_string())?;
            to.into_vec()
        };
        let pixels = orientation.apply(pixels, flat_width as usize, flat_height as usize);
        RgbImage::new(width, height, pixels).map_err(|error| error.to_string())
    }

    /// Fills `self.rgb` with the picture at its stored size, which is returned.
    fn fill_rgb(&mut self, picture: &Picture) -> Result<(u32, u32), String> {
        let info = &picture.info;
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&picture.buffer, info)
            .map_err(|_| "a decoded picture cannot be read".to_owned())?;
        let (width, height) = (frame.width(), frame.height());
        let row = width
            .checked_mul(3)
            .ok_or_else(|| "a decoded picture is too wide".to_owned())?;
        let size = row as usize * height as usize;
        if self.rgb.len() != size {
            // Not resized: memory that comes zeroed is not written to first.
            self.rgb = vec![0; size];
        }

        let plane = |index: u32| frame.plane_data(index).map_err(|error| error.to_string());
        let stride = |index: usize| {
            let stride = frame.plane_stride().get(index).copied();
            stride
                .and_then(|stride| u32::try_from(stride).ok())
                .ok_or("odd rows")
        };
        let range = match info.colorimetry().range() {
            VideoColorRange::Range0_255 => YuvRange::Full,
            _ => YuvRange::Limited,
        };
        let matrix = matrix(picture);
        let rgb = &mut self.rgb;
        let converted = match frame.format() {
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
                let planes = yuv::YuvPlanarImage {
                    y_plane: plane(0)?,
                    y_stride: stride(0)?,
                    u_plane: plane(u)?,
                    u_stride: stride(u as usize)?,
                    v_plane: plane(v)?,
                    v_stride: stride(v as usize)?,
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
                    y_plane: plane(0)?,
                    y_stride: stride(0)?,
                    uv_plane: plane(1)?,
                    uv_stride: stride(1)?,
                    width,
                    height,
                };
                let mode = yuv::YuvConversionMode::Balanced;
                yuv::yuv_nv12_to_rgb(&planes, rgb, row, range, matrix, mode)
            }
            VideoFormat::Gray8 => {
                let plane = yuv::YuvGrayImage {
                    y_plane: plane(0)?,
                    y_stride: stride(0)?,
                    width,
                    height,
                };
                yuv::yuv400_to_rgb(&plane, rgb, row, range, matrix)
            }
            format if Deep::reads(format) => {
                self.deep.write_rgb(&frame, rgb, row, range, matrix)?;
                return Ok((width, height));
            }
            _ => {
                drop(frame);
                *rgb = by_gstreamer(picture)?;
                return Ok((width, height));
            }
        };
        converted.map_err(|error| error.to_string())?;
        Ok((width, height))
    }
}

/// The weights of a pixel at `x` from the sampled place: Keys' cubic with a = -0.75.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.75;
    let x = x.abs();
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    } else {
        0.0
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// A 3 x 2 picture whose pixels are named a to f.
    fn turned(tag: &str) -> String {
        let rgb: Vec<u8> = b"abcdef".iter().flat_map(|c| [*c; 3]).collect();
        let out = Orientation::from_tag(tag).apply(rgb, 3, 2);
        out.chunks(3).map(|pixel| char::from(pixel[0])).collect()
    }

    #[test]
    fn pictures_turn_clockwise_and_mirror_before_turning() {
        assert_eq!(turned("rotate-0"), "abcdef");
        assert_eq!(turned("rotate-90"), "daebfc");
        assert_eq!(turned("rotate-180"), "fedcba");
        assert_eq!(turned("rotate-270"), "cfbead");
        assert_eq!(turned("flip-rotate-0"), "cbafed");
        assert_eq!(turned("flip-rotate-90"), "fcebda");
        assert_eq!(turned("nonsense"), "abcdef");
    }

    #[test]
    fn the_cubic_passes_through_its_samples_and_sums_to_one() {
        assert_eq!((cubic(0.0), cubic(1.0), cubic(2.0)), (1.0, 0.0, 0.0));
        for x in [0.1, 0.25, 0.5, 0.9] {
            let sum: f64 = [x + 1.0, x, 1.0 - x, 2.0 - x].map(cubic).iter().sum();
            assert!((sum - 1.0).abs() < 1e-12);
        }
        assert!((cubic(0.5) - 0.59375).abs() < 1e-12);
    }
}

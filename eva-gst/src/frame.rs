//! From a decoded picture to the RGB that was asked for: [`Converter`].

use eva_core::RgbImage;
use fast_image_resize as fir;

use crate::colour::Rgb;
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

/// Bytes of RGB that are made at a time. With fewer, the resizer would spend more on weights, which it
/// computes each time; all of a large picture at once would be memory touched for the first time.
const BAND_BYTES: usize = 1 << 20;

/// Rows above and below a band that the filter looks at.
const REACH: u32 = 2;

/// Converts and resizes pictures, with buffers that are kept between them.
#[derive(Default)]
pub(crate) struct Converter {
    deep: Deep,
    band: Vec<u8>,
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
        // Resizing first leaves fewer pixels to turn, and comes to the same.
        let (flat_width, flat_height) = if orientation.is_sideways() {
            (height, width)
        } else {
            (width, height)
        };
        let rgb = Rgb::of(picture)?;
        let pixels = if rgb.size() == (flat_width, flat_height) {
            let mut pixels = vec![0; bytes(flat_width, flat_height)?];
            rgb.write(0..flat_height, &mut self.deep, &mut pixels)?;
            pixels
        } else {
            self.resized(&rgb, flat_width, flat_height)?
        };
        let pixels = orientation.apply(pixels, flat_width as usize, flat_height as usize);
        RgbImage::new(width, height, pixels).map_err(|error| error.to_string())
    }

    /// The picture at `width` x `height`, made band by band.
    fn resized(&mut self, rgb: &Rgb<'_>, width: u32, height: u32) -> Result<Vec<u8>, String> {
        let filter =
            fir::Filter::new("bicubic -0.75", cubic, 2.0).map_err(|error| error.to_string())?;
        let filter = fir::ResizeAlg::Interpolation(fir::FilterType::Custom(filter));
        let options = fir::ResizeOptions::new().resize_alg(filter);
        let (from_width, from_height) = rgb.size();
        let scale = f64::from(from_height) / f64::from(height.max(1));
        let band = band(bytes(from_width, 1)?, scale).min(height.max(1));
        let mut pixels = vec![0; bytes(width, height)?];
        let parts = pixels.chunks_mut(bytes(width, band)?.max(1));
        for (begin, part) in (0..height).step_by(band as usize).zip(parts) {
            let rows = band.min(height - begin);
            // Where they lie in the picture, and the rows that they are made of.
            let top = f64::from(begin) * scale;
            let bottom = (f64::from(begin + rows) * scale).min(f64::from(from_height));
            let first = (top as u32).saturating_sub(REACH) & !1;
            let last = (bottom.ceil() as u32 + REACH).min(from_height);
            self.band.resize(bytes(from_width, last - first)?, 0);
            rgb.write(first..last, &mut self.deep, &mut self.band)?;

            let kind = fir::PixelType::U8x3;
            let from = fir::images::ImageRef::new(from_width, last - first, &self.band, kind)
                .map_err(|error| error.to_string())?;
            let mut to = fir::images::Image::from_slice_u8(width, rows, part, kind)
                .map_err(|error| error.to_string())?;
            let (top, height) = (top - f64::from(first), bottom - top);
            let options = options.crop(0.0, top, f64::from(from_width), height);
            self.resizer
                .resize(&from, &mut to, &options)
                .map_err(|error| error.to_string())?;
        }
        Ok(pixels)
    }
}

/// How many rows to make at a time, each of `scale` rows of `row` bytes.
fn band(row: usize, scale: f64) -> u32 {
    let rows = BAND_BYTES / row.max(1);
    let rows = rows.max(8 * REACH as usize) as f64 / scale;
    rows.max(1.0) as u32
}

/// The size of `width` x `height` RGB pixels.
fn bytes(width: u32, height: u32) -> Result<usize, String> {
    (width as usize)
        .checked_mul(3)
        .and_then(|row| row.checked_mul(height as usize))
        .ok_or_else(|| "a picture is too large".to_owned())
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use eva_core::Pixels;
    use gstreamer as gst;
    use gstreamer_video as gst_video;
    use gstreamer_video::VideoFormat;

    use super::*;
    use crate::output::Output;

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

    /// A picture of noise.
    fn noise(format: VideoFormat, width: u32, height: u32) -> Picture {
        let info = gst_video::VideoInfo::builder(format, width, height);
        let info = info.build().unwrap();
        let bytes = (0..info.size() as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
        let mut buffer = gst::Buffer::from_mut_slice(bytes.collect::<Vec<u8>>());
        let buffer_mut = buffer.get_mut().unwrap();
        buffer_mut.set_pts(gst::ClockTime::ZERO);
        let mut output = Output {
            info: Some(info),
            ..Output::default()
        };
        output.picture(buffer);
        output.last.unwrap()
    }

    #[test]
    fn pictures_made_in_bands_are_those_made_at_once() {
        gst::init().unwrap();
        let formats = [
            VideoFormat::I420,
            VideoFormat::Nv12,
            VideoFormat::Y42b,
            VideoFormat::Y444,
            VideoFormat::Gray8,
            VideoFormat::I42010le,
            VideoFormat::I42210le,
            VideoFormat::P01010le,
            VideoFormat::Rgbx,
        ];
        for format in formats {
            let picture = noise(format, 1301, 723);
            let rgb = Rgb::of(&picture).unwrap();
            let mut whole = vec![0; 1301 * 723 * 3];
            rgb.write(0..723, &mut Deep::default(), &mut whole).unwrap();
            let whole =
                fir::images::Image::from_vec_u8(1301, 723, whole, fir::PixelType::U8x3).unwrap();
            for (width, height) in [(650, 361), (333, 97), (1301, 722), (1400, 1100), (5, 3)] {
                assert!(band(1301 * 3, 723.0 / f64::from(height)) < height || height < 100);
                let mut at_once = fir::images::Image::new(width, height, fir::PixelType::U8x3);
                let filter = fir::Filter::new("cubic", cubic, 2.0).unwrap();
                let filter = fir::ResizeAlg::Interpolation(fir::FilterType::Custom(filter));
                let options = fir::ResizeOptions::new().resize_alg(filter);
                fir::Resizer::new()
                    .resize(&whole, &mut at_once, &options)
                    .unwrap();
                let mut converter = Converter::default();
                let banded = converter
                    .convert(&picture, Orientation::default(), width, height)
                    .unwrap();
                let off = banded.rgb().iter().zip(at_once.buffer());
                let off: Vec<u8> = off.map(|(a, b)| a.abs_diff(*b)).collect();
                // Weights are rounded as the largest of a band allows, in both directions.
                let (most, others) = (off.iter().max(), off.iter().filter(|off| **off > 0));
                assert!(most <= Some(&2), "{format} {width} x {height}: {most:?}");
                assert!(
                    others.count() * 100 < off.len(),
                    "{format} {width} x {height}"
                );
            }
        }
    }
    #[test]
    fn pictures_of_any_height_can_be_had_at_any_other() {
        gst::init().unwrap();
        // So wide that bands are as low as they get.
        let heights = [1, 2, 3, 15, 16, 17, 31, 33, 47, 97, 100, 211];
        for from in heights {
            let picture = noise(VideoFormat::Gray8, 30_000, from);
            for to in heights {
                let mut converter = Converter::default();
                let frame = converter.convert(&picture, Orientation::default(), 7, to);
                assert!(frame.is_ok(), "{from} to {to}: {frame:?}");
            }
        }
    }
}

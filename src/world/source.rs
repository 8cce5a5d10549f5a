//! Frames of a world as any other source delivers them: [`WorldSource`].

use std::sync::Arc;

use eva_core::{Frame, FrameSource, RgbImage, Selection, VideoInfo, WrongLength};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{
    CreateFilterError, Filter, FilterType, ImageBufferError, PixelType, ResizeAlg, ResizeError,
    ResizeOptions, Resizer,
};

use super::{FPS, HEIGHT, WIDTH, World};

/// Largest side of a delivered frame in pixels: far above any model's, far below memory's end.
const LARGEST_SIDE: u32 = 16_384;

/// A frame of a world could not be delivered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldSourceError {
    /// The selection's frame size cannot be made.
    #[error(
        "cannot scale a frame to {width} x {height} pixels: ask for 1 to {LARGEST_SIDE} pixels a side"
    )]
    Size {
        /// Width that was asked for, in pixels.
        width: u32,
        /// Height that was asked for, in pixels.
        height: u32,
    },
    /// Scaling refused a buffer. A bug in this module if it ever comes.
    #[error("cannot scale a frame of a synthetic video")]
    Buffer(#[from] ImageBufferError),
    /// Scaling refused its kernel. A bug in this module if it ever comes.
    #[error("cannot scale a frame of a synthetic video")]
    Kernel(#[from] CreateFilterError),
    /// Scaling produced a wrong number of bytes. A bug in this module if it ever comes.
    #[error("cannot scale a frame of a synthetic video")]
    Length(#[from] WrongLength),
    /// Scaling failed.
    #[error("cannot scale a frame of a synthetic video")]
    Scale(#[from] ResizeError),
}

/// A [`FrameSource`] that draws a [`World`]'s frames instead of decoding them.
///
/// Scaling is the published tool's: bicubic with a = -0.75 and no smoothing, so that what a model
/// learns here it meets again in decoded video.
#[derive(Debug)]
pub struct WorldSource {
    world: Arc<World>,
    resizer: Resizer,
    drawn: Vec<u8>,
}

impl WorldSource {
    /// A source of `world`'s frames.
    #[must_use]
    pub fn new(world: Arc<World>) -> Self {
        Self {
            world,
            resizer: Resizer::new(),
            drawn: Vec::new(),
        }
    }

    /// The frame in `drawn` at another size.
    fn scaled(&mut self, width: u32, height: u32) -> Result<RgbImage, WorldSourceError> {
        if (width, height) == (WIDTH, HEIGHT) {
            return Ok(RgbImage::new(width, height, self.drawn.clone())?);
        }
        let kernel = Filter::new("bicubic, a = -0.75", cubic, 2.0)?;
        // `Interpolation` keeps the kernel's size when it shrinks: that is "no smoothing".
        let way = ResizeAlg::Interpolation(FilterType::Custom(kernel));
        let from = ImageRef::new(WIDTH, HEIGHT, &self.drawn, PixelType::U8x3)?;
        let mut to = Image::new(width, height, PixelType::U8x3);
        let options = ResizeOptions::new().resize_alg(way);
        self.resizer.resize(&from, &mut to, &options)?;
        Ok(RgbImage::new(width, height, to.into_vec())?)
    }
}

/// The cubic convolution kernel with a = -0.75.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.75;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    } else {
        0.0
    }
}

impl FrameSource for WorldSource {
    type Pixels = RgbImage;
    type Error = WorldSourceError;

    fn info(&self) -> VideoInfo {
        VideoInfo {
            duration: self.world.duration(),
            width: WIDTH,
            height: HEIGHT,
            fps: f64::from(FPS),
        }
    }

    fn frames(
        &mut self,
        selection: &Selection,
        sink: &mut dyn FnMut(Frame<RgbImage>),
    ) -> Result<(), WorldSourceError> {
        let &Selection { width, height, .. } = selection;
        let fits = 1..=LARGEST_SIDE;
        if !fits.contains(&width) || !fits.contains(&height) {
            return Err(WorldSourceError::Size { width, height });
        }
        for time in selection.times() {
            let frame = self.world.frame_at(time);
            self.world.render_into(frame, &mut self.drawn);
            sink(Frame {
                time: f64::from(frame) / f64::from(FPS),
                pixels: self.scaled(width, height)?,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use eva_core::Pixels;

    fn select(start: f64, end: f64, nframes: u32, width: u32, height: u32) -> Vec<Frame<RgbImage>> {
        let mut source = WorldSource::new(Arc::new(World::new(2)));
        let selection = Selection::uniform(start, end, nframes, width, height);
        let mut frames = Vec::new();
        source
            .frames(&selection, &mut |frame| frames.push(frame))
            .unwrap();
        frames
    }

    #[test]
    fn frames_come_in_order_with_the_time_they_are_really_on_display() {
        let frames = select(10.0, 11.3, 3, WIDTH, HEIGHT);
        let times: Vec<f64> = frames.iter().map(|frame| frame.time).collect();
        assert_eq!(times, [10.0, 10.625, 11.25]);
        assert_eq!(frames[1].pixels, World::new(2).render(10.7));
    }

    #[test]
    fn frames_come_at_the_size_asked_for() {
        let frames = select(3.0, 5.0, 1, 28, 56);
        let [frame] = frames.as_slice() else {
            panic!("one frame expected")
        };
        assert_eq!(frame.time, 4.0);
        assert_eq!((frame.pixels.width(), frame.pixels.height()), (28, 56));
    }

    #[test]
    fn scaling_is_the_published_bicubic_without_smoothing() {
        // By the definition: output pixel 3 of a quarter-size row lies at 3.5 * 4 - 0.5 = 13.5,
        // half-way between input pixels 13 and 14, so the four nearest get these weights.
        let weights = [cubic(1.5), cubic(0.5), cubic(0.5), cubic(1.5)];
        assert_eq!(weights, [-0.09375, 0.59375, 0.59375, -0.09375]);
        let large = World::new(2).render(4.0);
        let small = &select(3.0, 5.0, 1, WIDTH / 4, HEIGHT / 4)[0].pixels;
        let mut expected = 0.0;
        for (wy, y) in weights.into_iter().zip(12..) {
            for (wx, x) in weights.into_iter().zip(12..) {
                expected += wy * wx * f64::from(large.rgb()[(y * WIDTH as usize + x) * 3]);
            }
        }
        let got = f64::from(small.rgb()[(3 * small.width() as usize + 3) * 3]);
        assert!((got - expected).abs() <= 1.0, "{got} is not {expected}");
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let mut source = WorldSource::new(Arc::new(World::new(2)));
        for (width, height) in [(0, 28), (28, 0), (u32::MAX, 28)] {
            let selection = Selection::uniform(0.0, 1.0, 1, width, height);
            let error = source.frames(&selection, &mut |_| ()).unwrap_err();
            assert!(error.to_string().contains(&format!("{width} x {height}")));
        }
    }
}

//! Where frames come from: [`FrameSource`], and what it delivers: [`Frame`],
//! [`Picture`].

use crate::selection::PATCH;
use crate::{Selection, VideoInfo};

/// A picture that can be read as 8-bit RGB.
///
/// Policies that only need pixels are generic over this, so that an application can bring its own
/// image type without a copy.
///
/// ```
/// use eva_core::Pixels;
///
/// /// A picture of one colour.
/// struct Dot([u8; 3]);
///
/// impl Pixels for Dot {
///     fn width(&self) -> u32 {
///         1
///     }
///     fn height(&self) -> u32 {
///         1
///     }
///     fn rgb(&self) -> &[u8] {
///         &self.0
///     }
/// }
/// # assert_eq!((&Dot([1, 2, 3])).rgb(), [1, 2, 3]);
/// ```
pub trait Pixels {
    /// Width in pixels.
    fn width(&self) -> u32;
    /// Height in pixels.
    fn height(&self) -> u32;
    /// Rows from the top, `width * height * 3` bytes, R G B, no padding between rows.
    fn rgb(&self) -> &[u8];
}

impl<P: Pixels + ?Sized> Pixels for &P {
    fn width(&self) -> u32 {
        (**self).width()
    }
    fn height(&self) -> u32 {
        (**self).height()
    }
    fn rgb(&self) -> &[u8] {
        (**self).rgb()
    }
}

/// One frame of a video, with the time at which it is really on display.
///
/// ```
/// use eva_core::Frame;
///
/// // At 1.02 s of a video of 25 frames a second, the frame from 1.0 s on is on display.
/// let frame = Frame { time: 1.0, pixels: [0_u8; 3] };
/// # assert_eq!(frame.time, 1.0);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Frame<P> {
    /// Presentation time in seconds, counted from the first displayed frame of the video.
    pub time: f64,
    /// The picture, already at the selection's size.
    pub pixels: P,
}

/// A frame in a conversation, with the size it was asked for.
///
/// ```
/// use eva_core::{Frame, Picture};
///
/// let picture = Picture { frame: Frame { time: 1.0, pixels: () }, width: 140, height: 84 };
/// assert_eq!(picture.visual_tokens(), 5 * 3);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Picture<P> {
    /// The frame, as the source delivered it.
    pub frame: Frame<P>,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl<P> Picture<P> {
    /// What it costs the model: one token for each [`PATCH`] x [`PATCH`] pixels.
    #[must_use]
    pub fn visual_tokens(&self) -> u64 {
        u64::from((self.width / PATCH).max(1)) * u64::from((self.height / PATCH).max(1))
    }
}

/// A video that can be asked for frames.
///
/// A source delivers, for each time of a [`Selection`] and in the selection's order, the frame on
/// display at that time, scaled to the selection's size. Times count from the first displayed
/// frame: `0.0` is always valid.
///
/// ```
/// use core::convert::Infallible;
/// use eva_core::{Frame, FrameSource, Selection, VideoInfo};
///
/// /// A slide show: each picture is on display for ten seconds.
/// struct Slides(Vec<&'static str>);
///
/// impl FrameSource for Slides {
///     type Pixels = &'static str;
///     type Error = Infallible;
///
///     fn info(&self) -> VideoInfo {
///         VideoInfo { duration: 10.0 * self.0.len() as f64, width: 640, height: 360, fps: 0.1 }
///     }
///
///     fn frames(
///         &mut self,
///         selection: &Selection,
///         sink: &mut dyn FnMut(Frame<&'static str>),
///     ) -> Result<(), Infallible> {
///         for time in selection.times() {
///             let index = ((time / 10.0) as usize).min(self.0.len().saturating_sub(1));
///             if let Some(pixels) = self.0.get(index) {
///                 sink(Frame { time: 10.0 * index as f64, pixels: *pixels });
///             }
///         }
///         Ok(())
///     }
/// }
///
/// let mut seen = Vec::new();
/// let middle = Selection::uniform(10.0, 20.0, 1, 28, 28);
/// Slides(vec!["title", "chart", "end"]).frames(&middle, &mut |frame| seen.push(frame.pixels))?;
/// assert_eq!(seen, ["chart"]);
/// # Ok::<(), Infallible>(())
/// ```
pub trait FrameSource {
    /// The picture type, usually one that implements [`Pixels`].
    type Pixels;
    /// What can go wrong while decoding.
    type Error: core::error::Error;

    /// Length and size of what is delivered (after rotation and pixel aspect).
    fn info(&self) -> VideoInfo;

    /// Pushes one frame per time of `selection` into `sink`, in order.
    ///
    /// # Errors
    /// The source's own error; frames pushed before it remain valid.
    fn frames(
        &mut self,
        selection: &Selection,
        sink: &mut dyn FnMut(Frame<Self::Pixels>),
    ) -> Result<(), Self::Error>;
}

impl<S: FrameSource + ?Sized> FrameSource for &mut S {
    type Pixels = S::Pixels;
    type Error = S::Error;

    fn info(&self) -> VideoInfo {
        (**self).info()
    }
    fn frames(
        &mut self,
        selection: &Selection,
        sink: &mut dyn FnMut(Frame<Self::Pixels>),
    ) -> Result<(), Self::Error> {
        (**self).frames(selection, sink)
    }
}

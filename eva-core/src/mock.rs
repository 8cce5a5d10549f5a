//! A policy and a source for tests and examples, without a model and without a video.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec;
use core::convert::Infallible;
use core::fmt;

use crate::{Frame, FrameSource, Message, Part, Policy, RgbImage, Selection, Usage, VideoInfo};

/// A policy that says what it was told to, one text a turn.
///
/// It counts one token for each byte of text and each picture.
///
/// ```
/// use eva_core::mock::ScriptedPolicy;
/// use eva_core::Policy;
///
/// let mut policy = ScriptedPolicy::new(["<answer>B</answer>"]);
/// let mut reply = String::new();
/// Policy::<()>::generate(&mut policy, &[], &mut reply)?;
/// assert_eq!(reply, "<answer>B</answer>");
/// # Ok::<(), eva_core::mock::ScriptEnded>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct ScriptedPolicy {
    replies: VecDeque<String>,
}

/// A [`ScriptedPolicy`] was asked for more turns than it has replies.
///
/// ```
/// use eva_core::Policy;
/// use eva_core::mock::{ScriptEnded, ScriptedPolicy};
///
/// let mut policy = ScriptedPolicy::default();
/// let result = Policy::<()>::generate(&mut policy, &[], &mut String::new());
/// assert_eq!(result, Err(ScriptEnded));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the script has no more replies: give it one for each turn")]
pub struct ScriptEnded;

impl ScriptedPolicy {
    /// A policy that gives `replies` in order.
    #[must_use]
    pub fn new<T: Into<String>>(replies: impl IntoIterator<Item = T>) -> Self {
        Self {
            replies: replies.into_iter().map(Into::into).collect(),
        }
    }
}

impl<P> Policy<P> for ScriptedPolicy {
    type Error = ScriptEnded;

    fn generate(
        &mut self,
        conversation: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, ScriptEnded> {
        let text = self.replies.pop_front().ok_or(ScriptEnded)?;
        reply.write_str(&text).map_err(|_| ScriptEnded)?;
        let parts = conversation.iter().flat_map(|message| message.parts);
        let prompt = parts.map(|part| match part {
            Part::Text(text) => text.len(),
            Part::Image(_) => 1,
        });
        Ok(Usage {
            prompt: u32::try_from(prompt.sum::<usize>()).unwrap_or(u32::MAX),
            cached: 0,
            completion: u32::try_from(text.len()).unwrap_or(u32::MAX),
        })
    }
}

/// A source whose frames are all of one colour, each with exactly the asked time and size.
///
/// ```
/// use eva_core::mock::SolidSource;
/// use eva_core::{FrameSource, Pixels, Selection, VideoInfo};
///
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let mut source = SolidSource::new(video).with_color([255, 0, 0]);
/// let mut times = Vec::new();
/// source.frames(&Selection::uniform(0.0, 9.0, 1, 56, 28), &mut |frame| {
///     assert_eq!((frame.pixels.width(), &frame.pixels.rgb()[..3]), (56, &[255, 0, 0][..]));
///     times.push(frame.time);
/// })?;
/// assert_eq!(times, [4.5]);
/// # Ok::<(), core::convert::Infallible>(())
/// ```
#[derive(Debug, Clone)]
pub struct SolidSource {
    info: VideoInfo,
    color: [u8; 3],
}

impl SolidSource {
    /// A gray video.
    #[must_use]
    pub const fn new(info: VideoInfo) -> Self {
        Self {
            info,
            color: [128; 3],
        }
    }

    /// The same in another colour (R, G, B).
    #[must_use]
    pub const fn with_color(mut self, color: [u8; 3]) -> Self {
        self.color = color;
        self
    }
}

impl FrameSource for SolidSource {
    type Pixels = RgbImage;
    type Error = Infallible;

    fn info(&self) -> VideoInfo {
        self.info
    }

    fn frames(
        &mut self,
        selection: &Selection,
        sink: &mut dyn FnMut(Frame<RgbImage>),
    ) -> Result<(), Infallible> {
        let (width, height) = (selection.width, selection.height);
        let pixels = vec![self.color; width as usize * height as usize];
        if let Ok(pixels) = RgbImage::new(width, height, pixels.into_flattened()) {
            for time in selection.times() {
                sink(Frame {
                    time,
                    pixels: pixels.clone(),
                });
            }
        }
        Ok(())
    }
}

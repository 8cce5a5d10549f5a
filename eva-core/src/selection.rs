//! Which frames to fetch: [`Selection`].

/// A window of a video, how many frames of it, and how large: what a [`FrameSource`] is asked for.
///
/// Times are seconds from the first displayed frame.
///
/// [`FrameSource`]: crate::FrameSource
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Selection {
    /// Start of the window that is watched, within the video.
    pub start: f64,
    /// End of the window that is watched, within the video, after `start`.
    pub end: f64,
    /// Number of frames, at least 1.
    pub nframes: u32,
    /// Width of each delivered frame in pixels.
    pub width: u32,
    /// Height of each delivered frame in pixels.
    pub height: u32,
}

impl Selection {
    /// The time of frame `index`, in seconds: the middle of the window for a single frame, else
    /// evenly spaced from `start` to just before `end` (facts of the published tool: the last one
    /// is `eps = min(1e-3, (end - start) / (4 n))` before the end).
    #[must_use]
    pub fn time(&self, index: u32) -> f64 {
        if self.nframes <= 1 {
            return (self.start + self.end) / 2.0;
        }
        let n = f64::from(self.nframes);
        let eps = ((self.end - self.start) / (4.0 * n)).min(1e-3);
        let last = (self.end - eps).max(self.start);
        self.start + (last - self.start) * f64::from(index) / (n - 1.0)
    }

    /// All times, in order.
    pub fn times(&self) -> impl ExactSizeIterator<Item = f64> + '_ {
        let selection = *self;
        (0..self.nframes as usize).map(move |index| selection.time(index as u32))
    }
}

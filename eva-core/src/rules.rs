//! What the agent may spend, and what it knows of the video before it looks.

use crate::Selection;

/// What is known of a video before any frame is seen.
///
/// ```
/// use eva_core::VideoInfo;
///
/// let phone = VideoInfo { duration: 12.5, width: 1080, height: 1920, fps: 30.0 };
/// assert_eq!((phone.usable_duration(), phone.shorter_side()), (12.5, 1080));
/// let live = VideoInfo { duration: f64::INFINITY, ..phone };
/// assert_eq!(live.usable_duration(), 0.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VideoInfo {
    /// Length in seconds, from the first displayed frame to the end of the last.
    pub duration: f64,
    /// Width in pixels as displayed (after rotation and pixel aspect).
    pub width: u32,
    /// Height in pixels as displayed.
    pub height: u32,
    /// Average frames per second; 0 when unknown.
    pub fps: f64,
}

impl VideoInfo {
    /// Longest length that is believed, in seconds: some thirty thousand years.
    pub const MAX_DURATION: f64 = 1e12;

    /// The length as the protocol counts with it. One that is unknown or absurd (not a number,
    /// below 0, above [`VideoInfo::MAX_DURATION`]) is 0.
    #[must_use]
    pub fn usable_duration(&self) -> f64 {
        if (0.0..=Self::MAX_DURATION).contains(&self.duration) {
            self.duration
        } else {
            0.0
        }
    }

    /// The shorter side in pixels, the `P` of "720p".
    #[must_use]
    pub fn shorter_side(&self) -> u32 {
        self.width.min(self.height)
    }
}

/// Limits of a run, and what follows where a call of the model is not as it should be.
///
/// There are two sets. [`Rules::published`] does as the published code does, under which the scores
/// were made: take it for the published weights, for models that were trained on its conversations,
/// and to compare scores. [`Rules::default`] is for an application with a model of its own: each
/// choice tells the model what is true. They differ in three choices:
///
/// | Choice | [`published`](Rules::published) | [`default`](Rules::default) | Why |
/// |---|---|---|---|
/// | [`labels`](Rules::labels) | [`RequestedWindow`](FrameLabels::RequestedWindow) | [`FrameTimes`](FrameLabels::FrameTimes) | The published label is not the time of the frame when one frame is asked for or the window is partly beyond the video. A model that looks again at what it read would look in the wrong place. |
/// | [`outside_window`](Rules::outside_window) | [`WholeVideo`](OutsideWindow::WholeVideo) | [`Refuse`](OutsideWindow::Refuse) | Frames of the whole video in the place of a moment that is not there cost as much as a good call and show something else than was asked for. |
/// | [`failed_calls`](Rules::failed_calls) | [`EndRun`](FailedCalls::EndRun) | [`TellModel`](FailedCalls::TellModel) | A slip in the arguments is put right in the next turn; the published code gives the question up. |
///
/// ```
/// use eva_core::{FailedCalls, FrameLabels, OutsideWindow, Rules};
///
/// let rules = Rules::published().with_max_turns(3);
/// assert_eq!((rules.max_turns, rules.max_visual_tokens), (3, 12_000));
/// let told = Rules::published()
///     .with_labels(FrameLabels::FrameTimes)
///     .with_outside_window(OutsideWindow::Refuse)
///     .with_failed_calls(FailedCalls::TellModel);
/// assert_eq!(told, Rules::default());
/// ```
///
/// With the feature `serde`, a field that is missing in what is read has its published value, so that
/// runs that were stored before a choice was there go on as they began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default = "Rules::published"))]
pub struct Rules {
    /// Replies of the model before the run ends without an answer.
    pub max_turns: u32,
    /// Budget of one `frame_select` call in visual tokens. A call over it is reduced, not refused
    /// (see [`Selection::plan`](crate::Selection::plan)).
    pub max_visual_tokens: u32,
    /// First reduction of a call over budget: the shorter side of a frame is brought down to this
    /// many pixels.
    pub reduced_side: u32,
    /// Most frames of one call. The published code has no such limit and would decode a billion
    /// frames if asked. Each frame costs at least one visual token, so a limit equal to the
    /// published budget cuts only calls that the reduction could not bring under it.
    pub max_frames: u32,
    /// Most visual tokens of a whole run. What is left of them bounds each call too; a call that does
    /// not fit even when reduced fails with [`CallError::VisualBudgetSpent`]. The published code has
    /// no such limit: [`Rules::UNLIMITED`].
    ///
    /// [`CallError::VisualBudgetSpent`]: crate::CallError::VisualBudgetSpent
    pub max_run_visual_tokens: u64,
    /// What follows when all calls of a turn fail.
    pub failed_calls: FailedCalls,
    /// Which time stands before a frame.
    pub labels: FrameLabels,
    /// What a call gets whose window holds nothing of the video.
    pub outside_window: OutsideWindow,
}

/// Which time stands before a frame that the model sees.
///
/// ```
/// use eva_core::{FrameLabels, Selection};
///
/// // One frame of the first minute is its middle, and the published code labels it with the start.
/// let selection = Selection::uniform(0.0, 60.0, 1, 28, 28);
/// let time = selection.time(0);
/// assert_eq!(FrameLabels::RequestedWindow.seconds(&selection, 0, time), 0);
/// assert_eq!(FrameLabels::FrameTimes.seconds(&selection, 0, time), 30);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum FrameLabels {
    /// As in the published code: [`Selection::label_seconds`], spread over the window that the model
    /// asked for, whether there are frames or not. The published weights were trained on it.
    RequestedWindow,
    /// The time at which the frame begins to be on display, as the source says ([`Frame::time`]), in
    /// whole seconds. They are cut off, not rounded, so that a window from the label on holds the
    /// frame.
    ///
    /// [`Frame::time`]: crate::Frame::time
    FrameTimes,
}

impl FrameLabels {
    /// The whole seconds to write before frame `index` of `selection`, which the source delivered
    /// with `time` seconds.
    #[must_use]
    pub fn seconds(self, selection: &Selection, index: u32, time: f64) -> i64 {
        match self {
            Self::RequestedWindow => selection.label_seconds(index),
            Self::FrameTimes => time as i64,
        }
    }
}

/// What a call gets whose window holds nothing of the video: it lies before or beyond it, or does not
/// end after it starts.
///
/// A window that is partly within is cut down to that part whatever is chosen here, and in a video
/// without a known length any window is the whole of it.
///
/// ```
/// use eva_core::reply::FrameSelect;
/// use eva_core::{OutsideWindow, Rules, Selection, VideoInfo};
///
/// let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let call = FrameSelect::parse(r#"{"start_time": 100, "end_time": 120, "nframes": 4}"#)?;
/// let plan = |choice| Selection::plan(&call, &video, &Rules::published().with_outside_window(choice));
///
/// let whole = plan(OutsideWindow::WholeVideo)?;
/// assert_eq!((whole.start, whole.end, whole.nframes), (0.0, 90.0, 4));
/// let nearest = plan(OutsideWindow::Clamp)?;
/// assert_eq!((nearest.start, nearest.end, nearest.nframes), (90.0, 90.0, 1));
/// let refused = plan(OutsideWindow::Refuse).unwrap_err();
/// assert!(refused.to_string().contains("the video ends at 90 s"));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum OutsideWindow {
    /// As in the published code: the whole video.
    WholeVideo,
    /// The moment of the video that is nearest to the start of the window, as one frame: more would
    /// be the same picture again.
    Clamp,
    /// The call fails with [`CallError::WindowOutsideVideo`], which under
    /// [`FailedCalls::TellModel`] the model reads together with the video's length.
    ///
    /// [`CallError::WindowOutsideVideo`]: crate::CallError::WindowOutsideVideo
    Refuse,
}

/// What follows when calls fail.
///
/// ```
/// use eva_core::{FailedCalls, Rules};
///
/// let patient = Rules::published().with_failed_calls(FailedCalls::TellModel);
/// assert_ne!(patient, Rules::published());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum FailedCalls {
    /// As in the published code: a turn in which every call failed ends the run, arguments that the
    /// budget can't be counted with end it at once, and the model never reads of a failure.
    EndRun,
    /// The model reads what failed and why, in the place of the frames, and may try again. A turn is
    /// spent all the same. A block without any call still ends the run.
    TellModel,
}

impl Rules {
    /// As [`Rules::max_run_visual_tokens`]: no limit.
    pub const UNLIMITED: u64 = u64::MAX;

    /// The rules under which the published scores were made.
    #[must_use]
    pub const fn published() -> Self {
        Self {
            max_turns: 6,
            max_visual_tokens: 12_000,
            reduced_side: 720,
            max_frames: 12_000,
            max_run_visual_tokens: Self::UNLIMITED,
            failed_calls: FailedCalls::EndRun,
            labels: FrameLabels::RequestedWindow,
            outside_window: OutsideWindow::WholeVideo,
        }
    }

    /// The same with another number of turns.
    #[must_use]
    pub const fn with_max_turns(mut self, max_turns: u32) -> Self {
        self.max_turns = max_turns;
        self
    }

    /// The same with another budget a call, in visual tokens.
    #[must_use]
    pub const fn with_max_visual_tokens(mut self, max_visual_tokens: u32) -> Self {
        self.max_visual_tokens = max_visual_tokens;
        self
    }

    /// The same with another number of frames a call.
    #[must_use]
    pub const fn with_max_frames(mut self, max_frames: u32) -> Self {
        self.max_frames = max_frames;
        self
    }

    /// The same with a budget for the whole run, in visual tokens.
    #[must_use]
    pub const fn with_max_run_visual_tokens(mut self, max_run_visual_tokens: u64) -> Self {
        self.max_run_visual_tokens = max_run_visual_tokens;
        self
    }

    /// The same with another way to go on when calls fail.
    #[must_use]
    pub const fn with_failed_calls(mut self, failed_calls: FailedCalls) -> Self {
        self.failed_calls = failed_calls;
        self
    }

    /// The same with other times before the frames.
    #[must_use]
    pub const fn with_labels(mut self, labels: FrameLabels) -> Self {
        self.labels = labels;
        self
    }

    /// The same with another answer to windows that hold nothing of the video.
    #[must_use]
    pub const fn with_outside_window(mut self, outside_window: OutsideWindow) -> Self {
        self.outside_window = outside_window;
        self
    }
}

impl Default for Rules {
    /// The published limits, and the choices that an application with a model of its own wants: the
    /// model reads true times, and of each call that failed (see [`Rules`]).
    fn default() -> Self {
        Self::published()
            .with_labels(FrameLabels::FrameTimes)
            .with_outside_window(OutsideWindow::Refuse)
            .with_failed_calls(FailedCalls::TellModel)
    }
}

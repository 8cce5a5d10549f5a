//! What the agent may spend, and what it knows of the video before it looks.

/// What is known of a video before any frame is seen.
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

/// Limits of a run.
///
/// ```
/// use eva_core::Rules;
/// let rules = Rules::published().with_max_turns(3);
/// assert_eq!((rules.max_turns, rules.max_visual_tokens), (3, 12_000));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
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
}

/// What follows when calls fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum FailedCalls {
    /// As in the published code: a turn in which every call failed ends the run, arguments that the
    /// budget can't be counted with end it at once, and the model never reads of a failure.
    #[default]
    EndRun,
    /// The model reads what failed and why, in the place of the frames, and may try again. A turn is
    /// spent all the same. A block without any call still ends the run.
    TellModel,
}

impl Rules {
    /// As [`Rules::max_run_visual_tokens`]: no limit.
    pub const UNLIMITED: u64 = u64::MAX;

    /// The limits under which the published scores were made.
    #[must_use]
    pub const fn published() -> Self {
        Self {
            max_turns: 6,
            max_visual_tokens: 12_000,
            reduced_side: 720,
            max_frames: 12_000,
            max_run_visual_tokens: Self::UNLIMITED,
            failed_calls: FailedCalls::EndRun,
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
}

impl Default for Rules {
    /// [`Rules::published`].
    fn default() -> Self {
        Self::published()
    }
}

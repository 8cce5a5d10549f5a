//! How a run ends: [`Outcome`], and how a call fails: [`CallError`].

use core::fmt;
use core::str::FromStr;

use crate::agent::MAX_CALLS;
use crate::span::Span;
use crate::word::places;

/// What stands between the names of failures.
const JOIN: &str = "; ";

/// What a finished run comes to.
///
/// ```
/// use eva_core::{Agent, Input, Rules, Step, Usage, VideoInfo};
///
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let mut agent = Agent::new(Rules::published(), video);
/// let reply = "It is <answer> B </answer>";
/// if let Step::Done(outcome) = agent.handle(Input::Generated { reply, usage: Usage::default() })? {
///     assert_eq!(outcome.answer.and_then(|span| span.of(reply)), Some("B"));
/// }
/// # Ok::<(), eva_core::Unexpected>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Outcome {
    /// Where the answer stands in the last reply; never empty. `None` without an answer.
    pub answer: Option<Span>,
    /// Why the run ended.
    pub stop_reason: StopReason,
    /// What it cost.
    pub tally: Tally,
}

/// What a run has cost so far.
///
/// ```
/// use eva_core::{Agent, Rules, Tally, VideoInfo};
///
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// assert_eq!(Agent::new(Rules::published(), video).tally(), &Tally::default());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tally {
    /// Replies of the model.
    pub num_rounds: u32,
    /// Prompt and completion tokens of the last turn alone: a server caches what came before.
    pub total_tokens: u64,
    /// Visual tokens of all calls, summed, as estimated before the frames are fetched: of those that
    /// then fail too.
    pub estimated_visual_tokens: u64,
    /// Frames delivered.
    pub frames: u64,
    /// Calls beyond [`MAX_CALLS`] in one turn, which were not run.
    pub dropped_calls: u32,
}

/// Why a call of a tool failed. Its text is the published name of the failure.
///
/// ```
/// use eva_core::CallError;
///
/// assert_eq!(CallError::NoNframes.to_string(), "no_nframes");
/// assert_eq!("no_nframes".parse(), Ok(CallError::NoNframes));
/// assert!(CallError::NoNframes.advice().starts_with("nframes is missing"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CallError {
    /// The arguments are not a JSON object.
    #[error("arguments_not_json")]
    ArgumentsNotJson,
    /// No frames: the source failed, or the arguments can't be carried out.
    #[error("call_frame_select_failed")]
    FrameSelectFailed,
    /// Another tool failed. Not in the published protocol, which has one tool.
    #[error("call_tool_failed")]
    ToolFailed,
    /// `nframes` is missing.
    #[error("no_nframes")]
    NoNframes,
    /// `start_time` or `end_time` is missing.
    #[error("no_start_or_end_time")]
    NoStartOrEndTime,
    /// It would cost more visual tokens than the run has left. Not in the published protocol, which
    /// has no such limit.
    #[error("visual_budget_spent")]
    VisualBudgetSpent,
    /// Nothing of the video lies between `start_time` and `end_time`. Not in the published protocol,
    /// which takes the whole video then: see [`OutsideWindow`](crate::OutsideWindow).
    #[error("window_outside_video")]
    WindowOutsideVideo,
}

impl CallError {
    const ALL: [Self; 7] = [
        Self::ArgumentsNotJson,
        Self::FrameSelectFailed,
        Self::ToolFailed,
        Self::NoNframes,
        Self::NoStartOrEndTime,
        Self::VisualBudgetSpent,
        Self::WindowOutsideVideo,
    ];

    /// The published name of the failure.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ArgumentsNotJson => "arguments_not_json",
            Self::FrameSelectFailed => "call_frame_select_failed",
            Self::ToolFailed => "call_tool_failed",
            Self::NoNframes => "no_nframes",
            Self::NoStartOrEndTime => "no_start_or_end_time",
            Self::VisualBudgetSpent => "visual_budget_spent",
            Self::WindowOutsideVideo => "window_outside_video",
        }
    }

    /// The failure in words that the model can act on, where nobody knows more.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::ArgumentsNotJson => "the arguments are not a JSON object",
            Self::FrameSelectFailed => "no frames could be fetched",
            Self::ToolFailed => "the tool failed",
            Self::NoNframes => "nframes is missing: say how many frames to show",
            Self::NoStartOrEndTime => "start_time or end_time is missing: give both in seconds",
            Self::VisualBudgetSpent => {
                "too few visual tokens are left: ask for less, or answer from what was shown"
            }
            Self::WindowOutsideVideo => {
                "nothing of the video is between start_time and end_time: stay within its length"
            }
        }
    }
}

/// The failures of a turn, in the order of its calls.
///
/// ```
/// use eva_core::{CallError, StopReason};
///
/// let reason: StopReason = "no_nframes; arguments_not_json".parse()?;
/// let StopReason::CallsFailed(errors) = reason else { unreachable!() };
/// assert_eq!(errors, [CallError::NoNframes, CallError::ArgumentsNotJson]);
/// # Ok::<(), eva_core::outcome::UnknownStopReason>(())
/// ```
pub type CallErrors = heapless::Vec<CallError, MAX_CALLS>;

/// Why a run ended. Its text is the published name, and is read back with [`str::parse`].
///
/// ```
/// use eva_core::StopReason;
///
/// assert_eq!("max_turns_exceeded".parse(), Ok(StopReason::MaxTurnsExceeded));
/// assert_eq!(StopReason::AnswerFound.to_string(), "answer_found");
/// assert!(StopReason::AnswerFound.is_settled() && !StopReason::Exception.is_settled());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// `answer_found`
    AnswerFound,
    /// Every call of a turn failed: their names, joined by `"; "`. Never empty in a finished run.
    CallsFailed(CallErrors),
    /// `cancelled`: the host called the run off. Not in the published protocol.
    Cancelled,
    /// `deadline_exceeded`: the host's time for the run is over. Not in the published protocol.
    DeadlineExceeded,
    /// `exception`: the policy failed, or the reply asked for what the published code raises on.
    Exception,
    /// `max_turns_exceeded`
    MaxTurnsExceeded,
    /// `no_answer_no_tool_call`
    NoAnswerNoToolCall,
    /// `no_valid_tool_call`: a block that holds no call.
    NoValidToolCall,
    /// `openai_bad_request`: a model server refused the conversation.
    OpenaiBadRequest,
}

impl StopReason {
    const NAMED: [Self; 8] = [
        Self::AnswerFound,
        Self::Cancelled,
        Self::DeadlineExceeded,
        Self::Exception,
        Self::MaxTurnsExceeded,
        Self::NoAnswerNoToolCall,
        Self::NoValidToolCall,
        Self::OpenaiBadRequest,
    ];

    /// Whether the model itself brought the run to this end. The others are failures around it,
    /// or of all its calls, which the published evaluation retries on request.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        match self {
            Self::AnswerFound
            | Self::MaxTurnsExceeded
            | Self::NoAnswerNoToolCall
            | Self::NoValidToolCall => true,
            Self::CallsFailed(_)
            | Self::Cancelled
            | Self::DeadlineExceeded
            | Self::Exception
            | Self::OpenaiBadRequest => false,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::AnswerFound => "answer_found",
            Self::CallsFailed(_) => "",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Exception => "exception",
            Self::MaxTurnsExceeded => "max_turns_exceeded",
            Self::NoAnswerNoToolCall => "no_answer_no_tool_call",
            Self::NoValidToolCall => "no_valid_tool_call",
            Self::OpenaiBadRequest => "openai_bad_request",
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::CallsFailed(errors) = self else {
            return f.pad(self.name());
        };
        for (i, error) in errors.iter().enumerate() {
            let join = if i == 0 { "" } else { JOIN };
            write!(f, "{join}{error}")?;
        }
        Ok(())
    }
}

/// The text is not the name of a stop reason.
///
/// ```
/// use eva_core::{StopReason, outcome::UnknownStopReason};
///
/// assert_eq!("tired".parse::<StopReason>(), Err(UnknownStopReason));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a stop reason: expected a name such as `answer_found`, or up to {MAX_CALLS} call failures \
     joined by `; `"
)]
pub struct UnknownStopReason;

impl FromStr for StopReason {
    type Err = UnknownStopReason;

    fn from_str(text: &str) -> Result<Self, UnknownStopReason> {
        if let Some(reason) = Self::NAMED.into_iter().find(|reason| reason.name() == text) {
            return Ok(reason);
        }
        let mut errors = CallErrors::new();
        let mut rest = Some(text);
        while let Some(names) = rest {
            let (name, others) = match places(names, JOIN).next() {
                Some(at) => (names.get(..at), names.get(at + JOIN.len()..)),
                None => (Some(names), None),
            };
            let error = CallError::from_str(name.unwrap_or_default())?;
            errors.push(error).map_err(|_| UnknownStopReason)?;
            rest = others;
        }
        Ok(Self::CallsFailed(errors))
    }
}

impl FromStr for CallError {
    type Err = UnknownStopReason;

    fn from_str(text: &str) -> Result<Self, UnknownStopReason> {
        let found = Self::ALL.into_iter().find(|error| error.as_str() == text);
        found.ok_or(UnknownStopReason)
    }
}

/// Both are written as their published names.
#[cfg(feature = "serde")]
mod as_text {
    use super::{CallError, FromStr, StopReason, fmt};
    use core::marker::PhantomData;
    use serde::de::{Deserialize, Deserializer, Error, Visitor};
    use serde::ser::{Serialize, Serializer};

    struct Name<T>(PhantomData<T>);

    impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Name<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the name of a stop reason or call failure")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    macro_rules! as_text {
        ($($type:ty)*) => {$(
            impl Serialize for $type {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }
            impl<'de> Deserialize<'de> for $type {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    deserializer.deserialize_str(Name(PhantomData))
                }
            }
        )*};
    }
    as_text!(CallError StopReason);
}

//! The record of a run: [`Trajectory`]. Frames are kept by time and size, never as pixels.

use alloc::string::String;
use alloc::vec::Vec;

use crate::conversation::{Conversation, OwnedMessage, OwnedPart};
use crate::outcome::{CallError, StopReason, Tally};
use crate::{Role, Selection, Usage, VideoInfo};

/// Everything a run said, asked for and came to. With feature `serde` it is one JSON object.
///
/// ```
/// use eva_core::mock::{ScriptedPolicy, SolidSource};
/// use eva_core::trajectory::PartRecord;
/// use eva_core::{Session, VideoInfo};
///
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let policy = ScriptedPolicy::new([
///     r#"<tool_call>{"tool": "frame_select", "arguments":
///        {"start_time": 30, "end_time": 60, "nframes": 1, "resize": 0.1}}</tool_call>"#,
///     "<answer>B</answer>",
/// ]);
/// let record = Session::new(SolidSource::new(video), policy).ask("Who wins?")?.trajectory;
/// assert_eq!(record.frame_times().collect::<Vec<_>>(), [45.0]);
/// assert_eq!(record.selections().count(), 1);
/// assert_eq!(record.turns[0].calls[0].frames, 1);
/// assert_eq!(record.outcome.answer.as_deref(), Some("B"));
/// assert!(matches!(record.messages[3].parts[1], PartRecord::Image(image) if image.width == 140));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Trajectory {
    /// What was known of the video before the first frame.
    pub video: VideoInfo,
    /// The question, without what the protocol puts before it.
    pub question: String,
    /// The whole conversation, frames by time and size.
    pub messages: Vec<MessageRecord>,
    /// The turns of the model, in order.
    pub turns: Vec<Turn>,
    /// How the run ended.
    pub outcome: OutcomeRecord,
}

/// A message of the conversation.
///
/// ```
/// use eva_core::trajectory::{MessageRecord, PartRecord};
/// use eva_core::{OwnedMessage, Role};
///
/// let record = MessageRecord::from(&OwnedMessage::<()>::text(Role::User, "Who wins?"));
/// assert_eq!(record.parts, [PartRecord::Text("Who wins?".to_string())]);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MessageRecord {
    /// Who speaks.
    pub role: Role,
    /// Texts and frames in order.
    pub parts: Vec<PartRecord>,
}

/// A piece of a message. In JSON: `{"text": "..."}` or
/// `{"image": {"time": 1.5, "width": 28, "height": 28}}`.
///
/// ```
/// use eva_core::trajectory::{ImageRecord, PartRecord};
/// use eva_core::{Frame, OwnedPart, Picture};
///
/// let frame = Frame { time: 1.5, pixels: () };
/// let part = OwnedPart::Image(Picture { frame, width: 56, height: 28 });
/// let image = ImageRecord { time: 1.5, width: 56, height: 28 };
/// assert_eq!(PartRecord::from(&part), PartRecord::Image(image));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum PartRecord {
    /// Text.
    Text(String),
    /// A frame.
    Image(ImageRecord),
}

/// A frame without its pixels.
///
/// ```
/// use eva_core::trajectory::ImageRecord;
///
/// let tokens = |image: &ImageRecord| (image.width / 28) * (image.height / 28);
/// assert_eq!(tokens(&ImageRecord { time: 1.5, width: 56, height: 28 }), 2);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ImageRecord {
    /// True presentation time in seconds from the first displayed frame.
    pub time: f64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// One reply of the model and the calls in it.
///
/// ```
/// use eva_core::Usage;
/// use eva_core::trajectory::Turn;
///
/// let usage = Usage { prompt: 900, cached: 0, completion: 40 };
/// let answered = Turn { usage, calls: Vec::new() };
/// # assert!(answered.calls.is_empty());
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Turn {
    /// Tokens of the reply.
    pub usage: Usage,
    /// Its calls in order.
    pub calls: Vec<CallRecord>,
}

/// A call of a tool.
///
/// ```
/// use eva_core::CallError;
/// use eva_core::trajectory::CallRecord;
///
/// let refused = CallRecord {
///     tool: "frame_select".to_string(),
///     arguments: r#"{"start_time": 0}"#.to_string(),
///     selection: None,
///     frames: 0,
///     error: Some(CallError::NoStartOrEndTime),
///     message: None,
/// };
/// # assert!(refused.selection.is_none());
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CallRecord {
    /// Name of the tool.
    pub tool: String,
    /// Its arguments as the model wrote them.
    pub arguments: String,
    /// What was asked of the source, after the budget; `None` for another tool or a call that
    /// can't be carried out.
    pub selection: Option<Selection>,
    /// Frames delivered.
    pub frames: u32,
    /// How it failed, if it did. A call that ended the run with `exception` has only a message.
    pub error: Option<CallError>,
    /// More about the failure: what the source or tool said, or what is wrong with the arguments.
    pub message: Option<String>,
}

/// How a run ended. Field names are those of the published evaluation.
///
/// ```
/// use eva_core::trajectory::OutcomeRecord;
/// use eva_core::{StopReason, Tally};
///
/// let answered = OutcomeRecord {
///     answer: Some("B".to_string()),
///     stop_reason: StopReason::AnswerFound,
///     tally: Tally { num_rounds: 2, frames: 8, ..Tally::default() },
/// };
/// # assert!(answered.stop_reason.is_settled());
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OutcomeRecord {
    /// The answer; `None` unless the stop reason is `answer_found`.
    pub answer: Option<String>,
    /// Why the run ended.
    pub stop_reason: StopReason,
    /// Rounds, tokens, frames.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub tally: Tally,
}

impl Trajectory {
    /// Times of all frames that were delivered, in order.
    pub fn frame_times(&self) -> impl Iterator<Item = f64> {
        let parts = self.messages.iter().flat_map(|message| &message.parts);
        parts.filter_map(|part| match part {
            PartRecord::Image(image) => Some(image.time),
            PartRecord::Text(_) => None,
        })
    }

    /// All selections that were planned, in order.
    pub fn selections(&self) -> impl Iterator<Item = &Selection> {
        let calls = self.turns.iter().flat_map(|turn| &turn.calls);
        calls.filter_map(|call| call.selection.as_ref())
    }
}

impl<P> From<&Conversation<P>> for Vec<MessageRecord> {
    fn from(conversation: &Conversation<P>) -> Self {
        let messages = conversation.messages().iter();
        messages.map(MessageRecord::from).collect()
    }
}

impl<P> From<&OwnedMessage<P>> for MessageRecord {
    fn from(message: &OwnedMessage<P>) -> Self {
        Self {
            role: message.role,
            parts: message.parts.iter().map(PartRecord::from).collect(),
        }
    }
}

impl<P> From<&OwnedPart<P>> for PartRecord {
    fn from(part: &OwnedPart<P>) -> Self {
        match part {
            OwnedPart::Text(text) => Self::Text(text.clone()),
            OwnedPart::Image(picture) => Self::Image(ImageRecord {
                time: picture.frame.time,
                width: picture.width,
                height: picture.height,
            }),
        }
    }
}

//! The record of a run: [`Trajectory`]. Frames are kept by time and size, never as pixels.

use alloc::string::String;
use alloc::vec::Vec;

use crate::conversation::{Conversation, OwnedMessage, OwnedPart};
use crate::outcome::{CallError, StopReason, Tally};
use crate::{Role, Selection, Usage, VideoInfo};

/// Everything a run said, asked for and came to. With feature `serde` it is one JSON object.
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
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Turn {
    /// Tokens of the reply.
    pub usage: Usage,
    /// Its calls in order.
    pub calls: Vec<CallRecord>,
}

/// A call of a tool.
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

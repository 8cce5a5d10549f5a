//! A conversation that owns its texts and pictures: [`Conversation`].

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::prompt::{self, ToolResponse, trim_question};
pub use crate::source::Picture;
use crate::{Frame, FrameLabels, Message, Part, Role, Selection, ToolSpec, VideoInfo};

/// The messages of a run with their pictures, as a [`Policy`](crate::Policy) reads them.
///
/// ```
/// use eva_core::{Conversation, OwnedMessage, Role, VideoInfo};
///
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let mut conversation = Conversation::<()>::open(&video, &[(Role::User, "Who wins?")])?;
/// conversation.push(OwnedMessage::text(Role::Assistant, "Red. <answer>red</answer>"));
/// assert_eq!(conversation.messages().len(), 3);
/// # Ok::<(), eva_core::NoQuestion>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Conversation<P> {
    messages: Vec<OwnedMessage<P>>,
}

/// One message with its texts and pictures.
///
/// ```
/// use eva_core::{OwnedMessage, Role};
///
/// let message = OwnedMessage::<()>::text(Role::User, "Who wins?");
/// assert_eq!(message.parts.len(), 1);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OwnedMessage<P> {
    /// Who speaks.
    pub role: Role,
    /// Text and pictures in order.
    pub parts: Vec<OwnedPart<P>>,
}

/// A piece of an [`OwnedMessage`].
///
/// ```
/// use eva_core::{Frame, OwnedPart, Picture};
///
/// let frame = Frame { time: 1.5, pixels: () };
/// let part = OwnedPart::Image(Picture { frame, width: 28, height: 28 });
/// assert_ne!(part, OwnedPart::Text("Frame 0 at [00:01]: ".to_string()));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum OwnedPart<P> {
    /// Text, to be read literally.
    Text(String),
    /// A frame of the video.
    Image(Picture<P>),
}

/// The prompt has no user message, hence no question.
///
/// ```
/// use eva_core::{Conversation, NoQuestion, Role, VideoInfo};
///
/// # let video = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
/// let opened = Conversation::<()>::open(&video, &[(Role::System, "Be brief.")]);
/// assert_eq!(opened.unwrap_err(), NoQuestion);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the prompt has no user message: add one that asks the question")]
pub struct NoQuestion;

impl<P> OwnedMessage<P> {
    /// A message that is text alone.
    #[must_use]
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            parts: Vec::from([OwnedPart::Text(text.into())]),
        }
    }
}

impl<P> Default for Conversation<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> Conversation<P> {
    /// A conversation without messages.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            messages: Vec::new(),
        }
    }

    /// The conversation with which a run about the video `info` begins: `prompt`, led by
    /// [`prompt::SYSTEM`] unless it begins with a system message of its own, its first user message
    /// led by what is known of the video.
    ///
    /// # Errors
    /// [`NoQuestion`] when no message of `prompt` is the user's.
    pub fn open(info: &VideoInfo, prompt: &[(Role, &str)]) -> Result<Self, NoQuestion> {
        Self::open_with_tools(info, prompt, &[])
    }

    /// The same with a system message that names the host's tools, if there are any.
    ///
    /// # Errors
    /// [`NoQuestion`] when no message of `prompt` is the user's.
    pub fn open_with_tools(
        info: &VideoInfo,
        prompt: &[(Role, &str)],
        tools: &[ToolSpec<'_>],
    ) -> Result<Self, NoQuestion> {
        let mut conversation = Self::new();
        let (system, prompt) = match prompt {
            [(Role::System, system), prompt @ ..] => (*system, prompt),
            prompt => (prompt::SYSTEM, prompt),
        };
        let mut message = String::new();
        // Writing to a `String` can't fail.
        _ = prompt::write_system(&mut message, system, tools);
        conversation.push(OwnedMessage::text(Role::System, message));
        let mut asked = false;
        for &(role, text) in prompt {
            let mut message = String::new();
            if role == Role::User && !asked {
                asked = true;
                _ = prompt::write_question(&mut message, info, text);
            } else {
                message.push_str(text);
            }
            conversation.push(OwnedMessage::text(role, message));
        }
        if asked {
            Ok(conversation)
        } else {
            Err(NoQuestion)
        }
    }

    /// Adds a message at the end.
    pub fn push(&mut self, message: OwnedMessage<P>) {
        self.messages.push(message);
    }

    /// The messages in order.
    #[must_use]
    pub fn messages(&self) -> &[OwnedMessage<P>] {
        &self.messages
    }

    /// The messages themselves, without a copy.
    #[must_use]
    pub fn into_messages(self) -> Vec<OwnedMessage<P>> {
        self.messages
    }

    /// All frames in the order in which the model sees them.
    pub fn pictures(&self) -> impl Iterator<Item = &Picture<P>> {
        let parts = self.messages.iter().flat_map(|message| &message.parts);
        parts.filter_map(|part| match part {
            OwnedPart::Image(picture) => Some(picture),
            OwnedPart::Text(_) => None,
        })
    }

    /// Lends the messages in the form that a policy reads.
    ///
    /// ```
    /// use eva_core::{Conversation, Role, VideoInfo};
    /// let info = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
    /// let conversation = Conversation::<()>::open(&info, &[(Role::User, "Who wins?")])?;
    /// let roles: Vec<Role> =
    ///     conversation.with_messages(|messages| messages.iter().map(|m| m.role).collect());
    /// assert_eq!(roles, [Role::System, Role::User]);
    /// # Ok::<(), eva_core::NoQuestion>(())
    /// ```
    pub fn with_messages<R>(&self, read: impl FnOnce(&[Message<'_, P>]) -> R) -> R {
        let parts = self.parts();
        read(&self.messages_of(&parts))
    }

    /// Lends the messages of several conversations at once, in the form that
    /// [`Policy::generate_batch`](crate::Policy::generate_batch) reads.
    ///
    /// ```
    /// use eva_core::{Conversation, Role, VideoInfo};
    /// let info = VideoInfo { duration: 90.0, width: 1280, height: 720, fps: 25.0 };
    /// let first = Conversation::<()>::open(&info, &[(Role::User, "Who wins?")])?;
    /// let both = [&first, &Conversation::new()];
    /// let lengths: Vec<usize> = Conversation::with_all_messages(&both, |conversations| {
    ///     conversations.iter().map(|messages| messages.len()).collect()
    /// });
    /// assert_eq!(lengths, [2, 0]);
    /// # Ok::<(), eva_core::NoQuestion>(())
    /// ```
    pub fn with_all_messages<R>(
        conversations: &[&Self],
        read: impl FnOnce(&[Vec<Message<'_, P>>]) -> R,
    ) -> R {
        let parts: Vec<Vec<Vec<Part<'_, P>>>> =
            conversations.iter().map(|one| one.parts()).collect();
        let messages: Vec<Vec<Message<'_, P>>> = (conversations.iter().zip(&parts))
            .map(|(one, parts)| one.messages_of(parts))
            .collect();
        read(&messages)
    }

    /// The parts of each message.
    fn parts(&self) -> Vec<Vec<Part<'_, P>>> {
        let messages = self.messages.iter();
        messages
            .map(|message| message.parts.iter().map(OwnedPart::borrowed).collect())
            .collect()
    }

    /// The messages, of parts that are theirs.
    fn messages_of<'a>(&self, parts: &'a [Vec<Part<'a, P>>]) -> Vec<Message<'a, P>> {
        let messages = self.messages.iter().zip(parts);
        messages
            .map(|(message, parts)| Message {
                role: message.role,
                parts,
            })
            .collect()
    }
}

impl<P> OwnedPart<P> {
    fn borrowed(&self) -> Part<'_, P> {
        match self {
            Self::Text(text) => Part::Text(text),
            Self::Image(picture) => Part::Image(&picture.frame.pixels),
        }
    }
}

/// The question of a prompt: its first user message, trimmed.
///
/// ```
/// use eva_core::{Role, conversation::question};
///
/// let prompt = [(Role::System, "Be brief."), (Role::User, " Who wins?\n")];
/// assert_eq!(question(&prompt), Some("Who wins?"));
/// ```
#[must_use]
pub fn question<'a>(prompt: &[(Role, &'a str)]) -> Option<&'a str> {
    let (_, text) = prompt.iter().find(|(role, _)| *role == Role::User)?;
    Some(trim_question(text))
}

/// The message that answers the calls of a turn, while its frames come in.
///
/// ```
/// use eva_core::conversation::ToolMessage;
/// use eva_core::{Frame, OwnedPart, Selection};
///
/// let selection = Selection::uniform(60.0, 90.0, 1, 28, 28);
/// let mut message = ToolMessage::new();
/// message.frames(&selection, [Frame { time: selection.time(0), pixels: () }]);
/// let message = message.close("Who wins?");
/// assert_eq!(message.parts[0], OwnedPart::Text("<tool_response>Frame 0 at [01:00]: ".to_string()));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ToolMessage<P> {
    wording: ToolResponse,
    parts: Vec<OwnedPart<P>>,
    text: String,
}

impl<P> Default for ToolMessage<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> ToolMessage<P> {
    /// A message with nothing in it yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            wording: ToolResponse::new(),
            parts: Vec::new(),
            text: String::new(),
        }
    }

    /// Adds the frames that a source delivered for `selection`, in order, labelled as the published
    /// weights expect it.
    pub fn frames(&mut self, selection: &Selection, frames: impl IntoIterator<Item = Frame<P>>) {
        self.frames_labelled(FrameLabels::RequestedWindow, selection, frames);
    }

    /// The same with the times that `labels` chooses.
    pub fn frames_labelled(
        &mut self,
        labels: FrameLabels,
        selection: &Selection,
        frames: impl IntoIterator<Item = Frame<P>>,
    ) {
        for (index, frame) in (0..).zip(frames) {
            // Writing to a `String` can't fail.
            _ = (self.wording).frame_labelled(&mut self.text, labels, selection, index, frame.time);
            let label = core::mem::take(&mut self.text);
            self.parts.push(OwnedPart::Text(label));
            self.parts.push(OwnedPart::Image(Picture {
                frame,
                width: selection.width,
                height: selection.height,
            }));
        }
    }

    /// Adds what another tool returned.
    pub fn text(&mut self, returned: &str) {
        _ = self.wording.text(&mut self.text, returned);
    }

    /// Adds the pictures that another tool returned.
    pub fn images(&mut self, images: impl IntoIterator<Item = Picture<P>>) {
        for picture in images {
            _ = self.wording.image(&mut self.text, picture.frame.time);
            let label = core::mem::take(&mut self.text);
            self.parts.push(OwnedPart::Text(label));
            self.parts.push(OwnedPart::Image(picture));
        }
    }

    /// Adds that a call of `tool` failed, and why.
    pub fn failure(&mut self, tool: &str, why: &str) {
        _ = self.wording.failure(&mut self.text, tool, why);
    }

    /// The message, complete with the reminder of the question.
    #[must_use]
    pub fn close(mut self, question: &str) -> OwnedMessage<P> {
        let wording: ToolResponse = self.wording;
        let written: fmt::Result = wording.close(&mut self.text, question);
        debug_assert!(written.is_ok(), "writing to a String can't fail");
        self.parts.push(OwnedPart::Text(self.text));
        OwnedMessage {
            role: Role::Tool,
            parts: self.parts,
        }
    }
}

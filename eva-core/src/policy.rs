//! The model behind the agent: [`Policy`], and the conversation it reads.

use core::fmt;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Role {
    /// The instructions that open a conversation.
    System,
    /// The question.
    User,
    /// The model.
    Assistant,
    /// What a tool returned.
    Tool,
}

/// A piece of a message: text or a picture, in the order the model sees them.
#[derive(Debug)]
pub enum Part<'a, P> {
    /// Text, to be read literally: special-token strings inside it are not special.
    Text(&'a str),
    /// A picture.
    Image(&'a P),
}

// Derived impls would ask for `P: Clone`, though only a reference is copied.
impl<P> Clone for Part<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P> Copy for Part<'_, P> {}

/// One message of a conversation, borrowed from the host that keeps it.
#[derive(Debug)]
pub struct Message<'a, P> {
    /// Who speaks.
    pub role: Role,
    /// Text and pictures in order.
    pub parts: &'a [Part<'a, P>],
}

impl<P> Clone for Message<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P> Copy for Message<'_, P> {}

/// Tokens of one call of a [`Policy`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Usage {
    /// Tokens of the conversation, pictures included.
    pub prompt: u32,
    /// Those of `prompt` that were already computed in an earlier call.
    pub cached: u32,
    /// Tokens generated.
    pub completion: u32,
}

/// A multimodal model that continues a conversation.
pub trait Policy<P> {
    /// What can go wrong while generating.
    type Error: core::error::Error;

    /// Writes the assistant's next message into `reply`, as it is generated.
    ///
    /// The whole conversation is given each time; a policy that keeps a KV cache finds the common
    /// prefix itself.
    ///
    /// # Errors
    /// The policy's own error; what was written to `reply` before it is the partial message.
    fn generate(
        &mut self,
        conversation: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, Self::Error>;
}

impl<P, T: Policy<P> + ?Sized> Policy<P> for &mut T {
    type Error = T::Error;

    fn generate(
        &mut self,
        conversation: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, Self::Error> {
        (**self).generate(conversation, reply)
    }
}

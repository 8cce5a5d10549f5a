//! The model behind the agent: [`Policy`], and the conversation it reads.

use core::fmt;

/// Who speaks.
///
/// ```
/// use eva_core::Role;
///
/// let tag = |role| match role {
///     Role::System => "system",
///     Role::User => "user",
///     Role::Assistant => "assistant",
///     Role::Tool => "tool",
/// };
/// assert_eq!(tag(Role::Tool), "tool");
/// ```
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
///
/// ```
/// use eva_core::Part;
///
/// let parts = [Part::Text("Frame 0 at [00:00]: "), Part::Image(&"a picture")];
/// let images = parts.iter().filter(|part| matches!(part, Part::Image(_))).count();
/// assert_eq!(images, 1);
/// ```
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
///
/// ```
/// use eva_core::{Message, Part, Role};
///
/// let parts = [Part::<()>::Text("Who wins?")];
/// let message = Message { role: Role::User, parts: &parts };
/// assert_eq!(message.parts.len(), 1);
/// ```
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
///
/// ```
/// use eva_core::Usage;
///
/// let usage = Usage { prompt: 900, cached: 600, completion: 40 };
/// assert_eq!(usage.prompt - usage.cached, 300); // computed in this call
/// ```
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

/// One of several conversations that a [`Policy`] continues together.
pub struct Continuation<'a, P> {
    /// The whole conversation so far.
    pub conversation: &'a [Message<'a, P>],
    /// Where the assistant's next message goes, as it is generated. A refusal ends this turn and no
    /// other.
    pub reply: &'a mut dyn fmt::Write,
}

impl<P> fmt::Debug for Continuation<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Continuation")
            .field("messages", &self.conversation.len())
            .finish_non_exhaustive()
    }
}

/// A multimodal model that continues a conversation.
///
/// ```
/// use core::convert::Infallible;
/// use core::fmt;
/// use eva_core::{Message, Policy, Usage};
///
/// /// Does not look, and always says the same.
/// struct Guess(&'static str);
///
/// impl<P> Policy<P> for Guess {
///     type Error = Infallible;
///
///     fn generate(
///         &mut self,
///         _: &[Message<'_, P>],
///         reply: &mut dyn fmt::Write,
///     ) -> Result<Usage, Infallible> {
///         // A refusal means that the run was called off: there is no more to say then.
///         _ = write!(reply, "<answer>{}</answer>", self.0);
///         Ok(Usage::default())
///     }
/// }
///
/// let mut reply = String::new();
/// Policy::<()>::generate(&mut Guess("C"), &[], &mut reply)?;
/// assert_eq!(reply, "<answer>C</answer>");
/// # Ok::<(), Infallible>(())
/// ```
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

    /// Continues several conversations. A policy that can do so at less cost than one after the other
    /// overrides this; the replies are the same.
    ///
    /// `done` is given the place of each turn in `turns` as it ends, once and in any order, with its
    /// usage or its error, which concerns that turn alone.
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use eva_core::mock::ScriptedPolicy;
    /// use eva_core::{Policy, Continuation};
    ///
    /// let mut policy = ScriptedPolicy::new(["<answer>A</answer>", "<answer>B</answer>"]);
    /// let (mut first, mut second) = (String::new(), String::new());
    /// let mut turns = [
    ///     Continuation { conversation: &[], reply: &mut first },
    ///     Continuation { conversation: &[], reply: &mut second },
    /// ];
    /// let mut failed = 0;
    /// Policy::<()>::generate_batch(&mut policy, &mut turns, &mut |_, ended| {
    ///     failed += usize::from(ended.is_err());
    /// });
    /// assert_eq!((first.as_str(), failed), ("<answer>A</answer>", 0));
    /// # }
    /// ```
    fn generate_batch(
        &mut self,
        turns: &mut [Continuation<'_, P>],
        done: &mut dyn FnMut(usize, Result<Usage, Self::Error>),
    ) {
        for (place, turn) in turns.iter_mut().enumerate() {
            done(place, self.generate(turn.conversation, turn.reply));
        }
    }
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

    fn generate_batch(
        &mut self,
        turns: &mut [Continuation<'_, P>],
        done: &mut dyn FnMut(usize, Result<Usage, Self::Error>),
    ) {
        (**self).generate_batch(turns, done);
    }
}

//! [`Example`]: one conversation, ready to learn from.

use eva_core::{Message, Part, Pixels, Role};

use crate::chat::{Chat, ChatError};
use crate::config::{ImageConfig, ModelConfig};
use crate::input::{ImageError, Patches};

/// A conversation as tokens, with the tokens that are to be learnt.
#[derive(Debug, Clone)]
pub struct Example {
    /// All tokens.
    pub tokens: Vec<u32>,
    /// The ranges of the assistant's tokens, one a turn; each ends with the end-of-turn token.
    pub turns: Vec<std::ops::Range<usize>>,
    /// The pictures, in order.
    pub patches: Patches,
}

/// Why a conversation cannot be learnt from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExampleError {
    /// It could not be encoded.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A picture could not be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The chat template changes earlier messages when later ones follow, so that a turn's tokens
    /// cannot be found.
    #[error("the chat template renders message {message} differently once more messages follow")]
    Template {
        /// Number of the message, from 0.
        message: usize,
    },
}

impl Example {
    /// Encodes a finished conversation.
    ///
    /// # Errors
    /// [`ExampleError`] when it cannot be encoded.
    pub fn new<P: Pixels>(
        conversation: &[Message<'_, P>],
        chat: &Chat,
        config: &ModelConfig,
        images: &ImageConfig,
    ) -> Result<Self, ExampleError> {
        let merge = config.vision.spatial_merge_size;
        let mut patches = Patches::default();
        for part in conversation.iter().flat_map(|message| message.parts) {
            if let Part::Image(image) = part {
                patches.push(*image, images, &config.vision)?;
            }
        }
        let counts: Vec<usize> = patches
            .grids
            .iter()
            .map(|grid| grid.tokens(merge))
            .collect();
        let shown = |messages: &[Message<'_, P>]| {
            let parts = messages.iter().flat_map(|message| message.parts);
            parts.filter(|part| matches!(part, Part::Image(_))).count()
        };
        let mut tokens = chat.encode_with(conversation, &counts, false)?;
        let mut turns = Vec::new();
        for (index, message) in conversation.iter().enumerate() {
            if message.role != Role::Assistant {
                continue;
            }
            let before = &conversation[..index];
            let start = chat
                .encode_with(before, &counts[..shown(before)], true)?
                .len();
            let through = &conversation[..=index];
            let end = chat
                .encode_with(through, &counts[..shown(through)], false)?
                .len();
            // The template may close a turn with text behind the end-of-turn token (a line break):
            // a model never gets to write it.
            let closing = chat.closing_tokens();
            let end = tokens
                .get(start..end)
                .and_then(|turn| turn.iter().rposition(|token| closing.contains(token)))
                .map(|at| start + at + 1)
                .ok_or(ExampleError::Template { message: index })?;
            turns.push(start..end);
        }
        if let Some(last) = turns.last() {
            tokens.truncate(last.end);
        }
        Ok(Self {
            tokens,
            turns,
            patches,
        })
    }

    /// The same with the turns' tokens as they were sampled, where their text alone would be encoded in
    /// another way: what is learnt from a rollout are the very tokens that were drawn. A turn without
    /// sampled tokens stays as it is.
    ///
    /// - sampled: for each turn, what [`Sampled::tokens`](crate::Sampled) says
    #[must_use]
    pub fn with_turns(mut self, sampled: &[Option<&[u32]>]) -> Self {
        // From the last turn on, so that the places of those before it stay.
        for place in (0..self.turns.len()).rev() {
            let Some(Some(tokens)) = sampled.get(place) else {
                continue;
            };
            let turn = self.turns[place].clone();
            // A reply that was cut off has no closing token: what is there stays, and is no target.
            let closing = self
                .tokens
                .get(turn.clone())
                .and_then(<[u32]>::last)
                .copied();
            let closed = tokens.last().copied() == closing;
            let kept = closing.filter(|_| !closed);
            let new = tokens.iter().copied().chain(kept);
            self.tokens.splice(turn.clone(), new);
            let grown = tokens.len() + usize::from(kept.is_some());
            self.turns[place] = turn.start..turn.start + tokens.len();
            for later in &mut self.turns[place + 1..] {
                let start = later.start - turn.len() + grown;
                *later = start..start + later.len();
            }
        }
        if let Some(last) = self.turns.last() {
            self.tokens.truncate(last.end);
        }
        self
    }
}

//! [`Reply`]: tokens chosen, and their text written, one after the other.

use std::fmt;

use crate::chat::{Chat, ChatError};
use crate::generate::GenerateError;
use crate::sample::Sampler;

/// A reply as it is generated.
pub(crate) struct Reply<'a> {
    sink: &'a mut dyn fmt::Write,
    sampler: &'a mut Sampler,
    tokens: Vec<u32>,
    /// Tokens before this one have no part in the text that is still to be written.
    from: usize,
    /// The text of the tokens before this one is written.
    written: usize,
}

/// When a reply ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End<'a> {
    /// Tokens that end it.
    pub(crate) eos: &'a [u32],
    /// Tokens that it may have.
    pub(crate) most: usize,
    /// Tokens that the model can read.
    pub(crate) context: usize,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(sink: &'a mut dyn fmt::Write, sampler: &'a mut Sampler) -> Self {
        Self {
            sink,
            sampler,
            tokens: Vec::new(),
            from: 0,
            written: 0,
        }
    }

    /// Number of tokens so far.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Chooses the next token by its scores, where `seen` are all before it, and writes what is whole
    /// of the text. `None` when the reply has ended.
    pub(crate) fn next(
        &mut self,
        scores: &mut [f32],
        seen: &[u32],
        chat: &Chat,
        end: End<'_>,
    ) -> Result<Option<u32>, GenerateError> {
        let token = self.sampler.next(scores, seen);
        self.tokens.push(token);
        if end.eos.contains(&token) {
            return Ok(None);
        }
        self.write(chat)?;
        let ended = self.tokens.len() >= end.most || seen.len() + 1 >= end.context;
        Ok((!ended).then_some(token))
    }

    /// Writes up to the last whole character, for one may be spread over several tokens. The tokens
    /// before are decoded along with the new ones, for some decoders look at what precedes.
    fn write(&mut self, chat: &Chat) -> Result<(), GenerateError> {
        let decode = |from: usize, to: usize| -> Result<String, ChatError> {
            chat.decode(self.tokens.get(from..to).unwrap_or_default())
        };
        let text = decode(self.from, self.tokens.len())?;
        let before = decode(self.from, self.written)?.len();
        if !text.ends_with('\u{FFFD}') && text.len() > before {
            self.from = self.written;
            self.written = self.tokens.len();
            self.sink
                .write_str(text.get(before..).unwrap_or_default())?;
        }
        Ok(())
    }
}

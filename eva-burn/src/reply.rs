//! [`Reply`]: tokens chosen, and their text written, one after the other; [`Sampled`]: what is known of
//! them afterwards.

use std::fmt;

use eva_core::Usage;

use crate::chat::{Chat, ChatError};
use crate::generate::GenerateError;
use crate::sample::Sampler;

/// A finished reply in tokens, for learning from it: its text alone may be encoded in another way than
/// it was generated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampled {
    /// What it cost.
    pub usage: Usage,
    /// The tokens in order, the one that ended the turn included. A reply that was cut off at its most
    /// tokens has none such.
    pub tokens: Vec<u32>,
    /// The logarithm of each token's probability under the model itself: at temperature 1, without
    /// repetition penalty, among all tokens.
    pub log_probs: Vec<f32>,
}

/// A reply as it is generated.
pub(crate) struct Reply<'a> {
    sink: &'a mut dyn fmt::Write,
    sampler: &'a mut Sampler,
    tokens: Vec<u32>,
    /// Of each token; `None` where nobody asks.
    log_probs: Option<Vec<f32>>,
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
    /// - keeps_log_probs: whether the log-probabilities of its tokens are wanted
    pub(crate) fn new(
        sink: &'a mut dyn fmt::Write,
        sampler: &'a mut Sampler,
        keeps_log_probs: bool,
    ) -> Self {
        Self {
            sink,
            sampler,
            tokens: Vec::new(),
            log_probs: keeps_log_probs.then(Vec::new),
            from: 0,
            written: 0,
        }
    }

    /// What came of it.
    pub(crate) fn sampled(self, usage: Usage) -> Sampled {
        Sampled {
            usage,
            tokens: self.tokens,
            log_probs: self.log_probs.unwrap_or_default(),
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
        let own = self.log_probs.is_some().then(|| {
            // The penalty changes the scores in their place.
            let copy = (self.sampler.penalty() != 1.0).then(|| scores.to_vec());
            (log_sum_exp(scores), copy)
        });
        let token = self.sampler.next(scores, seen);
        if let (Some(log_probs), Some((total, copy))) = (&mut self.log_probs, own) {
            let score = copy.as_deref().unwrap_or(scores).get(token as usize);
            log_probs.push(score.map_or(f32::NEG_INFINITY, |score| score - total));
        }
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

fn log_sum_exp(scores: &[f32]) -> f32 {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores
        .iter()
        .map(|score| f64::from(score - most).exp())
        .sum();
    most + sum.ln() as f32
}

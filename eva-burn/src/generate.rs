//! The policy's two verbs, one conversation and several; how conversations become tokens, and how many
//! of them run at a time.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use eva_core::{Continuation, Message, Part, Pixels, Policy, Usage};

use crate::chat::ChatError;
use crate::context::Mark;
use crate::input::{ImageError, grid};
use crate::policy::BurnPolicy;
use crate::reply::{Reply, Sampled};
use crate::sample::Sampler;
use crate::slots::SlotId;
use crate::turns::{Job, Prompt};

/// Why a reply could not be generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// The conversation could not be encoded.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
    /// The thread of a [shared policy](crate::SharedPolicy) has panicked.
    #[error("the model's thread has panicked, as it said above; load the model again")]
    Gone,
    /// A picture could not be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Keys and values of the conversation and its reply would take more memory than they may. Nothing
    /// was computed.
    #[error(
        "the conversation has {tokens} tokens, and its reply may have {reply}: their keys and values take {bytes} bytes, and {limit} are allowed; raise `with_kv_limit`, lower `with_max_new_tokens`, or show fewer or smaller frames"
    )]
    Memory {
        /// Tokens of the conversation.
        tokens: usize,
        /// Tokens that the reply may have.
        reply: usize,
        /// Bytes that both take.
        bytes: u64,
        /// Bytes that are allowed.
        limit: u64,
    },
    /// The conversation is longer than the model can read.
    #[error(
        "the conversation has {tokens} tokens, the model reads {limit}; ask a shorter question, or fewer or smaller frames"
    )]
    TooLong {
        /// Tokens of the conversation, or of its pictures alone where these are too many already.
        tokens: usize,
        /// The model's limit.
        limit: usize,
    },
    /// The sink refused text.
    #[error("the reply could not be written")]
    Write(#[from] fmt::Error),
}

impl<P: Pixels> Policy<P> for BurnPolicy {
    type Error = GenerateError;

    fn generate(
        &mut self,
        conversation: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, GenerateError> {
        let mut turns = [Continuation {
            conversation,
            reply,
        }];
        let mut samplers = [self.sampler.clone()];
        let mut result = Ok(Usage::default());
        self.generate_with(&mut turns, &mut samplers, &mut |_, ended| result = ended);
        let [sampler] = samplers;
        self.sampler = sampler;
        result
    }

    /// As [`BurnPolicy::generate_with`], each with draws of its own that follow from the policy's seed.
    fn generate_batch(
        &mut self,
        turns: &mut [Continuation<'_, P>],
        done: &mut dyn FnMut(usize, Result<Usage, GenerateError>),
    ) {
        let mut samplers = self.samplers(turns.len());
        self.generate_with(turns, &mut samplers, done);
    }
}

impl BurnPolicy {
    /// Continues several conversations, of any lengths and with any pictures, in one pass of the model
    /// for each token: the replies are those of one after the other, up to the rounding of sums, at a
    /// fraction of the time. What several of them begin with is computed once.
    ///
    /// Each has a sampler of its own: its draws, and its repetition penalty. `done` is given the place
    /// of each conversation as its turn ends, with its usage or with its error, which concerns that
    /// turn alone. All contexts are kept for the next turns, whatever their order there. Under
    /// [`with_kv_limit`](Self::with_kv_limit) as many run at a time as have room.
    ///
    /// - samplers: one for each of `turns`; where there are fewer, the others are not continued
    pub fn generate_with<P: Pixels>(
        &mut self,
        turns: &mut [Continuation<'_, P>],
        samplers: &mut [Sampler],
        done: &mut dyn FnMut(usize, Result<Usage, GenerateError>),
    ) {
        self.continue_all(turns, samplers, false, &mut |place, ended| {
            done(place, ended.map(|sampled| sampled.usage));
        });
    }

    /// As [`generate_with`](Self::generate_with), and tells the tokens of each reply with their
    /// log-probabilities: what learning from rollouts needs.
    pub fn generate_sampled<P: Pixels>(
        &mut self,
        turns: &mut [Continuation<'_, P>],
        samplers: &mut [Sampler],
        done: &mut dyn FnMut(usize, Result<Sampled, GenerateError>),
    ) {
        self.continue_all(turns, samplers, true, done);
    }

    /// Samplers for so many conversations, each with draws of its own that follow from the policy's
    /// seed.
    pub fn samplers(&mut self, count: usize) -> Vec<Sampler> {
        (0..count).map(|_| self.sampler.fork()).collect()
    }

    fn continue_all<P: Pixels>(
        &mut self,
        turns: &mut [Continuation<'_, P>],
        samplers: &mut [Sampler],
        keeps_log_probs: bool,
        done: &mut dyn FnMut(usize, Result<Sampled, GenerateError>),
    ) {
        let mut jobs = Vec::with_capacity(turns.len());
        for (place, (turn, sampler)) in turns.iter_mut().zip(samplers).enumerate() {
            match self.prompt(turn.conversation) {
                Ok(prompt) => jobs.push(Job {
                    place,
                    prompt,
                    reply: Reply::new(&mut *turn.reply, sampler, keeps_log_probs),
                    slot: None,
                }),
                Err(error) => done(place, Err(error)),
            }
        }
        let wanted: Vec<_> = jobs
            .iter()
            .map(|job| (job.prompt.tokens.as_slice(), job.prompt.marks.as_slice()))
            .collect();
        let slots = self.slots.assign(&wanted, &self.config);
        for (job, slot) in jobs.iter_mut().zip(slots) {
            job.slot = slot;
        }
        let count = jobs.len();
        while !jobs.is_empty() {
            let later = jobs.split_off(self.fitting(&jobs));
            let wave = std::mem::replace(&mut jobs, later);
            let waiting: Vec<SlotId> = jobs.iter().filter_map(|job| job.slot).collect();
            self.run(wave, &waiting, done);
        }
        self.slots.trim(count);
    }

    /// The conversation's tokens and pictures.
    fn prompt<'a, P: Pixels>(
        &self,
        conversation: &[Message<'a, P>],
    ) -> Result<Prompt<'a, P>, GenerateError> {
        let (mut marks, mut pictures) = (Vec::new(), Vec::new());
        for part in conversation.iter().flat_map(|message| message.parts) {
            if let Part::Image(image) = part {
                let grid = grid(*image, &self.images, &self.config.vision)?;
                let mut hasher = DefaultHasher::new();
                (image.width(), image.height(), image.rgb()).hash(&mut hasher);
                marks.push(Mark {
                    hash: hasher.finish(),
                    grid: Some(grid),
                });
                pictures.push(*image);
            }
        }
        let counts: Vec<usize> = marks.iter().map(|mark| mark.tokens(&self.config)).collect();
        let limit = self.config.text.max_position_embeddings;
        let too_long = |tokens| GenerateError::TooLong { tokens, limit };
        // Before a token is written down for each: pictures can be very many.
        let visual = counts.iter().copied().fold(0, usize::saturating_add);
        if visual >= limit {
            return Err(too_long(visual));
        }
        let tokens = self.chat.encode(conversation, &counts)?;
        if tokens.is_empty() || tokens.len() >= limit {
            return Err(too_long(tokens.len()));
        }
        let bytes = self.bytes(1, tokens.len());
        if let Some(limit) = self.kv_limit.filter(|limit| bytes > *limit) {
            return Err(GenerateError::Memory {
                tokens: tokens.len(),
                reply: self.room(tokens.len()),
                bytes,
                limit,
            });
        }
        Ok(Prompt {
            tokens,
            marks,
            pictures,
        })
    }

    /// Tokens that a reply after so many tokens may have.
    pub(crate) fn room(&self, tokens: usize) -> usize {
        let limit = self.config.text.max_position_embeddings;
        self.max_new_tokens.min(limit.saturating_sub(tokens))
    }

    /// Bytes of keys and values that so many conversations may come to take, the longest of which has
    /// so many tokens.
    pub(crate) fn bytes(&self, conversations: usize, tokens: usize) -> u64 {
        let columns = tokens + self.room(tokens);
        (conversations * columns) as u64 * self.kv_bytes_per_token
    }

    /// How many of the first conversations have room together; at least one.
    fn fitting<P>(&self, jobs: &[Job<'_, P>]) -> usize {
        let Some(limit) = self.kv_limit else {
            return jobs.len();
        };
        let mut longest = 0;
        let fits = jobs.iter().enumerate().take_while(|(index, job)| {
            longest = job.prompt.tokens.len().max(longest);
            self.bytes(index + 1, longest) <= limit
        });
        fits.count().max(1)
    }
}

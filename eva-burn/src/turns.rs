//! Several replies generated together.
//!
//! Each conversation is read alone, from where its own context or a better one ends; then all of them
//! are read on together, a token each at a time.

use burn::tensor::Tensor;
use eva_core::{Pixels, Usage};

use crate::context::{Context, Joined, Mark, Shared, scores};
use crate::generate::GenerateError;
use crate::input::Patches;
use crate::policy::BurnPolicy;
use crate::reply::{End, Reply, Sampled};
use crate::slots::{SlotId, nearest};
use crate::text::States;

/// A conversation in tokens, with its pictures as they came.
pub(crate) struct Prompt<'a, P> {
    pub(crate) tokens: Vec<u32>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) pictures: Vec<&'a P>,
}

/// A conversation that waits for its reply.
pub(crate) struct Job<'a, P> {
    pub(crate) place: usize,
    pub(crate) prompt: Prompt<'a, P>,
    pub(crate) reply: Reply<'a>,
    pub(crate) slot: Option<SlotId>,
}

/// A reply under way, whose conversation was read.
struct Running<'a> {
    place: usize,
    reply: Reply<'a>,
    usage: Usage,
    /// Chosen, but not read yet.
    token: u32,
}

impl Running<'_> {
    fn sampled(self) -> Sampled {
        let usage = Usage {
            completion: self.reply.len() as u32,
            ..self.usage
        };
        self.reply.sampled(usage)
    }
}

/// Receives the place of a conversation and how its turn ended.
type Done<'a> = &'a mut dyn FnMut(usize, Result<Sampled, GenerateError>);

impl BurnPolicy {
    /// Reads conversations and generates their replies together.
    ///
    /// - waiting: contexts of conversations that come later
    pub(crate) fn run<P: Pixels>(
        &mut self,
        jobs: Vec<Job<'_, P>>,
        waiting: &[SlotId],
        done: Done<'_>,
    ) {
        let longest = jobs.iter().map(|job| job.prompt.tokens.len()).max();
        let longest = longest.unwrap_or(0);
        let together = jobs.len();
        if let Some(limit) = self.kv_limit {
            let own = jobs.iter().filter_map(|job| job.slot);
            let wanted: Vec<SlotId> = own.chain(waiting.iter().copied()).collect();
            let need = self.bytes(together, longest);
            self.slots.shrink(limit.saturating_sub(need), &wanted);
        }
        let (mut running, mut contexts) = (Vec::new(), Vec::new());
        for mut job in jobs {
            let (mut context, shared) = self.context(&job, &contexts, together);
            let result = self.read(&mut context, shared, &job.prompt);
            let result = result.and_then(|mut scores| {
                let (seen, end) = (context.tokens(), self.end());
                job.reply.next(&mut scores, seen, &self.chat, end)
            });
            let usage = Usage {
                prompt: job.prompt.tokens.len() as u32,
                cached: shared.tokens as u32,
                completion: job.reply.len() as u32,
            };
            match result {
                Ok(Some(token)) => {
                    contexts.push(context);
                    running.push(Running {
                        place: job.place,
                        reply: job.reply,
                        usage,
                        token,
                    });
                }
                Ok(None) => {
                    let sampled = job.reply.sampled(usage);
                    self.end_turn(context, job.place, Ok(sampled), done);
                }
                Err(error) => self.end_turn(context, job.place, Err(error), done),
            }
        }
        if !running.is_empty() {
            let most = longest + self.room(longest);
            self.generate_together(running, Joined::new(contexts, most), done);
        }
    }

    /// A context that has read what is known of a conversation, and how much that is.
    fn context<P>(
        &mut self,
        job: &Job<'_, P>,
        wave: &[Context],
        together: usize,
    ) -> (Context, Shared) {
        let wanted = (job.prompt.tokens.as_slice(), job.prompt.marks.as_slice());
        let own = job.slot.and_then(|slot| self.slots.take(slot));
        let shared = |context: &Context| context.shared(wanted.0, wanted.1, &self.config);
        let known = own.as_ref().map(shared).unwrap_or_default();
        // Alone it may grow in its place; together they are joined, and need no room before.
        let tokens = job.prompt.tokens.len();
        let most = match together {
            1 => tokens + self.room(tokens),
            _ => tokens,
        };
        let too_large = |context: &Context| {
            let most = most as u64 * self.kv_bytes_per_token;
            self.kv_limit.is_some() && context.cache.bytes() > most
        };
        let others = self.slots.contexts().chain(wave);
        let better = nearest(others, wanted, &self.config).filter(|(more, _)| *more > known);
        let (mut context, shared) = match (better, own) {
            (Some((more, other)), _) => (other.fork(more), more),
            (None, Some(own)) if too_large(&own) => (own.fork(known), known),
            (None, Some(mut own)) => {
                own.keep(known);
                (own, known)
            }
            (None, None) => (Context::new(&self.config, &self.device), Shared::default()),
        };
        context.limit(most);
        (context, shared)
    }

    /// Reads what is new of a conversation and returns the scores of the token after it.
    fn read<P: Pixels>(
        &mut self,
        context: &mut Context,
        shared: Shared,
        prompt: &Prompt<'_, P>,
    ) -> Result<Vec<f32>, GenerateError> {
        let (config, device) = (&self.config, &self.device);
        let marks = prompt.marks.get(shared.pictures..).unwrap_or_default();
        let pictures = prompt.pictures.get(shared.pictures..).unwrap_or_default();
        let cut = |place: usize| {
            let mut patches = Patches::default();
            if let Some(picture) = pictures.get(place) {
                patches.push(*picture, &self.images, &config.vision)?;
            }
            Ok(patches)
        };
        let features = self.features.see(marks, cut, &self.model, config, device)?;
        let new = prompt.tokens.get(shared.tokens..).unwrap_or_default();
        let hidden = context.read_seen(&self.model, new, marks, features, config, States::Last);
        to_host(scores(&self.model, hidden)).map_err(GenerateError::Device)
    }

    /// Generates the rest of several replies, a token each at a time.
    fn generate_together(
        &mut self,
        mut running: Vec<Running<'_>>,
        mut joined: Joined,
        done: Done<'_>,
    ) {
        while !running.is_empty() {
            let tokens: Vec<u32> = running.iter().map(|row| row.token).collect();
            let Some(scores) = joined.read(&self.model, &tokens, &self.config) else {
                return;
            };
            let mut scores = match to_host(scores) {
                Ok(scores) => scores,
                Err(reason) => {
                    // What was computed is not to be trusted: no context is kept.
                    for row in running {
                        done(row.place, Err(GenerateError::Device(reason.clone())));
                    }
                    return;
                }
            };
            let width = scores.len() / running.len();
            let mut ended = Vec::new();
            let rows = running.iter_mut().zip(joined.contexts());
            for (row, (scores, (running, context))) in
                scores.chunks_mut(width.max(1)).zip(rows).enumerate()
            {
                let end = self.end();
                let next = running
                    .reply
                    .next(scores, context.tokens(), &self.chat, end);
                match next {
                    Ok(Some(token)) => running.token = token,
                    Ok(None) => ended.push((row, Ok(()))),
                    Err(error) => ended.push((row, Err(error))),
                }
            }
            let rows: Vec<usize> = ended.iter().map(|(row, _)| *row).collect();
            let contexts = joined.leave(&rows);
            // From the last row on, so that the places of the others stay.
            for (context, (row, result)) in contexts.into_iter().zip(ended).rev() {
                let left = running.remove(row);
                let place = left.place;
                let result = result.map(|()| left.sampled());
                self.end_turn(context, place, result, done);
            }
        }
    }

    fn end(&self) -> End<'_> {
        End {
            eos: &self.eos,
            most: self.max_new_tokens,
            context: self.config.text.max_position_embeddings,
        }
    }

    /// Keeps a context for the next turn, unless the device failed in this one.
    fn end_turn(
        &mut self,
        context: Context,
        place: usize,
        result: Result<Sampled, GenerateError>,
        done: Done<'_>,
    ) {
        if !matches!(result, Err(GenerateError::Device(_))) {
            self.slots.put(context);
        }
        done(place, result);
    }
}

/// The error is the device's reason.
fn to_host(scores: Tensor<2>) -> Result<Vec<f32>, String> {
    scores
        .try_into_vec_as::<f32>()
        .map_err(|error| error.to_string())
}

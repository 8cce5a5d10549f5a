//! [`Joined`]: several contexts that are read on together, a token each at a time.

use burn::tensor::Tensor;

use crate::cache::KvCache;
use crate::config::ModelConfig;
use crate::context::{Context, scores};
use crate::model::Qwen25Vl;
use crate::rope::Position;
use crate::text::States;

/// Contexts whose keys and values are in one cache as long as they are read on together: one pass of
/// the model for a token of each.
#[derive(Debug)]
pub struct Joined {
    cache: KvCache,
    /// Without their own caches.
    contexts: Vec<Context>,
    /// Tokens of the longest that the cache may have room for.
    most: usize,
}

impl Joined {
    /// - most: tokens that the longest may come to have; as far as they suffice, no more room is made
    #[must_use]
    pub fn new(mut contexts: Vec<Context>, most: usize) -> Self {
        let caches = contexts
            .iter_mut()
            .map(|context| std::mem::take(&mut context.cache));
        Self {
            cache: KvCache::join(caches.collect(), most),
            contexts,
            most,
        }
    }

    /// The contexts: what each has read.
    #[must_use]
    pub fn contexts(&self) -> &[Context] {
        &self.contexts
    }

    /// Reads one text token more of each and returns the scores of the tokens after them.
    ///
    /// # Shapes
    /// - returned: `[contexts, vocab]`; `None` unless there is one token for each context
    pub fn read(
        &mut self,
        model: &Qwen25Vl,
        tokens: &[u32],
        config: &ModelConfig,
    ) -> Option<Tensor<2>> {
        if tokens.is_empty() || tokens.len() != self.contexts.len() {
            return None;
        }
        Some(model.reading(tokens.len(), || self.read_each(model, tokens, config)))
    }

    fn read_each(&mut self, model: &Qwen25Vl, tokens: &[u32], config: &ModelConfig) -> Tensor<2> {
        let rows: Vec<&[u32]> = tokens.chunks(1).collect();
        let places: Vec<[Position; 1]> = self
            .contexts
            .iter()
            .map(|context| [context.place()])
            .collect();
        let places: Vec<&[Position]> = places.iter().map(|place| place.as_slice()).collect();
        let embeddings = model.embed(&rows, None, config);
        self.cache.reserve(1, self.most, model.kv_dtype());
        let cache = Some(&mut self.cache);
        let hidden = model.decode(embeddings, &places, config, cache, States::Last);
        for (context, token) in self.contexts.iter_mut().zip(tokens) {
            context.push(*token);
        }
        scores(model, hidden)
    }

    /// Takes some contexts out, given by their places, and leaves the others; both stay in order.
    pub fn leave(&mut self, rows: &[usize]) -> Vec<Context> {
        if rows.is_empty() {
            return Vec::new();
        }
        let caches = self.cache.leave(rows);
        let contexts = std::mem::take(&mut self.contexts).into_iter().enumerate();
        let (gone, stay): (Vec<_>, Vec<_>) = contexts.partition(|(row, _)| rows.contains(row));
        self.contexts = stay.into_iter().map(|(_, context)| context).collect();
        let gone = gone.into_iter().zip(caches);
        gone.map(|((_, mut context), cache)| {
            context.cache = cache;
            context
        })
        .collect()
    }
}

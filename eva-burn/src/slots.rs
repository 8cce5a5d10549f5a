//! [`Slots`]: the contexts of recent conversations, kept for their next turns.

use std::cmp::Reverse;

use crate::config::ModelConfig;
use crate::context::{Context, Mark, Shared};

/// Contexts that are kept, the least recently used first.
#[derive(Debug)]
pub(crate) struct Slots {
    kept: Vec<(SlotId, Context)>,
    next: u64,
    most: usize,
}

/// Names a kept context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotId(u64);

/// What is compared with a context.
pub(crate) type Wanted<'a> = (&'a [u32], &'a [Mark]);

impl Slots {
    /// - most: contexts that are kept after a conversation alone; a batch keeps all of its own
    pub(crate) fn new(most: usize) -> Self {
        Self {
            kept: Vec::new(),
            next: 0,
            most: most.max(1),
        }
    }

    /// For each conversation of a batch the context that it goes on with: the one of which it has at
    /// least half, for it is most likely its own; where there is none, nothing as long as there is
    /// room for another context, then the one that was used the longest ago.
    pub(crate) fn assign(&self, batch: &[Wanted<'_>], config: &ModelConfig) -> Vec<Option<SlotId>> {
        let mut pairs = Vec::new();
        for (place, (tokens, pictures)) in batch.iter().enumerate() {
            for (age, (_, context)) in self.kept.iter().enumerate() {
                let shared = context.shared(tokens, pictures, config).tokens;
                if shared > 0 && 2 * shared >= context.tokens().len() {
                    pairs.push((shared, age, place));
                }
            }
        }
        // The most first; of two alike the one used last, and the first conversation.
        pairs.sort_by_key(|(shared, age, place)| (Reverse((*shared, *age)), *place));
        let mut assigned = vec![None; batch.len()];
        let mut spare: Vec<Option<SlotId>> = self.kept.iter().map(|(id, _)| Some(*id)).collect();
        for (_, age, place) in pairs {
            if assigned[place].is_none() {
                assigned[place] = spare[age].take();
            }
        }
        let without = assigned.iter().filter(|slot| slot.is_none()).count();
        let room = self.most.max(batch.len()).saturating_sub(self.kept.len());
        let given_up = spare.into_iter().flatten();
        let mut given_up = given_up.take(without.saturating_sub(room));
        for slot in assigned.iter_mut().filter(|slot| slot.is_none()) {
            *slot = given_up.next();
        }
        assigned
    }

    /// Takes a context out, unless it was dropped since.
    pub(crate) fn take(&mut self, slot: SlotId) -> Option<Context> {
        let at = self.kept.iter().position(|(id, _)| *id == slot)?;
        Some(self.kept.remove(at).1)
    }

    /// Keeps a context as the one used last.
    pub(crate) fn put(&mut self, context: Context) {
        self.kept.push((SlotId(self.next), context));
        self.next += 1;
    }

    /// Those that are kept.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = &Context> {
        self.kept.iter().map(|(_, context)| context)
    }

    /// Bytes of keys and values that are kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.contexts().map(|context| context.cache.bytes()).sum()
    }

    /// Drops all.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }

    /// Drops the oldest until what is left takes no more than `bytes`; `wanted` ones last.
    pub(crate) fn shrink(&mut self, bytes: u64, wanted: &[SlotId]) {
        for spare in [true, false] {
            while self.bytes() > bytes {
                let oldest = |(id, _): &(SlotId, Context)| !spare || !wanted.contains(id);
                let Some(at) = self.kept.iter().position(oldest) else {
                    break;
                };
                self.kept.remove(at);
            }
        }
    }

    /// Drops the oldest beyond what a batch of `batch` conversations keeps.
    pub(crate) fn trim(&mut self, batch: usize) {
        let count = self.kept.len();
        self.kept
            .drain(..count.saturating_sub(self.most.max(batch)));
    }
}

/// The context that has the most of a conversation.
pub(crate) fn nearest<'a>(
    contexts: impl Iterator<Item = &'a Context>,
    (tokens, pictures): Wanted<'_>,
    config: &ModelConfig,
) -> Option<(Shared, &'a Context)> {
    contexts
        .map(|context| (context.shared(tokens, pictures, config), context))
        .max_by_key(|(shared, _)| *shared)
}

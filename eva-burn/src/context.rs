//! [`Context`]: what a model has read so far, and its KV cache.

use burn::tensor::{Device, Tensor};

use crate::cache::KvCache;
use crate::config::ModelConfig;
use crate::input::{Grid, Patches};
use crate::model::Qwen25Vl;
use crate::rope::{Position, positions};
use crate::text::States;

pub use crate::joined::Joined;

/// The tokens and pictures one model has read, with their keys and values.
///
/// Reading goes on where it stopped; [`keep_prefix`](Self::keep_prefix) goes back to the longest
/// prefix shared with another conversation, so that nothing is computed twice.
#[derive(Debug)]
pub struct Context {
    pub(crate) cache: KvCache,
    tokens: Vec<u32>,
    positions: Vec<Position>,
    /// Position of the next text token.
    next: u32,
    pictures: Vec<u64>,
    /// Tokens that the cache may have room for.
    most: usize,
}

/// Tokens with their pictures: what a model is given to read.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    /// Token ids; each picture is a run of image tokens, one per merged patch.
    pub tokens: Vec<u32>,
    /// The pictures, in order.
    pub pictures: Vec<Picture>,
}

/// A picture, ready for the vision tower.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Its patches.
    pub patches: Patches,
    /// A hash of its pixels: equal pictures are computed once.
    pub hash: u64,
}

impl Picture {
    fn mark(&self) -> Mark {
        Mark {
            hash: self.hash,
            grid: self.patches.grids.first().copied(),
        }
    }
}

/// What tells a picture from others, without its patches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mark {
    /// A hash of its pixels.
    pub(crate) hash: u64,
    /// Its size in patches.
    pub(crate) grid: Option<Grid>,
}

impl Mark {
    /// Tokens that it takes.
    pub(crate) fn tokens(&self, config: &ModelConfig) -> usize {
        let merge = config.vision.spatial_merge_size;
        self.grid.map_or(0, |grid| grid.tokens(merge))
    }
}

/// How far a prompt is that of a [`Context`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Shared {
    pub(crate) tokens: usize,
    pub(crate) pictures: usize,
}

impl Context {
    /// Nothing read yet.
    #[must_use]
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        Self {
            cache: KvCache::new(&config.text, device),
            tokens: Vec::new(),
            positions: Vec::new(),
            next: 0,
            pictures: Vec::new(),
            most: config.text.max_position_embeddings,
        }
    }

    /// The tokens read so far.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Takes no more memory than that of `tokens` tokens, where they suffice.
    pub(crate) fn limit(&mut self, tokens: usize) {
        self.most = tokens;
    }

    /// Forgets all but the longest prefix that `prompt` shares: equal tokens and equal pictures. At
    /// least one token of `prompt` is left to read. Returns the tokens and pictures kept.
    pub fn keep_prefix(&mut self, prompt: &Prompt, config: &ModelConfig) -> (usize, usize) {
        let marks: Vec<Mark> = prompt.pictures.iter().map(Picture::mark).collect();
        let shared = self.shared(&prompt.tokens, &marks, config);
        self.keep(shared);
        (shared.tokens, shared.pictures)
    }

    /// The longest prefix that both have; at least one of `tokens` is left to read.
    pub(crate) fn shared(&self, tokens: &[u32], pictures: &[Mark], config: &ModelConfig) -> Shared {
        let pairs = tokens.iter().zip(&self.tokens);
        let equal = pairs.take_while(|(new, old)| new == old).count();
        let equal = equal.min(tokens.len().saturating_sub(1));
        let (mut index, mut picture) = (0, 0);
        while index < equal {
            let next = pictures
                .get(picture)
                .filter(|_| tokens[index] == config.image_token_id);
            if let Some(next) = next {
                let end = index + next.tokens(config).max(1);
                if end > equal || self.pictures.get(picture) != Some(&next.hash) {
                    break;
                }
                index = end;
                picture += 1;
            } else {
                index += 1;
            }
        }
        Shared {
            tokens: index,
            pictures: picture,
        }
    }

    /// Forgets what follows.
    pub(crate) fn keep(&mut self, shared: Shared) {
        self.cache.truncate(shared.tokens);
        self.tokens.truncate(shared.tokens);
        self.positions.truncate(shared.tokens);
        self.pictures.truncate(shared.pictures);
        let largest = self.positions.iter().flatten().max();
        self.next = largest.map_or(0, |largest| largest + 1);
    }

    /// Another context that has read as much.
    pub(crate) fn fork(&self, shared: Shared) -> Self {
        let mut fork = Self {
            cache: self.cache.prefix(shared.tokens),
            tokens: self.tokens[..shared.tokens].to_vec(),
            positions: self.positions[..shared.tokens].to_vec(),
            next: 0,
            pictures: self.pictures[..shared.pictures].to_vec(),
            most: self.most,
        };
        fork.keep(shared);
        fork
    }

    /// Reads new tokens with their pictures and returns the scores of the token after them.
    ///
    /// # Shapes
    /// - returned: `[1, vocab]`; `None` when `tokens` is empty
    pub fn read(
        &mut self,
        model: &Qwen25Vl,
        tokens: &[u32],
        pictures: &[Picture],
        config: &ModelConfig,
        device: &Device,
    ) -> Option<Tensor<2>> {
        model.reading(tokens.len(), || {
            let hidden = self.read_states(model, tokens, pictures, config, device, States::Last)?;
            Some(scores(model, hidden))
        })
    }

    /// As [`read`](Self::read), with the final hidden states of all new tokens.
    ///
    /// # Shapes
    /// - returned: `[1, new, hidden]`; `None` when `tokens` is empty
    pub fn read_all(
        &mut self,
        model: &Qwen25Vl,
        tokens: &[u32],
        pictures: &[Picture],
        config: &ModelConfig,
        device: &Device,
    ) -> Option<Tensor<3>> {
        self.read_states(model, tokens, pictures, config, device, States::All)
    }

    fn read_states(
        &mut self,
        model: &Qwen25Vl,
        tokens: &[u32],
        pictures: &[Picture],
        config: &ModelConfig,
        device: &Device,
        states: States,
    ) -> Option<Tensor<3>> {
        if tokens.is_empty() {
            return None;
        }
        let mut patches = Patches::default();
        for picture in pictures {
            patches.append(&picture.patches);
        }
        let features = (!pictures.is_empty()).then(|| model.see(&patches, config, device));
        let marks: Vec<Mark> = pictures.iter().map(Picture::mark).collect();
        Some(self.read_seen(model, tokens, &marks, features, config, states))
    }

    /// As [`read_all`](Self::read_all), of at least one token, with pictures' features instead of
    /// their patches, and the final states that are asked for.
    pub(crate) fn read_seen(
        &mut self,
        model: &Qwen25Vl,
        tokens: &[u32],
        pictures: &[Mark],
        features: Option<Tensor<2>>,
        config: &ModelConfig,
        states: States,
    ) -> Tensor<3> {
        let merge = config.vision.spatial_merge_size;
        let grids: Vec<Grid> = pictures.iter().filter_map(|picture| picture.grid).collect();
        let (mut places, count) = positions(tokens, &grids, config.image_token_id, merge);
        for place in places.iter_mut().flatten() {
            *place += self.next;
        }
        let embeddings = model.embed(&[tokens], features, config);
        self.cache
            .reserve(tokens.len(), self.most, model.kv_dtype());
        let cache = Some(&mut self.cache);
        let hidden = model.decode(embeddings, &[&places], config, cache, states);
        self.tokens.extend_from_slice(tokens);
        self.positions.append(&mut places);
        let hashes = pictures.iter().map(|picture| picture.hash);
        self.pictures.extend(hashes);
        self.next += count;
        hidden
    }

    /// The place of the next text token.
    pub(crate) fn place(&self) -> Position {
        [self.next; 3]
    }

    /// Counts a text token as read, which was read together with those of other contexts.
    pub(crate) fn push(&mut self, token: u32) {
        self.tokens.push(token);
        self.positions.push(self.place());
        self.next += 1;
    }
}

/// Scores of the token after the last one.
///
/// # Shapes
/// - hidden: `[batch, new, hidden]`
/// - returned: `[batch, vocab]`
pub(crate) fn scores(model: &Qwen25Vl, hidden: Tensor<3>) -> Tensor<2> {
    let new = hidden.dims()[1];
    model.logits(hidden.narrow(1, new - 1, 1).squeeze_dim::<2>(1))
}

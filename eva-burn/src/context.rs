//! [`Context`]: what a model has read so far, and its KV cache.

use burn::tensor::{Device, Tensor};

use crate::cache::KvCache;
use crate::config::ModelConfig;
use crate::input::{Grid, Patches};
use crate::model::Qwen25Vl;
use crate::rope::{Position, positions};

/// The tokens and pictures one model has read, with their keys and values.
///
/// Reading goes on where it stopped; [`keep_prefix`](Self::keep_prefix) goes back to the longest
/// prefix shared with another conversation, so that nothing is computed twice.
#[derive(Debug)]
pub struct Context {
    cache: KvCache,
    tokens: Vec<u32>,
    positions: Vec<Position>,
    /// Position of the next text token.
    next: u32,
    pictures: Vec<u64>,
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
    fn grid(&self) -> Option<Grid> {
        self.patches.grids.first().copied()
    }
}

impl Context {
    /// Nothing read yet.
    #[must_use]
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        Self {
            cache: KvCache::new(1, 256, &config.text, device),
            tokens: Vec::new(),
            positions: Vec::new(),
            next: 0,
            pictures: Vec::new(),
        }
    }

    /// The tokens read so far.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Forgets all but the longest prefix that `prompt` shares: equal tokens and equal pictures. At
    /// least one token of `prompt` is left to read. Returns the tokens and pictures kept.
    pub fn keep_prefix(&mut self, prompt: &Prompt, config: &ModelConfig) -> (usize, usize) {
        let merge = config.vision.spatial_merge_size;
        let equal = prompt
            .tokens
            .iter()
            .zip(&self.tokens)
            .take_while(|(new, old)| new == old)
            .count()
            .min(prompt.tokens.len().saturating_sub(1));
        let (mut index, mut picture) = (0, 0);
        while index < equal {
            let next = prompt
                .pictures
                .get(picture)
                .filter(|_| prompt.tokens[index] == config.image_token_id);
            if let Some(next) = next {
                let end = index + next.grid().map_or(0, |grid| grid.tokens(merge)).max(1);
                if end > equal || self.pictures.get(picture) != Some(&next.hash) {
                    break;
                }
                index = end;
                picture += 1;
            } else {
                index += 1;
            }
        }
        self.cache.truncate(index);
        self.tokens.truncate(index);
        self.positions.truncate(index);
        self.pictures.truncate(picture);
        self.next = self
            .positions
            .iter()
            .flatten()
            .max()
            .map_or(0, |largest| largest + 1);
        (index, picture)
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
        let hidden = self.read_all(model, tokens, pictures, config, device)?;
        let last = hidden.narrow(1, tokens.len() - 1, 1);
        Some(model.logits(last.squeeze_dim::<2>(1)))
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
        if tokens.is_empty() {
            return None;
        }
        let mut patches = Patches::default();
        for picture in pictures {
            patches.append(&picture.patches);
        }
        let merge = config.vision.spatial_merge_size;
        let (mut places, count) = positions(tokens, &patches.grids, config.image_token_id, merge);
        for place in places.iter_mut().flatten() {
            *place += self.next;
        }
        let features = (!pictures.is_empty()).then(|| model.see(&patches, config, device));
        let embeddings = model.embed(&[tokens], features, config);
        self.cache.reserve(tokens.len());
        let hidden = model.decode(embeddings, &[&places], config, Some(&mut self.cache));
        self.tokens.extend_from_slice(tokens);
        self.positions.append(&mut places);
        self.pictures
            .extend(pictures.iter().map(|picture| picture.hash));
        self.next += count;
        Some(hidden)
    }
}

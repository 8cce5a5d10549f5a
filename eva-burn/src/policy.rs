//! [`BurnPolicy`]: Qwen2.5-VL as the agent's policy.

use std::path::Path;

use burn::tensor::Device;

use crate::cache::kv_values_per_token;
use crate::chat::{Chat, ChatError};
use crate::config::{ConfigError, GenerationConfig, ImageConfig, ModelConfig};
use crate::features::Features;
use crate::model::Qwen25Vl;
use crate::sample::{Sampler, Sampling};
use crate::slots::Slots;
use crate::weights::{Precision, WeightsError};

/// Why a model directory could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The tokenizer or the chat template.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Not a directory.
    #[error(
        "{0} is not a model directory; it must hold config.json, tokenizer.json, a chat template and model.safetensors"
    )]
    NotADirectory(std::path::PathBuf),
    /// The bundled model could not be unpacked.
    #[error("cannot unpack the bundled model: {0}")]
    Unpack(#[from] std::io::Error),
    /// The weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Qwen2.5-VL on a Burn device, which continues one conversation or several at once
/// ([`generate_with`](Self::generate_with)).
///
/// Keys and values of conversations are kept between calls: a call computes only what follows the
/// longest prefix that it shares with one of them. Features of recent pictures are kept too, for
/// prompts whose text changed before a picture.
#[derive(Debug)]
pub struct BurnPolicy {
    pub(crate) model: Qwen25Vl,
    pub(crate) config: ModelConfig,
    pub(crate) images: ImageConfig,
    pub(crate) chat: Chat,
    pub(crate) eos: Vec<u32>,
    pub(crate) sampler: Sampler,
    pub(crate) max_new_tokens: usize,
    pub(crate) device: Device,
    pub(crate) slots: Slots,
    pub(crate) features: Features,
    /// Bytes that keys and values may take.
    pub(crate) kv_limit: Option<u64>,
    pub(crate) kv_bytes_per_token: u64,
}

/// New tokens a turn may take (the published setting).
pub const MAX_NEW_TOKENS: usize = 2048;

/// Bytes of pictures' features that are kept between calls, unless
/// [`BurnPolicy::with_feature_cache`] says otherwise: those of some 16,000 merged patches of the 3B
/// model in `f32`.
pub const FEATURE_CACHE_BYTES: u64 = 128 << 20;

impl BurnPolicy {
    /// Loads a Hugging Face directory of a Qwen2.5-VL model.
    ///
    /// # Errors
    /// [`LoadError`] names the file, key or tensor.
    pub fn load(dir: impl AsRef<Path>, device: &Device) -> Result<Self, LoadError> {
        Self::load_as(dir, device, Precision::F32)
    }

    /// As [`load`](Self::load), with the weights in another precision: less memory, and results
    /// that differ as [`Precision`] says.
    ///
    /// # Errors
    /// [`LoadError`] names the file, key or tensor.
    pub fn load_as(
        dir: impl AsRef<Path>,
        device: &Device,
        precision: Precision,
    ) -> Result<Self, LoadError> {
        let dir = dir.as_ref();
        if !dir.is_dir() {
            return Err(LoadError::NotADirectory(dir.to_owned()));
        }
        let config = ModelConfig::load(dir)?;
        let generation = GenerationConfig::load(dir)?;
        let chat = Chat::load(dir, config.image_token_id)?;
        chat.check_vocabulary(config.text.vocab_size)?;
        let images = ImageConfig::load(dir)?;
        let model = Qwen25Vl::load_as(&config, dir, device, precision)?;
        Ok(Self::new(model, config, images, chat, &generation, device))
    }

    /// A policy from its parts.
    #[must_use]
    pub fn new(
        model: Qwen25Vl,
        config: ModelConfig,
        images: ImageConfig,
        chat: Chat,
        generation: &GenerationConfig,
        device: &Device,
    ) -> Self {
        let mut eos = generation.eos_token_ids.clone();
        if eos.is_empty() {
            eos.extend(chat.token_id("<|im_end|>"));
        }
        let bytes = model.kv_dtype().size() as u64;
        Self {
            model,
            images,
            chat,
            eos,
            sampler: Sampler::new(Sampling::Greedy, generation.repetition_penalty),
            max_new_tokens: MAX_NEW_TOKENS,
            device: device.clone(),
            slots: Slots::new(1),
            features: Features::new(FEATURE_CACHE_BYTES),
            kv_limit: None,
            kv_bytes_per_token: kv_values_per_token(&config.text) * bytes,
            config,
        }
    }

    /// Chooses tokens otherwise than greedily.
    #[must_use]
    pub fn with_sampling(mut self, sampling: Sampling, repetition_penalty: f32) -> Self {
        self.sampler = Sampler::new(sampling, repetition_penalty);
        self
    }

    /// Chooses tokens otherwise from now on, with the repetition penalty as it is: for rollouts that
    /// differ by their seed.
    pub fn set_sampling(&mut self, sampling: Sampling) {
        self.sampler = Sampler::new(sampling, self.sampler.penalty());
    }

    /// Ends a reply after this many tokens (default [`MAX_NEW_TOKENS`]).
    #[must_use]
    pub fn with_max_new_tokens(mut self, tokens: usize) -> Self {
        self.max_new_tokens = tokens.max(1);
        self
    }

    /// Lets keys and values take no more than so many bytes, all conversations together (by default
    /// there is no limit). Where it would be exceeded, the contexts that were used the longest ago are
    /// forgotten, fewer conversations of a batch run at a time, and one that has no room even alone
    /// fails with [`GenerateError::Memory`](crate::GenerateError::Memory) before anything is computed.
    /// [`kv_bytes_per_token`](crate::kv_bytes_per_token) says what a token takes.
    #[must_use]
    pub fn with_kv_limit(mut self, bytes: u64) -> Self {
        self.kv_limit = Some(bytes);
        self
    }

    /// Keeps the contexts of this many conversations (default 1), for hosts that take turns between
    /// several. A batch keeps all of its own, however many they are.
    #[must_use]
    pub fn with_kept_conversations(mut self, count: usize) -> Self {
        self.slots = Slots::new(count);
        self
    }

    /// Keeps the features of recent pictures within this many bytes (default
    /// [`FEATURE_CACHE_BYTES`]); 0 keeps none.
    #[must_use]
    pub fn with_feature_cache(mut self, bytes: u64) -> Self {
        self.features = Features::new(bytes);
        self
    }

    /// Forgets all conversations and pictures, and frees their memory.
    pub fn forget(&mut self) {
        self.slots.clear();
        self.features.clear();
    }

    /// Bytes that the keys and values of the kept conversations take.
    #[must_use]
    pub fn kv_bytes(&self) -> u64 {
        self.slots.bytes()
    }

    /// The model's configuration.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }
}

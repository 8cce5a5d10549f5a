//! [`BurnPolicy`]: Qwen2.5-VL as the agent's policy.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use burn::tensor::Device;
use eva_core::{Message, Part, Pixels, Policy, Usage};

use crate::chat::{Chat, ChatError};
use crate::config::{ConfigError, GenerationConfig, ImageConfig, ModelConfig};
use crate::context::{Context, Picture, Prompt};
use crate::input::{ImageError, Patches};
use crate::model::Qwen25Vl;
use crate::sample::{Sampler, Sampling};
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
    /// A picture could not be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The conversation is longer than the model can read.
    #[error(
        "the conversation has {tokens} tokens, the model reads {limit}; ask a shorter question, or fewer or smaller frames"
    )]
    TooLong {
        /// Tokens of the conversation.
        tokens: usize,
        /// The model's limit.
        limit: usize,
    },
    /// The sink refused text.
    #[error("the reply could not be written")]
    Write(#[from] fmt::Error),
}

/// Qwen2.5-VL on a Burn device, generating one reply at a time.
///
/// Keys and values of the conversation are kept between calls: a call computes only what follows
/// the longest prefix that it shares with the last one.
#[derive(Debug)]
pub struct BurnPolicy {
    model: Qwen25Vl,
    config: ModelConfig,
    images: ImageConfig,
    chat: Chat,
    eos: Vec<u32>,
    sampler: Sampler,
    max_new_tokens: usize,
    device: Device,
    context: Context,
}

/// New tokens a turn may take (the published setting).
pub const MAX_NEW_TOKENS: usize = 2048;

impl BurnPolicy {
    /// Loads a Hugging Face directory of a Qwen2.5-VL model.
    ///
    /// # Errors
    /// [`LoadError`] names the file, key or tensor.
    pub fn load(dir: impl AsRef<Path>, device: &Device) -> Result<Self, LoadError> {
        Self::load_as(dir, device, Precision::F32)
    }

    /// As [`load`](Self::load), with the model in another precision: half the memory, and results
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
        Self {
            model,
            images,
            chat,
            eos,
            sampler: Sampler::new(Sampling::Greedy, generation.repetition_penalty),
            max_new_tokens: MAX_NEW_TOKENS,
            device: device.clone(),
            context: Context::new(&config, device),
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

    /// The model's configuration.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The conversation's tokens and pictures.
    fn prompt<P: Pixels>(&self, conversation: &[Message<'_, P>]) -> Result<Prompt, GenerateError> {
        let merge = self.config.vision.spatial_merge_size;
        let mut pictures = Vec::new();
        let mut counts = Vec::new();
        for part in conversation.iter().flat_map(|message| message.parts) {
            if let Part::Image(image) = part {
                let mut patches = Patches::default();
                patches.push(*image, &self.images, &self.config.vision)?;
                counts.extend(patches.grids.iter().map(|grid| grid.tokens(merge)));
                let mut hasher = DefaultHasher::new();
                (image.width(), image.height(), image.rgb()).hash(&mut hasher);
                pictures.push(Picture {
                    patches,
                    hash: hasher.finish(),
                });
            }
        }
        let tokens = self.chat.encode(conversation, &counts)?;
        let limit = self.config.text.max_position_embeddings;
        if tokens.is_empty() || tokens.len() >= limit {
            return Err(GenerateError::TooLong {
                tokens: tokens.len(),
                limit,
            });
        }
        Ok(Prompt { tokens, pictures })
    }
}

impl<P: Pixels> Policy<P> for BurnPolicy {
    type Error = GenerateError;

    fn generate(
        &mut self,
        conversation: &[Message<'_, P>],
        reply: &mut dyn fmt::Write,
    ) -> Result<Usage, GenerateError> {
        let prompt = self.prompt(conversation)?;
        let (config, device) = (&self.config, &self.device);
        let (cached, pictures) = self.context.keep_prefix(&prompt, config);
        let mut scores = self.context.read(
            &self.model,
            &prompt.tokens[cached..],
            &prompt.pictures[pictures..],
            config,
            device,
        );
        let limit = config.text.max_position_embeddings;
        let mut generated: Vec<u32> = Vec::new();
        let mut written = 0;
        while let Some(next) = scores {
            let mut logits: Vec<f32> = next
                .try_into_vec_as::<f32>()
                .map_err(|error| GenerateError::Device(error.to_string()))?;
            let token = self.sampler.next(&mut logits, self.context.tokens());
            generated.push(token);
            if self.eos.contains(&token) {
                break;
            }
            // A character may be spread over several tokens: write up to the last whole one.
            let text = self.chat.decode(&generated)?;
            if !text.ends_with('\u{FFFD}') && text.len() > written {
                reply.write_str(text.get(written..).unwrap_or_default())?;
                written = text.len();
            }
            if generated.len() >= self.max_new_tokens || self.context.tokens().len() + 1 >= limit {
                break;
            }
            scores = self
                .context
                .read(&self.model, &[token], &[], config, device);
        }
        Ok(Usage {
            prompt: prompt.tokens.len() as u32,
            cached: cached as u32,
            completion: generated.len() as u32,
        })
    }
}

//! From conversations to what a model learns from: [`Encoder`].

use std::path::Path;

use eva_burn::ModelConfig;
use eva_burn::chat::{Chat, ChatError};
use eva_burn::config::{ConfigError, ImageConfig};
use eva_burn::train::{Example, ExampleError};
use eva_core::{Conversation, Pixels};

use crate::rollout::{Generated, Rollout};

/// Why a model directory has no encoder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// The tokenizer or the chat template.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// How one model reads conversations: its tokenizer, chat template and preprocessing.
#[derive(Debug)]
pub struct Encoder {
    /// The tokenizer with the chat template.
    pub chat: Chat,
    /// The model's configuration.
    pub config: ModelConfig,
    /// How pictures become patches.
    pub images: ImageConfig,
}

impl Encoder {
    /// That of a model directory; weights are not read.
    ///
    /// # Errors
    /// [`EncoderError`] names the file or the key.
    pub fn load(dir: &Path) -> Result<Self, EncoderError> {
        let config = ModelConfig::load(dir)?;
        Ok(Self {
            images: ImageConfig::load(dir)?,
            chat: Chat::load(dir, config.image_token_id)?,
            config,
        })
    }

    /// A finished conversation: the assistant's tokens are to be learnt.
    ///
    /// # Errors
    /// [`ExampleError`] when it can't be encoded.
    pub fn example<P: Pixels>(
        &self,
        conversation: &Conversation<P>,
    ) -> Result<Example, ExampleError> {
        conversation.with_messages(|messages| {
            Example::new(messages, &self.chat, &self.config, &self.images)
        })
    }

    /// A run, in the very tokens that were drawn where they are known.
    ///
    /// # Errors
    /// [`ExampleError`] when it can't be encoded.
    pub fn rollout<P: Pixels>(&self, rollout: &Rollout<P>) -> Result<Example, ExampleError> {
        let tokens: Vec<Option<&[u32]>> = rollout.replies.iter().map(Generated::tokens).collect();
        Ok(self
            .example(&rollout.report.conversation)?
            .with_turns(&tokens))
    }
}

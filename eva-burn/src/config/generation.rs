//! `generation_config.json`: [`GenerationConfig`].

use std::path::Path;

use serde::Deserialize;

use super::keys::Keys;
use super::{CONFIG, ConfigError, UnknownKey, left, warned};
use crate::sample::Sampling;

/// How the model's makers generate: `generation_config.json`.
///
/// What [`BurnPolicy`](crate::BurnPolicy) does with it: replies end at these tokens, and the
/// repetition penalty applies. Tokens are chosen greedily whatever the file says, since that is the
/// protocol: the published evaluation asks its server for temperature 0, which replaces the file's
/// (1e-6, as good as greedy) and leaves the penalty (1.05) in force. [`sampling`](Self::sampling)
/// gives what the file says instead, for [`BurnPolicy::with_sampling`](crate::BurnPolicy::with_sampling).
/// Limits of length in the file do not count: the protocol has its own.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end a reply.
    pub eos_token_ids: Vec<u32>,
    /// Divides (or multiplies, when negative) the scores of tokens already seen; 1 does nothing.
    pub repetition_penalty: f32,
    /// Whether tokens are drawn at random; greedy if not.
    pub do_sample: bool,
    /// Divides the scores of tokens that are drawn: below 1 sharpens, above 1 flattens.
    pub temperature: f32,
    /// Only this many of the most likely tokens are drawn from; 0 for all.
    pub top_k: usize,
    /// Of those, only the most likely whose probabilities sum to this are drawn from; 1 for all.
    pub top_p: f32,
}

impl Default for GenerationConfig {
    /// What counts without a file: greedy, no end token, no penalty.
    fn default() -> Self {
        Self {
            eos_token_ids: Vec::new(),
            repetition_penalty: 1.0,
            do_sample: false,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
        }
    }
}

const FILE: &str = "generation_config.json";

/// Below this a temperature leaves only the most likely token.
const AS_GOOD_AS_ZERO: f32 = 1e-4;

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

impl GenerationConfig {
    /// Reads `generation_config.json` in `dir`. A key that is missing there has the value of
    /// [`default`](Self::default), except the end tokens, which are then those of `config.json`.
    ///
    /// # Errors
    /// [`ConfigError`] when a file is there but is not valid, or asks for what is not computed here,
    /// such as several beams.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        Ok(warned(Self::read(dir)?, dir))
    }

    pub(super) fn read(dir: &Path) -> Result<(Self, Vec<UnknownKey>), ConfigError> {
        let path = dir.join(FILE);
        let (mut config, unknown) = if path.exists() {
            let mut keys = Keys::read(&path)?;
            (Self::from_keys(&mut keys)?, left(FILE, keys.unknown()))
        } else {
            (Self::default(), Vec::new())
        };
        if config.eos_token_ids.is_empty() {
            config.eos_token_ids = end_tokens(dir)?;
        }
        Ok((config, unknown))
    }

    fn from_keys(keys: &mut Keys<'_>) -> Result<Self, ConfigError> {
        let default = Self::default();
        let eos: Option<OneOrMany> = keys.optional("eos_token_id")?;
        let penalty = keys.optional("repetition_penalty")?;
        let config = Self {
            eos_token_ids: eos.map(OneOrMany::into_vec).unwrap_or_default(),
            repetition_penalty: penalty.unwrap_or(default.repetition_penalty),
            do_sample: keys.optional("do_sample")?.unwrap_or(default.do_sample),
            temperature: keys.optional("temperature")?.unwrap_or(default.temperature),
            top_k: keys.optional("top_k")?.unwrap_or(default.top_k),
            top_p: keys.optional("top_p")?.unwrap_or(default.top_p),
        };
        if !(config.repetition_penalty > 0.0 && config.repetition_penalty.is_finite()) {
            let value = config.repetition_penalty;
            return Err(keys.unsupported("repetition_penalty", value, "a positive number"));
        }
        if !(config.temperature >= 0.0 && config.temperature.is_finite()) {
            let expected = "a number from 0 on";
            return Err(keys.unsupported("temperature", config.temperature, expected));
        }
        if !(config.top_p > 0.0 && config.top_p <= 1.0) {
            let expected = "a number above 0, at most 1";
            return Err(keys.unsupported("top_p", config.top_p, expected));
        }
        check_the_rest(keys)?;
        Ok(config)
    }

    /// How the file wants tokens to be chosen.
    ///
    /// - seed: makes draws repeatable
    #[must_use]
    pub fn sampling(&self, seed: u64) -> Sampling {
        if self.do_sample && self.temperature > AS_GOOD_AS_ZERO {
            Sampling::Random {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                seed,
            }
        } else {
            Sampling::Greedy
        }
    }
}

/// Ways to generate that are not there: their keys may say no more than that they are off.
fn check_the_rest(keys: &mut Keys<'_>) -> Result<(), ConfigError> {
    for key in ["num_beams", "num_beam_groups", "num_return_sequences"] {
        keys.check_number(key, "1: one reply is generated", 1.0)?;
    }
    for key in ["encoder_repetition_penalty", "guidance_scale", "typical_p"] {
        keys.check_number(key, "1, which does nothing", 1.0)?;
    }
    for key in [
        "diversity_penalty",
        "encoder_no_repeat_ngram_size",
        "epsilon_cutoff",
        "eta_cutoff",
        "min_length",
        "min_new_tokens",
        "min_p",
        "no_repeat_ngram_size",
        "penalty_alpha",
        "top_h",
    ] {
        keys.check_number(key, "0, which does nothing", 0.0)?;
    }
    for key in [
        "bad_words_ids",
        "begin_suppress_tokens",
        "constraints",
        "exponential_decay_length_penalty",
        "force_words_ids",
        "forced_bos_token_id",
        "forced_decoder_ids",
        "forced_eos_token_id",
        "sequence_bias",
        "stop_strings",
        "suppress_tokens",
        "watermarking_config",
    ] {
        keys.check(key, "no value: it is not applied", |value| {
            // An empty list, or one of nothing.
            value.as_array().is_some_and(Vec::is_empty)
        })?;
    }
    keys.check("renormalize_logits", "false", |value| *value == false)?;
    // The protocol's limit of length counts; the others are about speed, memory and the form of
    // what `generate` returns, or of other methods than the ones above.
    keys.harmless(&[
        "assistant_confidence_threshold",
        "assistant_early_exit",
        "assistant_lookbehind",
        "cache_config",
        "cache_implementation",
        "chat_format",
        "compile_config",
        "disable_compile",
        "dola_layers",
        "is_assistant",
        "low_memory",
        "max_length",
        "max_matching_ngram_size",
        "max_new_tokens",
        "max_time",
        "max_window_size",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "output_logits",
        "prefill_chunk_size",
        "prompt_lookup_num_tokens",
        "return_legacy_cache",
        "target_lookbehind",
        "token_healing",
        "use_model_defaults",
    ]);
    Ok(())
}

/// The end tokens of `config.json`, wherever in it they are.
fn end_tokens(dir: &Path) -> Result<Vec<u32>, ConfigError> {
    let path = dir.join(CONFIG);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut root = Keys::read(&path)?;
    let mut eos: Option<OneOrMany> = root.optional("eos_token_id")?;
    if eos.is_none()
        && let Some(mut text) = root.object("text_config")?
    {
        eos = text.optional("eos_token_id")?;
    }
    Ok(eos.map(OneOrMany::into_vec).unwrap_or_default())
}

//! The keys of one JSON object, each of which has to be accounted for.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::ConfigError;

/// Metadata and training or generation settings that `transformers` writes into any of its
/// configuration objects, and that change nothing of what is computed here.
const METADATA: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_from_model_config",
    "_name_or_path",
    "add_cross_attention",
    "architectures",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
];

/// Longest value in a message, in characters.
const LONGEST_VALUE: usize = 80;

/// An object of a file. Every key is taken out once, to be used, checked or left as harmless; what
/// is left then is unknown.
#[derive(Debug, Clone)]
pub(super) struct Keys<'f> {
    file: &'f Path,
    /// What stands before a key in messages, such as `vision_config.`
    prefix: String,
    map: Map<String, Value>,
}

impl<'f> Keys<'f> {
    /// The object that a file holds.
    pub(super) fn read(file: &'f Path) -> Result<Self, ConfigError> {
        Ok(Self::new(file, super::read_json(file)?))
    }

    pub(super) fn new(file: &'f Path, map: Map<String, Value>) -> Self {
        Self {
            file,
            prefix: String::new(),
            map,
        }
    }

    /// The value of a key, which is no longer there then; `null` counts as absent.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// The value of a key as it stands.
    pub(super) fn peek(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The value of a key, if it is there.
    pub(super) fn optional<T: DeserializeOwned>(
        &mut self,
        key: &str,
    ) -> Result<Option<T>, ConfigError> {
        let read = self.take(key).map(serde_json::from_value).transpose();
        read.map_err(|source| ConfigError::Value {
            path: self.file.to_owned(),
            key: self.name(key),
            source,
        })
    }

    /// The value of a key that has to be there.
    pub(super) fn required<T: DeserializeOwned>(&mut self, key: &str) -> Result<T, ConfigError> {
        let value = self.optional(key)?;
        value.ok_or_else(|| ConfigError::Missing {
            path: self.file.to_owned(),
            key: self.name(key),
        })
    }

    /// A whole number from 1 to `most` that has to be there.
    pub(super) fn size(
        &mut self,
        key: &str,
        most: usize,
        expected: &'static str,
    ) -> Result<usize, ConfigError> {
        let value: usize = self.required(key)?;
        if value == 0 || value > most {
            return Err(self.unsupported(key, value, expected));
        }
        Ok(value)
    }

    /// The object under a key, if it is there.
    pub(super) fn object(&mut self, key: &str) -> Result<Option<Self>, ConfigError> {
        let map: Option<Map<String, Value>> = self.optional(key)?;
        Ok(map.map(|map| Self {
            file: self.file,
            prefix: format!("{}.", self.name(key)),
            map,
        }))
    }

    /// The object under a key that has to be there.
    pub(super) fn required_object(&mut self, key: &str) -> Result<Self, ConfigError> {
        self.object(key)?.ok_or_else(|| ConfigError::Missing {
            path: self.file.to_owned(),
            key: self.name(key),
        })
    }

    /// Refuses a value for which `is_fine` is false. That the key is absent is fine.
    pub(super) fn check(
        &mut self,
        key: &str,
        expected: &'static str,
        is_fine: impl FnOnce(&Value) -> bool,
    ) -> Result<(), ConfigError> {
        match self.take(key) {
            Some(value) if !is_fine(&value) => Err(self.unsupported(key, value, expected)),
            _ => Ok(()),
        }
    }

    /// Refuses any number but this one.
    pub(super) fn check_number(
        &mut self,
        key: &str,
        expected: &'static str,
        number: f64,
    ) -> Result<(), ConfigError> {
        self.check(key, expected, |value| {
            let difference = value.as_f64().map(|value| (value - number).abs());
            difference.is_some_and(|difference| difference <= 1e-6 * number.abs())
        })
    }

    /// Keys that may have any value.
    pub(super) fn harmless(&mut self, keys: &[&str]) {
        for key in keys {
            self.map.remove(*key);
        }
    }

    /// Refuses whatever is left.
    pub(super) fn nothing_else(mut self, expected: &'static str) -> Result<(), ConfigError> {
        let left = self.map.keys().next().cloned();
        match left.and_then(|key| self.map.remove(&key).map(|value| (key, value))) {
            Some((key, value)) => Err(self.unsupported(&key, value, expected)),
            None => Ok(()),
        }
    }

    /// The keys that are left, apart from metadata.
    pub(super) fn unknown(mut self) -> Vec<String> {
        self.harmless(METADATA);
        self.map.keys().map(|key| self.name(key)).collect()
    }

    /// That a value cannot be run.
    pub(super) fn unsupported(
        &self,
        key: &str,
        value: impl Into<Value>,
        expected: &'static str,
    ) -> ConfigError {
        let value = value.into().to_string();
        ConfigError::Unsupported {
            path: self.file.to_owned(),
            key: self.name(key),
            value: match value.char_indices().nth(LONGEST_VALUE) {
                Some((end, _)) => format!("{}...", value.get(..end).unwrap_or_default()),
                None => value,
            },
            expected,
        }
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

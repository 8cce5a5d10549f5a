//! The files that say what a model is, with Hugging Face's names.
//!
//! Both layouts of `config.json` are read: nested (`text_config`, written by transformers 5) and
//! flat (the published Qwen2.5-VL checkpoints). So are the mixtures that versions in between write,
//! which hold the decoder's keys twice: `text_config` counts.
//!
//! No key is passed over in silence:
//!
//! - a key that decides what is computed is used, or, where only one value can be computed, checked:
//!   another one is an error that names the key;
//! - metadata and settings of training are known to change nothing, and are left alone;
//! - any other key is reported by [`unknown_keys`] and as a warning through `tracing`. It is no
//!   error, so that a field that a later version of some tool writes does not shut a model out.

mod generation;
mod image;
mod keys;
mod text;
mod vision;

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use generation::GenerationConfig;
pub use image::ImageConfig;
pub use text::TextConfig;
pub use vision::VisionConfig;

use keys::Keys;

use crate::quantized::BLOCK;
use crate::weights::Precision;

/// Why a configuration file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error(
        "cannot read {path}: {source}; a model directory holds config.json, model.safetensors and tokenizer.json"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not JSON, or not an object.
    #[error("{path} is not valid: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A key is not there that has no default.
    #[error("{path}: `{key}` is missing")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value is of the wrong type.
    #[error("{path}: `{key}` is not valid: {source}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A value that this implementation cannot run.
    #[error("{path}: `{key}` = {value} is not supported; expected {expected}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The offending key.
        key: String,
        /// Its value.
        value: String,
        /// What would work.
        expected: &'static str,
    },
}

/// A key that nobody here knows: it was ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKey {
    /// The name of the file.
    pub file: &'static str,
    /// The key, with the objects it is in: `vision_config.depth`.
    pub key: String,
}

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`", self.file, self.key)
    }
}

/// The keys of a model directory's files that are not known here, so that it is not known either
/// whether they change what the model's makers computed.
///
/// # Errors
/// [`ConfigError`] names the file and the key that cannot be used at all.
pub fn unknown_keys(dir: &Path) -> Result<Vec<UnknownKey>, ConfigError> {
    let (_, mut unknown) = ModelConfig::read(dir)?;
    unknown.extend(GenerationConfig::read(dir)?.1);
    unknown.extend(ImageConfig::read(dir)?.1);
    Ok(unknown)
}

/// The keys that were left over in `file`.
fn left(file: &'static str, keys: Vec<String>) -> Vec<UnknownKey> {
    let unknown = |key| UnknownKey { file, key };
    keys.into_iter().map(unknown).collect()
}

/// Tells of unknown keys, and passes the rest on.
fn warned<T>((config, unknown): (T, Vec<UnknownKey>), dir: &Path) -> T {
    for key in unknown {
        tracing::warn!(dir = %dir.display(), %key, "unknown key ignored");
    }
    config
}

/// Qwen2.5-VL: the language model's sizes, the vision tower's, and the special token ids.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The decoder.
    pub text: TextConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// Token that stands for one merged patch of a picture.
    pub image_token_id: u32,
    /// Whether the output head shares the input embeddings.
    pub tie_word_embeddings: bool,
}

const CONFIG: &str = "config.json";
const QUANTIZATION: &str = "quantization_config";

/// Wider than any model: what is larger is damage, and would overflow when sizes are multiplied.
const WIDEST: usize = 1 << 24;
const WIDEST_EXPECTED: &str = "a whole number from 1 to 16777216";
/// The same for what is counted one by one, as layers and heads are.
const MOST: usize = 1 << 10;
const MOST_EXPECTED: &str = "a whole number from 1 to 1024";

impl ModelConfig {
    /// Reads `config.json` in `dir`.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and the key.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        Ok(warned(Self::read(dir)?, dir))
    }

    fn read(dir: &Path) -> Result<(Self, Vec<UnknownKey>), ConfigError> {
        let path = dir.join(CONFIG);
        let mut root = Keys::read(&path)?;
        let kind: Value = root.required("model_type")?;
        if kind != "qwen2_5_vl" {
            return Err(root.unsupported("model_type", kind, "\"qwen2_5_vl\""));
        }
        quantization(&mut root)?;
        let image_token_id = root.required("image_token_id")?;
        let tied: Option<bool> = root.optional("tie_word_embeddings")?;
        let mut vision_keys = root.required_object("vision_config")?;
        let vision = VisionConfig::read(&mut vision_keys)?;
        let mut unknown = vision_keys.unknown();

        let (text, tied_text) = match root.object("text_config")? {
            Some(mut nested) => {
                quantization(&mut nested)?;
                text::warn_of_contradictions(&root, &nested, &path);
                root.harmless(text::KEYS);
                let tied: Option<bool> = nested.optional("tie_word_embeddings")?;
                let text = TextConfig::read(&mut nested)?;
                unknown.extend(nested.unknown());
                (text, tied)
            }
            None => (TextConfig::read(&mut root)?, None),
        };
        // For videos, which are never sent as such, and for the template, which writes the tokens.
        root.harmless(&[
            "video_token_id",
            "vision_end_token_id",
            "vision_start_token_id",
            "vision_token_id",
        ]);
        let config = Self {
            text,
            vision,
            image_token_id,
            // `transformers` leaves the outer one out where it is the default of all its models.
            tie_word_embeddings: tied.or(tied_text).unwrap_or(false),
        };
        config.check(&root)?;
        unknown.extend(root.unknown());
        Ok((config, left(CONFIG, unknown)))
    }

    /// Refuses parts that do not fit together, before any tensor is made.
    fn check(&self, root: &Keys<'_>) -> Result<(), ConfigError> {
        if self.vision.out_hidden_size != self.text.hidden_size {
            return Err(root.unsupported(
                "vision_config.out_hidden_size",
                self.vision.out_hidden_size,
                "the decoder's hidden_size",
            ));
        }
        if self.image_token_id as usize >= self.text.vocab_size {
            return Err(root.unsupported(
                "image_token_id",
                self.image_token_id,
                "an id below vocab_size",
            ));
        }
        Ok(())
    }
}

/// The precision that the weights of a directory are stored in, where they are blocks of integers.
///
/// # Errors
/// [`ConfigError`] names the file and the key, also of other quantizations than ours.
pub fn stored_precision(dir: &Path) -> Result<Option<Precision>, ConfigError> {
    quantization(&mut Keys::read(&dir.join(CONFIG))?)
}

/// What [`quantized::convert`](crate::quantized::convert) writes; checkpoints that others quantized have
/// other tensors.
fn quantization(keys: &mut Keys<'_>) -> Result<Option<Precision>, ConfigError> {
    let expected = "a checkpoint in f32, f16 or bf16, which can be quantized while it is loaded";
    keys.check("compression_config", expected, |_| false)?;
    let ours = |value: &Value| {
        value
            .get("quant_method")
            .is_some_and(|method| method == "eva")
    };
    if keys.peek(QUANTIZATION).is_none_or(|value| !ours(value)) {
        keys.check(QUANTIZATION, expected, |_| false)?;
        return Ok(None);
    }
    let Some(mut own) = keys.object(QUANTIZATION)? else {
        return Ok(None);
    };
    own.harmless(&["quant_method"]);
    own.check_number("block_size", "32", BLOCK as f64)?;
    let name: String = own.required("precision")?;
    let precision = name
        .parse()
        .ok()
        .filter(|found: &Precision| found.is_quantized());
    let precision =
        precision.ok_or_else(|| own.unsupported("precision", name, "\"int8\" or \"int4\""))?;
    own.nothing_else("only quant_method, precision and block_size")?;
    Ok(Some(precision))
}

/// Reads a JSON file, naming it in the error.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|source| ConfigError::Json {
        path: path.to_owned(),
        source,
    })
}

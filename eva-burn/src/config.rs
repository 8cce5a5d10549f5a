//! The model's configuration, with Hugging Face's field names.
//!
//! Both layouts of `config.json` are read: nested (`text_config`, written by transformers 5) and
//! flat (the published Qwen2.5-VL checkpoints). A value that this implementation does not support
//! is an error that names the key, never silently ignored.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

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
    /// The file is not JSON, or a field is missing or of the wrong type.
    #[error("{path} is not valid: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A value that this implementation cannot run.
    #[error("{path}: `{key}` = {value} is not supported; expected {expected}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The offending key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would work.
        expected: &'static str,
    },
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

/// The decoder's sizes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TextConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the SwiGLU layer.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides the query heads (grouped-query attention).
    pub num_key_value_heads: usize,
    /// Longest context in tokens.
    pub max_position_embeddings: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f64,
    /// Rotary frequencies given to time, height and width (M-RoPE); they sum to half a head.
    #[serde(default)]
    pub mrope_section: [usize; 3],
}

fn default_rope_theta() -> f64 {
    1_000_000.0
}

impl TextConfig {
    /// Width of one attention head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

/// The vision tower's sizes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct VisionConfig {
    /// Number of blocks.
    pub depth: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the SwiGLU layer.
    pub intermediate_size: usize,
    /// Number of attention heads.
    pub num_heads: usize,
    /// Colour channels.
    #[serde(alias = "in_chans", default = "default_channels")]
    pub in_channels: usize,
    /// Side of a patch in pixels.
    #[serde(default = "default_patch")]
    pub patch_size: usize,
    /// Patches along each side of a merged patch.
    #[serde(default = "default_two")]
    pub spatial_merge_size: usize,
    /// Frames in a patch; a still picture is repeated.
    #[serde(default = "default_two")]
    pub temporal_patch_size: usize,
    /// Side of an attention window in pixels.
    pub window_size: usize,
    /// Blocks that attend over the whole picture instead of windows.
    pub fullatt_block_indexes: Vec<usize>,
    /// Width of the merged patches: the decoder's `hidden_size`.
    pub out_hidden_size: usize,
}

fn default_channels() -> usize {
    3
}
fn default_patch() -> usize {
    14
}
fn default_two() -> usize {
    2
}

impl VisionConfig {
    /// Width of one attention head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// Values of one flattened patch: channels x frames x side x side.
    #[must_use]
    pub fn patch_values(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Side of a merged patch in pixels (28 for the published models).
    #[must_use]
    pub fn merged_side(&self) -> usize {
        self.patch_size * self.spatial_merge_size
    }
}

impl ModelConfig {
    /// Reads `config.json` in `dir`.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and the key.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join("config.json");
        let root: Map<String, Value> = read_json(&path)?;
        Self::from_json(root, &path)
    }

    fn from_json(root: Map<String, Value>, path: &Path) -> Result<Self, ConfigError> {
        let invalid = |source| ConfigError::Json {
            path: path.to_owned(),
            source,
        };
        let unsupported = |key, value: &Value, expected| ConfigError::Unsupported {
            path: path.to_owned(),
            key,
            value: value.to_string(),
            expected,
        };

        match root.get("model_type") {
            Some(Value::String(kind)) if kind == "qwen2_5_vl" => {}
            other => {
                let value = other.cloned().unwrap_or(Value::Null);
                return Err(unsupported("model_type", &value, "\"qwen2_5_vl\""));
            }
        }
        let text_value = match root.get("text_config") {
            Some(Value::Object(text)) => text.clone(),
            _ => root.clone(),
        };
        let mut text: TextConfig =
            serde_json::from_value(Value::Object(text_value.clone())).map_err(invalid)?;
        let vision_value = root.get("vision_config").cloned().unwrap_or(Value::Null);
        let vision: VisionConfig = serde_json::from_value(vision_value.clone()).map_err(invalid)?;

        for (key, map) in [
            ("hidden_act", &text_value),
            ("vision_config.hidden_act", &object(&vision_value)),
        ] {
            let act = map
                .get("hidden_act")
                .cloned()
                .unwrap_or_else(|| "silu".into());
            if act != "silu" {
                return Err(unsupported(key, &act, "\"silu\""));
            }
        }
        let sliding = text_value
            .get("use_sliding_window")
            .cloned()
            .unwrap_or(Value::Bool(false));
        if sliding != Value::Bool(false) {
            return Err(unsupported("use_sliding_window", &sliding, "false"));
        }

        let rope = ["rope_parameters", "rope_scaling"]
            .into_iter()
            .find_map(|key| text_value.get(key).filter(|value| !value.is_null()))
            .map(object)
            .unwrap_or_default();
        let kind = rope.get("rope_type").or_else(|| rope.get("type"));
        if let Some(kind) = kind
            && !(kind == "default" || kind == "mrope")
        {
            return Err(unsupported(
                "rope_scaling.type",
                kind,
                "\"default\" or \"mrope\"",
            ));
        }
        if let Some(theta) = rope.get("rope_theta").and_then(Value::as_f64) {
            text.rope_theta = theta;
        }
        if let Some(section) = rope.get("mrope_section") {
            text.mrope_section = serde_json::from_value(section.clone()).map_err(invalid)?;
        }

        let tie = root
            .get("tie_word_embeddings")
            .or_else(|| text_value.get("tie_word_embeddings"))
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let image_token_id: u32 =
            serde_json::from_value(root.get("image_token_id").cloned().unwrap_or(Value::Null))
                .map_err(invalid)?;

        let config = Self {
            text,
            vision,
            image_token_id,
            tie_word_embeddings: tie,
        };
        config.check(path)?;
        Ok(config)
    }

    /// Refuses sizes that cannot fit together, before any tensor is made.
    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let (text, vision) = (&self.text, &self.vision);
        let refuse = |key, value: usize, expected| {
            Err(ConfigError::Unsupported {
                path: path.to_owned(),
                key,
                value: value.to_string(),
                expected,
            })
        };
        let positive = [
            ("vocab_size", text.vocab_size),
            ("hidden_size", text.hidden_size),
            ("intermediate_size", text.intermediate_size),
            ("num_hidden_layers", text.num_hidden_layers),
            ("num_attention_heads", text.num_attention_heads),
            ("num_key_value_heads", text.num_key_value_heads),
            ("vision_config.depth", vision.depth),
            ("vision_config.hidden_size", vision.hidden_size),
            ("vision_config.intermediate_size", vision.intermediate_size),
            ("vision_config.num_heads", vision.num_heads),
            ("vision_config.patch_size", vision.patch_size),
            (
                "vision_config.spatial_merge_size",
                vision.spatial_merge_size,
            ),
            (
                "vision_config.temporal_patch_size",
                vision.temporal_patch_size,
            ),
        ];
        for (key, value) in positive {
            if value == 0 {
                return refuse(key, value, "a positive number");
            }
        }
        if text.hidden_size % (2 * text.num_attention_heads) != 0 {
            return refuse(
                "hidden_size",
                text.hidden_size,
                "a multiple of twice num_attention_heads",
            );
        }
        if text.num_attention_heads % text.num_key_value_heads != 0 {
            return refuse(
                "num_key_value_heads",
                text.num_key_value_heads,
                "a divisor of num_attention_heads",
            );
        }
        if text.mrope_section.iter().sum::<usize>() != text.head_dim() / 2 {
            return refuse(
                "rope_scaling.mrope_section",
                text.mrope_section.iter().sum(),
                "three numbers whose sum is half of a head's width",
            );
        }
        if vision.hidden_size % (4 * vision.num_heads) != 0 {
            return refuse(
                "vision_config.hidden_size",
                vision.hidden_size,
                "a multiple of four times num_heads",
            );
        }
        if vision.in_channels != 3 {
            return refuse("vision_config.in_channels", vision.in_channels, "3 (RGB)");
        }
        if vision.window_size < vision.merged_side() {
            return refuse(
                "vision_config.window_size",
                vision.window_size,
                "at least one merged patch",
            );
        }
        if vision.out_hidden_size != text.hidden_size {
            return refuse(
                "vision_config.out_hidden_size",
                vision.out_hidden_size,
                "the decoder's hidden_size",
            );
        }
        if self.image_token_id as usize >= text.vocab_size {
            return refuse(
                "image_token_id",
                self.image_token_id as usize,
                "an id below vocab_size",
            );
        }
        Ok(())
    }
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// How to generate: `generation_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end a reply.
    pub eos_token_ids: Vec<u32>,
    /// Divides (or multiplies, when negative) the scores of tokens already seen; 1 does nothing.
    pub repetition_penalty: f32,
}

impl GenerationConfig {
    /// Reads `generation_config.json` in `dir`; a missing file or key gives no end token and no
    /// penalty.
    ///
    /// # Errors
    /// [`ConfigError`] when the file is there but is not valid.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum OneOrMany {
            One(u32),
            Many(Vec<u32>),
        }
        #[derive(Deserialize)]
        struct File {
            eos_token_id: Option<OneOrMany>,
            repetition_penalty: Option<f32>,
        }
        let path = dir.join("generation_config.json");
        let file: File = if path.exists() {
            read_json(&path)?
        } else {
            File {
                eos_token_id: None,
                repetition_penalty: None,
            }
        };
        let penalty = file.repetition_penalty.unwrap_or(1.0);
        if !(penalty > 0.0 && penalty.is_finite()) {
            return Err(ConfigError::Unsupported {
                path,
                key: "repetition_penalty",
                value: penalty.to_string(),
                expected: "a positive number",
            });
        }
        Ok(Self {
            eos_token_ids: match file.eos_token_id {
                None => Vec::new(),
                Some(OneOrMany::One(id)) => vec![id],
                Some(OneOrMany::Many(ids)) => ids,
            },
            repetition_penalty: penalty,
        })
    }
}

/// How pictures become patches: `preprocessor_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageConfig {
    /// Pictures below this many pixels are enlarged.
    pub min_pixels: usize,
    /// Pictures above this many pixels are reduced.
    pub max_pixels: usize,
    /// Mean of each channel after scaling to 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel after scaling to 0..1.
    pub std: [f32; 3],
}

impl Default for ImageConfig {
    /// The values of the published Qwen2.5-VL models.
    fn default() -> Self {
        Self {
            min_pixels: 56 * 56,
            max_pixels: 28 * 28 * 16384,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }
}

impl ImageConfig {
    /// Reads `preprocessor_config.json` in `dir`, in both forms (`min_pixels`/`max_pixels` and
    /// `size.shortest_edge`/`size.longest_edge`); a missing file gives the published values.
    ///
    /// # Errors
    /// [`ConfigError`] when the file is there but is not valid.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        #[derive(Deserialize, Default)]
        struct Size {
            shortest_edge: Option<usize>,
            longest_edge: Option<usize>,
        }
        #[derive(Deserialize)]
        struct File {
            min_pixels: Option<usize>,
            max_pixels: Option<usize>,
            size: Option<Size>,
            image_mean: Option<[f32; 3]>,
            image_std: Option<[f32; 3]>,
        }
        let path = dir.join("preprocessor_config.json");
        let published = Self::default();
        if !path.exists() {
            return Ok(published);
        }
        let file: File = read_json(&path)?;
        let size = file.size.unwrap_or_default();
        let config = Self {
            min_pixels: size
                .shortest_edge
                .or(file.min_pixels)
                .unwrap_or(published.min_pixels),
            max_pixels: size
                .longest_edge
                .or(file.max_pixels)
                .unwrap_or(published.max_pixels),
            mean: file.image_mean.unwrap_or(published.mean),
            std: file.image_std.unwrap_or(published.std),
        };
        if config.min_pixels > config.max_pixels || config.max_pixels == 0 {
            return Err(ConfigError::Unsupported {
                path,
                key: "max_pixels",
                value: config.max_pixels.to_string(),
                expected: "at least min_pixels",
            });
        }
        if config
            .std
            .iter()
            .any(|std| !(std.is_finite() && *std > 0.0))
        {
            return Err(ConfigError::Unsupported {
                path,
                key: "image_std",
                value: format!("{:?}", config.std),
                expected: "three positive numbers",
            });
        }
        Ok(config)
    }
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

//! How much memory a model takes, from its `config.json` alone: [`Estimate`].
//!
//! Nothing is loaded for it. Weights are counted tensor by tensor, as the loader asks for them
//! ([`parameters`]); the KV cache by its tokens; and what is computed on the way by the largest step,
//! of the vision tower ([`vision_bytes`]) and of the decoder ([`reading_bytes`]). The first two are
//! exact, the last two are those of Burn's CPU backend, within the bounds that the tests state; a GPU
//! takes some steps in place and queries in larger blocks (32 MiB of scores), and its pool of buffers needs some more.

mod activations;
mod parameters;
mod size;
mod table;

pub use activations::{reading_bytes, vision_bytes};
pub use parameters::{Parameter, parameters};
pub use size::{ByteSize, NoSize};
pub use table::table;

pub use crate::cache::kv_bytes_per_token;

use crate::config::ModelConfig;
use crate::input::smart_resize;
use crate::policy::FEATURE_CACHE_BYTES;
use crate::quantized::{GPU_TILE_BYTES, TILE_BYTES};
use crate::weights::Precision;

/// Bytes that the weights take in memory.
#[must_use]
pub fn weight_bytes(config: &ModelConfig, precision: Precision) -> u64 {
    let bytes = |parameter: &Parameter| parameter.bytes(precision);
    let all = parameters(config);
    all.iter().map(bytes).fold(0, u64::saturating_add)
}

/// Bytes of a number that is computed. Weights in blocks of integers are multiplied with `f32`.
const fn activation_bytes(precision: Precision) -> u64 {
    match precision {
        Precision::F16 | Precision::Bf16 => 2,
        Precision::F32 | Precision::Int8 | Precision::Int4 => 4,
    }
}

/// Number of parameters.
#[must_use]
pub fn parameter_count(config: &ModelConfig) -> u64 {
    let all = parameters(config);
    let counts = all.iter().map(Parameter::count);
    counts.fold(0, u64::saturating_add)
}

/// What is asked of a model at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Tokens of the longest conversation, replies and pictures included.
    pub context: u64,
    /// Visual tokens of the largest turn, all of whose pictures are seen at once.
    pub turn: u64,
    /// Width and height in pixels of a picture, for the figure of one.
    pub picture: (u32, u32),
}

impl Default for Workload {
    /// The published evaluation: calls within 12,000 visual tokens, and conversations of 20,000
    /// tokens, which is what its longest sets take on average.
    fn default() -> Self {
        Self {
            context: 20_000,
            turn: 12_000,
            picture: (1280, 720),
        }
    }
}

impl Workload {
    /// Visual tokens of its picture.
    #[must_use]
    pub fn picture_tokens(&self, config: &ModelConfig) -> u64 {
        let side = config.vision.merged_side();
        let (width, height) = self.picture;
        let (height, width) = smart_resize(height as usize, width as usize, side, 0, usize::MAX);
        (height / side) as u64 * (width / side) as u64
    }
}

/// Memory of one model at work, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// The weights.
    pub weights: u64,
    /// Keys and values of 1,000 tokens.
    pub kv_per_1000: u64,
    /// Keys and values of the longest conversation.
    pub kv: u64,
    /// Features of pictures that are kept, at the most.
    pub features: u64,
    /// The vision tower's largest step with one picture.
    pub vision_picture: u64,
    /// The vision tower's largest step with all pictures of the largest turn.
    pub vision_turn: u64,
    /// The decoder's largest step, when it reads that turn.
    pub reading: u64,
}

impl Estimate {
    /// Of a model with its weights in this precision, at this work, on a GPU: in 16 bits all is computed in
    /// them, and more of packed weights is written out at a time than on the CPU.
    #[must_use]
    pub fn new(config: &ModelConfig, precision: Precision, workload: &Workload) -> Self {
        let base = Self::as_computed(config, precision, workload);
        let more = match precision.is_quantized() {
            true => (GPU_TILE_BYTES - TILE_BYTES) as u64,
            false => 0,
        };
        Self {
            vision_picture: base.vision_picture.saturating_add(more),
            vision_turn: base.vision_turn.saturating_add(more),
            reading: base.reading.saturating_add(more),
            ..base
        }
    }

    /// With activations in the number type that goes with the weights.
    fn as_computed(config: &ModelConfig, precision: Precision, workload: &Workload) -> Self {
        let per_token = kv_bytes_per_token(config, precision);
        let merged = (config.vision.spatial_merge_size as u64).pow(2);
        let picture = workload.picture_tokens(config).saturating_mul(merged);
        let turn = workload.turn.saturating_mul(merged);
        let row = config.text.hidden_size as u64 * activation_bytes(precision);
        Self {
            features: FEATURE_CACHE_BYTES.min(row.saturating_mul(workload.context)),
            weights: weight_bytes(config, precision),
            kv_per_1000: per_token * 1000,
            kv: per_token.saturating_mul(workload.context),
            vision_picture: vision_bytes(config, picture, precision),
            vision_turn: vision_bytes(config, turn, precision),
            reading: reading_bytes(config, workload.turn, workload.context, precision),
        }
    }

    /// As [`new`](Self::new), on the CPU, where `f16` and `bf16` are for matrices, keys and values, and all
    /// is computed in `f32`.
    #[must_use]
    pub fn on_cpu(config: &ModelConfig, precision: Precision, workload: &Workload) -> Self {
        let computed = match precision {
            // Beside them too, some rows of weights are written out at a time.
            Precision::F16 | Precision::Bf16 => Precision::Int8,
            other => other,
        };
        Self {
            weights: weight_bytes(config, precision),
            ..Self::as_computed(config, computed, workload)
        }
    }

    /// All that is there at the worst moment: the two largest steps follow each other.
    #[must_use]
    pub fn total(&self) -> u64 {
        let step = self.vision_turn.max(self.reading);
        let kept = self.kv.saturating_add(self.features);
        self.weights.saturating_add(kept).saturating_add(step)
    }

    /// Whether all of it fits.
    #[must_use]
    pub fn fits(&self, budget: ByteSize) -> bool {
        self.total() <= budget.0
    }
}

//! The vision tower's part of `config.json`: [`VisionConfig`].

use super::keys::Keys;
use super::{ConfigError, MOST, MOST_EXPECTED, WIDEST, WIDEST_EXPECTED};

/// The vision tower's sizes.
#[derive(Debug, Clone, PartialEq)]
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
    pub in_channels: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Patches along each side of a merged patch.
    pub spatial_merge_size: usize,
    /// Frames in a patch; a still picture is repeated.
    pub temporal_patch_size: usize,
    /// Side of an attention window in pixels.
    pub window_size: usize,
    /// Blocks that attend over the whole picture instead of windows.
    pub fullatt_block_indexes: Vec<usize>,
    /// Width of the merged patches: the decoder's `hidden_size`.
    pub out_hidden_size: usize,
}

/// The most pixels, patches or frames that a patch takes along a side: their products are widths of layers.
const COARSEST: usize = 1 << 6;
const COARSEST_EXPECTED: &str = "a whole number from 1 to 64";

/// Base of the rotary frequencies of rows and columns.
const ROPE_THETA: f64 = 10_000.0;

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

    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, ConfigError> {
        let wide = |keys: &mut Keys<'_>, key| keys.size(key, WIDEST, WIDEST_EXPECTED);
        let counted = |keys: &mut Keys<'_>, key| keys.size(key, MOST, MOST_EXPECTED);
        let or = |keys: &mut Keys<'_>, key, default| match keys.peek(key) {
            Some(_) => keys.size(key, COARSEST, COARSEST_EXPECTED),
            None => Ok(default),
        };
        // The published files call it in_chans, and newer ones that were made from them have both.
        for key in ["in_channels", "in_chans"] {
            keys.check_number(key, "3 (RGB)", 3.0)?;
        }
        let config = Self {
            depth: counted(keys, "depth")?,
            hidden_size: wide(keys, "hidden_size")?,
            intermediate_size: wide(keys, "intermediate_size")?,
            num_heads: counted(keys, "num_heads")?,
            in_channels: 3,
            patch_size: or(keys, "patch_size", 14)?,
            spatial_merge_size: or(keys, "spatial_merge_size", 2)?,
            temporal_patch_size: or(keys, "temporal_patch_size", 2)?,
            window_size: wide(keys, "window_size")?,
            fullatt_block_indexes: keys.required("fullatt_block_indexes")?,
            out_hidden_size: wide(keys, "out_hidden_size")?,
        };
        if !config.hidden_size.is_multiple_of(4 * config.num_heads) {
            return Err(keys.unsupported(
                "hidden_size",
                config.hidden_size,
                "a multiple of four times num_heads",
            ));
        }
        if config.window_size < config.merged_side() {
            let expected = "at least one merged patch";
            return Err(keys.unsupported("window_size", config.window_size, expected));
        }
        config.check_the_rest(keys)?;
        Ok(config)
    }

    /// What has one value that can be computed, and what makes no difference.
    fn check_the_rest(&self, keys: &mut Keys<'_>) -> Result<(), ConfigError> {
        let kinds = ["qwen2_5_vl", "qwen2_5_vl_vision"];
        keys.check("model_type", "\"qwen2_5_vl\"", |kind| {
            kinds.iter().any(|known| kind == known)
        })?;
        keys.check("hidden_act", "\"silu\"", |act| act == "silu")?;
        let side = self.patch_size as f64;
        keys.check_number("spatial_patch_size", "the same as patch_size", side)?;
        keys.check_number("attention_dropout", "0: nothing is dropped", 0.0)?;
        for key in ["rope_parameters", "rope_scaling"] {
            let Some(mut rope) = keys.object(key)? else {
                continue;
            };
            for key in ["rope_type", "type"] {
                let expected = "\"axial\": rows and columns";
                rope.check(key, expected, |kind| kind == "axial" || kind == "default")?;
            }
            rope.check_number("rope_theta", "10000", ROPE_THETA)?;
            rope.nothing_else("only rope_type and rope_theta")?;
        }
        // How far apart in time the frames of a video are; pictures have no duration.
        keys.harmless(&["tokens_per_second"]);
        Ok(())
    }
}

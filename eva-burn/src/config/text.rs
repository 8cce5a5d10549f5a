//! The decoder's part of `config.json`: [`TextConfig`].

use std::path::Path;

use serde_json::Value;

use super::keys::Keys;
use super::{ConfigError, MOST, MOST_EXPECTED, WIDEST, WIDEST_EXPECTED};

/// The decoder's sizes.
#[derive(Debug, Clone, PartialEq)]
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
    pub rope_theta: f64,
    /// Rotary frequencies given to time, height and width (M-RoPE); they sum to half a head.
    pub mrope_section: [usize; 3],
}

/// What `transformers` takes where a file has no base.
const DEFAULT_THETA: f64 = 1_000_000.0;

/// The keys that [`TextConfig`] accounts for: a file with a `text_config` may repeat them outside.
pub(super) const KEYS: &[&str] = &[
    "attention_dropout",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_types",
    "max_position_embeddings",
    "max_window_layers",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "partial_rotary_factor",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "use_sliding_window",
    "vocab_size",
];

impl TextConfig {
    /// Width of one attention head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    pub(super) fn read(keys: &mut Keys<'_>) -> Result<Self, ConfigError> {
        let wide = |keys: &mut Keys<'_>, key| keys.size(key, WIDEST, WIDEST_EXPECTED);
        let counted = |keys: &mut Keys<'_>, key| keys.size(key, MOST, MOST_EXPECTED);
        let hidden_size = wide(keys, "hidden_size")?;
        let heads = counted(keys, "num_attention_heads")?;
        let kv_heads = counted(keys, "num_key_value_heads")?;
        if !hidden_size.is_multiple_of(2 * heads) {
            return Err(keys.unsupported(
                "hidden_size",
                hidden_size,
                "a multiple of twice num_attention_heads",
            ));
        }
        if !heads.is_multiple_of(kv_heads) {
            return Err(keys.unsupported(
                "num_key_value_heads",
                kv_heads,
                "a divisor of num_attention_heads",
            ));
        }
        let head_dim = hidden_size / heads;
        let (rope_theta, mrope_section) = rope(keys, head_dim)?;
        let rms_norm_eps: f64 = keys.required("rms_norm_eps")?;
        if !(rms_norm_eps > 0.0 && rms_norm_eps < 1.0) {
            let expected = "a small positive number, such as 1e-6";
            return Err(keys.unsupported("rms_norm_eps", rms_norm_eps, expected));
        }
        let config = Self {
            vocab_size: wide(keys, "vocab_size")?,
            hidden_size,
            intermediate_size: wide(keys, "intermediate_size")?,
            num_hidden_layers: counted(keys, "num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            max_position_embeddings: wide(keys, "max_position_embeddings")?,
            rms_norm_eps,
            rope_theta,
            mrope_section,
        };
        check_the_rest(keys, head_dim)?;
        Ok(config)
    }
}

/// What has one value that can be computed, and what makes no difference.
fn check_the_rest(keys: &mut Keys<'_>, head_dim: usize) -> Result<(), ConfigError> {
    let kinds = ["qwen2_5_vl", "qwen2_5_vl_text"];
    keys.check("model_type", "\"qwen2_5_vl_text\"", |kind| {
        kinds.iter().any(|known| kind == known)
    })?;
    keys.check("hidden_act", "\"silu\"", |act| act == "silu")?;
    let expected = "hidden_size / num_attention_heads";
    keys.check_number("head_dim", expected, head_dim as f64)?;
    keys.check_number("attention_dropout", "0: nothing is dropped", 0.0)?;
    keys.check_number("partial_rotary_factor", "1: whole heads are rotated", 1.0)?;
    keys.check("use_sliding_window", "false", |sliding| sliding == false)?;
    keys.check("layer_types", "\"full_attention\" throughout", |types| {
        let types = types.as_array().map(Vec::as_slice);
        types.is_some_and(|types| types.iter().all(|kind| kind == "full_attention"))
    })?;
    // Sizes of the sliding window, which is off; and ids that the outer object has.
    keys.harmless(&[
        "image_token_id",
        "max_window_layers",
        "sliding_window",
        "video_token_id",
        "vision_end_token_id",
        "vision_start_token_id",
        "vision_token_id",
    ]);
    Ok(())
}

/// The base of the rotary frequencies and how they are shared out among time, height and width.
///
/// The base stands by itself (`rope_theta`) or with the rest, in `rope_scaling` or, since
/// transformers 5, in `rope_parameters`.
fn rope(keys: &mut Keys<'_>, head_dim: usize) -> Result<(f64, [usize; 3]), ConfigError> {
    let mut theta: Option<f64> = keys.optional("rope_theta")?;
    let mut section: Option<[usize; 3]> = None;
    for key in ["rope_parameters", "rope_scaling"] {
        let Some(mut rope) = keys.object(key)? else {
            continue;
        };
        for key in ["rope_type", "type"] {
            let expected = "\"default\" or \"mrope\": no stretching of the context";
            rope.check(key, expected, |kind| kind == "default" || kind == "mrope")?;
        }
        let own: Option<f64> = rope.optional("rope_theta")?;
        if let (Some(own), Some(other)) = (own, theta)
            && own != other
        {
            return Err(rope.unsupported("rope_theta", own, "the base that is given elsewhere"));
        }
        theta = theta.or(own);
        let own: Option<[usize; 3]> = rope.optional("mrope_section")?;
        if let (Some(own), Some(other)) = (own, section)
            && own != other
        {
            let expected = "the same as in rope_parameters";
            return Err(rope.unsupported("mrope_section", own.to_vec(), expected));
        }
        section = section.or(own);
        rope.check("mrope_interleaved", "false", |value| *value == false)?;
        rope.check_number("partial_rotary_factor", "1: whole heads are rotated", 1.0)?;
        rope.check_number("factor", "1: no stretching of the context", 1.0)?;
        rope.check_number("attention_factor", "1", 1.0)?;
        rope.nothing_else("only rope_type, type, rope_theta and mrope_section")?;
    }
    let theta = theta.unwrap_or(DEFAULT_THETA);
    if !(theta.is_finite() && theta > 0.0) {
        return Err(keys.unsupported("rope_theta", theta, "a positive number"));
    }
    let section = section.unwrap_or_default();
    // Checked: these are any numbers a file may hold.
    let sum = section
        .iter()
        .try_fold(0usize, |sum, n| sum.checked_add(*n));
    if sum != Some(head_dim / 2) {
        return Err(keys.unsupported(
            "rope_scaling.mrope_section",
            section.to_vec(),
            "three numbers whose sum is half of a head's width",
        ));
    }
    Ok((theta, section))
}

/// Tells of keys that the outer object repeats with another value than `text_config`.
pub(super) fn warn_of_contradictions(root: &Keys<'_>, nested: &Keys<'_>, file: &Path) {
    for key in contradictions(root, nested) {
        tracing::warn!(
            file = %file.display(),
            key,
            "the value in text_config counts, the one outside it is another"
        );
    }
}

fn contradictions(root: &Keys<'_>, nested: &Keys<'_>) -> Vec<&'static str> {
    let differ = |key: &&&str| match (root.peek(key), nested.peek(key)) {
        // The same said in two ways, as versions of `transformers` differ.
        _ if key.starts_with("rope_") => false,
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_f64() != b.as_f64(),
        (Some(a), Some(b)) => a != b,
        _ => false,
    };
    KEYS.iter().filter(differ).copied().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    #[test]
    fn values_that_differ_inside_and_outside_are_found() {
        let keys = |value: Value| {
            let map = value.as_object().unwrap().clone();
            Keys::new(Path::new("config.json"), map)
        };
        let outside = keys(json!({
            "vocab_size": 5, "rms_norm_eps": 1e-6, "hidden_size": 8.0, "hidden_act": "gelu",
            "rope_scaling": {"type": "mrope"}, "sliding_window": 4, "other": 1,
        }));
        let inside = keys(json!({
            "vocab_size": 6, "rms_norm_eps": 1e-6, "hidden_size": 8, "hidden_act": "silu",
            "rope_scaling": {"rope_type": "default"}, "sliding_window": null, "other": 2,
        }));
        assert_eq!(
            contradictions(&outside, &inside),
            ["hidden_act", "vocab_size"]
        );
    }
}

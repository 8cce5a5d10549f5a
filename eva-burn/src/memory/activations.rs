//! What is computed on the way, at the step that takes most of it.
//!
//! Each step is written down as the tensors that are alive in it, in numbers a patch or a token, and
//! the largest counts. `tests/calculator_measured.rs` measures the same with an allocator that counts.

use super::activation_bytes;
use crate::attention::QUERY_BLOCK;
use crate::config::ModelConfig;
use crate::quantized::TILE_BYTES;
use crate::weights::Precision;

/// Peak bytes of the vision tower with so many patches seen at once, the patches among them.
///
/// - patches: before merging, four to a visual token in the published models
#[must_use]
pub fn vision_bytes(config: &ModelConfig, patches: u64, precision: Precision) -> u64 {
    let vision = &config.vision;
    let (width, inner) = (vision.hidden_size as u64, vision.intermediate_size as u64);
    let (heads, head) = (vision.num_heads as u64, vision.head_dim() as u64);
    let window = ((vision.window_size / vision.merged_side()) * vision.spatial_merge_size) as u64;
    // Pixels are f32, whatever follows.
    let pixels = 4 * vision.patch_values() as u64;
    let is_full = |block: usize| vision.fullatt_block_indexes.contains(&block);
    let full = (0..vision.depth).any(is_full);
    let windowed = !(0..vision.depth).all(is_full);

    // The stream and what is added to it; gate, its activation and their product with the other.
    let mut step = 2 * width + 3 * inner;
    if windowed {
        // The stream; queries, keys and values, as they are made and by window; then the scores of each
        // patch with its window, before and after the softmax.
        let scores = heads * window * window;
        step = step.max(9 * width + scores).max(7 * width + 2 * scores);
    }
    if full {
        // The same for a block of queries with the whole picture.
        step = step.max(6 * width + 2 * heads * QUERY_BLOCK as u64);
    }
    // Cosines, sines, and the order of patches.
    let tables = head + 2;
    let bytes = activation_bytes(precision);
    let computed = bytes * (step + tables);
    // At first: a copy of the pixels, and what they become.
    let embedded = pixels + bytes * width;
    let all = patches.saturating_mul(pixels + computed.max(embedded));
    all.saturating_add(written_out(precision))
}

/// Peak bytes of the decoder when it reads `new` tokens, the last of `all` in the conversation; keys
/// and values are not among them.
#[must_use]
pub fn reading_bytes(config: &ModelConfig, new: u64, all: u64, precision: Precision) -> u64 {
    let text = &config.text;
    let (width, inner) = (text.hidden_size as u64, text.intermediate_size as u64);
    let (heads, head) = (text.num_attention_heads as u64, text.head_dim() as u64);
    let keys = text.num_key_value_heads as u64 * head;
    // The stream and what is added to it; gate, its activation and their product with the other.
    let feed_forward = new.saturating_mul(2 * width + 3 * inner);
    // The stream, queries and what comes out; keys and values; then the scores of one block of queries
    // with all keys, before and after the softmax.
    let block = new.min(QUERY_BLOCK as u64);
    let scores = (2 * heads * block).saturating_mul(all);
    // Beside packed weights keys and values are kept in 16 bits, and a layer's are widened.
    let widened = match precision.is_quantized() {
        true => (2 * keys).saturating_mul(all),
        false => 0,
    };
    let attention = new
        .saturating_mul(3 * width + 2 * keys)
        .saturating_add(scores)
        .saturating_add(widened);
    let tables = new.saturating_mul(head);
    attention
        .max(feed_forward)
        .saturating_add(tables)
        .saturating_mul(activation_bytes(precision))
        .saturating_add(written_out(precision))
}

/// Packed weights that are written out as floats at a time.
const fn written_out(precision: Precision) -> u64 {
    if precision.is_quantized() {
        TILE_BYTES as u64
    } else {
        0
    }
}

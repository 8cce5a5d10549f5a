//! The model before any training: configuration, tokenizer, chat template.

use std::path::Path;

use eva_burn::train::tokenizer;
use serde_json::json;

use eva::core::OwnedPart;
use eva::world::Split;

use super::lessons::taught;
use super::questions::Quiz;
use crate::Failure;

/// Digits and what frames show stay tokens of their own: the model compares and copies them.
const APART: &str =
    r"\d|\b(?:red|green|blue|yellow|purple|white|none|plain|stripes|dots|rings|dark|bright)\b";

/// Conversations whose texts the tokenizer is trained on.
const CORPUS: u32 = 600;

/// Qwen's layout: every message between `<|im_start|>` and `<|im_end|>`, pictures as one pad token.
const CHAT_TEMPLATE: &str = "{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% for part in message.content -%}
{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
";

/// Writes everything but the weights.
pub(crate) fn write(dir: &Path) -> Result<(), Failure> {
    let texts = texts(CORPUS)?;
    let size = tokenizer::train(
        texts.iter().map(String::as_str),
        APART,
        4096,
        &dir.join("tokenizer.json"),
    )?;
    crate::say(format_args!("tokenizer: {size} tokens"));
    // Whole rows of a cache line.
    let vocabulary = size.div_ceil(16) * 16;
    let id = |content: &str| {
        tokenizer::SPECIAL
            .iter()
            .position(|special| *special == content)
    };
    let text_width = 128;
    let files = [
        (
            "config.json",
            json!({
                "architectures": ["Qwen2_5_VLForConditionalGeneration"],
                "model_type": "qwen2_5_vl",
                "vocab_size": vocabulary,
                "hidden_size": text_width,
                "intermediate_size": 384,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "hidden_act": "silu",
                "max_position_embeddings": 16384,
                "rms_norm_eps": 1e-6,
                "rope_theta": 10000.0,
                "rope_scaling": {"type": "mrope", "mrope_section": [6, 5, 5]},
                "use_sliding_window": false,
                "tie_word_embeddings": true,
                "bos_token_id": id("<|endoftext|>"),
                "eos_token_id": id("<|im_end|>"),
                "vision_start_token_id": id("<|vision_start|>"),
                "vision_end_token_id": id("<|vision_end|>"),
                "image_token_id": id("<|image_pad|>"),
                "torch_dtype": "float32",
                "vision_config": {
                    "depth": 2,
                    "hidden_size": 64,
                    "intermediate_size": 160,
                    "num_heads": 2,
                    "in_chans": 3,
                    "out_hidden_size": text_width,
                    "patch_size": 14,
                    "spatial_merge_size": 2,
                    "spatial_patch_size": 14,
                    "temporal_patch_size": 2,
                    "tokens_per_second": 2,
                    "window_size": 112,
                    "fullatt_block_indexes": [1],
                    "hidden_act": "silu",
                },
            }),
        ),
        (
            "generation_config.json",
            json!({
                "do_sample": false,
                "eos_token_id": [id("<|im_end|>"), id("<|endoftext|>")],
                "pad_token_id": id("<|endoftext|>"),
                "repetition_penalty": 1.0,
            }),
        ),
        (
            "preprocessor_config.json",
            json!({
                "image_processor_type": "Qwen2VLImageProcessor",
                "processor_class": "Qwen2_5_VLProcessor",
                // A scan's frame is a single merged patch: it must not be enlarged.
                "min_pixels": 28 * 28,
                "max_pixels": 12_845_056,
                "patch_size": 14,
                "temporal_patch_size": 2,
                "merge_size": 2,
                "image_mean": [0.481_454_66, 0.457_827_5, 0.408_210_73],
                "image_std": [0.268_629_54, 0.261_302_58, 0.275_777_11],
            }),
        ),
        (
            "tokenizer_config.json",
            json!({
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
                "model_max_length": 16384,
            }),
        ),
    ];
    for (name, content) in files {
        std::fs::write(dir.join(name), format!("{content:#}\n"))?;
    }
    std::fs::write(dir.join("chat_template.jinja"), CHAT_TEMPLATE)?;
    Ok(())
}

/// All texts of some conversations.
fn texts(count: u32) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    for number in 0..count {
        let quiz = Quiz::numbered(Split::Train, number);
        let conversation = taught(&quiz, u64::from(number))?;
        for message in conversation.into_messages() {
            texts.extend(message.parts.into_iter().filter_map(|part| match part {
                OwnedPart::Text(text) => Some(text),
                OwnedPart::Image(_) => None,
            }));
        }
    }
    let roles = ["system\n", "user\n", "assistant\n", "tool\n"].map(str::to_owned);
    texts.extend(roles.into_iter().cycle().take(400));
    Ok(texts)
}

//! A model small enough to be trained in a test, and conversations to train it with.

use std::path::Path;

use eva_burn::ModelConfig;
use eva_burn::chat::Chat;
use eva_burn::config::ImageConfig;
use eva_burn::train::{Example, tokenizer};
use eva_core::{Message, Part, RgbImage, Role};
use serde_json::json;

pub const QUESTION: &str = "What digit is on the red card?";
pub const REPLY: &str = "Summary: The frame shows 7.\n<answer>7</answer>";

pub const GOOD: [bool; 4] = [true, false, true, false];

/// A model directory without weights.
pub fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let texts = [
        QUESTION,
        REPLY,
        "system\n",
        "user\n",
        "assistant\n",
        "tool\n",
    ];
    let texts = texts.iter().cycle().take(60).copied();
    let size = tokenizer::train(texts, r"\d|red", 320, &dir.path().join("tokenizer.json")).unwrap();
    let config = json!({
        "model_type": "qwen2_5_vl", "vocab_size": size, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
        "tie_word_embeddings": true, "image_token_id": 5,
        "vision_config": {"depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2,
            "window_size": 56, "fullatt_block_indexes": [1], "out_hidden_size": 32},
    });
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}\
        {% if p.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ p.text }}\
        {% endif %}{% endfor %}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    let images = json!({"min_pixels": 784, "max_pixels": 100_000});
    std::fs::write(
        dir.path().join("preprocessor_config.json"),
        images.to_string(),
    )
    .unwrap();
    dir
}

pub struct Parts {
    pub config: ModelConfig,
    pub images: ImageConfig,
    pub chat: Chat,
}

pub fn parts(dir: &Path) -> Parts {
    let config = ModelConfig::load(dir).unwrap();
    let chat = Chat::load(dir, config.image_token_id).unwrap();
    Parts {
        images: ImageConfig::load(dir).unwrap(),
        chat,
        config,
    }
}

pub fn picture(shade: u8) -> RgbImage {
    let rgb = (0..84 * 56 * 3)
        .map(|index| shade.wrapping_mul(17) ^ (index % 251) as u8)
        .collect();
    RgbImage::new(84, 56, rgb).unwrap()
}

pub fn text(role: Role, part: &'static [Part<'static, RgbImage>]) -> Message<'static, RgbImage> {
    Message { role, parts: part }
}

pub fn example(parts: &Parts, shade: u8) -> Example {
    let image = picture(shade);
    let shown = [Part::Text("Frame 0 at [00:10]: "), Part::Image(&image)];
    let conversation = [
        text(Role::User, &[Part::Text(QUESTION)]),
        text(Role::Assistant, &[Part::Text("red")]),
        Message {
            role: Role::Tool,
            parts: &shown,
        },
        text(Role::Assistant, &[Part::Text(REPLY)]),
    ];
    Example::new(&conversation, &parts.chat, &parts.config, &parts.images).unwrap()
}

/// A question about a picture, with a look at another one before the reply.
pub fn look(parts: &Parts, shade: u8, reply: &str) -> Example {
    let (asked, seen) = (picture(shade), picture(shade + 100));
    let (question, shown) = (
        [Part::Image(&asked), Part::Text(QUESTION)],
        [Part::Image(&seen)],
    );
    let (call, reply) = ([Part::Text("red")], [Part::Text(reply)]);
    let conversation = [
        (Role::User, &question[..]),
        (Role::Assistant, &call[..]),
        (Role::Tool, &shown[..]),
        (Role::Assistant, &reply[..]),
    ]
    .map(|(role, parts)| Message { role, parts });
    Example::new(&conversation, &parts.chat, &parts.config, &parts.images).unwrap()
}

//! What batches and what is kept between turns save.
//!
//!     cargo bench -p eva-burn --bench generate
//!
//! - `batch`: tokens a second of 1, 4, 16 and 64 conversations together, against one after the other,
//!   of eva-tiny and of a decoder of 0.1 billion random weights. Reading the prompts is counted apart.
//! - `rounds`: three turns that bring 8 pictures each, with contexts kept and with nothing kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Instant;

use eva_burn::chat::Chat;
use eva_burn::config::{GenerationConfig, ImageConfig};
use eva_burn::{BurnPolicy, Device, ModelConfig, Qwen25Vl, bundled};
use eva_core::{Continuation, Message, Part, Policy, RgbImage, Role};

/// eva-tiny, or its tokenizer with random weights of another shape, whose replies end with their limit
/// alone.
fn policy(large: bool) -> BurnPolicy {
    let dir = tempfile::tempdir().unwrap();
    bundled::unpack(dir.path()).unwrap();
    let mut config = ModelConfig::load(dir.path()).unwrap();
    let device = Device::flex();
    let model = if large {
        let text = &mut config.text;
        text.hidden_size = 768;
        text.intermediate_size = 3072;
        text.num_hidden_layers = 12;
        text.num_attention_heads = 12;
        text.num_key_value_heads = 2;
        text.mrope_section = [8, 12, 12];
        config.vision.hidden_size = 320;
        config.vision.intermediate_size = 860;
        config.vision.num_heads = 4;
        config.vision.depth = 8;
        config.vision.fullatt_block_indexes = vec![3, 7];
        config.vision.out_hidden_size = 768;
        Qwen25Vl::random(&config, 1, &device).unwrap()
    } else {
        Qwen25Vl::load(&config, dir.path(), &device).unwrap()
    };
    let images = ImageConfig::load(dir.path()).unwrap();
    let chat = Chat::load(dir.path(), config.image_token_id).unwrap();
    let generation = GenerationConfig {
        eos_token_ids: vec![u32::MAX],
        repetition_penalty: 1.05,
        ..GenerationConfig::default()
    };
    BurnPolicy::new(model, config, images, chat, &generation, &device)
}

fn picture(shade: u32) -> RgbImage {
    let (width, height) = (308u32, 168u32);
    let rgb = (0..width * height * 3).map(|at| (shade.wrapping_mul(37) ^ (at % 251)) as u8);
    RgbImage::new(width, height, rgb.collect()).unwrap()
}

/// Seconds to continue conversations of some 300 tokens by `tokens` each.
fn batch(policy: &mut BurnPolicy, count: usize, together: bool) -> f64 {
    policy.forget();
    let texts: Vec<String> = (0..count)
        .map(|index| {
            format!(
                "{index}: {}",
                "which card is the red one? ".repeat(24 + index % 8)
            )
        })
        .collect();
    let parts: Vec<[Part<'_, RgbImage>; 1]> = texts
        .iter()
        .map(|text| [Part::Text(text.as_str())])
        .collect();
    let messages: Vec<[Message<'_, RgbImage>; 1]> = parts
        .iter()
        .map(|parts| {
            [Message {
                role: Role::User,
                parts,
            }]
        })
        .collect();
    let mut replies = vec![String::new(); count];
    let began = Instant::now();
    if together {
        let turns = messages.iter().zip(&mut replies);
        let mut turns: Vec<_> = turns
            .map(|(conversation, reply)| Continuation {
                conversation,
                reply,
            })
            .collect();
        policy.generate_batch(&mut turns, &mut |_, ended| {
            ended.unwrap();
        });
    } else {
        for (conversation, reply) in messages.iter().zip(&mut replies) {
            policy.generate(conversation, reply).unwrap();
        }
    }
    began.elapsed().as_secs_f64()
}

/// Seconds for three turns, each with 8 pictures more.
fn rounds(policy: &mut BurnPolicy, kept: bool) -> f64 {
    policy.forget();
    let pictures: Vec<RgbImage> = (0..24).map(picture).collect();
    let system = [Part::Text(
        "You answer questions about videos and look at frames first.",
    )];
    let question = [Part::Text(
        "Which card is shown when the blue ball leaves the frame?",
    )];
    let reply = [Part::Text(
        "Summary: not seen yet. Plan: look at the next minute. Action: look.",
    )];
    let frames: Vec<Vec<Part<'_, RgbImage>>> = pictures
        .chunks(8)
        .map(|frames| {
            let label = Part::Text("Frame at [00:10]: ");
            frames
                .iter()
                .flat_map(|frame| [label, Part::Image(frame)])
                .collect()
        })
        .collect();
    let message = |role, parts| Message { role, parts };
    let mut messages = vec![
        message(Role::System, &system[..]),
        message(Role::User, &question),
    ];
    let mut seconds = 0.0;
    for frames in &frames {
        messages.push(message(Role::Assistant, &reply));
        messages.push(message(Role::Tool, frames));
        if !kept {
            policy.forget();
        }
        let began = Instant::now();
        policy.generate(&messages, &mut String::new()).unwrap();
        seconds += began.elapsed().as_secs_f64();
    }
    seconds
}

fn main() {
    // `cargo test` runs benchmarks too, to see that they work.
    let brief = !std::env::args().any(|argument| argument == "--bench");
    let counts: &[usize] = if brief { &[2] } else { &[1, 4, 16, 64] };
    for large in [false, true] {
        if brief && large {
            break;
        }
        let name = if large { "0.1B" } else { "eva-tiny" };
        let tokens = if large { 17 } else { 65 };
        let mut read = policy(large).with_max_new_tokens(1);
        let mut write = policy(large).with_max_new_tokens(tokens);
        for &count in counts {
            // The clock of one after the other does not depend on how many they are.
            let one = count.min(4);
            let share = count as f64 / one as f64;
            let alone_read = share * batch(&mut read, one, false);
            let alone = share * batch(&mut write, one, false);
            let together_read = batch(&mut read, count, true);
            let together = batch(&mut write, count, true);
            let rate = |seconds: f64| (count * (tokens - 1)) as f64 / seconds;
            let (before, after) = (rate(alone - alone_read), rate(together - together_read));
            println!(
                "batch  {name:>8} {count:>3}: {after:>7.1} tokens/s, one after the other {before:>7.1}: \
                 {:.2} times; with reading {:.2} times",
                after / before,
                alone / together,
            );
        }
    }
    for tokens in [1, 32] {
        let mut policy = policy(!brief).with_max_new_tokens(tokens);
        let without = rounds(&mut policy, false);
        let with = rounds(&mut policy, true);
        println!(
            "rounds {tokens:>2} tokens a reply: {with:.2} s kept, {without:.2} s without: {:.2}",
            with / without
        );
    }
}

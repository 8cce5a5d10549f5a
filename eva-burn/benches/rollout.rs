//! How fast rollouts are sampled, as one JSON object: beside PyTorch by `scripts/bench_train.sh`.
//!
//! ```text
//! cargo bench -p eva-burn --bench rollout
//! ```
//!
//! 64 conversations, 8 of each of 8 prompts of some 200 tokens, are continued by 100 tokens each at
//! temperature 1, and the log-probabilities of those are kept: what a turn of GRPO asks of a model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use eva_burn::chat::Chat;
use eva_burn::config::{GenerationConfig, ImageConfig};
use eva_burn::sample::Sampling;
use eva_burn::{BurnPolicy, DeviceChoice, ModelConfig, Qwen25Vl};
use eva_core::{Continuation, Message, Part, RgbImage, Role};

// As the example `train` has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Arguments {
    /// A model directory; eva-tiny unless told otherwise
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/eva-tiny"))]
    model: PathBuf,
    #[arg(long, default_value_t)]
    device: DeviceChoice,
    /// Conversations at a time
    #[arg(long, default_value_t = 64)]
    conversations: usize,
    /// Conversations that begin with the same prompt
    #[arg(long, default_value_t = 8)]
    group: usize,
    /// New tokens of each
    #[arg(long, default_value_t = 100)]
    tokens: usize,
    /// How often; the best counts
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// A policy whose replies end with their limit alone.
fn policy(arguments: &Arguments) -> BurnPolicy {
    let dir = &arguments.model;
    let device = arguments.device.open().unwrap();
    let config = ModelConfig::load(dir).unwrap();
    let model = Qwen25Vl::load(&config, dir, &device).unwrap();
    let images = ImageConfig::load(dir).unwrap();
    let chat = Chat::load(dir, config.image_token_id).unwrap();
    let generation = GenerationConfig {
        eos_token_ids: vec![u32::MAX],
        ..GenerationConfig::default()
    };
    let sampling = Sampling::Random {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        seed: 1,
    };
    BurnPolicy::new(model, config, images, chat, &generation, &device).with_sampling(sampling, 1.0)
}

/// Seconds that it takes to continue all conversations by so many tokens, and the tokens of a prompt.
fn play(policy: BurnPolicy, arguments: &Arguments, tokens: usize) -> (BurnPolicy, f64, usize) {
    let mut policy = policy.with_max_new_tokens(tokens);
    policy.forget();
    let count = arguments.conversations.max(1);
    let texts: Vec<String> = (0..count)
        .map(|index| {
            let prompt = index / arguments.group.max(1);
            format!("{prompt}: {}", "which card is the red one? ".repeat(26))
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
    let mut turns: Vec<_> = messages
        .iter()
        .zip(&mut replies)
        .map(|(conversation, reply)| Continuation {
            conversation,
            reply,
        })
        .collect();
    let mut samplers = policy.samplers(count);
    let (mut sampled, mut prompt) = (0, 0);
    let start = Instant::now();
    policy.generate_sampled(&mut turns, &mut samplers, &mut |_, ended| {
        let reply = ended.unwrap();
        assert_eq!(reply.tokens.len(), reply.log_probs.len());
        sampled += reply.tokens.len();
        prompt = reply.usage.prompt as usize;
    });
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(sampled, count * tokens);
    (policy, seconds, prompt)
}

fn main() {
    let mut arguments = Arguments::parse();
    // `cargo test` runs benchmarks too, to see that they work.
    if !arguments.bench {
        arguments.conversations = 2;
        arguments.tokens = 3;
        arguments.repeats = 1;
    }
    let mut policy = policy(&arguments);
    let (mut reading, mut all, mut prompt) = (f64::INFINITY, f64::INFINITY, 0);
    for _ in 0..arguments.repeats.max(1) {
        let (kept, seconds, tokens) = play(policy, &arguments, 1);
        reading = reading.min(seconds);
        let (kept, seconds, _) = play(kept, &arguments, arguments.tokens);
        all = all.min(seconds);
        (policy, prompt) = (kept, tokens);
    }
    let count = arguments.conversations.max(1);
    let written = (count * arguments.tokens.saturating_sub(1)) as f64;
    println!(
        "{}",
        serde_json::json!({
            "engine": "eva",
            "device": arguments.device.to_string(),
            "conversations": count,
            "prompt_tokens": prompt,
            "new_tokens": arguments.tokens,
            "reading_s": reading,
            "tokens_per_s": written / (all - reading),
            "tokens_per_s_with_reading": (count * arguments.tokens) as f64 / all,
        })
    );
}

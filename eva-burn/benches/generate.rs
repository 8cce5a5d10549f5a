//! What batches and what is kept between turns save.
//!
//!     cargo bench -p eva-burn --bench generate [-- batch|rounds]
//!
//! Seconds are those that this process had a core, all threads together, where the system tells them:
//! they hold whatever else the machine does. The clock's are in brackets.
//!
//! - `batch`: tokens a second of 1, 4, 16 and 64 conversations together, against one after the other,
//!   of eva-tiny and of a decoder of 0.1 billion random weights. Reading the prompts is counted apart.
//! - `rounds`: three turns that bring 8 pictures each, with contexts kept and with nothing kept: small
//!   pictures, and such as `benches/model.rs` prompts with (1,400 tokens a turn), in f32 and in bf16, as
//!   models are published.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Instant;

use eva_burn::chat::Chat;
use eva_burn::config::{GenerationConfig, ImageConfig};
use eva_burn::weights::{Precision, save};
use eva_burn::{BurnPolicy, Device, ModelConfig, Qwen25Vl, bundled};
use eva_core::{Continuation, Message, Part, Policy, RgbImage, Role, Usage};

/// eva-tiny, or its tokenizer with random weights of another shape, whose replies end with their limit
/// alone.
fn policy(large: bool, precision: Precision) -> BurnPolicy {
    let dir = tempfile::tempdir().unwrap();
    bundled::unpack(dir.path()).unwrap();
    let mut config = ModelConfig::load(dir.path()).unwrap();
    let device = Device::flex();
    if large {
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
        let random = Qwen25Vl::random(&config, 1, &device).unwrap();
        save(&random, &config, dir.path(), Precision::F32).unwrap();
    }
    let model = Qwen25Vl::load_as(&config, dir.path(), &device, precision).unwrap();
    let images = ImageConfig::load(dir.path()).unwrap();
    let chat = Chat::load(dir.path(), config.image_token_id).unwrap();
    let generation = GenerationConfig {
        eos_token_ids: vec![u32::MAX],
        repetition_penalty: 1.05,
        ..GenerationConfig::default()
    };
    BurnPolicy::new(model, config, images, chat, &generation, &device)
}

fn picture(shade: u32, (width, height): (u32, u32)) -> RgbImage {
    let rgb = (0..width * height * 3).map(|at| (shade.wrapping_mul(37) ^ (at % 251)) as u8);
    RgbImage::new(width, height, rgb.collect()).unwrap()
}

/// Seconds of a core and by the clock.
#[derive(Clone, Copy, Default)]
struct Cost {
    core: f64,
    clock: f64,
}

impl Cost {
    fn of<R>(compute: impl FnOnce() -> R) -> Self {
        let (began, busy_before) = (Instant::now(), busy());
        compute();
        let clock = began.elapsed().as_secs_f64();
        let core = busy()
            .zip(busy_before)
            .map_or(clock, |(after, before)| after - before);
        Self { core, clock }
    }

    fn plus(self, other: Self, times: f64) -> Self {
        Self {
            core: self.core + times * other.core,
            clock: self.clock + times * other.clock,
        }
    }
}

/// Time that this process has had cores, in seconds.
fn busy() -> Option<f64> {
    /// A second as the kernel counts it for programs.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name before it may hold anything, but ends with the last bracket.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut numbers = rest.split_whitespace().skip(11).map(str::parse::<f64>);
    Some((numbers.next()?.ok()? + numbers.next()?.ok()?) / TICKS)
}

/// To continue conversations of some 300 tokens by `tokens` each.
fn batch(policy: &mut BurnPolicy, count: usize, together: bool) -> Cost {
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
    Cost::of(|| {
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
    })
}

/// For three turns, each with 8 pictures more, and the tokens that each of them read.
fn rounds(policy: &mut BurnPolicy, size: (u32, u32), kept: bool) -> (Cost, Vec<u32>) {
    policy.forget();
    let pictures: Vec<RgbImage> = (0..24).map(|shade| picture(shade, size)).collect();
    let system = [Part::Text(eva_core::prompt::SYSTEM)];
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
    let (mut cost, mut read) = (Cost::default(), Vec::new());
    for frames in &frames {
        messages.push(message(Role::Assistant, &reply));
        messages.push(message(Role::Tool, frames));
        if !kept {
            policy.forget();
        }
        let mut usage = Usage::default();
        let turn = Cost::of(|| usage = policy.generate(&messages, &mut String::new()).unwrap());
        cost = cost.plus(turn, 1.0);
        read.push(usage.prompt - usage.cached);
    }
    (cost, read)
}

fn main() {
    // `cargo test` runs benchmarks too, to see that they work.
    let brief = !std::env::args().any(|argument| argument == "--bench");
    let arguments: Vec<String> = std::env::args().collect();
    let other = |name: &str| arguments.iter().any(|argument| argument == name);
    let named = |name: &str| other(name) || !(other("batch") || other("rounds"));
    if named("batch") {
        let shapes: &[bool] = if brief { &[false] } else { &[false, true] };
        for &large in shapes {
            batches(large, if brief { &[2] } else { &[1, 4, 16, 64] });
        }
    }
    if named("rounds") {
        let sizes: &[(u32, u32)] = if brief {
            &[(308, 168)]
        } else {
            &[(308, 168), (364, 364)]
        };
        let lengths = sizes.iter().flat_map(|size| [(size, 1), (size, 32)]);
        let all = lengths.flat_map(|(size, tokens)| {
            [Precision::F32, Precision::Bf16].map(|precision| (precision, size, tokens))
        });
        for (precision, &size, tokens) in all {
            let mut policy = policy(!brief, precision).with_max_new_tokens(tokens);
            // What only the first turns of a process cost is not meant.
            rounds(&mut policy, size, true);
            let (without, all) = rounds(&mut policy, size, false);
            let (with, new) = rounds(&mut policy, size, true);
            println!(
                "rounds {precision} {size:?} {tokens:>2} tokens a reply: {:.2} s kept, {:.2} s without: {:.2} times \
                 (clock: {:.2}); {new:?} tokens read, {all:?} without",
                with.core,
                without.core,
                with.core / without.core,
                with.clock / without.clock
            );
        }
    }
}

fn batches(large: bool, counts: &[usize]) {
    let name = if large { "0.1B" } else { "eva-tiny" };
    let tokens = if large { 17 } else { 129 };
    let mut read = policy(large, Precision::F32).with_max_new_tokens(1);
    let mut write = policy(large, Precision::F32).with_max_new_tokens(tokens);
    // Eight after each other stand for any number.
    let times = |count: usize| count as f64 / count.min(8) as f64;
    for &count in counts {
        let some = count.min(8);
        let alone = Cost::default().plus(batch(&mut write, some, false), times(count));
        let alone_written = alone.plus(batch(&mut read, some, false), -times(count));
        let together = batch(&mut write, count, true);
        let together_written = together.plus(batch(&mut read, count, true), -1.0);
        let rate = |cost: Cost| (count * (tokens - 1)) as f64 / cost.core;
        println!(
            "batch {name:>8} {count:>3}: {:>7.1} tokens/s of a core, one after the other {:>7.1}: \
             {:.2} times (clock: {:.2}); with reading {:.2} times",
            rate(together_written),
            rate(alone_written),
            alone_written.core / together_written.core,
            alone_written.clock / together_written.clock,
            alone.core / together.core,
        );
    }
}

//! How fast a model directory is trained by supervised steps, as one JSON object: beside PyTorch by
//! `scripts/bench_train.sh`.
//!
//! ```text
//! cargo bench -p eva-burn --bench train -- --threads 2
//! ```
//!
//! A step is 16 conversations of 300 tokens with three pictures of 112 x 84 pixels each, of which the last 120
//! tokens are learnt; the vision tower is frozen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use eva_burn::config::ImageConfig;
use eva_burn::input::Patches;
use eva_burn::train::{Batch, Example, Learn, Lora, Optimisation, Schedule, Trainer};
use eva_burn::{DeviceChoice, ModelConfig, Qwen25Vl};
use eva_core::RgbImage;

// As the example `train` has it: a step makes and drops many buffers of many sizes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Arguments {
    /// A model directory; eva-tiny unless told otherwise
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/eva-tiny"))]
    model: PathBuf,
    #[arg(long, default_value_t)]
    device: DeviceChoice,
    /// Conversations in a step
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Shards of a step
    #[arg(long, default_value_t = 2)]
    shards: usize,
    /// Shards at a time
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Tokens of a conversation, those of the pictures included
    #[arg(long, default_value_t = 300)]
    tokens: usize,
    /// Tokens that are learnt, the last ones
    #[arg(long, default_value_t = 120)]
    targets: usize,
    /// Pictures in a conversation
    #[arg(long, default_value_t = 3)]
    pictures: usize,
    /// Width and height of a picture in pixels
    #[arg(long, default_values_t = [112, 84], num_args = 2)]
    size: Vec<u32>,
    /// Steps; the first two do not count
    #[arg(long, default_value_t = 12)]
    steps: usize,
    /// Trains adapters of this rank
    #[arg(long)]
    lora: Option<usize>,
    /// Trains the vision tower, too
    #[arg(long, conflicts_with = "lora")]
    everything: bool,
    /// Computes activations again instead of keeping them
    #[arg(long)]
    checkpoint_activations: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// A conversation that PyTorch is given too: token `n` of the text is `20 + (7919 n + 13 index) % 600`.
fn example(arguments: &Arguments, config: &ModelConfig, index: usize) -> Example {
    let [width, height] = arguments.size[..] else {
        panic!("two sides")
    };
    let images = ImageConfig {
        min_pixels: 784,
        ..ImageConfig::default()
    };
    let mut patches = Patches::default();
    let mut tokens = Vec::new();
    for picture in 0..arguments.pictures {
        let seed = (index * arguments.pictures + picture) as u32;
        let values = (0..width * height * 3).map(|at| (at * 31 + seed * 17) as u8);
        let image = RgbImage::new(width, height, values.collect()).unwrap();
        patches.push(&image, &images, &config.vision).unwrap();
        let count = patches.grids[picture].tokens(config.vision.spatial_merge_size);
        tokens.extend(std::iter::repeat_n(config.image_token_id, count));
    }
    let text = arguments.tokens.saturating_sub(tokens.len());
    let (all, targets) = (tokens.len() + text, arguments.targets);
    assert!(targets < text, "the targets are text");
    tokens.extend((0..text).map(|n| 20 + ((7919 * n + 13 * index) % 600) as u32));
    Example {
        tokens,
        turns: std::iter::once(all - targets..all).collect(),
        patches,
    }
}

/// The most memory this process has had, in bytes; Linux alone tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn main() {
    let arguments = Arguments::parse();
    let device = arguments.device.open().unwrap().autodiff();
    let config = ModelConfig::load(&arguments.model).unwrap();
    let model = Qwen25Vl::load(&config, &arguments.model, &device).unwrap();
    let learn = match (arguments.lora, arguments.everything) {
        (Some(rank), _) => Learn::Lora(Lora {
            rank,
            alpha: 16.0,
            seed: 0,
        }),
        (None, true) => Learn::Everything,
        (None, false) => Learn::Decoder,
    };
    let optimisation = Optimisation {
        learn,
        checkpoint_activations: arguments.checkpoint_activations,
        ..Optimisation::new(Schedule::new(1e-3, 0, arguments.steps))
    };
    let trainer = Trainer::new(model, config.clone(), optimisation).unwrap();
    let mut trainer = trainer.with_threads(arguments.threads).unwrap();
    let examples: Vec<Example> = (0..arguments.batch)
        .map(|index| example(&arguments, &config, index))
        .collect();
    let size = arguments.batch.div_ceil(arguments.shards.max(1)).max(1);
    let shards: Vec<Batch> = examples
        .chunks(size)
        .map(|chunk| Batch::new(chunk, &config))
        .collect();
    let mut seconds = Vec::new();
    let mut losses = Vec::new();
    for _ in 0..arguments.steps.max(3) {
        let start = Instant::now();
        losses.push(trainer.sft(&shards).loss);
        seconds.push(start.elapsed().as_secs_f64());
    }
    let mut counted = seconds.split_off(2);
    counted.sort_by(f64::total_cmp);
    let median = counted[counted.len() / 2];
    let tokens: usize = shards.iter().map(Batch::tokens_without_padding).sum();
    println!(
        "{}",
        serde_json::json!({
            "engine": "eva",
            "device": arguments.device.to_string(),
            "threads": arguments.threads,
            "batch": arguments.batch,
            "tokens": tokens,
            "targets": shards.iter().map(Batch::targets).sum::<usize>(),
            "step_s": median,
            "best_step_s": counted[0],
            "samples_per_s": arguments.batch as f64 / median,
            "tokens_per_s": tokens as f64 / median,
            "first_loss": losses[0],
            "last_loss": losses.last(),
            "peak_memory_bytes": peak_memory(),
        })
    );
}

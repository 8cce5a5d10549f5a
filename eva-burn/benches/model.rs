//! How fast a model directory is read, prompted and decoded, as one JSON object: beside other engines by
//! `scripts/bench_model.sh`, on a GPU by `make gpu`.
//!
//! ```text
//! cargo bench -p eva-burn --bench model -- --model DIR --device cpu --precision int8
//! ```
//!
//! The prompt is 1,500 tokens with 8 pictures of 364 x 364 pixels, unless told otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use eva_burn::config::ImageConfig;
use eva_burn::context::{Context, Picture, Prompt};
use eva_burn::input::Patches;
use eva_burn::weights::Precision;
use eva_burn::{Device, DeviceChoice, ModelConfig, Qwen25Vl};
use eva_core::RgbImage;

// As in the programs: the system's allocator gives the large buffers of a prompt back after each use and
// gets them anew, zeroed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Arguments {
    /// A model directory; `scripts/bench_model.py make` writes one with random weights
    #[arg(long)]
    model: PathBuf,
    #[arg(long, default_value_t)]
    device: DeviceChoice,
    #[arg(long, default_value_t)]
    precision: Precision,
    /// Tokens of the prompt, those of the pictures included
    #[arg(long, default_value_t = 1500)]
    prompt: usize,
    /// Pictures in the prompt
    #[arg(long, default_value_t = 8)]
    pictures: usize,
    /// Side of a picture in pixels
    #[arg(long, default_value_t = 364)]
    side: u32,
    /// Tokens to decode
    #[arg(long, default_value_t = 48)]
    tokens: usize,
    /// How often; the best counts
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Prints the ids of the tokens it decodes, too
    #[arg(long)]
    ids: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// A prompt that other engines can be given too: token `n` of the text is `(7919 n + 13) % 1000`.
fn prompt(arguments: &Arguments, config: &ModelConfig) -> Prompt {
    let side = arguments.side;
    let mut pictures = Vec::new();
    let mut tokens = Vec::new();
    for index in 0..arguments.pictures {
        let pixels = (0..side * side * 3)
            .map(|at| (at * 31 + index as u32 * 17) as u8)
            .collect();
        let image = RgbImage::new(side, side, pixels).unwrap();
        let mut patches = Patches::default();
        patches
            .push(&image, &ImageConfig::default(), &config.vision)
            .unwrap();
        let count = patches.grids[0].tokens(config.vision.spatial_merge_size);
        tokens.extend(std::iter::repeat_n(config.image_token_id, count));
        pictures.push(Picture {
            patches,
            hash: index as u64,
        });
    }
    let text = arguments.prompt.saturating_sub(tokens.len());
    assert!(text > 0, "the pictures alone take {} tokens", tokens.len());
    tokens.extend((0..text as u32).map(|n| (7919 * n + 13) % 1000));
    Prompt { tokens, pictures }
}

fn largest(scores: burn::tensor::Tensor<2>) -> u32 {
    let scores: Vec<f32> = scores.try_into_vec_as().unwrap();
    let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as u32
}

/// The most memory this process has had, in bytes; Linux alone tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

struct Run {
    prefill: f64,
    decode: f64,
    ids: Vec<u32>,
}

fn run(
    model: &Qwen25Vl,
    config: &ModelConfig,
    prompt: &Prompt,
    count: usize,
    device: &Device,
) -> Run {
    let mut context = Context::new(config, device);
    let start = Instant::now();
    let scores = context.read(model, &prompt.tokens, &prompt.pictures, config, device);
    let mut next = largest(scores.unwrap());
    let prefill = start.elapsed().as_secs_f64();
    let mut ids = vec![next];
    let start = Instant::now();
    for _ in 0..count {
        let scores = context.read(model, &[next], &[], config, device);
        next = largest(scores.unwrap());
        ids.push(next);
    }
    Run {
        prefill,
        decode: start.elapsed().as_secs_f64(),
        ids,
    }
}

fn main() {
    let arguments = Arguments::parse();
    let device = arguments.device.open().unwrap();
    let config = ModelConfig::load(&arguments.model).unwrap();
    let start = Instant::now();
    let model = Qwen25Vl::load_as(&config, &arguments.model, &device, arguments.precision).unwrap();
    device.sync().unwrap();
    let load = start.elapsed().as_secs_f64();
    let prompt = prompt(&arguments, &config);
    let runs: Vec<Run> = (0..arguments.repeats.max(1))
        .map(|_| run(&model, &config, &prompt, arguments.tokens, &device))
        .collect();
    let least = |of: fn(&Run) -> f64| runs.iter().map(of).fold(f64::INFINITY, f64::min);
    let mut line = serde_json::json!({
        "engine": "eva",
        "device": arguments.device.to_string(),
        "precision": arguments.precision.to_string(),
        "load_s": load,
        "first_prefill_s": runs[0].prefill,
        "prefill_s": least(|run| run.prefill),
        "prompt_tokens": prompt.tokens.len(),
        "pictures": prompt.pictures.len(),
        "decode_tokens_per_s": arguments.tokens as f64 / least(|run| run.decode),
        "peak_memory_bytes": peak_memory(),
    });
    if arguments.ids {
        line["ids"] = runs[0].ids.clone().into();
    }
    println!("{line}");
}

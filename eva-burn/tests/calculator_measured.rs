//! What the memory calculator says of weights and of the largest steps, against an allocator that
//! counts. One test alone: what runs beside it would be counted too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use eva_burn::config::ImageConfig;
use eva_burn::input::Patches;
use eva_burn::memory::{kv_bytes_per_token, reading_bytes, vision_bytes, weight_bytes};
use eva_burn::weights::{Precision, save};
use eva_burn::{BurnPolicy, DeviceChoice, ModelConfig, Qwen25Vl};
use eva_core::{Message, Part, Policy, RgbImage, Role, Usage};
use serde_json::json;

/// The system's allocator, with what is taken from it now and was at most.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn took(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(live, Relaxed);
}

// SAFETY: every call is passed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        took(size);
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a step leaves behind, what it took beyond what was there before, and what it made.
fn measured<T>(step: impl FnOnce() -> T) -> (usize, usize, T) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let made = step();
    let peak = PEAK.load(Relaxed).saturating_sub(before);
    (LIVE.load(Relaxed).saturating_sub(before), peak, made)
}

/// A model of the published proportions, an eighth as wide, with eva-tiny's tokenizer.
fn directory() -> (tempfile::TempDir, ModelConfig) {
    let dir = tempfile::tempdir().unwrap();
    eva_burn::bundled::unpack(dir.path()).unwrap();
    let config = json!({
        "model_type": "qwen2_5_vl", "vocab_size": 4096, "hidden_size": 448,
        "intermediate_size": 2368, "num_hidden_layers": 4, "num_attention_heads": 7,
        "num_key_value_heads": 1, "max_position_embeddings": 16384, "rms_norm_eps": 1e-6,
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
        "tie_word_embeddings": true, "image_token_id": 5,
        "vision_config": {"depth": 3, "hidden_size": 320, "intermediate_size": 855, "num_heads": 4,
            "window_size": 112, "fullatt_block_indexes": [2], "out_hidden_size": 448},
    });
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let config = ModelConfig::load(dir.path()).unwrap();
    let device = DeviceChoice::Cpu.open().unwrap();
    let model = Qwen25Vl::random(&config, 1, &device).unwrap();
    save(&model, &config, dir.path(), Precision::Bf16).unwrap();
    (dir, config)
}

#[track_caller]
fn close(name: &str, measured: usize, says: u64, [from, to]: [f64; 2]) {
    let share = says as f64 / measured as f64;
    println!("{name}: {measured} bytes measured, {says} said, {share:.2} of it");
    assert!(
        (from..=to).contains(&share),
        "{name}: {share:.2} of what it is"
    );
}

fn image(seed: u8) -> RgbImage {
    RgbImage::new(448, 448, vec![seed; 448 * 448 * 3]).unwrap()
}

/// Bytes that the vision tower takes for three pictures, and their number of patches.
fn look(config: &ModelConfig, dir: &Path, precision: Precision) -> (usize, u64) {
    let device = DeviceChoice::Cpu.open().unwrap();
    let model = Qwen25Vl::load_as(config, dir, &device, precision).unwrap();
    let see = || {
        let mut patches = Patches::default();
        let images = ImageConfig::default();
        for seed in 0..3 {
            patches.push(&image(seed), &images, &config.vision).unwrap();
        }
        let count = patches.grids.iter().map(|grid| grid.patches() as u64).sum();
        drop(model.see(&patches, config, &device));
        count
    };
    // Once before: threads and their scratch are there then.
    see();
    let (_, peak, count) = measured(see);
    (peak, count)
}

fn ask(policy: &mut BurnPolicy, parts: &[Part<'_, RgbImage>]) -> Usage {
    let role = Role::User;
    let mut reply = String::new();
    let conversation = [Message { role, parts }];
    policy.generate(&conversation, &mut reply).unwrap()
}

/// Bytes that the decoder takes to read a text, and its number of tokens.
fn read(config: &ModelConfig, dir: &Path, precision: Precision) -> (usize, u64) {
    let device = DeviceChoice::Cpu.open().unwrap();
    let policy = BurnPolicy::load_as(dir, &device, precision).unwrap();
    let mut policy = policy.with_max_new_tokens(1);
    ask(&mut policy, &[Part::Text("short")]);
    let text = "What digit is on the red card? ".repeat(80);
    let (_, peak, usage) = measured(|| ask(&mut policy, &[Part::Text(&text)]));
    println!("{usage:?} of {}", config.text.max_position_embeddings);
    (peak, u64::from(usage.prompt))
}

/// What the decoder takes to read so many tokens on the processor, which gates in place: of the three that are
/// counted in for a GPU, it has two.
fn reading_on_cpu(config: &ModelConfig, tokens: u64, precision: Precision) -> u64 {
    let kv = tokens * kv_bytes_per_token(config, precision);
    let gated = tokens * config.text.intermediate_size as u64 * 4;
    kv + reading_bytes(config, tokens, tokens, precision) - gated
}

#[test]
fn estimates_are_what_an_allocator_counts() {
    let (dir, config) = directory();
    let dir = dir.path();
    let device = DeviceChoice::Cpu.open().unwrap();
    for precision in Precision::ALL {
        let load = || Qwen25Vl::load_as(&config, dir, &device, precision).unwrap();
        let (live, _, model) = measured(load);
        let says = weight_bytes(&config, precision);
        close(&format!("weights, {precision}"), live, says, [0.98, 1.0]);
        drop(model);
    }

    let (peak, patches) = look(&config, dir, Precision::F32);
    let says = vision_bytes(&config, patches, Precision::F32);
    close("vision", peak, says, [0.98, 1.1]);
    let (peak, tokens) = read(&config, dir, Precision::F32);
    let says = reading_on_cpu(&config, tokens, Precision::F32);
    close("reading", peak, says, [0.98, 1.15]);

    // In blocks of integers the rest is the same, and some rows are written out as floats: not in attention, which
    // takes most of the tower's room.
    let (peak, patches) = look(&config, dir, Precision::Int8);
    let says = vision_bytes(&config, patches, Precision::F32);
    close("vision, int8", peak, says, [0.98, 1.1]);
    assert!(vision_bytes(&config, patches, Precision::Int8) > says);
    let (peak, tokens) = read(&config, dir, Precision::Int4);
    let says = reading_on_cpu(&config, tokens, Precision::Int4);
    close("reading, int4", peak, says, [0.9, 1.4]);

    // A turn with pictures takes the larger of the two.
    let policy = BurnPolicy::load(dir, &device).unwrap();
    let mut policy = policy.with_max_new_tokens(1);
    ask(&mut policy, &[Part::Text("short")]);
    let images: Vec<RgbImage> = (0..3).map(image).collect();
    let parts: Vec<_> = images.iter().map(Part::Image).collect();
    let (_, peak, usage) = measured(|| ask(&mut policy, &parts));
    let tokens = u64::from(usage.prompt);
    let kv = tokens * kv_bytes_per_token(&config, Precision::F32);
    let reading = reading_bytes(&config, tokens, tokens, Precision::F32);
    let says = kv + vision_bytes(&config, patches, Precision::F32).max(reading);
    close("a turn", peak, says, [0.9, 1.15]);

    // On the CPU only matrices, keys and values are in 16 bits: the rest is as in f32, and some rows are written out.
    let (peak, patches) = look(&config, dir, Precision::Bf16);
    let says = vision_bytes(&config, patches, Precision::F32);
    close("vision, bf16", peak, says, [0.98, 1.1]);
    let (peak, tokens) = read(&config, dir, Precision::Bf16);
    let says = reading_on_cpu(&config, tokens, Precision::Int8);
    close("reading, bf16", peak, says, [0.95, 1.4]);
}

//! Peak memory of attention over long inputs: scores are made in blocks, never for all pairs at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use eva_burn::config::ImageConfig;
use eva_burn::context::Context;
use eva_burn::input::Patches;
use eva_burn::{Device, ModelConfig, Qwen25Vl, bundled, window_order};
use eva_core::RgbImage;

/// The system's allocator, which remembers the most bytes that were in use at a time.
struct Peak;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is left to the system's allocator; only sizes are counted.
unsafe impl GlobalAlloc for Peak {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Peak = Peak;

/// Bytes that a computation takes at most, beyond those in use before.
fn peak<R>(compute: impl FnOnce() -> R) -> (usize, R) {
    let before = USED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = compute();
    (PEAK.load(Ordering::Relaxed).saturating_sub(before), result)
}

fn shape() -> ModelConfig {
    let dir = tempfile::tempdir().unwrap();
    bundled::unpack(dir.path()).unwrap();
    ModelConfig::load(dir.path()).unwrap()
}

/// One test, for another at the same time would be counted as well.
#[test]
fn scores_of_all_pairs_are_never_in_memory() {
    let device = Device::flex();
    let config = shape();
    let model = Qwen25Vl::random(&config, 1, &device).unwrap();

    // A long prompt: 4 heads.
    let tokens: Vec<u32> = (0..6_000).map(|at| 10 + at % 600).collect();
    let square = 4 * tokens.len() * tokens.len() * 4;
    let (bytes, _) = peak(|| {
        let mut context = Context::new(&config, &device);
        context.read_all(&model, &tokens, &[], &config, &device)
    });
    println!("prompt: {bytes} bytes, all pairs would take {square}");
    assert!(bytes < square / 5);

    // A large picture: 2 heads, one block over windows and one over the whole picture.
    let patches = |shade: u8| {
        let images = ImageConfig::default();
        let (width, height) = (1120, 1120);
        // The last rows alone differ.
        let rgb = (0..width * height * 3).map(|at| match at / (width * 3) {
            0..=1007 => (at % 249) as u8,
            _ => shade,
        });
        let image = RgbImage::new(width as u32, height as u32, rgb.collect()).unwrap();
        let mut patches = Patches::default();
        patches.push(&image, &images, &config.vision).unwrap();
        patches
    };
    let picture = patches(1);
    let count = picture.grids[0].patches();
    let square = 2 * count * count * 4;
    let (bytes, _) = peak(|| model.see(&picture, &config, &device));
    println!("picture: {bytes} bytes, all pairs would take {square}");
    assert!(bytes < square / 4);

    // Windows alone take still less, and see nothing of each other.
    let mut windows = config.clone();
    windows.vision.fullatt_block_indexes.clear();
    let model = Qwen25Vl::random(&windows, 1, &device).unwrap();
    let (bytes, first) = peak(|| model.vision_states(&picture, &windows, &device));
    println!("windows: {bytes} bytes");
    assert!(bytes < square / 4);
    let second = model.vision_states(&patches(2), &windows, &device);
    let values = |state: &burn::tensor::Tensor<2>| state.clone().try_into_vec_as::<f32>().unwrap();
    let (first, second) = (
        values(first.last().unwrap()),
        values(second.last().unwrap()),
    );
    let order = window_order(&picture.grids, &windows.vision);
    let width = first.len() / count;
    let side = windows.vision.window_size / windows.vision.patch_size;
    let rows: Vec<bool> = order
        .iter()
        .map(|patch| first[patch * width..][..width] == second[patch * width..][..width])
        .collect();
    let equal = rows
        .chunks(side * side)
        .filter(|window| window.iter().all(|same| *same));
    let windows = count / (side * side);
    assert_eq!(
        (equal.count(), windows),
        (90, 100),
        "the last row of windows differs"
    );
}

//! Numbers of `transformers` against ours, on a tiny model with random weights.
//!
//! `EVA_FIXTURES=DIR` checks another directory of the same layout: `hf_model/` and `hf_flat/` (the
//! same weights with the nested and the flat configuration), `reference.safetensors`, `meta.json`.
//! `tests/fixtures/make.sh` makes them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};

use eva_burn::config::ImageConfig;
use eva_burn::context::Context;
use eva_burn::input::{Grid, Patches, smart_resize};
use eva_burn::rope::positions;
use eva_burn::{Device, ModelConfig, Qwen25Vl};

use common::{Reference, all_patches, argmax, assert_close, pictures};

fn fixtures() -> PathBuf {
    std::env::var_os("EVA_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/qwen2_5_vl_random"),
        PathBuf::from,
    )
}

#[test]
fn smart_resize_matches_the_processor() {
    let meta: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixtures().join("meta.json")).unwrap()).unwrap();
    let table = meta["smart_resize_h_w"].as_object().unwrap();
    assert!(!table.is_empty());
    for (size, expected) in table {
        let (h, w) = size.split_once('x').unwrap();
        let ours = smart_resize(
            h.parse().unwrap(),
            w.parse().unwrap(),
            28,
            56 * 56,
            12_845_056,
        );
        assert_eq!(serde_json::json!([ours.0, ours.1]), *expected, "{size}");
    }
}

#[test]
fn both_forms_of_the_configuration_are_the_same_model() {
    let nested = ModelConfig::load(&fixtures().join("hf_model")).unwrap();
    let flat = ModelConfig::load(&fixtures().join("hf_flat")).unwrap();
    assert_eq!(nested, flat);
    let images = |dir: &str| ImageConfig::load(&fixtures().join(dir)).unwrap();
    assert_eq!(images("hf_model"), images("hf_flat"));
}

#[test]
fn pixel_values_match_the_processor() {
    let reference = Reference::load(&fixtures());
    let dir = fixtures().join("hf_model");
    let (config, images) = (
        ModelConfig::load(&dir).unwrap(),
        ImageConfig::load(&dir).unwrap(),
    );
    let ours = all_patches(&pictures(&reference, &config, &images));
    // One step of 255 in normalised units.
    let step = 1.0 / 255.0 / images.std.iter().copied().fold(f32::INFINITY, f32::min) + 1e-5;
    let compare = |name: &str, ours: &Patches| {
        let expected = reference.f32(name);
        assert_eq!(ours.values().len(), expected.len(), "{name}");
        let worst = ours
            .values()
            .iter()
            .zip(&expected)
            .fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
        println!("{name}: largest difference {worst}, one step is {step}");
        assert!(worst <= step, "{name}: {worst} > {step}");
    };
    compare("pixel_values", &ours);
    let mut odd = Patches::default();
    odd.push(&reference.image("odd_rgb_u8"), &images, &config.vision)
        .unwrap();
    compare("odd_pixel_values", &odd);
    let grid = reference.i64("odd_grid_thw");
    assert_eq!(
        odd.grids,
        [Grid {
            rows: grid[1] as usize,
            columns: grid[2] as usize
        }]
    );
}

#[test]
fn positions_match_exactly() {
    let reference = Reference::load(&fixtures());
    let config = ModelConfig::load(&fixtures().join("hf_model")).unwrap();
    let tokens = reference.tokens();
    let grids: Vec<Grid> = reference
        .i64("image_grid_thw")
        .chunks(3)
        .map(|thw| Grid {
            rows: thw[1] as usize,
            columns: thw[2] as usize,
        })
        .collect();
    let (ours, next) = positions(
        &tokens,
        &grids,
        config.image_token_id,
        config.vision.spatial_merge_size,
    );
    let expected = reference.i64("position_ids");
    for axis in 0..3 {
        let ours: Vec<i64> = ours.iter().map(|place| i64::from(place[axis])).collect();
        assert_eq!(
            ours,
            expected[axis * tokens.len()..][..tokens.len()],
            "axis {axis}"
        );
    }
    assert_eq!(
        i64::from(next) - tokens.len() as i64,
        reference.i64("rope_delta")[0]
    );
}

/// The vision tower block by block, the decoder, 16 greedy tokens through the KV cache, and the
/// same again after the cache went back to a prefix.
fn model_matches(device: &Device, dir: &str) {
    let tolerance = common::tolerance(device);
    let reference = Reference::load(&fixtures());
    let dir = fixtures().join(dir);
    let (config, images) = (
        ModelConfig::load(&dir).unwrap(),
        ImageConfig::load(&dir).unwrap(),
    );
    let model = Qwen25Vl::load(&config, &dir, device).unwrap();
    let pictures = pictures(&reference, &config, &images);
    let patches = all_patches(&pictures);

    let order = eva_burn::window_order(&patches.grids, &config.vision);
    for (index, state) in model
        .vision_states(&patches, &config, device)
        .into_iter()
        .enumerate()
    {
        let width = state.dims()[1];
        let ours: Vec<f32> = state.try_into_vec_as().unwrap();
        if index == 0 {
            assert_close(
                "vision_patch_embed",
                &ours,
                &reference.f32("vision_patch_embed"),
                tolerance,
            );
            continue;
        }
        let name = format!("vision_block_{}_windoworder", index - 1);
        let ours: Vec<f32> = order
            .iter()
            .flat_map(|patch| ours[patch * width..][..width].iter().copied())
            .collect();
        assert_close(&name, &ours, &reference.f32(&name), tolerance);
    }
    let merged: Vec<f32> = model
        .see(&patches, &config, device)
        .try_into_vec_as()
        .unwrap();
    assert_close(
        "vision_merged",
        &merged,
        &reference.f32("vision_merged"),
        tolerance,
    );

    let tokens = reference.tokens();
    let mut context = Context::new(&config, device);
    let hidden = context
        .read_all(&model, &tokens, &pictures, &config, device)
        .unwrap();
    let states: Vec<f32> = hidden.clone().try_into_vec_as().unwrap();
    assert_close(
        "hidden_final_normed",
        &states,
        &reference.f32("hidden_final_normed"),
        tolerance,
    );
    let logits = model.logits(hidden.squeeze_dim::<2>(0));
    let logits: Vec<f32> = logits.try_into_vec_as().unwrap();
    assert_close("logits", &logits, &reference.f32("logits"), tolerance);

    let expected: Vec<u32> = reference
        .i64("generated")
        .iter()
        .map(|id| *id as u32)
        .collect();
    assert!(!expected.is_empty());
    let vocab = reference.shape("logits")[2];
    let mut next = argmax(&logits[logits.len() - vocab..]);
    let mut generated = Vec::new();
    for _ in 0..expected.len() {
        generated.push(next);
        let scores = context.read(&model, &[next], &[], &config, device).unwrap();
        next = argmax(&scores.try_into_vec_as::<f32>().unwrap());
    }
    assert_eq!(generated, expected, "greedy tokens");

    let prompt = eva_burn::context::Prompt {
        tokens: tokens.clone(),
        pictures: pictures.clone(),
    };
    let (kept, seen) = context.keep_prefix(&prompt, &config);
    assert_eq!(
        (kept, seen),
        (tokens.len() - 1, pictures.len()),
        "the prompt is still in the cache"
    );
    let scores = context
        .read(&model, &tokens[kept..], &[], &config, device)
        .unwrap();
    let again: Vec<f32> = scores.try_into_vec_as().unwrap();
    assert_close(
        "logits from the cached prefix",
        &again,
        &logits[logits.len() - vocab..],
        // On CUDA a prompt's products are rounded, a token's are not.
        if common::on_cuda(device) {
            tolerance
        } else {
            1e-4
        },
    );
}

#[test]
fn the_model_matches_on_the_cpu_with_the_nested_configuration() {
    model_matches(&Device::flex(), "hf_model");
}

#[test]
fn the_model_matches_on_the_cpu_with_the_flat_configuration() {
    model_matches(&Device::flex(), "hf_flat");
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
#[test]
fn the_model_matches_on_the_gpu() {
    model_matches(&common::gpu(), "hf_model");
}

//! The memory calculator against checkpoints, models and published numbers. What is computed on the
//! way is measured in `calculator_measured.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use eva_burn::memory::{
    ByteSize, Estimate, Workload, kv_bytes_per_token, parameter_count, parameters, table,
    weight_bytes,
};
use eva_burn::weights::Precision;
use eva_burn::{DeviceChoice, ModelConfig, Qwen25Vl};
use safetensors::SafeTensors;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn published(size: &str) -> ModelConfig {
    ModelConfig::load(&fixtures().join("published").join(size)).unwrap()
}

/// Every checkpoint at hand.
fn checkpoints() -> Vec<PathBuf> {
    let random = fixtures().join("qwen2_5_vl_random");
    let mut dirs = vec![
        Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/eva-tiny"),
        random.join("hf_flat"),
        random.join("hf_model"),
    ];
    for shape in std::fs::read_dir(fixtures().join("shapes")).unwrap() {
        dirs.push(shape.unwrap().path().join("hf_model"));
    }
    assert!(dirs.len() > 9, "{dirs:?}");
    dirs
}

#[test]
fn it_counts_the_tensors_of_every_checkpoint_and_of_the_model_made_of_it() {
    let device = DeviceChoice::Cpu.open().unwrap();
    for dir in checkpoints() {
        let config = ModelConfig::load(&dir).unwrap();
        let counted: BTreeMap<String, Vec<usize>> = parameters(&config)
            .into_iter()
            .map(|parameter| (parameter.name, parameter.shape))
            .collect();
        let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
        let stored: BTreeMap<String, Vec<usize>> = SafeTensors::deserialize(&bytes)
            .unwrap()
            .iter()
            .map(|(name, view)| (name.to_owned(), view.shape().to_vec()))
            .collect();
        assert_eq!(counted, stored, "{}", dir.display());

        let model = Qwen25Vl::load(&config, &dir, &device).unwrap();
        assert_eq!(parameter_count(&config), model.num_params() as u64);
        assert_eq!(
            weight_bytes(&config, Precision::F32),
            4 * parameter_count(&config)
        );
        assert_eq!(
            weight_bytes(&config, Precision::Bf16),
            2 * parameter_count(&config)
        );
    }
}

#[test]
fn the_published_models_have_their_published_sizes() {
    // 3.75 and 8.29 billion, by the metadata of their checkpoints.
    assert_eq!(parameter_count(&published("3b")), 3_754_622_976);
    assert_eq!(parameter_count(&published("7b")), 8_292_166_656);
    // Two of 36 layers, 2 heads, 128 numbers, 2 bytes.
    assert_eq!(
        kv_bytes_per_token(&published("3b"), Precision::Bf16),
        36_864
    );
    assert_eq!(
        kv_bytes_per_token(&published("7b"), Precision::F32),
        114_688
    );
}

#[test]
fn blocks_have_a_scale_for_32_weights_each() {
    let config = published("7b");
    let bits = |precision: Precision, name: &str| {
        let all = parameters(&config);
        let one = all.iter().find(|parameter| parameter.name == name).unwrap();
        one.bytes(precision) as f64 * 8.0 / one.count() as f64
    };
    let projection = "model.layers.3.mlp.down_proj.weight";
    assert_eq!(bits(Precision::Int8, projection), 8.5);
    assert_eq!(bits(Precision::Int4, projection), 4.5);
    for name in [
        "model.embed_tokens.weight",
        "lm_head.weight",
        "visual.blocks.0.attn.qkv.weight",
    ] {
        assert_eq!(bits(Precision::Int8, name), 8.5);
        assert_eq!(bits(Precision::Int4, name), 8.5);
    }
    for name in [
        "model.layers.3.self_attn.q_proj.bias",
        "model.norm.weight",
        "visual.blocks.0.attn.qkv.bias",
        "visual.patch_embed.proj.weight",
    ] {
        assert_eq!(bits(Precision::Int4, name), 32.0);
        assert_eq!(bits(Precision::F16, name), 16.0);
    }
}

#[test]
fn sums_fit_or_do_not() {
    let config = published("7b");
    let workload = Workload::default();
    let estimate = Estimate::new(&config, Precision::Bf16, &workload);
    let total = estimate.total();
    assert!(total > estimate.weights + estimate.kv);
    assert!(estimate.fits(ByteSize(total)));
    assert!(!estimate.fits(ByteSize(total - 1)));
    // Numbers that no machine has are not a panic.
    let endless = Workload {
        context: u64::MAX,
        turn: u64::MAX,
        picture: (u32::MAX, u32::MAX),
    };
    let estimate = Estimate::new(&config, Precision::F32, &endless);
    assert_eq!(estimate.total(), u64::MAX);
    // Nor the widest layers that a file may ask for.
    let mut widest = config;
    widest.vision.hidden_size = 1 << 24;
    widest.vision.spatial_merge_size = 1 << 6;
    for precision in Precision::ALL {
        let estimate = Estimate::new(&widest, precision, &workload);
        assert!(estimate.total() > 1 << 62, "{precision}");
    }
}

/// `docs/hardware.md` holds what the calculator says; with EVA_BLESS=1 it is written there.
#[test]
fn the_documented_tables_are_what_it_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hardware.md");
    let mut text = std::fs::read_to_string(&path).unwrap();
    let bless = std::env::var_os("EVA_BLESS").is_some();
    let budgets = [8, 16, 24].map(|size| ByteSize(size * 1_000_000_000));
    let small = Workload {
        context: 8_000,
        turn: 2_000,
        ..Workload::default()
    };
    for (size, workload, name) in [
        ("3b", Workload::default(), "3b-published"),
        ("7b", Workload::default(), "7b-published"),
        ("3b", small, "3b-small"),
        ("7b", small, "7b-small"),
    ] {
        let says = table(&published(size), &workload, &budgets, Estimate::new);
        let (begin, end) = (format!("<!-- {name} -->\n"), "<!-- end -->");
        let from = text.find(&begin).expect(name) + begin.len();
        let to = from + text[from..].find(end).expect(name);
        if bless {
            text.replace_range(from..to, &says);
        } else {
            assert_eq!(
                text[from..to],
                says,
                "{name}: run this test with EVA_BLESS=1"
            );
        }
    }
    if bless {
        std::fs::write(path, text).unwrap();
    }
}

//! Loading a checkpoint takes little more memory than the model: 1.5 GB of random weights, in a
//! process of its own whose peak the system tells.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;

use eva_burn::memory::{Parameter, parameters, weight_bytes};
use eva_burn::weights::Precision;
use eva_burn::{DeviceChoice, ModelConfig, Qwen25Vl};
use serde_json::{Value, json};

/// The directory for the process that loads, and the precision it loads in.
const DIRECTORY: &str = "EVA_TEST_LOADING_DIRECTORY";
const PRECISION: &str = "EVA_TEST_LOADING_PRECISION";

/// Most memory at any moment, of what the model takes in the end.
const MOST: f64 = 1.15;

/// A 1.5B-class decoder with half of its layers.
fn config() -> Value {
    json!({
        "model_type": "qwen2_5_vl", "vocab_size": 40_960, "hidden_size": 1536,
        "intermediate_size": 8960, "num_hidden_layers": 14, "num_attention_heads": 12,
        "num_key_value_heads": 2, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": true, "image_token_id": 5,
        "vision_config": {"depth": 4, "hidden_size": 640, "intermediate_size": 1710,
            "num_heads": 8, "window_size": 112, "fullatt_block_indexes": [3],
            "out_hidden_size": 1536},
    })
}

/// Writes a checkpoint of random weights in bf16, in three files.
fn write(dir: &Path) -> ModelConfig {
    std::fs::write(dir.join("config.json"), config().to_string()).unwrap();
    let config = ModelConfig::load(dir).unwrap();
    let all = parameters(&config);
    // Any bits with the exponent of a small number: what the values are makes no difference.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        [(state >> 8) as u8, 0x3C | (state & 0x80) as u8]
    })
    .take(1 << 20)
    .flatten()
    .collect();
    let mut weight_map = BTreeMap::new();
    for (number, part) in all.chunks(all.len().div_ceil(3)).enumerate() {
        let file = format!("model-{:05}-of-00003.safetensors", number + 1);
        weight_map.extend(part.iter().map(|one| (one.name.clone(), file.clone())));
        write_file(&dir.join(file), part, &noise);
    }
    let index = json!({"metadata": {}, "weight_map": weight_map}).to_string();
    std::fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    config
}

fn write_file(path: &Path, part: &[Parameter], noise: &[u8]) {
    let mut header = serde_json::Map::new();
    let mut at = 0;
    for one in part {
        let end = at + 2 * one.count();
        let entry = json!({"dtype": "BF16", "shape": one.shape, "data_offsets": [at, end]});
        header.insert(one.name.clone(), entry);
        at = end;
    }
    let mut header = Value::from(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let mut left = at as usize;
    while left > 0 {
        let piece = &noise[..left.min(noise.len())];
        file.write_all(piece).unwrap();
        left -= piece.len();
    }
    file.flush().unwrap();
}

/// A figure of this process's memory, in bytes.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let number = line.split_whitespace().nth(1).unwrap();
    number.parse::<u64>().unwrap() * 1024
}

/// Not a test: the process that loads. Says what it had before and at most.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn load_in_this_process() {
    let dir = std::env::var_os(DIRECTORY).expect("run by the test below");
    let precision: Precision = std::env::var(PRECISION).unwrap().parse().unwrap();
    let config = ModelConfig::load(dir.as_ref()).unwrap();
    let device = DeviceChoice::Cpu.open().unwrap();
    let before = status("VmHWM:");
    let model = Qwen25Vl::load_as(&config, dir.as_ref(), &device, precision).unwrap();
    println!(
        "\nmemory {before} {} {}",
        status("VmRSS:"),
        status("VmHWM:")
    );
    drop(model);
}

#[test]
fn loading_takes_little_more_than_the_model() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let config = write(dir.path());
    for precision in [Precision::Bf16, Precision::F32] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "load_in_this_process",
                "--ignored",
                "--nocapture",
            ])
            .env(DIRECTORY, dir.path())
            .env(PRECISION, precision.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        let line = text.lines().find_map(|line| line.strip_prefix("memory "));
        let numbers = line.expect(&text).split(' ').map(|n| n.parse().unwrap());
        let [before, after, peak]: [u64; 3] = numbers.collect::<Vec<_>>().try_into().unwrap();
        let size = weight_bytes(&config, precision);
        let share = peak as f64 / size as f64;
        println!(
            "{precision}: {} MB before, {} MB of model, {} MB after, {} MB at most: {share:.3}",
            before >> 20,
            size >> 20,
            after >> 20,
            peak >> 20,
        );
        assert!(size > 1_400_000_000, "too small to tell anything: {size}");
        // All of it is there: nothing was left on the disk.
        assert!(after as f64 > 0.98 * size as f64);
        assert!(
            share <= MOST,
            "{share:.3} of the model's size in {precision}"
        );
    }
}

//! Model directories in blocks of integers: written, read back, refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};

use eva_burn::config::ImageConfig;
use eva_burn::context::{Context, Joined};
use eva_burn::quantized::{ConvertError, convert};
use eva_burn::weights::{Precision, WeightsError, save};
use eva_burn::{BurnPolicy, Device, ModelConfig, Qwen25Vl, kv_bytes_per_token};
use eva_core::{Message, Part, Policy as _, RgbImage, Role};
use proptest::prelude::*;

use common::{Reference, pictures};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/shapes/gqa_7")
}

fn original() -> PathBuf {
    fixture().join("hf_model")
}

fn load(dir: &Path, precision: Precision) -> Result<Qwen25Vl, WeightsError> {
    let config = ModelConfig::load(dir).unwrap();
    Qwen25Vl::load_as(&config, dir, &Device::flex(), precision)
}

/// Scores of the fixture's whole prompt.
fn scores(model: &Qwen25Vl) -> Vec<f32> {
    let (device, dir) = (Device::flex(), original());
    let config = ModelConfig::load(&dir).unwrap();
    let reference = Reference::load(&fixture());
    let pictures = pictures(&reference, &config, &ImageConfig::load(&dir).unwrap());
    let mut context = Context::new(&config, &device);
    let tokens = reference.tokens();
    let scores = context.read(model, &tokens, &pictures, &config, &device);
    scores.unwrap().try_into_vec_as().unwrap()
}

fn converted(precision: Precision) -> tempfile::TempDir {
    let out = tempfile::tempdir().unwrap();
    let mut heard = Vec::new();
    let done = convert(&original(), out.path(), precision, |done, of| {
        heard.push((done, of))
    })
    .unwrap();
    assert!(done.quantized > 20 && done.copied > 10, "{done:?}");
    assert_eq!(heard.len(), done.quantized + done.copied);
    assert!(
        heard
            .iter()
            .enumerate()
            .all(|(i, (n, of))| (*n, *of) == (i + 1, heard.len()))
    );
    let data = |dir: &Path| {
        std::fs::metadata(dir.join("model.safetensors"))
            .unwrap()
            .len()
    };
    assert!(done.bytes_after < data(out.path()) && data(out.path()) < done.bytes_after + 100_000);
    assert!(done.bytes_after < done.bytes_before, "{done:?}");
    out
}

#[test]
fn a_converted_directory_is_the_model_that_is_quantized_while_it_is_read() {
    for precision in [Precision::Int8, Precision::Int4] {
        let out = converted(precision);
        let direct = scores(&load(&original(), precision).unwrap());
        let stored = load(out.path(), precision).unwrap();
        assert!(stored.is_packed());
        assert_eq!(scores(&stored), direct, "{precision}");
        // Without a word about it, as stored.
        assert_eq!(
            scores(&load(out.path(), Precision::F32).unwrap()),
            direct,
            "{precision}"
        );
    }
}

#[test]
fn what_cannot_be_read_as_asked_says_so() {
    let out = converted(Precision::Int8);
    for other in [Precision::Int4, Precision::F16, Precision::Bf16] {
        let error = load(out.path(), other).unwrap_err();
        assert!(matches!(error, WeightsError::Quantized { .. }), "{error}");
        assert!(error.to_string().contains("stored as int8"), "{error}");
    }
    let other = Device::flex().autodiff();
    let config = ModelConfig::load(&original()).unwrap();
    for (dir, precision) in [
        (original(), Precision::Int4),
        (out.path().to_owned(), Precision::F32),
    ] {
        let error = Qwen25Vl::load_as(&config, &dir, &other, precision).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("train"), "{text}");
    }
    let model = load(&original(), Precision::Int8).unwrap();
    let target = tempfile::tempdir().unwrap();
    let error = save(&model, &config, target.path(), Precision::F32).unwrap_err();
    assert!(matches!(error, WeightsError::Save), "{error}");
    let floats = load(&original(), Precision::F32).unwrap();
    let error = save(&floats, &config, target.path(), Precision::Int8).unwrap_err();
    assert!(matches!(error, WeightsError::Save), "{error}");
    assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_converted_says_so_and_leaves_what_was_there() {
    let out = converted(Precision::Int8);
    let again = tempfile::tempdir().unwrap();
    let refuse =
        |from: &Path, to: &Path, precision| convert(from, to, precision, |_, _| ()).unwrap_err();
    let error = refuse(out.path(), again.path(), Precision::Int4);
    assert!(matches!(error, ConvertError::Already { .. }), "{error}");
    let error = refuse(&original(), again.path(), Precision::F16);
    assert!(
        matches!(error, ConvertError::NotQuantized(Precision::F16)),
        "{error}"
    );
    let error = refuse(out.path(), out.path(), Precision::Int8);
    assert!(matches!(error, ConvertError::Same(_)), "{error}");
    let error = refuse(&again.path().join("none"), again.path(), Precision::Int8);
    assert!(
        matches!(error, ConvertError::Weights(WeightsError::NoWeights { .. })),
        "{error}"
    );
    assert!(load(out.path(), Precision::Int8).is_ok());
    assert!(!again.path().join("model.safetensors").exists());
}

#[test]
fn sizes_that_the_files_do_not_have_are_errors_before_memory_is_taken() {
    let mut config = ModelConfig::load(&original()).unwrap();
    // More than any machine has.
    config.text.vocab_size = 1 << 40;
    for precision in Precision::ALL {
        let error = Qwen25Vl::load_as(&config, &original(), &Device::flex(), precision);
        let error = error.unwrap_err();
        assert!(matches!(error, WeightsError::Shape { .. }), "{error}");
    }
}

#[test]
fn missing_scales_and_wrong_sizes_are_errors_that_name_the_tensor() {
    let out = converted(Precision::Int8);
    let path = out.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let change = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = whole
            .windows(from.len())
            .position(|w| w == from.as_bytes())
            .unwrap();
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        std::fs::write(&path, bytes).unwrap();
        load(out.path(), Precision::F32).unwrap_err()
    };
    let name = "model.layers.0.mlp.up_proj.weight";
    let error = change(&format!("{name}_scales"), &format!("{name}_scalez"));
    assert!(matches!(&error, WeightsError::NoScales { name: n } if n == &format!("{name}_scales")));
    let error = change(
        &format!("\"{name}\""),
        &format!("\"{}x\"", &name[..name.len() - 1]),
    );
    assert!(error.to_string().contains(name), "{error}");
}

/// Writes a safetensors file of tensors named with their sides, all of zeros in f32.
fn write_tensors(path: &Path, tensors: &[(&str, [usize; 2])]) {
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for (name, sides) in tensors {
        let bytes = sides[0].saturating_mul(sides[1]) * 4;
        let info =
            serde_json::json!({"dtype": "F32", "shape": sides, "data_offsets": [at, at + bytes]});
        header.insert((*name).to_owned(), info);
        at += bytes;
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + at, 0);
    std::fs::write(path, file).unwrap();
}

#[test]
fn sides_of_any_length_and_tensors_in_two_files_are_borne() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::copy(
        original().join("config.json"),
        from.path().join("config.json"),
    )
    .unwrap();
    let (wide, twice) = ("model.layers.0.mlp.up_proj.weight", "lm_head.weight");
    write_tensors(
        &from.path().join("a"),
        &[(wide, [0, usize::MAX / 64]), (twice, [2, 3])],
    );
    write_tensors(&from.path().join("b"), &[(twice, [5, 7])]);
    let index = format!("{{\"weight_map\": {{\"{wide}\": \"a\", \"{twice}\": \"b\"}}}}");
    std::fs::write(from.path().join("model.safetensors.index.json"), index).unwrap();
    let done = convert(from.path(), to.path(), Precision::Int4, |_, _| ()).unwrap();
    assert_eq!((done.quantized, done.copied), (1, 1));
    let written = std::fs::read(to.path().join("model.safetensors")).unwrap();
    let written = safetensors::SafeTensors::deserialize(&written).unwrap();
    assert_eq!(written.tensor(twice).unwrap().shape(), [2, 64]);
}

#[test]
fn a_policy_is_loaded_from_a_quantized_directory() {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/eva-tiny");
    let out = tempfile::tempdir().unwrap();
    convert(&from, out.path(), Precision::Int8, |_, _| ()).unwrap();
    BurnPolicy::load(out.path(), &Device::flex()).unwrap();
}

#[test]
fn keys_and_values_beside_packed_weights_stay_in_16_bits_while_tokens_are_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/eva-tiny");
    let question = "Which card is shown when the blue ball leaves the frame? ".repeat(8);
    let parts: [Part<'_, RgbImage>; 1] = [Part::Text(&question)];
    let conversation = [Message {
        role: Role::User,
        parts: &parts,
    }];
    for precision in [
        Precision::F32,
        Precision::Bf16,
        Precision::F16,
        Precision::Int8,
        Precision::Int4,
    ] {
        let policy = BurnPolicy::load_as(&dir, &Device::flex(), precision).unwrap();
        let mut policy = policy.with_max_new_tokens(20);
        let usage = policy.generate(&conversation, &mut String::new()).unwrap();
        assert!(usage.prompt > 60 && usage.completion > 2, "{usage:?}");
        let per_token = kv_bytes_per_token(policy.config(), precision);
        let tokens = u64::from(usage.prompt + usage.completion);
        // The last token need not be read, and room is made for twice as many at most.
        let room = tokens - 1..=2 * u64::from(usage.prompt);
        assert_eq!(policy.kv_bytes() % per_token, 0);
        assert!(
            room.contains(&(policy.kv_bytes() / per_token)),
            "{precision}: {} bytes, {per_token} a token, {usage:?}",
            policy.kv_bytes()
        );
    }
}

#[test]
fn a_context_that_has_read_nothing_is_joined_with_one_that_has() {
    let (device, dir) = (Device::flex(), original());
    let config = ModelConfig::load(&dir).unwrap();
    for precision in [Precision::Int8, Precision::Bf16] {
        let model = load(&dir, precision).unwrap();
        let mut read = Context::new(&config, &device);
        let mut tokens = vec![5, 6, 7];
        read.read(&model, &tokens, &[], &config, &device).unwrap();
        let contexts = vec![Context::new(&config, &device), read];
        let mut joined = Joined::new(contexts, 100);
        let both = joined.read(&model, &[8, 9], &config).unwrap();
        let both: Vec<f32> = both.try_into_vec_as().unwrap();
        tokens.push(9);
        let alone = [vec![8], tokens].map(|tokens| {
            let mut context = Context::new(&config, &device);
            let scores = context.read(&model, &tokens, &[], &config, &device);
            scores.unwrap().try_into_vec_as::<f32>().unwrap()
        });
        let size = both.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for (both, alone) in both.iter().zip(&alone.concat()) {
            assert!(
                (both - alone).abs() <= 2e-2 * size,
                "{precision}: {both} for {alone}"
            );
        }
        assert_eq!(joined.leave(&[0, 1]).len(), 2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damage_never_panics(at in 0usize..4096, value: u8, cut in 0usize..200_000) {
        let out = tempfile::tempdir().unwrap();
        let dir = original();
        convert(&dir, out.path(), Precision::Int4, |_, _| ()).unwrap();
        let path = out.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        if cut % 2 == 0 {
            bytes.truncate(cut);
        }
        std::fs::write(&path, bytes).unwrap();
        let _ = load(out.path(), Precision::F32);
    }
}

/// Scores of the fixture's prompt, and of one more token behind it.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn scores_on(device: &Device, dir: &Path, precision: Precision) -> [Vec<f32>; 2] {
    let config = ModelConfig::load(dir).unwrap();
    let model = Qwen25Vl::load_as(&config, dir, device, precision).unwrap();
    assert!(model.is_packed());
    let reference = Reference::load(&fixture());
    let pictures = pictures(&reference, &config, &ImageConfig::load(dir).unwrap());
    let mut context = Context::new(&config, device);
    let mut tokens = reference.tokens();
    [(); 2].map(|()| {
        let scores = context.read(&model, &tokens, &pictures, &config, device);
        tokens.push(5);
        scores.unwrap().try_into_vec_as().unwrap()
    })
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
#[test]
fn blocks_of_integers_give_the_same_scores_on_the_gpu() {
    let gpu = common::gpu();
    // The CPU rounds a token's activations to 16 bits, CUDA what a prompt's products multiply to 10.
    let room = if common::on_cuda(&gpu) { 4e-3 } else { 1e-3 };
    for precision in [Precision::Int8, Precision::Int4] {
        let on_cpu = scores_on(&Device::flex(), &original(), precision);
        let on_gpu = scores_on(&gpu, &original(), precision);
        for (cpu, gpu) in on_cpu.iter().zip(&on_gpu) {
            assert_eq!(cpu.len(), gpu.len());
            let size = cpu.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let off = cpu.iter().zip(gpu).map(|(a, b)| (a - b).abs());
            let off = off.fold(0.0, f32::max);
            assert!(off <= room * size, "{precision}: {off} of {size}");
        }
        let out = converted(precision);
        let stored = scores_on(&gpu, out.path(), Precision::F32);
        assert_eq!(stored, on_gpu, "{precision}");
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
#[test]
fn blocks_of_integers_are_not_trained_on_the_gpu() {
    let config = ModelConfig::load(&original()).unwrap();
    let gpu = common::gpu().autodiff();
    let error = Qwen25Vl::load_as(&config, &original(), &gpu, Precision::Int8).unwrap_err();
    assert!(matches!(error, WeightsError::Device { .. }), "{error}");
}

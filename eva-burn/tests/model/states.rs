//! Which states are computed, and from how many tokens at a time, does not change the scores.

use std::path::Path;

use crate::common::small::{Parts, directory, parts};
use burn::tensor::Tensor;
use eva_burn::context::{Context, Joined};
use eva_burn::weights::{Precision, save};
use eva_burn::{Device, Qwen25Vl};

/// A directory with random weights of a model that is wide enough for what only large models do.
fn wide_model() -> tempfile::TempDir {
    let dir = directory();
    let path = dir.path().join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["hidden_size"] = 768.into();
    config["intermediate_size"] = 2050.into();
    config["num_attention_heads"] = 12.into();
    config["rope_scaling"]["mrope_section"] = vec![8, 12, 12].into();
    config["vision_config"]["out_hidden_size"] = 768.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let config = parts(dir.path()).config;
    let model = Qwen25Vl::random(&config, 5, &Device::flex()).unwrap();
    save(&model, &config, dir.path(), Precision::F32).unwrap();
    dir
}

/// Scores behind each of some turns, and the same from the states of all tokens.
fn turns_scores(dir: &Path, device: &Device, precision: Precision) -> Vec<[Vec<f32>; 2]> {
    let config = parts(dir).config;
    let model = Qwen25Vl::load_as(&config, dir, device, precision).unwrap();
    let tokens: Vec<u32> = (0..512).map(|at| 6 + at * 7919 % 300).collect();
    let [mut context, mut of_all] = [(); 2].map(|()| Context::new(&config, device));
    let mut from = 0;
    let turns = [1, 2, 3, 8, 9, 12, 13, 200].map(|count| {
        let new = &tokens[from..from + count];
        from += count;
        let scores = context.read(&model, new, &[], &config, device).unwrap();
        let states = of_all.read_all(&model, new, &[], &config, device).unwrap();
        assert_eq!(states.dims()[1], count);
        let last = states.narrow(1, count - 1, 1).squeeze_dim::<2>(1);
        [scores, model.logits(last)].map(|x| x.into_data().iter::<f32>().collect())
    });
    turns.to_vec()
}

#[track_caller]
fn assert_close(room: f32, ours: &[f32], expected: &[f32], of: &str) {
    assert_eq!(ours.len(), expected.len());
    let size = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    assert!(size > 0.1, "{of}: all are small");
    for (a, b) in ours.iter().zip(expected) {
        assert!((a - b).abs() <= room * size, "{of}: {a} for {b} of {size}");
    }
}

#[test]
fn scores_are_those_of_reading_with_the_states_of_all_tokens() {
    let dir = wide_model();
    // In 8 bits, few vectors are multiplied in steps of 16 bits, and many as they are.
    for (precision, room) in [
        (Precision::F32, 2e-5),
        (Precision::Bf16, 2e-5),
        (Precision::Int8, 2e-3),
    ] {
        let turns = turns_scores(dir.path(), &Device::flex(), precision);
        for (index, [ours, expected]) in turns.iter().enumerate() {
            assert_close(room, ours, expected, &format!("{precision} turn {index}"));
        }
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
#[test]
fn scores_on_a_gpu_are_those_of_the_processor_whichever_states_are_computed() {
    let dir = wide_model();
    let gpu = crate::common::gpu();
    let room = if crate::common::on_cuda(&gpu) {
        1e-2
    } else {
        1e-4
    };
    let on_gpu = turns_scores(dir.path(), &gpu, Precision::F32);
    let on_cpu = turns_scores(dir.path(), &Device::flex(), Precision::F32);
    for (turn, (ours, expected)) in on_gpu.iter().zip(&on_cpu).enumerate() {
        for ours in ours {
            assert_close(room, ours, &expected[1], &format!("turn {turn}"));
        }
    }
}

#[test]
fn tokens_read_one_by_one_behind_a_long_prompt_score_as_in_one_go() {
    let dir = tempfile::tempdir().unwrap();
    eva_burn::bundled::unpack(dir.path()).unwrap();
    let Parts { config, .. } = parts(dir.path());
    let device = Device::flex();
    let model = Qwen25Vl::load(&config, dir.path(), &device).unwrap();
    // So many that attention is taken straight from the cache.
    let text = &config.text;
    assert!(4100 * text.num_attention_heads * text.head_dim() >= 1 << 19);
    let prompts: [Vec<u32>; 2] =
        [4100, 4290].map(|count| (0..count).map(|at| 10 + at % 200).collect());
    let behind: Vec<u32> = (0..8).map(|at| 20 + at).collect();
    let read = |prompt: &[u32]| {
        let mut context = Context::new(&config, &device);
        let scores = context.read(&model, prompt, &[], &config, &device);
        (context, scores.unwrap())
    };
    let close = |ours: Tensor<2>, expected: Tensor<2>| {
        let [ours, expected] = [ours, expected].map(|x| x.try_into_vec_as::<f32>().unwrap());
        let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for (ours, expected) in ours.iter().zip(&expected) {
            assert!(
                (ours - expected).abs() < 1e-4 * largest,
                "{ours} for {expected}"
            );
        }
    };
    let whole = prompts
        .each_ref()
        .map(|prompt| read(&[&prompt[..], &behind].concat()).1);

    let (mut alone, mut scores) = read(&prompts[0]);
    for token in &behind {
        let next = alone.read(&model, &[*token], &[], &config, &device);
        scores = next.unwrap();
    }
    close(scores, whole[0].clone());

    let contexts = prompts.iter().map(|prompt| read(prompt).0);
    let mut joined = Joined::new(contexts.collect(), 4400);
    let together = behind
        .iter()
        .map(|token| joined.read(&model, &[*token; 2], &config));
    close(
        together.last().flatten().unwrap(),
        Tensor::cat(whole.to_vec(), 0),
    );
}

//! Runs of a trainer: what a kill, the number of threads and the settings change, and what they don't.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::small::{GOOD, Parts, REPLY, directory, example, look, parts};
use eva_burn::train::grpo::{Completion, GrpoConfig, GrpoShard};
use eva_burn::train::kto::{KtoConfig, KtoShard, mismatched};
use eva_burn::train::vision::Labelled;
use eva_burn::train::{
    Batch, CheckpointError, Decay, Effort, Example, Learn, Lora, Optimisation, Schedule, Trainer,
    TrainerError,
};
use eva_burn::weights::{Precision, save};
use eva_burn::{Device, ModelConfig, Qwen25Vl};
use serde_json::json;

/// A model, examples, and what a reference model gives their tokens.
struct Course {
    dir: tempfile::TempDir,
    parts: Parts,
    examples: Vec<Example>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Sft,
    Kto,
    Grpo,
}

const STAGES: [Stage; 3] = [Stage::Sft, Stage::Kto, Stage::Grpo];
/// Sizes of the shards.
const SPLIT: [usize; 3] = [1, 2, 1];

fn schedule() -> Schedule {
    Schedule::new(3e-3, 2, 6)
}

fn lora() -> Optimisation {
    Optimisation {
        learn: Learn::Lora(Lora {
            rank: 2,
            alpha: 4.0,
            seed: 5,
        }),
        ..Optimisation::new(Schedule::new(2e-2, 1, 40))
    }
}

impl Course {
    fn new() -> Self {
        let dir = directory();
        let parts = parts(dir.path());
        let replies = [REPLY, "<answer>2</answer>"];
        let examples = (0..4u8).map(|index| look(&parts, index, replies[usize::from(index % 2)]));
        let examples = examples.collect();
        Self {
            dir,
            parts,
            examples,
        }
    }

    fn config(&self) -> ModelConfig {
        self.parts.config.clone()
    }

    fn model(&self) -> Qwen25Vl {
        Qwen25Vl::random(&self.parts.config, 17, &Device::flex().autodiff()).unwrap()
    }

    fn trainer(&self, optimisation: impl Into<Optimisation>) -> Trainer {
        Trainer::new(self.model(), self.config(), optimisation).unwrap()
    }

    fn batch(&self, examples: &[Example]) -> Batch {
        Batch::new(examples, &self.parts.config)
    }

    fn resume(&self, dir: &Path, optimisation: impl Into<Optimisation>) -> Trainer {
        let resumed = Trainer::resume(dir, self.model(), self.config(), optimisation);
        resumed.unwrap().0
    }

    fn shards(&self) -> Vec<Batch> {
        let mut rest = &self.examples[..];
        let split = SPLIT.map(|size| {
            let (shard, others) = rest.split_at(size);
            rest = others;
            self.batch(shard)
        });
        split.into()
    }

    /// Steps of a stage; what they are measured against is the model before training.
    fn learn(&self, trainer: &mut Trainer, stage: Stage, steps: usize) -> Vec<Effort> {
        let reference = self.model();
        let tokens = |batch: &Batch| -> Vec<Vec<f64>> {
            let turns = batch.log_probs(&reference, &self.parts.config);
            turns.iter().map(|turns| turns.concat()).collect()
        };
        let sums = |batch: &Batch| tokens(batch).iter().map(|all| all.iter().sum()).collect();
        let pairs = mismatched(&self.examples, &self.parts.config);
        let shards = self.shards();
        let mut first = 0;
        let (mut kto, mut grpo) = (Vec::new(), Vec::new());
        for (batch, size) in shards.iter().zip(SPLIT) {
            let range = first..first + size;
            first += size;
            let mismatched = self.batch(&pairs[range.clone()]);
            kto.push(KtoShard {
                desirable: GOOD[range.clone()].to_vec(),
                reference: sums(batch),
                mismatched_reference: sums(&mismatched),
                mismatched,
                batch: batch.clone(),
            });
            let completions = tokens(batch).into_iter().zip(&GOOD[range]);
            let completions = completions.map(|(log_probs, good)| Completion {
                advantage: if *good { 1.0 } else { -1.0 },
                sampled: log_probs.clone(),
                reference: log_probs,
                truncated: false,
            });
            grpo.push(GrpoShard {
                completions: completions.collect(),
                batch: batch.clone(),
            });
        }
        let step = |_| match stage {
            Stage::Sft => trainer.sft(&shards).effort,
            Stage::Kto => trainer.kto(&kto, &KtoConfig::default()).unwrap().effort,
            Stage::Grpo => trainer.grpo(&grpo, &GrpoConfig::default()).unwrap().effort,
        };
        (0..steps).map(step).collect()
    }

    /// Every weight of a model, by its name in the checkpoint.
    fn weights(&self, model: &Qwen25Vl) -> BTreeMap<String, Vec<u32>> {
        let dir = tempfile::tempdir().unwrap();
        save(model, &self.parts.config, dir.path(), Precision::F32).unwrap();
        let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
        let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let bits = |data: &[u8]| {
            let numbers = data.as_chunks::<4>().0.iter();
            numbers.map(|bytes| u32::from_le_bytes(*bytes)).collect()
        };
        let tensors = all.tensors().into_iter();
        tensors
            .map(|(name, tensor)| (name, bits(tensor.data())))
            .collect()
    }
}

#[test]
fn a_killed_run_goes_on_to_the_same_weights() {
    let course = Course::new();
    for optimisation in [Optimisation::new(schedule()), lora()] {
        for stage in STAGES {
            let mut whole = course.trainer(optimisation.clone());
            let efforts = course.learn(&mut whole, stage, 6);

            let dir = tempfile::tempdir().unwrap();
            let extra = json!({"place": 12, "seeds": [1, u64::MAX]});
            let mut killed = course.trainer(optimisation.clone());
            course.learn(&mut killed, stage, 3);
            killed.save(dir.path(), &extra).unwrap();
            drop(killed);
            let (mut resumed, stored) = Trainer::resume(
                dir.path(),
                course.model(),
                course.config(),
                optimisation.clone(),
            )
            .unwrap();
            assert_eq!((stored, resumed.steps()), (extra, 3));
            assert_eq!(
                course.learn(&mut resumed, stage, 3),
                efforts[3..],
                "{stage:?}"
            );
            let same = course.weights(&whole.model()) == course.weights(&resumed.model());
            assert!(same, "{stage:?} with {:?}", optimisation.learn);
        }
    }
}

#[test]
fn any_number_of_threads_makes_the_same_weights() {
    let course = Course::new();
    for stage in STAGES {
        let learn = |threads: usize| {
            let trainer = course.trainer(schedule());
            let mut trainer = trainer.with_threads(threads).unwrap();
            course.learn(&mut trainer, stage, 4);
            course.weights(&trainer.model())
        };
        let one = learn(1);
        assert!(one == learn(2) && one == learn(5), "{stage:?}");
    }
}

#[test]
fn shards_on_several_devices_make_the_same_weights() {
    let course = Course::new();
    let everything = Optimisation {
        learn: Learn::Everything,
        ..Optimisation::new(schedule())
    };
    for optimisation in [Optimisation::new(schedule()), everything, lora()] {
        for stage in STAGES {
            let learn = |others: &[Device]| {
                let trainer = course.trainer(optimisation.clone());
                let mut trainer = trainer.with_devices(others).unwrap();
                course.learn(&mut trainer, stage, 3);
                course.weights(&trainer.model())
            };
            let one = learn(&[]);
            let flex = Device::flex();
            let mirrored = std::slice::from_ref(&flex);
            assert!(one == learn(mirrored), "{stage:?}");
            assert!(one == learn(&[flex.clone(), flex.autodiff()]), "{stage:?}");
        }
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
#[test]
fn a_gpu_and_the_cpu_share_a_step() {
    let course = Course::new();
    for stage in STAGES {
        let learn = |others: &[Device]| {
            let trainer = course.trainer(schedule());
            let mut trainer = trainer.with_devices(others).unwrap();
            let efforts = course.learn(&mut trainer, stage, 1);
            (efforts, course.weights(&trainer.model()))
        };
        let (alone, weights) = learn(&[]);
        let (shared, others) = learn(&[common::gpu()]);
        for (alone, shared) in alone.iter().zip(&shared) {
            let (alone, shared) = (alone.gradient_norm, shared.gradient_norm);
            let off = (alone - shared).abs() / alone;
            assert!(off < 1e-4, "{stage:?}: norms {alone} and {shared}");
        }
        // Sums are in another order there: the same bits throughout would mean that nothing was
        // computed on it.
        assert!(weights != others, "{stage:?}: the GPU had no part in it");
        for (name, weight) in weights {
            // Scores do not change by what all keys have in common: its gradient is rounding alone, which
            // the optimizer takes for a direction.
            if name.ends_with("k_proj.bias") {
                continue;
            }
            let numbers =
                |bits: &[u32]| -> Vec<f32> { bits.iter().copied().map(f32::from_bits).collect() };
            common::assert_close(&name, &numbers(&others[&name]), &numbers(&weight), 1e-3);
        }
    }
}

#[test]
fn half_a_checkpoint_is_passed_over_and_replaced() {
    let course = Course::new();
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = || -> Vec<String> {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    let mut trainer = course.trainer(schedule());
    course.learn(&mut trainer, Stage::Sft, 1);
    let first = trainer.save(dir.path(), &json!(1)).unwrap();
    assert_eq!(first, dir.path().join("checkpoint-000001"));
    // Killed while it wrote the next one.
    let half = dir.path().join("checkpoint-000002.partial");
    std::fs::create_dir(&half).unwrap();
    std::fs::copy(first.join("state.json"), half.join("state.json")).unwrap();
    std::fs::write(half.join("model.safetensors"), "half").unwrap();
    let mut trainer = course.resume(dir.path(), schedule());
    assert_eq!(trainer.steps(), 1);
    for step in 2..5 {
        course.learn(&mut trainer, Stage::Sft, 1);
        trainer.save(dir.path(), &json!(step)).unwrap();
    }
    assert_eq!(checkpoints(), ["checkpoint-000003", "checkpoint-000004"]);
    assert_eq!(course.resume(dir.path(), schedule()).steps(), 4);
}

/// The error of going on from `dir`.
fn refused(course: &Course, dir: &Path, optimisation: impl Into<Optimisation>) -> CheckpointError {
    let resumed = Trainer::resume(dir, course.model(), course.config(), optimisation);
    resumed.err().unwrap()
}

#[test]
fn a_damaged_checkpoint_is_an_error_that_names_the_file() {
    let course = Course::new();
    for optimisation in [Optimisation::new(schedule()), lora()] {
        let dir = tempfile::tempdir().unwrap();
        let mut trainer = course.trainer(optimisation.clone());
        course.learn(&mut trainer, Stage::Sft, 1);
        let checkpoint = trainer.save(dir.path(), &json!(null)).unwrap();
        let entries = std::fs::read_dir(&checkpoint).unwrap();
        let files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 4);
        for file in files {
            let whole = std::fs::read(&file).unwrap();
            let flipped: Vec<u8> = [&whole[..40], &[!whole[40]], &whole[41..]].concat();
            for bytes in [&flipped[..], &whole[..whole.len() / 2], b""] {
                std::fs::write(&file, bytes).unwrap();
                let error = refused(&course, dir.path(), optimisation.clone()).to_string();
                // A checksum that is damaged itself names the file it is for.
                let name = file.file_name().unwrap().to_str().unwrap();
                let named = name == "checksums" || error.contains(name);
                assert!(named && error.contains("checkpoint-000001"), "{error}");
            }
            std::fs::remove_file(&file).unwrap();
            let error = refused(&course, dir.path(), optimisation.clone());
            let CheckpointError::Io { path, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(path, &file);
            std::fs::write(&file, whole).unwrap();
        }
        course.resume(dir.path(), optimisation);
    }
}

#[test]
fn a_checkpoint_of_another_run_is_an_error_that_says_what_differs() {
    let course = Course::new();
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none");
    for empty in [dir.path(), &missing] {
        let error = refused(&course, empty, schedule());
        assert!(matches!(error, CheckpointError::None { .. }), "{error}");
    }
    course
        .trainer(schedule())
        .save(dir.path(), &json!(0))
        .unwrap();
    let longer = Schedule {
        steps: 7,
        ..schedule()
    };
    let error = refused(&course, dir.path(), longer).to_string();
    assert!(error.contains("`schedule.steps`"), "{error}");
    let error = refused(&course, dir.path(), lora()).to_string();
    assert!(error.contains("`learn`"), "{error}");

    let mut shallow = course.config();
    shallow.text.num_hidden_layers = 1;
    let model = Qwen25Vl::random(&shallow, 1, &Device::flex().autodiff()).unwrap();
    let error = Trainer::resume(dir.path(), model, shallow, schedule())
        .err()
        .unwrap();
    assert!(error.to_string().contains("model.layers.1"), "{error}");

    course.trainer(lora()).save(dir.path(), &json!(0)).unwrap();
    let other = Qwen25Vl::random(&course.config(), 18, &Device::flex().autodiff()).unwrap();
    let error = Trainer::resume(dir.path(), other, course.config(), lora())
        .err()
        .unwrap();
    assert!(error.to_string().contains("other weights"), "{error}");
}

#[test]
fn what_is_not_learnt_keeps_its_weights() {
    let course = Course::new();
    let before = course.weights(&course.model());
    let changed = |learn: Learn| -> Vec<bool> {
        let optimisation = Optimisation {
            learn,
            ..Optimisation::new(schedule())
        };
        let mut trainer = course.trainer(optimisation);
        course.learn(&mut trainer, Stage::Sft, 2);
        let after = course.weights(&trainer.model());
        let names = ["visual.", "model.embed", "model.layers."];
        let differs = names.map(|name| {
            let mut own = before.iter().filter(|(key, _)| key.starts_with(name));
            own.any(|(key, values)| after[key] != *values)
        });
        differs.into()
    };
    assert_eq!(changed(Learn::Decoder), [false, true, true]);
    assert_eq!(changed(Learn::Everything), [true, true, true]);
    assert_eq!(changed(lora().learn), [false, false, true]);
}

#[test]
fn adapters_learn_while_the_weights_below_them_stay() {
    let course = Course::new();
    let mut trainer = course.trainer(lora());
    let before = course.weights(&trainer.model());
    assert!(
        before == course.weights(&course.model()),
        "adapters start with nothing"
    );
    let shards = course.shards();
    let losses: Vec<f64> = (0..40).map(|_| trainer.sft(&shards).loss).collect();
    assert!(losses[39] < 0.5 * losses[0], "{losses:?}");

    // Folded in, they say what they said beside the weights.
    let batch = course.batch(&course.examples);
    let folded = batch.log_probs(&trainer.model(), &course.parts.config);
    let folded: Vec<f64> = folded.concat().concat();
    let loss = -folded.iter().sum::<f64>() / folded.len() as f64;
    let beside = trainer.sft(&shards).loss;
    assert!((loss - beside).abs() < 1e-5, "{loss} against {beside}");

    // A checkpoint holds them alone, and the weights below are those of the beginning.
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = trainer.save(dir.path(), &json!(null)).unwrap();
    assert!(!checkpoint.join("model.safetensors").exists());
    let size = std::fs::metadata(checkpoint.join("adapters.safetensors"))
        .unwrap()
        .len();
    let all: usize = before.values().map(Vec::len).sum();
    assert!(size < all as u64, "{size} bytes for {all} weights");
    let resumed = course.resume(dir.path(), lora());
    assert!(course.weights(&resumed.model()) == course.weights(&trainer.model()));
    let fresh = course.trainer(lora());
    assert!(course.weights(&fresh.model()) == before);
}

#[test]
fn activations_computed_again_teach_the_same() {
    let course = Course::new();
    for learn in [Learn::Decoder, Learn::Everything, lora().learn] {
        let losses = |checkpoint_activations: bool| -> Vec<f64> {
            let optimisation = Optimisation {
                checkpoint_activations,
                learn,
                ..Optimisation::new(schedule())
            };
            let mut trainer = course.trainer(optimisation);
            let shards = course.shards();
            (0..4).map(|_| trainer.sft(&shards).loss).collect()
        };
        let (kept, again) = (losses(false), losses(true));
        for (a, b) in kept.iter().zip(&again) {
            assert!((a - b).abs() < 1e-5 * a, "{kept:?} against {again:?}");
        }
    }
}

#[test]
fn the_whole_gradient_is_clipped_as_one_vector() {
    let course = Course::new();
    // So large an epsilon makes AdamW plain descent: a step of rate / epsilon times the gradient.
    let optimisation = Optimisation {
        epsilon: 1e4,
        weight_decay: 0.0,
        clip_norm: 0.01,
        ..Optimisation::new(Schedule {
            decay: Decay::Constant,
            ..Schedule::new(1e4, 0, 1)
        })
    };
    let mut trainer = course.trainer(optimisation);
    let before = course.weights(&trainer.model());
    let report = trainer.sft(&course.shards());
    assert!(report.effort.gradient_norm > 0.1, "{:?}", report.effort);
    assert_eq!(report.effort.rate, 1e4);
    let tokens: usize = course.examples.iter().map(|one| one.tokens.len()).sum();
    assert_eq!(report.effort.tokens, tokens);
    let after = course.weights(&trainer.model());
    let pairs = before.values().flatten().zip(after.values().flatten());
    let squares = pairs.map(|(a, b)| f64::from(f32::from_bits(*a) - f32::from_bits(*b)).powi(2));
    let moved = squares.sum::<f64>().sqrt();
    assert!((moved - 0.01).abs() < 1e-3 * 0.01 * 10.0, "{moved}");
}

#[test]
fn a_gradient_that_is_not_finite_teaches_nothing() {
    let course = Course::new();
    let mut trainer = course.trainer(schedule());
    let before = course.weights(&trainer.model());
    let batch = course.batch(&course.examples[..1]);
    let values = batch.log_probs(&trainer.model(), &course.parts.config);
    let shard = GrpoShard {
        completions: vec![Completion {
            advantage: f64::NAN,
            sampled: values.concat().concat(),
            reference: values.concat().concat(),
            truncated: false,
        }],
        batch,
    };
    let report = trainer.grpo(&[shard], &GrpoConfig::default()).unwrap();
    assert!(report.effort.gradient_norm.is_nan());
    assert!(course.weights(&trainer.model()) == before);
    course.learn(&mut trainer, Stage::Sft, 1);
    assert!(course.weights(&trainer.model()) != before);
}

#[test]
fn nothing_to_learn_is_no_error() {
    let course = Course::new();
    let mut trainer = course.trainer(schedule());
    let before = course.weights(&trainer.model());
    let silent = Example {
        turns: Vec::new(),
        ..example(&course.parts, 1)
    };
    let silent = course.batch(&[silent]);
    assert!(trainer.evaluate(&silent).is_empty());
    let empty = course.batch(&[]);
    for shards in [&[][..], std::slice::from_ref(&silent), &[empty]] {
        let report = trainer.sft(shards);
        assert_eq!((report.loss, report.effort.gradient_norm), (0.0, 0.0));
        assert_eq!(report.right, vec![Vec::<bool>::new(); shards.len()]);
    }
    trainer.first_sight(&[Labelled::default()]);
    assert!(course.weights(&trainer.model()) == before);
    // Beside others it changes nothing.
    let [mut alone, mut beside] = [(); 2].map(|()| course.trainer(schedule()));
    let shards = course.shards();
    alone.sft(&shards);
    beside.sft(&[&[silent], &shards[..]].concat());
    assert!(course.weights(&alone.model()) == course.weights(&beside.model()));
    // Adapters have no part in first sight.
    let mut adapted = course.trainer(lora());
    let sight = Labelled {
        patches: course.examples[0].patches.clone(),
        labels: vec![(0, 7)],
    };
    let report = adapted.first_sight(&[sight]);
    assert!(report.loss > 0.0 && report.effort.gradient_norm == 0.0);
}

#[test]
fn settings_are_read_from_a_file_and_unknown_keys_refused() {
    let read = |value| serde_json::from_value::<Optimisation>(value);
    let least = json!({"schedule": {"peak": 1e-3, "steps": 10}});
    let expected = Optimisation::new(Schedule::new(1e-3, 0, 10));
    assert_eq!(read(least).unwrap(), expected);
    let all = json!({
        "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-6, "weight_decay": 0.1, "clip_norm": 2.0,
        "checkpoint_activations": true, "learn": {"lora": {"rank": 4, "alpha": 8.0}},
        "schedule": {"peak": 1e-4, "steps": 20, "warmup": 5, "decay": "constant"},
    });
    let optimisation = read(all).unwrap();
    optimisation.validate().unwrap();
    let lora = Lora {
        rank: 4,
        alpha: 8.0,
        seed: 0,
    };
    assert_eq!(optimisation.learn, Learn::Lora(lora));
    assert_eq!(optimisation.schedule.decay, Decay::Constant);
    let written = serde_json::to_value(&optimisation).unwrap();
    assert_eq!(read(written).unwrap(), optimisation);
    for (value, key) in [
        (json!({"schedule": {"peak": 1e-3}}), "steps"),
        (
            json!({"schedule": {"peak": 1e-3, "steps": 1}, "beta1": 0.9}),
            "beta1",
        ),
        (
            json!({"schedule": {"peak": 1e-3, "steps": 1, "floor": 0}}),
            "floor",
        ),
        (
            json!({"schedule": {"peak": 1e-3, "steps": 1}, "learn": "nothing"}),
            "nothing",
        ),
    ] {
        let error = read(value).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn settings_that_make_no_sense_name_their_key() {
    let course = Course::new();
    type Change = fn(&mut Optimisation);
    let lora_of = |rank, alpha| {
        Learn::Lora(Lora {
            rank,
            alpha,
            seed: 0,
        })
    };
    let changes: [(&str, Change); 12] = [
        ("beta_1", |all| all.beta_1 = 1.0),
        ("beta_2", |all| all.beta_2 = 1.0 - 1e-12),
        ("epsilon", |all| all.epsilon = 0.0),
        ("weight_decay", |all| all.weight_decay = -0.1),
        ("clip_norm", |all| all.clip_norm = f64::NAN),
        ("schedule.peak", |all| all.schedule.peak = -1.0),
        ("schedule.peak", |all| all.schedule.peak = f64::NAN),
        ("schedule.steps", |all| {
            (all.schedule.steps, all.schedule.warmup) = (0, 0);
        }),
        ("schedule.warmup", |all| all.schedule.warmup = 7),
        ("schedule.decay.cosine.to", |all| {
            all.schedule.decay = Decay::Cosine { to: 1.5 };
        }),
        ("beta_1", |all| all.beta_1 = f64::NAN),
        ("epsilon", |all| all.epsilon = f64::INFINITY),
    ];
    let refused = |optimisation: Optimisation, expected: &str| {
        let made = Trainer::new(course.model(), course.config(), optimisation);
        match made.err().unwrap() {
            TrainerError::Setting { key, .. } => assert_eq!(key, expected),
            other => panic!("{other}"),
        }
    };
    for (key, change) in changes {
        let mut optimisation = Optimisation::new(schedule());
        change(&mut optimisation);
        refused(optimisation, key);
    }
    // More columns than the matrices have would be made before anything is learnt.
    let wide = course.config().text.hidden_size + 1;
    for (rank, alpha, key) in [
        (0, 1.0, "learn.lora.rank"),
        (wide, 1.0, "learn.lora.rank"),
        (1_000_000_000, 1.0, "learn.lora.rank"),
        (1, 0.0, "learn.lora.alpha"),
    ] {
        let learn = lora_of(rank, alpha);
        refused(
            Optimisation {
                learn,
                ..Optimisation::new(schedule())
            },
            key,
        );
    }
    let plain = Qwen25Vl::random(&course.config(), 1, &Device::flex()).unwrap();
    let error = Trainer::new(plain, course.config(), schedule())
        .err()
        .unwrap();
    assert!(matches!(error, TrainerError::NoGradients), "{error}");
    assert!(course.dir.path().exists());
}

#[test]
fn the_rate_rises_and_falls_as_it_is_told() {
    let cosine = Schedule::new(1.0, 4, 12);
    let rates: Vec<f64> = (0..14).map(|step| cosine.rate(step)).collect();
    assert_eq!(rates[..5], [0.25, 0.5, 0.75, 1.0, 1.0]);
    assert!(
        (rates[8] - 0.55).abs() < 1e-12,
        "half way between 1 and 0.1"
    );
    assert!((rates[12] - 0.1).abs() < 1e-12 && rates[13] == rates[12]);
    let constant = Schedule {
        decay: Decay::Constant,
        ..cosine
    };
    assert_eq!(
        [0, 3, 4, 99].map(|step| constant.rate(step)),
        [0.25, 1.0, 1.0, 1.0]
    );
}

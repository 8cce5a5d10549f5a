//! Batches, their targets and their losses, and what is learnt from them.

use std::path::Path;

use super::{generate, policy};
use crate::common::small::{
    GOOD, Parts, QUESTION, REPLY, directory, example, look, parts, picture, text,
};
use burn::module::Module;
use eva_burn::train::grpo::{Aggregation, Completion, GrpoConfig, GrpoShard};
use eva_burn::train::kto::{KtoConfig, KtoShard, mismatched};
use eva_burn::train::{Batch, Example, Schedule, Trainer};
use eva_burn::{Device, Qwen25Vl};
use eva_core::{Message, Part, Role};

#[test]
fn only_the_assistants_tokens_are_targets() {
    let dir = directory();
    let parts = parts(dir.path());
    let example = example(&parts, 1);
    let end = parts.chat.token_id("<|im_end|>").unwrap();
    let turns: Vec<_> = example
        .turns
        .iter()
        .map(|turn| &example.tokens[turn.clone()])
        .collect();
    assert_eq!(turns.len(), 2);
    for (turn, reply) in turns.iter().zip(["red", REPLY]) {
        assert_eq!(turn.last(), Some(&end));
        assert_eq!(parts.chat.decode(turn).unwrap(), reply);
    }
    assert_eq!(
        example.tokens.len(),
        example.turns[1].end,
        "nothing follows the last turn"
    );
}

#[test]
fn a_batch_scores_each_example_as_if_it_were_alone() {
    let dir = directory();
    let parts = parts(dir.path());
    let device = Device::flex().autodiff();
    let model = Qwen25Vl::random(&parts.config, 9, &device).unwrap();
    let schedule = Schedule::new(1e-3, 1, 10);
    let trainer = Trainer::new(model, parts.config.clone(), schedule).unwrap();
    let long = example(&parts, 1);
    // The first turn alone, without the picture.
    let short = Example {
        tokens: long.tokens[..long.turns[0].end].to_vec(),
        turns: long.turns[..1].to_vec(),
        patches: eva_burn::input::Patches::default(),
    };
    let alone = |example: &Example| {
        trainer.evaluate(&Batch::new(std::slice::from_ref(example), &parts.config))
    };
    let expected: Vec<bool> = [alone(&short), alone(&long)].concat();
    let batch = Batch::new(&[short, long], &parts.config);
    assert_eq!(trainer.evaluate(&batch), expected);
    assert_eq!(batch.targets(), expected.len());
}

#[test]
fn shards_on_several_threads_learn_what_one_batch_learns() {
    let dir = directory();
    let parts = parts(dir.path());
    let examples: Vec<Example> = (0..4).map(|shade| example(&parts, shade)).collect();
    let learn = |shards: &[Batch]| {
        let model = Qwen25Vl::random(&parts.config, 11, &Device::flex().autodiff()).unwrap();
        let schedule = Schedule::new(1e-3, 1, 10);
        let mut trainer = Trainer::new(model, parts.config.clone(), schedule).unwrap();
        (0..5)
            .map(|_| trainer.sft(shards).loss)
            .collect::<Vec<f64>>()
    };
    let whole = learn(&[Batch::new(&examples, &parts.config)]);
    let split = learn(&[
        Batch::new(&examples[..1], &parts.config),
        Batch::new(&examples[1..], &parts.config),
    ]);
    for (a, b) in whole.iter().zip(&split) {
        assert!(
            (a - b).abs() < 1e-3 * a.abs(),
            "{whole:?} against {split:?}"
        );
    }
    assert!(whole[4] < whole[0]);
}

#[test]
fn what_was_learnt_is_generated() {
    let dir = directory();
    let parts = parts(dir.path());
    let model = Qwen25Vl::random(&parts.config, 13, &Device::flex().autodiff()).unwrap();
    let schedule = Schedule::new(1e-2, 5, 80);
    let mut trainer = Trainer::new(model, parts.config.clone(), schedule).unwrap();
    let batch = [Batch::new(&[example(&parts, 1)], &parts.config)];
    let losses: Vec<f64> = (0..80).map(|_| trainer.sft(&batch).loss).collect();
    assert!(losses[79] < 0.1 * losses[0], "{losses:?}");

    let mut policy = policy(dir.path(), trainer.model());
    let (reply, _) = generate(&mut policy, &[text(Role::User, &[Part::Text(QUESTION)])]);
    assert_eq!(reply, "red");
    let image = picture(1);
    let shown = [Part::Text("Frame 0 at [00:10]: "), Part::Image(&image)];
    let conversation = [
        text(Role::User, &[Part::Text(QUESTION)]),
        text(Role::Assistant, &[Part::Text("red")]),
        Message {
            role: Role::Tool,
            parts: &shown,
        },
    ];
    assert_eq!(generate(&mut policy, &conversation).0, REPLY);
}

/// Two good and two bad replies, and what the model gives each of their tokens at first.
struct Labelled {
    parts: Parts,
    trainer: Trainer,
    examples: Vec<Example>,
}

impl Labelled {
    fn batch(&self, examples: &[Example]) -> Batch {
        Batch::new(examples, &self.parts.config)
    }

    /// The log-probabilities of each example's tokens.
    fn log_probs(&self, examples: &[Example]) -> Vec<Vec<f64>> {
        let batch = self.batch(examples);
        let turns = batch.log_probs(&self.trainer.model(), &self.parts.config);
        turns.iter().map(|turns| turns.concat()).collect()
    }

    fn sums(&self, examples: &[Example]) -> Vec<f64> {
        let tokens = self.log_probs(examples);
        tokens.iter().map(|tokens| tokens.iter().sum()).collect()
    }

    /// The examples in shards of so many, with the model as it is now for reference.
    fn kto_shards(&self, size: usize) -> Vec<KtoShard> {
        let pairs = mismatched(&self.examples, &self.parts.config);
        let chunks = self.examples.chunks(size).zip(pairs.chunks(size));
        chunks
            .zip(GOOD.chunks(size))
            .map(|((examples, pairs), good)| KtoShard {
                batch: self.batch(examples),
                desirable: good.to_vec(),
                reference: self.sums(examples),
                mismatched: self.batch(pairs),
                mismatched_reference: self.sums(pairs),
            })
            .collect()
    }

    /// As rollouts of the model as it is now, the good ones better than the bad ones.
    fn grpo_shards(&self, size: usize) -> Vec<GrpoShard> {
        let chunks = self.examples.chunks(size).zip(GOOD.chunks(size));
        chunks
            .map(|(examples, good)| GrpoShard {
                batch: self.batch(examples),
                completions: self
                    .log_probs(examples)
                    .into_iter()
                    .zip(good)
                    .map(|(log_probs, good)| Completion {
                        advantage: if *good { 1.0 } else { -1.0 },
                        reference: log_probs.clone(),
                        sampled: log_probs,
                        truncated: !good,
                    })
                    .collect(),
            })
            .collect()
    }

    /// Asserts that good replies have become likelier than they were, and bad ones less likely.
    fn assert_learnt(&self, before: &[f64]) {
        let after = self.sums(&self.examples);
        for ((before, after), good) in before.iter().zip(&after).zip(GOOD) {
            assert!(
                (after > before) == good,
                "{before} to {after}, good: {good}"
            );
        }
    }
}

fn labelled(dir: &Path) -> Labelled {
    let parts = parts(dir);
    let replies = [REPLY, "<answer>2</answer>"];
    let examples = (0..4u8).map(|index| look(&parts, index, replies[usize::from(index % 2)]));
    let examples = examples.collect();
    let model = Qwen25Vl::random(&parts.config, 17, &Device::flex().autodiff()).unwrap();
    let schedule = Schedule::new(1e-3, 1, 100);
    Labelled {
        trainer: Trainer::new(model, parts.config.clone(), schedule).unwrap(),
        parts,
        examples,
    }
}

fn assert_same(whole: &[f64], split: &[f64]) {
    for (a, b) in whole.iter().zip(split) {
        assert!(
            (a - b).abs() < 1e-3 * a.abs().max(1e-2),
            "{whole:?} against {split:?}"
        );
    }
}

#[test]
fn log_probs_of_a_batch_are_the_log_softmax_of_each_example_alone() {
    let dir = directory();
    let parts = parts(dir.path());
    let model = Qwen25Vl::random(&parts.config, 15, &Device::flex().autodiff()).unwrap();
    let plain = model.valid();
    let examples = [example(&parts, 1), look(&parts, 2, "2"), example(&parts, 3)];
    let expected = examples.each_ref().map(|example| {
        let device = Device::flex();
        let pictures = (0..example.patches.grids.len()).map(|index| {
            let (_, from) = example.patches.split_at(index);
            let hash = index as u64;
            eva_burn::context::Picture {
                patches: from.split_at(1).0,
                hash,
            }
        });
        let pictures: Vec<_> = pictures.collect();
        let mut context = eva_burn::context::Context::new(&parts.config, &device);
        let tokens = &example.tokens;
        let hidden = context.read_all(&plain, tokens, &pictures, &parts.config, &device);
        let logits = plain.logits(hidden.unwrap().squeeze_dim::<2>(0));
        let [_, vocab] = logits.dims();
        let logits: Vec<f64> = logits.try_into_vec_as().unwrap();
        let log_prob = |at: usize| {
            let row = &logits[(at - 1) * vocab..at * vocab];
            let sum: f64 = row.iter().map(|score| score.exp()).sum();
            row[tokens[at] as usize] - sum.ln()
        };
        let turns = example.turns.iter().cloned();
        turns
            .map(|turn| turn.map(log_prob).collect::<Vec<f64>>())
            .collect::<Vec<_>>()
    });
    let batch = Batch::new(&examples, &parts.config);
    let close = |actual: &[f64], expected: &[f64]| {
        assert_eq!(actual.len(), expected.len());
        for (a, b) in actual.iter().zip(expected) {
            assert!((a - b).abs() < 1e-4, "{a} against {b}");
        }
    };
    let values = batch.log_probs(&model, &parts.config);
    assert_eq!(values.len(), expected.len());
    for (actual, expected) in values.iter().zip(&expected) {
        assert_eq!(actual.len(), 2, "two turns");
        for (actual, expected) in actual.iter().zip(expected) {
            close(actual, expected);
        }
    }
    let tracked = batch.target_log_probs(&model, &plain, &parts.config);
    let flat: Vec<f64> = tracked.clone().detach().try_into_vec_as().unwrap();
    close(&flat, &expected.concat().concat());
    let sums: Vec<f64> = batch
        .completion_sums(tracked.detach())
        .try_into_vec_as()
        .unwrap();
    let expected = expected.map(|turns| turns.concat().iter().sum::<f64>());
    for (a, b) in sums.iter().zip(&expected) {
        assert!((a - b).abs() < 1e-3, "{a} against {b}");
    }
}

#[test]
fn a_batch_without_targets_has_no_log_probs() {
    let dir = directory();
    let parts = parts(dir.path());
    let model = Qwen25Vl::random(&parts.config, 15, &Device::flex()).unwrap();
    let silent = Example {
        turns: Vec::new(),
        ..example(&parts, 1)
    };
    let batch = Batch::new(&[silent], &parts.config);
    let none: Vec<Vec<Vec<f64>>> = vec![Vec::new()];
    assert_eq!(batch.log_probs(&model, &parts.config), none);
    let nothing = batch.target_log_probs(&model, &model, &parts.config);
    let sums: Vec<f64> = batch.completion_sums(nothing).try_into_vec_as().unwrap();
    assert_eq!(sums, [0.0]);
}

#[test]
fn a_mismatched_pair_is_a_prompt_with_the_next_examples_completion_and_its_pictures() {
    let dir = directory();
    let parts = parts(dir.path());
    let examples = [
        look(&parts, 1, REPLY),
        look(&parts, 2, "2"),
        example(&parts, 3),
    ];
    let pairs = mismatched(&examples, &parts.config);
    assert_eq!(pairs.len(), 3);
    for (index, pair) in pairs.iter().enumerate() {
        let (prompt, other) = (&examples[index], &examples[(index + 1) % 3]);
        let (kept, skipped) = (prompt.turns[0].start, other.turns[0].start);
        assert_eq!(pair.tokens[..kept], prompt.tokens[..kept]);
        assert_eq!(pair.tokens[kept..], other.tokens[skipped..]);
        let turns = |example: &Example| -> Vec<Vec<u32>> {
            let turns = example.turns.iter();
            turns
                .map(|turn| example.tokens[turn.clone()].to_vec())
                .collect()
        };
        assert_eq!(turns(pair), turns(other));
        // A picture before the completion is the prompt's, one inside it the completion's. The third
        // example's prompt has none.
        let asked = |index: usize| usize::from(index != 2);
        let mut patches = prompt.patches.split_at(asked(index)).0;
        let (_, looked) = other.patches.split_at(asked((index + 1) % 3));
        patches.append(&looked);
        assert_eq!(pair.patches.grids, patches.grids);
        assert_eq!(pair.patches.values(), patches.values());
    }
    let single = mismatched(&examples[..1], &parts.config);
    assert_eq!(single[0].tokens, examples[0].tokens);
    assert!(mismatched(&[], &parts.config).is_empty());
}

#[test]
fn kto_makes_desirable_replies_likelier_and_undesirable_ones_less_likely() {
    let dir = directory();
    let mut labelled = labelled(dir.path());
    let before = labelled.sums(&labelled.examples);
    let shards = labelled.kto_shards(2);
    let kto = KtoConfig::default();
    let reports: Vec<_> = (0..15)
        .map(|_| labelled.trainer.kto(&shards, &kto).unwrap())
        .collect();
    // At the reference every ratio is 0 and every loss 1 - sigmoid(0).
    assert!((reports[0].loss - 0.5).abs() < 1e-4, "{:?}", reports[0]);
    assert!(reports[0].reference_point < 1e-3);
    assert_eq!(reports[0].log_ratios.len(), 2);
    assert!(reports[14].loss < reports[0].loss - 0.05, "{reports:?}");
    labelled.assert_learnt(&before);
}

#[test]
fn grpo_makes_better_replies_likelier_and_worse_ones_less_likely() {
    let dir = directory();
    let mut labelled = labelled(dir.path());
    let before = labelled.sums(&labelled.examples);
    let shards = labelled.grpo_shards(2);
    let grpo = GrpoConfig::default();
    let reports: Vec<_> = (0..15)
        .map(|_| labelled.trainer.grpo(&shards, &grpo).unwrap())
        .collect();
    // At first every ratio is 1: what is left is the mean advantage, 0.
    assert!(reports[0].loss.abs() < 1e-4, "{:?}", reports[0]);
    assert!(reports[0].kl < 1e-6 && reports[0].clipped == 0.0);
    assert!(reports[14].loss < -0.05, "{}", reports[14].loss);
    assert!(reports[14].kl > 0.0 && reports[14].clipped > 0.0);
    labelled.assert_learnt(&before);
}

#[test]
fn kto_and_grpo_learn_the_same_from_shards_as_from_one_batch() {
    let dir = directory();
    let learn = |size: usize| -> (Vec<f64>, Vec<f64>) {
        let mut kto = labelled(dir.path());
        let shards = kto.kto_shards(size);
        let step = |_| {
            let report = kto.trainer.kto(&shards, &KtoConfig::default()).unwrap();
            [report.loss, report.reference_point]
        };
        let kto = (0..4).flat_map(step).collect();
        let mut grpo = labelled(dir.path());
        let shards = grpo.grpo_shards(size);
        let config = GrpoConfig {
            aggregation: Aggregation::Dapo,
            mask_truncated: true,
            ..GrpoConfig::default()
        };
        let step = |_| grpo.trainer.grpo(&shards, &config).unwrap().loss;
        (kto, (0..4).map(step).collect())
    };
    let (whole, split) = (learn(4), learn(3));
    assert_same(&whole.0, &split.0);
    assert_same(&whole.1, &split.1);
}

#[test]
fn numbers_that_do_not_fit_a_shard_are_refused_and_nothing_is_learnt() {
    let dir = directory();
    let mut labelled = labelled(dir.path());
    let mut kto = labelled.kto_shards(4);
    kto[0].reference.pop();
    let error = labelled.trainer.kto(&kto, &KtoConfig::default());
    assert_eq!(
        error.unwrap_err().to_string(),
        "3 reference log-probabilities for 4"
    );
    let mut grpo = labelled.grpo_shards(4);
    grpo[0].completions[1].sampled.push(0.0);
    assert!(
        labelled
            .trainer
            .grpo(&grpo, &GrpoConfig::default())
            .is_err()
    );
    grpo[0].completions.pop();
    assert!(
        labelled
            .trainer
            .grpo(&grpo, &GrpoConfig::default())
            .is_err()
    );
    assert_eq!(labelled.trainer.steps(), 0);
}

#[test]
fn masked_completions_teach_nothing() {
    let dir = directory();
    let mut labelled = labelled(dir.path());
    let mut shards = labelled.grpo_shards(4);
    for completion in &mut shards[0].completions {
        completion.truncated = true;
        completion
            .sampled
            .iter_mut()
            .for_each(|value| *value -= 1.0);
    }
    let config = GrpoConfig {
        mask_truncated: true,
        ..GrpoConfig::default()
    };
    let report = labelled.trainer.grpo(&shards, &config).unwrap();
    assert_eq!((report.loss, report.kl, report.clipped), (0.0, 0.0, 0.0));
    let config = GrpoConfig {
        mask_truncated: false,
        ..config
    };
    assert!(labelled.trainer.grpo(&shards, &config).unwrap().clipped > 0.0);
}

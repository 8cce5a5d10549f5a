//! Runs in lock-step against the same runs one after the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use eva::burn::chat::Chat;
use eva::burn::config::ImageConfig;
use eva::burn::sample::Sampling;
use eva::burn::train::{Batch, Example};
use eva::burn::{BurnPolicy, Device, ModelConfig, Qwen25Vl};
use eva::core::mock::{ScriptedPolicy, SolidSource};
use eva::rollout::{Generated, Rollout, Rollouts, Task, TextEngine};
use eva::world::{Kind, Split, World, WorldSource};
use eva::{RgbImage, Session, StopReason, VideoInfo};

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/eva-burn/assets/eva-tiny");

fn policy() -> BurnPolicy {
    BurnPolicy::load(ASSETS, &Device::flex()).unwrap()
}

/// Questions about development worlds, of kinds that take different numbers of turns.
fn tasks(worlds: u32) -> Vec<Task<WorldSource>> {
    let kinds = [Kind::At, Kind::Find, Kind::Absent];
    (0..worlds)
        .map(|number| {
            let world = Arc::new(World::new(Split::Dev.seed(number)));
            let question = world.question(kinds[number as usize % 3], 0);
            Task::new(WorldSource::new(world), question.text)
        })
        .collect()
}

#[test]
fn runs_in_lock_step_say_what_each_says_alone() {
    let rollouts = Rollouts::default().play(&mut policy(), tasks(6)).unwrap();
    assert_eq!(rollouts.len(), 6);
    for (task, rollout) in tasks(6).into_iter().zip(rollouts) {
        let alone = Session::new(task.source, policy())
            .ask(&task.prompt[0].1)
            .unwrap();
        let together = &rollout.report;
        assert_eq!(together.conversation, alone.conversation);
        assert_eq!(
            together.trajectory.outcome.answer,
            alone.trajectory.outcome.answer
        );
        assert_eq!(
            together.trajectory.outcome.tally.frames,
            alone.trajectory.outcome.tally.frames
        );
        assert_eq!(rollout.replies.len(), alone.trajectory.turns.len());
        assert_eq!(rollout.error, None);
    }
}

#[test]
fn sampled_tokens_have_the_log_probabilities_that_training_computes() {
    let random = Sampling::Random {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        seed: 3,
    };
    let mut policy = policy().with_sampling(random, 1.0).with_max_new_tokens(60);
    let rollouts = Rollouts::default().play(&mut policy, tasks(6)).unwrap();
    let dir = ASSETS.as_ref();
    let config = ModelConfig::load(dir).unwrap();
    let images = ImageConfig::load(dir).unwrap();
    let chat = Chat::load(dir, config.image_token_id).unwrap();
    let model = Qwen25Vl::load(&config, dir, &Device::flex()).unwrap();
    let mut cut = 0;
    for rollout in &rollouts {
        let example = example(rollout, &chat, &config, &images);
        let known = Batch::new(std::slice::from_ref(&example), &config).log_probs(&model, &config);
        assert_eq!(known[0].len(), rollout.replies.len());
        for ((turn, reply), range) in known[0].iter().zip(&rollout.replies).zip(&example.turns) {
            let Generated::Tokens(sampled) = reply else {
                panic!("the model knows its tokens")
            };
            assert_eq!(example.tokens[range.clone()], sampled.tokens);
            assert_eq!(turn.len(), sampled.log_probs.len());
            for (known, sampled) in turn.iter().zip(&sampled.log_probs) {
                let difference = (known - f64::from(*sampled)).abs();
                assert!(difference < 1e-3, "{known} against {sampled}");
            }
        }
        cut += usize::from(rollout.is_cut(&chat.closing_tokens()));
    }
    assert!(cut > 0, "no reply was cut off at its most tokens");
}

fn example(
    rollout: &Rollout<RgbImage>,
    chat: &Chat,
    config: &ModelConfig,
    images: &ImageConfig,
) -> Example {
    let tokens: Vec<_> = rollout.replies.iter().map(Generated::tokens).collect();
    (rollout.report.conversation)
        .with_messages(|messages| Example::new(messages, chat, config, images))
        .unwrap()
        .with_turns(&tokens)
}

#[test]
fn an_engine_that_fails_ends_its_own_run_alone() {
    let video = VideoInfo {
        duration: 90.0,
        width: 1280,
        height: 720,
        fps: 25.0,
    };
    let look = r#"<tool_call>{"tool": "frame_select", "arguments": {"start_time": 0,
        "end_time": 9, "nframes": 2, "resize": 0.1}}</tool_call>"#;
    // The second run's second reply is missing.
    let mut engine = TextEngine(ScriptedPolicy::new(["<answer>A</answer>", look]));
    let tasks = ["Who wins?", "Who loses?"].map(|text| Task::new(SolidSource::new(video), text));
    let rollouts = Rollouts::default()
        .with_threads(1)
        .play(&mut engine, tasks.into())
        .unwrap();
    assert_eq!(rollouts[0].report.answer(), Some("A"));
    assert_eq!(rollouts[0].error, None);
    assert_eq!(rollouts[1].report.stop_reason(), &StopReason::Exception);
    assert_eq!(rollouts[1].report.trajectory.outcome.tally.frames, 2);
    assert_eq!(rollouts[1].replies.len(), 1);
    assert!(rollouts[1].error.is_some());
}

//! GRPO on the model's own runs about training worlds.

use std::fs;
use std::time::Instant;

use eva::core::RgbImage;
use eva::rollout::{Generated, Rollout, Rollouts, Task};
use eva::train::{
    Asked, Ended, Grpo, LastRound, Measures, PaperReward, Reward as _, Thrifty, TrainError,
};
use eva::world::{WorldSource, seen};
use eva_burn::chat::Chat;
use eva_burn::config::GenerationConfig;
use eva_burn::sample::Sampling;
use eva_burn::train::Schedule;
use eva_burn::train::advantage::Scale;
use eva_burn::train::reward::Weights;
use eva_burn::{BurnPolicy, Qwen25Vl};

use super::Run;
use super::enhance::{Line, Prompts};
use super::questions::Quiz;
use crate::{Failure, Stage};

/// Tokens of a reply: a longer one is cut off.
const LONGEST: usize = 400;

pub(super) fn learn(run: &Run<'_>) -> Result<Ended, Failure> {
    let arguments = run.arguments;
    let reference = run.load(Stage::Kto, &run.device)?;
    let model = run.load(Stage::Kto, &run.device.clone().autodiff())?;
    let steps = arguments.grpo_steps;
    let schedule = Schedule::new(arguments.grpo_rate, 5.min(steps), steps);
    let paper = PaperReward {
        weights: Weights::default(),
        judge: LastRound(policy(run, reference.clone())?),
    };
    let mut reward = Thrifty {
        reward: paper,
        per_visual_token: arguments.token_cost,
    };
    let grpo = Grpo {
        scale: Scale::Batch,
        shard: 2,
        ..Grpo::default()
    };
    let folder = run.folder(Stage::Grpo);
    fs::create_dir_all(&folder)?;
    let mut prompts: Option<Prompts> = None;
    run.learn(
        Stage::Grpo,
        model,
        schedule.into(),
        5,
        |trainer, step, measures| {
            let prompts = match &mut prompts {
                Some(prompts) => prompts,
                none => none.insert(Prompts::open(
                    &folder.join("prompts.jsonl"),
                    step,
                    arguments.prompts,
                    arguments.enhance_every,
                    arguments.seed,
                )?),
            };
            let quizzes = prompts.of(step);
            let sampling = Sampling::Random {
                temperature: 1.0,
                top_k: 0,
                top_p: 1.0,
                seed: arguments.seed << 32 | step as u64,
            };
            let policy = policy(run, trainer.model());
            let policy = policy.map_err(|error| TrainError::Data(error.to_string()))?;
            let mut policy = policy.with_sampling(sampling, 1.0);
            let began = Instant::now();
            let runs = play(&mut policy, &quizzes, arguments.rollouts)?;
            let played = began.elapsed();
            let asked: Vec<Asked> = quizzes.iter().map(Quiz::asked).collect();
            let each = arguments.rollouts.max(1);
            let pairs: Vec<(&Asked, &Rollout<RgbImage>)> = (runs.iter().enumerate())
                .map(|(place, run)| (&asked[place / each], run))
                .collect();
            let rewards = reward.rewards(&pairs);
            reward.reward.judge.0.forget();
            let judged = began.elapsed();
            let mut groups = Vec::new();
            let mut scored = runs.into_iter().zip(rewards);
            let mut lines = Vec::new();
            for quiz in &quizzes {
                let group: Vec<(Rollout<RgbImage>, f64)> = scored.by_ref().take(each).collect();
                let failed = measure(quiz, &group, measures);
                lines.push(Line {
                    step,
                    number: quiz.number,
                    kind: quiz.question.kind.name().to_owned(),
                    choices: quiz.question.options.is_some(),
                    failed,
                    runs: group.len(),
                });
                groups.push(group);
            }
            prompts.add(lines)?;
            grpo.learn(trainer, &reference, &run.encoder, &groups, measures)?;
            measures.add("seconds_playing", played.as_secs_f64());
            measures.add("seconds_judging", (judged - played).as_secs_f64());
            measures.add("seconds_learning", (began.elapsed() - judged).as_secs_f64());
            Ok(())
        },
    )
}

/// A policy with other weights.
fn policy(run: &Run<'_>, model: Qwen25Vl) -> Result<BurnPolicy, Failure> {
    let base = run.folder(Stage::Base);
    let config = &run.encoder.config;
    let policy = BurnPolicy::new(
        model,
        config.clone(),
        run.encoder.images.clone(),
        Chat::load(&base, config.image_token_id)?,
        &GenerationConfig::load(&base)?,
        &run.device,
    );
    Ok(policy.with_max_new_tokens(LONGEST))
}

/// So many runs of each question, in its order.
fn play(
    policy: &mut BurnPolicy,
    quizzes: &[Quiz],
    each: usize,
) -> Result<Vec<Rollout<RgbImage>>, TrainError> {
    let tasks = quizzes.iter().flat_map(|quiz| {
        (0..each.max(1)).map(|_| {
            let source = WorldSource::new(quiz.world.clone());
            Task::new(source, quiz.question.text.clone())
        })
    });
    let runs = Rollouts::default().play(policy, tasks.collect());
    let runs = runs.map_err(|error| TrainError::Data(error.to_string()))?;
    match runs.iter().find_map(|run| run.error.clone()) {
        Some(error) => Err(TrainError::Data(error)),
        None => Ok(runs),
    }
}

/// Counts what came of a question's runs, and gives how many are not right.
fn measure(quiz: &Quiz, group: &[(Rollout<RgbImage>, f64)], measures: &mut Measures) -> usize {
    let mut failed = 0;
    for (run, _) in group {
        let report = &run.report;
        let right = report.answer() == Some(quiz.question.answer.as_str());
        failed += usize::from(!right);
        measures.add_share("right", usize::from(right), 1);
        measures.add_share(&quiz.field(), usize::from(right), 1);
        let enough = quiz
            .question
            .seen_by(&quiz.world, &seen(&report.trajectory));
        let guessed = report.answer().is_some() && !enough;
        measures.add_share("guessed", usize::from(guessed), 1);
        let tally = &report.trajectory.outcome.tally;
        measures.add("frames", tally.frames as f64);
        measures.add("visual_tokens", tally.estimated_visual_tokens as f64);
        measures.add("rounds", f64::from(tally.num_rounds));
        for reply in &run.replies {
            if let Generated::Tokens(sampled) = reply {
                measures.add("reply_tokens", sampled.tokens.len() as f64);
                for log_prob in &sampled.log_probs {
                    measures.add("entropy", -f64::from(*log_prob));
                }
            }
        }
    }
    failed
}

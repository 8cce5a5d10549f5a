//! GRPO on questions of a file.

use eva::core::RgbImage;
use eva::data::Pair;
use eva::rollout::{Rollout, Rollouts, Task};
use eva::train::{
    Asked, Ended, LastRound, Measures, PaperReward, Reward as _, Thrifty, TrainError,
};
use eva_burn::chat::Chat;
use eva_burn::config::GenerationConfig;
use eva_burn::sample::Sampling;
use eva_burn::train::reward::Weights;
use eva_burn::{BurnPolicy, Qwen25Vl};

use super::Run;
use super::data::{Course, Footage, Shared, pairs};
use crate::{Failure, Stage};

pub(super) fn learn(run: &Run) -> Result<Ended, Failure> {
    let settings = &run.settings;
    let pairs = pairs(&settings.data)?;
    let reference = run.reference()?;
    let judge = match &settings.grpo.judge {
        Some(dir) => BurnPolicy::load(dir, &run.device)?,
        None => policy(run, reference.clone())?,
    };
    let mut reward = Thrifty {
        reward: PaperReward {
            weights: Weights::default(),
            judge: LastRound(judge),
        },
        per_visual_token: settings.grpo.token_cost,
    };
    let learning = settings.grpo.learning(settings.shard);
    let each = settings.grpo.rollouts;
    let mut footage = Footage::new(settings)?;
    let mut course = Course::new((0..pairs.len() as u64).collect(), settings.seed);
    course.tell(settings);
    run.learn(Stage::Grpo, |trainer, step, measures| {
        let chosen: Vec<&Pair> = (course.of(step, settings.batch).iter())
            .map(|place| &pairs[*place])
            .collect();
        let sampling = Sampling::Random {
            temperature: settings.grpo.temperature,
            top_k: 0,
            top_p: 1.0,
            seed: settings.seed << 32 | step as u64,
        };
        let data = |error: Failure| TrainError::Data(error.to_string());
        let policy = policy(run, trainer.model()).map_err(data)?;
        let mut policy = policy.with_sampling(sampling, 1.0);
        let tasks = tasks(&mut footage, &chosen, each).map_err(data)?;
        let runs = Rollouts::default().play(&mut policy, tasks);
        let runs = runs.map_err(|error| TrainError::Data(error.to_string()))?;
        let asked: Vec<Asked> = chosen.iter().map(|pair| Asked::from(*pair)).collect();
        let played: Vec<(&Asked, &Rollout<RgbImage>)> = (runs.iter().enumerate())
            .map(|(place, run)| (&asked[place / each], run))
            .collect();
        let rewards = reward.rewards(&played);
        reward.reward.judge.0.forget();
        let mut scored = runs.into_iter().zip(rewards);
        let mut groups = Vec::new();
        for pair in &chosen {
            let group: Vec<(Rollout<RgbImage>, f64)> = scored.by_ref().take(each).collect();
            measure(pair, &group, measures);
            groups.push(group);
        }
        learning.learn(trainer, &reference, &run.encoder, &groups, measures)
    })
}

fn policy(run: &Run, model: Qwen25Vl) -> Result<BurnPolicy, Failure> {
    let dir = &run.settings.model;
    let config = &run.encoder.config;
    let policy = BurnPolicy::new(
        model,
        config.clone(),
        run.encoder.images.clone(),
        Chat::load(dir, config.image_token_id)?,
        &GenerationConfig::load(dir)?,
        &run.device,
    );
    Ok(policy.with_max_new_tokens(run.settings.grpo.max_new_tokens))
}

fn tasks(
    footage: &mut Footage,
    pairs: &[&Pair],
    each: usize,
) -> Result<Vec<Task<Shared>>, Failure> {
    let mut tasks = Vec::new();
    for pair in pairs {
        let video = footage.get(&pair.video)?;
        tasks.extend((0..each).map(|_| Task::new(video.clone(), pair.prompt())));
    }
    Ok(tasks)
}

fn measure(pair: &Pair, group: &[(Rollout<RgbImage>, f64)], measures: &mut Measures) {
    for (run, _) in group {
        let right = run
            .report
            .answer()
            .is_some_and(|answer| pair.is_right(answer));
        measures.add_share("right", usize::from(right), 1);
        let tally = &run.report.trajectory.outcome.tally;
        measures.add("frames", tally.frames as f64);
        measures.add("visual_tokens", tally.estimated_visual_tokens as f64);
        measures.add("rounds", f64::from(tally.num_rounds));
        measures.add_share("failed", usize::from(run.error.is_some()), 1);
    }
}

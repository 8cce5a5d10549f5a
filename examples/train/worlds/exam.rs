//! Accuracy on held-out worlds, through the same agent as any video.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use eva::core::{RgbImage, Rules};
use eva::evaluate::{Interval, wilson};
use eva::rollout::{Rollout, Rollouts, Task};
use eva::world::{Split, seen};
use eva_burn::sample::Sampling;
use eva_burn::{BurnPolicy, Device};
use serde::Serialize;

use super::questions::Quiz;
use super::uniform::Uniform;
use super::video::Video;
use crate::{Arguments, Failure};

/// Runs that go in lock-step.
const TOGETHER: usize = 64;
/// Tokens of a reply: far more than any of these videos takes.
const LONGEST: usize = 400;

/// Which questions to ask, and how.
#[derive(Debug, Clone)]
pub(crate) struct Exam {
    pub(crate) split: Split,
    /// Number of the first question.
    pub(crate) first: u32,
    /// Number of questions.
    pub(crate) count: u32,
    /// Through real MP4 files instead of rendered frames.
    pub(crate) mp4: bool,
    /// How answers are drawn; without it, the most probable ones.
    pub(crate) sampling: Option<Sampling>,
    /// Perception first: frames before the question, no agent.
    pub(crate) uniform: Option<Uniform>,
    /// Where the model runs.
    pub(crate) device: Device,
}

/// What one kind of question came to, or all of them.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Score {
    pub(crate) asked: u64,
    pub(crate) right: u64,
    pub(crate) accuracy: f64,
    /// Where the accuracy lies with 95% confidence (Wilson).
    pub(crate) interval: Option<Interval>,
    pub(crate) rounds: f64,
    pub(crate) frames: f64,
    pub(crate) visual_tokens: f64,
    /// The share that was answered without having seen the evidence.
    pub(crate) guessed: f64,
    /// The share that looked once.
    pub(crate) one_look: f64,
}

/// What an exam came to.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Scores {
    pub(crate) all: Score,
    /// By kind, `-choice` where it is multiple choice.
    pub(crate) kinds: BTreeMap<String, Score>,
}

/// One answered question.
#[derive(Debug, Clone, Copy)]
struct Answered {
    right: bool,
    rounds: u32,
    frames: u64,
    visual_tokens: u64,
    guessed: bool,
    one_look: bool,
}

fn sampling(arguments: &Arguments) -> Result<Option<Sampling>, Failure> {
    match arguments.temperature {
        0.0 => Ok(None),
        temperature @ 0.0..=10.0 => Ok(Some(Sampling::Random {
            temperature,
            top_k: 0,
            top_p: 1.0,
            seed: arguments.seed,
        })),
        other => Err(format!("--temperature is {other}: give a number from 0 to 10").into()),
    }
}

impl Exam {
    /// As the arguments say.
    pub(crate) fn new(arguments: &Arguments) -> Result<Self, Failure> {
        Ok(Self {
            split: if arguments.test {
                Split::Test
            } else {
                Split::Dev
            },
            first: arguments.first,
            count: arguments.questions,
            mp4: arguments.mp4,
            sampling: sampling(arguments)?,
            uniform: None,
            device: arguments.device.open()?,
        })
    }

    fn quiz(&self, index: u32) -> Quiz {
        let number = self.first + index;
        Quiz::numbered(self.split, number)
    }

    fn video(&self, quiz: &Quiz) -> Result<Video, Failure> {
        if self.mp4 {
            Video::file(&quiz.world)
        } else {
            Ok(Video::drawn(quiz.world.clone()))
        }
    }

    /// Name of the file with the answers.
    fn name(&self) -> String {
        let form = if self.mp4 { "mp4" } else { "rendered" };
        let drawn = self.sampling.map_or("", |_| "sampled-");
        let way = if self.uniform.is_some() {
            "uniform-"
        } else {
            ""
        };
        format!(
            "eval-{way}{drawn}{:?}-{form}-{}.jsonl",
            self.split, self.first
        )
        .to_lowercase()
    }

    /// Asks all questions, writes every answer to a file in the folder `log`, and prints the scores.
    pub(crate) fn run(&self, model: &Path, log: &Path) -> Result<Scores, Failure> {
        let policy = BurnPolicy::load(model, &self.device)?;
        let mut policy = policy.with_max_new_tokens(LONGEST);
        if let Some(sampling) = self.sampling {
            policy.set_sampling(sampling);
        }
        std::fs::create_dir_all(log)?;
        let mut log = std::fs::File::create(log.join(self.name()))?;
        let mut tallies: BTreeMap<String, Vec<Answered>> = BTreeMap::new();
        let numbers: Vec<u32> = (0..self.count).collect();
        for numbers in numbers.chunks(TOGETHER) {
            let quizzes: Vec<Quiz> = numbers.iter().map(|index| self.quiz(*index)).collect();
            let runs = self.play(&mut policy, &quizzes)?;
            for (quiz, run) in quizzes.iter().zip(runs) {
                let trajectory = &run.report.trajectory;
                let right = run.report.answer() == Some(quiz.question.answer.as_str());
                let tally = &trajectory.outcome.tally;
                let enough = quiz.question.seen_by(&quiz.world, &seen(trajectory));
                tallies.entry(quiz.field()).or_default().push(Answered {
                    right,
                    rounds: tally.num_rounds,
                    frames: tally.frames,
                    visual_tokens: tally.estimated_visual_tokens,
                    guessed: run.report.answer().is_some() && !enough,
                    one_look: tally.num_rounds == 2,
                });
                let line = serde_json::json!({
                    "world": quiz.world.seed(),
                    "kind": quiz.field(),
                    "question": quiz.question.text,
                    "truth": quiz.question.answer,
                    "right": right,
                    "evidence": enough,
                    "trajectory": trajectory,
                });
                writeln!(log, "{line}")?;
            }
            policy.forget();
            let done: usize = tallies.values().map(Vec::len).sum();
            let right = tallies.values().flatten().filter(|answer| answer.right);
            eprintln!("eval {done}/{}: {} right", self.count, right.count());
        }
        let all: Vec<Answered> = tallies.values().flatten().copied().collect();
        let kinds = tallies.iter();
        let scores = Scores {
            all: Score::of(&all),
            kinds: kinds
                .map(|(kind, answers)| (kind.clone(), Score::of(answers)))
                .collect(),
        };
        scores.print();
        Ok(scores)
    }

    fn play(
        &self,
        policy: &mut BurnPolicy,
        quizzes: &[Quiz],
    ) -> Result<Vec<Rollout<RgbImage>>, Failure> {
        let mut tasks = Vec::new();
        for quiz in quizzes {
            tasks.push(Task::new(self.video(quiz)?, quiz.question.text.clone()));
        }
        match &self.uniform {
            Some(uniform) => uniform.answer(policy, tasks),
            None => Ok(Rollouts::default()
                .with_rules(Rules::published())
                .play(policy, tasks)?),
        }
    }
}

impl Score {
    fn of(answers: &[Answered]) -> Self {
        let asked = answers.len() as u64;
        let count = |test: fn(&Answered) -> bool| answers.iter().filter(|a| test(a)).count() as u64;
        let share = |count: u64| count as f64 / asked.max(1) as f64;
        let mean = |value: fn(&Answered) -> f64| {
            answers.iter().map(value).sum::<f64>() / asked.max(1) as f64
        };
        let right = count(|answer| answer.right);
        Self {
            asked,
            right,
            accuracy: share(right),
            interval: Some(wilson(right, asked)),
            rounds: mean(|answer| f64::from(answer.rounds)),
            frames: mean(|answer| answer.frames as f64),
            visual_tokens: mean(|answer| answer.visual_tokens as f64),
            guessed: share(count(|answer| answer.guessed)),
            one_look: share(count(|answer| answer.one_look)),
        }
    }
}

impl Scores {
    pub(crate) fn print(&self) {
        println!(
            "{:<18} {:>11} {:>7} {:>13} {:>7} {:>7} {:>8} {:>8}",
            "kind", "right", "%", "95% interval", "rounds", "frames", "tokens", "guessed"
        );
        for (kind, score) in self
            .kinds
            .iter()
            .map(|(kind, score)| (kind.as_str(), score))
        {
            score.print(kind);
        }
        self.all.print("all");
    }
}

impl Score {
    fn print(&self, kind: &str) {
        let interval = self.interval.unwrap_or(wilson(self.right, self.asked));
        println!(
            "{kind:<18} {:>5}/{:<5} {:>7.1} {:>6.1}-{:<6.1} {:>7.2} {:>7.1} {:>8.1} {:>7.1}%",
            self.right,
            self.asked,
            100.0 * self.accuracy,
            100.0 * interval.low,
            100.0 * interval.high,
            self.rounds,
            self.frames,
            self.visual_tokens,
            100.0 * self.guessed,
        );
    }
}

//! Accuracy on held-out worlds, through the same agent as any video.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use eva::core::{RgbImage, Rules};
use eva::evaluate::{Interval, wilson};
use eva::rollout::{Rollout, Rollouts, Task};
use eva::train::Ended;
use eva::world::{Split, seen};
use eva_burn::sample::Sampling;
use eva_burn::{BurnPolicy, Device};
use serde::Serialize;

use super::answers::{Answer, Answers};
use super::questions::Quiz;
use super::uniform::Uniform;
use super::video::Video;
use crate::{Arguments, Failure, say, tell};

/// Runs that go in lock-step.
const TOGETHER: usize = 64;
/// Tokens of a reply: far more than any of these videos takes.
const LONGEST: usize = 400;

/// Which questions to ask, and how.
#[derive(Debug, Clone)]
pub(crate) struct Exam {
    pub(crate) split: Split,
    /// The numbers of the questions.
    pub(crate) numbers: Range<u32>,
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

/// The draws for what is left of an exam after so many answers: from its seed where it is asked in one
/// piece, and others where it goes on, since those from the seed are taken.
fn drawn_after(answers: usize, sampling: Sampling) -> Sampling {
    match sampling {
        Sampling::Random {
            temperature,
            top_k,
            top_p,
            seed,
        } => Sampling::Random {
            temperature,
            top_k,
            top_p,
            seed: seed ^ (answers as u64) << 32,
        },
        Sampling::Greedy => Sampling::Greedy,
    }
}

/// What came of a question.
fn answer(exam: &str, quiz: &Quiz, run: Rollout<RgbImage>) -> Answer {
    let right = run.report.answer() == Some(quiz.question.answer.as_str());
    let trajectory = run.report.trajectory;
    Answer {
        exam: exam.to_owned(),
        world: quiz.world.seed(),
        kind: quiz.field(),
        question: quiz.question.text.clone(),
        truth: quiz.question.answer.clone(),
        right,
        evidence: quiz.question.seen_by(&quiz.world, &seen(&trajectory)),
        trajectory,
    }
}

/// Its kind, and what counts of it.
fn read(answer: &Answer) -> (String, Answered) {
    let outcome = &answer.trajectory.outcome;
    let tally = &outcome.tally;
    let answered = Answered {
        right: answer.right,
        rounds: tally.num_rounds,
        frames: tally.frames,
        visual_tokens: tally.estimated_visual_tokens,
        guessed: outcome.answer.is_some() && !answer.evidence,
        one_look: tally.num_rounds == 2,
    };
    (answer.kind.clone(), answered)
}

impl Exam {
    /// As the arguments say.
    pub(crate) fn new(arguments: &Arguments) -> Result<Self, Failure> {
        let (first, count) = (arguments.first, arguments.questions);
        let end = first.checked_add(count).ok_or_else(|| {
            format!(
                "--first {first} leaves no {count} questions below number {}",
                u32::MAX
            )
        })?;
        Ok(Self {
            split: if arguments.test {
                Split::Test
            } else {
                Split::Dev
            },
            numbers: first..end,
            mp4: arguments.mp4,
            sampling: sampling(arguments)?,
            uniform: None,
            device: arguments.device.open()?,
        })
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
            self.split, self.numbers.start
        )
        .to_lowercase()
    }

    /// Asks the questions that have no answer in the folder `log` yet, writes every answer there, and
    /// prints the scores: when it is stopped, those of the answers until then.
    pub(crate) fn run(
        &self,
        model: &Path,
        log: &Path,
        stop: &AtomicBool,
    ) -> Result<(Scores, Ended), Failure> {
        let policy = BurnPolicy::load(model, &self.device)?;
        let mut policy = policy.with_max_new_tokens(LONGEST);
        fs::create_dir_all(log)?;
        let (path, exam) = (log.join(self.name()), self.identity(model)?);
        let count = self.numbers.len();
        let (mut kept, found) = Answers::open(&path, &exam, count, TOGETHER)?;
        if let Some(aside) = &found.aside {
            let (path, aside) = (path.display(), aside.display());
            tell(format_args!(
                "{path} is of another exam: it is {aside} now\n"
            ));
        }
        let mut answered: Vec<(String, Answered)> = found.answers.iter().map(read).collect();
        if !answered.is_empty() {
            let (done, path) = (answered.len(), path.display());
            tell(format_args!("eval {done}/{count} are in {path} already\n"));
        }
        if let Some(sampling) = self.sampling {
            policy.set_sampling(drawn_after(answered.len(), sampling));
        }
        let mut left = self.numbers.clone().skip(answered.len());
        let ended = loop {
            let numbers: Vec<u32> = left.by_ref().take(TOGETHER).collect();
            if numbers.is_empty() {
                break Ended::Done;
            }
            if stop.load(Ordering::Relaxed) {
                break Ended::Stopped;
            }
            let quizzes: Vec<Quiz> = (numbers.iter())
                .map(|number| Quiz::numbered(self.split, *number))
                .collect();
            let runs = self.play(&mut policy, &quizzes)?;
            let answers: Vec<Answer> = (quizzes.iter().zip(runs))
                .map(|(quiz, run)| answer(&exam, quiz, run))
                .collect();
            kept.add(&answers)?;
            answered.extend(answers.iter().map(read));
            policy.forget();
            let (done, right) = (answered.len(), answered.iter().filter(|(_, a)| a.right));
            tell(format_args!(
                "eval {done}/{count}: {} right\n",
                right.count()
            ));
        };
        let scores = Scores::of(&answered);
        scores.print();
        Ok((scores, ended))
    }

    /// What answers follow from, as a short name: the weights, the questions, and how they are asked.
    fn identity(&self, model: &Path) -> Result<String, Failure> {
        let shown = model.display();
        let failed = |error: std::io::Error| format!("cannot read {shown}: {error}");
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(model).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            // The folder holds the answers and the checkpoints too.
            let is_model = path.extension().is_some_and(|extension| {
                ["json", "safetensors", "jinja", "txt"]
                    .iter()
                    .any(|one| extension == *one)
            });
            if is_model && path.is_file() {
                files.push(path);
            }
        }
        files.sort_unstable();
        let mut hasher = DefaultHasher::new();
        hasher.write(format!("{self:?}").as_bytes());
        let mut part = vec![0; 1 << 20];
        for path in files {
            // By what they hold: a stage that goes on writes the files of the same model again.
            hasher.write(path.file_name().unwrap_or_default().as_encoded_bytes());
            let mut file = File::open(&path).map_err(failed)?;
            loop {
                let length = file.read(&mut part).map_err(failed)?;
                if length == 0 {
                    break;
                }
                hasher.write(&part[..length]);
            }
        }
        Ok(format!("{:016x}", hasher.finish()))
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
    fn of(answered: &[(String, Answered)]) -> Self {
        let mut kinds: BTreeMap<String, Vec<Answered>> = BTreeMap::new();
        for (kind, answer) in answered {
            kinds.entry(kind.clone()).or_default().push(*answer);
        }
        let all: Vec<Answered> = kinds.values().flatten().copied().collect();
        let kinds = kinds.into_iter();
        Self {
            all: Score::of(&all),
            kinds: kinds
                .map(|(kind, answers)| (kind, Score::of(&answers)))
                .collect(),
        }
    }

    pub(crate) fn print(&self) {
        say(format_args!(
            "{:<18} {:>11} {:>7} {:>13} {:>7} {:>7} {:>8} {:>8}",
            "kind", "right", "%", "95% interval", "rounds", "frames", "tokens", "guessed"
        ));
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
        say(format_args!(
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
        ));
    }
}

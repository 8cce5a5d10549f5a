//! New questions from the policy's failures: [`Rl`].

use eva_core::reply::{Argument, FrameSelect};
use eva_core::{FrameSource, Selection};
use rand::seq::IndexedRandom as _;
use serde::{Deserialize, Serialize};

use super::coach::{Coached, Thinker};
use super::dice::{Purpose, dice};
use super::hints::workflow;
use super::play::play;
use super::text::{is_same, overlap};
use super::{
    DataError, Draft, Ended, Failure, Lesson, Pair, PairKind, Reason, Rejected, Stage, Teacher,
    TeacherError,
};
use crate::benchmark::{Item, Prompt};
use crate::evaluate::Setup;
use crate::journal::{Entry, Journal};
use crate::pool::Work;

/// Frames of a video that a teacher is shown, and their size against the video's.
const SHOWN: (u32, f64) = (16, 0.5);
/// Share of common words from which on two questions count as one.
const SAME: f64 = 0.9;
/// Times that a teacher has to answer its own question.
const ANSWERS: u64 = 2;

/// Data-Enhanced GRPO: for each unseen video a teacher, shown some of the policy's failures, writes
/// open questions. A question stays if it is no repetition and the teacher, asked it as any policy
/// is, answers it from frames twice as it wrote it.
#[derive(Debug, Clone)]
pub struct Rl<'a> {
    stage: Stage<'a>,
    teacher: String,
    questions: usize,
    examples: usize,
}

/// What a teacher wrote about one video: a line of `written.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// Number of the video among the unseen ones.
    pub index: u64,
    /// The questions that stay. Their `provenance` says who wrote them, and after which failures.
    pub pairs: Vec<Pair>,
    /// Those that don't.
    pub rejected: Vec<Rejected>,
}

impl Entry for Written {
    const FILE: &'static str = "written.jsonl";

    fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    fn index(&self) -> u64 {
        self.index
    }

    fn is_settled(&self) -> bool {
        !self.rejected.iter().any(Rejected::is_failure)
    }
}

type PixelsOf<T> = <<T as Setup>::Source as FrameSource>::Pixels;

impl<'a> Rl<'a> {
    /// The stage: 3 questions a video, after 4 failures. `teacher` is the teacher's name, for the
    /// records.
    pub fn new(stage: Stage<'a>, teacher: impl Into<String>) -> Self {
        Self {
            stage,
            teacher: teacher.into(),
            questions: 3,
            examples: 4,
        }
    }

    /// The same with so many questions a video at most.
    #[must_use]
    pub const fn with_questions(mut self, questions: usize) -> Self {
        self.questions = questions;
        self
    }

    /// Has questions written about those of `videos` that are not done in `journal`, and calls
    /// `on_done` after each video. `setup` makes the teacher as it answers, `teacher` as it writes.
    /// Without failures nothing is done.
    ///
    /// # Errors
    /// [`DataError`]. That a teacher fails at a video is none.
    pub fn run<T, W>(
        &self,
        setup: &T,
        teacher: &(impl Fn() -> Result<W, T::Error> + Sync),
        failures: &[Failure],
        videos: &[String],
        journal: &mut Journal<Written>,
        on_done: &mut dyn FnMut(&Written),
    ) -> Result<Ended, DataError<T::Error>>
    where
        T: Setup,
        W: Teacher<PixelsOf<T>>,
    {
        let done = journal.done().clone();
        let jobs = (0..).zip(videos.iter().map(String::as_str));
        let jobs = jobs.filter(|(index, _)| !failures.is_empty() && !done.contains(*index));
        let work = Writing {
            rl: self,
            setup,
            teacher,
            failures,
        };
        self.stage.drive(&work, jobs, journal, on_done)
    }
}

struct Writing<'a, 'p, T, F> {
    rl: &'a Rl<'p>,
    setup: &'a T,
    teacher: &'a F,
    failures: &'a [Failure],
}

/// Number and name of a video.
type Job<'v> = (u64, &'v str);

impl<'v, T, W, F> Work for Writing<'v, '_, T, F>
where
    T: Setup,
    W: Teacher<PixelsOf<T>>,
    F: Fn() -> Result<W, T::Error> + Sync,
{
    type Job = Job<'v>;
    type Kit = (T::Policy, W);
    type Done = Written;
    type Error = T::Error;

    fn equip(&self) -> Result<(T::Policy, W), T::Error> {
        Ok((self.setup.policy()?, (self.teacher)()?))
    }

    fn work(&self, (policy, teacher): &mut (T::Policy, W), job: &Job<'v>) -> Written {
        let (index, video) = *job;
        let mut written = Written {
            index,
            pairs: Vec::new(),
            rejected: Vec::new(),
        };
        let mut rng = dice(self.rl.stage.seed, Purpose::Examples, index);
        let chosen: Vec<Failure> = self
            .failures
            .sample(&mut rng, self.rl.examples)
            .cloned()
            .collect();
        match self.write(teacher, video, &chosen) {
            Err(error) => {
                let reason = match error {
                    TeacherError::Failed(_) => Reason::Failed,
                    TeacherError::Malformed(_) => Reason::TeacherMalformed,
                };
                written.reject(reason, error.to_string(), None);
            }
            Ok((drafts, malformed)) => {
                for bad in malformed {
                    written.reject(Reason::TeacherMalformed, bad.to_string(), None);
                }
                for (number, draft) in (0..).zip(drafts) {
                    let pair = self.pair(video, draft, &chosen);
                    let again = |known: &&Pair| {
                        is_same(&known.question, &pair.question)
                            || overlap(&known.question, &pair.question) >= SAME
                    };
                    if let Some(known) = written.pairs.iter().find(again) {
                        let detail = format!("as good as asked before: {}", known.question);
                        written.reject(Reason::Duplicate, detail, Some(pair));
                        continue;
                    }
                    match self.check(policy, index, number, &pair) {
                        Ok(()) => written.pairs.push(pair),
                        Err((reason, detail)) => written.reject(reason, detail, Some(pair)),
                    }
                }
            }
        }
        written
    }

    fn panicked(&self, job: &Job<'v>, message: &str) -> Written {
        let mut written = Written {
            index: job.0,
            pairs: Vec::new(),
            rejected: Vec::new(),
        };
        written.reject(Reason::Failed, format!("panicked: {message}"), None);
        written
    }
}

impl Written {
    fn reject(&mut self, reason: Reason, detail: String, pair: Option<Pair>) {
        self.rejected.push(Rejected {
            index: self.index,
            item: self.index,
            reason,
            detail,
            pair,
            trajectory: None,
        });
    }
}

impl<T: Setup, F> Writing<'_, '_, T, F> {
    /// What the teacher writes about a video.
    fn write<W: Teacher<PixelsOf<T>>>(
        &self,
        teacher: &mut W,
        video: &str,
        failures: &[Failure],
    ) -> Result<(Vec<Draft>, Vec<super::Malformed>), TeacherError> {
        let failed = |error: &dyn std::error::Error| TeacherError::Failed(error.to_string());
        let mut source = self
            .setup
            .source(&asking_nothing(video))
            .map_err(|error| failed(&error))?;
        let info = source.info();
        let call = FrameSelect {
            start_time: Argument::whole(0),
            end_time: Argument::float(info.usable_duration()),
            nframes: Argument::whole(SHOWN.0),
            resize: Argument::float(SHOWN.1),
        };
        let rules = &self.rl.stage.rules;
        let look = Selection::plan(&call, &info, rules).map_err(|error| failed(&error))?;
        let mut frames = Vec::new();
        if teacher.needs_frames() {
            source
                .frames(&look, &mut |frame| frames.push(frame))
                .map_err(|error| failed(&error))?;
        }
        teacher.write(&Lesson {
            failures,
            video,
            info,
            look,
            frames: &frames,
            count: self.rl.questions,
        })
    }

    fn pair(&self, video: &str, draft: Draft, failures: &[Failure]) -> Pair {
        let mut extras = draft.extras;
        let stage = &self.rl.stage;
        let items: Vec<u64> = failures.iter().map(|failure| failure.item).collect();
        let provenance = serde_json::json!({
            "teacher": self.rl.teacher,
            "policy": stage.policy,
            "failures": items,
            "seed": stage.seed,
            "version": env!("CARGO_PKG_VERSION"),
        });
        extras.insert("provenance".to_owned(), provenance);
        Pair {
            video: video.to_owned(),
            question: draft.question,
            options: Vec::new(),
            answer: draft.answer,
            kind: PairKind::OpenEnded,
            extras,
        }
    }

    /// Has the teacher answer its own question, each time with another workflow.
    fn check(
        &self,
        policy: &mut T::Policy,
        video: u64,
        number: u64,
        pair: &Pair,
    ) -> Result<(), (Reason, String)> {
        let failed = |message: String| (Reason::Failed, message);
        let Stage { limits, rules, .. } = &self.rl.stage;
        for time in 0..ANSWERS {
            let questions = self.rl.questions as u64;
            let index = (video * questions + number) * ANSWERS + time;
            let item = pair.item(index);
            let prepared = self.setup.prepare(policy, &item);
            // A policy that can't even take the question does not answer it.
            prepared.map_err(|error| (Reason::Unanswerable, error.to_string()))?;
            let source = self.setup.source(&item);
            let source = source.map_err(|error| failed(error.to_string()))?;
            let hint = workflow(index as usize);
            let thinker = Thinker::new(limits, rules, source.info(), &pair.question);
            let mut coached = Coached::new(policy, &hint, thinker);
            let (trajectory, _) = play(source, &mut coached, &item, *rules)
                .map_err(|broken| failed(broken.message))?;
            let outcome = &trajectory.outcome;
            let unanswerable = |detail| Err((Reason::Unanswerable, detail));
            match &outcome.answer {
                None => return unanswerable(format!("it ended with {}", outcome.stop_reason)),
                Some(_) if outcome.tally.frames == 0 => {
                    return unanswerable("answered without a look".to_owned());
                }
                Some(answer) if !pair.is_right(answer) => {
                    return unanswerable(format!("answered {answer}"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// An item that only names its video.
fn asking_nothing(video: &str) -> Item {
    Item {
        index: 0,
        videos: vec![video.to_owned()],
        prompt: vec![Prompt {
            role: eva_core::Role::User,
            content: String::new(),
        }],
        ground_truth: String::new(),
        extras: serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests;

//! Labelled runs: [`Kto`].

use eva_core::{FrameSource, Trajectory};

use super::play::{Broken, play};
use super::{
    Balance, Case, DataError, Ended, Judge, JudgeError, Label, Made, Order, Pair, Reason, Rejected,
    Sample, ShareError, Stage, Verdict, balance, spread, verdict,
};
use crate::evaluate::Setup;
use crate::journal::Journal;
use crate::pool::Work;

/// KTO correction: a policy plays each pair so many times; each run is labelled by rule and, when
/// nothing speaks against it, by a judge.
#[derive(Debug, Clone)]
pub struct Kto<'a> {
    stage: Stage<'a>,
    rollouts: u64,
    judge: Option<String>,
}

/// Labelled runs with the asked share of desirable ones, in the order of training.
#[derive(Debug, Clone)]
pub struct Balanced {
    /// The runs.
    pub samples: Vec<Sample>,
    /// How they were chosen; places are those in the order of jobs.
    pub balance: Balance,
    /// How many neighbours have the same prompt.
    pub touching: usize,
}

type PixelsOf<T> = <<T as Setup>::Source as FrameSource>::Pixels;

impl<'a> Kto<'a> {
    /// The stage with one rollout a pair and no judge's name.
    #[must_use]
    pub const fn new(stage: Stage<'a>) -> Self {
        Self {
            stage,
            rollouts: 1,
            judge: None,
        }
    }

    /// The same with so many rollouts a pair; 0 counts as 1.
    #[must_use]
    pub fn with_rollouts(mut self, rollouts: u64) -> Self {
        self.rollouts = rollouts.max(1);
        self
    }

    /// The same with a name for the judge, for the records.
    #[must_use]
    pub fn with_judge_name(mut self, name: impl Into<String>) -> Self {
        self.judge = Some(name.into());
        self
    }

    /// Number of runs of so many pairs.
    #[must_use]
    pub fn jobs(&self, pairs: usize) -> u64 {
        self.rollouts.saturating_mul(pairs as u64)
    }

    /// Plays and labels those runs that are not done in `journal`, and calls `on_done` after each.
    /// Each worker has a judge of its own, made by `judge`. The item that the setup is given has the
    /// number of the run as its index: rollouts of one pair can differ by it.
    ///
    /// # Errors
    /// [`DataError`]. That a run fails is none.
    pub fn run<T, J>(
        &self,
        setup: &T,
        judge: &(impl Fn() -> Result<J, T::Error> + Sync),
        pairs: &[Pair],
        journal: &mut Journal<Made>,
        on_done: &mut dyn FnMut(&Made),
    ) -> Result<Ended, DataError<T::Error>>
    where
        T: Setup,
        J: Judge<PixelsOf<T>>,
    {
        let done = journal.done().clone();
        let rollouts = self.rollouts;
        let jobs = (0..).zip(pairs).flat_map(move |(item, pair): (u64, _)| {
            (0..rollouts).map(move |rollout| Job {
                index: item * rollouts + rollout,
                item,
                rollout,
                pair,
            })
        });
        let jobs = jobs.filter(|job| !done.contains(job.index));
        let work = Judging {
            kto: self,
            setup,
            judge,
        };
        self.stage.drive(&work, jobs, journal, on_done)
    }

    /// Balances labelled runs, given in the order of jobs, and puts them in an order in which
    /// neighbours are not of the same pair.
    ///
    /// # Errors
    /// [`ShareError`] when `share` is none.
    pub fn balanced(&self, samples: Vec<Sample>, share: f64) -> Result<Balanced, ShareError> {
        let labels: Vec<Label> = samples.iter().filter_map(|sample| sample.label).collect();
        let balance = balance(&labels, share, self.stage.seed)?;
        let mut all: Vec<Option<Sample>> = samples.into_iter().map(Some).collect();
        let mut kept: Vec<Option<Sample>> = balance
            .kept
            .iter()
            .map(|place| all.get_mut(*place).and_then(Option::take))
            .collect();
        let prompts: Vec<u64> = kept.iter().flatten().map(|sample| sample.item).collect();
        let Order { order, touching } = spread(&prompts, self.stage.seed);
        let samples = order
            .into_iter()
            .filter_map(|place| kept.get_mut(place)?.take())
            .collect();
        Ok(Balanced {
            samples,
            balance,
            touching,
        })
    }
}

struct Job<'p> {
    index: u64,
    item: u64,
    rollout: u64,
    pair: &'p Pair,
}

struct Judging<'a, 'p, T, F> {
    kto: &'a Kto<'p>,
    setup: &'a T,
    judge: &'a F,
}

impl<'p, T, J, F> Work for Judging<'_, 'p, T, F>
where
    T: Setup,
    J: Judge<PixelsOf<T>>,
    F: Fn() -> Result<J, T::Error> + Sync,
{
    type Job = Job<'p>;
    type Kit = (T::Policy, J);
    type Done = Made;
    type Error = T::Error;

    fn equip(&self) -> Result<(T::Policy, J), T::Error> {
        Ok((self.setup.policy()?, (self.judge)()?))
    }

    fn work(&self, (policy, judge): &mut (T::Policy, J), job: &Job<'p>) -> Made {
        let stage = &self.kto.stage;
        let item = job.pair.item(job.index);
        let opened = self
            .setup
            .prepare(policy, &item)
            .and_then(|()| self.setup.source(&item));
        let played = opened
            .map_err(Broken::before)
            .and_then(|source| play(source, policy, &item, stage.rules));
        let (trajectory, conversation) = match played {
            Ok(played) => played,
            Err(Broken {
                message,
                trajectory,
            }) => return job.rejected(Reason::Failed, message, trajectory.map(|run| *run)),
        };
        let mut reasons = verdict::reasons(job.pair, &trajectory, &stage.limits);
        if reasons.is_empty() {
            let case = Case {
                pair: job.pair,
                trajectory: &trajectory,
                conversation: &conversation,
            };
            match judge.judge(&case) {
                Ok(Verdict::Enough) => {}
                Ok(Verdict::Guessed) => reasons.push(Reason::Guessed),
                Err(error) => {
                    let reason = match error {
                        JudgeError::Failed(_) => Reason::Failed,
                        JudgeError::Malformed(_) => Reason::JudgeMalformed,
                    };
                    return job.rejected(reason, error.to_string(), Some(trajectory));
                }
            }
        }
        let mut provenance = stage.provenance();
        provenance.judge.clone_from(&self.kto.judge);
        provenance.rollout = job.rollout;
        let label = if reasons.is_empty() {
            Label::Desirable
        } else {
            Label::Undesirable
        };
        Made {
            index: job.index,
            samples: vec![Sample {
                index: job.index,
                item: job.item,
                pair: job.pair.clone(),
                label: Some(label),
                reasons,
                trajectory,
                provenance,
            }],
            rejected: Vec::new(),
        }
    }

    fn panicked(&self, job: &Job<'p>, message: &str) -> Made {
        job.rejected(Reason::Failed, format!("panicked: {message}"), None)
    }
}

impl Job<'_> {
    fn rejected(&self, reason: Reason, detail: String, trajectory: Option<Trajectory>) -> Made {
        Made {
            index: self.index,
            samples: Vec::new(),
            rejected: vec![Rejected {
                index: self.index,
                item: self.item,
                reason,
                detail,
                pair: Some(self.pair.clone()),
                trajectory,
            }],
        }
    }
}

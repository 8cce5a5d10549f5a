//! Runs to imitate: [`Sft`].

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use eva_core::FrameSource as _;

use super::coach::{Coached, Thinker};
use super::cut::{Replay, cut};
use super::hints::hint;
use super::play::{Broken, play};
use super::{
    Bank, DataError, Ended, Experience, Made, Pair, Provenance, Reason, Rejected, Sample, Stage,
    verdict,
};
use crate::benchmark::Item;
use crate::evaluate::Setup;
use crate::journal::Journal;
use crate::pool::Work;

/// Pairs of a round. What a round's runs are shown of past successes is from the rounds before, so
/// that it doesn't depend on which run was finished first.
const ROUND: u64 = 32;

/// Supervised fine-tuning: an executor plays each pair once, with a hint of one of three families and
/// a thinker that audits its calls. What it answers right is kept, with a second run in which most
/// of the evidence is first cut away.
#[derive(Debug, Clone)]
pub struct Sft<'a> {
    stage: Stage<'a>,
}

impl<'a> Sft<'a> {
    /// The stage.
    #[must_use]
    pub const fn new(stage: Stage<'a>) -> Self {
        Self { stage }
    }

    /// Plays those of `pairs` that are not done in `journal`, each numbered by its place, and calls
    /// `on_done` after each.
    ///
    /// # Errors
    /// [`DataError`]. That a run fails is none.
    pub fn run<T: Setup>(
        &self,
        setup: &T,
        pairs: &[Pair],
        journal: &mut Journal<Made>,
        on_done: &mut dyn FnMut(&Made),
    ) -> Result<Ended, DataError<T::Error>> {
        let mut learnt = BTreeMap::new();
        for made in journal.entries()? {
            learnt.extend(experience(&made?));
        }
        let rounds = Rounds::new(learnt);
        let done = journal.done().clone();
        let rest = (0..).zip(pairs);
        let rest = rest.filter(|(index, _): &(u64, _)| !done.contains(*index));
        let jobs = rounds.jobs(rest);
        let work = Playing {
            stage: &self.stage,
            setup,
            rounds: &rounds,
        };
        let mut on_done = |made: &Made| {
            let _alarm = Alarm(&rounds);
            rounds.finish(experience(made));
            on_done(made);
        };
        self.stage.drive(&work, jobs, journal, &mut on_done)
    }
}

/// What is to be learnt from a job: its first run, if that was right.
fn experience(made: &Made) -> Option<(u64, Experience)> {
    let whole = |sample: &&Sample| sample.provenance.cut_turn.is_none();
    let sample = made.samples.iter().find(whole)?;
    Some((made.index, Experience::of(&sample.trajectory)))
}

/// What the rounds before have taught, and the wait for their end.
struct Rounds {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    learnt: BTreeMap<u64, Experience>,
    /// Jobs that were handed out and are not finished.
    running: usize,
    /// Nothing more is to be handed out.
    broken: bool,
}

impl Rounds {
    fn new(learnt: BTreeMap<u64, Experience>) -> Self {
        Self {
            state: Mutex::new(State {
                learnt,
                running: 0,
                broken: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The jobs in order. Between two rounds it waits until all that was handed out is finished.
    fn jobs<'p>(
        &self,
        pairs: impl Iterator<Item = (u64, &'p Pair)> + Send,
    ) -> impl Iterator<Item = Job<'p>> + Send {
        let mut at: Option<(u64, Arc<Bank>)> = None;
        pairs.map_while(move |(index, pair)| {
            let round = index / ROUND;
            let bank = match &at {
                Some((known, bank)) if *known == round => bank.clone(),
                _ => {
                    let bank = Arc::new(self.bank(round)?);
                    at = Some((round, bank.clone()));
                    bank
                }
            };
            self.state().running += 1;
            Some(Job { index, pair, bank })
        })
    }

    fn bank(&self, round: u64) -> Option<Bank> {
        let mut state = self.state();
        while state.running > 0 && !state.broken {
            // The pause is only for safety's sake: every change is told.
            let waited = self.changed.wait_timeout(state, Duration::from_secs(1));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.broken {
            return None;
        }
        let before = state.learnt.range(..round * ROUND);
        Some(Bank::new(before.map(|(_, one)| one.clone())))
    }

    fn finish(&self, learnt: Option<(u64, Experience)>) {
        let mut state = self.state();
        state.learnt.extend(learnt);
        state.running = state.running.saturating_sub(1);
        self.changed.notify_all();
    }

    fn give_up(&self) {
        self.state().broken = true;
        self.changed.notify_all();
    }
}

/// Gives up when a panic passes by: it ends the count of what is finished, so that whoever waits for the
/// end of a round would wait for ever. The panic would wait for them in turn, as a scope of threads lets
/// none out before all have ended.
struct Alarm<'a>(&'a Rounds);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.give_up();
        }
    }
}

struct Job<'p> {
    index: u64,
    pair: &'p Pair,
    bank: Arc<Bank>,
}

struct Playing<'a, 'p, T> {
    stage: &'a Stage<'p>,
    setup: &'a T,
    rounds: &'a Rounds,
}

impl<'p, T: Setup> Work for Playing<'_, 'p, T> {
    type Job = Job<'p>;
    type Kit = T::Policy;
    type Done = Made;
    type Error = T::Error;

    fn equip(&self) -> Result<T::Policy, T::Error> {
        // Whoever waits for this worker's job would wait for ever.
        self.setup.policy().inspect_err(|_| self.rounds.give_up())
    }

    fn work(&self, policy: &mut T::Policy, job: &Job<'p>) -> Made {
        let item = job.pair.item(job.index);
        let (family, hint) = hint(self.stage.seed, job.index, &job.pair.question, &job.bank);
        let mut provenance = self.stage.provenance();
        provenance.family = Some(family);
        let mut made = Made {
            index: job.index,
            samples: Vec::new(),
            rejected: Vec::new(),
        };
        match self.play(policy, &item, job.pair, &hint, &mut provenance) {
            Err(Broken {
                message,
                trajectory,
            }) => {
                let trajectory = trajectory.map(|run| *run);
                let failed = rejected(job, Reason::Failed, message, trajectory);
                made.rejected.push(failed);
            }
            Ok(trajectory) => {
                // Looks that the thinker let through in the end are no reason to leave a run out.
                let reasons = verdict::reasons(job.pair, &trajectory, &self.stage.limits);
                let mut against =
                    [Reason::NoAnswer, Reason::WrongAnswer, Reason::NoFrames].into_iter();
                if let Some(reason) = against.find(|one| reasons.contains(one)) {
                    let answer = trajectory.outcome.answer.as_deref();
                    let detail = match answer {
                        Some(answer) => format!("the answer is {answer}"),
                        None => format!("it ended with {}", trajectory.outcome.stop_reason),
                    };
                    made.rejected
                        .push(rejected(job, reason, detail, Some(trajectory)));
                } else {
                    provenance.hint = Some(hint);
                    let sample = Sample {
                        index: job.index,
                        item: job.index,
                        pair: job.pair.clone(),
                        label: None,
                        reasons: Vec::new(),
                        trajectory,
                        provenance,
                    };
                    let cut = self.cut(&item, &sample);
                    made.samples.push(sample);
                    made.samples.extend(cut);
                }
            }
        }
        made
    }

    fn panicked(&self, job: &Job<'p>, message: &str) -> Made {
        let detail = format!("panicked: {message}");
        Made {
            index: job.index,
            samples: Vec::new(),
            rejected: vec![rejected(job, Reason::Failed, detail, None)],
        }
    }
}

fn rejected(
    job: &Job<'_>,
    reason: Reason,
    detail: String,
    trajectory: Option<eva_core::Trajectory>,
) -> Rejected {
    Rejected {
        index: job.index,
        item: job.index,
        reason,
        detail,
        pair: Some(job.pair.clone()),
        trajectory,
    }
}

impl<T: Setup> Playing<'_, '_, T> {
    fn play(
        &self,
        policy: &mut T::Policy,
        item: &Item,
        pair: &Pair,
        hint: &str,
        provenance: &mut Provenance,
    ) -> Result<eva_core::Trajectory, Broken> {
        self.setup.prepare(policy, item).map_err(Broken::before)?;
        let source = self.setup.source(item).map_err(Broken::before)?;
        let Stage { limits, rules, .. } = self.stage;
        let thinker = Thinker::new(limits, rules, source.info(), &pair.question);
        let mut coached = Coached::new(policy, hint, thinker);
        let (trajectory, _) = play(source, &mut coached, item, *rules)?;
        provenance.objections = coached.objections;
        Ok(trajectory)
    }

    /// The run with insufficient evidence, if there is one that ends as well.
    fn cut(&self, item: &Item, whole: &Sample) -> Option<Sample> {
        let (turn, replies) = cut(&whole.trajectory, self.stage.seed, whole.index)?;
        let source = self.setup.source(item).ok()?;
        let (trajectory, _) = play(source, Replay::new(replies), item, self.stage.rules).ok()?;
        let answer = trajectory.outcome.answer.as_deref()?;
        whole.pair.is_right(answer).then(|| Sample {
            trajectory: trajectory.clone(),
            provenance: Provenance {
                cut_turn: Some(turn),
                ..whole.provenance.clone()
            },
            ..whole.clone()
        })
    }
}

#[cfg(test)]
mod tests;

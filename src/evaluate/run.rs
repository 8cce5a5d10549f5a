//! Items, workers, results: [`Evaluation`].

use std::error::Error;
use std::io;
use std::sync::atomic::AtomicBool;

use eva_core::Rules;

use super::play::{Played, failed, play};
use super::{Record, Results, ResultsError, Setup, Uniform};
use crate::benchmark::Item;
use crate::pool::{Broken, Pool, Work};

/// How the items are run.
///
/// ```
/// use eva::evaluate::Evaluation;
/// let evaluation = Evaluation::new().with_concurrency(4);
/// ```
#[derive(Debug, Clone)]
pub struct Evaluation<'a> {
    rules: Rules,
    concurrency: usize,
    uniform: Option<Uniform>,
    trajectories: bool,
    stop: Option<&'a AtomicBool>,
}

/// How a run ended that was not broken off by an error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// Items that were finished now.
    pub finished: u64,
    /// Whether it was stopped while items were left.
    pub interrupted: bool,
}

/// Why a run was broken off. What was finished before is written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError<E: Error> {
    /// There is no policy to answer with.
    #[error("cannot make a policy: {0}")]
    Policy(E),
    /// The results can't be written.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}; lower the concurrency")]
    Thread(io::Error),
}

impl Default for Evaluation<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Evaluation<'a> {
    /// One item at a time, under [`Rules::published`].
    #[must_use]
    pub const fn new() -> Self {
        Self {
            rules: Rules::published(),
            concurrency: 1,
            uniform: None,
            trajectories: false,
            stop: None,
        }
    }

    /// The same under other limits.
    #[must_use]
    pub const fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// The same with so many items at once, each worker with a policy of its own; 0 counts as 1.
    #[must_use]
    pub const fn with_concurrency(mut self, workers: usize) -> Self {
        self.concurrency = if workers == 0 { 1 } else { workers };
        self
    }

    /// The same with frames before the question, and no tool.
    #[must_use]
    pub const fn with_uniform(mut self, uniform: Uniform) -> Self {
        self.uniform = Some(uniform);
        self
    }

    /// The same, and every run is kept whole ([`Results::keep_trajectory`]).
    #[must_use]
    pub const fn with_trajectories(mut self) -> Self {
        self.trajectories = true;
        self
    }

    /// The same, but once `stop` is true no further item is begun. Those that run are finished.
    #[must_use]
    pub const fn with_stop(mut self, stop: &'a AtomicBool) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Answers those of `items` that are not done in `results`, and calls `on_record` after each.
    ///
    /// Items are taken one by one as workers get free; records come in the order in which items are
    /// finished. Of two items with one index only the first is run.
    ///
    /// # Errors
    /// [`EvaluateError`]. That an item fails is none.
    pub fn run<T, I>(
        &self,
        setup: &T,
        items: I,
        results: &mut Results,
        on_record: &mut dyn FnMut(&Record),
    ) -> Result<Ended, EvaluateError<T::Error>>
    where
        T: Setup,
        I: IntoIterator<Item = Item, IntoIter: Send>,
    {
        let mut taken = results.done().clone();
        let items = items
            .into_iter()
            .filter(move |item| taken.insert(item.index));
        let answering = Answering {
            setup,
            rules: self.rules,
            uniform: self.uniform,
        };
        let mut finished = 0;
        let pool = Pool::new(self.concurrency, self.stop);
        let ended = pool.run(&answering, items, &mut |played| {
            self.keep(&played, results)?;
            finished += 1;
            on_record(&played.record);
            Ok::<(), ResultsError>(())
        });
        match ended {
            Ok(interrupted) => Ok(Ended {
                finished,
                interrupted,
            }),
            Err(Broken::Equip(error)) => Err(EvaluateError::Policy(error)),
            Err(Broken::Keep(error)) => Err(error.into()),
            Err(Broken::Thread(error)) => Err(EvaluateError::Thread(error)),
        }
    }

    /// The trajectory first: an item with a record is never run again.
    fn keep(&self, played: &Played, results: &mut Results) -> Result<(), ResultsError> {
        if let Some(trajectory) = played.trajectory.as_ref().filter(|_| self.trajectories) {
            results.keep_trajectory(played.record.index, trajectory)?;
        }
        results.append(&played.record)
    }
}

/// How a worker answers.
struct Answering<'a, T> {
    setup: &'a T,
    rules: Rules,
    uniform: Option<Uniform>,
}

impl<T: Setup> Work for Answering<'_, T> {
    type Job = Item;
    type Kit = T::Policy;
    type Done = Played;
    type Error = T::Error;

    fn equip(&self) -> Result<T::Policy, T::Error> {
        self.setup.policy()
    }

    fn work(&self, policy: &mut T::Policy, item: &Item) -> Played {
        play(self.setup, policy, item, self.rules, self.uniform.as_ref())
    }

    fn panicked(&self, item: &Item, message: &str) -> Played {
        Played {
            record: failed(Record::new(item), format!("panicked: {message}")),
            trajectory: None,
        }
    }
}

#[cfg(test)]
mod tests;

//! What all stages share: [`Stage`].

use std::error::Error;
use std::io;
use std::sync::atomic::AtomicBool;

use eva_core::Rules;

use super::{Limits, Provenance};
pub use crate::evaluate::Ended;
use crate::journal::{Entry, Journal, JournalError};
use crate::pool::{Broken, Pool, Work};

/// How a stage is run.
///
/// ```
/// use eva::data::Stage;
/// let stage = Stage::new("tiny").with_seed(1).with_concurrency(4);
/// ```
#[derive(Debug, Clone)]
pub struct Stage<'a> {
    pub(super) policy: String,
    pub(super) rules: Rules,
    pub(super) limits: Limits,
    pub(super) seed: u64,
    concurrency: usize,
    stop: Option<&'a AtomicBool>,
}

/// Why a stage was broken off. What was finished before is written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError<E: Error> {
    /// There is nothing to work with.
    #[error("cannot make a policy: {0}")]
    Equip(E),
    /// The work can't be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}; lower the concurrency")]
    Thread(io::Error),
}

impl<'a> Stage<'a> {
    /// One job at a time, under [`Rules::published`] and [`Limits::default`], with seed 0. `policy` is
    /// what is written into the records as the policy's name.
    pub fn new(policy: impl Into<String>) -> Self {
        Self {
            policy: policy.into(),
            rules: Rules::published(),
            limits: Limits::default(),
            seed: 0,
            concurrency: 1,
            stop: None,
        }
    }

    /// The same under other limits of a run.
    #[must_use]
    pub const fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// The same with other limits of a look.
    #[must_use]
    pub const fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The same with another seed.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The same with so many jobs at once, each worker with a policy of its own; 0 counts as 1.
    #[must_use]
    pub const fn with_concurrency(mut self, workers: usize) -> Self {
        self.concurrency = workers;
        self
    }

    /// The same, but once `stop` is true no further job is begun. Those that run are finished.
    #[must_use]
    pub const fn with_stop(mut self, stop: &'a AtomicBool) -> Self {
        self.stop = Some(stop);
        self
    }

    pub(super) fn provenance(&self) -> Provenance {
        Provenance {
            policy: self.policy.clone(),
            seed: self.seed,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Provenance::default()
        }
    }

    /// Does the jobs and writes what comes of each at once; `on_done` is called after that.
    pub(super) fn drive<W>(
        &self,
        work: &W,
        jobs: impl Iterator<Item = W::Job> + Send,
        journal: &mut Journal<W::Done>,
        on_done: &mut dyn FnMut(&W::Done),
    ) -> Result<Ended, DataError<W::Error>>
    where
        W: Work<Done: Entry, Error: Error>,
    {
        let mut finished = 0;
        let pool = Pool::new(self.concurrency, self.stop);
        let ended = pool.run(work, jobs, &mut |done| {
            let kept = journal.append(&done);
            finished += u64::from(kept.is_ok());
            on_done(&done);
            kept
        });
        match ended {
            Ok(interrupted) => Ok(Ended {
                finished,
                interrupted,
            }),
            Err(Broken::Equip(error)) => Err(DataError::Equip(error)),
            Err(Broken::Keep(error)) => Err(error.into()),
            Err(Broken::Thread(error)) => Err(DataError::Thread(error)),
        }
    }
}

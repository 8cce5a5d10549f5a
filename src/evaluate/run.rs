//! Items, workers, results: [`Evaluation`].

use std::any::Any;
use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use eva_core::Rules;

use super::play::{Played, failed, play};
use super::{Indices, Record, Results, ResultsError, Setup, Uniform};
use crate::benchmark::Item;

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
        let queue = Queue::new(items.into_iter(), results.done().clone());
        let halt = AtomicBool::new(false);
        let mut failure = None;
        let mut finished = 0;
        thread::scope(|scope| {
            let (sender, receiver) = sync_channel(self.concurrency);
            for number in 0..self.concurrency {
                let (sender, queue, halt) = (sender.clone(), &queue, &halt);
                let worker = thread::Builder::new().name(format!("evaluate {number}"));
                let work = move || self.work(setup, queue, halt, &sender);
                if let Err(error) = worker.spawn_scoped(scope, work) {
                    failure = Some(EvaluateError::Thread(error));
                    halt.store(true, Ordering::Relaxed);
                    break;
                }
            }
            drop(sender);
            // Also after a failure: what still runs is finished and, if at all possible, kept.
            for played in receiver {
                let kept = match played {
                    Ok(played) => self.keep(&played, results).map(|()| played.record),
                    Err(error) => Err(EvaluateError::Policy(error)),
                };
                match kept {
                    Ok(record) => {
                        finished += 1;
                        on_record(&record);
                    }
                    Err(error) => {
                        halt.store(true, Ordering::Relaxed);
                        failure.get_or_insert(error);
                    }
                }
            }
        });
        match failure {
            Some(failure) => Err(failure),
            None => Ok(Ended {
                finished,
                interrupted: self.is_stopped() && queue.take().is_some(),
            }),
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    fn work<T: Setup>(
        &self,
        setup: &T,
        queue: &Queue<impl Iterator<Item = Item>>,
        halt: &AtomicBool,
        sender: &SyncSender<Result<Played, T::Error>>,
    ) {
        // Made when there is something to answer: a model may take minutes to load.
        let mut policy = None;
        while !self.is_stopped() && !halt.load(Ordering::Relaxed) {
            let Some(item) = queue.take() else { return };
            let played = catch_unwind(AssertUnwindSafe(|| {
                let policy = match &mut policy {
                    Some(policy) => policy,
                    none => none.insert(setup.policy()?),
                };
                let uniform = self.uniform.as_ref();
                Ok(play(setup, policy, &item, self.rules, uniform))
            }));
            let played = played.unwrap_or_else(|panic| {
                // Whatever state it is in now, no other item shall meet it.
                policy = None;
                let error = format!("panicked: {}", message(panic.as_ref()));
                Ok(Played {
                    record: failed(Record::new(&item), error),
                    trajectory: None,
                })
            });
            let without_policy = played.is_err();
            if sender.send(played).is_err() || without_policy {
                return;
            }
        }
    }

    /// The trajectory first: an item with a record is never run again.
    fn keep<E: Error>(
        &self,
        played: &Played,
        results: &mut Results,
    ) -> Result<(), EvaluateError<E>> {
        if let Some(trajectory) = played.trajectory.as_ref().filter(|_| self.trajectories) {
            results.keep_trajectory(played.record.index, trajectory)?;
        }
        Ok(results.append(&played.record)?)
    }
}

/// Items that are still to be done.
struct Queue<I>(Mutex<(I, Indices)>);

impl<I: Iterator<Item = Item>> Queue<I> {
    fn new(items: I, done: Indices) -> Self {
        Self(Mutex::new((items, done)))
    }

    fn take(&self) -> Option<Item> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (items, done) = &mut *queue;
        items.find(|item| done.insert(item.index))
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests;

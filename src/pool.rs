//! Workers on a queue: [`Pool`].

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// How many workers there are, and what stops them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pool<'a> {
    workers: usize,
    stop: Option<&'a AtomicBool>,
}

/// Why jobs were broken off. What was done before is kept.
pub(crate) enum Broken<M, K> {
    /// A worker can't be equipped.
    Equip(M),
    /// What was done can't be kept.
    Keep(K),
    /// The system gives no thread.
    Thread(io::Error),
}

/// What a worker does, each on its own thread with a kit of its own.
pub(crate) trait Work: Sync {
    /// What is to be done.
    type Job: Send;
    /// What it takes, such as a model.
    type Kit;
    /// What comes of it.
    type Done: Send;
    /// Why there is no kit.
    type Error: Send;

    /// A kit, made when there is something to do, and again after a panic: a model may take minutes
    /// to load.
    fn equip(&self) -> Result<Self::Kit, Self::Error>;

    /// Does a job.
    fn work(&self, kit: &mut Self::Kit, job: &Self::Job) -> Self::Done;

    /// What comes of a job that panicked with `message`.
    fn panicked(&self, job: &Self::Job, message: &str) -> Self::Done;
}

impl<'a> Pool<'a> {
    /// So many workers, 0 counting as 1. Once `stop` is true no further job is begun.
    pub(crate) fn new(workers: usize, stop: Option<&'a AtomicBool>) -> Self {
        let workers = workers.max(1);
        Self { workers, stop }
    }

    /// Does the jobs, taken one by one as workers get free, and keeps what comes of them in the
    /// order in which they are finished. Whether jobs are left because of `stop`.
    pub(crate) fn run<W: Work, K>(
        self,
        work: &W,
        jobs: impl Iterator<Item = W::Job> + Send,
        keep: &mut dyn FnMut(W::Done) -> Result<(), K>,
    ) -> Result<bool, Broken<W::Error, K>> {
        let queue = Mutex::new(jobs);
        let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let halt = AtomicBool::new(false);
        let mut broken = None;
        thread::scope(|scope| {
            let (sender, receiver) = sync_channel(self.workers);
            for number in 0..self.workers {
                let (sender, take, halt) = (sender.clone(), &take, &halt);
                let task = move || {
                    let mut kit = None;
                    while !self.is_stopped() && !halt.load(Ordering::Relaxed) {
                        let Some(job) = take() else { return };
                        let done = attempt(work, &mut kit, &job);
                        let without_kit = done.is_err();
                        if sender.send(done).is_err() || without_kit {
                            return;
                        }
                    }
                };
                let worker = thread::Builder::new().name(format!("worker {number}"));
                if let Err(error) = worker.spawn_scoped(scope, task) {
                    broken = Some(Broken::Thread(error));
                    halt.store(true, Ordering::Relaxed);
                    break;
                }
            }
            drop(sender);
            // Also after a failure: what still runs is finished and, if at all possible, kept.
            for done in receiver {
                let kept = match done {
                    Ok(done) => keep(done).map_err(Broken::Keep),
                    Err(error) => Err(Broken::Equip(error)),
                };
                if let Err(error) = kept {
                    halt.store(true, Ordering::Relaxed);
                    broken.get_or_insert(error);
                }
            }
        });
        match broken {
            Some(broken) => Err(broken),
            None => Ok(self.is_stopped() && take().is_some()),
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

fn attempt<W: Work>(work: &W, kit: &mut Option<W::Kit>, job: &W::Job) -> Result<W::Done, W::Error> {
    let done = catch_unwind(AssertUnwindSafe(|| {
        let kit = match &mut *kit {
            Some(kit) => kit,
            none => none.insert(work.equip()?),
        };
        Ok(work.work(kit, job))
    }));
    done.unwrap_or_else(|panic| {
        // Whatever state it is in now, no other job shall meet it.
        *kit = None;
        Ok(work.panicked(job, message(panic.as_ref())))
    })
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

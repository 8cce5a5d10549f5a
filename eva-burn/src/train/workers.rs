//! A fixed number of threads that work through a list.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::TrainerError;

/// Threads, each in a pool of its own: small products do not scale over threads, whole shards do. The
/// backend splits its work over the pool it runs in, so a pool of one keeps a shard on its thread,
/// and its sums in the same order whatever the number of threads.
pub(super) struct Workers(Vec<ThreadPool>);

/// Results that wait for those before them.
struct Waiting<M, S> {
    next: usize,
    done: BTreeMap<usize, M>,
    sink: S,
}

impl Workers {
    pub(super) fn new(threads: usize) -> Result<Self, TrainerError> {
        let pool = |_| ThreadPoolBuilder::new().num_threads(1).build();
        let pools = (0..threads.max(1)).map(pool).collect::<Result<_, _>>();
        let pools = pools.map_err(|source| TrainerError::Threads { threads, source })?;
        Ok(Self(pools))
    }

    /// Runs `work` for 0 to `count` and hands its results to `sink` in that order, each as soon as
    /// those before it are there. A panic of `work` is passed on.
    pub(super) fn each<M: Send>(
        &self,
        count: usize,
        work: impl Fn(usize) -> M + Sync,
        sink: impl FnMut(M) + Send,
    ) {
        let next = AtomicUsize::new(0);
        let waiting = Mutex::new(Waiting {
            next: 0,
            done: BTreeMap::new(),
            sink,
        });
        let labour = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    break;
                }
                let result = work(index);
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let Waiting { next, done, sink } = &mut *waiting;
                done.insert(index, result);
                while let Some(result) = done.remove(next) {
                    sink(result);
                    *next += 1;
                }
            }
        };
        std::thread::scope(|scope| {
            let labour = &labour;
            let workers = self.0.iter().take(count);
            let workers: Vec<_> = workers
                .map(|pool| scope.spawn(move || pool.install(labour)))
                .collect();
            for worker in workers {
                if let Err(panic) = worker.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
    }

    /// The results of `work` for 0 to `count`, in that order.
    pub(super) fn map<M: Send>(&self, count: usize, work: impl Fn(usize) -> M + Sync) -> Vec<M> {
        let mut results = Vec::with_capacity(count);
        self.each(count, work, |result| results.push(result));
        results
    }

    /// Runs `work` on one of the threads.
    pub(super) fn one<M: Send>(&self, work: impl FnOnce() -> M + Send) -> M {
        match self.0.first() {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn results_come_in_order_from_any_number_of_threads() {
        for threads in [0, 1, 3] {
            let workers = Workers::new(threads).unwrap();
            let results = workers.map(20, |index| {
                // Earlier ones take longer.
                std::thread::sleep(std::time::Duration::from_millis(20 - index as u64));
                index
            });
            assert_eq!(results, (0..20).collect::<Vec<_>>());
            assert_eq!(workers.map(0, |index| index), Vec::<usize>::new());
        }
    }

    #[test]
    #[should_panic = "the third"]
    fn a_panic_is_passed_on() {
        let workers = Workers::new(2).unwrap();
        workers.map(4, |index| assert!(index != 2, "the third"));
    }
}

//! A fixed number of threads that work through a list.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::TrainerError;

/// Threads, each in a pool of its own: small products do not scale over threads, whole shards do. The
/// backend splits its work over the pool it runs in, so a pool of one keeps a shard on its thread,
/// and its sums in the same order whatever the number of threads.
///
/// Each thread works for one of so many devices, and the device of a piece of work follows from its
/// number alone.
pub(super) struct Workers {
    pools: Vec<ThreadPool>,
    devices: usize,
}

/// Results that wait for those before them.
struct Waiting<M, S> {
    next: usize,
    done: BTreeMap<usize, M>,
    sink: S,
}

impl Workers {
    /// So many threads for each of so many devices.
    pub(super) fn new(threads: usize, devices: usize) -> Result<Self, TrainerError> {
        let (threads, devices) = (threads.max(1), devices.max(1));
        let pool = |_| ThreadPoolBuilder::new().num_threads(1).build();
        let pools = (0..threads.saturating_mul(devices)).map(pool);
        let pools = pools.collect::<Result<_, _>>();
        let pools = pools.map_err(|source| TrainerError::Threads { threads, source })?;
        Ok(Self { pools, devices })
    }

    /// The number of the device that works on the piece of this number.
    pub(super) fn device(&self, index: usize) -> usize {
        index % self.devices
    }

    /// Runs `work` for 0 to `count` and hands its results to `sink` in that order, each as soon as
    /// those before it are there. A panic of `work` is passed on.
    pub(super) fn each<M: Send>(
        &self,
        count: usize,
        work: impl Fn(usize) -> M + Sync,
        sink: impl FnMut(M) + Send,
    ) {
        // Of each device the next piece.
        let next: Vec<AtomicUsize> = (0..self.devices).map(AtomicUsize::new).collect();
        let waiting = Mutex::new(Waiting {
            next: 0,
            done: BTreeMap::new(),
            sink,
        });
        let labour = |device: usize| {
            loop {
                let index = next[device].fetch_add(self.devices, Ordering::Relaxed);
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
            let workers = self.pools.iter().take(count).enumerate();
            let workers: Vec<_> = workers
                .map(|(number, pool)| {
                    let device = self.device(number);
                    scope.spawn(move || pool.install(|| labour(device)))
                })
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
        match self.pools.first() {
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
    fn results_come_in_order_from_any_number_of_threads_and_devices() {
        for (threads, devices) in [(0, 1), (1, 1), (3, 1), (1, 3), (2, 2)] {
            let workers = Workers::new(threads, devices).unwrap();
            for count in [0, 1, 2, 20] {
                let results = workers.map(count, |index| {
                    // Earlier ones take longer.
                    std::thread::sleep(std::time::Duration::from_millis(20 - index as u64));
                    index
                });
                assert_eq!(results, (0..count).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn no_thread_works_for_two_devices() {
        let workers = Workers::new(2, 3).unwrap();
        let threads = workers.map(30, |_| std::thread::current().id());
        let used = |device| -> std::collections::HashSet<_> {
            (0..30)
                .filter(|index| workers.device(*index) == device)
                .map(|index| threads[index])
                .collect()
        };
        assert!(used(0).is_disjoint(&used(1)) && used(1).is_disjoint(&used(2)));
        assert!(used(2).is_disjoint(&used(0)));
    }

    #[test]
    #[should_panic = "the third"]
    fn a_panic_is_passed_on() {
        let workers = Workers::new(2, 1).unwrap();
        workers.map(4, |index| assert!(index != 2, "the third"));
    }
}

//! Work for all threads of the pool: [`share_out`], and [`awake`] around much of it.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError, TryLockError};

use rayon::{ThreadPool, ThreadPoolBuilder, Yield};

/// Does `work` with each of `pieces`, at most `count`, on this thread and as many others of the pool as
/// there can be pieces for.
///
/// This thread begins at once: handing all to the pool costs a sleep and two wakings, which for a layer
/// of a small model is as long as the work.
pub(crate) fn share_out<T>(
    mut pieces: impl Iterator<Item = T> + Send,
    count: usize,
    work: impl Fn(T) + Sync,
) {
    let others = rayon::current_num_threads().min(count).saturating_sub(1);
    if others == 0 {
        return pieces.for_each(work);
    }
    let pieces = Mutex::new(&mut pieces);
    let work = || {
        loop {
            let next = pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(piece) = next else { break };
            work(piece);
        }
    };
    rayon::in_place_scope(|scope| {
        for _ in 0..others {
            scope.spawn(|_| work());
        }
        work();
    });
}

/// Does `work` while the threads of a pool of our own are awake, and take what it shares out at once.
///
/// To wake a thread takes as long as a small matrix does to be multiplied, and a token has some hundred of them: int8
/// decoded up to a quarter faster with threads awake, bf16 up to a tenth (docs/hardware.md). The pool is ours alone, so that a
/// token never waits for other work of the program; whoever comes while another call has it, or from a pool of its
/// own, works as without it.
pub(crate) fn awake<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    static POOL: LazyLock<Mutex<Option<ThreadPool>>> = LazyLock::new(|| {
        let threads = rayon::current_num_threads();
        let pool = ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.thread_name(|index| format!("eva-burn-{index}"));
        Mutex::new((threads > 1).then(|| pool.build().ok()).flatten())
    });
    if rayon::current_thread_index().is_some() {
        return work();
    }
    let pool = match POOL.try_lock() {
        Ok(pool) => pool,
        // Somebody's work failed, which is no harm to the pool.
        Err(TryLockError::Poisoned(pool)) => pool.into_inner(),
        Err(TryLockError::WouldBlock) => return work(),
    };
    match &*pool {
        Some(pool) => awake_in(pool, work),
        None => work(),
    }
}

/// As [`awake`], in a pool that does nothing else.
fn awake_in<R: Send>(pool: &ThreadPool, work: impl FnOnce() -> R + Send) -> R {
    let others = pool.current_num_threads() - 1;
    let (begun, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    pool.scope(|scope| {
        for _ in 0..others {
            scope.spawn(|_| stand_by(others, &begun, &done));
        }
        let _taken = Taken::begin();
        let _done = Done(&done);
        work()
    })
}

/// Takes what is shared out, until all is done.
fn stand_by(others: usize, begun: &AtomicUsize, done: &AtomicBool) {
    /// How often a thread looks for work before it lets other programs run: for longer than the steps between two
    /// products take.
    const SPINS: u32 = 1000;
    begun.fetch_add(1, Ordering::Relaxed);
    // Whoever waits for pieces of its work takes whatever there is meanwhile, but must come back.
    let Some(_taken) = Taken::begin() else {
        return;
    };
    let mut idle = 0;
    while !done.load(Ordering::Relaxed) {
        // Each thread is to take one of these calls before any of them looks for more.
        let ready = begun.load(Ordering::Relaxed) == others;
        if ready && rayon::yield_now() == Some(Yield::Executed) {
            idle = 0;
        } else if idle < SPINS {
            idle += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// Lets others go when it ends, whatever becomes of the work.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

thread_local! {
    static TAKEN: Cell<bool> = const { Cell::new(false) };
}

/// This thread works, or stands by, below what it does now.
struct Taken;

impl Taken {
    /// `None` if that is so already.
    fn begin() -> Option<Self> {
        if TAKEN.replace(true) {
            return None;
        }
        Some(Self)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        TAKEN.set(false);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rayon::prelude::*;

    fn sum_of_squares() -> u64 {
        let sum = std::sync::atomic::AtomicU64::new(0);
        share_out(0..1000, 1000, |x: u64| {
            sum.fetch_add(x * x, Ordering::Relaxed);
        });
        sum.into_inner()
    }

    const SUM: u64 = 332_833_500;

    #[test]
    fn every_piece_is_done_once_by_threads_awake_or_asleep() {
        assert_eq!(sum_of_squares(), SUM);
        assert_eq!(awake(sum_of_squares), SUM);
        assert_eq!(awake(|| awake(sum_of_squares)), SUM);
    }

    #[test]
    fn pools_of_any_size_end_what_they_were_given() {
        for threads in [1, 2, 3, 16] {
            let pool = ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().unwrap();
            for _ in 0..200 {
                // Pieces that wait for pieces of their own, as large products do.
                let all = || (0..20u64).into_par_iter().map(|x| x * x).sum::<u64>();
                let joined = awake_in(&pool, || {
                    let (a, b) = rayon::join(all, || rayon::join(all, sum_of_squares));
                    (a, b, sum_of_squares())
                });
                assert_eq!(joined, (2470, (2470, SUM), SUM), "{threads} threads");
            }
        }
    }

    #[test]
    fn several_at_a_time_do_not_wait_for_each_other_for_ever() {
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        assert_eq!(awake(|| sum_of_squares() + sum_of_squares()), 2 * SUM);
                    }
                });
            }
        });
    }

    #[test]
    fn a_thread_that_works_does_not_stand_by() {
        let taken = Taken::begin();
        assert!(taken.is_some());
        assert!(Taken::begin().is_none());
        assert!(Taken::begin().is_none());
        drop(taken);
        assert!(Taken::begin().is_some());
    }

    #[test]
    fn threads_are_let_go_when_the_work_fails() {
        let failed = std::panic::catch_unwind(|| awake(|| panic!("as it should")));
        assert!(failed.is_err());
        assert_eq!(awake(sum_of_squares), SUM);
    }
}

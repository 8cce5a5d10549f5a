//! Work for all threads of the pool: [`share_out`].

use std::sync::{Mutex, PoisonError};

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

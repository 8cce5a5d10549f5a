//! Stopping a call from another thread: [`CancelHandle`].

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use crate::GstError;

/// Stops what a [`GstSource`](crate::GstSource) is doing, from any thread.
///
/// A source has one of its own, see [`GstSource::cancel_handle`](crate::GstSource::cancel_handle).
/// To be able to stop an opening too, or several sources at once, make one and hand it to
/// [`GstOptions::with_cancel`](crate::GstOptions::with_cancel).
///
/// ```
/// let stop = eva_gst::CancelHandle::new();
/// let options = eva_gst::GstOptions::new().with_cancel(&stop);
/// assert!(!stop.cancel(), "nothing is running");
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Default)]
pub struct CancelHandle {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Calls that are running.
    running: AtomicUsize,
    /// How often it was cancelled: a call is cancelled when this changes while it runs.
    count: AtomicUsize,
}

impl CancelHandle {
    /// A handle that is not yet tied to any source.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the calls that are running: each ends with
    /// [`GstError::Cancelled`](crate::GstError::Cancelled) within some 20 ms, or once the picture
    /// being decoded is done. Calls that begin later are not affected.
    ///
    /// Returns whether any call was running.
    #[allow(clippy::must_use_candidate)]
    pub fn cancel(&self) -> bool {
        self.shared.count.fetch_add(1, Ordering::SeqCst);
        self.shared.running.load(Ordering::SeqCst) > 0
    }
}

/// Whether it is the same handle.
impl PartialEq for CancelHandle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for CancelHandle {}

/// One source's view of its handle: whether the call that it is in was cancelled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    handle: CancelHandle,
    /// The handle's count when the call began.
    since: Arc<AtomicUsize>,
}

impl Stop {
    pub(crate) fn new(handle: CancelHandle) -> Self {
        Self {
            handle,
            since: Arc::default(),
        }
    }

    pub(crate) fn handle(&self) -> &CancelHandle {
        &self.handle
    }

    /// A call begins; it ends when the result is dropped.
    pub(crate) fn begin(&self) -> Running {
        let shared = Arc::clone(&self.handle.shared);
        shared.running.fetch_add(1, Ordering::SeqCst);
        let count = shared.count.load(Ordering::SeqCst);
        self.since.store(count, Ordering::SeqCst);
        Running(shared)
    }

    /// Fails when the call that is running was cancelled.
    pub(crate) fn check(&self, file: &str) -> Result<(), GstError> {
        if self.handle.shared.count.load(Ordering::SeqCst) == self.since.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(GstError::Cancelled {
            file: file.to_owned(),
        })
    }
}

/// A call that is running.
pub(crate) struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_calls_that_are_running_are_stopped() {
        let handle = CancelHandle::new();
        let stop = Stop::new(handle.clone());
        assert!(!handle.cancel());
        let running = stop.begin();
        assert!(stop.check("a").is_ok(), "cancelled before it began");
        assert!(handle.cancel());
        assert!(matches!(stop.check("a"), Err(GstError::Cancelled { .. })));
        drop(running);
        assert!(!handle.cancel());
        let _running = stop.begin();
        assert!(stop.check("a").is_ok());
    }

    #[test]
    fn one_handle_stops_all_that_share_it() {
        let handle = CancelHandle::new();
        let (one, two) = (Stop::new(handle.clone()), Stop::new(handle.clone()));
        let _running = (one.begin(), two.begin());
        assert!(handle.clone().cancel());
        assert!(one.check("a").is_err() && two.check("a").is_err());
    }
}

//! What answers the questions: [`Setup`].

use std::error::Error;

use eva_core::{Abort, FrameSource, Policy};

use crate::benchmark::Item;

/// Makes what an [`Evaluation`](super::Evaluation) needs: a policy for each worker, a source for
/// each item.
///
/// Both are made and used on the worker's own thread, so they need not be `Send`.
pub trait Setup: Sync {
    /// Where the frames come from.
    type Source: FrameSource;
    /// What answers.
    type Policy: Policy<<Self::Source as FrameSource>::Pixels>;
    /// Why a policy or a source can't be made.
    type Error: Error + Send;

    /// A policy, once for each worker, and again after one that panicked. A model that all of them use is
    /// loaded once and cloned ([`BurnPolicy::share`](eva_burn::BurnPolicy::share)).
    ///
    /// # Errors
    /// Ends the evaluation: without a policy nothing can be answered.
    fn policy(&self) -> Result<Self::Policy, Self::Error>;

    /// The video of `item`, opened.
    ///
    /// # Errors
    /// Is recorded as the result of the item.
    fn source(&self, item: &Item) -> Result<Self::Source, Self::Error>;

    /// Tells the policy which item comes next, for one that knows more than the conversation.
    ///
    /// # Errors
    /// Is recorded as the result of the item.
    fn prepare(&self, policy: &mut Self::Policy, item: &Item) -> Result<(), Self::Error> {
        _ = (policy, item);
        Ok(())
    }

    /// Whether an error of the policy is a server's refusal. By default none is.
    fn abort(
        error: &<Self::Policy as Policy<<Self::Source as FrameSource>::Pixels>>::Error,
    ) -> Abort {
        _ = error;
        Abort::Exception
    }
}

//! Many questions about many videos, driven at once, with nothing lost: [`Evaluation`].
//!
//! ```text
//! items ---> worker: policy, source of the item's video ---+
//!      `---> worker: policy, source of the item's video ---+---> Results: one line an item
//!                                                                   | results.jsonl
//!                                                                   v
//!                                                         Scorer ---> Summary, Comparison
//! ```
//!
//! A finished item is written at once. A run that is interrupted, or killed at any byte, goes on
//! where it stopped when it is started again on the same folder: no record is lost, none is there
//! twice. An item that fails is recorded with its error and stops nothing.
//!
//! What answers the questions is a [`Setup`]: a policy for each worker and a source for each item.

pub use crate::journal::{Found, JournalError as ResultsError};

mod compare;
mod play;
mod record;
mod results;
mod run;
mod score;
mod setup;
mod summary;
mod uniform;

pub use compare::{Comparison, compare};
pub use record::Record;
pub use results::{RecordReader, Results};
pub use run::{Ended, EvaluateError, Evaluation};
pub use score::{Interval, is_correct, mcnemar, wilson};
pub use setup::Setup;
pub use summary::{Means, Score, Scorer, Summary};
pub use uniform::{Uniform, UniformError};

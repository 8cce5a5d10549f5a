//! Training: conversations to batches, and a model fitted to them.
//!
//! - [`Example`] turns a finished conversation into tokens and a loss mask: the assistant's tokens
//!   are targets, everything else is context (paper, section on supervised fine-tuning).
//! - [`Trainer`] takes optimisation steps over shards of a batch in parallel: [`Trainer::sft`],
//!   [`Trainer::kto`], [`Trainer::grpo`].
//! - [`kto`] and [`grpo`] hold the losses; [`reward`] says what a rollout is worth, [`advantage`] how
//!   it compares with its group.
//! - [`vision`] gives a vision tower that starts from nothing its first sight.
//! - [`tokenizer`] makes a small byte-level tokenizer for a model that starts from nothing.

pub mod advantage;
mod batch;
mod example;
pub mod grpo;
pub mod kto;
mod length;
pub mod reward;
pub mod tokenizer;
mod trainer;
pub mod vision;

pub use batch::Batch;
pub use example::{Example, ExampleError};
pub use length::LengthError;
pub use trainer::{Schedule, StepReport, Trainer};

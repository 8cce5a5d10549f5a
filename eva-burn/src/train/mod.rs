//! Training: conversations to batches, and a model fitted to them.
//!
//! - [`Example`] turns a finished conversation into tokens and a loss mask: the assistant's tokens
//!   are targets, everything else is context (paper, section on supervised fine-tuning).
//! - [`Trainer`] takes optimisation steps over shards of a batch in parallel: [`Trainer::sft`],
//!   [`Trainer::kto`], [`Trainer::grpo`]; [`Optimisation`] says how. [`Trainer::save`] and
//!   [`Trainer::resume`] carry a run over a kill.
//! - [`kto`] and [`grpo`] hold the losses; [`reward`] says what a rollout is worth, [`advantage`] how
//!   it compares with its group.
//! - [`vision`] gives a vision tower that starts from nothing its first sight.
//! - [`tokenizer`] makes a small byte-level tokenizer for a model that starts from nothing.

mod adapters;
pub mod advantage;
mod batch;
mod checkpoint;
mod error;
mod example;
pub mod grpo;
pub mod kto;
mod length;
mod optimisation;
mod optimizer;
mod replicas;
pub mod reward;
pub mod tokenizer;
mod trainer;
pub mod vision;
mod workers;

pub use batch::Batch;
pub use checkpoint::CheckpointError;
pub use error::TrainerError;
pub use example::{Example, ExampleError};
pub use length::LengthError;
pub use optimisation::{Decay, Learn, Lora, Optimisation, Schedule};
pub use replicas::Replicas;
pub use trainer::{Effort, StepReport, Trainer};

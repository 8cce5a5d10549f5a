//! Why training stops: [`TrainError`].

use std::io;
use std::path::PathBuf;

use eva_burn::train::advantage::NotFinite;
use eva_burn::train::{CheckpointError, ExampleError, LengthError, TrainerError};
use eva_burn::weights::WeightsError;

use super::EncoderError;

/// Why a stage can't go on. When a step can't begin to learn, the steps before it are in the checkpoint; after
/// any other error the last checkpoint stays as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The checkpoint can't be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// What a stage learns from can't be had.
    #[error("{0}")]
    Data(String),
    /// The model directory.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// A conversation can't be learnt from.
    #[error(transparent)]
    Example(#[from] ExampleError),
    /// The system refused a file.
    #[error("cannot {action} {}: {source}; check the path, the rights and the disk", .path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Numbers that belong together don't fit.
    #[error(transparent)]
    Length(#[from] LengthError),
    /// The loss is no number any more: the rate is too high, or the data are broken.
    #[error(
        "the loss of {stage} is {loss} at step {step}: lower the learning rate and go on from the last checkpoint"
    )]
    Diverged {
        /// The stage.
        stage: String,
        /// The step, from 1.
        step: usize,
        /// The loss.
        loss: f64,
    },
    /// A reward that is no number.
    #[error(transparent)]
    Reward(#[from] NotFinite),
    /// The trainer.
    #[error(transparent)]
    Trainer(#[from] TrainerError),
    /// The weights can't be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

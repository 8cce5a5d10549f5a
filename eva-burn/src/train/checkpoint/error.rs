//! [`CheckpointError`].

use std::path::PathBuf;

use crate::train::TrainerError;
use crate::weights::WeightsError;

/// Why a checkpoint cannot be written, or a run not go on from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file is not as it was written.
    #[error(
        "{path} is damaged: {reason}; remove its directory to go on from the checkpoint before"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file or directory cannot be read or written.
    #[error("cannot access {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The checkpoint is of another run.
    #[error("{path} has {what}; go on with the model and the settings that the run began with")]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// There is no whole checkpoint.
    #[error("{dir} has no checkpoint; start the run anew")]
    None {
        /// The directory.
        dir: PathBuf,
    },
    /// The model or the settings cannot be trained with.
    #[error(transparent)]
    Trainer(#[from] TrainerError),
    /// Weights could not be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

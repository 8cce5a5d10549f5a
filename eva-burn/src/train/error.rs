//! [`TrainerError`].

/// Why a model cannot be trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainerError {
    /// The model's device computes no gradients.
    #[error(
        "the model is on a device without gradients; load it, unquantized, on `device.autodiff()`"
    )]
    NoGradients,
    /// The model's weights are packed in fewer bits than they are multiplied in.
    #[error(
        "the model was loaded for inference, with packed weights; load it on `device.autodiff()`"
    )]
    Packed,
    /// A setting of [`Optimisation`](super::Optimisation) makes no sense.
    #[error("`{key}` = {value}; expected {expected}")]
    Setting {
        /// The key, with the tables that it lies in.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The system gives no more threads.
    #[error("cannot start {threads} threads: {source}; take fewer")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's reason.
        source: rayon::ThreadPoolBuildError,
    },
}

//! Numbers that go with a tensor: as many as it has elements, on its device, of its type.

use burn::tensor::{Tensor, TensorData};

/// Why a loss cannot be computed: the numbers handed in do not fit the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{found} {what} for {expected}")]
pub struct LengthError {
    /// What there are too many or too few of, and what they go with.
    pub what: &'static str,
    /// How many there have to be.
    pub expected: usize,
    /// How many there are.
    pub found: usize,
}

pub(super) fn check(what: &'static str, expected: usize, found: usize) -> Result<(), LengthError> {
    if expected == found {
        Ok(())
    } else {
        Err(LengthError {
            what,
            expected,
            found,
        })
    }
}

/// # Shapes
/// - returned: `[values]`, without gradient
pub(super) fn constant(values: &[f64], like: &Tensor<1>) -> Tensor<1> {
    let data = TensorData::new(values.to_vec(), [values.len()]);
    Tensor::from_data(data, (&like.device(), like.dtype()))
}

//! Comparisons that fail on NaN, and say where.

use crate::AutogradError;
use vitrine_tensor::{DType, Device, Tensor};

/// Two results differ, or an operation failed where it should have had a result.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// An element is further from its expected value than allowed, or one of the two is NaN.
    #[error("{what}[{index}]: got {got:e}, expected {expected:e}, allowed difference {tolerance:e}")]
    Element {
        /// The tensor.
        what: String,
        /// Position in row-major order.
        index: usize,
        /// The value found.
        got: f64,
        /// The value wanted.
        expected: f64,
        /// The largest difference allowed.
        tolerance: f64,
    },
    /// The numbers of elements or of tensors differ.
    #[error("{what}: got {got} elements, expected {expected}")]
    Length {
        /// The tensor, or the list of them.
        what: String,
        /// The number found.
        got: usize,
        /// The number wanted.
        expected: usize,
    },
    /// A row allows so much that its check would say nothing.
    #[error("a tolerance of {share:e} of the largest magnitude; derive one of at most {most:e}")]
    Loose {
        /// The row's tolerance.
        share: f64,
        /// The largest that there may be.
        most: f64,
    },
    /// The operation returned an error.
    #[error(transparent)]
    Operation(#[from] AutogradError),
}

impl From<vitrine_tensor::Error> for Mismatch {
    fn from(error: vitrine_tensor::Error) -> Self {
        Mismatch::Operation(error.into())
    }
}

/// The elements of a float tensor as f64.
///
/// # Errors
/// Those of copying and converting.
pub fn numbers_of(tensor: &Tensor) -> vitrine_tensor::Result<Vec<f64>> {
    tensor.to_device(Device::Cpu)?.to_dtype(DType::F64)?.to_vec()
}

/// The largest magnitude, 0 for no numbers; NaN counts as 0, for [`compare`] finds it anyway.
pub fn largest(numbers: &[f64]) -> f64 {
    numbers.iter().fold(0.0, |largest, x| x.abs().max(largest))
}

/// Checks a number of outputs and gradients.
///
/// # Errors
/// [`Mismatch::Length`].
pub fn check_count(got: usize, expected: usize) -> Result<(), Mismatch> {
    if got == expected {
        return Ok(());
    }
    Err(Mismatch::Length { what: "outputs and gradients".into(), got, expected })
}

/// Checks every element: `|got - expected| <= tolerance`, where NaN on either side fails, and infinities must be equal.
///
/// # Errors
/// [`Mismatch`] for the first element that fails.
pub fn compare(
    what: impl Fn() -> String,
    got: &[f64],
    expected: &[f64],
    tolerance: f64,
) -> Result<(), Mismatch> {
    if got.len() != expected.len() {
        return Err(Mismatch::Length { what: what(), got: got.len(), expected: expected.len() });
    }
    let mut pairs = got.iter().zip(expected).enumerate();
    pairs.try_for_each(|(i, (&got, &expected))| compare_one(&what, i, got, expected, tolerance))
}

pub(super) fn compare_one(
    what: impl Fn() -> String,
    index: usize,
    got: f64,
    expected: f64,
    tolerance: f64,
) -> Result<(), Mismatch> {
    // In this form NaN fails, as every comparison with it is false.
    if got == expected || (got - expected).abs() <= tolerance {
        return Ok(());
    }
    Err(Mismatch::Element { what: what(), index, got, expected, tolerance })
}

//! The one error type of the crate.

use crate::{DType, Device};

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in a tensor operation. Every variant names the operation and what was expected of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The shapes of the operands do not fit the operation.
    #[error("{op}: expected {expected}, got shape {got:?}")]
    ShapeMismatch {
        /// The operation.
        op: &'static str,
        /// What the operation needs, in words or as a shape.
        expected: String,
        /// The shape that was given.
        got: Vec<usize>,
    },
    /// An operand has a dtype that the operation does not take.
    #[error("{op}: expected dtype {expected}, got {got}")]
    DTypeMismatch {
        /// The operation.
        op: &'static str,
        /// The dtype, or the list of dtypes, that the operation takes.
        expected: String,
        /// The dtype that was given.
        got: DType,
    },
    /// Two operands live on different devices.
    #[error("{op}: operands on {left} and {right}; move one with `to_device`")]
    DeviceMismatch {
        /// The operation.
        op: &'static str,
        /// Device of the first operand.
        left: Device,
        /// Device of the other operand.
        right: Device,
    },
    /// An index points outside of what it indexes.
    #[error("{op}: index {index} is out of range for length {len}")]
    IndexOutOfRange {
        /// The operation.
        op: &'static str,
        /// The offending index.
        index: usize,
        /// The length that it must stay below.
        len: usize,
    },
    /// The operation needs contiguous rows: call `contiguous()` first.
    #[error(
        "{op}: the operand with shape {shape:?} and strides {strides:?} is not contiguous; call `contiguous()` first"
    )]
    NotContiguous {
        /// The operation.
        op: &'static str,
        /// Shape of the operand.
        shape: Vec<usize>,
        /// Its strides, in elements.
        strides: Vec<usize>,
    },
    /// The operation has no implementation for this device and dtype.
    #[error("{op} is not supported on {device} for {dtype}")]
    NotSupported {
        /// The operation.
        op: &'static str,
        /// The device asked for.
        device: Device,
        /// The dtype asked for.
        dtype: DType,
    },
    /// An attribute (a probability, a size, an option) has a value that makes no sense.
    #[error("{op}: {name} must be {expected}, got {got}")]
    InvalidArgument {
        /// The operation.
        op: &'static str,
        /// The attribute.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it was.
        got: String,
    },
    /// A CUDA device that was asked for cannot be used.
    #[error("{device}: {why}; or use --device cpu")]
    CudaUnavailable {
        /// The device asked for.
        device: Device,
        /// Why it cannot be used, and what to do.
        why: String,
    },
    /// A call of the CUDA driver failed.
    #[error("{device}: {what}: {message}")]
    Cuda {
        /// The device.
        device: Device,
        /// What was being done, or the kernel.
        what: &'static str,
        /// The driver's words.
        message: String,
    },
    /// The device has no room.
    #[error("{device}: out of memory: {asked} bytes asked for, {free} of {total} free, {held} in use here")]
    OutOfMemory {
        /// The device.
        device: Device,
        /// Bytes asked for.
        asked: usize,
        /// Bytes free.
        free: usize,
        /// Bytes that this process has for its tensors.
        held: usize,
        /// Bytes of the device.
        total: usize,
    },
    /// Mutable access to storage that something else still holds.
    #[error(
        "{op}: another tensor holds the same storage, so it cannot be changed in place; drop the views, variables and tapes that hold it, or change a `copy()`"
    )]
    SharedStorage {
        /// The operation.
        op: &'static str,
    },
}

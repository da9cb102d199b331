//! CUDA: what all operations share on a device. Their launches stand beside their CPU loops, in [`ops`](crate::ops).
//!
//! Reading order: `context` (a device, its stream, its kernels), `memory` (blocks from a caching pool), `launch` (how the
//! typed launches of `vitrine-kernels` reach a stream), `gemm` and `cublaslt` (matrix products). All work of a device goes to
//! one stream, so operations follow each other without waiting, and a freed block can be used again at once. Only what the
//! host reads waits.
//!
//! Nothing of CUDA is needed to build or to run on the CPU: the driver is opened when a CUDA device is first named.

mod context;
mod cublaslt;
pub(crate) mod gemm;
mod launch;
mod memory;

pub(crate) use context::{Context, SHARED_DEFAULT};
pub use context::{DRIVER_FLOOR, Description, describe, device_count, seconds_of, synchronize};
pub(crate) use cublaslt::Beside;
pub use cublaslt::{CUBLASLT_NAMES, own_products};
pub(crate) use memory::{Block, Buffer};

//! Tensors of the Vitrine framework: [`Tensor`], its operations with their gradients, and the CPU and CUDA backends.
//!
//! Reading order: [`tensor`](Tensor) and `shape` for what a tensor is, one file of [`ops`] for how an operation
//! travels from its formula to a vector loop, [`cpu::simd`] for that loop's mechanism, [`cpu::gemm`] for the matrix product,
//! [`cuda`] for the same on a GPU.

pub mod cpu;
pub mod cuda;
mod device;
mod dtype;
mod error;
mod offsets;
pub mod ops;
pub mod random;
mod shape;
mod storage;
mod summary;
mod tensor;

pub use device::Device;
pub use dtype::{DType, Element, Float};
pub use error::{Error, Result};
pub use offsets::Offsets;
pub use random::Dropout;
pub use shape::{Layout, MAX_RANK, Shape};
pub use storage::Storage;
pub use summary::Summary;
pub use tensor::{Rows, Tensor};

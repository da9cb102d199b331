//! The CUDA backend: storage on the device, and one function per operation that launches kernels of `vitrine-kernels`.
//!
//! Reading order: `context` (a device, its stream, its kernels), `memory` (blocks from a caching pool), `launch` (how the
//! typed launches of `vitrine-kernels` reach a stream), then the operations, in files named as those of [`ops`](crate::ops): they get operands that
//! those have checked. All work of a device goes to one stream, so operations follow each other without waiting, and a
//! freed block can be given out again at once. Only what the host reads waits.
//!
//! Nothing of CUDA is needed to build or to run on the CPU: the driver is opened when a CUDA device is first asked for.

mod adamw;
mod attention;
mod classification;
mod context;
mod cublaslt;
mod elementwise;
mod gemm;
mod launch;
mod memory;
mod normalization;
mod rows;

pub(crate) use adamw::{adamw_step, grad_norm};
pub(crate) use attention::{Problem, attention, attention_backward};
pub(crate) use classification::{cross_entropy, cross_entropy_backward, softmax, softmax_backward};
pub(crate) use context::Context;
pub use context::{DRIVER_FLOOR, Description, describe, device_count, seconds_of, synchronize};
pub use cublaslt::{CUBLASLT_NAMES, own_products};
pub(crate) use elementwise::{binary, cast, copy, fill, max, max_backward, sum, unary};
pub(crate) use gemm::{linear, linear_backward, matmul, product};
pub(crate) use memory::{Block, Buffer};
pub(crate) use normalization::{
    dropout, dropout_add_layer_norm, dropout_add_layer_norm_backward, embed_layer_norm, layer_norm,
    layer_norm_backward,
};
pub(crate) use rows::{cat, embedding_backward, gather_rows, gather_rows_backward};

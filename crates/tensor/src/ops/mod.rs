//! The operations. All of one stands together: `mod.rs` has formula, checks and the match on the device, `cpu.rs` the loops,
//! `cuda.rs` the launches; a short one is one file.
//!
//! Functions check shapes and dtypes, then run loops that are generic over dtype and instruction set, or launch kernels. Backward is
//! a public sibling of forward. Rows may be strided where a function says so; results are contiguous. Statistics, losses
//! and gradients of parameters have the accumulator's dtype: F32, or F64 in the reference.

pub mod adamw;
pub mod attention;
pub mod cast;
mod check;
pub mod cross_entropy;
pub mod dropout;
pub mod dropout_add_layer_norm;
pub mod elementwise;
pub mod embedding;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod matmul;
pub mod movement;
pub mod reduce;
pub mod rms_norm;
pub mod softmax;
pub mod source;

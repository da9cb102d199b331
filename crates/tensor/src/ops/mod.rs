//! The operations, one file each: formula, public function, CPU loops forward and backward.
//!
//! Functions check shapes and dtypes, allocate, and run a loop that is generic over dtype and instruction set. Backward is
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

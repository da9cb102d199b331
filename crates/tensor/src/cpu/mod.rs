//! The CPU backend: memory, instruction sets, threads, vector loops and the matrix product.

pub mod gemm;
pub mod isa;
pub mod memory;
pub mod parallel;
pub mod simd;

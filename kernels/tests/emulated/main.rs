//! The committed PTX, run on the CPU by the emulator, against plain f64 loops: a file per op family.

mod adamw;
mod attention;
mod cross_entropy;
mod draws;
mod elementwise;
mod gemm;
mod harness;
mod movement;
mod normalization;
mod numbers;

//! The kernels of every module with their parameters; `tests/ptx.rs` compares the table with the PTX.
//!
//! P is a device address, W a `uint32_t`, L a `uint64_t`, F a `float`, other letters a structure by value.

use crate::{Attention, Dropout, GemmBackward, GemmShape, GemmSimt, Kernel, Module, Parameter, View};

const P: Parameter = Parameter::Pointer;
const W: Parameter = Parameter::U32;
const L: Parameter = Parameter::U64;
const F: Parameter = Parameter::F32;
const A: Parameter = Parameter::Struct(size_of::<Attention>());
const G: Parameter = Parameter::Struct(size_of::<GemmSimt>());
const S: Parameter = Parameter::Struct(size_of::<GemmShape>());
const B: Parameter = Parameter::Struct(size_of::<GemmBackward>());
const V: Parameter = Parameter::Struct(size_of::<View>());
const D: Parameter = Parameter::Struct(size_of::<Dropout>());

/// Defines modules; `each` kernel exists as `.._f32` and `.._bf16`, a `single` one under its own name.
macro_rules! modules {
    ($($(#[$doc:meta])* $module:ident = $file:literal {
        each { $($each:literal [$($each_parameter:expr),*])* }
        single { $($single:literal [$($parameter:expr),*])* }
    })*) => {
        $(
            $(#[$doc])*
            pub const $module: Module = Module {
                name: $file,
                ptx: include_str!(concat!("../ptx/", $file, ".ptx")),
                kernels: &[
                    $(Kernel { name: concat!($each, "_f32"), parameters: &[$($each_parameter),*] },
                      Kernel { name: concat!($each, "_bf16"), parameters: &[$($each_parameter),*] },)*
                    $(Kernel { name: $single, parameters: &[$($parameter),*] },)*
                ],
            };
        )*
        /// Every module.
        pub const MODULES: &[Module] = &[$($module),*];
    };
}

modules! {
    /// Multi-tensor AdamW in three launches.
    /// - `squares(tensors, chunks, partials f64)`: grid chunks, block 256.
    /// - `norm(partials, count, settings, norm [2])`: grid 1, block 1024.
    /// - `update(tensors, chunks, settings, norm)`: grid chunks, block 256.
    ADAMW = "adamw" {
        each {}
        single {
            "adamw_squares" [P, P, P]
            "adamw_norm" [P, W, P, P]
            "adamw_update" [P, P, P, P]
        }
    }
    /// Attention on tensor cores, head sizes 32 and 64. Grid (ceil(longest / 64), H, B), block 128.
    /// - `forward(qkv, offsets, out, lse, attention, dropout)`.
    /// - `backward_dq` and `backward_dkv(qkv, offsets, dout, lse, delta, dqkv, attention, dropout)`, in this
    ///   order, after `attention_delta` unless `sum_delta`; together they write all of dqkv `[T, 3 C]`.
    ATTENTION = "attention" {
        each {}
        single {
            "attention_32_forward_bf16" [P, P, P, P, A, D]
            "attention_32_backward_dq_bf16" [P, P, P, P, P, P, A, D]
            "attention_32_backward_dkv_bf16" [P, P, P, P, P, P, A, D]
            "attention_64_forward_bf16" [P, P, P, P, A, D]
            "attention_64_backward_dq_bf16" [P, P, P, P, P, P, A, D]
            "attention_64_backward_dkv_bf16" [P, P, P, P, P, P, A, D]
        }
    }
    /// Attention for head sizes D up to 128 in plain FMAs, and what both kinds share. Grid (ceil(longest / 32), H, B), block
    /// 128, shared `4 (96 (D + 1) + 1056)` bytes forward, `4 (128 (D + 1) + 2176)` backward; arguments as in [`ATTENTION`].
    /// - `delta(out, dout, delta [H, rows], attention)`: grid ceil(rows H / 4), block 128.
    /// - `probabilities(qkv, offsets, lse, chosen heads, starts [B] u64, out, attention)`: grid (longest or 1, chosen, B),
    ///   block 128.
    ATTENTION_GENERAL = "attention_general" {
        each {
            "attention_general_forward" [P, P, P, P, A, D]
            "attention_delta" [P, P, P, A]
            "attention_general_backward_dq" [P, P, P, P, P, P, A, D]
            "attention_general_backward_dkv" [P, P, P, P, P, P, A, D]
            "attention_probabilities" [P, P, P, P, P, P, A]
        }
        single {}
    }
    /// `f32_to_bf16(x, y, n)` and back: grid ceil(n / 2048), block 256.
    CAST = "cast" {
        each {}
        single {
            "cast_f32_to_bf16" [P, P, L]
            "cast_bf16_to_f32" [P, P, L]
        }
    }
    /// Mean cross entropy.
    /// - `forward(logits, stride, labels, probabilities, losses, classes)`: grid rows, block whole warps.
    /// - `backward(dloss, probabilities, labels, dlogits, classes)`: the same.
    /// - `mean_loss(losses, loss, rows)`: grid 1, block 256.
    CROSS_ENTROPY = "cross_entropy" {
        each {
            "cross_entropy_forward" [P, L, P, P, P, W]
            "cross_entropy_backward" [P, P, P, P, W]
        }
        single { "mean_loss" [P, P, W] }
    }
    /// `dropout(x, x_stride, offsets, y, width, sequences, dropout)`: grid (T, ceil(C / 1024)), block 128.
    DROPOUT = "dropout" {
        each { "dropout" [P, L, P, P, W, W, D] }
        single {}
    }
    /// Residual + dropout + LayerNorm; `_bf16_f32`: x and dx in bf16, all else f32.
    /// - `forward(x, residual, weight, bias, offsets, y, rounded_y or null, sum, mean, rstd, rows, width, sequences, eps,
    ///   dropout)`: grid ceil(T / 4), block 128.
    /// - `backward(dy, sum, weight, mean, rstd, offsets, dresidual, dx, partials, rows, width, sequences, dropout)`: grid
    ///   ceil(T / 32), block 32 w, shared 8 w C bytes; then `column_sums` over partials.
    DROPOUT_ADD_LAYER_NORM = "dropout_add_layer_norm" {
        each {
            "dropout_add_layer_norm_forward" [P, P, P, P, P, P, P, P, P, P, W, W, W, F, D]
            "dropout_add_layer_norm_backward" [P, P, P, P, P, P, P, P, P, W, W, W, D]
        }
        single {
            "dropout_add_layer_norm_forward_bf16_f32" [P, P, P, P, P, P, P, P, P, P, W, W, W, F, D]
            "dropout_add_layer_norm_backward_bf16_f32" [P, P, P, P, P, P, P, P, P, W, W, W, D]
        }
    }
    /// Arithmetic on contiguous arrays: `(a, b, y, n)`, `(x, y, n)`, `affine(x, y, n, factor, term)`, `fill(y, n, value)`: grid
    /// ceil(n / 2048), block 256; `strided_copy(x, y, n, view)`: grid ceil(n / 256), block 256.
    ELEMENTWISE = "elementwise" {
        each {
            "add" [P, P, P, L]
            "sub" [P, P, P, L]
            "mul" [P, P, P, L]
            "div" [P, P, P, L]
            "neg" [P, P, L]
            "exp_forward" [P, P, L]
            "ln_forward" [P, P, L]
            "sqrt_forward" [P, P, L]
            "sqrt_backward" [P, P, P, L]
            "affine" [P, P, L, F, F]
            "fill" [P, L, F]
            "strided_copy" [P, P, L, V]
        }
        single {}
    }
    /// `embed_layer_norm_forward(ids, token_types, positions, word, token_type, position, weight, bias, y, sum, mean, rstd,
    /// rows, width, eps)`: grid ceil(T / 4), block 128. Backward: `layer_norm_backward`, then `segment_sum` for each table.
    EMBEDDING = "embedding" {
        each { "embed_layer_norm_forward" [P, P, P, P, P, P, P, P, P, P, P, P, W, W, F] }
        single {}
    }
    /// bf16 products on tensor cores, block 256.
    /// - `nt(x, weight, bias or null, y, shape)`, with GELU `(x, weight, bias or null, pre or null, y, shape)`: grid
    ///   (ceil(N / 128), ceil(T / 128)).
    /// - `backward(dy, weight, x, so_far or null, dx, dweight f32 [splits, N K + N], dbias or null, backward)`: grid
    ///   (ceil(K / 128), weight_blocks, and ceil(T / 128) more for dx); `_f32`: so_far and dx in f32.
    GEMM = "gemm" {
        each {}
        single {
            "gemm_nt_bf16" [P, P, P, P, S]
            "gemm_nt_gelu_erf_bf16" [P, P, P, P, P, S]
            "gemm_nt_gelu_tanh_bf16" [P, P, P, P, P, S]
            "gemm_backward_bf16" [P, P, P, P, P, P, P, B]
            "gemm_backward_bf16_f32" [P, P, P, P, P, P, P, B]
        }
    }
    /// Exact f32 products of any strides: `(a, b, bias or null, so_far or null, c, gemm)`: grid (ceil(N / 64), ceil(M / 64),
    /// batch), block 256; `_bf16` takes and gives bf16, `_bf16_f32` takes bf16 and gives f32.
    GEMM_SIMT = "gemm_simt" {
        each { "gemm_simt" [P, P, P, P, P, G] }
        single { "gemm_simt_bf16_f32" [P, P, P, P, P, G] }
    }
    /// Activations: `forward(x, y, n)`, `backward(dy, x or y, dx, n)`: grid ceil(n / 2048), block 256;
    /// `bias_..(product, bias, pre or null, y, width)`: grid (rows, ceil(N / 2048)), block 256.
    GELU = "gelu" {
        each {
            "gelu_erf_forward" [P, P, L]
            "gelu_erf_backward" [P, P, P, L]
            "gelu_tanh_forward" [P, P, L]
            "gelu_tanh_backward" [P, P, P, L]
            "relu_forward" [P, P, L]
            "relu_backward" [P, P, P, L]
            "tanh_forward" [P, P, L]
            "tanh_backward" [P, P, P, L]
            "bias_gelu_erf_forward" [P, P, P, P, W]
            "bias_gelu_tanh_forward" [P, P, P, P, W]
            "bias_relu_forward" [P, P, P, P, W]
            "bias_tanh_forward" [P, P, P, P, W]
        }
        single {}
    }
    /// LayerNorm.
    /// - `forward(x, x_stride, weight, bias, y, mean, rstd, rows, width, eps)`: grid ceil(T / 4), block 128.
    /// - `backward(dy, x, x_stride, weight, mean, rstd, dx, partials, rows, width)`: grid ceil(T / 32), block 32 w, shared
    ///   8 w C bytes; then `column_sums` over partials `[ceil(T / 32), 2 C]`.
    LAYER_NORM = "layer_norm" {
        each {
            "layer_norm_forward" [P, L, P, P, P, P, P, W, W, F]
            "layer_norm_backward" [P, P, L, P, P, P, P, P, W, W]
        }
        single {}
    }
    /// Sums over rows: `row_sums(x, x_stride, partials, rows, width)`: grid (ceil(C / 256), ceil(T / 64)), block 32;
    /// `column_sums(partials, y, z, rows, width, split)`: grid ceil(C / 32), block 256.
    /// Maxima along the middle of `[outer, length, inner]`: `max_forward(x, y, indices, results, length, inner)`: grid
    /// ceil(outer inner / 4), block 128; `max_backward(dy, indices, dx, ..)`: grid ceil(outer inner / 256), block 256.
    REDUCE = "reduce" {
        each {
            "row_sums" [P, L, P, W, W]
            "max_forward" [P, P, P, L, W, L]
            "max_backward" [P, P, P, L, W, L]
        }
        single { "column_sums" [P, P, P, W, L, L] }
    }
    /// Grid (rows or pieces, ceil(C / 1024)), block 128.
    /// - `gather_rows(x, x_stride, indices, y, width)`.
    /// - `segment_sum(x, x_stride, index or null, pieces, y f32, width)`.
    ROWS = "rows" {
        each {
            "gather_rows" [P, L, P, P, W]
            "segment_sum" [P, L, P, P, P, W]
        }
        single {}
    }
    /// `forward(x, x_stride, y, width, logarithm)`, `backward(dy, y, dx, width, logarithm)`: grid rows, block whole warps.
    SOFTMAX = "softmax" {
        each {
            "softmax_forward" [P, L, P, W, W]
            "softmax_backward" [P, P, P, W, W]
        }
        single {}
    }
}

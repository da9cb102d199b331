//! Attention: `softmax(softmax_scale * Q K^T) V` for every head of every sequence of an unpadded batch.
//!
//! Shapes: qkv `[T, 3C]` (query | key | value, each `H * D = C` wide) to out `[T, C]`; saves lse `[H, T]`, the logarithm of
//! each row's sum of exponentials. With `S = softmax_scale * Q K^T`, `P = softmax(S)`, `Z = dropout(P)` and `O = Z V`:
//!
//! ```text
//! dV = Z^T dO        dZ = dO V^T        dP = dropout'(dZ)
//! dS = P * (dP - delta), delta_i = sum_j P_ij dP_ij
//! dQ = softmax_scale * dS K             dK = softmax_scale * dS^T Q
//! ```
//!
//! The scores are never stored whole. Forward goes through blocks of keys with a running maximum (online softmax: Milakov
//! and Gimelshein 2018, arXiv 1805.02867); backward computes P again from lse, as in FlashAttention (Dao et al. 2022,
//! arXiv 2205.14135; Dao 2023, arXiv 2307.08691). Memory is proportional to T in both. Results are exact, and do not
//! depend on the number of threads: a piece of parallel work is one head of one sequence.
//!
//! Mirrors `BertSelfAttention` of Hugging Face's `modeling_bert.py`; dropout acts on the normalised probabilities.

mod cpu;
mod cuda;
#[cfg(test)]
mod every_path;

use super::check;
use crate::cuda::Context;
use crate::{DType, Device, Dropout, Error, Offsets, Result, Tensor};

/// Which rows of a sequence are query rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queries {
    /// All: the output has `T` rows.
    All,
    /// Each sequence's first row (`[CLS]`), which is all that a classifier needs of the last layer: the output has `B` rows.
    First,
}

/// What attention does beside the formula; nothing by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttentionOptions {
    /// Dropout of the probabilities.
    pub dropout: Option<Dropout>,
    /// Heads whose probabilities are wanted.
    pub probabilities_for: Vec<usize>,
}

/// The result of [`attention`].
#[derive(Clone, Debug)]
pub struct Attention {
    /// The output: `[T, C]`, or `[B, C]` for [`Queries::First`]; zero for a sequence without rows.
    pub out: Tensor,
    /// The logarithm of the sum of exponentials: `[H, T]` or `[H, B]`, F32 (F64 in the reference).
    pub lse: Tensor,
    /// For each sequence of `S` rows the probabilities of the chosen heads before dropout: `[heads, S or 1, S]`, F32 (F64
    /// in the reference). Empty unless asked for.
    pub probabilities: Vec<Tensor>,
}

/// Attention within each sequence of a batch; see the module for formula and shapes.
///
/// `qkv` may have strided rows; all float dtypes; sums are in F32 (F64 in the reference). FLOPs: `4 D` for each head and
/// pair of rows of a sequence.
///
/// # Errors
/// `ShapeMismatch` unless qkv is `[T, 3C]` with T the offsets' total and C a multiple of `heads`; `IndexOutOfRange` for a
/// head that does not exist; `InvalidArgument` for a dropout probability outside of [0, 1) or, with dropout, more than
/// 65536 heads or rows in a sequence, or on a CUDA device for heads of more than 128 channels; `NotContiguous`;
/// `DTypeMismatch`; `NotSupported` for F16 and F64 on a CUDA device.
pub fn attention(
    qkv: &Tensor,
    heads: usize,
    softmax_scale: f64,
    offsets: &Offsets,
    queries: Queries,
    options: &AttentionOptions,
) -> Result<Attention> {
    const OP: &str = "attention";
    check_problem(OP, qkv, heads, offsets, options)?;
    let problem =
        Problem { op: OP, qkv, heads, softmax_scale, offsets, queries, dropout: options.dropout.as_ref() };
    match qkv.device() {
        Device::Cpu => cpu::forward(&problem, &options.probabilities_for),
        Device::Cuda(ordinal) => cuda::forward(&Context::get(ordinal)?, &problem, &options.probabilities_for),
    }
}

/// Checks what both passes are given; C.
fn check_problem(
    op: &'static str,
    qkv: &Tensor,
    heads: usize,
    offsets: &Offsets,
    options: &AttentionOptions,
) -> Result<usize> {
    let total = offsets.total();
    let width = match *qkv.dims() {
        [rows, width] if rows == total && heads > 0 && width.is_multiple_of(3 * heads) => width / 3,
        _ => {
            let expected = format!("qkv [{total}, 3 x {heads} heads x head size]");
            return Err(Error::ShapeMismatch { op, expected, got: qkv.dims().to_vec() });
        }
    };
    if let Some(&head) = options.probabilities_for.iter().find(|&&head| head >= heads) {
        return Err(Error::IndexOutOfRange { op, index: head, len: heads });
    }
    if let Some(dropout) = &options.dropout {
        dropout.check(op)?;
        // Positions and heads have that many bits in the counter of a draw.
        let largest = offsets.longest().max(heads);
        if largest > 1 << 16 {
            let expected = "at most 65536 rows in a sequence and heads, with dropout";
            let got = largest.to_string();
            return Err(Error::InvalidArgument { op, name: "offsets", expected, got });
        }
    }
    Ok(width)
}

/// Checks an operand of backward against forward's result.
fn check_result(op: &'static str, name: &str, tensor: &Tensor, dims: [usize; 2], dtype: DType) -> Result<()> {
    if tensor.dims() != dims {
        let expected = format!("{name} {dims:?}, as forward's");
        return Err(Error::ShapeMismatch { op, expected, got: tensor.dims().to_vec() });
    }
    if tensor.dtype() != dtype {
        let expected = format!("{dtype} in {name}, as forward's");
        return Err(Error::DTypeMismatch { op, expected, got: tensor.dtype() });
    }
    Ok(())
}

/// How many rows the output has.
fn query_rows(queries: Queries, offsets: &Offsets) -> usize {
    match queries {
        Queries::All => offsets.total(),
        Queries::First => offsets.sequences(),
    }
}

/// The gradient of [`attention`] with respect to `qkv`: `[T, 3C]` in its dtype.
///
/// `lse` is forward's result and the other arguments the ones that forward had. FLOPs: `10 D` for each head
/// and pair of rows of a sequence, as the scores are computed again.
///
/// # Errors
/// As [`attention`], and when `dout` and `lse` do not have the shapes and dtypes of forward's results.
pub fn attention_backward(
    dout: &Tensor,
    qkv: &Tensor,
    lse: &Tensor,
    heads: usize,
    softmax_scale: f64,
    offsets: &Offsets,
    queries: Queries,
    options: &AttentionOptions,
) -> Result<Tensor> {
    const OP: &str = "attention_backward";
    let width = check_problem(OP, qkv, heads, offsets, options)?;
    let rows = query_rows(queries, offsets);
    check_result(OP, "dout", dout, [rows, width], qkv.dtype())?;
    check_result(OP, "lse", lse, [heads, rows], qkv.dtype().accumulator())?;
    check::device(OP, qkv, dout)?;
    check::device(OP, qkv, lse)?;
    let problem =
        Problem { op: OP, qkv, heads, softmax_scale, offsets, queries, dropout: options.dropout.as_ref() };
    match qkv.device() {
        Device::Cpu => cpu::backward(&problem, dout, lse),
        Device::Cuda(ordinal) => cuda::backward(&Context::get(ordinal)?, &problem, dout, lse),
    }
}

/// The checked arguments of both passes.
struct Problem<'a> {
    op: &'static str,
    qkv: &'a Tensor,
    heads: usize,
    softmax_scale: f64,
    offsets: &'a Offsets,
    queries: Queries,
    dropout: Option<&'a Dropout>,
}

impl Problem<'_> {
    /// `C`.
    fn width(&self) -> usize {
        self.qkv.dims()[1] / 3
    }

    /// `D`.
    fn head_size(&self) -> usize {
        self.width() / self.heads
    }

    /// How many rows the output has.
    fn rows(&self) -> usize {
        query_rows(self.queries, self.offsets)
    }
}

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

mod backward;
#[cfg(test)]
mod every_path;
mod forward;
mod pack;
mod pairs;
mod probabilities;
mod product;
mod scores;

use super::check;
use crate::cpu::gemm::MatrixMut;
use crate::cpu::isa::{Available, Isa};
use crate::cpu::{parallel, simd};
use crate::{DType, Device, Dropout, Error, Float, Offsets, Result, Rows, Tensor, cuda, for_float};
use backward::Gradients;
use half::{bf16, f16};
use pack::Part;
use scores::{Draws, FillDraws};
use std::ops::Range;

/// Which rows of a sequence ask.
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
    let width = check_problem(OP, qkv, heads, offsets, options)?;
    if qkv.device() != Device::Cpu {
        let dropout = options.dropout.as_ref();
        let problem = cuda::Problem { op: OP, qkv, heads, softmax_scale, offsets, queries, dropout };
        return cuda::attention(&problem, &options.probabilities_for);
    }
    for_float!(OP, qkv.dtype(), E => {
        let problem = Problem::<E>::new(OP, qkv, heads, width, softmax_scale, offsets, queries, options)?;
        attention_cpu(&problem, &options.probabilities_for)
    })
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
pub(crate) fn asked_rows(queries: Queries, offsets: &Offsets) -> usize {
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
    let rows = asked_rows(queries, offsets);
    check_result(OP, "dout", dout, [rows, width], qkv.dtype())?;
    check_result(OP, "lse", lse, [heads, rows], qkv.dtype().accumulator())?;
    check::device(OP, qkv, dout)?;
    check::device(OP, qkv, lse)?;
    if qkv.device() != Device::Cpu {
        let dropout = options.dropout.as_ref();
        let problem = cuda::Problem { op: OP, qkv, heads, softmax_scale, offsets, queries, dropout };
        return cuda::attention_backward(&problem, dout, lse);
    }
    for_float!(OP, qkv.dtype(), E => {
        let problem = Problem::<E>::new(OP, qkv, heads, width, softmax_scale, offsets, queries, options)?;
        attention_backward_cpu(&problem, dout, lse)
    })
}

/// The checked arguments of both passes.
struct Problem<'a, E> {
    op: &'static str,
    qkv: Rows<'a, E>,
    heads: usize,
    head_size: usize,
    softmax_scale: f64,
    offsets: &'a Offsets,
    queries: Queries,
    dropout: Option<Dropout>,
    isa: Available,
}

impl<'a, E: Float> Problem<'a, E> {
    fn new(
        op: &'static str,
        qkv: &'a Tensor,
        heads: usize,
        width: usize,
        softmax_scale: f64,
        offsets: &'a Offsets,
        queries: Queries,
        options: &AttentionOptions,
    ) -> Result<Self> {
        Ok(Problem {
            op,
            qkv: qkv.as_rows(op)?,
            heads,
            head_size: width / heads,
            softmax_scale,
            offsets,
            queries,
            dropout: options.dropout.filter(|dropout| dropout.threshold() > 0),
            isa: Isa::current(),
        })
    }

    /// `H * D`.
    fn width(&self) -> usize {
        self.heads * self.head_size
    }

    /// The rows of each sequence in the output.
    fn asked(&self) -> Vec<Range<usize>> {
        match self.queries {
            Queries::All => self.offsets.ranges().collect(),
            Queries::First => (0..self.offsets.sequences()).map(|sequence| sequence..sequence + 1).collect(),
        }
    }

    /// Queries, keys and values of one head of one sequence.
    fn parts(&self, sequence: usize, head: usize) -> [Part<'a, E>; 3] {
        let rows = self.offsets.range(sequence);
        let asked = match self.queries {
            Queries::All => rows.clone(),
            Queries::First => rows.start..rows.end.min(rows.start + 1),
        };
        let part = |which: usize, rows| {
            let start = which * self.width() + head * self.head_size;
            Part { source: self.qkv, rows, columns: start..start + self.head_size }
        };
        [part(0, asked), part(1, rows.clone()), part(2, rows)]
    }

    /// Room for the draws of a block of scores with that many queries, if there is dropout.
    fn draws(&self, queries: usize) -> Option<(Dropout, Draws)> {
        self.dropout.map(|dropout| (dropout, Draws::new(queries)))
    }

    /// Fills in the draws of a block of scores, whose first query and key are given.
    fn draw<'b>(
        &self,
        draws: &'b mut Option<(Dropout, Draws)>,
        [sequence, head]: [usize; 2],
        first: [usize; 2],
        queries: usize,
        keys: usize,
    ) -> Option<(Dropout, &'b Draws)> {
        let (dropout, out) = draws.as_mut()?;
        let dropout = *dropout;
        simd::run::<E::Real, _>(self.isa, FillDraws { dropout, head, sequence, first, queries, keys, out });
        Some((dropout, out))
    }
}

/// What is done for one head of one sequence: in f32 (f64 in the reference) on converted rows, but where bfloat16 has
/// products of its own.
trait Head: Float {
    /// See [`forward::forward`].
    fn forward(
        problem: &Problem<'_, Self>,
        sequence: usize,
        head: usize,
        out: &mut MatrixMut<'_, Self>,
        lse: &mut MatrixMut<'_, Self::Real>,
    ) {
        forward::forward(problem, sequence, head, out, lse);
    }

    /// See [`backward::backward`].
    fn backward(
        problem: &Problem<'_, Self>,
        sequence: usize,
        head: usize,
        dout: &Part<'_, Self>,
        lse: &[Self::Real],
        gradients: &mut Gradients<'_, Self>,
    ) {
        backward::backward(problem, sequence, head, dout, lse, gradients);
    }
}

impl Head for f32 {}
impl Head for f64 {}
impl Head for f16 {}
impl Head for bf16 {
    fn forward(
        problem: &Problem<'_, bf16>,
        sequence: usize,
        head: usize,
        out: &mut MatrixMut<'_, bf16>,
        lse: &mut MatrixMut<'_, f32>,
    ) {
        if pairs::fit(problem) {
            pairs::forward(problem, sequence, head, out, lse);
        } else {
            forward::forward(problem, sequence, head, out, lse);
        }
    }

    fn backward(
        problem: &Problem<'_, bf16>,
        sequence: usize,
        head: usize,
        dout: &Part<'_, bf16>,
        lse: &[f32],
        gradients: &mut Gradients<'_, bf16>,
    ) {
        if pairs::fit(problem) {
            pairs::backward(problem, sequence, head, dout, lse, gradients);
        } else {
            backward::backward(problem, sequence, head, dout, lse, gradients);
        }
    }
}

fn attention_cpu<E: Head>(problem: &Problem<'_, E>, probabilities_for: &[usize]) -> Result<Attention> {
    let (rows, heads) = (asked_rows(problem.queries, problem.offsets), problem.heads);
    let mut out = Tensor::empty(&[rows, problem.width()], E::DTYPE, Device::Cpu)?;
    let mut lse = Tensor::empty(&[heads, rows], E::DTYPE.accumulator(), Device::Cpu)?;
    let lens: Vec<usize> = problem.asked().iter().map(ExactSizeIterator::len).collect();
    let outs = MatrixMut::new(out.as_mut_slice::<E>()?, rows, problem.width());
    let lses = MatrixMut::new(lse.as_mut_slice::<E::Real>()?, heads, rows);
    let outs = cut(outs, &lens, &vec![problem.head_size; heads]);
    let lses = cut(lses, &vec![1; heads], &lens);
    // Both cuts are in row-major order of their matrices: (sequence, head) and (head, sequence).
    let mut lses: Vec<_> = lses.into_iter().map(Some).collect();
    let sequences = lens.len();
    let items: Vec<_> = outs
        .into_iter()
        .enumerate()
        .filter_map(|(index, out)| {
            let (sequence, head) = (index / heads, index % heads);
            Some((sequence, head, out, lses[head * sequences + sequence].take()?))
        })
        .collect();
    parallel::for_each(items, |_, (sequence, head, mut out, mut lse)| {
        E::forward(problem, sequence, head, &mut out, &mut lse);
    });
    let probabilities = probabilities::probabilities(problem, probabilities_for, &lse)?;
    Ok(Attention { out, lse, probabilities })
}

fn attention_backward_cpu<E: Head>(problem: &Problem<'_, E>, dout: &Tensor, lse: &Tensor) -> Result<Tensor> {
    let (rows, heads, width) = (asked_rows(problem.queries, problem.offsets), problem.heads, problem.width());
    let dout = dout.as_rows::<E>(problem.op)?;
    let lse = lse.as_slice::<E::Real>()?;
    let total = problem.offsets.total();
    let mut dqkv = Tensor::empty(&[total, 3 * width], E::DTYPE, Device::Cpu)?;
    let matrix = MatrixMut::new(dqkv.as_mut_slice::<E>()?, total, 3 * width);
    let lens: Vec<usize> = problem.offsets.ranges().map(|range| range.len()).collect();
    let mut pieces: Vec<_> =
        cut(matrix, &lens, &vec![problem.head_size; 3 * heads]).into_iter().map(Some).collect();
    let items: Vec<_> = (0..lens.len() * heads)
        .filter_map(|index| {
            let (sequence, head) = (index / heads, index % heads);
            let mut piece = |which: usize| pieces[(sequence * 3 + which) * heads + head].take();
            Some((sequence, head, Gradients { dquery: piece(0)?, dkey: piece(1)?, dvalue: piece(2)? }))
        })
        .collect();
    let asked = problem.asked();
    parallel::for_each(items, |_, (sequence, head, mut gradients)| {
        let columns = head * problem.head_size..(head + 1) * problem.head_size;
        let asked = asked[sequence].clone();
        let part = |source| Part { source, rows: asked.clone(), columns: columns.clone() };
        let lse = &lse[head * rows..][asked.clone()];
        E::backward(problem, sequence, head, &part(dout), lse, &mut gradients);
    });
    Ok(dqkv)
}

/// Cuts a matrix into pieces of these heights and widths, in row-major order.
fn cut<'a, T>(matrix: MatrixMut<'a, T>, heights: &[usize], widths: &[usize]) -> Vec<MatrixMut<'a, T>> {
    let mut pieces = Vec::with_capacity(heights.len() * widths.len());
    let mut below = matrix;
    for &height in heights {
        let (mut right, rest) = below.split_at_row(height);
        below = rest;
        for &width in widths {
            let (piece, rest) = right.split_at_column(width);
            right = rest;
            pieces.push(piece);
        }
    }
    pieces
}

//! Attention on the CPU: a piece of parallel work is one head of one sequence.

mod backward;
mod forward;
mod pack;
mod pairs;
mod probabilities;
mod product;
mod scores;

use super::{Attention, Problem, Queries, query_rows};
use crate::cpu::gemm::MatrixMut;
use crate::cpu::isa::{Available, Isa};
use crate::cpu::{parallel, simd};
use crate::{Device, Dropout, Float, Offsets, Result, Rows, Tensor, for_float};
use backward::Gradients;
use half::{bf16, f16};
use pack::Part;
use scores::{Draws, FillDraws};
use std::ops::Range;

pub(super) fn forward(problem: &Problem<'_>, probabilities_for: &[usize]) -> Result<Attention> {
    for_float!(problem.op, problem.qkv.dtype(), E => forward_heads(&Heads::<E>::new(problem)?, probabilities_for))
}

pub(super) fn backward(problem: &Problem<'_>, dout: &Tensor, lse: &Tensor) -> Result<Tensor> {
    for_float!(problem.op, problem.qkv.dtype(), E => backward_heads(&Heads::<E>::new(problem)?, dout, lse))
}

/// The problem as loops see it.
struct Heads<'a, E> {
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

impl<'a, E: Float> Heads<'a, E> {
    fn new(problem: &Problem<'a>) -> Result<Self> {
        let &Problem { op, qkv, heads, softmax_scale, offsets, queries, dropout } = problem;
        Ok(Heads {
            op,
            qkv: qkv.as_rows(op)?,
            heads,
            head_size: problem.head_size(),
            softmax_scale,
            offsets,
            queries,
            dropout: dropout.copied().filter(|dropout| dropout.threshold() > 0),
            isa: Isa::current(),
        })
    }

    /// `H * D`.
    fn width(&self) -> usize {
        self.heads * self.head_size
    }

    /// The rows of each sequence in the output.
    fn query_rows(&self) -> Vec<Range<usize>> {
        match self.queries {
            Queries::All => self.offsets.ranges().collect(),
            Queries::First => (0..self.offsets.sequences()).map(|sequence| sequence..sequence + 1).collect(),
        }
    }

    /// Queries, keys and values of one head of one sequence.
    fn parts(&self, sequence: usize, head: usize) -> [Part<'a, E>; 3] {
        let rows = self.offsets.range(sequence);
        let queries = match self.queries {
            Queries::All => rows.clone(),
            Queries::First => rows.start..rows.end.min(rows.start + 1),
        };
        let part = |which: usize, rows| {
            let start = which * self.width() + head * self.head_size;
            Part { source: self.qkv, rows, columns: start..start + self.head_size }
        };
        [part(0, queries), part(1, rows.clone()), part(2, rows)]
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
        problem: &Heads<'_, Self>,
        sequence: usize,
        head: usize,
        out: &mut MatrixMut<'_, Self>,
        lse: &mut MatrixMut<'_, Self::Real>,
    ) {
        forward::forward(problem, sequence, head, out, lse);
    }

    /// See [`backward::backward`].
    fn backward(
        problem: &Heads<'_, Self>,
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
        problem: &Heads<'_, bf16>,
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
        problem: &Heads<'_, bf16>,
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

fn forward_heads<E: Head>(problem: &Heads<'_, E>, probabilities_for: &[usize]) -> Result<Attention> {
    let (rows, heads) = (query_rows(problem.queries, problem.offsets), problem.heads);
    let mut out = Tensor::empty(&[rows, problem.width()], E::DTYPE, Device::Cpu)?;
    let mut lse = Tensor::empty(&[heads, rows], E::DTYPE.accumulator(), Device::Cpu)?;
    let lens: Vec<usize> = problem.query_rows().iter().map(ExactSizeIterator::len).collect();
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

fn backward_heads<E: Head>(problem: &Heads<'_, E>, dout: &Tensor, lse: &Tensor) -> Result<Tensor> {
    let (rows, heads, width) = (query_rows(problem.queries, problem.offsets), problem.heads, problem.width());
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
    let query_rows = problem.query_rows();
    parallel::for_each(items, |_, (sequence, head, mut gradients)| {
        let columns = head * problem.head_size..(head + 1) * problem.head_size;
        let queries = query_rows[sequence].clone();
        let part = |source| Part { source, rows: queries.clone(), columns: columns.clone() };
        let lse = &lse[head * rows..][queries.clone()];
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

//! Look-ups on the CPU, and the sums that are their gradients.

use crate::cpu::isa::{Available, Isa};
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::ops::layer_norm::cpu::Add;
use crate::tensor::Rows;
use crate::{Float, Result, Tensor, for_float};

/// Tokens in one piece of parallel work.
const TOKENS: usize = 64;
/// Table rows in one piece of parallel work, backward.
const TABLE_ROWS: usize = 64;
/// A table smaller than a piece is summed from partial tables of this many tokens each: with one id for thousands of
/// tokens (token types), that is both parallel and more precise than one long sum.
const PARTIAL_TOKENS: usize = 512;

pub(super) fn embedding(op: &'static str, table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let width = table.dims()[1];
    let mut y = Tensor::empty(&[ids.len(), width], table.dtype(), table.device())?;
    for_float!(op, table.dtype(), E => {
        let table = table.as_rows::<E>(op)?;
        let width = width.max(1);
        parallel::for_each_chunk_mut(y.as_mut_slice::<E>()?, TOKENS * width, |piece, y| {
            for (y, &id) in y.chunks_mut(width).zip(&ids[piece * TOKENS..]) {
                y.copy_from_slice(table.row(id as usize));
            }
        });
        Ok(())
    })?;
    Ok(y)
}

pub(super) fn embedding_backward(
    op: &'static str,
    dy: &Tensor,
    ids: &[u32],
    vocabulary: usize,
) -> Result<Tensor> {
    let width = dy.dims()[1];
    let mut dtable = Tensor::empty(&[vocabulary, width], dy.dtype().accumulator(), dy.device())?;
    if dtable.numel() == 0 {
        return Ok(dtable);
    }
    for_float!(op, dy.dtype(), E => {
        let (dy, isa) = (dy.as_rows::<E>(op)?, Isa::current());
        let table = dtable.as_mut_slice::<<E as Float>::Real>()?;
        if vocabulary <= TABLE_ROWS {
            sum_by_tokens(isa, dy, ids, table);
        } else {
            sum_by_ids(isa, dy, ids, vocabulary, table);
        }
        Ok(())
    })?;
    Ok(dtable)
}

/// For large tables: threads own table rows, which they zero and fill in one pass.
fn sum_by_ids<E: Float>(
    isa: Available,
    dy: Rows<'_, E>,
    ids: &[u32],
    vocabulary: usize,
    table: &mut [E::Real],
) {
    let (starts, tokens) = group(ids, vocabulary);
    parallel::for_each_chunk_mut(table, TABLE_ROWS * dy.width, |piece, rows| {
        let first = piece * TABLE_ROWS;
        let starts = &starts[first..=first + rows.len() / dy.width];
        rows.fill(E::Real::default());
        for (row, bounds) in rows.chunks_mut(dy.width).zip(starts.windows(2)) {
            let tokens = tokens[bounds[0] as usize..bounds[1] as usize].iter();
            simd::run(isa, AddRows { dy, rows: row, pairs: tokens.map(|&token| (0, token as usize)) });
        }
    });
}

/// The tokens of each id: those of id `v` are `tokens[starts[v]..starts[v + 1]]`, in their order (a counting sort).
fn group(ids: &[u32], vocabulary: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; vocabulary + 2];
    for &id in ids {
        starts[id as usize + 2] += 1;
    }
    for v in 1..starts.len() {
        starts[v] += starts[v - 1];
    }
    // `starts[v + 1]` is where the next token of v goes; when all are placed, it is where v ends and v + 1 starts.
    let mut tokens = vec![0u32; ids.len()];
    for (token, &id) in (0..).zip(ids) {
        let slot = &mut starts[id as usize + 1];
        tokens[*slot as usize] = token;
        *slot += 1;
    }
    (starts, tokens)
}

/// For small tables: threads own tokens, and their partial tables are added in order.
fn sum_by_tokens<E: Float>(isa: Available, dy: Rows<'_, E>, ids: &[u32], table: &mut [E::Real]) {
    let partial = |range: std::ops::Range<usize>| {
        let mut partial = vec![E::Real::default(); table.len()];
        let pairs = range.map(|token| (ids[token] as usize, token));
        simd::run(isa, AddRows { dy, rows: &mut partial, pairs });
        partial
    };
    let add = |mut sum: Vec<E::Real>, partial: Vec<E::Real>| {
        simd::run(isa, Add { y: &mut sum, x: &partial });
        sum
    };
    match parallel::map_reduce(ids.len(), PARTIAL_TOKENS, partial, add) {
        Some(sum) => table.copy_from_slice(&sum),
        None => table.fill(E::Real::default()),
    }
}

/// `rows[r] += dy[t]` for the pairs (r, t).
struct AddRows<'a, E: Float, I> {
    dy: Rows<'a, E>,
    rows: &'a mut [E::Real],
    pairs: I,
}

impl<E: Float, I: Iterator<Item = (usize, usize)>> Kernel<E::Real> for AddRows<'_, E, I> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) {
        let width = self.dy.width;
        for (row, token) in self.pairs {
            let sum = &mut self.rows[row * width..(row + 1) * width];
            simd::update(sum, self.dy.row(token), |sum: L, dy| sum + dy);
        }
    }
}

/// The sum of the rows of three tables, of each token.
pub(super) fn sum_of_three(op: &'static str, indices: [&[u32]; 3], tables: [&Tensor; 3]) -> Result<Tensor> {
    let ([ids, ..], [word, token_type, position]) = (indices, tables);
    let width = word.dims()[1];
    let mut sum = Tensor::empty(&[ids.len(), width], word.dtype(), word.device())?;
    for_float!(op, word.dtype(), E => {
        let tables = [word.as_rows::<E>(op)?, token_type.as_rows::<E>(op)?, position.as_rows::<E>(op)?];
        let isa = Isa::current();
        parallel::for_each_chunk_mut(sum.as_mut_slice::<E>()?, TOKENS * width.max(1), |piece, sum| {
            let indices = indices.map(|indices| &indices[piece * TOKENS..]);
            simd::run(isa, SumOfThree { tables, indices, sum });
        });
        Ok(())
    })?;
    Ok(sum)
}

struct SumOfThree<'a, E: Float> {
    tables: [Rows<'a, E>; 3],
    indices: [&'a [u32]; 3],
    sum: &'a mut [E],
}

impl<E: Float> Kernel<E::Real> for SumOfThree<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) {
        let [words, token_types, positions] = self.tables;
        for (t, sum) in self.sum.chunks_mut(words.width.max(1)).enumerate() {
            let [word, token_type, position] = self.indices.map(|indices| indices[t] as usize);
            let mut positions = positions.row(position).chunks(L::LANES);
            simd::map2(words.row(word), token_types.row(token_type), sum, |word: L, token_type| {
                let position = positions.next().unwrap_or_default();
                word + token_type + simd::load(position, E::Real::default())
            });
        }
    }
}

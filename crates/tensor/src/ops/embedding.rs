//! Table look-up, and BERT's sum of three look-ups with LayerNorm.
//!
//! `y_t = table[id_t]`; backward `dtable[v] = sum over t with id_t = v of dy_t`. Tokens are grouped by id first, and the
//! tokens of an id are added in their order by one thread: deterministic, without atomics.
//! [`embed_layer_norm`]: `y = LayerNorm(word[id] + token_type[type] + position[position])`, in the order of
//! `BertEmbeddings` in transformers' `modeling_bert.py`.

use super::check;
use super::layer_norm::{Add, LayerNormGradients, layer_norm, layer_norm_backward};
use crate::cpu::isa::{Available, Isa};
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::tensor::Rows;
use crate::{Device, Error, Float, Result, Tensor, cuda, for_float};

/// Tokens in one piece of parallel work.
const TOKENS: usize = 64;
/// Table rows in one piece of parallel work, backward.
const TABLE_ROWS: usize = 64;
/// A table smaller than a piece is summed from partial tables of this many tokens each: with one id for thousands of
/// tokens (token types), that is both parallel and more precise than one long sum.
const PARTIAL_TOKENS: usize = 512;

/// Rows `ids` of `table: [V, C]` (rows may be strided), as `[T, C]`. `torch.nn.functional.embedding`.
///
/// # Errors
/// `IndexOutOfRange` for an id, `ShapeMismatch`, `DTypeMismatch` for integers, `NotContiguous`, `NotSupported` on CUDA but for F32 and BF16.
pub fn embedding(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    const OP: &str = "embedding";
    let (len, width) = check::matrix(OP, "table [V, C]", table)?;
    check::ids(OP, ids, len)?;
    if table.device() != Device::Cpu {
        return cuda::gather_rows(OP, table, ids);
    }
    let mut y = Tensor::empty(&[ids.len(), width], table.dtype(), table.device())?;
    for_float!(OP, table.dtype(), E => {
        let table = table.as_rows::<E>(OP)?;
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

/// Gradient of [`embedding`] with respect to its table of `vocabulary` rows: `[V, C]` in the accumulator's dtype, from
/// `dy: [T, C]` (rows may be strided).
///
/// # Errors
/// As [`embedding`].
pub fn embedding_backward(dy: &Tensor, ids: &[u32], vocabulary: usize) -> Result<Tensor> {
    const OP: &str = "embedding_backward";
    let (_, width) = check::matrix(OP, "dy [T, C]", dy)?;
    check::shape(OP, "one row a token,", dy, &[ids.len(), width])?;
    check::ids(OP, ids, vocabulary)?;
    if dy.device() != Device::Cpu {
        return cuda::embedding_backward(dy, ids, vocabulary);
    }
    let mut dtable = Tensor::empty(&[vocabulary, width], dy.dtype().accumulator(), dy.device())?;
    if dtable.numel() == 0 {
        return Ok(dtable);
    }
    for_float!(OP, dy.dtype(), E => {
        let (dy, isa) = (dy.as_rows::<E>(OP)?, Isa::current());
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

/// What [`embed_layer_norm`] returns; backward needs all but `y`.
#[derive(Debug)]
pub struct EmbedLayerNorm {
    /// `[T, C]`, dtype of the tables.
    pub y: Tensor,
    /// The sum of the three embeddings: `[T, C]`, dtype of the tables.
    pub sum: Tensor,
    /// `[T]`, accumulator dtype.
    pub mean: Tensor,
    /// `[T]`, accumulator dtype.
    pub rstd: Tensor,
}

/// The sum of three embeddings of each token, normalised. Tables are `[rows, C]` (rows may be strided) of one dtype;
/// `weight` and `bias: [C]` have the accumulator's dtype.
///
/// # Errors
/// `IndexOutOfRange` for an id, `ShapeMismatch`, `DTypeMismatch`, `NotContiguous`, `NotSupported` on CUDA but for F32 and BF16.
pub fn embed_layer_norm(
    ids: &[u32],
    token_types: &[u32],
    positions: &[u32],
    word: &Tensor,
    position: &Tensor,
    token_type: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<EmbedLayerNorm> {
    const OP: &str = "embed_layer_norm";
    let (_, width) = check::matrix(OP, "a word table [V, C]", word)?;
    for (indices, table) in [(ids, word), (token_types, token_type), (positions, position)] {
        let (rows, _) = check::matrix(OP, "a table [rows, C]", table)?;
        check::shape(OP, "a table", table, &[rows, width])?;
        check::same_type(OP, word, table)?;
        check_count(OP, ids, indices)?;
        check::ids(OP, indices, rows)?;
    }
    if word.device() != Device::Cpu {
        let tables = [word, token_type, position];
        return cuda::embed_layer_norm([ids, token_types, positions], tables, weight, bias, eps);
    }
    let mut sum = Tensor::empty(&[ids.len(), width], word.dtype(), word.device())?;
    for_float!(OP, word.dtype(), E => {
        let tables = [word.as_rows::<E>(OP)?, token_type.as_rows::<E>(OP)?, position.as_rows::<E>(OP)?];
        let isa = Isa::current();
        parallel::for_each_chunk_mut(sum.as_mut_slice::<E>()?, TOKENS * width.max(1), |piece, sum| {
            let indices = [ids, token_types, positions].map(|indices| &indices[piece * TOKENS..]);
            simd::run(isa, SumOfThree { tables, indices, sum });
        });
        Ok(())
    })?;
    let normalized = layer_norm(&sum, weight, bias, eps)?;
    Ok(EmbedLayerNorm { y: normalized.y, sum, mean: normalized.mean, rstd: normalized.rstd })
}

fn check_count(op: &'static str, ids: &[u32], indices: &[u32]) -> Result<()> {
    if ids.len() == indices.len() {
        return Ok(());
    }
    let expected = format!("a token type and a position for each of {} ids", ids.len());
    Err(Error::ShapeMismatch { op, expected, got: vec![indices.len()] })
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

/// The numbers of rows of the tables whose gradients are wanted; `None` for a frozen table.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmbedTables {
    /// Rows of the word table, V.
    pub word: Option<usize>,
    /// Rows of the position table.
    pub position: Option<usize>,
    /// Rows of the token-type table.
    pub token_type: Option<usize>,
}

/// What [`embed_layer_norm_backward`] returns, in the accumulator's dtype; `None` for what was not wanted.
#[derive(Debug)]
pub struct EmbedLayerNormGradients {
    /// `[V, C]`.
    pub dword: Option<Tensor>,
    /// `[positions, C]`.
    pub dposition: Option<Tensor>,
    /// `[types, C]`.
    pub dtoken_type: Option<Tensor>,
    /// `[C]`.
    pub dweight: Tensor,
    /// `[C]`.
    pub dbias: Tensor,
    /// Gradient of the sum of the embeddings: `[T, C]`, dtype of dy.
    pub dsum: Tensor,
}

/// Gradients of [`embed_layer_norm`], from `dy: [T, C]` and what forward returned.
///
/// # Errors
/// As forward.
pub fn embed_layer_norm_backward(
    dy: &Tensor,
    ids: &[u32],
    token_types: &[u32],
    positions: &[u32],
    sum: &Tensor,
    weight: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
    tables: EmbedTables,
) -> Result<EmbedLayerNormGradients> {
    let LayerNormGradients { dx: dsum, dweight, dbias } = layer_norm_backward(dy, sum, weight, mean, rstd)?;
    let gradient = |indices: &[u32], rows: Option<usize>| {
        rows.map(|n| embedding_backward(&dsum, indices, n)).transpose()
    };
    Ok(EmbedLayerNormGradients {
        dword: gradient(ids, tables.word)?,
        dposition: gradient(positions, tables.position)?,
        dtoken_type: gradient(token_types, tables.token_type)?,
        dweight,
        dbias,
        dsum,
    })
}

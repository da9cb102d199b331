//! Table look-up, and BERT's sum of three look-ups with LayerNorm.
//!
//! `y_t = table[id_t]`; backward `dtable[v] = sum over t with id_t = v of dy_t`. Tokens are grouped by id first, and the
//! tokens of an id are added in their order by one thread: deterministic, without atomics.
//! [`embed_layer_norm`]: `y = LayerNorm(word[id] + token_type[type] + position[position])`, in the order of
//! `BertEmbeddings` in transformers' `modeling_bert.py`.

mod cpu;
mod cuda;

use super::layer_norm::{LayerNorm, LayerNormGradients, layer_norm, layer_norm_backward};
use super::{check, movement};
use crate::cuda::Context;
use crate::{Device, Error, Result, Tensor};

/// Rows `ids` of `table: [V, C]` (rows may be strided), as `[T, C]`. `torch.nn.functional.embedding`.
///
/// # Errors
/// `IndexOutOfRange` for an id, `ShapeMismatch`, `DTypeMismatch` for integers, `NotContiguous`, `NotSupported` on CUDA but for F32 and BF16.
pub fn embedding(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    const OP: &str = "embedding";
    let (len, _) = check::matrix(OP, "table [V, C]", table)?;
    check::ids(OP, ids, len)?;
    match table.device() {
        Device::Cpu => cpu::embedding(OP, table, ids),
        Device::Cuda(ordinal) => movement::cuda::gather_rows(&Context::get(ordinal)?, OP, table, ids),
    }
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
    match dy.device() {
        Device::Cpu => cpu::embedding_backward(OP, dy, ids, vocabulary),
        Device::Cuda(ordinal) => cuda::embedding_backward(&Context::get(ordinal)?, OP, dy, ids, vocabulary),
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
    let (indices, tables) = ([ids, token_types, positions], [word, token_type, position]);
    match word.device() {
        Device::Cpu => {
            let sum = cpu::sum_of_three(OP, indices, tables)?;
            let LayerNorm { y, mean, rstd } = layer_norm(&sum, weight, bias, eps)?;
            Ok(EmbedLayerNorm { y, sum, mean, rstd })
        }
        Device::Cuda(ordinal) => {
            cuda::embed_layer_norm(&Context::get(ordinal)?, OP, indices, tables, weight, bias, eps)
        }
    }
}

fn check_count(op: &'static str, ids: &[u32], indices: &[u32]) -> Result<()> {
    if ids.len() == indices.len() {
        return Ok(());
    }
    let expected = format!("a token type and a position for each of {} ids", ids.len());
    Err(Error::ShapeMismatch { op, expected, got: vec![indices.len()] })
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

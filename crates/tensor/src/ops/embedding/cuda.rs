//! Look-ups on a CUDA device: `kernels/embedding.cu`.

use super::EmbedLayerNorm;
use crate::cuda::{Buffer, Context};
use crate::ops::movement::cuda::sum_into;
use crate::{DType, Result, Tensor};
use std::sync::Arc;
use vitrine_kernels::Launcher as _;
use vitrine_kernels::embedding::EmbedLayerNormForward;

pub(super) fn embedding_backward(
    context: &Arc<Context>,
    op: &'static str,
    dy: &Tensor,
    ids: &[u32],
    vocabulary: usize,
) -> Result<Tensor> {
    let mut dtable = Tensor::zeros(&[vocabulary, dy.dims()[1]], DType::F32, dy.device())?;
    sum_into(context, op, dy, ids, &mut dtable)?;
    Ok(dtable)
}

pub(super) fn embed_layer_norm(
    context: &Arc<Context>,
    op: &'static str,
    [ids, token_types, positions]: [&[u32]; 3],
    [word, token_type, position]: [&Tensor; 3],
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<EmbedLayerNorm> {
    context.computes(op, word)?;
    let (rows, width) = (ids.len(), word.dims()[1]);
    let like = || Tensor::empty(&[rows, width], word.dtype(), word.device());
    let statistic = || Tensor::empty(&[rows], DType::F32, word.device());
    let mut out = EmbedLayerNorm { y: like()?, sum: like()?, mean: statistic()?, rstd: statistic()? };
    context.launch(EmbedLayerNormForward {
        ids: &Buffer::upload(context, ids)?,
        token_types: &Buffer::upload(context, token_types)?,
        positions: &Buffer::upload(context, positions)?,
        word: &word.contiguous()?,
        token_type: &token_type.contiguous()?,
        position: &position.contiguous()?,
        weight: &weight.contiguous()?,
        bias: &bias.contiguous()?,
        y: &mut out.y,
        sum: &mut out.sum,
        mean: &mut out.mean,
        rstd: &mut out.rstd,
        rows: rows as u32,
        width: width as u32,
        eps: eps as f32,
    })?;
    Ok(out)
}

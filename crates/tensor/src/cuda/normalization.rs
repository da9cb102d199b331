//! LayerNorm, dropout, both with a residual, and the embeddings' sum with LayerNorm.

use super::context::SHARED_DEFAULT;
use super::elementwise::add_partials;
use super::launch::context_for;
use super::memory::Buffer;
use crate::ops::dropout_add_layer_norm::{DropoutAddLayerNorm, DropoutAddLayerNormGradients};
use crate::ops::embedding::EmbedLayerNorm;
use crate::ops::layer_norm::{LayerNorm, LayerNormGradients};
use crate::{DType, Dropout, Offsets, Result, Tensor};
use vitrine_kernels::dropout::DropoutForward;
use vitrine_kernels::dropout_add_layer_norm::{DropoutAddLayerNormBackward, DropoutAddLayerNormForward};
use vitrine_kernels::embedding::EmbedLayerNormForward;
use vitrine_kernels::layer_norm::{LayerNormBackward, LayerNormForward};
use vitrine_kernels::{self as kernels, BACKWARD_ROWS, BLOCK_WARPS, Launcher as _};

/// The kernels' form of the settings; `None` is no dropout.
pub(super) fn settings(dropout: Option<&Dropout>) -> kernels::Dropout {
    dropout.map_or_else(kernels::Dropout::default, |dropout| kernels::Dropout {
        seed: dropout.seed,
        step: dropout.step,
        site: dropout.site.into(),
        first_sequence: dropout.first_sequence,
        threshold: dropout.threshold().into(),
        scale: dropout.scale(),
        reserved: 0,
    })
}

fn like(x: &Tensor) -> Result<Tensor> {
    Tensor::empty(x.dims(), x.dtype(), x.device())
}

fn statistic(x: &Tensor) -> Result<Tensor> {
    Tensor::empty(&x.dims()[..1], DType::F32, x.device())
}

/// The warps of a block of a backward kernel: as many as have room for their sums of dweight and dbias.
fn backward_warps(width: usize) -> usize {
    let sums = 2 * width * size_of::<f32>();
    (SHARED_DEFAULT / sums).clamp(1, BLOCK_WARPS as usize)
}

/// Room for the partial sums of `dweight` and `dbias`, a row a block.
fn partials(x: &Tensor) -> Result<Tensor> {
    Tensor::empty(&[x.dims()[0].div_ceil(BACKWARD_ROWS as usize), 2 * x.dims()[1]], DType::F32, x.device())
}

/// `dweight` and `dbias` from the blocks' partial sums.
fn parameter_gradients(partials: &Tensor) -> Result<(Tensor, Tensor)> {
    let empty = || Tensor::empty(&[partials.dims()[1] / 2], DType::F32, partials.device());
    let (mut dweight, mut dbias) = (empty()?, empty()?);
    add_partials(partials, &mut dweight, Some(&mut dbias))?;
    Ok((dweight, dbias))
}

pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<LayerNorm> {
    const OP: &str = "layer_norm";
    let context = context_for(OP, x)?;
    let mut out = LayerNorm { y: like(x)?, mean: statistic(x)?, rstd: statistic(x)? };
    context.launch(LayerNormForward {
        x,
        x_stride: x.row_stride(OP)? as u64,
        weight: &weight.contiguous()?,
        bias: &bias.contiguous()?,
        y: &mut out.y,
        mean: &mut out.mean,
        rstd: &mut out.rstd,
        rows: x.dims()[0] as u32,
        width: x.dims()[1] as u32,
        eps: eps as f32,
    })?;
    Ok(out)
}

pub(crate) fn layer_norm_backward(
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
) -> Result<LayerNormGradients> {
    const OP: &str = "layer_norm_backward";
    let context = context_for(OP, x)?;
    let mut dx = like(x)?;
    let mut partials = partials(x)?;
    context.launch(LayerNormBackward {
        warps: backward_warps(x.dims()[1]),
        dy: &dy.contiguous()?,
        x,
        x_stride: x.row_stride(OP)? as u64,
        weight: &weight.contiguous()?,
        mean,
        rstd,
        dx: &mut dx,
        partials: &mut partials,
        rows: x.dims()[0] as u32,
        width: x.dims()[1] as u32,
    })?;
    let (dweight, dbias) = parameter_gradients(&partials)?;
    Ok(LayerNormGradients { dx, dweight, dbias })
}

pub(crate) fn dropout(x: &Tensor, dropout: &Dropout, offsets: &Offsets) -> Result<Tensor> {
    const OP: &str = "dropout";
    let context = context_for(OP, x)?;
    let mut y = like(x)?;
    let positions = offsets.on_device(&context)?;
    context.launch(DropoutForward {
        rows: x.dims()[0],
        x,
        x_stride: x.row_stride(OP)? as u64,
        offsets: &*positions,
        y: &mut y,
        width: x.dims()[1] as u32,
        sequences: offsets.sequences() as u32,
        dropout: settings(Some(dropout)),
    })?;
    Ok(y)
}

pub(crate) fn dropout_add_layer_norm(
    x: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    dropout: Option<&Dropout>,
    offsets: &Offsets,
) -> Result<DropoutAddLayerNorm> {
    let context = context_for("dropout_add_layer_norm_forward", residual)?;
    let (x, residual) = (x.contiguous()?, residual.contiguous()?);
    let mixed = x.dtype() != residual.dtype();
    let mut out = DropoutAddLayerNorm {
        y: like(&residual)?,
        rounded: mixed.then(|| like(&x)).transpose()?,
        sum: like(&residual)?,
        mean: statistic(&x)?,
        rstd: statistic(&x)?,
    };
    let positions = offsets.on_device(&context)?;
    context.launch(DropoutAddLayerNormForward {
        x: &x,
        residual: &residual,
        weight: &weight.contiguous()?,
        bias: &bias.contiguous()?,
        offsets: &*positions,
        y: &mut out.y,
        rounded_y: out.rounded.as_mut(),
        sum: &mut out.sum,
        mean: &mut out.mean,
        rstd: &mut out.rstd,
        rows: x.dims()[0] as u32,
        width: x.dims()[1] as u32,
        sequences: offsets.sequences() as u32,
        eps: eps as f32,
        dropout: settings(dropout),
    })?;
    Ok(out)
}

pub(crate) fn dropout_add_layer_norm_backward(
    dy: &Tensor,
    sum: &Tensor,
    weight: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
    dropout: Option<&Dropout>,
    offsets: &Offsets,
    x_dtype: DType,
) -> Result<DropoutAddLayerNormGradients> {
    let context = context_for("dropout_add_layer_norm_backward", sum)?;
    let sum = sum.contiguous()?;
    let mut dresidual = like(&sum)?;
    let dropout = settings(dropout);
    // Without dropout, and of one dtype, the two gradients are one tensor.
    let wanted = dropout.threshold > 0 || x_dtype != sum.dtype();
    let mut dx = wanted.then(|| Tensor::empty(sum.dims(), x_dtype, sum.device())).transpose()?;
    let mut partials = partials(&sum)?;
    let positions = offsets.on_device(&context)?;
    context.launch(DropoutAddLayerNormBackward {
        warps: backward_warps(sum.dims()[1]),
        dy: &dy.contiguous()?,
        sum: &sum,
        weight: &weight.contiguous()?,
        mean,
        rstd,
        offsets: &*positions,
        dresidual: &mut dresidual,
        dx: dx.as_mut(),
        partials: &mut partials,
        rows: sum.dims()[0] as u32,
        width: sum.dims()[1] as u32,
        sequences: offsets.sequences() as u32,
        dropout,
    })?;
    let (dweight, dbias) = parameter_gradients(&partials)?;
    let dx = dx.unwrap_or_else(|| dresidual.clone());
    Ok(DropoutAddLayerNormGradients { dx, dresidual, dweight, dbias })
}

pub(crate) fn embed_layer_norm(
    [ids, token_types, positions]: [&[u32]; 3],
    [word, token_type, position]: [&Tensor; 3],
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<EmbedLayerNorm> {
    let context = context_for("embed_layer_norm", word)?;
    let (rows, width) = (ids.len(), word.dims()[1]);
    let like = || Tensor::empty(&[rows, width], word.dtype(), word.device());
    let statistic = || Tensor::empty(&[rows], DType::F32, word.device());
    let mut out = EmbedLayerNorm { y: like()?, sum: like()?, mean: statistic()?, rstd: statistic()? };
    context.launch(EmbedLayerNormForward {
        ids: &Buffer::upload(&context, ids)?,
        token_types: &Buffer::upload(&context, token_types)?,
        positions: &Buffer::upload(&context, positions)?,
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

//! LayerNorm, dropout, both with a residual, and the embeddings' sum with LayerNorm.

use super::elementwise::add_partials;
use super::launch::{Argument, Grid, context_of, kernel, launch, single};
use super::memory::Block;
use crate::ops::dropout_add_layer_norm::{DropoutAddLayerNorm, DropoutAddLayerNormGradients};
use crate::ops::embedding::EmbedLayerNorm;
use crate::ops::layer_norm::{LayerNorm, LayerNormGradients};
use crate::{DType, Dropout, Offsets, Result, Tensor};
use vitrine_kernels::{self as kernels, DROPOUT, DROPOUT_ADD_LAYER_NORM, EMBEDDING, Kernel, LAYER_NORM};

/// Rows of a block of the backward kernels.
const BACKWARD_ROWS: usize = 32;

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

/// The launch of a backward kernel on `[rows, width]`: as many warps as have room for their sums, at most four.
fn backward_grid(rows: usize, width: usize) -> Grid {
    const SHARED: usize = 48 << 10;
    let warps = (SHARED / (8 * width)).clamp(1, 4);
    Grid { blocks: [rows.div_ceil(BACKWARD_ROWS), 1, 1], threads: 32 * warps, shared: 8 * warps * width }
}

/// Room for the partial sums of `dweight` and `dbias`, a row a block.
fn partials(x: &Tensor) -> Result<Tensor> {
    Tensor::empty(&[x.dims()[0].div_ceil(BACKWARD_ROWS), 2 * x.dims()[1]], DType::F32, x.device())
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
    let context = context_of(x)?;
    let kernel = kernel(OP, &LAYER_NORM, "layer_norm_forward", x)?;
    let (rows, width) = (x.dims()[0], x.dims()[1]);
    let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
    let mut out = LayerNorm { y: like(x)?, mean: statistic(x)?, rstd: statistic(x)? };
    launch!(
        context,
        LAYER_NORM,
        kernel,
        Grid::new(rows.div_ceil(4), 1, 128),
        x,
        x.row_stride(OP)? as u64,
        &weight,
        &bias,
        &mut out.y,
        &mut out.mean,
        &mut out.rstd,
        rows as u32,
        width as u32,
        eps as f32
    )?;
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
    let context = context_of(x)?;
    let kernel = kernel(OP, &LAYER_NORM, "layer_norm_backward", x)?;
    let (rows, width) = (x.dims()[0], x.dims()[1]);
    let (dy, weight) = (dy.contiguous()?, weight.contiguous()?);
    let mut dx = like(x)?;
    let partials = partials(x)?;
    launch!(
        context,
        LAYER_NORM,
        kernel,
        backward_grid(rows, width),
        &dy,
        x,
        x.row_stride(OP)? as u64,
        &weight,
        mean,
        rstd,
        &mut dx,
        &partials,
        rows as u32,
        width as u32
    )?;
    let (dweight, dbias) = parameter_gradients(&partials)?;
    Ok(LayerNormGradients { dx, dweight, dbias })
}

pub(crate) fn dropout(x: &Tensor, dropout: &Dropout, offsets: &Offsets) -> Result<Tensor> {
    const OP: &str = "dropout";
    let context = context_of(x)?;
    let kernel = kernel(OP, &DROPOUT, "dropout", x)?;
    let (rows, width) = (x.dims()[0], x.dims()[1]);
    let mut y = like(x)?;
    let positions = offsets.on_device(&context)?;
    launch!(
        context,
        DROPOUT,
        kernel,
        Grid::new(rows, width.div_ceil(1024), 128),
        x,
        x.row_stride(OP)? as u64,
        &*positions,
        &mut y,
        width as u32,
        offsets.sequences() as u32,
        settings(Some(dropout))
    )?;
    Ok(y)
}

/// The kernel for an x (or dx) of `x_dtype` beside a residual stream.
fn mixed_kernel(name: &'static str, x_dtype: DType, residual: &Tensor) -> Result<&'static Kernel> {
    if x_dtype == residual.dtype() {
        return kernel(name, &DROPOUT_ADD_LAYER_NORM, name, residual);
    }
    Ok(single(&DROPOUT_ADD_LAYER_NORM, &format!("{name}_bf16_f32")))
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
    let context = context_of(x)?;
    let module = &DROPOUT_ADD_LAYER_NORM;
    let kernel = mixed_kernel("dropout_add_layer_norm_forward", x.dtype(), residual)?;
    let (rows, width) = (x.dims()[0], x.dims()[1]);
    let (x, residual) = (x.contiguous()?, residual.contiguous()?);
    let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
    let mixed = x.dtype() != residual.dtype();
    let mut out = DropoutAddLayerNorm {
        y: like(&residual)?,
        rounded: mixed.then(|| like(&x)).transpose()?,
        sum: like(&residual)?,
        mean: statistic(&x)?,
        rstd: statistic(&x)?,
    };
    let positions = offsets.on_device(&context)?;
    launch!(
        context,
        *module,
        kernel,
        Grid::new(rows.div_ceil(4), 1, 128),
        &x,
        &residual,
        &weight,
        &bias,
        &*positions,
        &mut out.y,
        out.rounded.as_ref(),
        &mut out.sum,
        &mut out.mean,
        &mut out.rstd,
        rows as u32,
        width as u32,
        offsets.sequences() as u32,
        eps as f32,
        settings(dropout)
    )?;
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
    let context = context_of(sum)?;
    let module = &DROPOUT_ADD_LAYER_NORM;
    let kernel = mixed_kernel("dropout_add_layer_norm_backward", x_dtype, sum)?;
    let (rows, width) = (sum.dims()[0], sum.dims()[1]);
    let (dy, sum, weight) = (dy.contiguous()?, sum.contiguous()?, weight.contiguous()?);
    let mut dresidual = like(&sum)?;
    let settings = settings(dropout);
    // Without dropout, and of one dtype, the two gradients are one tensor.
    let wanted = settings.threshold > 0 || x_dtype != sum.dtype();
    let mut dx = wanted.then(|| Tensor::empty(sum.dims(), x_dtype, sum.device())).transpose()?;
    let dx_argument = dx.as_mut().map_or(Argument::NULL, Argument::from);
    let partials = partials(&sum)?;
    let positions = offsets.on_device(&context)?;
    launch!(
        context,
        *module,
        kernel,
        backward_grid(rows, width),
        &dy,
        &sum,
        &weight,
        mean,
        rstd,
        &*positions,
        &mut dresidual,
        dx_argument,
        &partials,
        rows as u32,
        width as u32,
        offsets.sequences() as u32,
        settings
    )?;
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
    let context = context_of(word)?;
    let kernel = kernel("embed_layer_norm", &EMBEDDING, "embed_layer_norm_forward", word)?;
    let (rows, width) = (ids.len(), word.dims()[1]);
    let upload = |indices: &[u32]| Block::upload(&context, indices);
    let (ids, token_types, positions) = (upload(ids)?, upload(token_types)?, upload(positions)?);
    let (word, token_type, position) = (word.contiguous()?, token_type.contiguous()?, position.contiguous()?);
    let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
    let like = || Tensor::empty(&[rows, width], word.dtype(), word.device());
    let statistic = || Tensor::empty(&[rows], DType::F32, word.device());
    let mut out = EmbedLayerNorm { y: like()?, sum: like()?, mean: statistic()?, rstd: statistic()? };
    launch!(
        context,
        EMBEDDING,
        kernel,
        Grid::new(rows.div_ceil(4), 1, 128),
        &ids,
        &token_types,
        &positions,
        &word,
        &token_type,
        &position,
        &weight,
        &bias,
        &mut out.y,
        &mut out.sum,
        &mut out.mean,
        &mut out.rstd,
        rows as u32,
        width as u32,
        eps as f32
    )?;
    Ok(out)
}

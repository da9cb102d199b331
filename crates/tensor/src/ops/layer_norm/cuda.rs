//! LayerNorm on a CUDA device: `kernels/layer_norm.cu`; and what the fused kernels around it share.

use super::{LayerNorm, LayerNormGradients};
use crate::cuda::{Context, SHARED_DEFAULT};
use crate::ops::reduce::cuda::add_partials;
use crate::{DType, Result, Tensor};
use std::sync::Arc;
use vitrine_kernels::layer_norm::{LayerNormBackward, LayerNormForward};
use vitrine_kernels::{BACKWARD_ROWS, BLOCK_WARPS, Launcher as _};

pub(super) fn forward(
    context: &Arc<Context>,
    op: &'static str,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<LayerNorm> {
    context.computes(op, x)?;
    let mut out = LayerNorm { y: like(x)?, mean: statistic(x)?, rstd: statistic(x)? };
    context.launch(LayerNormForward {
        x,
        x_stride: x.row_stride(op)? as u64,
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

pub(super) fn backward(
    context: &Arc<Context>,
    op: &'static str,
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    mean: &Tensor,
    rstd: &Tensor,
) -> Result<LayerNormGradients> {
    context.computes(op, x)?;
    let mut dx = like(x)?;
    let mut partials = partials::<2>(x)?;
    context.launch(LayerNormBackward {
        warps: backward_warps::<2>(x.dims()[1]),
        dy: &dy.contiguous()?,
        x,
        x_stride: x.row_stride(op)? as u64,
        weight: &weight.contiguous()?,
        mean,
        rstd,
        dx: &mut dx,
        partials: &mut partials,
        rows: x.dims()[0] as u32,
        width: x.dims()[1] as u32,
    })?;
    let (dweight, dbias) = parameter_gradients(context, &partials)?;
    Ok(LayerNormGradients { dx, dweight, dbias })
}

pub(in crate::ops) fn like(x: &Tensor) -> Result<Tensor> {
    Tensor::empty(x.dims(), x.dtype(), x.device())
}

pub(in crate::ops) fn statistic(x: &Tensor) -> Result<Tensor> {
    Tensor::empty(&x.dims()[..1], DType::F32, x.device())
}

/// The warps of a block of a backward kernel: as many as have room for their sums of the gradients of `N` parameters.
pub(in crate::ops) fn backward_warps<const N: usize>(width: usize) -> usize {
    let sums = N * width * size_of::<f32>();
    (SHARED_DEFAULT / sums).clamp(1, BLOCK_WARPS as usize)
}

/// Room for the partial sums of the gradients of `N` parameters, a row a block.
pub(in crate::ops) fn partials<const N: usize>(x: &Tensor) -> Result<Tensor> {
    Tensor::empty(&[x.dims()[0].div_ceil(BACKWARD_ROWS as usize), N * x.dims()[1]], DType::F32, x.device())
}

/// `dweight` and `dbias` from the blocks' partial sums.
pub(in crate::ops) fn parameter_gradients(
    context: &Arc<Context>,
    partials: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let empty = || Tensor::empty(&[partials.dims()[1] / 2], DType::F32, partials.device());
    let (mut dweight, mut dbias) = (empty()?, empty()?);
    add_partials(context, partials, &mut dweight, Some(&mut dbias))?;
    Ok((dweight, dbias))
}

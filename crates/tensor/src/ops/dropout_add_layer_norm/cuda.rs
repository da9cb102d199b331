//! Dropout, residual and LayerNorm on a CUDA device: `kernels/dropout_add_layer_norm.cu`.

use super::{DropoutAddLayerNorm, DropoutAddLayerNormGradients};
use crate::cuda::Context;
use crate::ops::dropout::cuda::settings;
use crate::ops::layer_norm::cuda::{backward_warps, like, parameter_gradients, partials, statistic};
use crate::{DType, Dropout, Offsets, Result, Tensor};
use std::sync::Arc;
use vitrine_kernels::Launcher as _;
use vitrine_kernels::dropout_add_layer_norm::{DropoutAddLayerNormBackward, DropoutAddLayerNormForward};

pub(super) fn forward(
    context: &Arc<Context>,
    op: &'static str,
    x: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    dropout: Option<&Dropout>,
    offsets: &Offsets,
) -> Result<DropoutAddLayerNorm> {
    context.computes(op, residual)?;
    let (x, residual) = (x.contiguous()?, residual.contiguous()?);
    let mixed = x.dtype() != residual.dtype();
    let mut out = DropoutAddLayerNorm {
        y: like(&residual)?,
        rounded: mixed.then(|| like(&x)).transpose()?,
        sum: like(&residual)?,
        mean: statistic(&x)?,
        rstd: statistic(&x)?,
    };
    let positions = offsets.on_device(context)?;
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

pub(super) fn backward(
    context: &Arc<Context>,
    op: &'static str,
    dy: &Tensor,
    sum: &Tensor,
    weight: &Tensor,
    [mean, rstd]: [&Tensor; 2],
    dropout: Option<&Dropout>,
    offsets: &Offsets,
    x_dtype: DType,
) -> Result<DropoutAddLayerNormGradients> {
    context.computes(op, sum)?;
    let sum = sum.contiguous()?;
    let mut dresidual = like(&sum)?;
    let dropout = settings(dropout);
    // Without dropout, and of one dtype, the two gradients are one tensor.
    let wanted = dropout.threshold > 0 || x_dtype != sum.dtype();
    let mut dx = wanted.then(|| Tensor::empty(sum.dims(), x_dtype, sum.device())).transpose()?;
    let mut partials = partials::<2>(&sum)?;
    let positions = offsets.on_device(context)?;
    context.launch(DropoutAddLayerNormBackward {
        warps: backward_warps::<2>(sum.dims()[1]),
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
    let (dweight, dbias) = parameter_gradients(context, &partials)?;
    let dx = dx.unwrap_or_else(|| dresidual.clone());
    Ok(DropoutAddLayerNormGradients { dx, dresidual, dweight, dbias })
}

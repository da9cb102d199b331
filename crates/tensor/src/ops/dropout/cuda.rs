//! Dropout on a CUDA device: `kernels/dropout.cu`.

use crate::cuda::Context;
use crate::ops::layer_norm::cuda::like;
use crate::{Dropout, Offsets, Result, Tensor};
use std::sync::Arc;
use vitrine_kernels::dropout::DropoutForward;
use vitrine_kernels::{self as kernels, Launcher as _};

pub(super) fn dropout(
    context: &Arc<Context>,
    op: &'static str,
    x: &Tensor,
    dropout: &Dropout,
    offsets: &Offsets,
) -> Result<Tensor> {
    context.computes(op, x)?;
    let mut y = like(x)?;
    let positions = offsets.on_device(context)?;
    context.launch(DropoutForward {
        rows: x.dims()[0],
        x,
        x_stride: x.row_stride(op)? as u64,
        offsets: &*positions,
        y: &mut y,
        width: x.dims()[1] as u32,
        sequences: offsets.sequences() as u32,
        dropout: settings(Some(dropout)),
    })?;
    Ok(y)
}

/// The kernels' form of the settings; `None` is no dropout.
pub(in crate::ops) fn settings(dropout: Option<&Dropout>) -> kernels::Dropout {
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

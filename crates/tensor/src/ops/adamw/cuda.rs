//! AdamW on a CUDA device, `kernels/adamw.cu`: all parameters in one launch, and the global norm of all gradients in two.

use super::{AdamW, Update};
use crate::cuda::{Buffer, Context};
use crate::{DType, Error, Result, Tensor};
use std::sync::Arc;
use vitrine_kernels::Launcher as _;
use vitrine_kernels::adamw::{self, AdamwNorm, AdamwSquares, AdamwUpdate, CHUNK, Chunk, Settings};

fn chunks(lens: impl Iterator<Item = usize>) -> Vec<Chunk> {
    let of = |(tensor, len): (usize, usize)| {
        (0..len.div_ceil(CHUNK as usize))
            .map(move |index| Chunk { tensor: tensor as u32, index: index as u32 })
    };
    lens.enumerate().flat_map(of).collect()
}

fn settings(settings: &AdamW, max_grad_norm: f64) -> Settings {
    let AdamW { lr, beta1, beta2, eps, step } = *settings;
    let correction = |beta: f64| 1.0 - beta.powi(step as i32);
    Settings {
        lr,
        beta1,
        beta2,
        eps,
        correction1: correction(beta1),
        correction2: correction(beta2),
        max_grad_norm,
    }
}

pub(super) fn update(
    context: &Arc<Context>,
    op: &'static str,
    updates: &mut [Update<'_>],
    step: &AdamW,
    norm: &Tensor,
) -> Result<()> {
    let mut tensors = Vec::with_capacity(updates.len());
    for update in updates.iter_mut() {
        let dtype = update.param.dtype();
        if dtype != DType::F32 || !update.grad.is_contiguous() {
            return Err(Error::NotSupported { op, device: update.param.device(), dtype });
        }
        tensors.push(adamw::Tensor {
            param: update.param.device_address_mut()?,
            grad: update.grad.device_address(),
            first_moment: update.first_moment.device_address_mut()?,
            second_moment: update.second_moment.device_address_mut()?,
            compute: update.compute.as_mut().map_or(Ok(0), |compute| compute.device_address_mut())?,
            len: update.param.numel() as u64,
            weight_decay: update.weight_decay,
        });
    }
    let chunks = chunks(updates.iter().map(|update| update.param.numel()));
    context.launch(AdamwUpdate {
        chunk_count: chunks.len(),
        tensors: &Buffer::upload(context, &tensors)?,
        chunks: &Buffer::upload(context, &chunks)?,
        settings: &Buffer::upload(context, &[settings(step, 0.0)])?,
        norm,
    })
}

/// `[2]`, F32: the norm and the factor that clips it.
pub(super) fn norm(
    context: &Arc<Context>,
    op: &'static str,
    grads: &[&Tensor],
    max_norm: Option<f64>,
) -> Result<Tensor> {
    let device = grads[0].device();
    let mut tensors = Vec::with_capacity(grads.len());
    for grad in grads {
        if grad.dtype() != DType::F32 || !grad.is_contiguous() {
            return Err(Error::NotSupported { op, device, dtype: grad.dtype() });
        }
        tensors.push(adamw::Tensor {
            param: 0,
            grad: grad.device_address(),
            first_moment: 0,
            second_moment: 0,
            compute: 0,
            len: grad.numel() as u64,
            weight_decay: 0.0,
        });
    }
    let chunks = chunks(grads.iter().map(|grad| grad.numel()));
    let mut partials = Buffer::new(context, chunks.len())?;
    context.launch(AdamwSquares {
        chunk_count: chunks.len(),
        tensors: &Buffer::upload(context, &tensors)?,
        chunks: &Buffer::upload(context, &chunks)?,
        partials: &mut partials,
    })?;
    let none = AdamW { lr: 0.0, beta1: 0.0, beta2: 0.0, eps: 0.0, step: 1 };
    let mut norm = Tensor::empty(&[2], DType::F32, device)?;
    context.launch(AdamwNorm {
        partials: &partials,
        count: chunks.len() as u32,
        settings: &Buffer::upload(context, &[settings(&none, max_norm.unwrap_or(0.0))])?,
        norm: &mut norm,
    })?;
    Ok(norm)
}

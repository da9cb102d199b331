//! Attention over unpadded sequences: tensor cores for bfloat16 and heads of 32 or 64, plain FMAs for any head up to 128.

use super::{Attention, Problem, Queries};
use crate::cuda::{Buffer, Context};
use crate::ops::dropout::cuda::settings;
use crate::{DType, Error, Result, Tensor};
use std::sync::Arc;
use vitrine_kernels::attention::{AttentionBackwardDkv, AttentionBackwardDq, AttentionForward};
use vitrine_kernels::attention_general::{
    AttentionGeneralBackwardDkv, AttentionGeneralBackwardDq, AttentionGeneralForward, AttentionProbabilities,
    MAX_HEAD_SIZE,
};
use vitrine_kernels::{self as kernels, Launcher as _};

/// The kernels for a problem.
#[derive(Clone, Copy)]
enum Family {
    TensorCores,
    General,
}

impl Problem<'_> {
    fn arguments(&self) -> Result<kernels::Attention> {
        Ok(kernels::Attention {
            qkv_stride: self.qkv.row_stride(self.op)? as u64,
            heads: self.heads as u32,
            head_size: self.head_size() as u32,
            rows: self.rows() as u32,
            first_only: u32::from(self.queries == Queries::First),
            softmax_scale: self.softmax_scale as f32,
            reserved: 0,
        })
    }

    fn family(&self) -> Result<Family> {
        let size = self.head_size();
        let aligned =
            self.qkv.device_address().is_multiple_of(16) && self.qkv.row_stride(self.op)?.is_multiple_of(8);
        if self.qkv.dtype() == DType::BF16 && matches!(size, 32 | 64) && aligned {
            return Ok(Family::TensorCores);
        }
        if size > MAX_HEAD_SIZE as usize {
            let (name, expected) = ("heads", "heads of at most 128 channels on a CUDA device");
            return Err(Error::InvalidArgument { op: self.op, name, expected, got: size.to_string() });
        }
        Ok(Family::General)
    }
}

/// Launches one of two kernels that take the same arguments.
macro_rules! launch {
    ($context:expr, $family:expr, $fast:ident or $general:ident { $($fields:tt)* }) => {
        match $family {
            Family::TensorCores => $context.launch($fast { $($fields)* }),
            Family::General => $context.launch($general { $($fields)* }),
        }
    };
}

pub(super) fn forward(
    context: &Arc<Context>,
    problem: &Problem<'_>,
    probabilities_for: &[usize],
) -> Result<Attention> {
    context.computes(problem.op, problem.qkv)?;
    let (qkv, rows, family) = (problem.qkv, problem.rows(), problem.family()?);
    let mut out = Tensor::empty(&[rows, problem.width()], qkv.dtype(), qkv.device())?;
    let mut lse = Tensor::empty(&[problem.heads, rows], DType::F32, qkv.device())?;
    let offsets = problem.offsets.on_device(context)?;
    launch!(context, family, AttentionForward or AttentionGeneralForward {
        // Under `First`, an empty sequence has a row of the output, too.
        longest: if problem.queries == Queries::First { 1 } else { problem.offsets.longest() },
        sequences: problem.offsets.sequences(),
        qkv,
        offsets: &*offsets,
        out: &mut out,
        lse: &mut lse,
        attention: problem.arguments()?,
        dropout: settings(problem.dropout),
    })?;
    let probabilities = probabilities(context, problem, probabilities_for, &lse)?;
    Ok(Attention { out, lse, probabilities })
}

fn probabilities(
    context: &Arc<Context>,
    problem: &Problem<'_>,
    chosen: &[usize],
    lse: &Tensor,
) -> Result<Vec<Tensor>> {
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    context.computes(problem.op, problem.qkv)?;
    let first_only = problem.queries == Queries::First;
    let queries_of = |len: usize| if first_only { len.min(1) } else { len };
    let mut starts = Vec::new();
    let mut total = 0;
    for range in problem.offsets.ranges() {
        starts.push(total as u64);
        total += chosen.len() * queries_of(range.len()) * range.len();
    }
    let mut all = Tensor::empty(&[total], DType::F32, problem.qkv.device())?;
    let heads: Vec<u32> = chosen.iter().map(|&head| head as u32).collect();
    let offsets = problem.offsets.on_device(context)?;
    context.launch(AttentionProbabilities {
        longest: queries_of(problem.offsets.longest()),
        chosen_count: chosen.len(),
        sequences: problem.offsets.sequences(),
        qkv: problem.qkv,
        offsets: &*offsets,
        lse,
        chosen: &Buffer::upload(context, &heads)?,
        starts: &Buffer::upload(context, &starts)?,
        out: &mut all,
        attention: problem.arguments()?,
    })?;
    let sequences = problem.offsets.ranges().zip(starts);
    let pieces = sequences.map(|(range, start)| {
        let dims = [chosen.len(), queries_of(range.len()), range.len()];
        all.narrow(0, start as usize, dims.iter().product())?.reshape(&dims)
    });
    pieces.collect()
}

pub(super) fn backward(
    context: &Arc<Context>,
    problem: &Problem<'_>,
    dout: &Tensor,
    lse: &Tensor,
) -> Result<Tensor> {
    context.computes(problem.op, problem.qkv)?;
    let (qkv, rows, family) = (problem.qkv, problem.rows(), problem.family()?);
    let (longest, sequences) = (problem.offsets.longest(), problem.offsets.sequences());
    let (attention, dropout) = (problem.arguments()?, settings(problem.dropout));
    let (dout, lse) = (dout.contiguous()?, lse.contiguous()?);
    let mut dqkv = Tensor::empty(&[problem.offsets.total(), 3 * problem.width()], qkv.dtype(), qkv.device())?;
    let mut delta = Tensor::empty(&[problem.heads, rows], DType::F32, qkv.device())?;
    let offsets = problem.offsets.on_device(context)?;
    launch!(context, family, AttentionBackwardDq or AttentionGeneralBackwardDq {
        longest,
        sequences,
        qkv,
        offsets: &*offsets,
        dout: &dout,
        lse: &lse,
        delta: &mut delta,
        dqkv: &mut dqkv,
        attention,
        dropout,
    })?;
    launch!(context, family, AttentionBackwardDkv or AttentionGeneralBackwardDkv {
        longest,
        sequences,
        qkv,
        offsets: &*offsets,
        dout: &dout,
        lse: &lse,
        delta: &mut delta,
        dqkv: &mut dqkv,
        attention,
        dropout,
    })?;
    Ok(dqkv)
}

//! Attention over unpadded sequences: tensor cores for bfloat16 and heads of 32 or 64, plain FMAs for any head up to 128.

use super::launch::{Grid, context_of, kernel, launch, single};
use super::memory::Block;
use super::normalization::settings;
use crate::ops::attention::{Attention, Queries, asked_rows};
use crate::{DType, Dropout, Error, Offsets, Result, Tensor};
use vitrine_kernels::{self as kernels, ATTENTION, ATTENTION_GENERAL, Kernel, Module};

/// The checked arguments of both passes.
pub(crate) struct Problem<'a> {
    pub op: &'static str,
    pub qkv: &'a Tensor,
    pub heads: usize,
    pub softmax_scale: f64,
    pub offsets: &'a Offsets,
    pub queries: Queries,
    pub dropout: Option<&'a Dropout>,
}

/// The largest head of the general kernels.
const LARGEST_HEAD: usize = 128;

/// The kernels for a problem, and how they are launched.
struct Plan {
    module: &'static Module,
    prefix: String,
    suffix: &'static str,
    /// Rows of a block.
    tile: usize,
    shared: [usize; 2],
}

impl Problem<'_> {
    fn head_size(&self) -> usize {
        self.qkv.dims()[1] / 3 / self.heads
    }

    fn width(&self) -> usize {
        self.qkv.dims()[1] / 3
    }

    fn rows(&self) -> usize {
        asked_rows(self.queries, self.offsets)
    }

    fn arguments(&self) -> Result<kernels::Attention> {
        Ok(kernels::Attention {
            qkv_stride: self.qkv.row_stride(self.op)? as u64,
            heads: self.heads as u32,
            head_size: self.head_size() as u32,
            rows: self.rows() as u32,
            first_only: u32::from(self.queries == Queries::First),
            softmax_scale: self.softmax_scale as f32,
            sum_delta: 1,
        })
    }

    fn plan(&self) -> Result<Plan> {
        let (size, dtype) = (self.head_size(), self.qkv.dtype());
        let suffix = match dtype {
            DType::F32 => "_f32",
            DType::BF16 => "_bf16",
            _ => return Err(Error::NotSupported { op: self.op, device: self.qkv.device(), dtype }),
        };
        let aligned =
            self.qkv.device_address().is_multiple_of(16) && self.qkv.row_stride(self.op)?.is_multiple_of(8);
        if dtype == DType::BF16 && matches!(size, 32 | 64) && aligned {
            return Ok(Plan {
                module: &ATTENTION,
                prefix: format!("attention_{size}"),
                suffix,
                tile: 64,
                shared: [0; 2],
            });
        }
        if size > LARGEST_HEAD {
            let (name, expected) = ("heads", "heads of at most 128 channels on a CUDA device");
            return Err(Error::InvalidArgument { op: self.op, name, expected, got: size.to_string() });
        }
        let shared = [4 * (96 * (size + 1) + 1056), 4 * (128 * (size + 1) + 2176)];
        Ok(Plan { module: &ATTENTION_GENERAL, prefix: "attention_general".into(), suffix, tile: 32, shared })
    }
}

impl Plan {
    fn kernel(&self, pass: &str) -> &'static Kernel {
        single(self.module, &format!("{}_{pass}{}", self.prefix, self.suffix))
    }

    fn grid(&self, longest: usize, problem: &Problem, shared: usize) -> Grid {
        let blocks = [longest.div_ceil(self.tile).max(1), problem.heads, problem.offsets.sequences()];
        Grid { blocks, threads: 128, shared }
    }
}

pub(crate) fn attention(problem: &Problem, probabilities_for: &[usize]) -> Result<Attention> {
    let context = context_of(problem.qkv)?;
    let (qkv, rows) = (problem.qkv, problem.rows());
    let (plan, arguments) = (problem.plan()?, problem.arguments()?);
    let mut out = Tensor::empty(&[rows, problem.width()], qkv.dtype(), qkv.device())?;
    let mut lse = Tensor::empty(&[problem.heads, rows], DType::F32, qkv.device())?;
    let asked = if problem.queries == Queries::First { 1 } else { problem.offsets.longest() };
    let positions = problem.offsets.on_device(&context)?;
    let grid = plan.grid(asked, problem, plan.shared[0]);
    let dropout = settings(problem.dropout);
    launch!(
        context,
        *plan.module,
        plan.kernel("forward"),
        grid,
        qkv,
        &*positions,
        &mut out,
        &mut lse,
        arguments,
        dropout
    )?;
    let probabilities = probabilities(problem, probabilities_for, &lse)?;
    Ok(Attention { out, lse, probabilities })
}

fn probabilities(problem: &Problem, chosen: &[usize], lse: &Tensor) -> Result<Vec<Tensor>> {
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let context = context_of(problem.qkv)?;
    let module = &ATTENTION_GENERAL;
    let kernel = kernel(problem.op, module, "attention_probabilities", problem.qkv)?;
    let first_only = problem.queries == Queries::First;
    let asked = |len: usize| if first_only { len.min(1) } else { len };
    let mut starts = Vec::new();
    let mut total = 0;
    for range in problem.offsets.ranges() {
        starts.push(total as u64);
        total += chosen.len() * asked(range.len()) * range.len();
    }
    let all = Tensor::empty(&[total], DType::F32, problem.qkv.device())?;
    let heads: Vec<u32> = chosen.iter().map(|&head| head as u32).collect();
    let (heads, starts_on_device) = (Block::upload(&context, &heads)?, Block::upload(&context, &starts)?);
    let positions = problem.offsets.on_device(&context)?;
    let blocks = [asked(problem.offsets.longest()), chosen.len(), problem.offsets.sequences()];
    let grid = Grid { blocks, threads: 128, shared: 0 };
    launch!(
        context,
        *module,
        kernel,
        grid,
        problem.qkv,
        &*positions,
        lse,
        &heads,
        &starts_on_device,
        &all,
        problem.arguments()?
    )?;
    let sequences = problem.offsets.ranges().zip(starts);
    let pieces = sequences.map(|(range, start)| {
        let dims = [chosen.len(), asked(range.len()), range.len()];
        all.narrow(0, start as usize, dims.iter().product())?.reshape(&dims)
    });
    pieces.collect()
}

pub(crate) fn attention_backward(problem: &Problem, dout: &Tensor, lse: &Tensor) -> Result<Tensor> {
    let context = context_of(problem.qkv)?;
    let (qkv, rows) = (problem.qkv, problem.rows());
    let (plan, arguments) = (problem.plan()?, problem.arguments()?);
    let (dout, lse) = (dout.contiguous()?, lse.contiguous()?);
    let dqkv = Tensor::empty(&[problem.offsets.total(), 3 * problem.width()], qkv.dtype(), qkv.device())?;
    let delta = Block::new(&context, 4 * problem.heads * rows)?;
    let positions = problem.offsets.on_device(&context)?;
    let grid = plan.grid(problem.offsets.longest(), problem, plan.shared[1]);
    let dropout = settings(problem.dropout);
    for pass in ["backward_dq", "backward_dkv"] {
        launch!(
            context,
            *plan.module,
            plan.kernel(pass),
            grid,
            qkv,
            &*positions,
            &dout,
            &lse,
            &delta,
            &dqkv,
            arguments,
            dropout
        )?;
    }
    Ok(dqkv)
}

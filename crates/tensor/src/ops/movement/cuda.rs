//! Moving elements on a CUDA device: `kernels/movement.cu`; and the sum of chosen rows in a fixed order, the gradient of any
//! look-up.

use crate::cuda::{Buffer, Context};
use crate::{DType, Result, Tensor};
use std::sync::Arc;
use vitrine_kernels::Launcher as _;
use vitrine_kernels::movement::{GatherRows, Piece, SegmentSum};

/// Tokens of one piece of a sum: the rows of a table are summed by as many threads as there are pieces.
const PIECE: usize = vitrine_kernels::movement::PIECE as usize;

pub(in crate::ops) fn gather_rows(
    context: &Arc<Context>,
    op: &'static str,
    x: &Tensor,
    indices: &[u32],
) -> Result<Tensor> {
    context.computes(op, x)?;
    let width = x.dims()[1];
    let mut y = Tensor::empty(&[indices.len(), width], x.dtype(), x.device())?;
    context.launch(GatherRows {
        rows: indices.len(),
        x,
        x_stride: x.row_stride(op)? as u64,
        indices: &Buffer::upload(context, indices)?,
        y: &mut y,
        width: width as u32,
    })?;
    Ok(y)
}

pub(super) fn gather_rows_backward(
    context: &Arc<Context>,
    dy: &Tensor,
    indices: &[u32],
    rows: usize,
) -> Result<Tensor> {
    let mut dx = Tensor::zeros(&[rows, dy.dims()[1]], DType::F32, dy.device())?;
    sum_into(context, "gather_rows_backward", dy, indices, &mut dx)?;
    dx.to_dtype(dy.dtype())
}

/// The tensors one after the other along `dim`, as `dims`.
pub(super) fn cat(tensors: &[&Tensor], dim: usize, dims: &[usize]) -> Result<Tensor> {
    let mut out = Tensor::empty(dims, tensors[0].dtype(), tensors[0].device())?;
    let outer: usize = dims[..dim].iter().product();
    let block: usize = dims[dim..].iter().product();
    let mut start = 0;
    for tensor in tensors {
        let width: usize = tensor.dims()[dim..].iter().product();
        let source = tensor.contiguous()?.reshape(&[outer, width])?;
        for o in 0..outer {
            out.device_copy_from(o * block + start, &source.select(0, o)?)?;
        }
        start += width;
    }
    Ok(out)
}

/// Tokens grouped by row: an order of tokens, and pieces of it, each a sum for one row of a table or of a scratch table.
struct Groups {
    order: Vec<u32>,
    /// Of rows with at most [`PIECE`] tokens, straight into the table.
    whole: Vec<Piece>,
    /// Of the others, into scratch rows.
    parts: Vec<Piece>,
    /// The scratch rows of each of these rows.
    joins: Vec<Piece>,
}

impl Groups {
    fn new(indices: &[u32]) -> Self {
        let mut order: Vec<u32> = (0..indices.len() as u32).collect();
        // Stable: the tokens of a row keep their order.
        order.sort_by_key(|&token| indices[token as usize]);
        let mut groups =
            Groups { order: Vec::new(), whole: Vec::new(), parts: Vec::new(), joins: Vec::new() };
        let mut begin = 0;
        for group in order.chunk_by(|&a, &b| indices[a as usize] == indices[b as usize]) {
            let (row, end) = (indices[group[0] as usize], begin + group.len());
            if group.len() <= PIECE {
                groups.whole.push(Piece { row, begin: begin as u32, end: end as u32 });
            } else {
                let first = groups.parts.len() as u32;
                for start in (begin..end).step_by(PIECE) {
                    let row = groups.parts.len() as u32;
                    groups.parts.push(Piece { row, begin: start as u32, end: end.min(start + PIECE) as u32 });
                }
                groups.joins.push(Piece { row, begin: first, end: groups.parts.len() as u32 });
            }
            begin = end;
        }
        groups.order = order;
        groups
    }
}

/// `y[indices[t]] += dy[t]`, F32, for a y of zeros.
pub(in crate::ops) fn sum_into(
    context: &Arc<Context>,
    op: &'static str,
    dy: &Tensor,
    indices: &[u32],
    y: &mut Tensor,
) -> Result<()> {
    context.computes(op, dy)?;
    let (width, x_stride) = (dy.dims()[1] as u32, dy.row_stride(op)? as u64);
    let groups = Groups::new(indices);
    let order = Buffer::upload(context, &groups.order)?;
    context.launch(SegmentSum {
        piece_count: groups.whole.len(),
        x: dy,
        x_stride,
        index: Some(&order),
        pieces: &Buffer::upload(context, &groups.whole)?,
        y: &mut *y,
        width,
    })?;
    if !groups.parts.is_empty() {
        let mut scratch = Tensor::empty(&[groups.parts.len(), dy.dims()[1]], DType::F32, dy.device())?;
        context.launch(SegmentSum {
            piece_count: groups.parts.len(),
            x: dy,
            x_stride,
            index: Some(&order),
            pieces: &Buffer::upload(context, &groups.parts)?,
            y: &mut scratch,
            width,
        })?;
        context.launch(SegmentSum {
            piece_count: groups.joins.len(),
            x: &scratch,
            x_stride: u64::from(width),
            index: None,
            pieces: &Buffer::upload(context, &groups.joins)?,
            y,
            width,
        })?;
    }
    Ok(())
}

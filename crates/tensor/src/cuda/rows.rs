//! Choosing rows, summing chosen rows in a fixed order (the gradient of any look-up), and concatenation.

use super::launch::{Grid, context_of, kernel, launch};
use super::memory::Block;
use crate::{DType, Result, Tensor};
use vitrine_kernels::{Piece, ROWS};

/// Tokens of one piece of a sum: the rows of a table are summed by as many threads as there are pieces.
const PIECE: usize = 64;

fn grid(width: usize, rows: usize) -> Grid {
    Grid::new(rows, width.div_ceil(1024), 128)
}

pub(crate) fn gather_rows(op: &'static str, x: &Tensor, indices: &[u32]) -> Result<Tensor> {
    let context = context_of(x)?;
    let kernel = kernel(op, &ROWS, "gather_rows", x)?;
    let width = x.dims()[1];
    let stride = x.row_stride(op)? as u64;
    let mut y = Tensor::empty(&[indices.len(), width], x.dtype(), x.device())?;
    let indices_on_device = Block::upload(&context, indices)?;
    launch!(
        context,
        ROWS,
        kernel,
        grid(width, indices.len()),
        x,
        stride,
        &indices_on_device,
        &mut y,
        width as u32
    )?;
    Ok(y)
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
fn sum_into(op: &'static str, dy: &Tensor, indices: &[u32], y: &mut Tensor) -> Result<()> {
    let context = context_of(dy)?;
    let (width, stride) = (dy.dims()[1], dy.row_stride(op)? as u64);
    let sum = kernel(op, &ROWS, "segment_sum", dy)?;
    let groups = Groups::new(indices);
    let order = Block::upload(&context, &groups.order)?;
    let whole = Block::upload(&context, &groups.whole)?;
    launch!(
        context,
        ROWS,
        sum,
        grid(width, groups.whole.len()),
        dy,
        stride,
        &order,
        &whole,
        &mut *y,
        width as u32
    )?;
    if !groups.parts.is_empty() {
        let scratch = Tensor::empty(&[groups.parts.len(), width], DType::F32, dy.device())?;
        let (parts, joins) =
            (Block::upload(&context, &groups.parts)?, Block::upload(&context, &groups.joins)?);
        let blocks = grid(width, groups.parts.len());
        launch!(context, ROWS, sum, blocks, dy, stride, &order, &parts, &scratch, width as u32)?;
        let join = kernel(op, &ROWS, "segment_sum", &scratch)?;
        let (blocks, none) = (grid(width, groups.joins.len()), None::<&Tensor>);
        launch!(context, ROWS, join, blocks, &scratch, width as u64, none, &joins, y, width as u32)?;
    }
    Ok(())
}

pub(crate) fn embedding_backward(dy: &Tensor, ids: &[u32], vocabulary: usize) -> Result<Tensor> {
    let mut dtable = Tensor::zeros(&[vocabulary, dy.dims()[1]], DType::F32, dy.device())?;
    sum_into("embedding_backward", dy, ids, &mut dtable)?;
    Ok(dtable)
}

pub(crate) fn gather_rows_backward(dy: &Tensor, indices: &[u32], rows: usize) -> Result<Tensor> {
    let mut dx = Tensor::zeros(&[rows, dy.dims()[1]], DType::F32, dy.device())?;
    sum_into("gather_rows_backward", dy, indices, &mut dx)?;
    dx.to_dtype(dy.dtype())
}

/// The tensors one after the other along `dim`, as `dims`.
pub(crate) fn cat(tensors: &[&Tensor], dim: usize, dims: &[usize]) -> Result<Tensor> {
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

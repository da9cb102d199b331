//! Element by element: functions, conversions, copies of views; and sums over a dimension.
//!
//! Kernels work on contiguous arrays of one shape; what is broadcast or strided is copied first.

use super::launch::{Argument, Grid, context_of, kernel, launch, single};
use crate::{DType, Error, Result, Tensor};
use vitrine_kernels::{CAST, ELEMENTWISE, GELU, Module, REDUCE, View};

/// The module and the kernel family of an operation on elements.
fn family(op: &'static str) -> (&'static Module, &'static str) {
    match op {
        "exp" => (&ELEMENTWISE, "exp_forward"),
        "ln" => (&ELEMENTWISE, "ln_forward"),
        "sqrt" => (&ELEMENTWISE, "sqrt_forward"),
        "gelu_erf" => (&GELU, "gelu_erf_forward"),
        "gelu_tanh" => (&GELU, "gelu_tanh_forward"),
        "relu" => (&GELU, "relu_forward"),
        "tanh" => (&GELU, "tanh_forward"),
        "gelu_erf_backward" | "gelu_tanh_backward" | "relu_backward" | "tanh_backward" => (&GELU, op),
        _ => (&ELEMENTWISE, op),
    }
}

/// `y = f(x)`.
pub(crate) fn unary(op: &'static str, x: &Tensor) -> Result<Tensor> {
    let context = context_of(x)?;
    let (module, name) = family(op);
    let kernel = kernel(op, module, name, x)?;
    let x = x.contiguous()?;
    let mut y = Tensor::empty(x.dims(), x.dtype(), x.device())?;
    let n = x.numel();
    launch!(context, *module, kernel, Grid::elements(n), &x, &mut y, n as u64)?;
    Ok(y)
}

/// `y = f(a, b)`, both broadcast to `dims`.
pub(crate) fn binary(op: &'static str, a: &Tensor, b: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let context = context_of(a)?;
    let (module, name) = family(op);
    let kernel = kernel(op, module, name, a)?;
    let (a, b) = (a.broadcast_to(dims)?.contiguous()?, b.broadcast_to(dims)?.contiguous()?);
    let mut y = Tensor::empty(dims, a.dtype(), a.device())?;
    let n = y.numel();
    launch!(context, *module, kernel, Grid::elements(n), &a, &b, &mut y, n as u64)?;
    Ok(y)
}

/// `y = factor x + term`.
pub(crate) fn affine(op: &'static str, x: &Tensor, factor: f64, term: f64) -> Result<Tensor> {
    let context = context_of(x)?;
    let kernel = kernel(op, &ELEMENTWISE, "affine", x)?;
    let x = x.contiguous()?;
    let mut y = Tensor::empty(x.dims(), x.dtype(), x.device())?;
    let n = x.numel();
    let grid = Grid::elements(n);
    launch!(context, ELEMENTWISE, kernel, grid, &x, &mut y, n as u64, factor as f32, term as f32)?;
    Ok(y)
}

/// Sets every element to `value`.
pub(crate) fn fill(y: &mut Tensor, value: f64) -> Result<()> {
    let context = context_of(y)?;
    let kernel = kernel("full", &ELEMENTWISE, "fill", y)?;
    let n = y.numel();
    launch!(context, ELEMENTWISE, kernel, Grid::elements(n), y, n as u64, value as f32)
}

/// A contiguous tensor in the other of F32 and BF16.
pub(crate) fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let context = context_of(x)?;
    let kernel = match (x.dtype(), dtype) {
        (DType::F32, DType::BF16) => single(&CAST, "cast_f32_to_bf16"),
        (DType::BF16, DType::F32) => single(&CAST, "cast_bf16_to_f32"),
        (_, to) => return Err(Error::NotSupported { op: "to_dtype", device: x.device(), dtype: to }),
    };
    let mut y = Tensor::empty(x.dims(), dtype, x.device())?;
    let n = x.numel();
    launch!(context, CAST, kernel, Grid::elements(n), x, &mut y, n as u64)?;
    Ok(y)
}

/// A contiguous copy in storage of its own.
pub(crate) fn copy(x: &Tensor) -> Result<Tensor> {
    let context = context_of(x)?;
    let mut y = Tensor::empty(x.dims(), x.dtype(), x.device())?;
    if x.is_contiguous() {
        y.device_copy_from(0, x)?;
        return Ok(y);
    }
    // Elements are moved, not computed with: those of four bytes can go as F32, those of two as BF16.
    let kernel = match x.dtype().size() {
        4 => single(&ELEMENTWISE, "strided_copy_f32"),
        2 => single(&ELEMENTWISE, "strided_copy_bf16"),
        _ => return Err(Error::NotSupported { op: "contiguous", device: x.device(), dtype: x.dtype() }),
    };
    let mut view = View { dims: [1; 6], strides: [0; 6] };
    let lead = 6 - x.rank();
    for (d, (&len, &stride)) in x.dims().iter().zip(x.strides()).enumerate() {
        (view.dims[lead + d], view.strides[lead + d]) = (len as u64, stride as u64);
    }
    let n = x.numel();
    launch!(context, ELEMENTWISE, kernel, Grid::new(n.div_ceil(256), 1, 256), x, &mut y, n as u64, view)?;
    Ok(y)
}

/// y becomes the sums of the columns of a matrix (rows may be strided), in F32: pieces of 64 rows, and the pieces in order.
pub(super) fn column_sums(op: &'static str, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let context = context_of(x)?;
    let kernel = kernel(op, &REDUCE, "row_sums", x)?;
    let (rows, width) = (x.dims()[0], x.dims()[1]);
    let stride = x.row_stride(op)? as u64;
    let partials = Tensor::empty(&[rows.div_ceil(64), width], DType::F32, x.device())?;
    let grid = Grid::new(width.div_ceil(256), partials.dims()[0], 32);
    launch!(context, REDUCE, kernel, grid, x, stride, &partials, rows as u32, width as u32)?;
    add_partials(&partials, y, None)
}

/// The rows of partials added up: their first numbers to y, the others to z.
pub(super) fn add_partials(partials: &Tensor, y: &mut Tensor, z: Option<&mut Tensor>) -> Result<()> {
    let context = context_of(y)?;
    let (rows, width, split) = (partials.dims()[0], partials.dims()[1], y.numel());
    let (kernel, grid) = (single(&REDUCE, "column_sums"), Grid::new(width.div_ceil(32), 1, 256));
    let z = z.map_or(Argument::NULL, Argument::from);
    launch!(context, REDUCE, kernel, grid, partials, y, z, rows as u32, width as u64, split as u64)
}

/// The sum over the middle of `[outer, length, inner]`, as `dims`.
pub(crate) fn sum(x: &Tensor, [outer, len, inner]: [usize; 3], dims: &[usize]) -> Result<Tensor> {
    let x = x.contiguous()?.reshape(&[outer, len, inner])?;
    let mut y = Tensor::empty(dims, x.dtype(), x.device())?;
    for o in 0..outer {
        let mut sums = Tensor::empty(&[inner], DType::F32, x.device())?;
        column_sums("sum", &x.select(0, o)?, &mut sums)?;
        y.device_copy_from(o * inner, &sums.to_dtype(x.dtype())?)?;
    }
    Ok(y)
}

/// The largest elements along the middle of `[outer, length, inner]` and their first positions, as `dims`.
pub(crate) fn max(x: &Tensor, [_, len, inner]: [usize; 3], dims: &[usize]) -> Result<[Tensor; 2]> {
    let (context, kernel) = (context_of(x)?, kernel("max", &REDUCE, "max_forward", x)?);
    let x = x.contiguous()?;
    let mut values = Tensor::empty(dims, x.dtype(), x.device())?;
    let mut indices = Tensor::empty(dims, DType::U32, x.device())?;
    let results = values.numel();
    let (grid, out) = (Grid::new(results.div_ceil(4), 1, 128), (&mut values, &mut indices));
    launch!(context, REDUCE, kernel, grid, &x, out.0, out.1, results as u64, len as u32, inner as u64)?;
    Ok([values, indices])
}

/// dx, zeros of `[outer, length, inner]`, becomes dy where the maximum was found. An index beyond the length is passed over.
pub(crate) fn max_backward(
    dy: &Tensor,
    indices: &Tensor,
    dx: &mut Tensor,
    len: usize,
    inner: usize,
) -> Result<()> {
    let (context, kernel) = (context_of(dy)?, kernel("max_backward", &REDUCE, "max_backward", dy)?);
    let grid = Grid::new(dy.numel().div_ceil(256), 1, 256);
    launch!(context, REDUCE, kernel, grid, dy, indices, dx, dy.numel() as u64, len as u32, inner as u64)
}

//! Matrix products: cuBLASLt where it is installed, else our own kernels: tensor cores for bfloat16 whose rows are aligned,
//! plain FMAs for everything else.

use super::cublaslt::Beside;
use super::elementwise::{add_partials, column_sums, unary};
use super::launch::{context_for, context_of};
use crate::ops::elementwise::{Relu, Tanh};
use crate::ops::gelu::{GeluErf, GeluTanh};
use crate::ops::linear::{Activation, Bias, Linear, LinearGradients, LinearNeeds};
use crate::{DType, Error, Result, Tensor};
use vitrine_kernels::Launcher as _;
use vitrine_kernels::gelu::{BiasGeluErfForward, BiasGeluTanhForward, BiasReluForward, BiasTanhForward};
use vitrine_kernels::gemm::{
    self, BackwardShape, GemmBackward, GemmNt, GemmNtGeluErf, GemmNtGeluTanh, Shape as GemmShape,
};
use vitrine_kernels::gemm_simt::{Gemm, GemmSimt};

/// How a matrix lies in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Rows of neighbours, this many elements apart.
    Rows(usize),
    /// Columns of neighbours.
    Columns(usize),
    Neither,
}

/// The order of a matrix, if the tensor-core kernels can read it: starts and rows at multiples of 16 bytes.
fn order(x: &Tensor) -> Order {
    let aligned = |stride: usize| stride.is_multiple_of(8) && x.device_address().is_multiple_of(16);
    match *x.strides() {
        [row, 1] if aligned(row) => Order::Rows(row),
        [1, column] if aligned(column) => Order::Columns(column),
        _ => Order::Neither,
    }
}

/// `c = a b (+ bias) (+ so_far)` for matrices of any strides, or batches of them; c is contiguous, and so_far like it.
fn simt(
    op: &'static str,
    a: &Tensor,
    b: &Tensor,
    bias: Option<&Tensor>,
    so_far: Option<&Tensor>,
    c: &mut Tensor,
) -> Result<()> {
    let context = context_for(op, a)?;
    if !matches!((a.dtype(), c.dtype()), (DType::F32 | DType::BF16, DType::F32) | (DType::BF16, DType::BF16))
    {
        return Err(Error::NotSupported { op, device: a.device(), dtype: a.dtype() });
    }
    let strides = |x: &Tensor| {
        let strides = x.strides();
        let batch = if x.rank() == 3 { strides[0] as u64 } else { 0 };
        (strides[x.rank() - 2] as u64, strides[x.rank() - 1] as u64, batch)
    };
    let ((a_row, a_column, a_batch), (b_row, b_column, b_batch)) = (strides(a), strides(b));
    let (m, k, n) = (a.dims()[a.rank() - 2], a.dims()[a.rank() - 1], b.dims()[b.rank() - 1]);
    let gemm = Gemm {
        a_row,
        a_column,
        a_batch,
        b_row,
        b_column,
        b_batch,
        m: m as u32,
        n: n as u32,
        k: k as u32,
        reserved: 0,
    };
    let batch = if a.rank() == 3 { a.dims()[0] } else { 1 };
    context.launch(GemmSimt { batch, a, b, bias, so_far, c, gemm })
}

/// `a b` of two matrices of one dtype, with sums in F32, as a tensor of dtype `out`.
pub(crate) fn product(op: &'static str, a: &Tensor, b: &Tensor, out: DType) -> Result<Tensor> {
    let context = context_of(a)?;
    let mut c = Tensor::empty(&[a.dims()[0], b.dims()[1]], out, a.device())?;
    if let Some(library) = &context.cublaslt
        && library.product(&context, a, b, Beside::Nothing, &mut c).is_some()
    {
        return Ok(c);
    }
    simt(op, a, b, None, None, &mut c)?;
    Ok(c)
}

/// The operands of a linear layer's gradients: dy `[T, N]`, W `[N, K]`, x `[T, K]` of one dtype, and what other operations
/// gave x, which dx is added to.
struct Backward<'a> {
    dy: &'a Tensor,
    weight: &'a Tensor,
    x: &'a Tensor,
    so_far: Option<&'a Tensor>,
}

/// The gradients that are still to be computed; who computes one takes it.
struct Wanted<'a> {
    dx: Option<&'a mut Tensor>,
    dweight: Option<&'a mut Tensor>,
    dbias: Option<&'a mut Tensor>,
}

/// The gradients of `x W^T + b` for dy `[T, N]`, x `[T, K]` and W `[N, K]` of one dtype; dx is added to `so_far`.
pub(crate) fn linear_backward(
    dy: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    needs: LinearNeeds,
    so_far: Option<&Tensor>,
) -> Result<LinearGradients> {
    const OP: &str = "linear_backward";
    let (n, k) = (dy.dims()[1], x.dims()[1]);
    let empty = |dims: &[usize], dtype| Tensor::empty(dims, dtype, dy.device());
    let mut gradients = LinearGradients {
        dx: needs.x.map(|dtype| empty(x.dims(), dtype)).transpose()?,
        dweight: needs.weight.then(|| empty(&[n, k], DType::F32)).transpose()?,
        dbias: needs.bias.then(|| empty(&[n], DType::F32)).transpose()?,
    };
    let LinearGradients { dx, dweight, dbias } = &mut gradients;
    let mut wanted = Wanted { dx: dx.as_mut(), dweight: dweight.as_mut(), dbias: dbias.as_mut() };
    let so_far = so_far.map(Tensor::contiguous).transpose()?;
    let operands = Backward { dy, weight, x, so_far: so_far.as_ref() };
    backward_by_library(&operands, &mut wanted)?;
    backward_on_tensor_cores(&operands, &mut wanted)?;
    if let Some(dx) = wanted.dx {
        simt(OP, dy, weight, None, operands.so_far, dx)?;
    }
    if let Some(dweight) = wanted.dweight {
        simt(OP, &dy.t()?, x, None, None, dweight)?;
    }
    if let Some(dbias) = wanted.dbias {
        column_sums(OP, dy, dbias)?;
    }
    Ok(gradients)
}

/// What cuBLASLt can.
fn backward_by_library(
    &Backward { dy, weight, x, so_far }: &Backward<'_>,
    wanted: &mut Wanted<'_>,
) -> Result<()> {
    let context = context_of(dy)?;
    let Some(library) = &context.cublaslt else { return Ok(()) };
    if let Some(dx) = &mut wanted.dx {
        let beside = so_far.map_or(Beside::Nothing, Beside::SoFar);
        if library.product(&context, dy, weight, beside, dx).is_some() {
            wanted.dx = None;
        }
    }
    if let Some(dweight) = &mut wanted.dweight {
        let beside = wanted.dbias.as_deref().map_or(Beside::Nothing, Beside::RowSums);
        if library.product(&context, &dy.t()?, x, beside, dweight).is_some() {
            (wanted.dweight, wanted.dbias) = (None, None);
        }
    }
    Ok(())
}

/// dx and dweight in one launch, and dbias beside dweight, if tensor cores can read the operands.
fn backward_on_tensor_cores(
    &Backward { dy, weight, x, so_far }: &Backward<'_>,
    wanted: &mut Wanted<'_>,
) -> Result<()> {
    let orders = [dy, weight, x].map(order);
    let (DType::BF16, [Order::Rows(dy_stride), Order::Rows(weight_stride), Order::Rows(x_stride)]) =
        (dy.dtype(), orders)
    else {
        return Ok(());
    };
    let context = context_of(dy)?;
    let (rows, n, k) = (dy.dims()[0], dy.dims()[1], x.dims()[1]);
    let (dx, dweight) = (wanted.dx.take(), wanted.dweight.take());
    let dbias = if dweight.is_some() { wanted.dbias.take() } else { None };
    // A weight's gradient has few tiles and a long sum: it is split until all multiprocessors have work.
    let (row_tile, column_tile) = (gemm::BM as usize, gemm::BN as usize);
    let (weight_tiles, column_tiles) = (n.div_ceil(row_tile), k.div_ceil(column_tile));
    let filling = 2 * context.multiprocessors / (weight_tiles * column_tiles).max(1);
    let splits = filling.min(rows.div_ceil(256)).max(1);
    let weight_blocks = if dweight.is_some() { splits * weight_tiles } else { 0 };
    let dx_blocks = if dx.is_some() { rows.div_ceil(row_tile) } else { 0 };
    let numbers = [rows, n, k, dy_stride, weight_stride, x_stride, splits, weight_blocks].map(|x| x as u32);
    let [rows, n, k, dy_stride, weight_stride, x_stride, splits, weight_blocks] = numbers;
    let shape = BackwardShape { rows, n, k, dy_stride, weight_stride, x_stride, splits, weight_blocks };
    let run = |dweight: Option<&mut Tensor>, dbias: Option<&mut Tensor>| {
        context.launch(GemmBackward { dx_blocks, dy, weight, x, so_far, dx, dweight, dbias, shape })
    };
    match dweight {
        Some(dweight) if splits > 1 => {
            let (of_weight, of_bias) = (dweight.numel(), n as usize);
            let mut parts = Tensor::empty(&[splits as usize, of_weight + of_bias], DType::F32, dy.device())?;
            let mut bias_parts = parts.narrow(1, of_weight, of_bias)?;
            run(Some(&mut parts), Some(&mut bias_parts))?;
            add_partials(&parts, dweight, dbias)
        }
        dweight => run(dweight, dbias),
    }
}

/// `act(x W^T + b)` for x `[rows, K]`, W `[N, K]` and b `[N]` F32; with the pre-activation if it is asked for.
pub(crate) fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<Bias<'_>>,
    activation: Activation,
    save_pre: bool,
) -> Result<Linear> {
    const OP: &str = "linear";
    let context = context_of(x)?;
    let (rows, n) = (x.dims()[0], weight.dims()[0]);
    let empty = || Tensor::empty(&[rows, n], x.dtype(), x.device());
    if let Some(library) = &context.cublaslt {
        let mut product = empty()?;
        // The library adds a bias of the result's dtype; with an activation the bias goes to the activation's kernel, in F32.
        let fused = activation != Activation::None;
        let round =
            |bias: Bias<'_>| bias.rounded.map_or_else(|| bias.value.to_dtype(x.dtype()), |b| Ok(b.clone()));
        let rounded = bias.filter(|_| !fused).map(round).transpose()?;
        let beside = rounded.as_ref().map_or(Beside::Nothing, Beside::Bias);
        if library.product(&context, x, &weight.t()?, beside, &mut product).is_some() {
            if !fused {
                return Ok(Linear { y: product, pre_activation: None });
            }
            return activated_with_bias(activation, product, bias.map(|bias| bias.value), save_pre);
        }
    }
    let bias = bias.map(|bias| bias.value);
    if let (DType::BF16, Order::Rows(lda), Order::Rows(ldb)) = (x.dtype(), order(x), order(weight)) {
        let [m, n, k, lda, ldb] = [rows, n, x.dims()[1], lda, ldb].map(|x| x as u32);
        let shape = GemmShape { m, n, k, lda, ldb };
        let mut y = empty()?;
        if !matches!(activation, Activation::GeluErf | Activation::GeluTanh) {
            context.launch(GemmNt { x, weight, bias, y: &mut y, shape })?;
            return activated(y, activation, save_pre);
        }
        let mut saved = save_pre.then(empty).transpose()?;
        let (pre, out) = (saved.as_mut(), &mut y);
        if activation == Activation::GeluErf {
            context.launch(GemmNtGeluErf { x, weight, bias, pre, y: out, shape })?;
        } else {
            context.launch(GemmNtGeluTanh { x, weight, bias, pre, y: out, shape })?;
        }
        return Ok(Linear { y, pre_activation: saved });
    }
    let mut pre = empty()?;
    simt(OP, x, &weight.t()?, bias, None, &mut pre)?;
    activated(pre, activation, save_pre)
}

/// `act(product + bias)`; the sum, in the product's place, is kept if backward will need it.
fn activated_with_bias(
    activation: Activation,
    mut product: Tensor,
    bias: Option<&Tensor>,
    save_pre: bool,
) -> Result<Linear> {
    let context = context_for("linear", &product)?;
    let (rows, n) = (product.dims()[0], product.dims()[1]);
    let zeros = Tensor::zeros(&[if bias.is_some() { 0 } else { n }], DType::F32, product.device())?;
    let mut out = Tensor::empty(product.dims(), product.dtype(), product.device())?;
    let (bias, width, save) = (bias.unwrap_or(&zeros), n as u32, u32::from(save_pre));
    let (sum, y) = (&mut product, &mut out);
    match activation {
        Activation::None => return Ok(Linear { y: product, pre_activation: None }),
        Activation::GeluErf => {
            context.launch(BiasGeluErfForward { rows, product: sum, bias, y, width, save_pre: save })
        }
        Activation::GeluTanh => {
            context.launch(BiasGeluTanhForward { rows, product: sum, bias, y, width, save_pre: save })
        }
        Activation::Relu => {
            context.launch(BiasReluForward { rows, product: sum, bias, y, width, save_pre: save })
        }
        Activation::Tanh => {
            context.launch(BiasTanhForward { rows, product: sum, bias, y, width, save_pre: save })
        }
    }?;
    Ok(Linear { y: out, pre_activation: save_pre.then_some(product) })
}

/// `act(pre)`. Of ReLU and tanh, backward needs the result, of GELU what was before it.
fn activated(pre: Tensor, activation: Activation, save_pre: bool) -> Result<Linear> {
    let (y, saved) = match activation {
        Activation::None => (pre, None),
        Activation::GeluErf => (unary("gelu_erf", &pre, GeluErf)?, Some(pre)),
        Activation::GeluTanh => (unary("gelu_tanh", &pre, GeluTanh)?, Some(pre)),
        Activation::Relu => (unary("relu", &pre, Relu)?, None),
        Activation::Tanh => (unary("tanh", &pre, Tanh)?, None),
    };
    Ok(Linear { y, pre_activation: saved.filter(|_| save_pre) })
}

/// The product of two batches of matrices, `[batch, M, K]` and `[batch, K, N]`, F32.
pub(crate) fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut c = Tensor::empty(&[a.dims()[0], a.dims()[1], b.dims()[2]], a.dtype(), a.device())?;
    simt("matmul", a, b, None, None, &mut c)?;
    Ok(c)
}

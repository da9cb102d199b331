//! The linear layer on a CUDA device: bias, activation and sums beside the matrix product where a kernel or cuBLASLt can.

use super::{Activation, Bias, Linear, LinearGradients, LinearNeeds};
use crate::cuda::gemm::{Order, order, simt};
use crate::cuda::{Beside, Context};
use crate::ops::elementwise::cuda::unary;
use crate::ops::elementwise::{Relu, Tanh};
use crate::ops::gelu::{GeluErf, GeluTanh};
use crate::ops::reduce::cuda::{add_partials, column_sums};
use crate::{DType, Result, Tensor};
use std::sync::Arc;
use vitrine_kernels::Launcher as _;
use vitrine_kernels::gelu::{BiasGeluErfForward, BiasGeluTanhForward, BiasReluForward, BiasTanhForward};
use vitrine_kernels::gemm::{
    self, BackwardShape, GemmBackward, GemmNt, GemmNtGeluErf, GemmNtGeluTanh, Shape as GemmShape,
};

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
pub(super) fn backward(
    context: &Arc<Context>,
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
    backward_by_library(context, &operands, &mut wanted)?;
    backward_on_tensor_cores(context, &operands, &mut wanted)?;
    if let Some(dx) = wanted.dx {
        simt(context, OP, dy, weight, None, operands.so_far, dx)?;
    }
    if let Some(dweight) = wanted.dweight {
        simt(context, OP, &dy.t()?, x, None, None, dweight)?;
    }
    if let Some(dbias) = wanted.dbias {
        column_sums(context, OP, dy, dbias)?;
    }
    Ok(gradients)
}

/// What cuBLASLt can.
fn backward_by_library(
    context: &Arc<Context>,
    &Backward { dy, weight, x, so_far }: &Backward<'_>,
    wanted: &mut Wanted<'_>,
) -> Result<()> {
    let Some(library) = &context.cublaslt else { return Ok(()) };
    if let Some(dx) = &mut wanted.dx {
        let beside = so_far.map_or(Beside::Nothing, Beside::SoFar);
        if library.product(context, dy, weight, beside, dx).is_some() {
            wanted.dx = None;
        }
    }
    if let Some(dweight) = &mut wanted.dweight {
        let beside = wanted.dbias.as_deref().map_or(Beside::Nothing, Beside::RowSums);
        if library.product(context, &dy.t()?, x, beside, dweight).is_some() {
            (wanted.dweight, wanted.dbias) = (None, None);
        }
    }
    Ok(())
}

/// dx and dweight in one launch, and dbias beside dweight, if tensor cores can read the operands.
fn backward_on_tensor_cores(
    context: &Arc<Context>,
    &Backward { dy, weight, x, so_far }: &Backward<'_>,
    wanted: &mut Wanted<'_>,
) -> Result<()> {
    let orders = [dy, weight, x].map(order);
    let (DType::BF16, [Order::Rows(dy_stride), Order::Rows(weight_stride), Order::Rows(x_stride)]) =
        (dy.dtype(), orders)
    else {
        return Ok(());
    };
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
            add_partials(context, &parts, dweight, dbias)
        }
        dweight => run(dweight, dbias),
    }
}

/// `act(x W^T + b)` for x `[rows, K]`, W `[N, K]` and b `[N]` F32; with the pre-activation if it is asked for.
pub(super) fn forward(
    context: &Arc<Context>,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<Bias<'_>>,
    activation: Activation,
    save_pre: bool,
) -> Result<Linear> {
    const OP: &str = "linear";
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
        if library.product(context, x, &weight.t()?, beside, &mut product).is_some() {
            if !fused {
                return Ok(Linear { y: product, pre_activation: None });
            }
            return activated_with_bias(context, activation, product, bias.map(|bias| bias.value), save_pre);
        }
    }
    let bias = bias.map(|bias| bias.value);
    if let (DType::BF16, Order::Rows(lda), Order::Rows(ldb)) = (x.dtype(), order(x), order(weight)) {
        let [m, n, k, lda, ldb] = [rows, n, x.dims()[1], lda, ldb].map(|x| x as u32);
        let shape = GemmShape { m, n, k, lda, ldb };
        let mut y = empty()?;
        if !matches!(activation, Activation::GeluErf | Activation::GeluTanh) {
            context.launch(GemmNt { x, weight, bias, y: &mut y, shape })?;
            return activated(context, y, activation, save_pre);
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
    simt(context, OP, x, &weight.t()?, bias, None, &mut pre)?;
    activated(context, pre, activation, save_pre)
}

/// `act(product + bias)`; the sum, in the product's place, is kept if backward will need it.
fn activated_with_bias(
    context: &Arc<Context>,
    activation: Activation,
    mut product: Tensor,
    bias: Option<&Tensor>,
    save_pre: bool,
) -> Result<Linear> {
    context.computes("linear", &product)?;
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
fn activated(context: &Arc<Context>, pre: Tensor, activation: Activation, save_pre: bool) -> Result<Linear> {
    let (y, saved) = match activation {
        Activation::None => (pre, None),
        Activation::GeluErf => (unary(context, "gelu_erf", &pre, GeluErf)?, Some(pre)),
        Activation::GeluTanh => (unary(context, "gelu_tanh", &pre, GeluTanh)?, Some(pre)),
        Activation::Relu => (unary(context, "relu", &pre, Relu)?, None),
        Activation::Tanh => (unary(context, "tanh", &pre, Tanh)?, None),
    };
    Ok(Linear { y, pre_activation: saved.filter(|_| save_pre) })
}

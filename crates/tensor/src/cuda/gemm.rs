//! Matrix products: cuBLASLt where it is installed, else our own kernels: tensor cores for bfloat16 whose rows are aligned,
//! plain FMAs for everything else.

use super::cublaslt::Beside;
use super::elementwise::{add_partials, column_sums, unary};
use super::launch::{Grid, context_of, kernel, launch, single};
use super::memory::Block;
use crate::ops::linear::{Activation, Linear};
use crate::{DType, Error, Result, Tensor};
use vitrine_kernels::{GELU, GEMM, GEMM_SIMT, GemmShape, GemmSimt, Kernel};

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

fn shape([m, n, k]: [usize; 3], lda: usize, ldb: usize) -> GemmShape {
    let [m, n, k, lda, ldb] = [m, n, k, lda, ldb].map(|x| x as u32);
    GemmShape { m, n, k, lda, ldb, ldc: n, accumulate: 0, reserved: 0 }
}

fn blocks([m, n, _]: [usize; 3], splits: usize) -> Grid {
    Grid { blocks: [n.div_ceil(128), m.div_ceil(128), splits], threads: 256, shared: 0 }
}

/// The plain kernel for these operands and results.
fn simt_kernel(op: &'static str, x: &Tensor, out: DType) -> Result<&'static Kernel> {
    Ok(match (x.dtype(), out) {
        (DType::F32, DType::F32) => single(&GEMM_SIMT, "gemm_simt_f32"),
        (DType::BF16, DType::BF16) => single(&GEMM_SIMT, "gemm_simt_bf16"),
        (DType::BF16, DType::F32) => single(&GEMM_SIMT, "gemm_simt_bf16_f32"),
        _ => return Err(Error::NotSupported { op, device: x.device(), dtype: x.dtype() }),
    })
}

/// `c = a b (+ bias)` for matrices of any strides, or batches of them; c is contiguous.
fn simt(op: &'static str, a: &Tensor, b: &Tensor, bias: Option<&Tensor>, c: &mut Tensor) -> Result<()> {
    let context = context_of(a)?;
    let kernel = simt_kernel(op, a, c.dtype())?;
    let strides = |x: &Tensor| {
        let strides = x.strides();
        let batch = if x.rank() == 3 { strides[0] as u64 } else { 0 };
        (strides[x.rank() - 2] as u64, strides[x.rank() - 1] as u64, batch)
    };
    let ((a_row, a_column, a_batch), (b_row, b_column, b_batch)) = (strides(a), strides(b));
    let (m, k, n) = (a.dims()[a.rank() - 2], a.dims()[a.rank() - 1], b.dims()[b.rank() - 1]);
    let gemm = GemmSimt {
        a_row,
        a_column,
        a_batch,
        b_row,
        b_column,
        b_batch,
        m: m as u32,
        n: n as u32,
        k: k as u32,
        accumulate: 0,
    };
    let batch = if a.rank() == 3 { a.dims()[0] } else { 1 };
    let grid = Grid { blocks: [n.div_ceil(64), m.div_ceil(64), batch], threads: 256, shared: 0 };
    launch!(context, GEMM_SIMT, kernel, grid, a, b, bias, c, gemm)
}

/// `a b` of two matrices of one dtype, with sums in F32, as a tensor of dtype `out`.
pub(crate) fn product(op: &'static str, a: &Tensor, b: &Tensor, out: DType) -> Result<Tensor> {
    let context = context_of(a)?;
    let sizes @ [m, n, k] = [a.dims()[0], b.dims()[1], a.dims()[1]];
    let mut c = Tensor::empty(&[m, n], out, a.device())?;
    if k == 0 {
        c.zero_()?;
        return Ok(c);
    }
    if let Some(library) = &context.cublaslt
        && library.product(&context, a, b, Beside::Nothing, &mut c).is_some()
    {
        return Ok(c);
    }
    match (a.dtype(), out, order(a), order(b)) {
        (DType::BF16, DType::BF16, Order::Rows(lda), Order::Rows(ldb)) => {
            let kernel = single(&GEMM, "gemm_nn_bf16");
            launch!(context, GEMM, kernel, blocks(sizes, 1), a, b, &mut c, shape(sizes, lda, ldb))?;
        }
        (DType::BF16, DType::F32, Order::Columns(lda), Order::Rows(ldb)) => {
            let kernel = single(&GEMM, "gemm_tn_bf16_f32");
            // A weight's gradient has few blocks and a long sum: the sum is split until all multiprocessors have work.
            let tiles = m.div_ceil(128) * n.div_ceil(128);
            let splits = (2 * context.multiprocessors / tiles.max(1)).clamp(1, k.div_ceil(256));
            let shape = shape(sizes, lda, ldb);
            if splits == 1 {
                launch!(context, GEMM, kernel, blocks(sizes, 1), a, b, &mut c, shape)?;
            } else {
                let partials = Block::new(&context, 4 * splits * m * n)?;
                launch!(context, GEMM, kernel, blocks(sizes, splits), a, b, &partials, shape)?;
                add_partials((&partials).into(), &mut c, splits)?;
            }
        }
        _ => simt(op, a, b, None, &mut c)?,
    }
    Ok(c)
}

/// The gradients of a weight, `dy^T x`, and of a bias, the sums of the columns of dy, both F32.
pub(crate) fn parameter_gradients(dy: &Tensor, x: &Tensor) -> Result<(Tensor, Tensor)> {
    const OP: &str = "linear_backward";
    let context = context_of(dy)?;
    let transposed = dy.t()?;
    if let Some(library) = &context.cublaslt {
        let (n, k) = (dy.dims()[1], x.dims()[1]);
        let mut dweight = Tensor::empty(&[n, k], DType::F32, dy.device())?;
        let dbias = Tensor::empty(&[n], DType::F32, dy.device())?;
        if library.product(&context, &transposed, x, Beside::RowSums(&dbias), &mut dweight).is_some() {
            return Ok((dweight, dbias));
        }
    }
    Ok((product(OP, &transposed, x, DType::F32)?, column_sums(OP, dy)?))
}

/// `act(x W^T + b)` for x `[rows, K]`, W `[N, K]` and b `[N]` F32; with the pre-activation if it is asked for.
pub(crate) fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
    save_pre: bool,
) -> Result<Linear> {
    const OP: &str = "linear";
    let context = context_of(x)?;
    let sizes @ [rows, n, _] = [x.dims()[0], weight.dims()[0], x.dims()[1]];
    let empty = || Tensor::empty(&[rows, n], x.dtype(), x.device());
    if let Some(library) = &context.cublaslt {
        let mut product = empty()?;
        // The library adds a bias of the result's dtype; with an activation the bias goes to the activation's kernel, in F32.
        let fused = biased_activation(activation);
        let rounded = bias.filter(|_| fused.is_none()).map(|bias| bias.to_dtype(x.dtype())).transpose()?;
        let beside = rounded.as_ref().map_or(Beside::Nothing, Beside::Bias);
        if library.product(&context, x, &weight.t()?, beside, &mut product).is_some() {
            return match fused {
                None => Ok(Linear { y: product, pre_activation: None }),
                Some(name) => activated_with_bias(name, product, bias, save_pre),
            };
        }
    }
    let gelu = match activation {
        Activation::GeluErf => Some(("gelu_erf", "gemm_nt_gelu_erf_bf16")),
        Activation::GeluTanh => Some(("gelu_tanh", "gemm_nt_gelu_tanh_bf16")),
        _ => None,
    };
    if let (DType::BF16, Order::Rows(lda), Order::Rows(ldb)) = (x.dtype(), order(x), order(weight)) {
        let (grid, shape) = (blocks(sizes, 1), shape(sizes, lda, ldb));
        let mut y = empty()?;
        if let Some((_, fused)) = gelu {
            let pre = save_pre.then(empty).transpose()?;
            launch!(context, GEMM, single(&GEMM, fused), grid, x, weight, bias, pre.as_ref(), &mut y, shape)?;
            return Ok(Linear { y, pre_activation: pre });
        }
        launch!(context, GEMM, single(&GEMM, "gemm_nt_bf16"), grid, x, weight, bias, &mut y, shape)?;
        return activated(y, activation);
    }
    let mut pre = empty()?;
    simt(OP, x, &weight.t()?, bias, &mut pre)?;
    match gelu {
        Some((op, _)) => Ok(Linear { y: unary(op, &pre)?, pre_activation: save_pre.then_some(pre) }),
        None => activated(pre, activation),
    }
}

/// The kernel that adds a bias and applies an activation.
fn biased_activation(activation: Activation) -> Option<&'static str> {
    match activation {
        Activation::None => None,
        Activation::GeluErf => Some("bias_gelu_erf_forward"),
        Activation::GeluTanh => Some("bias_gelu_tanh_forward"),
        Activation::Relu => Some("bias_relu_forward"),
        Activation::Tanh => Some("bias_tanh_forward"),
    }
}

/// `act(product + bias)`, with the sum in the product's place if it is to be kept.
fn activated_with_bias(
    name: &'static str,
    product: Tensor,
    bias: Option<&Tensor>,
    save_pre: bool,
) -> Result<Linear> {
    let context = context_of(&product)?;
    let kernel = kernel("linear", &GELU, name, &product)?;
    let (rows, width) = (product.dims()[0], product.dims()[1]);
    let zeros = Tensor::zeros(&[if bias.is_some() { 0 } else { width }], DType::F32, product.device())?;
    let mut y = Tensor::empty(product.dims(), product.dtype(), product.device())?;
    let pre = save_pre.then_some(&product);
    let grid = Grid::new(rows, width.div_ceil(2048), 256);
    launch!(context, GELU, kernel, grid, &product, bias.unwrap_or(&zeros), pre, &mut y, width as u32)?;
    Ok(Linear { y, pre_activation: save_pre.then_some(product) })
}

fn activated(pre: Tensor, activation: Activation) -> Result<Linear> {
    let y = match activation {
        Activation::Relu => unary("relu", &pre)?,
        Activation::Tanh => unary("tanh", &pre)?,
        _ => pre,
    };
    Ok(Linear { y, pre_activation: None })
}

/// The product of two batches of matrices, `[batch, M, K]` and `[batch, K, N]`, F32.
pub(crate) fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut c = Tensor::empty(&[a.dims()[0], a.dims()[1], b.dims()[2]], a.dtype(), a.device())?;
    if a.dims()[2] == 0 {
        c.zero_()?;
        return Ok(c);
    }
    simt("matmul", a, b, None, &mut c)?;
    Ok(c)
}

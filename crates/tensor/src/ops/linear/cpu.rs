//! The linear layer on the CPU: in F32 and bfloat16 bias and activation are applied while a block of y is in the cache.

use super::{Activation, Linear, LinearGradients, LinearNeeds, as_matrix};
use crate::cpu::gemm::{Epilogue, MatrixMut, MatrixRef, PackedB, PackedPairs, Rhs, gemm, gemm_bf16};
use crate::cpu::isa::{Available, Isa};
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::ops::elementwise::{Relu, Tanh, Unary, add, relu, tanh};
use crate::ops::gelu::{GeluErf, GeluTanh, gelu_erf, gelu_tanh};
use crate::ops::matmul::cpu::matrix;
use crate::ops::matmul::matmul;
use crate::ops::reduce::cpu::sum_rows;
use crate::{DType, Error, Float, Result, Tensor};
use half::bf16;

/// A bfloat16 product writes results from this size on past the caches, in bytes, where it is AMX that multiplies: memory is what
/// holds AMX up, and an ordinary store reads the line first. Measured: docs/lab/2026-11-28-amx-kernel.md.
const STREAMED_BYTES: usize = 8 << 20;

/// In inference, products of at most this many rows keep and use the weight's packed form: it makes one row 6 times as
/// fast and 128 rows 1.2 times, while with many rows packing costs nothing beside the product, and the memory is saved.
const CACHED_ROWS: usize = 256;

pub(super) fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
    save: bool,
    dims: &[usize],
) -> Result<Linear> {
    let compute = x.dtype().accumulator();
    match x.dtype() {
        DType::F32 => linear_fused::<f32>(x, weight, bias, activation, save, dims),
        DType::F64 => linear_f64(x, weight, bias, activation, save, dims),
        DType::BF16 => linear_fused::<bf16>(x, weight, bias, activation, save, dims),
        DType::F16 => {
            let (x32, weight32) = (x.to_dtype(compute)?, weight.to_dtype(compute)?);
            let Linear { y, pre_activation } =
                linear_fused::<f32>(&x32, &weight32, bias, activation, save, dims)?;
            let pre_activation = pre_activation.map(|pre| pre.to_dtype(x.dtype())).transpose()?;
            Ok(Linear { y: y.to_dtype(x.dtype())?, pre_activation })
        }
        got => Err(Error::DTypeMismatch { op: "linear", expected: "a float type".into(), got }),
    }
}

/// The gradients for dpre `[T, N]`, x `[T, K]` and weight `[N, K]` of the dtype of the products.
pub(super) fn backward(
    dpre: &Tensor,
    x: Option<&Tensor>,
    weight: Option<&Tensor>,
    needs: LinearNeeds,
    so_far: Option<&Tensor>,
) -> Result<LinearGradients> {
    let dx = match (needs.x, weight) {
        (Some(dtype), Some(weight)) => Some(add_product(dpre, weight, so_far, dtype)?),
        _ => None,
    };
    let dweight = match x.filter(|_| needs.weight) {
        Some(x) => Some(add_product(&dpre.t()?, x, None, dpre.dtype().accumulator())?),
        None => None,
    };
    let dbias = needs.bias.then(|| column_sums(dpre)).transpose()?;
    Ok(LinearGradients { dx, dweight, dbias })
}

/// `so_far + a b` for matrices, with sums in the accumulator's type, as a tensor of dtype `out`, which is that of `so_far`.
fn add_product(a: &Tensor, b: &Tensor, so_far: Option<&Tensor>, out: DType) -> Result<Tensor> {
    if a.dtype() != DType::BF16 {
        let product = matmul(a, b)?.to_dtype(out)?;
        return so_far.map_or(Ok(product.clone()), |so_far| add(so_far, &product));
    }
    let packed = PackedPairs::new(matrix(b, 0));
    match out {
        DType::F32 => add_product_bf16::<f32>(a, &packed, so_far),
        _ => add_product_bf16::<bf16>(a, &packed, so_far),
    }
}

fn add_product_bf16<E: Float<Real = f32>>(
    a: &Tensor,
    b: &PackedPairs,
    so_far: Option<&Tensor>,
) -> Result<Tensor> {
    let (rows, columns) = (a.dims()[0], b.columns());
    let mut c = Tensor::empty(&[rows, columns], E::DTYPE, a.device())?;
    let out = MatrixMut::new(c.as_mut_slice::<E>()?, rows, columns);
    let so_far = so_far.map(|so_far| so_far.as_rows::<E>("linear_backward")).transpose()?;
    let isa = Isa::current();
    let add_row = so_far.map(|so_far| {
        move |row: usize, first: usize, sums: &mut [f32]| {
            let x = &so_far.row(row)[first..first + sums.len()];
            simd::run(isa, AddRow { sums, x });
        }
    });
    multiply_bf16(matrix(a, 0), b, &out, add_row.as_ref().map(|add| add as Epilogue<'_>));
    Ok(c)
}

/// `sums += x`.
struct AddRow<'a, E> {
    sums: &'a mut [f32],
    x: &'a [E],
}

impl<E: Float<Real = f32>> Kernel<f32> for AddRow<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = f32>>(self) {
        simd::update(self.sums, self.x, |sum: L, x| sum + x);
    }
}

/// The sums of the columns of a matrix, in the accumulator's type: the gradient of a bias.
fn column_sums(x: &Tensor) -> Result<Tensor> {
    const OP: &str = "linear_backward";
    let dtype = x.dtype();
    let mut sums = Tensor::empty(&x.dims()[1..], dtype.accumulator(), x.device())?;
    match dtype {
        DType::F64 => sum_rows(x.as_rows::<f64>(OP)?, sums.as_mut_slice()?),
        DType::BF16 => sum_rows(x.as_rows::<bf16>(OP)?, sums.as_mut_slice()?),
        _ => sum_rows(x.as_rows::<f32>(OP)?, sums.as_mut_slice()?),
    }
    Ok(sums)
}

/// The reference: a product, an addition, a function.
fn linear_f64(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
    save: bool,
    dims: &[usize],
) -> Result<Linear> {
    let rows = dims[..dims.len() - 1].iter().product();
    let product = matmul(&as_matrix(x, rows, weight.dims()[1])?, &weight.t()?)?.reshape(dims)?;
    let pre = bias.map_or(Ok(product.clone()), |bias| add(&product, bias))?;
    let y = match activation {
        Activation::None => pre.clone(),
        Activation::GeluErf => gelu_erf(&pre)?,
        Activation::GeluTanh => gelu_tanh(&pre)?,
        Activation::Relu => relu(&pre)?,
        Activation::Tanh => tanh(&pre)?,
    };
    Ok(Linear { y, pre_activation: (save && activation.needs_pre_activation()).then_some(pre) })
}

/// F32 and bfloat16: bias and activation are applied while a block of y is in the cache.
fn linear_fused<E: Operand>(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
    save: bool,
    dims: &[usize],
) -> Result<Linear> {
    let (n, k) = (weight.dims()[0], weight.dims()[1]);
    let mut y = Tensor::empty(dims, E::DTYPE, x.device())?;
    let save_pre = save && activation.needs_pre_activation();
    let mut pre = save_pre.then(|| Tensor::empty(dims, E::DTYPE, x.device())).transpose()?;
    let x = x.as_rows::<E>("linear")?;
    let rows = y.numel().checked_div(n).unwrap_or(0);
    let a = if x.data.is_empty() {
        MatrixRef::new(&[], rows, k)
    } else {
        MatrixRef::with_strides(x.data, rows, k, x.stride, 1)
    };
    let zeros;
    let bias = match bias {
        Some(bias) => Some(bias.as_slice::<f32>()?),
        None if activation == Activation::None => None,
        None => {
            zeros = vec![0.0; n];
            Some(&zeros[..])
        }
    };
    let pre_matrix = match &mut pre {
        Some(pre) => Some(MatrixMut::new(pre.as_mut_slice::<E>()?, rows, n)),
        None => None,
    };
    let isa = Isa::current();
    // Only the bfloat16 product ends what it streams with a fence.
    let streams = E::DTYPE == DType::BF16 && streams::<E>(isa, rows * n);
    let finish = |row: usize, first: usize, sums: &mut [f32]| {
        let columns = first..first + sums.len();
        // SAFETY: the product calls this once for every element of its output, which has the shape of `pre_matrix`; so
        // the range is inside of it and no other call has it.
        let pre = pre_matrix.as_ref().map(|pre| unsafe { pre.segment(row, columns.clone()) });
        if let Some(bias) = bias {
            simd::run(isa, Finish { sums, bias: &bias[columns], pre, streams, activation });
        }
    };
    let out = MatrixMut::new(y.as_mut_slice::<E>()?, rows, n);
    E::times_transposed(a, weight, save, out, bias.is_some().then_some(&finish));
    Ok(Linear { y, pre_activation: pre })
}

/// A dtype with a matrix product of its own.
trait Operand: Float<Real = f32> {
    /// `y = epilogue(x W^T)`, where the epilogue sees the sums in f32. `training` says that the weight is about to change.
    fn times_transposed(
        x: MatrixRef<'_, Self>,
        weight: &Tensor,
        training: bool,
        y: MatrixMut<'_, Self>,
        epilogue: Option<Epilogue<'_>>,
    );
}

impl Operand for f32 {
    fn times_transposed(
        x: MatrixRef<'_>,
        weight: &Tensor,
        training: bool,
        y: MatrixMut<'_>,
        epilogue: Option<Epilogue<'_>>,
    ) {
        let matrix = matrix::<f32>(weight, 0).transposed();
        let w = if training || x.rows() > CACHED_ROWS || !weight.covers_storage() {
            Rhs::Matrix(matrix)
        } else {
            let packed = weight.storage().packed().reals.get_or_init(|| PackedB::new(matrix));
            // Packed under another shape, or for a forced instruction set: of no use here.
            let fits = packed.rows() == matrix.rows()
                && packed.columns() == matrix.columns()
                && packed.isa() == Isa::current().vectors();
            if fits { Rhs::Packed(packed) } else { Rhs::Matrix(matrix) }
        };
        gemm(x, w, y, false, epilogue);
    }
}

impl Operand for bf16 {
    fn times_transposed(
        x: MatrixRef<'_, bf16>,
        weight: &Tensor,
        training: bool,
        y: MatrixMut<'_, bf16>,
        epilogue: Option<Epilogue<'_>>,
    ) {
        let matrix = matrix::<bf16>(weight, 0).transposed();
        let pack = || PackedPairs::new(matrix);
        let place = weight.covers_storage().then(|| &weight.storage().packed().pairs);
        let kept = place
            .and_then(|place| if training { place.get() } else { Some(place.get_or_init(pack)) })
            .filter(|packed| packed.rows() == matrix.rows() && packed.columns() == matrix.columns());
        let fresh;
        let w = match kept {
            Some(kept) => kept,
            None => {
                fresh = pack();
                &fresh
            }
        };
        multiply_bf16(x, w, &y, epilogue);
    }
}

/// Whether a bfloat16 product writes a result of so many elements past the caches.
fn streams<E: Float>(isa: Available, elements: usize) -> bool {
    isa.isa() == Isa::Amx && elements * size_of::<E>() >= STREAMED_BYTES
}

/// `c = epilogue(a b)`, rounded to the type of c after the epilogue.
fn multiply_bf16<E: Float<Real = f32>>(
    a: MatrixRef<'_, bf16>,
    b: &PackedPairs,
    c: &MatrixMut<'_, E>,
    epilogue: Option<Epilogue<'_>>,
) {
    let isa = Isa::current();
    let streams = streams::<E>(isa, a.rows() * b.columns());
    gemm_bf16(a, b, &|row, first, sums| {
        if let Some(epilogue) = epilogue {
            epilogue(row, first, sums);
        }
        // SAFETY: the product calls this once for every element of its output, which has the shape of `c`; so the range is
        // inside of it and no other call has it.
        let out = unsafe { c.segment(row, first..first + sums.len()) };
        simd::run(isa, Store { sums, out, streams });
    });
}

/// `out = sums`, rounded.
struct Store<'a, E> {
    sums: &'a [f32],
    out: &'a mut [E],
    /// Whether past the caches.
    streams: bool,
}

impl<E: Float<Real = f32>> Kernel<f32> for Store<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = f32>>(self) {
        if self.streams {
            simd::stream::<L, E>(self.sums, self.out);
        } else {
            simd::map(self.sums, self.out, |sum: L| sum);
        }
    }
}

/// `pre = sums + bias`, `sums = act(pre)` for a segment of a row.
struct Finish<'a, E> {
    sums: &'a mut [f32],
    bias: &'a [f32],
    pre: Option<&'a mut [E]>,
    /// Whether `pre` is written past the caches.
    streams: bool,
    activation: Activation,
}

impl<E: Float<Real = f32>> Finish<'_, E> {
    #[inline(always)]
    fn apply<L: Lanes<Real = f32>>(self, f: impl Unary) {
        match self.pre {
            // Of the value that would be saved: inference is what training computes.
            None => {
                simd::update(self.sums, self.bias, |sum: L, bias| f.apply(simd::rounded::<L, E>(sum + bias)));
            }
            Some(pre) if self.streams => {
                simd::update(self.sums, self.bias, |sum: L, bias| sum + bias);
                simd::stream::<L, E>(self.sums, pre);
                simd::map_in_place(self.sums, |pre: L| f.apply(simd::rounded::<L, E>(pre)));
            }
            Some(pre) => {
                simd::map2(self.sums, self.bias, pre, |sum: L, bias| sum + bias);
                // Of the value that is saved: backward differentiates the very function that was computed.
                simd::map(pre, self.sums, |pre: L| f.apply(pre));
            }
        }
    }
}

impl<E: Float<Real = f32>> Kernel<f32> for Finish<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = f32>>(self) {
        match self.activation {
            Activation::None => simd::update(self.sums, self.bias, |sum: L, bias| sum + bias),
            Activation::GeluErf => self.apply::<L>(GeluErf),
            Activation::GeluTanh => self.apply::<L>(GeluTanh),
            Activation::Relu => self.apply::<L>(Relu),
            Activation::Tanh => self.apply::<L>(Tanh),
        }
    }
}

//! The fully connected layer `y = act(x W^T + b)` and its gradients: where nearly all of BERT's arithmetic is.
//!
//! Shapes: x `[.., K]`, W `[N, K]` (PyTorch's `nn.Linear`), b `[N]`, y `[.., N]`. With `dpre = dy act'(pre)`:
//! `dx = dpre W`, `dW = dpre^T x`, `db` = the sum of the rows of dpre.
//!
//! In F32 and bfloat16 the bias and the activation are applied by the matrix product while its block of y is in the cache.
//! F64 runs the plain loops. binary16 is converted to F32 around the same product, and results rounded once.

use super::check;
use super::elementwise::{Relu, Tanh, Unary, add, relu, relu_backward, tanh, tanh_backward};
use super::gelu::{GeluErf, GeluTanh, gelu_erf, gelu_erf_backward, gelu_tanh, gelu_tanh_backward};
use super::matmul::{matmul, matrix};
use super::reduce::{sum, sum_rows};
use crate::cpu::gemm::{Epilogue, MatrixMut, MatrixRef, PackedB, PackedPairs, Rhs, gemm, gemm_bf16};
use crate::cpu::isa::Isa;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::{DType, Device, Error, Float, Result, Tensor, cuda};
use half::bf16;

/// In inference, products of at most this many rows keep and use the weight's packed form: it makes one row 6 times as
/// fast and 128 rows 1.2 times, while with many rows packing costs nothing beside the product, and the memory is saved.
const CACHED_ROWS: usize = 256;

/// The function after the matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// The identity.
    None,
    /// See [`gelu_erf`].
    GeluErf,
    /// See [`gelu_tanh`].
    GeluTanh,
    /// See [`relu`].
    Relu,
    /// See [`tanh`].
    Tanh,
}

impl Activation {
    /// Whether the derivative is a function of `x W^T + b`; else it is one of `y`.
    pub fn needs_pre_activation(self) -> bool {
        matches!(self, Activation::GeluErf | Activation::GeluTanh)
    }
}

/// What [`linear`] computes.
pub struct Linear {
    /// `act(x W^T + b)`, `[.., N]`.
    pub y: Tensor,
    /// `x W^T + b`, `[.., N]`: kept only if asked for and if [`Activation::needs_pre_activation`].
    pub pre_activation: Option<Tensor>,
}

/// Which gradients [`linear_backward`] computes.
#[derive(Clone, Copy, Debug)]
pub struct LinearNeeds {
    /// `dx`, of this dtype: that of x, or the accumulator's where x was rounded for the product.
    pub x: Option<DType>,
    /// `dweight`.
    pub weight: bool,
    /// `dbias`.
    pub bias: bool,
}

/// What [`linear_backward`] computes.
pub struct LinearGradients {
    /// `[.., K]`, of the dtype that was asked for.
    pub dx: Option<Tensor>,
    /// `[N, K]`, F32 (F64 in the reference).
    pub dweight: Option<Tensor>,
    /// `[N]`, F32 (F64 in the reference).
    pub dbias: Option<Tensor>,
}

/// What a layer adds to each row of its product.
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a> {
    /// `[N]`, of the dtype of x, or F32 beside the half types.
    pub value: &'a Tensor,
    /// The same rounded to the dtype of x, from somebody who keeps it: cuBLASLt adds no other, and would have it rounded anew.
    pub rounded: Option<&'a Tensor>,
}

impl<'a> From<&'a Tensor> for Bias<'a> {
    fn from(value: &'a Tensor) -> Self {
        Bias { value, rounded: None }
    }
}

/// `y = act(x W^T + b)` for x `[.., K]`, weight `[N, K]` and bias `[N]`; x may have row strides, the weight any. `save`
/// asks for what the gradient needs; without it the layer is taken to be used again as it is, and may keep its weight's
/// packed form.
///
/// # Errors
/// `ShapeMismatch`, `DTypeMismatch`, `DeviceMismatch`, `NotContiguous` when the operands do not fit.
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<Bias<'_>>,
    activation: Activation,
    save: bool,
) -> Result<Linear> {
    let (rows, [n, k]) = check_operands("linear", x, weight)?;
    let rounded = bias.and_then(|bias| bias.rounded).filter(|rounded| rounded.dtype() == x.dtype());
    let mut biases = bias.iter().map(|bias| bias.value).chain(rounded);
    if let Some(bias) = biases.find(|bias| bias.dims() != [n]) {
        let expected = format!("bias [{n}] beside weight {:?}", weight.dims());
        return Err(Error::ShapeMismatch { op: "linear", expected, got: bias.dims().to_vec() });
    }
    let compute = x.dtype().accumulator();
    let bias = bias.map(|bias| bias.value.to_dtype(compute)?.contiguous()).transpose()?;
    let dims = with_last(x, n);
    if x.device() != Device::Cpu {
        let save_pre = save && activation.needs_pre_activation();
        let bias = bias.as_ref().map(|value| Bias { value, rounded });
        let out = cuda::linear(&as_matrix(x, rows, k)?, weight, bias, activation, save_pre)?;
        let pre_activation = out.pre_activation.map(|pre| pre.reshape(&dims)).transpose()?;
        return Ok(Linear { y: out.y.reshape(&dims)?, pre_activation });
    }
    match x.dtype() {
        DType::F32 => linear_fused::<f32>(x, weight, bias.as_ref(), activation, save, &dims),
        DType::F64 => linear_f64(x, weight, bias.as_ref(), activation, save, &dims),
        DType::BF16 => linear_fused::<bf16>(x, weight, bias.as_ref(), activation, save, &dims),
        DType::F16 => {
            let (x32, weight32) = (x.to_dtype(compute)?, weight.to_dtype(compute)?);
            let Linear { y, pre_activation } =
                linear_fused::<f32>(&x32, &weight32, bias.as_ref(), activation, save, &dims)?;
            let pre_activation = pre_activation.map(|pre| pre.to_dtype(x.dtype())).transpose()?;
            Ok(Linear { y: y.to_dtype(x.dtype())?, pre_activation })
        }
        got => Err(Error::DTypeMismatch { op: "linear", expected: "a float type".into(), got }),
    }
}

/// The gradients of [`linear`] that `needs` asks for, for dy `[.., N]` of y's dtype. Only dweight takes `x`, and only dx takes
/// `weight`. `saved` is the pre-activation for the GELUs, y for ReLU and tanh, and not used without activation.
/// `dx = so_far + ..`, where `so_far` is what other uses of x gave, of dx's shape and dtype.
///
/// # Errors
/// As [`linear`]; `InvalidArgument` when an operand or `saved` is missing.
pub fn linear_backward(
    dy: &Tensor,
    x: Option<&Tensor>,
    weight: Option<&Tensor>,
    activation: Activation,
    saved: Option<&Tensor>,
    needs: LinearNeeds,
    so_far: Option<&Tensor>,
) -> Result<LinearGradients> {
    const OP: &str = "linear_backward";
    let (dtype, device, n) = (dy.dtype(), dy.device(), dy.shape().last_dim());
    let rows = dy.dims()[..dy.rank().saturating_sub(1)].iter().product();
    // Products of bfloat16 read it as it is; what the others need is their accumulator's type.
    let compute = if dtype == DType::BF16 { DType::BF16 } else { dtype.accumulator() };
    let dpre = as_matrix(&activation_backward(&dy.to_dtype(compute)?, activation, saved)?, rows, n)?;
    for (name, operand, wanted) in [("x", x, needs.weight), ("weight", weight, needs.x.is_some())] {
        match operand {
            None if wanted => return Err(missing(name, "the operand of forward")),
            None => {}
            Some(operand) => check::same_type(OP, dy, operand)?,
        }
    }
    let k = x.or(weight).map_or(0, |operand| operand.shape().last_dim());
    let dims = with_last(dy, k);
    if let Some(weight) = weight {
        check::shape(OP, "weight [N, K]", weight, &[n, k])?;
    }
    if let Some(x) = x {
        check::shape(OP, "x", x, &dims)?;
    }
    if let Some(dx) = needs.x.filter(|&dx| dx != dtype && dx != dtype.accumulator()) {
        let expected = format!("dx of {dtype} or {}", dtype.accumulator());
        return Err(Error::DTypeMismatch { op: OP, expected, got: dx });
    }
    if let Some(so_far) = so_far {
        check::shape(OP, "so_far", so_far, &dims)?;
        check::dtype(OP, so_far, needs.x.unwrap_or(so_far.dtype()))?;
        check::device(OP, dy, so_far)?;
    }
    if needs.x.is_none() && !needs.weight {
        // No product: the bias's gradient, in the accumulator's type.
        let sums = || sum(&dpre.to_dtype(dtype.accumulator())?, 0, false);
        return Ok(LinearGradients { dx: None, dweight: None, dbias: needs.bias.then(sums).transpose()? });
    }
    let weight = weight.map(|weight| weight.to_dtype(compute)).transpose()?;
    let so_far = so_far.map(|so_far| as_matrix(so_far, rows, k)).transpose()?;
    if device != Device::Cpu {
        // An operand that no gradient takes has a place, which kernels do not read.
        let unread = |dims: &[usize]| Tensor::empty(dims, dtype, device);
        let x = x.map_or_else(|| unread(&[rows, k]), |x| as_matrix(x, rows, k))?;
        let weight = weight.map_or_else(|| unread(&[n, k]), Ok)?;
        let out = cuda::linear_backward(&dpre, &x, &weight, needs, so_far.as_ref())?;
        return Ok(LinearGradients { dx: out.dx.map(|dx| dx.reshape(&dims)).transpose()?, ..out });
    }
    let dx = match (needs.x, &weight) {
        (Some(dtype), Some(weight)) => {
            Some(add_product(&dpre, weight, so_far.as_ref(), dtype)?.reshape(&dims)?)
        }
        _ => None,
    };
    let dweight = match x.filter(|_| needs.weight) {
        Some(x) => {
            let x = as_matrix(&x.to_dtype(compute)?, rows, k)?;
            Some(add_product(&dpre.t()?, &x, None, compute.accumulator())?)
        }
        None => None,
    };
    let dbias = needs.bias.then(|| column_sums(&dpre)).transpose()?;
    Ok(LinearGradients { dx, dweight, dbias })
}

/// `InvalidArgument` for an operand that is not there.
fn missing(name: &'static str, expected: &'static str) -> Error {
    Error::InvalidArgument { op: "linear_backward", name, expected, got: "nothing".into() }
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

/// Checks x `[.., K]` and weight `[N, K]`; the number of rows of x, and `[N, K]`.
fn check_operands(op: &'static str, x: &Tensor, weight: &Tensor) -> Result<(usize, [usize; 2])> {
    check::same_type(op, x, weight)?;
    let &[n, k] = weight.dims() else {
        let expected = "a weight [N, K]".into();
        return Err(Error::ShapeMismatch { op, expected, got: weight.dims().to_vec() });
    };
    if x.dims().last() != Some(&k) {
        let expected = format!("[.., {k}] for weight [{n}, {k}]");
        return Err(Error::ShapeMismatch { op, expected, got: x.dims().to_vec() });
    }
    Ok((x.dims()[..x.rank() - 1].iter().product(), [n, k]))
}

/// The dimensions of `x` with another last one.
fn with_last(x: &Tensor, last: usize) -> Vec<usize> {
    let mut dims = x.dims().to_vec();
    dims.pop();
    dims.push(last);
    dims
}

/// `[.., width]` as `[rows, width]`; a matrix keeps its strides.
fn as_matrix(x: &Tensor, rows: usize, width: usize) -> Result<Tensor> {
    if x.rank() == 2 { Ok(x.clone()) } else { x.reshape(&[rows, width]) }
}

/// `dy act'(pre)`.
fn activation_backward(dy: &Tensor, activation: Activation, saved: Option<&Tensor>) -> Result<Tensor> {
    if activation == Activation::None {
        return Ok(dy.clone());
    }
    let saved = saved.ok_or_else(|| missing("saved", "the pre-activation (gelu) or y (relu, tanh)"))?;
    let saved = saved.to_dtype(dy.dtype())?;
    match activation {
        Activation::None => Ok(dy.clone()),
        Activation::GeluErf => gelu_erf_backward(dy, &saved),
        Activation::GeluTanh => gelu_tanh_backward(dy, &saved),
        Activation::Relu => relu_backward(dy, &saved),
        Activation::Tanh => tanh_backward(dy, &saved),
    }
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
    let finish = |row: usize, first: usize, sums: &mut [f32]| {
        let columns = first..first + sums.len();
        // SAFETY: the product calls this once for every element of its output, which has the shape of `pre_matrix`; so
        // the range is inside of it and no other call has it.
        let pre = pre_matrix.as_ref().map(|pre| unsafe { pre.segment(row, columns.clone()) });
        if let Some(bias) = bias {
            simd::run(isa, Finish { sums, bias: &bias[columns], pre, activation });
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

/// `c = epilogue(a b)`, rounded to the type of c after the epilogue.
fn multiply_bf16<E: Float<Real = f32>>(
    a: MatrixRef<'_, bf16>,
    b: &PackedPairs,
    c: &MatrixMut<'_, E>,
    epilogue: Option<Epilogue<'_>>,
) {
    let isa = Isa::current();
    gemm_bf16(a, b, &|row, first, sums| {
        if let Some(epilogue) = epilogue {
            epilogue(row, first, sums);
        }
        // SAFETY: the product calls this once for every element of its output, which has the shape of `c`; so the range is
        // inside of it and no other call has it.
        let out = unsafe { c.segment(row, first..first + sums.len()) };
        simd::run(isa, Store { sums, out });
    });
}

/// `out = sums`, rounded.
struct Store<'a, E> {
    sums: &'a [f32],
    out: &'a mut [E],
}

impl<E: Float<Real = f32>> Kernel<f32> for Store<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = f32>>(self) {
        simd::map(self.sums, self.out, |sum: L| sum);
    }
}

/// `pre = sums + bias`, `sums = act(pre)` for a segment of a row.
struct Finish<'a, E> {
    sums: &'a mut [f32],
    bias: &'a [f32],
    pre: Option<&'a mut [E]>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::{every_path, with_isa};

    #[test]
    fn a_packed_form_lives_as_long_as_its_weight_is_unchanged_on_every_path() {
        let numbers = |len: usize| (0..len).map(|i| (i * 37 % 19) as f32 - 9.0).collect::<Vec<_>>();
        let x = Tensor::from_slice(&numbers(3 * 20), &[3, 20]).unwrap();
        let mut w = Tensor::from_slice(&numbers(17 * 20), &[17, 20]).unwrap();
        let y = |w: &Tensor, save| {
            linear(&x, w, None, Activation::None, save).unwrap().y.to_vec::<f32>().unwrap()
        };
        let is_packed = |w: &Tensor| w.storage().packed().reals.get().is_some();

        // Small integers: every order of summation gives the same.
        let expected = y(&w, true);
        assert!(!is_packed(&w), "training packs nothing");
        let part = w.narrow(0, 0, 16).unwrap();
        y(&part, false);
        assert!(!is_packed(&w), "a part of a storage packs nothing");
        drop(part);
        assert_eq!(y(&w, false), expected);
        assert!(is_packed(&w));
        assert_eq!(y(&w, false), expected);
        for isa in every_path() {
            assert_eq!(with_isa(isa, || y(&w, false)), expected, "{isa}");
        }

        w.as_mut_slice::<f32>().unwrap().iter_mut().for_each(|w| *w *= 2.0);
        assert!(!is_packed(&w), "a changed weight has no packed form");
        let doubled: Vec<f32> = expected.iter().map(|y| y * 2.0).collect();
        assert_eq!(y(&w, false), doubled);

        // The same storage under another shape.
        let reshaped = w.reshape(&[34, 10]).unwrap();
        let narrow = x.narrow(1, 0, 10).unwrap();
        let z = |save| {
            linear(&narrow, &reshaped, None, Activation::None, save).unwrap().y.to_vec::<f32>().unwrap()
        };
        assert_eq!(z(false), z(true));
    }
}

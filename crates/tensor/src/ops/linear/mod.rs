//! The fully connected layer `y = act(x W^T + b)` and its gradients: where nearly all of BERT's arithmetic is.
//!
//! Shapes: x `[.., K]`, W `[N, K]` (PyTorch's `nn.Linear`), b `[N]`, y `[.., N]`. With `dpre = dy act'(pre)`:
//! `dx = dpre W`, `dW = dpre^T x`, `db` = the sum of the rows of dpre.
//!
//! In F32 and bfloat16 the bias and the activation are applied by the matrix product while its block of y is in the cache.
//! F64 runs the plain loops. binary16 is converted to F32 around the same product, and results rounded once.

mod cpu;
mod cuda;

use super::check;
use super::elementwise::{relu_backward, tanh_backward};
use super::gelu::{gelu_erf_backward, gelu_tanh_backward};
use super::reduce::sum;
use crate::cuda::Context;
use crate::{DType, Device, Error, Result, Tensor};

/// The function after the matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// The identity.
    None,
    /// See [`gelu_erf`](super::gelu::gelu_erf).
    GeluErf,
    /// See [`gelu_tanh`](super::gelu::gelu_tanh).
    GeluTanh,
    /// See [`relu`](super::elementwise::relu).
    Relu,
    /// See [`tanh`](super::elementwise::tanh).
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
    match x.device() {
        Device::Cpu => cpu::forward(x, weight, bias.as_ref(), activation, save, &dims),
        Device::Cuda(ordinal) => {
            let save_pre = save && activation.needs_pre_activation();
            let bias = bias.as_ref().map(|value| Bias { value, rounded });
            let x = as_matrix(x, rows, k)?;
            let out = cuda::forward(&Context::get(ordinal)?, &x, weight, bias, activation, save_pre)?;
            let pre_activation = out.pre_activation.map(|pre| pre.reshape(&dims)).transpose()?;
            Ok(Linear { y: out.y.reshape(&dims)?, pre_activation })
        }
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
    let x = x.map(|x| as_matrix(&x.to_dtype(compute)?, rows, k)).transpose()?;
    let out = match device {
        Device::Cpu => cpu::backward(&dpre, x.as_ref(), weight.as_ref(), needs, so_far.as_ref()),
        Device::Cuda(ordinal) => {
            // An operand that no gradient takes has a place, which kernels do not read.
            let unread = |dims: &[usize]| Tensor::empty(dims, compute, device);
            let x = x.map_or_else(|| unread(&[rows, k]), Ok)?;
            let weight = weight.map_or_else(|| unread(&[n, k]), Ok)?;
            cuda::backward(&Context::get(ordinal)?, &dpre, &x, &weight, needs, so_far.as_ref())
        }
    }?;
    Ok(LinearGradients { dx: out.dx.map(|dx| dx.reshape(&dims)).transpose()?, ..out })
}

/// `InvalidArgument` for an operand that is not there.
fn missing(name: &'static str, expected: &'static str) -> Error {
    Error::InvalidArgument { op: "linear_backward", name, expected, got: "nothing".into() }
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

    /// Results of this size are written past the caches where AMX multiplies, those of a half are not.
    #[test]
    fn a_large_result_has_the_bits_of_its_parts_on_every_path() {
        let (rows, wide, narrow) = (8_400, 512, 32);
        let numbers = |rows: usize, columns: usize| {
            let numbers: Vec<f32> =
                (0..rows * columns).map(|i| ((i * 37) % 199) as f32 / 64.0 - 1.5).collect();
            Tensor::from_slice(&numbers, &[rows, columns]).unwrap().to_dtype(DType::BF16).unwrap()
        };
        let bias = Tensor::from_slice(&vec![0.1_f32; wide], &[wide]).unwrap();
        let (x, up, down) = (numbers(rows, narrow), numbers(wide, narrow), numbers(narrow, wide));
        let bits = |x: &Tensor| {
            let x = x.to_dtype(DType::F32).unwrap().to_vec::<f32>().unwrap();
            x.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        // y and the pre-activation of one layer, and dx of another with x for dy.
        let results = |x: &Tensor| {
            let Linear { y, pre_activation } =
                linear(x, &up, Some((&bias).into()), Activation::GeluErf, true).unwrap();
            let needs = LinearNeeds { x: Some(DType::F32), weight: false, bias: false };
            let dx = linear_backward(x, None, Some(&down), Activation::None, None, needs, None).unwrap().dx;
            [y, pre_activation.unwrap(), dx.unwrap()].map(|tensor| bits(&tensor))
        };
        for isa in every_path() {
            with_isa(isa, || {
                let parts = [0, rows / 2].map(|first| results(&x.narrow(0, first, rows / 2).unwrap()));
                for (index, whole) in results(&x).into_iter().enumerate() {
                    assert!(
                        whole == [&parts[0][index][..], &parts[1][index]].concat(),
                        "{isa}: result {index}"
                    );
                }
            });
        }
    }
}

//! GELU, x times the probability that a standard normal variable is below x (Hendrycks and Gimpel,
//! <https://arxiv.org/abs/1606.08415>), in both forms that checkpoints name.
//!
//! - `gelu_erf`: x Phi(x) with Phi(x) = (1 + erf(x / sqrt 2)) / 2. Hugging Face's `"gelu"`.
//! - `gelu_tanh`: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2. Hugging Face's `"gelu_new"`, `"gelu_pytorch_tanh"`.
//!
//! The two differ by up to 5e-4: a checkpoint needs the form that it was trained with.

use super::elementwise::{Binary, Unary, binary, unary};
use crate::cpu::simd::Lanes;
use crate::cuda::Context;
use crate::{Result, Tensor};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
use vitrine_kernels::{Launcher as _, gelu as kernels};

/// sqrt(2 / pi).
const SQRT_2_OVER_PI: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
/// Of the cubic term of the tanh form.
const CUBIC: f64 = 0.044715;

/// See [`gelu_erf`].
#[derive(Clone, Copy)]
pub(crate) struct GeluErf;

impl Unary for GeluErf {
    #[inline(always)]
    fn apply<L: Lanes>(self, x: L) -> L {
        x * normal_cdf(x)
    }

    fn launch(self, context: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
        context.launch(kernels::GeluErfForward { x, n: y.numel() as u64, y })
    }
}

/// See [`gelu_erf_backward`].
#[derive(Clone, Copy)]
pub(crate) struct GeluErfBackward;

impl Binary for GeluErfBackward {
    #[inline(always)]
    fn apply<L: Lanes>(self, dy: L, x: L) -> L {
        let density = (x * x * L::constant(-0.5)).exp() * L::constant(0.5 * SQRT_2_OVER_PI);
        dy * x.mul_add(density, normal_cdf(x))
    }

    fn launch(self, context: &Context, dy: &Tensor, x: &Tensor, dx: &mut Tensor) -> Result<()> {
        context.launch(kernels::GeluErfBackward { a: dy, b: x, n: dx.numel() as u64, y: dx })
    }
}

/// Phi(x) = (1 + erf(x / sqrt 2)) / 2.
#[inline(always)]
fn normal_cdf<L: Lanes>(x: L) -> L {
    (x * L::constant(FRAC_1_SQRT_2)).erf().mul_add(L::constant(0.5), L::constant(0.5))
}

/// See [`gelu_tanh`].
#[derive(Clone, Copy)]
pub(crate) struct GeluTanh;

impl Unary for GeluTanh {
    #[inline(always)]
    fn apply<L: Lanes>(self, x: L) -> L {
        x * gate(x).0
    }

    fn launch(self, context: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
        context.launch(kernels::GeluTanhForward { x, n: y.numel() as u64, y })
    }
}

/// See [`gelu_tanh_backward`].
#[derive(Clone, Copy)]
pub(crate) struct GeluTanhBackward;

impl Binary for GeluTanhBackward {
    #[inline(always)]
    fn apply<L: Lanes>(self, dy: L, x: L) -> L {
        let (gate, slope) = gate(x);
        dy * x.mul_add(slope, gate)
    }

    fn launch(self, context: &Context, dy: &Tensor, x: &Tensor, dx: &mut Tensor) -> Result<()> {
        context.launch(kernels::GeluTanhBackward { a: dy, b: x, n: dx.numel() as u64, y: dx })
    }
}

/// (1 + tanh u) / 2 and its derivative by x. As (1 + tanh u) / 2 = 1 / (1 + e^-2u), neither loses digits where tanh is
/// near -1 or 1.
#[inline(always)]
fn gate<L: Lanes>(x: L) -> (L, L) {
    // Beyond |x| = 12 the gate is 0 or 1 and its slope 0, in f64 too; the bound keeps x^2 finite. NaN passes.
    let square = L::constant(144.0).min(x * x);
    let u = x * square.mul_add(L::constant(SQRT_2_OVER_PI * CUBIC), L::constant(SQRT_2_OVER_PI));
    let du = square.mul_add(L::constant(3.0 * SQRT_2_OVER_PI * CUBIC), L::constant(SQRT_2_OVER_PI));
    let one = L::constant(1.0);
    let e = (u.abs() * L::constant(-2.0)).exp();
    let larger = one / (one + e);
    let smaller = e * larger;
    (L::select(u.lt(L::constant(0.0)), smaller, larger), L::constant(2.0) * larger * smaller * du)
}

/// `y = x Phi(x)`, for a float tensor of any shape and layout. Computed in f32 for the half types.
///
/// # Errors
/// `DTypeMismatch` for integers; `NotSupported` off the CPU.
pub fn gelu_erf(x: &Tensor) -> Result<Tensor> {
    unary("gelu_erf", x, GeluErf)
}

/// `dx = dy (Phi(x) + x phi(x))`, with phi(x) = exp(-x^2 / 2) / sqrt(2 pi).
///
/// # Errors
/// `ShapeMismatch`, `DTypeMismatch`, `DeviceMismatch` unless `dy` and `x` agree.
pub fn gelu_erf_backward(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    binary("gelu_erf_backward", dy, x, GeluErfBackward)
}

/// `y = x (1 + tanh u) / 2` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`, for a float tensor of any shape and layout.
///
/// # Errors
/// As [`gelu_erf`].
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    unary("gelu_tanh", x, GeluTanh)
}

/// `dx = dy ((1 + tanh u) / 2 + x (1 - tanh^2 u) u' / 2)` with `u' = sqrt(2 / pi) (1 + 3 * 0.044715 x^2)`.
///
/// # Errors
/// As [`gelu_erf_backward`].
pub fn gelu_tanh_backward(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    binary("gelu_tanh_backward", dy, x, GeluTanhBackward)
}

//! Arithmetic element by element: `y = f(x)`, and `y = f(a, b)` with NumPy's broadcasting.
//!
//! A function of elements is a type with a method over [`Lanes`] and a kernel (`Unary`, `Binary`); the loops of `cpu` run any
//! of them on any dtype, layout and instruction set. Results have the operands' dtype and are contiguous. Where a gradient
//! needs more than these functions, it stands below its function: `d`-names are gradients of the loss.

mod cpu;
pub(super) mod cuda;

use super::check;
use crate::cpu::simd::Lanes;
use crate::cuda::Context;
use crate::{Device, Error, Result, Shape, Tensor};
use vitrine_kernels::{Launcher as _, elementwise as kernels, gelu};

/// A function of one real.
pub(crate) trait Unary: Copy + Send + Sync {
    /// The function, lane by lane.
    fn apply<L: Lanes>(self, x: L) -> L;

    /// The same by a kernel, on contiguous tensors of one shape.
    fn launch(self, context: &Context, x: &Tensor, y: &mut Tensor) -> Result<()>;
}

/// A function of two reals.
pub(crate) trait Binary: Copy + Send + Sync {
    /// The function, lane by lane.
    fn apply<L: Lanes>(self, a: L, b: L) -> L;

    /// The same by a kernel, on contiguous tensors of one shape.
    fn launch(self, context: &Context, a: &Tensor, b: &Tensor, y: &mut Tensor) -> Result<()>;
}

/// `y[i] = f(x[i])` for a float tensor of any layout.
pub(crate) fn unary(op: &'static str, x: &Tensor, f: impl Unary) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => cpu::unary(op, x, f),
        Device::Cuda(ordinal) => cuda::unary(&Context::get(ordinal)?, op, x, f),
    }
}

/// `y[i] = f(a[i], b[i])` for float tensors of one dtype whose shapes broadcast.
pub(crate) fn binary(op: &'static str, a: &Tensor, b: &Tensor, f: impl Binary) -> Result<Tensor> {
    check::same_type(op, a, b)?;
    let shape = broadcast_shape(op, a.dims(), b.dims())?;
    match a.device() {
        Device::Cpu => cpu::binary(op, a, b, &shape, f),
        Device::Cuda(ordinal) => cuda::binary(&Context::get(ordinal)?, op, a, b, &shape, f),
    }
}

/// NumPy's rule: shapes are aligned at their last dimensions, and a length of 1 is repeated.
pub(crate) fn broadcast_shape(op: &'static str, a: &[usize], b: &[usize]) -> Result<Shape> {
    let rank = a.len().max(b.len());
    let length = |dims: &[usize], d: usize| (d + dims.len()).checked_sub(rank).map_or(1, |d| dims[d]);
    let mut dims = Vec::with_capacity(rank);
    for d in 0..rank {
        dims.push(match (length(a, d), length(b, d)) {
            (a, b) if a == b => a,
            (1, b) => b,
            (a, 1) => a,
            _ => {
                let expected = format!("a shape that broadcasts with {a:?}");
                return Err(Error::ShapeMismatch { op, expected, got: b.to_vec() });
            }
        });
    }
    Shape::new(&dims)
}

// ---- The functions ----

/// Defines a public function, and the type that [`unary`] or [`binary`] runs for it.
macro_rules! function {
    ($(#[$doc:meta])* unary $name:ident, $type:ident, $module:ident::$kernel:ident, |$x:ident: $L:ident| $body:expr) => {
        #[derive(Clone, Copy)]
        pub(crate) struct $type;
        impl Unary for $type {
            #[inline(always)]
            fn apply<$L: Lanes>(self, $x: $L) -> $L { $body }
            fn launch(self, context: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
                context.launch($module::$kernel { x, n: y.numel() as u64, y })
            }
        }
        $(#[$doc])*
        ///
        /// # Errors
        /// `DTypeMismatch` for integers; `NotSupported` on CUDA but for F32 and BF16.
        pub fn $name($x: &Tensor) -> Result<Tensor> {
            unary(stringify!($name), $x, $type)
        }
    };
    ($(#[$doc:meta])* binary $name:ident, $type:ident, $module:ident::$kernel:ident, |$a:ident, $b:ident: $L:ident| $body:expr) => {
        #[derive(Clone, Copy)]
        pub(crate) struct $type;
        impl Binary for $type {
            #[inline(always)]
            fn apply<$L: Lanes>(self, $a: $L, $b: $L) -> $L { $body }
            fn launch(self, context: &Context, a: &Tensor, b: &Tensor, y: &mut Tensor) -> Result<()> {
                context.launch($module::$kernel { a, b, n: y.numel() as u64, y })
            }
        }
        $(#[$doc])*
        ///
        /// # Errors
        /// `ShapeMismatch` unless the shapes broadcast; `DTypeMismatch` for integers or two dtypes; `DeviceMismatch`.
        pub fn $name($a: &Tensor, $b: &Tensor) -> Result<Tensor> {
            binary(stringify!($name), $a, $b, $type)
        }
    };
}

function! {
    /// `a + b`, shapes broadcast. `da = db = dy`, each summed to its operand's shape by
    /// [`reduce_to_shape`](super::reduce::reduce_to_shape), here and below.
    binary add, Add, kernels::Add, |a, b: L| a + b
}
function! {
    /// `a - b`, shapes broadcast. `da = dy`, `db = -dy`.
    binary sub, Sub, kernels::Sub, |a, b: L| a - b
}
function! {
    /// `a * b`, shapes broadcast. `da = dy b`, `db = dy a`.
    binary mul, Mul, kernels::Mul, |a, b: L| a * b
}
function! {
    /// `a / b`, shapes broadcast. `da = dy / b`, `db = -dy y / b`.
    binary div, Div, kernels::Div, |a, b: L| a / b
}
function! {
    /// `-x`. `dx = -dy`.
    unary neg, Neg, kernels::Neg, |x: L| -x
}
function! {
    /// `e^x`. `dx = dy y`.
    unary exp, Exp, kernels::ExpForward, |x: L| x.exp()
}
function! {
    /// The natural logarithm: minus infinity at 0, NaN below. `dx = dy / x`.
    unary ln, Ln, kernels::LnForward, |x: L| x.ln()
}
function! {
    /// The square root, NaN below 0. For its gradient see [`sqrt_backward`].
    unary sqrt, Sqrt, kernels::SqrtForward, |x: L| x.sqrt()
}
function! {
    /// `dx = dy / (2 y)` with `y = sqrt(x)`.
    binary sqrt_backward, SqrtBackward, kernels::SqrtBackward, |dy, y: L| dy / (y + y)
}
function! {
    /// The hyperbolic tangent. For its gradient see [`tanh_backward`].
    unary tanh, Tanh, gelu::TanhForward, |x: L| x.tanh()
}
function! {
    /// `dx = dy (1 - y^2)` with `y = tanh(x)`.
    binary tanh_backward, TanhBackward, gelu::TanhBackward, |dy, y: L| dy * (-y).mul_add(y, L::constant(1.0))
}
function! {
    /// `max(x, 0)`; NaN stays NaN. For its gradient see [`relu_backward`].
    unary relu, Relu, gelu::ReluForward, |x: L| L::select(x.lt(L::constant(0.0)), L::constant(0.0), x)
}
function! {
    /// `dx = dy` where `y = relu(x)` is positive, else 0: the derivative at 0 is taken to be 0.
    binary relu_backward, ReluBackward, gelu::ReluBackward, |dy, y: L| L::select(L::constant(0.0).lt(y), dy, L::constant(0.0))
}

#[derive(Clone, Copy)]
struct Affine {
    factor: f64,
    term: f64,
}

impl Unary for Affine {
    #[inline(always)]
    fn apply<L: Lanes>(self, x: L) -> L {
        x * L::constant(self.factor) + L::constant(self.term)
    }

    fn launch(self, context: &Context, x: &Tensor, y: &mut Tensor) -> Result<()> {
        let (factor, term) = (self.factor as f32, self.term as f32);
        context.launch(kernels::Affine { x, n: y.numel() as u64, y, factor, term })
    }
}

/// `factor * x`. `dx = factor * dy`.
///
/// # Errors
/// `DTypeMismatch` for integers; `NotSupported` on CUDA but for F32 and BF16.
pub fn scale(x: &Tensor, factor: f64) -> Result<Tensor> {
    unary("scale", x, Affine { factor, term: 0.0 })
}

/// `x + term`. `dx = dy`.
///
/// # Errors
/// As [`scale`].
pub fn add_scalar(x: &Tensor, term: f64) -> Result<Tensor> {
    unary("add_scalar", x, Affine { factor: 1.0, term })
}

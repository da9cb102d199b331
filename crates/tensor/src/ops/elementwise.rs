//! Arithmetic element by element: `y = f(x)`, and `y = f(a, b)` with NumPy's broadcasting.
//!
//! A function of elements is a type with a method over [`Lanes`] and a kernel (`Unary`, `Binary`); the loops below run any
//! of them on any dtype, layout and instruction set. Results have the operands' dtype and are contiguous. Where a gradient
//! needs more than these functions, it stands below its function: `d`-names are gradients of the loss.

use super::check;
use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::cuda::{self, Context};
use crate::{Device, Error, Float, Result, Shape, Tensor, for_float};
use std::ops::Range;
use vitrine_kernels::{Launcher as _, elementwise as kernels, gelu};

/// Elements in a piece of parallel work: small enough for the second-level cache.
const CHUNK: usize = 1 << 15;

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
    if x.device() != Device::Cpu {
        return cuda::unary(op, x, f);
    }
    let operand = Operand::new(x, x.dims())?;
    let mut y = Tensor::empty(x.dims(), x.dtype(), x.device())?;
    let isa = Isa::current();
    for_float!(op, x.dtype(), E => for_each_run(&mut y, operand.gapless(), |range, y: &mut [E]| {
        simd::run(isa, UnaryLoop { x: operand.run(range), y, f });
    }))?;
    Ok(y)
}

/// `y[i] = f(a[i], b[i])` for float tensors of one dtype whose shapes broadcast.
pub(crate) fn binary(op: &'static str, a: &Tensor, b: &Tensor, f: impl Binary) -> Result<Tensor> {
    check::same_type(op, a, b)?;
    let shape = broadcast_shape(op, a.dims(), b.dims())?;
    if a.device() != Device::Cpu {
        return cuda::binary(op, a, b, &shape, f);
    }
    let mut y = Tensor::empty(&shape, a.dtype(), a.device())?;
    let (a, b) = (Operand::new(a, &shape)?, Operand::new(b, &shape)?);
    let isa = Isa::current();
    for_float!(op, y.dtype(), E => for_each_run(&mut y, a.gapless() && b.gapless(), |range, y: &mut [E]| {
        simd::run(isa, BinaryLoop { a: a.run(range.clone()), b: b.run(range), y, f });
    }))?;
    Ok(y)
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

/// Calls `work(range, y[range])` for runs of elements: pieces of the whole if `gapless`, else whole last dimensions.
fn for_each_run<E: Float>(
    y: &mut Tensor,
    gapless: bool,
    work: impl Fn(Range<usize>, &mut [E]) + Sync,
) -> Result<()> {
    let width = if gapless { CHUNK } else { y.shape().last_dim().max(1) };
    let piece = width * (CHUNK / width).max(1);
    parallel::for_each_chunk_mut(y.as_mut_slice::<E>()?, piece, |index, piece_of_y| {
        for (row, y) in piece_of_y.chunks_mut(width).enumerate() {
            let start = index * piece + row * width;
            work(start..start + y.len(), y);
        }
    });
    Ok(())
}

/// An operand, seen under the shape of the result: any strides, but elements of a last dimension that are neighbours or
/// one repeated element.
struct Operand(Tensor);

/// What an operand contributes to one run of the result.
enum Run<'a, E> {
    Elements(&'a [E]),
    Repeated(E),
}

impl Operand {
    fn new(x: &Tensor, dims: &[usize]) -> Result<Self> {
        let x = x.broadcast_to(dims)?;
        match x.strides().last() {
            Some(0 | 1) | None => Ok(Operand(x)),
            Some(_) => Ok(Operand(x.contiguous()?)),
        }
    }

    /// Whether any run of the result is a run of the operand.
    fn gapless(&self) -> bool {
        self.0.is_contiguous()
    }

    /// The elements for `range` of the result, which stays inside of one last dimension unless the operand is gapless.
    fn run<E: Float>(&self, range: Range<usize>) -> Run<'_, E> {
        let (layout, elements) = (self.0.layout(), self.0.storage().elements::<E>());
        if self.gapless() {
            let start = layout.offset();
            return Run::Elements(&elements[start + range.start..start + range.end]);
        }
        let start = layout.position(range.start);
        match layout.strides().last() {
            Some(0) => Run::Repeated(elements[start]),
            _ => Run::Elements(&elements[start..start + range.len()]),
        }
    }
}

struct UnaryLoop<'a, E, F> {
    x: Run<'a, E>,
    y: &'a mut [E],
    f: F,
}

impl<E: Float, F: Unary> Kernel<E::Real> for UnaryLoop<'_, E, F> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) {
        match self.x {
            Run::Elements(x) => simd::map(x, self.y, |x: L| self.f.apply(x)),
            Run::Repeated(x) => {
                let y = self.f.apply(splat::<L, E>(x));
                self.y.chunks_mut(L::LANES).for_each(|chunk| simd::store(y, chunk));
            }
        }
    }
}

struct BinaryLoop<'a, E, F> {
    a: Run<'a, E>,
    b: Run<'a, E>,
    y: &'a mut [E],
    f: F,
}

impl<E: Float, F: Binary> Kernel<E::Real> for BinaryLoop<'_, E, F> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Real = E::Real>>(self) {
        let (f, y) = (self.f, self.y);
        match (self.a, self.b) {
            (Run::Elements(a), Run::Elements(b)) => simd::map2(a, b, y, |a: L, b| f.apply(a, b)),
            (Run::Elements(a), Run::Repeated(b)) => {
                let b = splat::<L, E>(b);
                simd::map(a, y, |a| f.apply(a, b));
            }
            (Run::Repeated(a), Run::Elements(b)) => {
                let a = splat::<L, E>(a);
                simd::map(b, y, |b| f.apply(a, b));
            }
            (Run::Repeated(a), Run::Repeated(b)) => {
                let value = f.apply(splat::<L, E>(a), splat(b));
                y.chunks_mut(L::LANES).for_each(|chunk| simd::store(value, chunk));
            }
        }
    }
}

#[inline(always)]
fn splat<L: Lanes, E: Float<Real = L::Real>>(x: E) -> L {
    L::constant(x.to_f64())
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

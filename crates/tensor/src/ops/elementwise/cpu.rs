//! Loops of functions of elements on the CPU, for any dtype, layout and instruction set.

use super::{Binary, Unary};
use crate::cpu::isa::Isa;
use crate::cpu::parallel;
use crate::cpu::simd::{self, Kernel, Lanes};
use crate::{Float, Result, Tensor, for_float};
use std::ops::Range;

/// Elements in a piece of parallel work: small enough for the second-level cache.
const CHUNK: usize = 1 << 15;

pub(super) fn unary(op: &'static str, x: &Tensor, f: impl Unary) -> Result<Tensor> {
    let operand = Operand::new(x, x.dims())?;
    let mut y = Tensor::empty(x.dims(), x.dtype(), x.device())?;
    let isa = Isa::current();
    for_float!(op, x.dtype(), E => for_each_run(&mut y, operand.gapless(), |range, y: &mut [E]| {
        simd::run(isa, UnaryLoop { x: operand.run(range), y, f });
    }))?;
    Ok(y)
}

pub(super) fn binary(
    op: &'static str,
    a: &Tensor,
    b: &Tensor,
    dims: &[usize],
    f: impl Binary,
) -> Result<Tensor> {
    let mut y = Tensor::empty(dims, a.dtype(), a.device())?;
    let (a, b) = (Operand::new(a, dims)?, Operand::new(b, dims)?);
    let isa = Isa::current();
    for_float!(op, y.dtype(), E => for_each_run(&mut y, a.gapless() && b.gapless(), |range, y: &mut [E]| {
        simd::run(isa, BinaryLoop { a: a.run(range.clone()), b: b.run(range), y, f });
    }))?;
    Ok(y)
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

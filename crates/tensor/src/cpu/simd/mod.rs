//! Loops written once, run on every instruction set.
//!
//! A [`Kernel`] is a loop written over any [`Lanes`], a vector of as many reals as the instruction set holds.
//! [`run`] picks the instruction set and enters the kernel through one trampoline per set that carries
//! `#[target_feature]`; everything below it is `#[inline(always)]`, so it is compiled for that set. `Scalar<f64>`, one
//! lane, is the specification that all the others are tested against.

#[cfg(target_arch = "x86_64")]
pub(in crate::cpu) mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(test)]
mod every_path;
mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use crate::cpu::isa::{Available, Isa};
use crate::{Element, Float};
use half::{bf16, f16};
pub use scalar::Scalar;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// The most lanes of any instruction set.
pub const MAX_LANES: usize = 16;

/// A vector of reals. Arithmetic is lane by lane, IEEE, without reassociation except in the `reduce_*` methods.
pub trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// The element: f32, or f64 for the reference.
    type Real: Real;
    /// The result of a comparison.
    type Mask: Copy;
    /// How many elements; at most [`MAX_LANES`].
    const LANES: usize;
    /// How many vector registers the instruction set has: how large a register tile may be.
    const REGISTERS: usize = 32;

    /// The same value in every lane.
    fn splat(x: Self::Real) -> Self;

    /// `LANES` consecutive elements.
    ///
    /// # Safety
    /// `pointer` is valid for reads of `LANES` elements; no alignment is needed.
    unsafe fn load_real(pointer: *const Self::Real) -> Self;

    /// Writes `LANES` consecutive elements.
    ///
    /// # Safety
    /// `pointer` is valid for writes of `LANES` elements; no alignment is needed.
    unsafe fn store_real(self, pointer: *mut Self::Real);

    /// As [`Lanes::store_real`] of two vectors one after the other, past the caches if the instruction set can. [`fence`] has
    /// to follow on this thread before another one reads them.
    ///
    /// # Safety
    /// `pointer` is valid for writes of 2 `LANES` elements, and aligned to their size, or to 64 bytes where that is less.
    #[inline(always)]
    unsafe fn stream_reals(vectors: [Self; 2], pointer: *mut Self::Real) {
        // SAFETY: the caller's promise.
        unsafe {
            vectors[0].store_real(pointer);
            vectors[1].store_real(pointer.add(Self::LANES));
        }
    }

    /// As [`Lanes::stream_reals`], to bfloat16, rounded as by [`Lanes::store_bf16`].
    ///
    /// # Safety
    /// As [`Lanes::stream_reals`].
    #[inline(always)]
    unsafe fn stream_bf16s(vectors: [Self; 2], pointer: *mut bf16) {
        // SAFETY: the caller's promise.
        unsafe {
            vectors[0].store_bf16(pointer);
            vectors[1].store_bf16(pointer.add(Self::LANES));
        }
    }

    /// As [`Lanes::load_real`], from bfloat16: its bits, and zeros below them, also for NaN.
    ///
    /// # Safety
    /// As [`Lanes::load_real`].
    #[inline(always)]
    unsafe fn load_bf16(pointer: *const bf16) -> Self {
        // SAFETY: the caller's promise.
        unsafe { load_converted(pointer) }
    }

    /// As [`Lanes::store_real`], to bfloat16, rounding to nearest even; NaN becomes quiet and keeps its upper bits.
    ///
    /// # Safety
    /// As [`Lanes::store_real`].
    #[inline(always)]
    unsafe fn store_bf16(self, pointer: *mut bf16) {
        // SAFETY: the caller's promise.
        unsafe { store_converted(self, pointer, bf16::from_f32) }
    }

    /// As [`Lanes::load_real`], from binary16.
    ///
    /// # Safety
    /// As [`Lanes::load_real`].
    #[inline(always)]
    unsafe fn load_f16(pointer: *const f16) -> Self {
        // SAFETY: the caller's promise.
        unsafe { load_converted(pointer) }
    }

    /// As [`Lanes::store_real`], to binary16, rounding to nearest even.
    ///
    /// # Safety
    /// As [`Lanes::store_real`].
    #[inline(always)]
    unsafe fn store_f16(self, pointer: *mut f16) {
        // SAFETY: the caller's promise.
        unsafe { store_converted(self, pointer, f16::from_f32) }
    }

    /// The first and the second halves of `LANES` consecutive pairs of bfloat16, the first in the low bits.
    ///
    /// # Safety
    /// `pointer` is valid for reads of `LANES` pairs.
    #[inline(always)]
    unsafe fn load_bf16_pairs(pointer: *const u32) -> (Self, Self) {
        let mut halves = [[Self::Real::default(); MAX_LANES]; 2];
        for lane in 0..Self::LANES {
            // SAFETY: `lane < LANES`, which the caller promises to be readable.
            let pair = unsafe { pointer.add(lane).read() };
            for (half, bits) in halves.iter_mut().zip([pair << 16, pair & 0xffff_0000]) {
                half[lane] = Self::Real::from_f64(f64::from(f32::from_bits(bits)));
            }
        }
        // SAFETY: the buffers hold MAX_LANES elements.
        unsafe { (Self::load_real(halves[0].as_ptr()), Self::load_real(halves[1].as_ptr())) }
    }

    /// Writes `LANES` pairs of bfloat16, of which these are the first (low bits) and the second halves, rounded as
    /// [`Lanes::store_bf16`] rounds: the inverse of [`Lanes::load_bf16_pairs`].
    ///
    /// For the operands of products only: AVX-512-BF16 writes numbers below 2^-126 as zeros, for which its products, and
    /// those of AMX, take them anyway. See `gemm_bf16` for what that changes.
    ///
    /// # Safety
    /// `pointer` is valid for writes of `LANES` pairs.
    #[inline(always)]
    unsafe fn store_bf16_pairs(first: Self, second: Self, pointer: *mut u32) {
        let mut halves = [[bf16::ZERO; MAX_LANES]; 2];
        // SAFETY: the buffers hold MAX_LANES elements.
        unsafe {
            first.store_bf16(halves[0].as_mut_ptr());
            second.store_bf16(halves[1].as_mut_ptr());
        }
        for (lane, (low, high)) in halves[0].iter().zip(&halves[1]).enumerate().take(Self::LANES) {
            let pair = u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16;
            // SAFETY: `lane < LANES`, which the caller promises to be writable.
            unsafe { pointer.add(lane).write(pair) };
        }
    }

    /// Which of `LANES` 16-bit draws are below a threshold.
    ///
    /// # Safety
    /// `pointer` is valid for reads of `LANES` elements.
    #[inline(always)]
    unsafe fn below_u16(pointer: *const u16, threshold: u16) -> Self::Mask {
        let mut buffer = [Self::Real::default(); MAX_LANES];
        for (lane, slot) in buffer.iter_mut().enumerate().take(Self::LANES) {
            // SAFETY: `lane < LANES`, which the caller promises to be readable.
            *slot = Self::Real::from_f64(f64::from(unsafe { pointer.add(lane).read() }));
        }
        // SAFETY: the buffer holds MAX_LANES elements.
        unsafe { Self::load_real(buffer.as_ptr()) }.lt(Self::constant(f64::from(threshold)))
    }

    /// Copies the 8 x 8 block whose columns are contiguous and `stride` apart into rows `out_stride` apart.
    ///
    /// # Safety
    /// All elements of both blocks are valid, those of `out` exclusively.
    #[inline(always)]
    unsafe fn transpose_8x8(
        source: *const Self::Real,
        stride: usize,
        out: *mut Self::Real,
        out_stride: usize,
    ) {
        for row in 0..8 {
            for column in 0..8 {
                // SAFETY: elements of the blocks.
                unsafe { *out.add(row * out_stride + column) = *source.add(column * stride + row) };
            }
        }
    }

    /// `self * b + c` with one rounding.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// The larger, lane by lane; when one is NaN the result is either.
    fn max(self, other: Self) -> Self;
    /// The smaller, lane by lane; when one is NaN the result is either.
    fn min(self, other: Self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// Square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// Nearest integer, ties to even.
    fn round(self) -> Self;
    /// `self * 2^n` for an integer-valued `n` within ±300; overflows to infinity, underflows gradually.
    fn ldexp(self, n: Self) -> Self;
    /// `self < other`; false for NaN.
    fn lt(self, other: Self) -> Self::Mask;
    /// `yes` where the mask is set, else `no`.
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
    /// The sum of the lanes, in a fixed order.
    fn reduce_add(self) -> Self::Real;
    /// The largest lane.
    fn reduce_max(self) -> Self::Real;

    /// A constant, given in f64.
    #[inline(always)]
    fn constant(x: f64) -> Self {
        Self::splat(Self::Real::from_f64(x))
    }

    /// e^x: within 2 units in the last place, 0 below -104 and infinity above 88.73 in f32; NaN stays NaN.
    #[inline(always)]
    fn exp(self) -> Self {
        math::exp(self)
    }

    /// 2^x: within 2 units in the last place, 0 below -150 and infinity from 128 on in f32; NaN stays NaN.
    #[inline(always)]
    fn exp2(self) -> Self {
        math::exp2(self)
    }

    /// Natural logarithm, lane by lane: for a few values per row, not for long loops.
    #[inline(always)]
    fn ln(self) -> Self {
        let mut buffer = [Self::Real::default(); MAX_LANES];
        // SAFETY: the buffer holds MAX_LANES elements.
        unsafe { self.store_real(buffer.as_mut_ptr()) };
        for x in buffer.iter_mut().take(Self::LANES) {
            *x = Self::Real::from_f64(x.to_f64().ln());
        }
        // SAFETY: as above.
        unsafe { Self::load_real(buffer.as_ptr()) }
    }

    /// Hyperbolic tangent.
    #[inline(always)]
    fn tanh(self) -> Self {
        math::tanh(self)
    }

    /// The error function.
    #[inline(always)]
    fn erf(self) -> Self {
        math::erf(self)
    }
}

#[inline(always)]
unsafe fn load_converted<L: Lanes, F: Float>(pointer: *const F) -> L {
    let mut buffer = [L::Real::default(); MAX_LANES];
    for (lane, slot) in buffer.iter_mut().enumerate().take(L::LANES) {
        // SAFETY: `lane < LANES`, which the caller promises to be readable.
        *slot = L::Real::from_f64(unsafe { pointer.add(lane).read() }.to_f64());
    }
    // SAFETY: the buffer holds MAX_LANES elements.
    unsafe { L::load_real(buffer.as_ptr()) }
}

/// `round` takes an f32, which the reals beside a half type are: `half`'s conversions of an f64 look at its upper 32 bits
/// only, and round what lies just above a tie as if it were one.
#[inline(always)]
unsafe fn store_converted<L: Lanes, F>(lanes: L, pointer: *mut F, round: impl Fn(f32) -> F) {
    let mut buffer = [L::Real::default(); MAX_LANES];
    // SAFETY: the buffer holds MAX_LANES elements.
    unsafe { lanes.store_real(buffer.as_mut_ptr()) };
    for (lane, value) in buffer.iter().enumerate().take(L::LANES) {
        // SAFETY: `lane < LANES`, which the caller promises to be writable.
        unsafe { pointer.add(lane).write(round(value.to_f64() as f32)) };
    }
}

/// A loop over lanes, with its operands as fields.
pub trait Kernel<R: Real> {
    /// What the loop returns.
    type Output;
    /// The loop. Implementations are `#[inline(always)]`.
    fn run<L: Lanes<Real = R>>(self) -> Self::Output;
}

/// f32 or f64: what kernels compute in.
pub trait Real: Float<Real = Self> + PartialOrd + Sized {
    /// Runs a kernel with the lanes of an instruction set.
    fn dispatch<K: Kernel<Self>>(isa: Available, kernel: K) -> K::Output;
}

impl Real for f64 {
    /// The reference has one path.
    fn dispatch<K: Kernel<f64>>(_: Available, kernel: K) -> K::Output {
        kernel.run::<Scalar<f64>>()
    }
}

impl Real for f32 {
    fn dispatch<K: Kernel<f32>>(isa: Available, kernel: K) -> K::Output {
        match isa.isa() {
            // SAFETY: an `Available` is only made after the processor was found to have it.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 | Isa::Amx => unsafe { avx512::enter_bf16(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512::enter(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::enter(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => unsafe { neon::enter(kernel) },
            _ => kernel.run::<Scalar<f32>>(),
        }
    }
}

/// Runs a kernel with the lanes of `isa`. Take `isa` from [`Isa::current`] once per operation, on the calling thread.
#[inline]
pub fn run<R: Real, K: Kernel<R>>(isa: Available, kernel: K) -> K::Output {
    R::dispatch(isa, kernel)
}

// ---- Safe loops over slices: full vectors, then the tail through a buffer ----

/// Up to `LANES` elements from the front of a slice; missing lanes are `fill`.
#[inline(always)]
pub fn load<L: Lanes, F: Float<Real = L::Real>>(x: &[F], fill: L::Real) -> L {
    if x.len() >= L::LANES {
        // SAFETY: the slice holds LANES elements.
        return unsafe { F::load_lanes(x.as_ptr()) };
    }
    let mut buffer = [F::from_f64(fill.to_f64()); MAX_LANES];
    buffer[..x.len()].copy_from_slice(x);
    // SAFETY: the buffer holds MAX_LANES elements.
    unsafe { F::load_lanes(buffer.as_ptr()) }
}

/// Writes the first `y.len()` lanes, at most `LANES`.
#[inline(always)]
pub fn store<L: Lanes, F: Float<Real = L::Real>>(lanes: L, y: &mut [F]) {
    if y.len() >= L::LANES {
        // SAFETY: the slice holds LANES elements.
        return unsafe { F::store_lanes(lanes, y.as_mut_ptr()) };
    }
    let mut buffer = [F::default(); MAX_LANES];
    // SAFETY: the buffer holds MAX_LANES elements.
    unsafe { F::store_lanes(lanes, buffer.as_mut_ptr()) };
    y.copy_from_slice(&buffer[..y.len()]);
}

/// The lanes as they come back from memory as `F`.
#[inline(always)]
pub fn rounded<L: Lanes, F: Float<Real = L::Real>>(lanes: L) -> L {
    if F::DTYPE == L::Real::DTYPE {
        return lanes;
    }
    let mut buffer = [F::default(); MAX_LANES];
    // SAFETY: the buffer holds MAX_LANES elements.
    unsafe {
        F::store_lanes(lanes, buffer.as_mut_ptr());
        F::load_lanes(buffer.as_ptr())
    }
}

/// A slice's whole vectors, and the rest in a padded copy.
///
/// The loops below go through both with one body, without a look at lengths: a long closure that is called in two places
/// may not be inlined, and outside of the trampoline its instructions are function calls.
#[inline(always)]
fn whole_and_rest<L: Lanes, F: Float<Real = L::Real>>(x: &[F]) -> (&[F], [F; MAX_LANES], usize) {
    let (whole, rest) = x.split_at(x.len() - x.len() % L::LANES);
    let mut padded = [F::default(); MAX_LANES];
    if !rest.is_empty() {
        padded[..rest.len()].copy_from_slice(rest);
    }
    (whole, padded, if rest.is_empty() { 0 } else { L::LANES })
}

/// `y[i] = f(x[i])`.
#[inline(always)]
pub fn map<L: Lanes, X: Float<Real = L::Real>, Y: Float<Real = L::Real>>(
    x: &[X],
    y: &mut [Y],
    mut f: impl FnMut(L) -> L,
) {
    assert_eq!(x.len(), y.len());
    let (x, x_rest, rest) = whole_and_rest::<L, X>(x);
    let (y, y_end) = y.split_at_mut(x.len());
    let mut y_rest = [Y::default(); MAX_LANES];
    let zero = L::Real::default();
    for (x, y) in [(x, y), (&x_rest[..rest], &mut y_rest[..rest])] {
        for (x, y) in x.chunks_exact(L::LANES).zip(y.chunks_exact_mut(L::LANES)) {
            store(f(load(x, zero)), y);
        }
    }
    y_end.copy_from_slice(&y_rest[..y_end.len()]);
}

/// `y[i] = x[i]`, rounded, past the caches if the instruction set can: for results that are more than the caches hold, which
/// an ordinary store would read from memory first. [`fence`] has to follow on this thread before another one reads y.
#[inline(always)]
pub fn stream<L: Lanes, Y: Float<Real = L::Real>>(x: &[L::Real], y: &mut [Y]) {
    assert_eq!(x.len(), y.len());
    let zero = L::Real::default();
    let whole = if y.as_ptr().addr().is_multiple_of(64) { x.len() - x.len() % (2 * L::LANES) } else { 0 };
    let (y, y_rest) = y.split_at_mut(whole);
    for (x, y) in x.chunks_exact(2 * L::LANES).zip(y.chunks_exact_mut(2 * L::LANES)) {
        let (first, second) = x.split_at(L::LANES);
        // SAFETY: y has 2 LANES elements, and starts at a multiple of as many from an aligned one.
        unsafe { Y::stream_lanes::<L>([load(first, zero), load(second, zero)], y.as_mut_ptr()) };
    }
    map(&x[whole..], y_rest, |x: L| x);
}

/// Ends a run of [`stream`]: other threads that learn of this thread's progress see what it has written.
#[inline]
pub fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: an instruction of every x86-64 processor.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// `y[i] = f(a[i], b[i])`.
#[inline(always)]
pub fn map2<L: Lanes, A: Float<Real = L::Real>, B: Float<Real = L::Real>, Y: Float<Real = L::Real>>(
    a: &[A],
    b: &[B],
    y: &mut [Y],
    mut f: impl FnMut(L, L) -> L,
) {
    assert!(a.len() == y.len() && b.len() == y.len());
    let ((a, a_rest, rest), (b, b_rest, _)) = (whole_and_rest::<L, A>(a), whole_and_rest::<L, B>(b));
    let (y, y_end) = y.split_at_mut(a.len());
    let mut y_rest = [Y::default(); MAX_LANES];
    let zero = L::Real::default();
    for (a, b, y) in [(a, b, y), (&a_rest[..rest], &b_rest[..rest], &mut y_rest[..rest])] {
        let operands = a.chunks_exact(L::LANES).zip(b.chunks_exact(L::LANES));
        for ((a, b), y) in operands.zip(y.chunks_exact_mut(L::LANES)) {
            store(f(load(a, zero), load(b, zero)), y);
        }
    }
    y_end.copy_from_slice(&y_rest[..y_end.len()]);
}

/// `y[i] = f(y[i], x[i])`: accumulation in place.
#[inline(always)]
pub fn update<L: Lanes, X: Float<Real = L::Real>, Y: Float<Real = L::Real>>(
    y: &mut [Y],
    x: &[X],
    mut f: impl FnMut(L, L) -> L,
) {
    assert_eq!(x.len(), y.len());
    let (x, x_rest, rest) = whole_and_rest::<L, X>(x);
    let (y, y_end) = y.split_at_mut(x.len());
    let mut y_rest = [Y::default(); MAX_LANES];
    y_rest[..y_end.len()].copy_from_slice(y_end);
    let zero = L::Real::default();
    for (x, y) in [(x, y), (&x_rest[..rest], &mut y_rest[..rest])] {
        for (x, y) in x.chunks_exact(L::LANES).zip(y.chunks_exact_mut(L::LANES)) {
            store(f(load(y, zero), load(x, zero)), y);
        }
    }
    y_end.copy_from_slice(&y_rest[..y_end.len()]);
}

/// `y[i] = f(y[i])`.
#[inline(always)]
pub fn map_in_place<L: Lanes, Y: Float<Real = L::Real>>(y: &mut [Y], mut f: impl FnMut(L) -> L) {
    let (y, y_end) = y.split_at_mut(y.len() - y.len() % L::LANES);
    let (_, mut y_rest, rest) = whole_and_rest::<L, Y>(y_end);
    for y in [y, &mut y_rest[..rest]] {
        for y in y.chunks_exact_mut(L::LANES) {
            store(f(load(y, L::Real::default())), y);
        }
    }
    y_end.copy_from_slice(&y_rest[..y_end.len()]);
}

/// Folds a slice into lanes: `f(..f(f(init, x[0..]), x[LANES..])..)`; lanes past the end are `fill`.
#[inline(always)]
pub fn fold<L: Lanes, X: Float<Real = L::Real>>(
    x: &[X],
    init: L,
    fill: L::Real,
    mut f: impl FnMut(L, L) -> L,
) -> L {
    let (whole, mut padded, rest) = whole_and_rest::<L, X>(x);
    padded[x.len() - whole.len()..].fill(X::from_f64(fill.to_f64()));
    let mut accumulator = init;
    for x in [whole, &padded[..rest]] {
        for x in x.chunks_exact(L::LANES) {
            accumulator = f(accumulator, load(x, fill));
        }
    }
    accumulator
}

/// Vectors that are summed side by side, so that additions need not wait for each other.
const CHAINS: usize = 4;

/// The sum of `f` over a slice, in four interleaved accumulators. `f` must be short: a long closure may not be
/// inlined, and outside of the trampoline its instructions are function calls.
#[inline(always)]
pub fn sum<L: Lanes, X: Float<Real = L::Real>>(x: &[X], f: impl Fn(L) -> L) -> L::Real {
    let zero = L::Real::default();
    let mut sums = [L::splat(zero); CHAINS];
    let mut blocks = x.chunks_exact(CHAINS * L::LANES);
    for x in &mut blocks {
        for (sum, x) in sums.iter_mut().zip(x.chunks_exact(L::LANES)) {
            *sum = *sum + f(load(x, zero));
        }
    }
    for (sum, x) in sums.iter_mut().zip(blocks.remainder().chunks(L::LANES)) {
        *sum = *sum + first_lanes(f(load(x, zero)), x.len());
    }
    total(sums)
}

/// As [`sum`], of `f` over two slices of one length.
#[inline(always)]
pub fn sum2<L: Lanes, A: Float<Real = L::Real>, B: Float<Real = L::Real>>(
    a: &[A],
    b: &[B],
    f: impl Fn(L, L) -> L,
) -> L::Real {
    assert_eq!(a.len(), b.len());
    let zero = L::Real::default();
    let mut sums = [L::splat(zero); CHAINS];
    let (mut a_blocks, mut b_blocks) = (a.chunks_exact(CHAINS * L::LANES), b.chunks_exact(CHAINS * L::LANES));
    for (a, b) in (&mut a_blocks).zip(&mut b_blocks) {
        for ((sum, a), b) in sums.iter_mut().zip(a.chunks_exact(L::LANES)).zip(b.chunks_exact(L::LANES)) {
            *sum = *sum + f(load(a, zero), load(b, zero));
        }
    }
    let rest = a_blocks.remainder().chunks(L::LANES).zip(b_blocks.remainder().chunks(L::LANES));
    for (sum, (a, b)) in sums.iter_mut().zip(rest) {
        *sum = *sum + first_lanes(f(load(a, zero), load(b, zero)), a.len());
    }
    total(sums)
}

#[inline(always)]
fn total<L: Lanes>(sums: [L; CHAINS]) -> L::Real {
    ((sums[0] + sums[1]) + (sums[2] + sums[3])).reduce_add()
}

/// The first `count` lanes, and zero in the others.
#[inline(always)]
fn first_lanes<L: Lanes>(lanes: L, count: usize) -> L {
    if count >= L::LANES {
        return lanes;
    }
    let mut buffer = [L::Real::default(); MAX_LANES];
    // SAFETY: the buffer holds MAX_LANES elements.
    unsafe { lanes.store_real(buffer.as_mut_ptr()) };
    buffer[count..].fill(L::Real::default());
    // SAFETY: as above.
    unsafe { L::load_real(buffer.as_ptr()) }
}

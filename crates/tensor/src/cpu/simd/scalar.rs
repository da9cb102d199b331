//! One lane: the portable path in f32, and the specification in f64.

use super::Lanes;
use half::bf16;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// One real as a vector of one lane.
#[derive(Clone, Copy)]
pub struct Scalar<R>(pub R);

macro_rules! scalar {
    ($real:ty, { $($accurate:item)* }) => {
        impl Add for Scalar<$real> {
            type Output = Self;
            #[inline(always)]
            fn add(self, other: Self) -> Self { Scalar(self.0 + other.0) }
        }
        impl Sub for Scalar<$real> {
            type Output = Self;
            #[inline(always)]
            fn sub(self, other: Self) -> Self { Scalar(self.0 - other.0) }
        }
        impl Mul for Scalar<$real> {
            type Output = Self;
            #[inline(always)]
            fn mul(self, other: Self) -> Self { Scalar(self.0 * other.0) }
        }
        impl Div for Scalar<$real> {
            type Output = Self;
            #[inline(always)]
            fn div(self, other: Self) -> Self { Scalar(self.0 / other.0) }
        }
        impl Neg for Scalar<$real> {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self { Scalar(-self.0) }
        }
        impl Lanes for Scalar<$real> {
            type Real = $real;
            type Mask = bool;
            const LANES: usize = 1;
            #[inline(always)]
            fn splat(x: $real) -> Self { Scalar(x) }
            #[inline(always)]
            unsafe fn load_real(pointer: *const $real) -> Self {
                // SAFETY: the caller's promise.
                Scalar(unsafe { pointer.read_unaligned() })
            }
            #[inline(always)]
            unsafe fn store_real(self, pointer: *mut $real) {
                // SAFETY: the caller's promise.
                unsafe { pointer.write_unaligned(self.0) }
            }
            // Two roundings where there is no fused instruction: `mul_add` would be a slow library call.
            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self { Scalar(self.0 * b.0 + c.0) }
            #[inline(always)]
            fn max(self, other: Self) -> Self { Scalar(if self.0 > other.0 { self.0 } else { other.0 }) }
            #[inline(always)]
            fn min(self, other: Self) -> Self { Scalar(if self.0 < other.0 { self.0 } else { other.0 }) }
            #[inline(always)]
            fn abs(self) -> Self { Scalar(self.0.abs()) }
            #[inline(always)]
            fn sqrt(self) -> Self { Scalar(self.0.sqrt()) }
            #[inline(always)]
            fn round(self) -> Self { Scalar(self.0.round_ties_even()) }
            #[inline(always)]
            fn ldexp(self, n: Self) -> Self {
                // In two factors, so that neither over- nor underflows before the product does.
                let half = (n.0 * 0.5).floor();
                Scalar(self.0 * (2.0 as $real).powi(half as i32) * (2.0 as $real).powi((n.0 - half) as i32))
            }
            #[inline(always)]
            fn lt(self, other: Self) -> bool { self.0 < other.0 }
            #[inline(always)]
            fn select(mask: bool, yes: Self, no: Self) -> Self { if mask { yes } else { no } }
            #[inline(always)]
            fn reduce_add(self) -> $real { self.0 }
            #[inline(always)]
            fn reduce_max(self) -> $real { self.0 }
            $($accurate)*
        }
    };
}

scalar!(f32, {
    #[inline(always)]
    unsafe fn load_bf16(pointer: *const bf16) -> Self {
        // SAFETY: the caller's promise.
        let bits = unsafe { pointer.read_unaligned() }.to_bits();
        Scalar(f32::from_bits(u32::from(bits) << 16))
    }
});
scalar!(f64, {
    #[inline(always)]
    fn exp(self) -> Self {
        Scalar(self.0.exp())
    }
    #[inline(always)]
    fn exp2(self) -> Self {
        Scalar(self.0.exp2())
    }
    #[inline(always)]
    fn tanh(self) -> Self {
        Scalar(self.0.tanh())
    }
    #[inline(always)]
    fn erf(self) -> Self {
        Scalar(libm::erf(self.0))
    }
});
